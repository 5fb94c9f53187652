"""Membership inference as plain loops over Python floats; no code in common with `clipmem.functional`."""

import math
from collections.abc import Sequence
from math import fsum

Rows = Sequence[Sequence[float]]
Members = Sequence[Sequence[bool]]


def reference_models(
    member: Members, keys: Rows, couple: Sequence[int], target: int, pair: int, *, seen: bool
) -> list[int]:
    """The references of a target for a pair: all models of a side without the target and its complement.

    A target without a complement has no references among the spare models of the other side.
    """
    side = [r for r in range(len(member)) if member[r][pair] == seen]
    others = [r for r in side if couple[r] != couple[target]]
    if len(others) < len(side):
        return others
    spare = min(side, key=lambda r: keys[r][pair])
    return [r for r in side if r != spare]


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _squares(values: Sequence[float]) -> float:
    return fsum((value - _mean(values)) ** 2 for value in values)


def lira(signal: Rows, member: Members, keys: Rows, couple: Sequence[int]) -> list[list[float]]:
    """log N(x; in) - log N(x; out), with variances (SS + 4 pooled) / (c + 3)."""
    scores: list[list[float]] = []
    for target in range(len(signal)):
        pairs = range(len(signal[target]))
        own = {
            seen: [[signal[r][i] for r in reference_models(member, keys, couple, target, i, seen=seen)] for i in pairs]
            for seen in (False, True)
        }
        pooled = {
            seen: fsum(map(_squares, values)) / sum(len(one) - 1 for one in values) for seen, values in own.items()
        }
        row: list[float] = []
        for i in pairs:
            density = {}
            for seen in (False, True):
                values = own[seen][i]
                variance = (_squares(values) + 4 * pooled[seen]) / (len(values) + 3)
                gap = signal[target][i] - _mean(values)
                density[seen] = -(gap**2) / (2 * variance) - math.log(variance) / 2
            row.append(density[True] - density[False])
        scores.append(row)
    return scores


def rmia(signal: Rows, member: Members, keys: Rows, couple: Sequence[int], scale: float) -> list[list[float]]:
    """log of exp(scale x) / half the sum of its means over both sides."""
    scores: list[list[float]] = []
    for target, own in enumerate(signal):
        row: list[float] = []
        for i, value in enumerate(own):
            sides = [reference_models(member, keys, couple, target, i, seen=seen) for seen in (False, True)]
            means = [_mean([math.exp(scale * signal[r][i]) for r in side]) for side in sides]
            row.append(math.log(math.exp(scale * value) / _mean(means)))
        scores.append(row)
    return scores


def _unseen(pairs: tuple[Rows, Members, Rows, Sequence[int]], target: int, pair: int, count: int) -> list[float]:
    """Signals of the `count` references of smallest keys, of those that never trained on the pair."""
    signal, member, keys, couple = pairs
    models = reference_models(member, keys, couple, target, pair, seen=False)
    if member[target][pair] is False:  # the target itself is none
        models = [r for r in range(len(member)) if not member[r][pair] and r != target]
    return [signal[r][pair] for r in sorted(models, key=lambda r: keys[r][pair])[:count]]


def offline_lira(pairs: tuple[Rows, Members, Rows, Sequence[int]], count: int) -> list[list[float]]:
    """The distance from the mean of the references in standard deviations, variance (SS + 4 pooled) / (count + 3)."""
    signal, scores = pairs[0], list[list[float]]()
    for target in range(len(signal)):
        values = [_unseen(pairs, target, i, count) for i in range(len(signal[target]))]
        pooled = fsum(map(_squares, values)) / (len(values) * (count - 1)) if count > 1 else 1.0
        variances = [(_squares(v) + 4 * pooled) / (count + 3) if count > 1 else 1.0 for v in values]
        gaps = [value - _mean(v) for value, v in zip(signal[target], values, strict=True)]
        scores.append([gap / math.sqrt(variance) for gap, variance in zip(gaps, variances, strict=True)])
    return scores


