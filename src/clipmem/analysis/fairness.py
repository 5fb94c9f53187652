"""Refuse comparisons that would be unfair, with the reason and both sides; list what differs in the others.

What must be the same as in the baseline: data, split, alignment with its weight and views, seeds, and how often pairs
were shown. Training more is the simplest way to memorize more and to be more useful, so it must not pass for a method's
effect. For a run that *removed* pairs "as often" cannot be had in total: either the presentations in all or the passes
over the pairs that are left must be the same. Memorization is then compared over the candidates that both trained on.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from clipmem.analysis.runs import FinishedRun
from clipmem.base.errors import InputError
from clipmem.base.recipes import flatten
from clipmem.store.hashing import json_sha256

# says how results are shown, or how many processes there were
_NO_MATTER = ("score.confidence", "score.draws", "localize.", "dejavu.", "train.seeds")
_SHARED = ("uid", "role", "group", "planted", "captions_from")
# what must be the same: its name, its value, and what to do where it is not
_RULES: tuple[tuple[str, Callable[[FinishedRun], object], str], ...] = (
    ("data", lambda run: str(run.manifest["data_sha256"])[:16], "Run both recipes on the same data."),
    (
        "alignment",
        lambda run: f"{run.recipe.score.alignment} with weight {run.recipe.score.weight:g}",
        "Set [score] alignment and weight alike.",
    ),
    (
        "views of the alignment",
        lambda run: f"{run.recipe.embed.views} views, {run.recipe.embed.caption_edits} caption edits",
        "Set [embed] alike: an alignment over more views is another measure.",
    ),
    (
        "evaluation",
        lambda run: {key: value for key, value in flatten(run.recipe).items() if key.startswith("evaluate.")},
        "Set [evaluate] alike.",
    ),
    ("seeds", lambda run: run.seeds, "Train both with the same train.seeds: runs are compared seed by seed."),
)


def check_fair(baseline: FinishedRun, other: FinishedRun, *, measure: str = "clipmem") -> None:
    """Refuse a run that does not compare with the baseline; `clipmem_norm` needs one normalizer in both."""
    for name, value, reason in _RULES:
        there, here = apart(value(other), value(baseline))
        _same(baseline, other, name, there, here, reason)
    _check_split(baseline, other)
    _check_presentations(baseline, other)
    if measure == "clipmem_norm":
        there, here = f"{other.normalizer:.6g}", f"{baseline.normalizer:.6g}"
        reason = "Compare clipmem, which has no normalizer."
        if other.normalizer != baseline.normalizer:
            raise _refusal(baseline, other, "normalizer of clipmem_norm", there, here, reason)


def _same(baseline: FinishedRun, other: FinishedRun, name: str, there: object, here: object, reason: str) -> None:
    if there != here:
        raise _refusal(baseline, other, name, there, here, reason)


def _refusal(
    baseline: FinishedRun, other: FinishedRun, name: str, there: object, here: object, reason: str
) -> InputError:
    what = f"run folder {other.place}: other {name}"
    return InputError(what, got=str(there), expected=f"{here}, as in {baseline.place}", hint=reason)


def apart(there: object, here: object) -> tuple[object, object]:
    """Of two mappings keep what differs; return anything else as it is."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [key for key in {**here, **there} if here.get(key) != there.get(key)]
        return {key: there.get(key) for key in keys}, {key: here.get(key) for key in keys}
    return there, here


def removed(baseline: FinishedRun, other: FinishedRun) -> set[str]:
    """Return the pairs of the baseline's split that the other run's has not."""
    return set(baseline.splits["uid"]) - set(other.splits["uid"])


def common(baseline: FinishedRun, other: FinishedRun, role: str = "candidate") -> set[str]:
    """Return the pairs that have a role in both runs."""
    return baseline.uids(role) & other.uids(role)


def _split_name(splits: pl.DataFrame) -> str:
    rows = splits.select(_SHARED).sort("uid").rows()
    return f"{splits.height} pairs, {json_sha256(rows)[:16]}"


def _check_split(baseline: FinishedRun, other: FinishedRun) -> None:
    """Let the other split lack pairs that a removal took out of training; what is left must be the same."""
    here = baseline.splits
    if removed(baseline, other):
        there = pl.col("uid").is_in(other.splits["uid"].to_list())
        if set(here.filter(~there)["role"]) <= {"shared", "candidate", "independent"}:
            here = here.filter(there)
    if _split_name(here) != _split_name(other.splits):
        found = _split_name(other.splits), _split_name(baseline.splits)
        raise _refusal(baseline, other, "split", *found, "Set [split] alike.")
    if not common(baseline, other):
        found = f"none of the {len(baseline.uids('candidate')):,} candidates", "some that both trained on"
        raise _refusal(baseline, other, "candidates", *found, "Remove fewer pairs.")


def _check_presentations(baseline: FinishedRun, other: FinishedRun) -> None:
    fewer = other.pairs < baseline.pairs and other.passes == baseline.passes
    if fewer or other.presentations == baseline.presentations:
        return
    reason = "Set train.epochs so that both show their pairs as often."
    if other.pairs != baseline.pairs:
        reason = "Set train.epochs so that the presentations in all, or the passes over each pair, are the same."
    raise _refusal(baseline, other, "number of presentations", _shown(other), _shown(baseline), reason)


def _shown(run: FinishedRun) -> str:
    return f"{run.presentations:,} a model ({run.pairs:,} pairs, {run.passes:.4g} times each)"


def differing(baseline: FinishedRun, other: FinishedRun, no_matter: Sequence[str] = _NO_MATTER) -> dict[str, list[Any]]:
    """Map each setting that differs and may matter to its values in the baseline and in the other run."""
    here, there = flatten(baseline.recipe), flatten(other.recipe)
    found = {
        key: [here.get(key), there.get(key)]
        for key in {**here, **there}
        if here.get(key) != there.get(key) and not key.startswith(tuple(no_matter))
    }
    return json.loads(json.dumps(found))


def notes(baseline: FinishedRun, runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """List what a fair comparison still rests on: removals, other starts, other captions; each a `kind` and numbers."""
    found: list[dict[str, Any]] = []
    for run in runs:
        if run.pairs < baseline.pairs:
            found.append(
                {
                    "kind": "fewer_pairs",
                    "run": run.name,
                    "pairs": baseline.pairs - run.pairs,
                    "presentations": baseline.presentations - run.presentations,
                    "passes": run.passes / baseline.passes,
                }
            )
        if removed(baseline, run) & baseline.uids("candidate"):
            found.append({"kind": "common_candidates", "run": run.name, "n": len(common(baseline, run))})
        if any(run.records[key]["init_sha256"] != record["init_sha256"] for key, record in baseline.records.items()):
            found.append({"kind": "other_start", "run": run.name})
        captions, plain = run.recipe.train.captions, baseline.recipe.train.captions
        if captions != plain:
            found.append({"kind": "other_captions", "run": run.name, "captions": captions, "baseline": plain})
    return found
