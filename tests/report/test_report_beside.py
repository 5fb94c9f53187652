"""The section of runs beside each other: answers per layer, what they rest on, the figure, the published curves."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from clipmem.report.beside import answer_sentences, difference_rows, note_sentences, trained_sentences
from clipmem.report.beside_figure import beside_figure, styles_of
from clipmem.report.published import UNITMEM, layers_between, ranges
from tests.report.other_runs import add_localize
from tests.report.outline import outline
from tests.report.run_folder import Built

from clipmem.base.errors import InputError
from clipmem.report.page import write_report

Build = Callable[..., Built]
RUNS = {"CLIP": "clip", "supervised": "supervised", "SimCLR": "simclr"}


def document(answers: dict[str, list[str]], **changes: Any) -> dict[str, Any]:
    """A `beside.json` of three runs with two layers, whose answers are given for each kind."""
    places = [(kind, layer) for kind in answers for layer in (1, 2)]
    curve = {"layers": 2, "mean": 0.5, "low": 0.4, "high": 0.6, "seeds": 5}
    test = {"layers": 2, "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.001, "p_holm": 0.01, "seeds": 5}
    return {
        "format": 1,
        "pairs": 8,
        "confidence": 0.95,
        "runs": [
            {
                "run": run,
                "objective": objective,
                "folder": objective,
                "presentations": 30000,
                "views_a_presentation": 1 + (objective == "simclr"),
                "differs": {"train.flip": [0.0, 0.5]} if objective == "simclr" else {},
            }
            for run, objective in RUNS.items()
        ],
        "curves": [
            {**curve, "run": run, "side": side, "kind": kind, "layer": layer}
            for run in RUNS
            for side in "fg"
            for kind, layer in places
        ],
        "trained": [{**test, "run": run, "kind": kind, "layer": layer} for run in RUNS for kind, layer in places],
        "differences": [
            {**test, "a": a, "b": b, "kind": kind, "layer": layer}
            for a, b in (("CLIP", "supervised"), ("CLIP", "SimCLR"), ("supervised", "SimCLR"))
            for kind, layer in places
        ],
        "between": [
            {
                "kind": kind,
                "layer": layer,
                "layers": 2,
                "answer": answers[kind][layer - 1].split()[0],
                "side": "".join(answers[kind][layer - 1].split()[1:]),
            }
            for kind, layer in places
        ],
        **changes,
    }


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["yes", "yes"], "Yes: yes in layers 1 to 2, that is in all of them."),
        (["no above", "no above"], "No: no (above both) in layers 1 to 2, that is in all of them."),
        (["no above", "no below"], "No: no (above both) in layer 1; no (below both) in layer 2."),
        (["yes", "no below"], "In part: yes in layer 1; no (below both) in layer 2."),
        (["yes", "inconclusive"], "In part: yes in layer 1; not decided in layer 2."),
        (["no above", "inconclusive"], "Nowhere shown: no (above both) in layer 1; not decided in layer 2."),
        (["inconclusive", "inconclusive"], "Not decided: not decided in layers 1 to 2, that is in all of them."),
    ],
)
def test_the_answer_is_given_for_each_layer(answers: list[str], said: str) -> None:
    assert answer_sentences(document({"mlp": answers})) == [
        f"Does CLIP lie between supervised and SimCLR in MLP units? {said}"
    ]


def test_no_answer_without_the_three() -> None:
    assert answer_sentences(document({"mlp": ["yes", "yes"]}, between=[])) == []


def test_kinds_are_answered_apart_and_training_beside() -> None:
    found = document({"attn": ["yes", "yes"], "mlp": ["no above", "inconclusive"]})
    first, second = answer_sentences(found)
    assert "in MLP units? Nowhere shown: no (above both) in layer 1; not decided in layer 2." in first
    assert "in attention outputs? Yes" in second
    for row in found["trained"]:
        if row["run"] == "CLIP" and row["layer"] == 2:
            row["difference"] = -0.1
        if row["run"] == "supervised":
            row["p_holm"] = 0.2
    assert trained_sentences(found)[0] == (
        "f, which trained on these pairs, against g, which did not, in MLP units: CLIP above in layer 1 and below in "
        "layer 2; supervised no difference shown; SimCLR above in layers 1 to 2."
    )


def test_what_the_answer_rests_on_is_said() -> None:
    text = " ".join(note_sentences(document({"mlp": ["yes", "yes"]})))
    assert "Tests are paired over 5 seeds and corrected by Holm over the 6 differences" in text
    assert "Every model saw 30,000 presentations of pairs. In one presentation SimCLR sees two views" in text
    assert (
        "SimCLR differs from CLIP in train.flip = 0.5 (not 0.0): what the curves differ in may be due to that." in text
    )
    assert "CLIP lies between the other two in layers 1, 9 to 12 of 12." in text


def test_the_published_curves_are_whole_and_their_layers_are_counted_right() -> None:
    assert {len(values) for values in UNITMEM.values()} == {12}
    expected = []
    for layer in range(12):
        clip, low, high = UNITMEM["clip"][layer], *sorted((UNITMEM["simclr"][layer], UNITMEM["supervised"][layer]))
        if low < clip < high:
            expected.append(layer + 1)
    assert layers_between() == expected
    assert ranges([2, 3, 5]) == "2 to 3, 5"


def test_the_figure_is_drawn_with_and_without_intervals_in_both_sizes() -> None:
    found = document({"mlp": ["yes", "yes"], "attn": ["yes", "yes"]})
    for size in ("wide", "narrow"):
        svg = beside_figure(found, size)
        for name in ("MLP units", "attention outputs", "published, 12 layers", "CLIP", "supervised", "SimCLR"):
            assert f">{name}<" in svg, name
        assert "Does CLIP lie between" in svg
    banded = beside_figure(found, "wide")
    for row in found["curves"]:
        row["low"] = row["high"] = None
    # a band, and a bar at each of two layers, for three runs in two panels
    assert banded.count("<path") - beside_figure(found, "wide").count("<path") >= 3 * 2 * (1 + 2)
    assert len(set(styles_of(found).values())) == 3


def test_two_runs_of_one_objective_look_different() -> None:
    found = document({"mlp": ["yes", "yes"]})
    found["runs"] = [{**found["runs"][0], "run": name} for name in ("CLIP (a)", "CLIP (b)")]
    assert len(set(styles_of(found).values())) == 2


def test_the_page_shows_the_section_and_its_table(build: Build) -> None:
    built = build(seeds=(0, 1))
    add_localize(built)
    found = document({"mlp": ["yes", "no below"]})
    path = built.folder / "localize" / "beside.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    page = outline(write_report(built.folder, built.images))
    assert "beside" in {attrs.get("id") for tag, attrs in page.tags if tag == "section"}
    assert "#beside" in {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    text = page.words()
    assert answer_sentences(found)[0] in text
    rows = difference_rows(found)
    assert len(rows) == 6
    assert rows[0] == {
        "kind": "MLP units",
        "layer": "1",
        "couple": "CLIP less supervised",
        "difference": "+0.100",
        "interval": "[+0.050, +0.150]",
        "p": "0.0100",
    }
    assert "CLIP less supervised+0.100" in text
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"beside\.json: got .*, expected JSON\. Run `clipmem localize`"):
        write_report(built.folder, {})


def test_a_tower_that_was_left_out_is_said(build: Build) -> None:
    built = build(seeds=(0, 1))
    found = add_localize(built)
    for name in ("units", "layers"):
        found[name].filter(tower="image").write_parquet(built.folder / "localize" / f"{name}.parquet")
    for name in ("towers.parquet", "towers.json"):
        (built.folder / "localize" / name).unlink()
    settings = {"untrained_text": "objective 'simclr' trains no text tower"}
    (built.folder / "localize" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    text = outline(write_report(built.folder, built.images)).words()
    assert "The text tower and the tower swap are left out: objective 'simclr' trains no text tower." in text
    assert "In the last layer of the image tower" in text
    assert "In the last layer of the text tower" not in text
