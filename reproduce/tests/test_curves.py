"""UnitMem by layer: curves are plain means, tests are paired, and CLIP is between only if shown."""

import numpy as np
import polars as pl
import pytest
from made_up import curves as document

from clipmem.functional import holm, paired_test
from clipmem.report.figures import STYLES
from clipmem_reproduce.curves import (
    CURVES_SCHEMA,
    TITLES,
    UNITMEM,
    answers_of,
    between,
    compare_curves,
    curves_figure,
    curves_of,
    trained_of,
)

SEEDS, LAYERS, UNITS = range(5), range(1, 4), 6


def units_of(level, *, dead=(), noise=3):
    """A table of units whose UnitMem is `level[side][layer - 1]` but for noise of the seed and the unit."""
    rng = np.random.default_rng(noise)
    rows = [
        {
            "side": side,
            "seed": seed,
            "tower": tower,
            "layer": layer,
            "kind": kind,
            "unit": unit,
            "unitmem": None if (seed, layer, unit) in dead else level[side][layer - 1] + rng.normal(0, 0.01),
            "unitmem_median": None if (seed, layer, unit) in dead else level[side][layer - 1] + 0.1,
        }
        for side in "fg"
        for seed in SEEDS
        for tower in ("image", "text")
        for layer in LAYERS
        for kind in ("attn", "mlp")
        for unit in range(UNITS)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


LEVELS = {
    "clip": {"f": [0.5, 0.3, 0.4], "g": [0.5, 0.3, 0.3]},
    "supervised": {"f": [0.4, 0.5, 0.2], "g": [0.4, 0.5, 0.2]},
    "simclr": {"f": [0.7, 0.6, 0.4], "g": [0.7, 0.6, 0.4]},
}


@pytest.fixture(scope="module")
def curves():
    return pl.concat(
        curves_of(units_of(level, noise=k + 10), run=objective.upper(), objective=objective)
        for k, (objective, level) in enumerate(LEVELS.items())
    )


def test_a_curve_is_the_mean_over_the_units_that_are_alive():
    dead = {(2, 3, 0), (2, 3, 4)}
    units = units_of(LEVELS["clip"], dead=dead)
    found = curves_of(units, run="one", objective="clip")
    assert found.schema == CURVES_SCHEMA
    assert found.height == 2 * len(SEEDS) * 2 * len(LAYERS)
    for row in found.iter_rows(named=True):
        values = [
            own["unitmem"]
            for own in units.iter_rows(named=True)
            if own["tower"] == "image"
            and all(own[name] == row[name] for name in ("side", "seed", "kind", "layer"))
            and own["unitmem"] is not None
        ]
        assert row["n_units"] == len(values) == UNITS - 2 * (row["seed"] == 2 and row["layer"] == 3)
        assert row["unitmem"] == pytest.approx(sum(values) / len(values), abs=1e-12)
        assert row["unitmem_median"] == pytest.approx(LEVELS["clip"][row["side"]][row["layer"] - 1] + 0.1)
        assert (row["run"], row["objective"], row["layers"]) == ("one", "clip", 3)


def test_differences_are_paired_by_seed_and_corrected_together(curves):
    found = compare_curves(curves, 0.9)

    def values(run, side, kind, layer):
        by_seed = {
            row["seed"]: row["unitmem"]
            for row in curves.iter_rows(named=True)
            if (row["run"], row["side"], row["kind"], row["layer"]) == (run, side, kind, layer)
        }
        return np.array([by_seed[seed] for seed in SEEDS])

    for name, count in (("differences", 3), ("trained", 3)):
        rows = found[name]
        assert len(rows) == count * 2 * len(LAYERS)
        for row in rows:
            place = (row["kind"], row["layer"])
            first, second = ((row["a"], "f"), (row["b"], "f")) if "a" in row else ((row["run"], "f"), (row["run"], "g"))
            expected = paired_test(values(*first, *place), values(*second, *place), 0.9)
            assert (row["difference"], row["low"], row["high"]) == expected[:3]
            assert row["p"] == expected.p
        np.testing.assert_array_equal([row["p_holm"] for row in rows], holm(np.array([row["p"] for row in rows])))
    # rows in another order are the same rows
    shuffled = curves.sample(fraction=1, shuffle=True, seed=1)
    again = compare_curves(pl.concat(shuffled.filter(pl.col("run") == run) for run in curves["run"].unique(
        maintain_order=True
    )), 0.9)  # fmt: skip
    assert again == found


def test_means_have_students_interval(curves):
    row = compare_curves(curves)["curves"][0]
    own = curves.filter(
        (pl.col("run") == row["run"]) & (pl.col("side") == "f") & (pl.col("kind") == "attn") & (pl.col("layer") == 1)
    )["unitmem"].to_numpy()
    half = 2.7764451 * own.std(ddof=1) / np.sqrt(5)  # t of 4 degrees of freedom at 97.5 %
    assert (row["side"], row["kind"], row["layer"], row["layers"], row["seeds"]) == ("f", "attn", 1, 3, 5)
    np.testing.assert_allclose([row["mean"], row["low"], row["high"]], own.mean() + np.array([0, -half, half]))


def test_clip_is_between_only_where_both_differences_are_shown(curves):
    answers = {(row["kind"], row["layer"]): (row["answer"], row["side"]) for row in compare_curves(curves)["between"]}
    for kind in ("attn", "mlp"):
        assert answers[kind, 1] == ("yes", "")  # 0.4 < 0.5 < 0.7
        assert answers[kind, 2] == ("no", "below")  # 0.3 below 0.5 and 0.6
        assert answers[kind, 3] == ("inconclusive", "")  # 0.4 = 0.4
    swapped = curves.with_columns(pl.col("objective").replace({"clip": "simclr", "simclr": "clip"}))
    above = {(row["kind"], row["layer"]): row for row in compare_curves(swapped)["between"]}
    assert (above["mlp", 1]["answer"], above["mlp", 1]["side"]) == ("no", "above")


def test_nothing_is_said_without_the_three_or_with_one_twice(curves):
    two = curves.filter(pl.col("objective") != "simclr")
    assert compare_curves(two)["between"] == []
    twice = pl.concat([curves, curves.filter(pl.col("run") == "CLIP").with_columns(run=pl.lit("again"))])
    assert compare_curves(twice)["between"] == []
    assert between([], {}, 0.05) == []


def test_one_seed_has_no_interval_and_no_answer(curves):
    found = compare_curves(curves.filter(pl.col("seed") == 0))
    assert {row["low"] for row in found["curves"]} == {None}
    assert {row["p_holm"] for row in found["differences"]} == {None}
    assert {row["answer"] for row in found["between"]} == {"inconclusive"}


def test_training_on_the_pairs_shows_as_f_less_g(curves):
    found = {(row["run"], row["kind"], row["layer"]): row for row in compare_curves(curves)["trained"]}
    assert found["CLIP", "mlp", 3]["p_holm"] < 0.001
    assert found["CLIP", "mlp", 3]["difference"] == pytest.approx(0.1, abs=0.02)
    assert found["SIMCLR", "mlp", 3]["p_holm"] > 0.05


# ---- answers by layer, and the figure


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
def test_the_answer_is_given_for_each_layer(answers, verdict, parts):
    [answer] = answers_of(document({"mlp": answers}))
    assert (answer["kind"], answer["verdict"]) == ("mlp", verdict)
    assert [(part["answer"], part["side"], part["layers"]) for part in answer["parts"]] == parts


def test_no_answer_without_the_three():
    assert answers_of({**document({"mlp": ["yes", "yes"]}), "between": []}) == []


def test_kinds_are_answered_apart_and_so_is_training():
    made_up = document({"attn": ["yes", "yes"], "mlp": ["no above", "inconclusive"]})
    assert [answer["kind"] for answer in answers_of(made_up)] == ["mlp", "attn"]
    for row in made_up["trained"]:
        if row["run"] == "CLIP" and row["layer"] == 2:
            row["difference"] = -0.1
        if row["run"] == "supervised":
            row["p_holm"] = 0.2
    assert trained_of(made_up, "mlp") == [
        {"run": "CLIP", "above": [1], "below": [2]},
        {"run": "supervised", "above": [], "below": []},
        {"run": "SimCLR", "above": [1, 2], "below": []},
    ]


def test_the_published_curves_are_whole_and_clip_is_between_in_the_layers_that_the_docs_name():
    assert {len(values) for values in UNITMEM.values()} == {12}
    layers = []
    for layer in range(12):
        clip, low, high = UNITMEM["clip"][layer], *sorted((UNITMEM["simclr"][layer], UNITMEM["supervised"][layer]))
        if low < clip < high:
            layers.append(layer + 1)
    assert layers == [1, 9, 10, 11, 12]


def test_the_figure_is_drawn_with_and_without_intervals_in_both_sizes():
    made_up = document({"mlp": ["yes", "yes"], "attn": ["yes", "no below"]})
    for size in ("wide", "narrow"):
        svg = curves_figure(made_up).svg("curves", size)
        for name in ("MLP units", "attention outputs", "published, 12 layers", "CLIP", "supervised", "SimCLR"):
            assert f">{name}<" in svg, name
        assert "MLP units: yes; attention outputs: partly." in svg
    banded = curves_figure(made_up).svg("curves", "wide")
    for row in made_up["curves"]:
        row["low"] = row["high"] = None
    # a band for three runs in two panels
    assert banded.count("<path") - curves_figure(made_up).svg("curves", "wide").count("<path") >= 3 * 2


def test_a_published_curve_has_the_style_of_its_objective_here():
    figure = curves_figure(document({"mlp": ["yes", "yes"], "attn": ["yes", "yes"]}))
    assert figure.legend == dict(zip(TITLES.values(), STYLES, strict=False))
    for panel in figure.panels:
        assert [line.style for line in panel.lines] == list(figure.legend.values())
    assert [list(line.y) for line in figure.panels[-1].lines] == [list(values) for values in UNITMEM.values()]
