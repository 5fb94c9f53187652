"""The settings of `[dejavu]`, and where Déjà Vu is not defined."""

import numpy as np
import pytest

from clipmem.base.recipes import Recipe, dump_recipe, load_recipe
from clipmem.measure.dejavu import Labeled, couples, why_not
from tests.unit.data.test_user_tables import message


def test_the_section_is_written_and_read():
    recipe = load_recipe('[dejavu]\nneighbors = 5\nfractions = [0.05]\nobjects = "a.parquet"')
    assert load_recipe(dump_recipe(recipe)) == recipe
    assert load_recipe(dump_recipe(Recipe())).dejavu.fractions == (0.001, 0.01, 0.1)
    assert message(lambda: load_recipe("[dejavu]\nneighbors = 0")) == (
        "recipe: [dejavu] neighbors: got 0, expected 1 or more. `clipmem init` prints every key with its meaning."
    )
    assert "fractions.0 (1 more): got 2.0, expected at most 1." in message(
        lambda: load_recipe("[dejavu]\nfractions = [2.0]")
    )


BOTH = [("f", 0), ("g", 0)]
ROLE = np.array(["candidate", "external", "external"])


@pytest.mark.parametrize(
    ("settings", "tasks", "objects", "reason"),
    [
        (["dejavu.neighbors=2"], BOTH, [["x"], ["x"], []], ""),
        (
            ["protocol=subsample"],
            [("r", 0), ("r", 1)],
            [["x"]] * 3,
            "not defined for protocol 'subsample': it compares an f that saw all candidates with a g that saw none",
        ),
        (
            ["train.objective=simclr", "score.alignment=sslmem-image"],
            BOTH,
            [["x"]] * 3,
            "objective 'simclr' trains no text tower, which embeds the queries",
        ),
        (
            [],
            BOTH,
            [["x"]] * 3,
            "dejavu.neighbors = 10 is more than the 2 held-out images (external pairs); set it to 2 or less",
        ),
        (["dejavu.neighbors=1"], BOTH, [[], ["x"], []], "no candidate pair has an object"),
        (["dejavu.neighbors=1"], BOTH, [["x"], [], []], "no external pair has an object"),
    ],
)
def test_where_it_is_not_defined_it_says_why(settings, tasks, objects, reason):
    n = len(objects)
    labeled = Labeled(["a"] * n, ROLE, np.arange(n), objects, np.zeros(n, dtype=bool), np.zeros(n))
    assert why_not(load_recipe("", settings), tasks, labeled) == reason


def test_seeds_are_paired():
    assert couples([("f", 2), ("g", 1), ("f", 1), ("g", 2), ("g", 5)]) == [(1, 1), (2, 2)]
    assert couples([("f", 4), ("f", 3), ("g", 7)]) == [(3, 7)]
