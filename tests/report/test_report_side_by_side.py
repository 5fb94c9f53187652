"""The section of runs side by side: answers by layer, the figure, the published curves."""

import json
from collections.abc import Callable

import pytest
from tests.report.documents import side_by_side as document
from tests.report.other_runs import add_localize
from tests.report.outline import outline
from tests.report.run_folder import Built

from clipmem.base.errors import InputError
from clipmem.report.page import write_report
from clipmem.report.sections.side_by_side import UNITMEM, compared, layers_between, side_by_side_figure, styles_of

Build = Callable[..., Built]


@pytest.mark.parametrize(
    ("answers", "verdict", "parts"),
    [
        (["yes", "yes"], "yes", [("yes", "", [1, 2])]),
        (["no above", "no above"], "no", [("no", "above", [1, 2])]),
        (["no above", "no below"], "no", [("no", "above", [1]), ("no", "below", [2])]),
        (["yes", "no below"], "partly", [("yes", "", [1]), ("no", "below", [2])]),
        (["yes", "inconclusive"], "partly", [("yes", "", [1]), ("inconclusive", "", [2])]),
        (["no above", "inconclusive"], "inconclusive", [("no", "above", [1]), ("inconclusive", "", [2])]),
        (["inconclusive", "inconclusive"], "inconclusive", [("inconclusive", "", [1, 2])]),
    ],
)
def test_the_answer_is_given_for_each_layer(answers: list[str], verdict: str, parts: list[object]) -> None:
    [found] = compared(document({"mlp": answers}))["answers"]
    assert (found["kind"], found["verdict"]) == ("mlp", verdict)
    assert [(part["answer"], part["side"], part["layers"]) for part in found["parts"]] == parts


def test_no_answer_without_the_three() -> None:
    assert compared(document({"mlp": ["yes", "yes"]}, between=[]))["answers"] == []


def test_kinds_are_answered_apart_and_training_beside() -> None:
    found = document({"attn": ["yes", "yes"], "mlp": ["no above", "inconclusive"]})
    assert [one["kind"] for one in compared(found)["answers"]] == ["mlp", "attn"]
    for row in found["trained"]:
        if row["run"] == "CLIP" and row["layer"] == 2:
            row["difference"] = -0.1
        if row["run"] == "supervised":
            row["p_holm"] = 0.2
    assert compared(found)["trained"][0]["runs"] == [
        {"run": "CLIP", "above": [1], "below": [2]},
        {"run": "supervised", "above": [], "below": []},
        {"run": "SimCLR", "above": [1, 2], "below": []},
    ]


def test_the_published_curves_are_whole_and_their_layers_are_counted_right() -> None:
    assert {len(values) for values in UNITMEM.values()} == {12}
    expected = []
    for layer in range(12):
        clip, low, high = UNITMEM["clip"][layer], *sorted((UNITMEM["simclr"][layer], UNITMEM["supervised"][layer]))
        if low < clip < high:
            expected.append(layer + 1)
    assert layers_between() == expected


def test_the_figure_is_drawn_with_and_without_intervals_in_both_sizes() -> None:
    found = document({"mlp": ["yes", "yes"], "attn": ["yes", "yes"]})
    for size in ("wide", "narrow"):
        svg = side_by_side_figure(found).svg("side", size)
        for name in ("MLP units", "attention outputs", "published, 12 layers", "CLIP", "supervised", "SimCLR"):
            assert f">{name}<" in svg, name
    banded = side_by_side_figure(found).svg("side", "wide")
    for row in found["curves"]:
        row["low"] = row["high"] = None
    # a band for three runs in two panels
    assert banded.count("<path") - side_by_side_figure(found).svg("side", "wide").count("<path") >= 3 * 2
    assert len(set(styles_of(found).values())) == 3


def test_two_runs_of_one_objective_look_different() -> None:
    found = document({"mlp": ["yes", "yes"]})
    found["runs"] = [{**found["runs"][0], "run": name} for name in ("CLIP (a)", "CLIP (b)")]
    assert len(set(styles_of(found).values())) == 2


def test_the_page_shows_the_section_and_its_table(build: Build) -> None:
    built = build(seeds=(0, 1))
    add_localize(built)
    found = document({"mlp": ["yes", "no below"]})
    path = built.folder / "localize" / "side_by_side.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    page = outline(write_report(built.folder, built.images))
    assert "side_by_side" in {attrs.get("id") for tag, attrs in page.tags if tag == "section"}
    assert "#side_by_side" in {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert len(compared(found)["rows"]) == 6
    assert "CLIP - supervised+0.100 [+0.050, +0.150]0.0100" in page.words().replace("\N{NO-BREAK SPACE}", " ")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        write_report(built.folder, {})
    assert (caught.value.what, caught.value.expected) == (str(path), "JSON")
