"""experiments/finetune/RESULTS.md: its tables, numbers and figures are those of the stored results."""

import re
from pathlib import Path

import polars as pl
import pytest

from clipmem.report.figures import standalone
from tests.scripts import load_script

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compare():
    return load_script(ROOT / "experiments/finetune/compare.py")


@pytest.fixture(scope="module")
def stored(compare):
    return pl.read_parquet(compare.RESULTS)


def test_every_run_has_five_seeds(compare, stored):
    runs = stored.group_by("way", "epochs", "alpha").agg(pl.col("seed").n_unique())
    plain = len(compare.WAYS) * len(compare.EPOCHS)
    assert runs.height == plain + len(compare.INTERPOLATED) * len(compare.ALPHAS)
    assert runs["seed"].to_list() == [5] * runs.height


def test_the_page_has_the_table_and_numbers_of_the_results(compare, stored):
    page = (ROOT / "experiments/finetune/RESULTS.md").read_text(encoding="utf-8")
    tables = compare.tables(stored).split("\n\n")
    assert len(tables) == 4
    assert all(table in page for table in tables)
    words = " ".join(page.split())
    for way, epochs, alpha, name in (
        ("full", 10, 1.0, compare.UTILITY), ("full", 30, 1.0, compare.UTILITY), ("full", 10, 1.0, "clipmem"),
        ("full", 30, 1.0, "clipmem"), ("full", 30, 0.75, "clipmem"), ("full", 30, 0.75, compare.UTILITY),
        ("full", 30, 0.75, compare.KEPT), ("full", 30, 1.0, compare.KEPT),
        ("from scratch", 30, 1.0, compare.UTILITY), ("from scratch", 30, 1.0, "clipmem"),
    ):  # fmt: skip
        values = compare.values_of(stored, name, way=way, epochs=epochs, alpha=alpha)
        shown = compare.shown(values, percent=name != "clipmem")
        assert shown in words or shown.replace(" [", "% [") in words, shown


def test_the_how_to_tells_in_words_what_the_results_show(compare, stored):
    levels = {
        way: [compare.at_equal_utility(stored, way, level).mean() for level in compare.LEVELS] for way in compare.WAYS
    }
    ratios = [frozen / full for frozen, full in zip(levels["image tower frozen"], levels["full"], strict=True)]
    assert ratios[0] < 2
    assert all(3.5 < ratio < 4.5 for ratio in ratios[1:])  # "about four times"
    memory = {
        alpha: compare.values_of(stored, "clipmem", way="full", epochs=30, alpha=alpha).mean() for alpha in (0.75, 1.0)
    }
    assert 0.15 < 1 - memory[0.75] / memory[1.0] < 0.25  # "a fifth"


def test_equal_utility_is_interpolated_between_epochs(compare):
    rows = [
        {"way": "w", "alpha": 1.0, "seed": seed, "epochs": epochs, compare.UTILITY: utility, "clipmem": memory}
        for seed, pairs in (
            (0, [(0.1, 1.0), (0.3, 3.0)]),
            (1, [(0.2, 1.0), (0.15, 9.0)]),
            (2, [(0.1, 0.5), (0.12, 2.0)]),
        )
        for epochs, (utility, memory) in enumerate(pairs)
    ]
    found = compare.at_equal_utility(pl.DataFrame(rows), "w", 0.2)
    assert found[:2].tolist() == pytest.approx([2.0, 1.0])
    assert found[2] != found[2]


@pytest.mark.parametrize("name", ["ways", "alpha"])
def test_the_figures_are_those_of_the_results(compare, stored, name):
    draw = {"ways": compare.ways_figure, "alpha": compare.alpha_figure}[name]
    kept = (ROOT / f"docs/images/finetune-{name}.svg").read_text(encoding="utf-8")
    drawn = standalone(draw(stored, "wide"))
    # another processor may round the last digit of a place otherwise
    assert NUMBER.sub("", drawn) == NUMBER.sub("", kept)
    places = [[float(number) for number in NUMBER.findall(text)] for text in (drawn, kept)]
    assert places[0] == pytest.approx(places[1], abs=0.02)
