"""Refuse unfair comparisons, naming both sides, and list the differences of fair ones.

Data, split, alignment (with weight and views), evaluation and seeds must be those of the baseline. Lengths of training
and numbers of captions or wordings may differ, with a note: training longer raises both memorization and utility, and
must not pass for the effect of a method. If a run *removed* pairs, memorization is compared over the pairs that both
have.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.errors import InputError, require
from clipmem.base.hashing import json_sha256
from clipmem.base.recipes import flatten
from clipmem.report.run import Run

# settings of presentation
IRRELEVANT = ("score.confidence", "score.draws", "localize.", "dejavu.", "train.seeds", "mitigate.interpolate.run")
_SHARED = ("uid", "role", "group", "planted", "captions_from")
_WORDINGS = "evaluate.wordings"


def _evaluation(run: Run) -> dict[str, Any]:
    return {key: value for key, value in flatten(run.recipe).items() if key.startswith("evaluate.")}


# what must be the same: name, value, hint
_RULES: tuple[tuple[str, Callable[[Run], object], str], ...] = (
    ("data", lambda run: str(run.manifest["data_sha256"])[:16], "Run both recipes on the same data."),
    (
        "alignment",
        lambda run: f"{run.recipe.score.alignment} with weight {run.recipe.score.weight:g}",
        "Use the same [score] alignment and weight in both.",
    ),
    (
        "views of the alignment",
        lambda run: f"{run.recipe.embed.views} views, {run.recipe.embed.caption_edits} caption edits",
        "Use the same [embed] in both: the number of views changes the measure.",
    ),
    (
        "evaluation",
        lambda run: {key: value for key, value in _evaluation(run).items() if key != _WORDINGS},
        "Use the same [evaluate] in both.",
    ),
    ("seeds", lambda run: run.seeds, "Train both with the same train.seeds: runs are compared seed by seed."),
)


def check_fair(baseline: Run, other: Run, *, measure: str = "clipmem") -> None:
    """Refuse a run that is not comparable with the baseline; `clipmem_norm` needs the same normalizer in both."""
    for name, value, hint in _RULES:
        got, expected = _differing_entries(value(other), value(baseline))
        if got != expected:
            raise _refusal(baseline, other, name, got, expected, hint)
    _check_split(baseline, other)
    if measure == "clipmem_norm" and other.normalizer != baseline.normalizer:
        got, expected = f"{other.normalizer:.6g}", f"{baseline.normalizer:.6g}"
        hint = "Compare clipmem, which has no normalizer."
        raise _refusal(baseline, other, "normalizer of clipmem_norm", got, expected, hint)


def check_once(folders: Sequence[Path | str], subject: str) -> None:
    """Refuse a run that is named twice."""
    places = [Path(folder).resolve() for folder in folders]
    twice = [str(folder) for k, folder in enumerate(folders) if places[k] in places[:k]]
    require(not twice, subject, f"{twice} twice", "each run once", "Omit one of them.")


def _refusal(baseline: Run, other: Run, name: str, got: object, expected: object, hint: str) -> InputError:
    subject = f"run folder {other.path}: different {name}"
    return InputError(subject, got=str(got), expected=f"{expected}, as in {baseline.path}", hint=hint)


def _differing_entries(other: object, base: object) -> tuple[object, object]:
    """Reduce two mappings to the entries that differ; return anything else unchanged."""
    if isinstance(other, dict) and isinstance(base, dict):
        keys = [key for key in {**base, **other} if base.get(key) != other.get(key)]
        return {key: other.get(key) for key in keys}, {key: base.get(key) for key in keys}
    return other, base


def removed(baseline: Run, other: Run) -> set[str]:
    """Return the pairs that are in the baseline's split only."""
    return set(baseline.splits["uid"]) - set(other.splits["uid"])


def common(baseline: Run, other: Run, role: str = "candidate") -> set[str]:
    """Return the pairs that have a role in both runs."""
    return baseline.uids(role) & other.uids(role)


def _split_name(splits: pl.DataFrame) -> str:
    rows = splits.select(_SHARED).sort("uid").rows()
    return f"{splits.height} pairs, {json_sha256(rows)[:16]}"


def _check_split(baseline: Run, other: Run) -> None:
    """Refuse another split; pairs may have been removed from training, but the rest must be the same."""
    here = baseline.splits
    if removed(baseline, other):
        in_other = pl.col("uid").is_in(other.splits["uid"].to_list())
        if set(here.filter(~in_other)["role"]) <= {"shared", "candidate", "independent"}:
            here = here.filter(in_other)
    if _split_name(here) != _split_name(other.splits):
        names = _split_name(other.splits), _split_name(baseline.splits)
        raise _refusal(baseline, other, "split", *names, "Use the same [split] in both.")
    for role, trained in (("candidate", "candidates"), ("independent", "independent pairs")):
        if baseline.uids(role) and not common(baseline, other, role):
            got, expected = f"none of the {len(baseline.uids(role)):,} {trained}", f"{trained} that both trained on"
            raise _refusal(baseline, other, trained, got, expected, "Remove fewer pairs.")


def differing(baseline: Run, other: Run, irrelevant: Sequence[str] = IRRELEVANT) -> dict[str, list[Any]]:
    """Return the relevant settings that differ, with their values in the baseline and in the other run."""
    base, settings = flatten(baseline.recipe), flatten(other.recipe)
    differences = {
        key: [base.get(key), settings.get(key)]
        for key in {**base, **settings}
        if base.get(key) != settings.get(key) and not key.startswith(tuple(irrelevant))
    }
    return json.loads(json.dumps(differences))


def notes(baseline: Run, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return caveats of a fair comparison (removals, length, weights, captions), each a `kind` and its numbers."""
    caveats: list[dict[str, Any]] = []
    for run in runs:
        fewer = run.trained_pairs < baseline.trained_pairs
        if fewer:
            caveats.append(
                {
                    "kind": "fewer_pairs",
                    "run": run.name,
                    "pairs": baseline.trained_pairs - run.trained_pairs,
                    "presentations": baseline.presentations - run.presentations,
                    "passes": run.passes / baseline.passes,
                }
            )
        # as many pairs in total or, after a removal, each pair as often
        if run.presentations != baseline.presentations and not (fewer and run.passes == baseline.passes):
            counts = {"presentations": run.presentations, "baseline": baseline.presentations}
            caveats.append({"kind": "other_length", "run": run.name, **counts, "passes": run.passes / baseline.passes})
        if removed(baseline, run) & baseline.uids("candidate"):
            caveats.append({"kind": "common_candidates", "run": run.name, "n": len(common(baseline, run))})
        if any(run.records[key]["init_sha256"] != record["init_sha256"] for key, record in baseline.records.items()):
            caveats.append({"kind": "other_start", "run": run.name})
        captions, plain = run.recipe.train.captions, baseline.recipe.train.captions
        if captions != plain:
            caveats.append({"kind": "other_captions", "run": run.name, "captions": captions, "baseline": plain})
        wordings, plain = (_evaluation(side).get(_WORDINGS) for side in (run, baseline))
        if wordings != plain:
            caveats.append({"kind": "other_wordings", "run": run.name, "wordings": wordings, "baseline": plain})
    return caveats
