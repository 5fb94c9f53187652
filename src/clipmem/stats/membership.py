"""Membership inference with reference models: does a pair's similarity tell that a model trained on it?

Each of R models in turn is the target, and the others are its references. An attack gives every pair a score under
every target. Arguments that do not fit raise `InputError`: other shapes, signals that are not finite or do not vary,
too few models on a side of a pair.

With each pair in the same number k of models, k - 1 members among the references would give away that the target is one
as well. Therefore each pair has a spare model on each side (that of the smallest of its keys), which is no reference
for targets of the other side. So a pair has k - 1 and R - k - 1 references, whether the target trained on it or not.
For a target with a complement, which shares its initial weights and trained on exactly the other pairs, the spare is
the complement: the side that it is on is the membership itself.

When not to trust it: the references know recipe, data and start, as few attackers do. A weak attack proves no privacy.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import log_softmax, logit, logsumexp
from scipy.stats import binom, mannwhitneyu, rankdata

from clipmem.base import slices
from clipmem.base.errors import require
from clipmem.base.progress import Advance
from clipmem.base.random import derive_seed, generator
from clipmem.stats.checks import ByModel, Codes, Mask, Member, as_finite, check_confidence, mean_where
from clipmem.stats.ranking import auroc, beta_bounds, threshold, two_classes

_SHRINKAGE = 4.0  # weight of the pooled variance, in models
_BLOCK = 4096  # pairs compared with the bank at a time
_ROWS = 60_000  # that a classifier learns from, at most
Values = Float[np.ndarray, " n"]
Scores = Float64[np.ndarray, "model n"]  # of each pair under each target


class InOut(NamedTuple):
    """Pairs under models that trained on some of them.

    Attributes:
        signal: A measure of each pair under each model, larger for pairs that the model trained on.
        member: Whether the model trained on the pair.
        keys: Random numbers, which choose the spare models.
        couple: Number of its couple, which a model shares with its complement only.
    """

    signal: ByModel
    member: Member
    keys: ByModel
    couple: Int[np.ndarray, " model"]


class References(NamedTuple):
    """Mean and shrunken variance of a pair over the references of a target: `[0]` unseen, `[1]` seen."""

    mean: Float64[np.ndarray, "2 model n"]
    variance: Float64[np.ndarray, "2 model n"]


class PairRisk(NamedTuple):
    """Risk of each pair, all in [0, 1] (see `pair_risk`).

    Attributes:
        risk: Share of the models that trained on the pair whose attack flags it.
        false_alarm: The same share of the models that did not.
        percentile: Mean over the models that trained on it of the share of their non-members with lower scores.
    """

    risk: Float64[np.ndarray, " n"]
    false_alarm: Float64[np.ndarray, " n"]
    percentile: Float64[np.ndarray, " n"]


def log_probability(
    image: Float64[np.ndarray, "n d"], text: Float64[np.ndarray, "n d"], bank: Mask, scale: float
) -> Float64[np.ndarray, " n"]:
    """Return log p of each pair from unit embeddings: minus the mean of the losses of its image and of its caption.

    The loss of an image is -log of the softmax probability, at similarities times `scale`, of its caption among this
    and the captions of the other pairs of `bank`; the loss of a caption is that among the images.
    """
    positive, others, log_p = scale * (image * text).sum(axis=1), np.flatnonzero(bank), np.zeros(len(image))
    for query, key in ((image, text), (text, image)):
        for rows in slices(len(image), _BLOCK):
            logits = scale * query[rows] @ key[others].T
            logits[others == np.arange(len(image))[rows, None]] = -np.inf
            log_p[rows] -= np.logaddexp(0, logsumexp(logits, axis=1) - positive[rows]) / 2
    return log_p


def loss_and_gradient(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "n d"], scale: float, *, batch: int = 64, seed: int = 0
) -> Float64[np.ndarray, "n 2"]:
    """Return the contrastive loss of each pair in a random batch, and the norm of the gradient of its embeddings.

    With unit embeddings u and v of a batch, P the softmax over captions and Q that over images of scale · u v', the
    loss of pair i is -(log P_ii + log Q_ii) / 2. The gradient of the sum of the losses is scale / 2 · (P + Q) v -
    scale · v by u, and scale / 2 · (P + Q)' u - scale · u by v; the norm of pair i is that of both its rows. Batches
    have 64 pairs, or a few more. As CLIP-MIA-Bench (Gomez 2026) measures them.
    """
    order, values = generator(seed, "contrastive batches").permutation(len(image)), np.empty((len(image), 2))
    for rows in np.array_split(order, max(1, len(order) // batch)):
        u, v = image[rows].astype(np.float64), text[rows].astype(np.float64)
        logits = scale * u @ v.T
        log_p, log_q = (np.asarray(log_softmax(logits, axis=axis)) for axis in (1, 0))
        both = np.exp(log_p) + np.exp(log_q) - 2 * np.eye(len(rows))
        norm = np.sqrt(((both @ v) ** 2).sum(axis=1) + ((both.T @ u) ** 2).sum(axis=1))
        values[rows] = np.stack([-(log_p + log_q).diagonal() / 2, scale / 2 * norm], axis=1)
    return values


def _checked(signal: ByModel, member: Bool[np.ndarray, "other_model other_n"], fewest: int) -> Scores:
    signal, hint = as_finite("signal", signal), "Train more models, each on about half of the pairs."
    require(signal.shape == member.shape, "member", f"shape {member.shape}", f"shape {signal.shape}", hint)
    least = int(min(side.sum(axis=0).min() for side in (member, ~member))) if member.size else 0
    expected = f"{fewest} or more that trained on each pair, and that did not"
    require(least >= fewest, "member", f"{least} models on one side of a pair", expected, hint)
    return signal


def _complements(pairs: InOut) -> tuple[Bool[np.ndarray, "model 1"], Int[np.ndarray, " model"]]:
    """Return whether each model has no complement, and the row of its complement if it has one."""
    member = pairs.member
    other = (pairs.couple[:, None] == pairs.couple) & ~np.eye(len(member), dtype=np.bool_)
    alone, complement = ~other.any(axis=1, keepdims=True), other.argmax(axis=1)
    complementary = other.sum() <= (~alone).sum() and (alone | (member[complement] != member)).all()
    got, hint = "models that share a number", "Give other models other numbers."
    require(complementary, "couple", got, "two that trained on complementary pairs", hint)
    return alone, complement


def references(pairs: InOut) -> References:
    """Return mean and variance of each pair over the references of each target; needs two models on each side.

    With SS the sum of squared deviations of the c references of a side, and s² = Σ SS / Σ (c - 1) over all pairs of the
    target, variance = (SS + 4 s²) / (c + 3).
    """
    member, keys, signal = pairs.member, pairs.keys, _checked(*pairs[:2], fewest=2)
    alone, complement = _complements(pairs)
    center = signal.mean(axis=0)
    values = signal - center
    means, variances = np.empty((2, *values.shape)), np.empty((2, *values.shape))
    for k, side in enumerate((~member, member)):
        spare = np.where(alone, np.where(side, keys, np.inf).argmin(axis=0), complement[:, None])
        removed = np.where(side, values, np.take_along_axis(values, spare, axis=0))
        count = side.sum(axis=0)
        mean = np.where(side, values, 0.0).sum(axis=0) / count
        squares = (np.where(side, values - mean, 0.0) ** 2).sum(axis=0)
        means[k] = (count * mean - removed) / (count - 1)
        # removing one of c values takes (x - mean)² c / (c - 1) from the sum; rounding must not leave less than 0
        reduced = np.maximum(squares - (removed - mean) ** 2 * count / (count - 1), 0.0)
        pooled = reduced.sum(axis=1, keepdims=True) / max(int((count - 2).sum()), 1)
        variances[k] = (reduced + _SHRINKAGE * pooled) / (count + 2)
    hint = "Check the embeddings: models of different seeds must differ."
    require(variances.min(initial=1) > 0, "signal", "equal values under all models", "values that vary", hint)
    return References(means + center, variances)


def lira(pairs: InOut) -> Scores:
    """Score by the likelihood-ratio attack (LiRA, Carlini et al. 2022) on a signal, with shrunken variances.

    log N(x; mean, variance of `references` that saw the pair) - log N(x; those of the others).
    """
    mean, variance = references(pairs)
    density = -0.5 * ((pairs.signal - mean) ** 2 / variance + np.log(variance))
    return density[1] - density[0]


def rmia(pairs: InOut, *, scale: float = 1.0) -> Scores:
    """Score by the relative attack (RMIA, Zarifzadeh et al. 2024), with p(x | model) = exp(scale signal).

    log p(x | target) - log p(x), where p(x) is half the mean over the references that saw the pair plus half that over
    the others. The published score, the share of other pairs with a lower ratio, orders a target's pairs in the same
    way. For signals in standard deviations, scales from .25 to 2 make little difference.
    """
    # the largest value divides both, so that nothing overflows
    exponent = scale * (_checked(*pairs[:2], fewest=2) - pairs.signal.max(axis=0))
    prior = references(pairs._replace(signal=np.exp(exponent))).mean.mean(axis=0)
    return exponent - np.log(np.maximum(prior, np.finfo(np.float64).tiny))  # rounding may leave 0


def _unseen(pairs: InOut, count: int) -> Iterator[Float64[np.ndarray, "reference n"]]:
    """Yield for each target the signals of `count` references that never trained on the pair, of the smallest keys.

    As in `references`, a target that trained on the pair does without one as well: its complement, or else the spare.
    """
    signal, (alone, complement) = _checked(*pairs[:2], fewest=2), _complements(pairs)
    limit = int((~pairs.member).sum(axis=0).min()) - 1
    hint = "Train more models, or ask for fewer references."
    require(1 <= count <= limit, "count", f"{count} references", f"1 to {limit} that never trained on a pair", hint)
    ranked = np.where(pairs.member, np.inf, pairs.keys).argsort(axis=0)[: count + 1]
    values = np.take_along_axis(signal, ranked, axis=0).T
    for target, inside in enumerate(pairs.member):
        spare = ranked[0] if alone[target, 0] else complement[target]
        usable = ranked != np.where(inside, spare, target)
        yield values[(usable & (usable.cumsum(axis=0) <= count)).T].reshape(-1, count).T


def offline_lira(pairs: InOut, count: int) -> Scores:
    """Score by the offline likelihood-ratio attack (Carlini et al. 2022): references that never trained on the pair.

    (x - mean) / sd over `count` references, which orders as the published one-sided 1 - P[Z > x] of Z ~ N(mean,
    variance), with the variance of `references`; with one reference it is 1 for all pairs.
    """
    scores = np.ones_like(pairs.signal, dtype=np.float64)
    for k, values in enumerate(_unseen(pairs, count)):
        squares = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        if count > 1:
            pooled = squares.mean() / (count - 1)
            hint = "Check the embeddings: models of different seeds must differ."
            require(pooled > 0, "signal", "equal values under all models", "values that vary", hint)
            scores[k] = np.sqrt((count + 3) / (squares + _SHRINKAGE * pooled))
        scores[k] *= pairs.signal[k] - values.mean(axis=0)
    return scores


def offline_rmia(pairs: InOut, count: int, *, corrections: Sequence[float] = (1.0,)) -> Scores:
    """Score by the offline relative attack (RMIA, Zarifzadeh et al. 2024), with p(x | model) = exp(signal).

    log p(x | target) - log p(x), with p(x) = ((1 + a) m + 1 - a) / 2 and m the mean over `count` references that never
    trained on the pair. If p are probabilities, a < 1 makes up for the models that did. Of `corrections`, each target
    has the a of the highest mean AUC over the models of other couples.
    """
    log_mean = np.stack([np.asarray(logsumexp(values, axis=0)) for values in _unseen(pairs, count)]) - np.log(count)
    parts = [(log_mean + np.log1p(a), np.log1p(-a) if a < 1 else -np.inf) for a in corrections]
    scores = np.stack([pairs.signal - np.logaddexp(*part) + np.log(2) for part in parts])
    auc = np.array([[auroc(*row).mean for row in zip(each, pairs.member, strict=True)] for each in scores])
    best = (auc @ (pairs.couple[:, None] != pairs.couple)).argmax(axis=0)
    return scores[best, np.arange(len(best))]


def _features(pairs: InOut) -> Float64[np.ndarray, "model n feature"]:
    reference, signal = references(pairs), pairs.signal
    (out, within), (out_sd, in_sd) = reference.mean, np.sqrt(reference.variance)
    far, near = (signal - out) / out_sd, (signal - within) / in_sd
    ratio = (far**2 - near**2) / 2 + np.log(out_sd / in_sd)
    gain = (within - out) / np.sqrt(reference.variance.mean(axis=0))
    return np.stack([ratio, signal, within, out, in_sd, out_sd, near, far, gain, signal - out], axis=-1)


def learned_attack(pairs: InOut, groups: Codes, *, seed: int = 0, progress: Advance = lambda _: None) -> Scores:
    """Score by a classifier that learned from other models and other pairs what members look like: log odds.

    Features of a pair under a model are its signal, mean and standard deviation of its references on both sides, the
    distances from both, and the score of `lira`. For each target and half of the pairs (`groups` are not divided),
    gradient-boosted trees (scikit-learn) learn from the other half under the other models, among which the target and
    its complement are no references either; from at most 60,000 rows, sampled with `seed`. They must not know the pair:
    in how many other models it is, and which references its other rows lack, would give away the target's membership.
    Needs three models on each side. `progress` is called with 1 after each target.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import

    signal = _checked(*pairs[:2], fewest=3)
    every, scores = _features(pairs), np.empty_like(signal)
    codes = np.unique(groups, return_inverse=True)[1]
    first = generator(seed, "learned attack").permutation(codes.max() + 1)[codes] % 2 == 0
    for target in range(len(signal)):
        rest = InOut(*(values[pairs.couple != pairs.couple[target]] for values in pairs))
        features = _features(rest)
        for half in (first, ~first):
            examples, answer = features[:, ~half].reshape(-1, every.shape[2]), rest.member[:, ~half].ravel()
            rows = generator(seed, "learned attack", target).permutation(len(examples))[:_ROWS]
            trees = HistGradientBoostingClassifier(
                learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=40, early_stopping=cast("str", False)
            ).fit(examples[rows], answer[rows])
            scores[target, half] = trees.decision_function(every[target, half])
        progress(1)
    return scores


