"""Refuse comparisons that would be unfair, with the reason and both sides; say what differs in the others.

What must be the same as in the baseline: data, split, alignment with its weight and views, seeds, and how often pairs
were shown. Training more is the simplest way to memorize more and to be more useful, so it must not pass for a method's
effect. For a run that *removed* pairs "as often" cannot be had in total: with fewer pairs, either each of them is shown
more often, or fewer are shown in all. Both are taken: the same presentations in all, or the same number of passes over
the pairs that are left. Memorization is then compared over the candidates that both runs trained on.

What may differ is everything else, a mitigation above all; it is listed beside the result. `clipmem_norm` is divided by
the range of a run's own candidates, so that runs compare on it only where that range is the same, which it hardly ever
is.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import flatten
from clipmem.report.compare.run import ComparedRun
from clipmem.store.hashing import json_sha256

# says how results are shown, or how many processes there were
_NO_MATTER = ("score.confidence", "score.draws", "localize.", "dejavu.", "train.seeds")
_SHARED = ("uid", "role", "group", "planted", "captions_from")


class _Rule(NamedTuple):
    """Something that must be the same in both runs, and why."""

    name: str
    value: Callable[[ComparedRun], object]
    reason: str


def _data(run: ComparedRun) -> str:
    return str(run.manifest["data_sha256"])[:16]


def _alignment(run: ComparedRun) -> str:
    return f"{run.recipe.score.alignment} with weight {run.recipe.score.weight:g}"


def _views(run: ComparedRun) -> str:
    return f"{run.recipe.embed.views} views, {run.recipe.embed.caption_edits} caption edits"


def _evaluation(run: ComparedRun) -> dict[str, Any]:
    return {key: value for key, value in flatten(run.recipe).items() if key.startswith("evaluate.")}


def _seeds(run: ComparedRun) -> list[int]:
    return run.seeds


_RULES = (
    _Rule("data", _data, "Scores depend on the pairs: run both recipes on the same data."),
    _Rule("alignment", _alignment, "They are on other scales: set [score] alignment and weight alike."),
    _Rule("views of the alignment", _views, "An alignment over more views is another measure: set [embed] alike."),
    _Rule("evaluation", _evaluation, "Utility measured otherwise is another measure: set [evaluate] alike."),
    _Rule("seeds", _seeds, "Runs are compared seed by seed: train both with the same train.seeds."),
)


def check_fair(baseline: ComparedRun, other: ComparedRun, *, measure: str = "clipmem") -> None:
    """Refuse a run that does not compare with the baseline.

    Args:
        baseline: The first run.
        other: The run to be compared with it.
        measure: `clipmem`, or `clipmem_norm`, which needs one normaliser in both.

    Raises:
        InputError: Something that must be the same is not; both sides and the reason are shown.
    """
    for rule in _RULES:
        there, here = rule.value(other), rule.value(baseline)
        if there != here:
            raise _refusal(baseline, other, rule.name, *_apart(there, here), rule.reason)
    _check_split(baseline, other)
    _check_presentations(baseline, other)
    if measure == "clipmem_norm" and other.normaliser != baseline.normaliser:
        raise _refusal(
            baseline,
            other,
            "normaliser of clipmem_norm",
            f"{other.normaliser:.6g}",
            f"{baseline.normaliser:.6g}",
            "It is the range of each run's own candidates: compare clipmem, which has no normaliser.",
        )


def _refusal(
    baseline: ComparedRun, other: ComparedRun, name: str, there: object, here: object, reason: str
) -> InputError:
    return InputError(
        f"run folder {other.folder.path}: other {name}",
        got=str(there),
        expected=f"{here}, as in {baseline.folder.path}",
        hint=reason,
    )


def _apart(there: object, here: object) -> tuple[object, object]:
    """Of two mappings keep what differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [key for key in {**here, **there} if here.get(key) != there.get(key)]
        return {key: there.get(key) for key in keys}, {key: here.get(key) for key in keys}
    return there, here


def removed(baseline: ComparedRun, other: ComparedRun) -> set[str]:
    """Return the pairs of the baseline's split that the other run's has not."""
    return set(baseline.splits["uid"]) - set(other.splits["uid"])


