"""Runs beside each other, in words: whether CLIP lies between supervised and SimCLR, and what that rests on.

Everything is read from `localize/beside.json`, so the page stands alone. The figure is in `report.beside_figure`.
"""

from collections.abc import Mapping
from typing import Any

from clipmem.report.numbers import interval, level, p_value, signed
from clipmem.report.published import SOURCE, layers_between, ranges

KINDS = {"mlp": "MLP units", "attn": "attention outputs", "conv1": "first convolutions", "conv2": "second convolutions"}
_TRIO = {"clip", "supervised", "simclr"}
_ANSWERS = {"yes": "yes", "no": "no", "inconclusive": "not decided"}


def kinds_of(document: Mapping[str, Any]) -> list[str]:
    """Return the kinds of units in a document, in the order in which they are shown."""
    there = {row["kind"] for row in document["curves"]}
    return [kind for kind in KINDS if kind in there] + sorted(there - set(KINDS))


def answer_sentences(document: Mapping[str, Any]) -> list[str]:
    """Say for each kind of units in which layers CLIP lies between supervised and SimCLR; [] without the three runs."""
    sentences: list[str] = []
    for kind in kinds_of(document):
        rows = [row for row in document["between"] if row["kind"] == kind]
        if not rows:
            continue
        parts: dict[str, list[int]] = {}
        for row in rows:
            words = _ANSWERS[row["answer"]] + (f" ({row['side']} both)" if row["side"] else "")
            parts.setdefault(words, []).append(row["layer"])
        said = "; ".join(f"{words} in {_layers(at)}" for words, at in parts.items())
        verdict = _verdict({row["answer"] for row in rows})
        said = said if len(parts) > 1 else f"{said}, that is in all of them"
        sentences.append(f"Does CLIP lie between supervised and SimCLR in {KINDS.get(kind, kind)}? {verdict}: {said}.")
    return sentences


def _verdict(answers: set[str]) -> str:
    """Sum up the answers of the layers; "In part" needs a layer in which CLIP is shown to lie between."""
    if len(answers) == 1:
        return {"yes": "Yes", "no": "No", "inconclusive": "Not decided"}[answers.pop()]
    return "In part" if "yes" in answers else "Nowhere shown"


def trained_sentences(document: Mapping[str, Any]) -> list[str]:
    """Say for each kind of units where f, which trained on the pairs, lies above g, which did not."""
    most, sentences = 1 - document["confidence"], list[str]()
    for kind in kinds_of(document):
        parts: list[str] = []
        for run in (entry["run"] for entry in document["runs"]):
            rows = [row for row in document["trained"] if (row["run"], row["kind"]) == (run, kind)]
            above = sorted(row["layer"] for row in rows if _shown(row, most) and row["difference"] > 0)
            below = sorted(row["layer"] for row in rows if _shown(row, most) and row["difference"] < 0)
            found = [f"above in {_layers(above)}"] if above else []
            found += [f"below in {_layers(below)}"] if below else []
            parts.append(f"{run} {' and '.join(found) or 'no difference shown'}")
        where = KINDS.get(kind, kind)
        sentences.append(f"f, which trained on these pairs, against g, which did not, in {where}: {'; '.join(parts)}.")
    return sentences


def note_sentences(document: Mapping[str, Any]) -> list[str]:
    """Say what the comparison rests on: tests, presentations, other settings that differ, the published curves."""
    first = document["runs"][0]
    seeds = document["curves"][0]["seeds"]
    notes = [
        f"Tests are paired over {seeds} seed{'s' * (seeds != 1)} and corrected by Holm over the "
        f"{len(document['differences'])} differences; {level(document['confidence'])} intervals are not corrected.",
        f"Every model saw {first['presentations']:,} presentations of pairs.",
    ]
    twice = [run["run"] for run in document["runs"] if run["views_a_presentation"] > 1]
    if twice:
        notes.append(f"In one presentation {' and '.join(twice)} sees two views of a picture: twice the passes.")
    for run in document["runs"]:
        other = [f"{key} = {there} (not {here})" for key, (here, there) in run["differs"].items()]
        if other:
            notes.append(
                f"Beside the objective, {run['run']} differs from {first['run']} in {', '.join(other)}: "
                "what the curves differ in may be due to that."
            )
    if {run["objective"] for run in document["runs"]} >= _TRIO:
        notes.append(
            f"In the published curves ({SOURCE}, read off a figure) CLIP lies between the other two in layers "
            f"{ranges(layers_between())} of 12. Their height does not compare with the height here: UnitMem depends on "
            "how many pairs it is taken over."
        )
    return notes


def difference_rows(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Write the differences between runs for a table: one row a couple of runs, kind and layer."""
    order = {kind: k for k, kind in enumerate(kinds_of(document))}
    rows = sorted(document["differences"], key=lambda row: (order[row["kind"]], row["layer"]))
    return [
        {
            "kind": str(KINDS.get(row["kind"], row["kind"])),
            "layer": str(row["layer"]),
            "couple": f"{row['a']} less {row['b']}",
            "difference": signed(row["difference"]),
            "interval": interval(row, sign=True),
            "p": p_value(row["p_holm"]),
        }
        for row in rows
    ]


def _layers(numbers: list[int]) -> str:
    return f"layer{'s' * (len(numbers) > 1)} {ranges(numbers)}"


def _shown(row: Mapping[str, Any], most: float) -> bool:
    return row["p_holm"] is not None and row["p_holm"] <= most
