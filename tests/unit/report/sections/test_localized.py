"""The sections of a localized run: units, layers, towers. Shown where their tables are, with their intervals."""

import json
import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.report.gallery import gallery_uids, top_units
from clipmem.report.page import write_report
from clipmem.report.run import Run
from clipmem.report.sections.localized import against_control, last_layers, layermem_figure, unitmem_figure
from tests.unit.report.other_runs import add_localize
from tests.unit.report.outline import Outline, outline
from tests.unit.report.run_folder import Built

Build = Callable[..., Built]


@pytest.fixture(scope="module")
def localized(build: Build) -> tuple[Built, dict[str, Any]]:
    built = build(seeds=(0, 1))
    return built, add_localize(built)


@pytest.fixture(scope="module")
def page(localized: tuple[Built, dict[str, Any]]) -> Outline:
    return outline(write_report(localized[0].folder, localized[0].images))


def sections(page: Outline) -> set[str]:
    return {attrs["id"] for tag, attrs in page.tags if tag == "section"}


def test_the_sections_are_there_and_can_be_reached(page: Outline) -> None:
    assert {"units", "layers", "towers"} <= sections(page)
    links = [attrs["href"][1:] for tag, attrs in page.tags if tag == "a"]
    assert {"units", "layers", "towers"} <= set(links)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids)
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")


def test_a_run_that_was_not_localized_has_none_of_it(two_seeds: Built) -> None:
    page = outline(write_report(two_seeds.folder, two_seeds.images))
    assert not {"units", "layers", "towers"} & sections(page)


