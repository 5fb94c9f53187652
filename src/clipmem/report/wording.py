"""The report's sentences, made from the numbers of `summary.json` alone.

Every sentence that judges (found, not found, better, worse) is bound to an interval here, so that no report
claims more than its numbers do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from clipmem.report.numbers import excludes_zero, interval, level, p_value, plain, signed
from clipmem.report.words import FOUR_WAY, GIVEN, LEAVE_ONE_OUT, SUBSAMPLE, Measure, Words, measure_of, words_of


def headline(summary: Mapping[str, Any]) -> str:
    """Say in one line what was found, judged by the candidates' interval."""
    candidate = summary["roles"]["candidate"]
    if candidate["low"] is None or not excludes_zero(candidate):
        return "No memorization shown on average"
    if candidate["mean"] > 0:
        return words_of(summary).memorized
    return words_of(summary).below


def what_was_found(summary: Mapping[str, Any]) -> list[str]:
    """Say the main numbers in plain words, one sentence each, every number with its interval."""
    roles, confidence = summary["roles"], level(summary["confidence"])
    candidate, words = roles["candidate"], words_of(summary)
    verdict = "which excludes 0" if excludes_zero(candidate) else "which does not exclude 0"
    sentences = [
        f"The {candidate['n']:,} candidates, {words.candidates}, score "
        f"{signed(candidate['mean'])} on average ({confidence} interval {interval(candidate, sign=True)}, {verdict})."
    ]
    if "external" in roles:
        external = roles["external"]
        verdict = "; as it should be, the interval holds 0."
        if excludes_zero(external):
            verdict = ". This interval excludes 0: part of the score has another cause than training on the pair."
        sentences.append(
            f"The {external['n']:,} external pairs, {words.external}, score "
            f"{signed(external['mean'])} {interval(external, sign=True)}{verdict}"
        )
    planted = summary["planted"]
    if planted:
        how = (
            "better than chance"
            if planted["low"] is not None and planted["low"] > 0.5
            else "not shown to be better than chance"
        )
        were = "was" if planted["n"] == 1 else "were"
        sentences.append(
            f"{planted['n']:,} of the candidates {were} planted: {words.planted}. "
            f"Ranking by {measure_of(summary).score} finds them with an AUROC of {plain(planted['auroc'])} "
            f"{interval(planted)}, {how} (0.5)."
        )
    return [*sentences, words.caveat] if words.caveat else sentences