def common(baseline: ComparedRun, other: ComparedRun, role: str = "candidate") -> set[str]:
    """Return the pairs that have a role in both runs."""
    return baseline.uids(role) & other.uids(role)


def _split_name(splits: pl.DataFrame) -> str:
    rows = splits.select(_SHARED).sort("uid").rows()
    return f"{splits.height} pairs, {json_sha256(rows)[:16]}"


def _check_split(baseline: ComparedRun, other: ComparedRun) -> None:
    """Let the other split lack pairs that a removal took out of training; what is left must be the same."""
    here = baseline.splits
    if removed(baseline, other):
        kept = here.filter(pl.col("uid").is_in(other.splits["uid"].to_list()))
        gone = here.filter(~pl.col("uid").is_in(other.splits["uid"].to_list()))
        if set(gone["role"]) <= {"shared", "candidate", "independent"}:
            here = kept
    if _split_name(here) != _split_name(other.splits):
        raise _refusal(
            baseline,
            other,
            "split",
            _split_name(other.splits),
            _split_name(baseline.splits),
            "f and g of both must train on the same pairs and captions: set [split] alike.",
        )
    if not common(baseline, other):
        raise _refusal(
            baseline,
            other,
            "candidates",
            f"none of the {len(baseline.uids('candidate')):,} candidates",
            "some that both trained on",
            "Nothing is left to compare memorization over: remove fewer pairs.",
        )


def passes(run: ComparedRun) -> float:
    """Return how often each pair was shown to a model, on average."""
    return run.presentations / run.pairs


def _check_presentations(baseline: ComparedRun, other: ComparedRun) -> None:
    if other.presentations == baseline.presentations:
        return
    if other.pairs < baseline.pairs and passes(other) == passes(baseline):
        return
    reason = "Training longer changes both memorization and utility: set train.epochs so that both are shown as often."
    if other.pairs != baseline.pairs:
        reason = (
            "After a removal either the presentations in all or the passes over each pair must be the same: "
            "set train.epochs so that one of them is."
        )
    raise _refusal(baseline, other, "number of presentations", _shown(other), _shown(baseline), reason)


def _shown(run: ComparedRun) -> str:
    return f"{run.presentations:,} a model ({run.pairs:,} pairs, {passes(run):.4g} times each)"


def differing(baseline: ComparedRun, other: ComparedRun) -> dict[str, list[Any]]:
    """Map each setting that differs and may matter to its values in the baseline and in the other run."""
    here, there = flatten(baseline.recipe), flatten(other.recipe)
    found = {
        key: [here.get(key), there.get(key)]
        for key in {**here, **there}
        if here.get(key) != there.get(key) and not key.startswith(_NO_MATTER)
    }
    return json.loads(json.dumps(found))


def notes(baseline: ComparedRun, runs: Sequence[ComparedRun]) -> list[str]:
    """Say in sentences what a fair comparison still rests on: removals, starts, captions, machines."""
    said: list[str] = []
    for run in runs:
        gone = removed(baseline, run)
        if run.pairs < baseline.pairs:
            how = (
                f"as many presentations in all, so each was shown {passes(run) / passes(baseline):.3g} times as often"
                if run.presentations == baseline.presentations
                else f"each shown as often, so {baseline.presentations - run.presentations:,} fewer presentations"
            )
            said.append(
                f"{run.name} trained on {baseline.pairs - run.pairs:,} pairs fewer: {how}. A seed shares the initial "
                f"weights with {baseline.name}, not the order of pairs."
            )
        if gone & baseline.uids("candidate"):
            both = common(baseline, run)
            said.append(
                f"{run.name} is compared with {baseline.name} over the {len(both):,} candidates that both trained on."
            )
        if any(run.records[key]["init_sha256"] != record["init_sha256"] for key, record in baseline.records.items()):
            said.append(f"{run.name} starts from other weights, so that a seed shares the order of pairs only.")
        if run.recipe.train.captions != baseline.recipe.train.captions:
            said.append(
                f"{run.name} is scored over {run.recipe.train.captions} captions a pair where there are so many, "
                f"{baseline.name} over {baseline.recipe.train.captions}: a mean over other captions is part of the "
                "difference."
            )
    return said