def offline_rmia(
    pairs: tuple[Rows, Members, Rows, Sequence[int]], count: int, correction: float = 1.0
) -> list[list[float]]:
    """log of p / p(x), p = exp(x), p(x) = ((1 + a) mean + 1 - a) / 2 over the references."""
    return [
        [
            math.log(
                2
                * math.exp(x)
                / ((1 + correction) * _mean([math.exp(v) for v in _unseen(pairs, target, i, count)]) + 1 - correction)
            )
            for i, x in enumerate(row)
        ]
        for target, row in enumerate(pairs[0])
    ]


def population_share(ratio: Sequence[float], population: Sequence[float], gamma: float) -> list[float]:
    """The published score of RMIA: the share of population pairs whose ratio, times gamma, is at most the pair's."""
    return [sum(x >= gamma * z for z in population) / len(population) for x in ratio]


def log_probability(image: Rows, text: Rows, bank: Sequence[bool], scale: float) -> list[float]:
    """Minus the mean cross entropy of image and caption, among the pair itself and the others of the bank."""

    def dot(first: Sequence[float], second: Sequence[float]) -> float:
        return scale * fsum(a * b for a, b in zip(first, second, strict=True))

    found: list[float] = []
    for i in range(len(image)):
        others = [j for j in range(len(image)) if bank[j] and j != i]
        positive = math.exp(dot(image[i], text[i]))
        to_text = positive / fsum([positive, *(math.exp(dot(image[i], text[j])) for j in others)])
        to_image = positive / fsum([positive, *(math.exp(dot(image[j], text[i])) for j in others)])
        found.append((math.log(to_text) + math.log(to_image)) / 2)
    return found


def flags(scores: Rows, member: Members, fpr: float) -> list[list[bool]]:
    """Pairs above the smallest score of a non-member that at most `fpr` of the non-members exceed."""
    found: list[list[bool]] = []
    for row, own in zip(scores, member, strict=True):
        others = [score for score, inside in zip(row, own, strict=True) if not inside]
        allowed = [t for t in others if sum(score > t for score in others) <= fpr * len(others)]
        found.append([score > min(allowed) for score in row])
    return found


def risk(scores: Rows, member: Members, fpr: float) -> list[float]:
    """Share of the models that trained on a pair in which it is flagged."""
    raised = flags(scores, member, fpr)
    models = range(len(member))
    return [_mean([float(raised[r][i]) for r in models if member[r][i]]) for i in range(len(member[0]))]


def tpr(scores: Sequence[float], positive: Sequence[bool], fpr: float) -> float:
    """The largest share of positives above a threshold that at most `fpr` of the others exceed; without ties."""
    inside = [s for s, p in zip(scores, positive, strict=True) if p]
    others = [s for s, p in zip(scores, positive, strict=True) if not p]
    allowed = [t for t in [*scores, -math.inf] if sum(s > t for s in others) <= fpr * len(others)]
    return max(sum(s > t for s in inside) / len(inside) for t in allowed)


def tail(correct: int, guesses: int, epsilon: float) -> float:
    """P[Binomial(guesses, e^ε / (1 + e^ε)) >= correct]."""
    rate = 1 / (1 + math.exp(-epsilon))
    values = range(correct, guesses + 1)
    return fsum(math.comb(guesses, k) * rate**k * (1 - rate) ** (guesses - k) for k in values)


def epsilon_bound(correct: int, guesses: int, confidence: float) -> float:
    """The largest ε whose tail is at most 1 - confidence, by bisection; 0 if there is none."""
    low, high = 0.0, 30.0
    if tail(correct, guesses, low) > 1 - confidence:
        return 0.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(correct, guesses, middle) <= 1 - confidence else (low, middle)
    return low


def correct_guesses(couples: Sequence[tuple[float, float]], guesses: int) -> int:
    """How many of the couples (member, other) whose scores differ most have the higher score at the member."""
    surest = sorted(couples, key=lambda couple: -abs(couple[0] - couple[1]))[:guesses]
    return sum(member > other for member, other in surest)