class Traits(NamedTuple):
    """What an attacker sees of some pairs: signals that are larger for members, and features to learn from."""

    signal: Float[np.ndarray, "n s"]
    features: Float[np.ndarray, "n q"]

    def rows(self, rows: Int[np.ndarray, " k"]) -> "Traits":
        """Return some rows."""
        return Traits(self.signal[rows], self.features[rows])


def weakly_supervised(
    unseen: Traits, pool: Traits, features: Float[np.ndarray, "n q"], *, threshold: float
) -> Float64[np.ndarray, " n"]:
    """Score pairs by a classifier of pairs that seem to be members, for an attacker who knows some non-members.

    Known non-members, `unseen`, have means and standard deviations of each signal. Pairs of the mixed `pool` whose mean
    distance from these, in standard deviations, is above the threshold are pseudo-members. Logistic regression
    (scikit-learn) of standardized features tells these from the non-members. After Ko et al. 2023, with the cosine as
    signal, image, caption and cosine as features, threshold 0.5; with minus loss and gradient (`loss_and_gradient`) as
    both, threshold 0, it is the attack of Gomez 2026. Returns log odds.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mean, sd = (of(as_finite("signal", unseen.signal), axis=0) for of in (np.mean, np.std))
    require(sd.min() > 0, "signal", "one value for all non-members", "values that differ", "Check the embeddings.")
    likely = ((pool.signal - mean) / sd).mean(axis=1) > threshold
    examples = np.concatenate([unseen.features, pool.features[likely]])
    label = np.arange(len(examples)) >= len(unseen.features)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    return classifier.fit(examples, label).decision_function(features).astype(np.float64)


def cross_fitted(pairs: Traits, member: Mask, *, threshold: float, seed: int = 0) -> Float64[np.ndarray, " n"]:
    """Score each pair by `weakly_supervised` of four other fifths: their non-members are known, all are the pool.

    Scores are ranks in a fifth, above 0 and at most 1. At most 60,000 pairs are learned from, sampled with `seed`.
    """
    from sklearn.model_selection import StratifiedKFold

    scores, names = np.empty(len(member)), (seed, "weakly supervised")
    folds = StratifiedKFold(5, shuffle=True, random_state=derive_seed(*names) % 2**32)
    for others, tested in folds.split(member, member):
        pool = generator(*names).permutation(others)[:_ROWS]
        unseen = pairs.rows(pool[~member[pool]])
        odds = weakly_supervised(unseen, pairs.rows(pool), pairs.features[tested], threshold=threshold)
        scores[tested] = rankdata(odds) / len(tested)
    return scores


def rate_intervals(
    scores: Values, positive: Mask, rates: Float[np.ndarray, " rate"], *, confidence: float = 0.95
) -> Float64[np.ndarray, "2 rate"]:
    """Return intervals of the true positive rates at false positive rates r, of at least this confidence.

    How many of Q negatives are above the threshold of r has the distribution Binomial(Q, r): its quantiles bound the
    threshold, and Clopper & Pearson's limits the rate of positives above each bound, each with an error of
    (1 - confidence) / 4. Where Q r is small, no threshold is high enough for sure: the interval begins at 0.
    """
    check_confidence(confidence)
    tail, count = (1 - confidence) / 4, int(positive.sum())
    few, many = (binom.ppf(q, len(scores) - count, rates).astype(int) for q in (tail, 1 - tail))
    thresholds = np.concatenate([[np.inf], -np.sort(-scores[~positive]), [-np.inf]])
    ends = [(scores[positive] >= thresholds[above][:, None]).sum(axis=1, dtype=float) for above in (few, many + 1)]
    level = (1 + confidence) / 2
    return np.array([[beta_bounds(k, count, level)[end] for k in row.tolist()] for end, row in enumerate(ends)])


def set_p_value(attacks: Sequence[Values], member: Mask) -> float:
    """Bound the probability that any of several attacks scores a set this high that the model did not train on.

    min(1, number of attacks · the smallest p), with p by Mann and Whitney's U test, one-sided, by the normal
    approximation with ties and a correction for continuity. It needs members and others that were drawn independently
    from one source. Many pairs make it small where no attack tells a single pair.

    Example:
        >>> set_p_value([np.arange(20.0), np.zeros(20)], np.arange(20) >= 10) < 0.001
        True
    """
    scores = [two_classes(attack, member) for attack in attacks]
    tests = [mannwhitneyu(x[member], x[~member], alternative="greater", method="asymptotic") for x in scores]
    return min(1.0, len(tests) * min(float(test.pvalue) for test in tests))


def pair_risk(scores: ByModel, member: Member, *, fpr: float = 0.01) -> PairRisk:
    """Return the risk of each pair: the probability that the attack at `fpr` flags it where it is a member.

    A target flags the pairs above the lowest threshold that at most a share `fpr` of its non-members exceeds. Some
    pairs are flagged often whether or not the target trained on them, so what an attacker gains is risk - false_alarm,
    the advantage. Both are shares of few models, and the highest of them are too high, by selection (`exposed_share`).
    """
    scores = _checked(scores, member, 1)
    flags, percentile = np.empty_like(member), np.empty_like(scores)
    for k, (row, inside) in enumerate(zip(scores, member, strict=True)):
        hint = "Train each model on a part of the pairs."
        require(not inside.all(), "member", f"all {len(inside)} pairs in model {k}", "non-members", hint)
        others = np.sort(row[~inside])
        flags[k] = row > threshold(others, fpr)
        percentile[k] = (np.searchsorted(others, row) + np.searchsorted(others, row, side="right")) / 2 / len(others)
    return PairRisk(mean_where(flags, member), mean_where(flags, ~member), mean_where(percentile, member))


def exposed_share(pairs: InOut, *, fpr: float = 0.01, top: float = 0.01) -> float | None:
    """Return the share of all advantage (`pair_risk` by `lira`) that the `top` share of pairs by advantage carries.

    Every second couple (a model without a complement is one) is in the first half of the models. In each half, attacks
    have only its models as references: a shared reference makes the same pair look exposed in both. One half ranks the
    pairs by advantage, then percentile; the other measures. Over both directions, the advantage of the first
    ceil(top · n) is divided by that of all, and cut to [0, 1]. It is about `top` where all leak alike.

    Pairs with fewer than two models on a side in a half are left out. None if in a half no pair has three on a side
    (below ten models, or six couples), or without advantage.
    """
    first = np.unique(pairs.couple, return_inverse=True)[1] % 2 == 0
    counts = np.stack([side[rows].sum(axis=0) for rows in (first, ~first) for side in (pairs.member, ~pairs.member)])
    usable = counts.min(axis=0) >= 2
    if not (counts[:, usable] > 2).any(axis=1).all():
        return None
    cells = [(rows, np.ix_(rows, usable)) for rows in (first, ~first)]
    halves = [InOut(*(values[cell] for values in pairs[:3]), couple=pairs.couple[rows]) for rows, cell in cells]
    risks = [pair_risk(lira(half), half.member, fpr=fpr) for half in halves]
    gains = [risk.risk - risk.false_alarm for risk in risks]
    ranked = [np.lexsort((-risk.percentile, -gain)) for risk, gain in zip(risks, gains, strict=True)]
    exposed = [rows[: int(np.ceil(top * len(rows)))] for rows in ranked]
    total = float(gains[0].sum() + gains[1].sum())
    carried = float(gains[1][exposed[0]].sum() + gains[0][exposed[1]].sum())
    return min(max(carried / total, 0.0), 1.0) if total > 0 else None


def epsilon_bound(correct: int, guesses: int, *, confidence: float = 0.95) -> float:
    """Return the lower bound of ε that follows from `correct` of `guesses` of memberships; 0 if nothing follows.

    If training is (ε, 0)-differentially private and memberships are independent fair coins, v or more of r guesses are
    correct with a probability of at most P[Binomial(r, e^ε / (1 + e^ε)) >= v] (Steinke, Nasr & Jagielski 2023, "Privacy
    Auditing with One (1) Training Run", corollary 5.4 with δ = 0). The bound is the largest ε for which that is at most
    1 - confidence: the logit of Clopper & Pearson's lower limit. Guesses may depend on each other and on the model.

    Example:
        >>> round(epsilon_bound(75, 100), 3), epsilon_bound(50, 100)
        (0.702, 0.0)
    """
    check_confidence(confidence)
    require(0 <= correct <= guesses, "correct", f"{correct}", f"0 to {guesses}", "Count the guesses that were correct.")
    rate = beta_bounds(float(correct), guesses, 2 * confidence - 1)[0] if guesses else 0.0
    return float(logit(rate)) if rate > 0.5 else 0.0


def correct_guesses(scores: Values, member: Mask, guesses: int, stream: np.random.Generator) -> int:
    """Guess which of two matched pairs is the member, under a fixed-size random split; return how often it was.

    Each pair of the smaller side is matched with a random one of the other. If all sets of as many members are equally
    likely, then for any matching, which of two matched pairs is the member is a fair coin, independent of the others.
    Therefore `epsilon_bound` holds, with neighbors that differ in one *replaced* pair. (Training that is ε-private if a
    pair is added or removed is 2ε-private if one is replaced.) The guess is the pair with the higher score, for the
    `guesses` couples whose scores differ most; equal scores count as wrong.
    """
    sides = [stream.permutation(np.flatnonzero(side)) for side in (member, ~member)]
    couples, hint = min(map(len, sides)), "Guess fewer, or audit more pairs."
    require(guesses <= couples, "guesses", f"{guesses}", f"at most {couples}, the pairs of the smaller side", hint)
    gaps = scores[sides[0][:couples]] - scores[sides[1][:couples]]
    return int((gaps[np.argsort(-np.abs(gaps), kind="stable")[:guesses]] > 0).sum())


def epsilon_over_targets(correct: Sequence[int], guesses: int, *, confidence: float = 0.95) -> float:
    """Return a lower bound of ε from several models that one algorithm trained, whose guesses may be dependent.

    That of the k-th best of T models, k = T / 2 rounded up, with an error of (1 - confidence) k / T: by Markov's
    inequality, the bounds of k or more models exceed ε with a probability of at most 1 - confidence.
    """
    middle = (len(correct) + 1) // 2
    level = 1 - (1 - confidence) * middle / len(correct)
    return epsilon_bound(sorted(correct, reverse=True)[middle - 1], guesses, confidence=level)