@pytest.mark.slow
def test_units_and_towers_are_shown_without_the_other(build: Build) -> None:
    for names, shown in ((("units.parquet", "layers.parquet"), {"units", "layers"}), (("towers.json",), {"towers"})):
        built = build(seeds=(0, 1))
        add_localize(built)
        for file in (built.folder / "localize").iterdir():
            if file.name not in names:
                file.unlink()
        page = outline(write_report(built.folder, built.images))
        assert sections(page) & {"units", "layers", "towers"} == shown
        ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
        assert {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"} <= ids


def test_units_come_by_tower_and_value_with_the_pair_that_owns_them(
    localized: tuple[Built, dict[str, Any]], page: Outline
) -> None:
    built, found = localized
    captions, sources = (
        dict(table.iter_rows())
        for table in (built.pairs.select("uid", "captions"), built.splits.select("uid", "captions_from"))
    )
    rows = [row for row in found["units"].iter_rows(named=True) if row["side"] == "f" and row["unitmem"] is not None]
    expected = [
        row
        for tower in ("image", "text")
        for row in sorted((r for r in rows if r["tower"] == tower), key=lambda r: -r["unitmem"])[:6]
    ]
    shown = top_units(found["units"]).to_dicts()
    assert [(unit["tower"], unit["unitmem"], unit["uid"]) for unit in shown] == [
        (row["tower"], row["unitmem"], row["uid"]) for row in expected
    ]
    text = page.words()
    for row in expected:
        kind = {"attn": "attention", "mlp": "MLP"}[row["kind"]]
        assert captions[sources[row["uid"]]][0] in text
        assert f"layer {row['layer']}, {kind}, unit {row['unit']}{row['unitmem']:.3f}" in text
    uids = gallery_uids(Run(built.folder))
    assert len(uids) == len(set(uids))
    assert {row["uid"] for row in expected} <= set(uids)
    assert len([attrs for tag, attrs in page.tags if tag == "img"]) == 48 + 12


def test_figures_name_their_last_values(localized: tuple[Built, dict[str, Any]]) -> None:
    layers = localized[1]["layers"]
    for size in ("wide", "narrow"):
        svg = unitmem_figure(layers).svg("unitmem", size)
        assert "In the last layer: image attn 0.580, image mlp 0.580, text attn 0.560, text mlp 0.560." in svg
        assert svg.count("the same under g") == 1
        assert len(re.findall("stroke-dasharray", svg)) >= 2
        svg = layermem_figure(layers).svg("layermem", size)
        assert "In the last layer: image +0.100, text +0.090." in svg
        for name in ("block", "attention", "MLP", "embedding", "held-out pairs, block", "difference", "emb."):
            assert f">{name}<" in svg, name


def test_figures_are_drawn_of_one_layer_and_of_nothing(localized: tuple[Built, dict[str, Any]]) -> None:
    layers = localized[1]["layers"]
    for some in (layers.filter(pl.col("layer") == 1), layers.clear()):
        for size in ("wide", "narrow"):
            assert unitmem_figure(some).svg("unitmem", size).startswith("<svg")
            assert layermem_figure(some).svg("layermem", size).startswith("<svg")


def test_all_layers_are_tested_as_one_family(localized: tuple[Built, dict[str, Any]]) -> None:
    layers: pl.DataFrame = localized[1]["layers"]
    assert against_control(layers) is None  # nothing was tested
    candidate = pl.col("role") == "candidate"
    tested = layers.with_columns(
        pl.when(candidate).then(0.25).alias("control_difference"), pl.when(candidate).then(0.2).alias("control_p_holm")
    )
    n = layers.filter(candidate).height
    assert against_control(tested) == {"tests": n, "differ": 0, "below": 0.05, "clearest": []}
    one = candidate & (pl.col("tower") == "text") & (pl.col("layer") == 1) & (pl.col("kind") == "block")
    found = against_control(
        tested.with_columns(pl.when(one).then(0.0123).otherwise("control_p_holm").alias("control_p_holm"))
    )
    assert found["differ"] == 1
    assert [(row["tower"], row["layer"], row["control_difference"]) for row in found["clearest"]] == [("text", 1, 0.25)]
    assert against_control(tested.filter(~candidate)) is None


def test_layers_are_judged_against_the_control(localized: tuple[Built, dict[str, Any]]) -> None:
    layers: pl.DataFrame = localized[1]["layers"]
    found = last_layers(layers)
    assert [(row.tower, row.side) for row in found] == [("image", "above"), ("text", "above")]
    assert [round(row.candidate.mean, 3) for row in found] == [0.1, 0.09]
    shifted = layers.with_columns(
        pl.when(pl.col("role") == "external").then(pl.col(name) + 0.095).otherwise(name).alias(name)
        for name in ("layermem", "low", "high")
    )
    assert {row.side for row in last_layers(shifted)} == {"inconclusive"}
    assert last_layers(layers.filter(pl.col("role") == "candidate")) == []


def test_shares_that_are_not_reliable_are_not_quoted(build: Build) -> None:
    built = build(seeds=(0, 1))
    add_localize(built, reliable=False, failures=[{"check": "fit", "of": "<image>", "value": 0.2, "limit": 0.5}])
    text = write_report(built.folder, built.images).read_text(encoding="utf-8")
    assert "the &lt;image&gt; map explains 0.20 of" in text
    assert "the image tower contributes" not in text


@pytest.mark.slow
def test_a_tower_that_was_left_out_is_not_judged(build: Build) -> None:
    built = build(seeds=(0, 1))
    found = add_localize(built)
    for name in ("units", "layers"):
        found[name].filter(tower="image").write_parquet(built.folder / "localize" / f"{name}.parquet")
    for name in ("towers.parquet", "towers.json"):
        (built.folder / "localize" / name).unlink()
    settings = {"untrained_text": "objective 'simclr' trains no text tower"}
    (built.folder / "localize" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    text = outline(write_report(built.folder, built.images)).words()
    assert "left out: objective 'simclr' trains no text tower." in text
    assert [row.tower for row in last_layers(found["layers"].filter(tower="image"))] == ["image"]


def test_a_table_of_another_make_is_refused_in_one_line(build: Build) -> None:
    built = build(seeds=(0, 1))
    found = add_localize(built)
    path = built.folder / "localize" / "layers.parquet"
    found["layers"].drop("delta").write_parquet(path)
    with pytest.raises(InputError) as caught:
        write_report(built.folder, {})
    assert str(path) in caught.value.what
    assert caught.value.expected == "also ['delta']"
    path.write_bytes(b"no")
    with pytest.raises(InputError, match="not readable as Parquet"):
        write_report(built.folder, {})
    found["layers"].write_parquet(path)
    (built.folder / "localize" / "towers.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not JSON"):
        write_report(built.folder, {})


@pytest.mark.slow
def test_the_same_tables_give_the_same_bytes(localized: tuple[Built, dict[str, Any]]) -> None:
    built, found = localized
    first = write_report(built.folder, built.images).read_bytes()
    for name in ("units", "layers", "towers"):
        found[name].sample(fraction=1, shuffle=True, seed=3).write_parquet(
            built.folder / "localize" / f"{name}.parquet"
        )
    document = json.dumps(dict(reversed(found["document"].items())))
    (built.folder / "localize" / "towers.json").write_text(document, encoding="utf-8")
    assert write_report(built.folder, built.images).read_bytes() == first