def set_p_value(attacks: Rows, member: Sequence[bool]) -> float:
    """Smallest normal approximation of U, counted pair by pair, half for ties, times the number of attacks."""
    smallest = 1.0
    for scores in attacks:
        inside = [s for s, m in zip(scores, member, strict=True) if m]
        others = [s for s, m in zip(scores, member, strict=True) if not m]
        m, n, total = len(inside), len(others), len(scores)
        u = fsum((a > b) + 0.5 * (a == b) for a in inside for b in others)
        ties = fsum(k**3 - k for k in (scores.count(s) for s in set(scores)))
        variance = m * n / 12 * (total + 1 - ties / (total * (total - 1)))
        z = (u - m * n / 2 - 0.5) / math.sqrt(variance) if variance else -math.inf
        smallest = min(smallest, 0.5 * math.erfc(z / math.sqrt(2)))
    return min(1.0, len(attacks) * smallest)


def over_target(scores: Sequence[float], inside: Sequence[bool], fpr: float) -> list[tuple[float, list[float]]]:
    """AUC and rate of a target, counted pair by pair, each with what every pair adds to it to first order."""
    pairs = range(len(scores))
    sides = {side: [i for i in pairs if inside[i] == side] for side in (True, False)}
    won = [
        _mean([(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for j in sides[False]])
        if inside[i]
        else _mean([(scores[j] > scores[i]) + 0.5 * (scores[i] == scores[j]) for j in sides[True]])
        for i in pairs
    ]
    auc = _mean([won[i] for i in sides[True]])
    raised = flags([scores], [inside], fpr)[0]
    share = _mean([float(raised[i]) for i in sides[True]])
    of_rate = [(raised[i] - share) / len(sides[True]) if inside[i] else 0.0 for i in pairs]
    of_auc = [(won[i] - auc) / len(sides[inside[i]]) for i in pairs]
    return [(auc, of_auc), (tpr(scores, inside, fpr), of_rate)]


def exposed_share(pairs: tuple[Rows, Members, Rows, Sequence[int]], fpr: float, top: float) -> float | None:
    """The part of all advantage that the pairs of most advantage in one half have in the other, in both directions.

    A half of the couples attacks by itself, the pairs that two or more of its models have and have not.
    """
    numbers = sorted(set(pairs[3]))
    halves = [[r for r in range(len(pairs[3])) if numbers.index(pairs[3][r]) % 2 == k] for k in (0, 1)]
    columns = [[[pairs[1][r][i] for r in half] for half in halves] for i in range(len(pairs[1][0]))]
    counts = [[inside.count(side) for inside in column for side in (True, False)] for column in columns]
    usable = [i for i, count in enumerate(counts) if min(count) >= 2]
    if not all(any(counts[i][k] > 2 for i in usable) for k in range(4)):
        return None
    standing: list[list[tuple[float, float]]] = []
    for half in halves:
        inside = [[pairs[1][r][i] for i in usable] for r in half]
        signal, keys = ([[values[r][i] for i in usable] for r in half] for values in (pairs[0], pairs[2]))
        scores = lira(signal, inside, keys, [pairs[3][r] for r in half])
        raised, models = flags(scores, inside, fpr), range(len(half))
        rows: list[tuple[float, float]] = []
        for i in range(len(usable)):
            sides = [[float(raised[r][i]) for r in models if inside[r][i] == side] for side in (True, False)]
            beaten: list[float] = []
            for r in models:
                if inside[r][i]:
                    others = [score for score, seen in zip(scores[r], inside[r], strict=True) if not seen]
                    beaten.append(_mean([float(score < scores[r][i]) for score in others]))
            rows.append((_mean(sides[0]) - _mean(sides[1]), _mean(beaten)))
        standing.append(rows)
    size, total, carried = math.ceil(top * len(usable)), 0.0, 0.0
    for first, second in (standing, standing[::-1]):
        order = sorted(range(len(usable)), key=lambda i: first[i], reverse=True)
        carried += fsum(second[i][0] for i in order[:size])
        total += fsum(gain for gain, _ in second)
    return min(max(carried / total, 0.0), 1.0) if total > 0 else None
