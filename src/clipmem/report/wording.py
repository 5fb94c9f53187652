"""The report's sentences, made from the numbers of `summary.json` alone.

Every sentence that judges (found, not found, better, worse) is bound to an interval here, so that no report
claims more than its numbers do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from clipmem.report.numbers import excludes_zero, interval, level, plain, signed

EXPECTED = {
    "candidate": "above 0: f trained on them, g did not",
    "independent": "below 0, the candidates' mirror: g trained on them, f did not",
    "shared": "about 0: both trained on them",
    "external": "about 0: neither trained on them; the control and the bank",
}
# what a two-way bootstrap over pairs and seeds can and cannot say
_INTERVALS = {
    1: "Intervals of means come from resampling pairs; with one seed they say nothing about another training run.",
    2: "Intervals of means come from resampling pairs and seeds; with fewer than about five seeds they are "
    "too narrow for what another training run would give.",
}
TRAINED_BY = {"candidate": "f only", "independent": "g only", "shared": "f and g", "external": "neither"}


def headline(summary: Mapping[str, Any]) -> str:
    """Say in one line what was found, judged by the candidates' interval."""
    candidate = summary["roles"]["candidate"]
    if candidate["low"] is None or not excludes_zero(candidate):
        return "No memorization shown on average"
    if candidate["mean"] > 0:
        return "The model memorized pairs it was trained on"
    return "The candidates score below 0: check this run"


def what_was_found(summary: Mapping[str, Any]) -> list[str]:
    """Say the main numbers in plain words, one sentence each, every number with its interval."""
    roles, confidence = summary["roles"], level(summary["confidence"])
    candidate = roles["candidate"]
    verdict = "which excludes 0" if excludes_zero(candidate) else "which does not exclude 0"
    sentences = [
        f"The {candidate['n']:,} candidates, which the target model f trained on and the reference model "
        f"g did not, score {signed(candidate['mean'])} on average ({confidence} interval "
        f"{interval(candidate, sign=True)}, {verdict})."
    ]
    if "external" in roles:
        external = roles["external"]
        verdict = "; as it should be, the interval holds 0."
        if excludes_zero(external):
            verdict = ". This interval excludes 0: part of the score has another cause than training on the pair."
        sentences.append(
            f"The {external['n']:,} external pairs, which neither model trained on, score "
            f"{signed(external['mean'])} {interval(external, sign=True)}{verdict}"
        )
    planted = summary["planted"]
    if planted:
        how = (
            "better than chance"
            if planted["low"] is not None and planted["low"] > 0.5
            else "not shown to be better than chance"
        )
        sentences.append(
            f"{planted['n']:,} of the candidates were planted: trained with another pair's captions. "
            f"Ranking by CLIPMem finds them with an AUROC of {plain(planted['auroc'])} "
            f"{interval(planted)}, {how} (0.5)."
        )
    return sentences


def trust(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what the number means, its range, and when not to trust it: pairs of a heading and a text."""
    seeds, weight = len(summary["seeds"]), float(summary["weight"])
    bound = plain(2 * (1 + 2 * weight), 1).removesuffix(".0")
    count = {
        1: "This run has one seed, so no score has an error",
        2: "This run has two seeds, so the errors are rough themselves",
    }
    noisy = count.get(seeds, f"This run has {seeds} seeds")
    return [
        (
            "What it means",
            "How much better f aligns a picture with its caption than g does, each measured against "
            "pairs that neither trained on. 0: training on the pair changed nothing. Higher: f aligns it "
            "only because it saw exactly this pair.",
        ),
        (
            "Its range",
            f"By its formula within ±{bound} (bank weight {weight:g}). In practice a fraction of that; "
            "how large depends on the data, the length of training and the bank, so compare with the "
            "other roles of this run, not with a fixed threshold.",
        ),
        (
            "When not to trust it",
            f"{noisy}: trust the mean of a role and the ends of the ranking more than the place of one "
            f"pair. {_INTERVALS[min(seeds, 2)]} Near-duplicates of a candidate among what g saw make its "
            "score too low.",
        ),
        (
            "The normalised column",
            f"clipmem_norm is the score divided by {plain(summary['normaliser'])}, the span of this "
            "run's candidates. It orders the pairs of this run as the score does, and never compares "
            "two studies.",
        ),
    ]


def noise_floor(summary: Mapping[str, Any]) -> str:
    """Say how large scores come out when nothing was left out: f against f of another seed."""
    floor = summary["noise_floor"]
    if floor is None:
        return "Noise floor: not known, it needs two seeds (f of one seed is compared with f of another)."
    pairs = "one pair" if floor["seed_pairs"] == 1 else f"{floor['seed_pairs']:,} pairs"
    return (
        "Noise floor: the candidates' score when f is compared with f of another seed instead of g "
        f"(both saw the pair, so the truth is 0; {pairs} of seeds): mean {signed(floor['mean'])} "
        f"{interval(floor, sign=True)}, sd {plain(floor['sd'])}, mean size {plain(floor['mean_abs'])}. A "
        "single pair's score of that size is noise."
    )


def stability(summary: Mapping[str, Any]) -> str:
    """Say how far two single seeds agree on the order of the candidates."""
    stable = summary["stability"]
    if stable is None:
        return "Seed stability: not known, it needs two seeds."
    return (
        "Seed stability: two single seeds order the candidates alike to a rank correlation of "
        f"{plain(stable['spearman'])} {interval(stable)}; their top tenths share "
        f"{plain(100 * stable['top10_overlap'], 0)} % of the pairs."
    )


def planted_verdict(planted: Mapping[str, Any]) -> str:
    """Compare CLIPMem honestly with the simplest rival: low alignment under g alone."""
    reference = planted["reference_alignment_auroc"]
    ours, theirs = (
        f"{plain(planted['auroc'])} {interval(planted)}",
        f"{plain(reference['auroc'])} {interval(reference)}",
    )
    apart = None not in (planted["low"], planted["high"], reference["low"], reference["high"]) and (
        planted["low"] > reference["high"] or reference["low"] > planted["high"]
    )
    if apart and reference["auroc"] > planted["auroc"]:
        return (
            f"Low alignment under g alone finds the planted pairs better ({theirs}) than CLIPMem does "
            f"({ours}); the intervals do not overlap. To find wrong captions, a model that never saw the "
            f"pair is the better detector here; CLIPMem says what f did with them."
        )
    if apart:
        return (
            f"CLIPMem finds the planted pairs better ({ours}) than low alignment under g alone does "
            f"({theirs}); the intervals do not overlap."
        )
    names = ("CLIPMem", "low alignment under g alone")
    higher = names[reference["auroc"] > planted["auroc"]]
    equal = (
        " The numbers are equal."
        if reference["auroc"] == planted["auroc"]
        else f" The higher number is that of {higher}."
    )
    return (
        f"CLIPMem ({ours}) and low alignment under g alone ({theirs}) cannot be told apart as detectors "
        f"of planted pairs: their intervals overlap.{equal}"
    )


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Name the seeds.

    Example:
        >>> seeds_in_words([0, 1]), seeds_in_words([7])
        ('two seeds (0, 1)', 'one seed (7)')
    """
    words = {1: "one seed", 2: "two seeds", 3: "three seeds", 4: "four seeds"}
    return f"{words.get(len(seeds), f'{len(seeds)} seeds')} ({', '.join(str(seed) for seed in seeds)})"