def trust(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what the number means, its range, and when not to trust it: pairs of a heading and a text."""
    seeds, weight = len(summary["seeds"]), float(summary["weight"])
    words, measure = words_of(summary), measure_of(summary)
    noisy = words.noisy.get(seeds, words.noisy[0]).format(n=seeds)
    intervals = words.intervals.get(seeds, words.intervals[0])
    bound = plain(2 * (1 + 2 * weight), 1).removesuffix(".0") if measure.banked else measure.bound
    bank = f"(bank weight {weight:g})" if measure.banked else "(no bank takes part)"
    depends = (
        "the data, the length of training and the bank" if measure.banked else "the data and the length of training"
    )
    return [
        ("What it means", measure.meaning.format(compared=words.compared) or words.meaning),
        (
            "Its range",
            f"By its formula within ±{bound} {bank}. In practice a fraction of that; "
            f"how large depends on {depends}, so compare with the "
            "other roles of this run, not with a fixed threshold.",
        ),
        (
            "When not to trust it",
            f"{noisy}: trust the mean of a role and the ends of the ranking more than the place of one "
            f"pair. {intervals} {words.duplicates}",
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
    floor, words = summary["noise_floor"], words_of(summary)
    if words is SUBSAMPLE:
        return (
            "Noise floor: no two models of this protocol had the same pairs, so there is none. The control takes its "
            "place: pairs that no model had, counted as if some had."
        )
    if words is GIVEN:
        return _floor_of_given(floor)
    if floor is None:
        return "Noise floor: not known, it needs two seeds (f of one seed is compared with f of another)."
    pairs = "one pair" if floor["seed_pairs"] == 1 else f"{floor['seed_pairs']:,} pairs"
    instead, size = "g", "A single pair's score of that size is noise."
    if words is LEAVE_ONE_OUT:
        instead = "the model without the pair"
        size = (
            "A score here should have less noise than that, as each retrained model keeps the start and order of f, "
            "which another seed changes; the control shows how much."
        )
    return (
        f"Noise floor: the candidates' score when f is compared with f of another seed instead of {instead} "
        f"(both saw the pair, so the truth is 0; {pairs} of seeds): mean {signed(floor['mean'])} "
        f"{interval(floor, sign=True)}, sd {plain(floor['sd'])}, mean size {plain(floor['mean_abs'])}. {size}"
    )


def _floor_of_given(floor: Mapping[str, Any] | None) -> str:
    """Say the same of given models: whether two targets trained on the same pairs is not known."""
    if floor is None:
        return "Noise floor: not known, it needs two targets (one is compared with another)."
    pairs = "one pair" if floor["seed_pairs"] == 1 else f"{floor['seed_pairs']:,} pairs"
    return (
        "Noise floor: the candidates' score when a target is compared with another target instead of its reference "
        f"({pairs} of targets): mean {signed(floor['mean'])} {interval(floor, sign=True)}, sd {plain(floor['sd'])}, "
        f"mean size {plain(floor['mean_abs'])}. If all targets trained on these pairs, the truth is 0 and a single "
        "pair's score of that size is noise."
    )


def paired(summary: Mapping[str, Any]) -> str:
    """Say what the test over seeds found: the candidates' mean under f against that under the model without them."""
    if words_of(summary) is SUBSAMPLE or "paired" not in summary:
        return ""
    found = summary["paired"]
    if found is None:
        return "Paired test over seeds: not known, it needs two seeds."
    words = words_of(summary)
    f = "the target" if words is GIVEN else "f"
    other = "the models without them" if words is LEAVE_ONE_OUT else "the reference" if words is GIVEN else "g"
    same = "in its place" if words is GIVEN else "of the same seed"
    effect = "" if found["effect"] is None else f", {plain(found['effect'], 2)} of its own sd over seeds"
    return (
        f"Paired test over seeds: the candidates' mean is {signed(found['difference'])} "
        f"{interval(found, sign=True)} higher under {f} than under {other} {same}{effect}; "
        f"t test p {p_value(found['p'])}, Wilcoxon p {p_value(found['wilcoxon_p'])} over {found['seeds']} seeds "
        f"(Wilcoxon's cannot fall below {plain(2 / 2 ** found['seeds'], 4)} with so few). This interval is over seeds "
        "alone, for these pairs."
    )


def stability(summary: Mapping[str, Any]) -> str:
    """Say how far two single seeds agree on the order of the candidates."""
    stable = summary["stability"]
    candidates = summary["roles"]["candidate"]["n"]
    top = f"; their top tenths share {plain(100 * stable['top10_overlap'], 0)} % of the pairs" if stable else ""
    if stable and candidates >= 100 and "top1_overlap" in stable:
        top += f", their top hundredths {plain(100 * stable['top1_overlap'], 0)} %"
    agreement = f"{plain(stable['spearman'])}{_spaced(stable)}" if stable else ""
    # a tenth of fewer than ten pairs is no pair
    top = top if candidates >= 10 else ""
    if words_of(summary) is SUBSAMPLE:
        if stable is None:
            return "Stability: not known, too few pairs are scored by both halves of the models."
        a, b = stable["halves"]
        lost = stable.get("unscored", 0)  # summaries of earlier versions do not say
        left_out = f" ({lost:,} of {candidates:,} pairs left out, which a half has in all or in none of its models)"
        return (
            f"Stability: two random halves of the models ({a} and {b}) order the candidates alike to a rank "
            f"correlation of {agreement}{top}{left_out if lost else ''}. The scores themselves rest on all "
            f"{len(summary['seeds'])} models, not on half of them."
        )
    if words_of(summary) is GIVEN:
        if stable is None:
            return "Stability: not known, it needs two targets and two references."
        return (
            "Stability: two single pairs of target and reference order the candidates alike to a rank correlation of "
            f"{agreement}{top}."
        )
    if stable is None:
        return "Seed stability: not known, it needs two seeds."
    return f"Seed stability: two single seeds order the candidates alike to a rank correlation of {agreement}{top}."


def _spaced(entry: Mapping[str, Any]) -> str:
    """Write an interval to follow its number in a sentence."""
    text = interval(entry)
    return f" {text}" if text.startswith("[") else f" ({text})"


def rival(words: Words, measure: Measure) -> str:
    """Name the simplest rival among the detectors of planted pairs.

    Example:
        >>> rival(FOUR_WAY, measure_of({}))
        'low alignment under g alone'
    """
    return f"{measure.rival} {words.reference}"


def planted_verdict(planted: Mapping[str, Any], words: Words = FOUR_WAY, measure: Measure | None = None) -> str:
    """Compare the score honestly with the simplest rival: low alignment under models without the pair.

    Args:
        planted: The entry `planted` of the summary.
        words: The words of the protocol.
        measure: The names of the alignment; None for CLIPMem's.
    """
    measure = measure or measure_of({})
    score, other = measure.score, rival(words, measure)
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
            f"{other.capitalize()} finds the planted pairs better ({theirs}) than {score} does "
            f"({ours}); the intervals do not overlap. To find wrong captions, a model that never saw the "
            f"pair is the better detector here; {words.about_f.replace('CLIPMem', score)}."
        )
    if apart:
        return (
            f"{score} finds the planted pairs better ({ours}) than {other} does "
            f"({theirs}); the intervals do not overlap."
        )
    names = (score, other)
    higher = names[reference["auroc"] > planted["auroc"]]
    equal = (
        " The numbers are equal."
        if reference["auroc"] == planted["auroc"]
        else f" The higher number is that of {higher}."
    )
    return (
        f"{score} ({ours}) and {other} ({theirs}) cannot be told apart as detectors "
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


def gallery_intro(summary: Mapping[str, Any], ranked: int) -> str:
    """Say what the cards of the gallery show.

    Args:
        summary: The summary of the run.
        ranked: How many candidates have a score.
    """
    words = words_of(summary)
    error = f"score; with {words.no_error} there is no error"
    if summary["noise_floor"] or words is SUBSAMPLE:
        error = f"score, ± its standard error over {words.errors}, and the {level(summary['confidence'])} interval"
    return (
        f"From {ranked:,} {words.ranked}, by score: {error}. The strip places it between the lowest and the highest "
        f"candidate, with a tick at 0. Under the score: the captions that the pair was {words.captions}."
    )


def who_trained(summary: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the seeds and the models, as facts with a name and a value."""
    seeds, words = summary["seeds"], words_of(summary)
    if words is SUBSAMPLE:
        fraction = recipe.get("subsample", {}).get("fraction")
        part = "" if fraction is None else f", each on a random part, about {100 * fraction:.3g} %, of the pairs"
        return [("models", f"{len(seeds):,}{part}")]
    facts = [("seeds", seeds_in_words(seeds))]
    if words is LEAVE_ONE_OUT:
        left = f"{summary['roles']['candidate']['n']:,}"
        facts.append(("models", f"f and {left} retrained without one pair each, for every seed"))
    return facts
