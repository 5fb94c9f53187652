"""Configurations over the length of training: planted curves against slow loops, and what is refused."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from clipmem.base.errors import InputError
from clipmem.functional import holm, paired_test
from clipmem.report.comparison import compare_runs, write_compared
from clipmem.report.frontier import Curve, best_levels
from clipmem.report.page import render
from clipmem.report.terminal import print_screen
from tests.compared import build

SEEDS = (0, 1, 2)
EPOCHS = (4, 8, 16)
# utility peaks at 8 in the first, and rises to the end in the second; memorization rises in both
UTILITY = {"plain": (0.3, 0.5, 0.4), "noise": (0.2, 0.5, 0.7)}
MEMORY = {"plain": (0.2, 0.4, 0.6), "noise": (0.05, 0.1, 0.15)}
METRIC = "retrieval_recall@5"
CHANCE = {METRIC: 0.1}


def make(root, name, k, **changes):
    """A run of a configuration at one of the lengths."""
    settings = ["mitigate.text_noise.std=0.15"] if name == "noise" else []
    given = {"effect": MEMORY[name][k], "metrics": {METRIC: UTILITY[name][k]}, "chance": CHANCE, "noise": 10 * k}
    given["noise"] += len(name) * (name == "noise")
    return build(root / f"{name}-{EPOCHS[k]}", *settings, *changes.pop("settings", ()), epochs=EPOCHS[k], seeds=SEEDS,
                 **(given | changes))  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    # the first folder is not the shortest run, and the others are in no order
    places = [("plain", 1), ("noise", 2), ("plain", 0), ("noise", 0), ("noise", 1), ("plain", 2)]
    return [make(root, name, k) for name, k in places]


@pytest.fixture(scope="module")
def document(folders):
    return compare_runs(folders, along="train.epochs")


def by_seed(folders):
    """Memorization and utility by configuration, length and seed, each from its table."""
    found = {}
    for folder in folders:
        name, epochs = folder.name.split("-")
        table = pl.read_parquet(folder / "seed_scores.parquet").with_columns(d=pl.col("f") - pl.col("g"))
        rows = []
        for seed in SEEDS:
            sides = [[d for uid, d in table.filter(seed=seed).select("uid", "d").rows() if uid[0] == c] for c in "ci"]
            rows.append((np.mean(sides[0]) - np.mean(sides[1])) / 2)
        found[name, int(epochs)] = rows
    return found


def test_each_configuration_is_a_curve(folders, document):
    found, memory = document["frontier"], by_seed(folders)
    assert "curve" not in document
    assert (found["setting"], found["measure"], found["utility"]) == ("train.epochs", "clipmem", METRIC)
    assert (found["candidates"], found["independent"], found["chosen_by"]) == (8, 8, "other_seeds")
    assert [group["differs"] for group in found["groups"]] == [{}, {"mitigate.text_noise.std": [0.0, 0.15]}]
    assert [group["peak"] for group in found["groups"]] == [8, 16]
    for name, group in zip(("plain", "noise"), found["groups"], strict=True):
        assert [(one["run"], one["value"]) for one in group["points"]] == [(f"{name}-{k}", k) for k in EPOCHS]
        for point in group["points"]:
            own = np.array(memory[name, point["value"]])
            expected = paired_test(own, np.zeros(3))
            ends = [point["memorization"][key] for key in ("mean", "low", "high")]
            assert ends == pytest.approx([expected.difference, expected.low, expected.high])
    # dominated by the noise at 8 or 16; at chance, or with less than half of (.5 - .1) above it
    front = {one["run"] for group in found["groups"] for one in group["points"] if one["front"]}
    near = {one["run"] for group in found["groups"] for one in group["points"] if one["near_chance"]}
    assert (front, near) == ({"noise-8", "noise-16"}, {"noise-4"})


def test_configurations_are_compared_at_equal_lengths(folders, document):
    rows, memory = document["frontier"]["equal"], by_seed(folders)
    utility = {run["run"]: run["utility"][METRIC] for run in document["runs"]}
    assert [(row["group"], row["values"], row["base_values"]) for row in rows] == [
        (1, [k] * 3, [k] * 3) for k in EPOCHS
    ]
    for row, epochs in zip(rows, EPOCHS, strict=True):
        sides = {
            "memorization": (memory["noise", epochs], memory["plain", epochs]),
            "utility": (utility[f"noise-{epochs}"], utility[f"plain-{epochs}"]),
        }
        for name, (own, base) in sides.items():
            expected = paired_test(np.array(own), np.array(base))
            found = [row[name][key] for key in ("difference", "low", "high", "p")]
            assert found == pytest.approx([expected.difference, expected.low, expected.high, expected.p])
    assert [row["dominates"] for row in rows] == ["no", "inconclusive", "yes"]
    assert [row["p_holm"] for row in rows] == holm(np.array([row["p"] for row in rows])).tolist()


def test_each_at_its_own_best_length_chosen_by_the_other_seeds(folders, document):
    [row] = document["frontier"]["best"]
    assert (row["values"], row["base_values"]) == ([16] * 3, [8] * 3)
    memory = by_seed(folders)
    gap = np.subtract(memory["noise", 16], memory["plain", 8])
    assert row["memorization"]["difference"] == pytest.approx(gap.mean())
    assert row["dominates"] == "yes"
    assert row["p_holm"] == row["p"]


def slow_choice(utility):
    """For each seed the level with the highest mean over the other seeds; the first of equal ones."""
    chosen = []
    for seed in range(utility.shape[1]):
        best, highest = 0, -np.inf
        for level in range(len(utility)):
            others = [utility[level, k] for k in range(utility.shape[1]) if k != seed]
            if sum(others) / len(others) > highest:
                best, highest = level, sum(others) / len(others)
        chosen.append(best)
    return chosen


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 5)), elements=st.integers(-8, 8).map(float)))
def test_a_seed_has_no_say_in_its_own_choice(utility):
    curve = Curve([], [], utility, utility, None)
    found = best_levels(curve, validated=False)
    sums = utility.sum(axis=1, keepdims=True) - utility
    for seed, level in enumerate(slow_choice(utility)):  # equal means may differ in their last digit
        assert sums[found[seed], seed] == sums[level, seed]
        changed = utility.copy()
        changed[:, seed] = 100.0 * np.arange(len(utility))
        assert best_levels(curve._replace(utility=changed), validated=False)[seed] == found[seed]


@pytest.mark.slow
def test_validation_pairs_choose_where_all_runs_have_them(tmp_path):
    # they see the baseline best at 4, where E sees it at 8
    held_out = {"plain": (0.9, 0.1, 0.2), "noise": (0.1, 0.6, 0.5)}
    folders = [
        make(tmp_path, name, k, validation={METRIC: [held_out[name][k]] * 3}) for name in held_out for k in range(3)
    ]
    found = compare_runs(folders, along="train.epochs")["frontier"]
    assert found["chosen_by"] == "validation"
    assert (found["best"][0]["values"], found["best"][0]["base_values"]) == ([8] * 3, [4] * 3)
    without = make(tmp_path / "more", "noise", 2)
    found = compare_runs([*folders[:5], without], along="train.epochs")["frontier"]
    assert found["chosen_by"] == "other_seeds"
    assert (found["best"][0]["values"], found["best"][0]["base_values"]) == ([16] * 3, [8] * 3)


def test_one_seed_cannot_choose_for_another(tmp_path):
    folders = [make(tmp_path, name, k) for name in UTILITY for k in (0, 1)]
    for folder in folders:
        text = (folder / "recipe.toml").read_text()
        (folder / "recipe.toml").write_text(text.replace("seeds = [0, 1, 2]", "seeds = [1]"))
    found = compare_runs(folders, along="train.epochs")["frontier"]
    assert found["best"] == []
    assert [(row["p_holm"], row["dominates"]) for row in found["equal"]] == [(None, "inconclusive")] * 2


def test_removed_pairs_leave_all_curves(tmp_path):
    gone = ("c06", "c07", "i06", "i07")
    # each length removes by the scores of its own parent: one configuration
    removed = [
        make(tmp_path, "noise", k, without=gone, settings=(f"mitigate.remove.scores=parent-{k}",)) for k in (0, 1)
    ]
    plain = [make(tmp_path, "plain", k) for k in (0, 1)]
    found = compare_runs([*plain, *removed], along="train.epochs")["frontier"]
    assert (found["candidates"], found["independent"], len(found["groups"])) == (6, 6, 2)
    table = pl.read_parquet(plain[0] / "seed_scores.parquet").filter(~pl.col("uid").is_in(gone))
    means = table.with_columns(d=pl.col("f") - pl.col("g"), role=pl.col("uid").str.head(1)).group_by("role")
    means = dict(means.agg(pl.col("d").mean()).iter_rows())
    assert found["groups"][0]["points"][0]["memorization"]["mean"] == pytest.approx((means["c"] - means["i"]) / 2)


def test_page_and_terminal(folders, document, tmp_path):
    assert write_compared(folders, tmp_path / "out", along="train.epochs") == document
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page == render("comparison", document)
    assert 'href="#frontier"' in page
    assert page.count("<svg") == 4  # two figures, wide and narrow
    assert "1 of 3 comparisons dominate at equal values, and 1 of 1 comparison dominates" in page
    console = Console(width=140, record=True, file=io.StringIO())
    print_screen("comparison", document, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "16 (8)" in text  # each at its own best
    assert text.count("text_noise.std 0.15 at 16") == 2


def test_a_single_configuration_is_a_curve(folders):
    plain = [folder for folder in folders if folder.name.startswith("plain")]
    document = compare_runs(plain, along="train.epochs")
    assert "frontier" not in document
    values = [row["value"] for row in document["curve"]["rows"] if row["measure"] == "clipmem"]
    assert values == list(EPOCHS)


def refused(folders, along="train.epochs", **settings):
    with pytest.raises(InputError) as error:
        compare_runs(folders, along=along, **settings)
    return error.value


@pytest.mark.parametrize(
    ("along", "what", "got"),
    [
        ("train.epoch", "--along", "'train.epoch'"),
        ("train.lr", "--along train.lr", "0.001"),
        ("model.name", "--along model.name", None),
        ("train.seeds", "--along train.seeds", "[0, 1, 2]"),
    ],
)
def test_settings_that_are_no_axis(folders, along, what, got):
    error = refused(folders, along)
    assert error.what == what
    assert got is None or error.got == got


def test_two_runs_at_one_place_and_missing_utility_are_refused(folders, tmp_path):
    again = make(tmp_path / "again", "noise", 1).rename(tmp_path / "copy")
    error = refused([*folders, again])
    assert (error.what, error.got) == ("--along train.epochs", "equal settings in noise-8, copy")
    silent = make(tmp_path, "noise", 1, metrics=None)
    error = refused([folders[0], folders[2], silent])
    assert (error.what, error.got) == ("--along train.epochs", "no metric of utility in common")
