"""`clipmem.functional`: its names, examples and arguments, and what its functions refuse."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import clipmem.functional
from clipmem import functional, stats
from clipmem.base.errors import InputError
from clipmem.functional import (
    ClassMemState,
    LogHistogram,
    UnitMemState,
    class_probability,
    dejavu,
    holm,
    in_out_means,
    jackknife_models,
    nearest,
    paired_test,
    predict_objects,
    text_view_distance,
    view_distance,
)

MODULES = [f"clipmem.stats.{module.name}" for module in pkgutil.iter_modules(stats.__path__)]


def test_all_names_exist_and_are_documented():
    assert sorted(clipmem.functional.__all__) == list(clipmem.functional.__all__)
    for name in clipmem.functional.__all__:
        assert getattr(clipmem.functional, name).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name), verbose=False)
    assert result.failed == 0
    assert result.attempted > 0 or name.endswith("checks")


def test_lists_arrays_and_tensors_give_the_same():
    scores, positive = [0.9, 0.4, 0.5, 0.1], [True, True, False, False]
    expected = functional.auroc(np.array(scores), np.array(positive))
    assert expected.mean == 0.75
    assert functional.auroc(scores, positive) == expected
    assert functional.auroc(torch.tensor(scores, dtype=torch.float64), positive) == expected
    assert functional.auroc([9, 4, 5, 1], positive) == expected
    for embeddings in ([[3, 4]], np.array([[3.0, 4.0]]), torch.tensor([[3.0, 4.0]], dtype=torch.float64)):
        assert functional.normalize(embeddings).tolist() == [[0.6, 0.8]]
    assert functional.clipmem([[0.5, 0.25]], np.array([[0.25, 0.25]])).tolist() == [0.25, 0]


ARRAYS = [
    (name, argument)
    for name in functional.__all__
    if inspect.isfunction(getattr(functional, name))
    for argument, parameter in inspect.signature(getattr(functional, name)).parameters.items()
    if hasattr(parameter.annotation, "dim_str")
]


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
@pytest.mark.parametrize("value", [None, "text", 3, [[1.0], [1.0, 2.0]], {"a": 1}, [object()]])
def test_what_is_no_array_is_refused(name, argument, value):
    formula, others = getattr(functional, name), {}
    for other, parameter in inspect.signature(formula).parameters.items():
        kind = parameter.annotation
        if hasattr(kind, "dim_str"):
            dtype = kind.dtypes[-1]
            others[other] = np.ones([2] * len(kind.dim_str.split()), dtype=dtype)
        elif parameter.default is parameter.empty:
            others[other] = None
    if value == 3 and {"*", "."} & set(inspect.signature(formula).parameters[argument].annotation.dim_str):
        pytest.skip("an argument of any shape")
    with pytest.raises(InputError) as error:
        formula(**{**others, argument: value})
    assert error.value.what == argument


def test_there_are_arguments_to_try():
    assert len(ARRAYS) > 40
    assert ("auroc", "positive") in ARRAYS


CALLS = """
from pathlib import Path

import clipmem
from clipmem.mitigate import ImageEmbeddingNoise, TextEmbeddingNoise

calls = [(clipmem.load_run, [None]), (clipmem.load_run, [3]), (clipmem.run, [5, "out"]), (clipmem.run, ["quick", 5])]
wrong = ("a", None, -1, float("inf"), [1])
calls += [(noise, [std]) for noise in (TextEmbeddingNoise, ImageEmbeddingNoise) for std in wrong]
calls += [(clipmem.curate, [3]), (clipmem.curate, [{"path": "none.csv"}]), (clipmem.curate, [{"pth": "a.csv"}])]
calls += [(clipmem.run, [Path("http://127.0.0.1/a.toml"), "out"])]
for function, arguments in calls:
    try:
        function(*arguments)
    except clipmem.InputError as error:
        print(error.what, "|", error.expected, "|", error.got)
"""


@pytest.mark.slow
def test_wrong_types_are_refused_by_name(tmp_path):  # alone: here types are checked at every call
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, cwd=tmp_path, check=True)
    said = done.stdout.splitlines()
    assert [line.split(" | ")[0] for line in said] == [
        "run folder", "run folder", "recipe", "--out",
        *["TextEmbeddingNoise std"] * 5, *["ImageEmbeddingNoise std"] * 5,
        "data", "[data] path", "data: [data] pth", "recipe",
    ]  # fmt: skip
    assert [line.split(" | ")[1] for line in said[:4]] == ["a path"] * 4
    assert said[-1].split(" | ")[1:] == ["a path on this machine", "http://127.0.0.1/a.toml"]


raw = inspect.unwrap  # a user runs without the shape checks of the test hook
one, two = torch.ones(1, 1), torch.ones(2, 1)
yes = torch.ones(2, 3, dtype=torch.bool)


def state(*blocks, **settings):
    made = UnitMemState(1, **settings)
    for row, block in blocks:
        made.update(torch.tensor(block)[:, None], row)
    return made


CASES = [
    (lambda: view_distance(one, torch.ones(1, 0, 1)), "views", "no view"),
    (lambda: raw(view_distance)(one, torch.ones(1, 1, 2)), "views", "width 2"),
    (lambda: raw(view_distance)(one, torch.ones(2, 1, 1)), "clean embeddings and views", "1 and 2 values"),
    (lambda: raw(text_view_distance)(two, one, torch.tensor([0, 1])), "text_pair", "2 indices for 1 caption rows"),
    (
        lambda: text_view_distance(two, one, torch.tensor([1])),
        "text_pair",
        "1 of 2 pairs without a caption, the first is pair 0",
    ),
    (lambda: class_probability(two, torch.tensor([0, 1])), "label", "1 in row 1"),
    (lambda: class_probability(two, torch.tensor([0, -1])), "label", "-1 in row 1"),
    (lambda: class_probability(two / 0, torch.tensor([0, 0])), "logits", "2 of 2 rows not finite, the first in row 0"),
    (lambda: state((0, [1.0, float("nan")])), "activations", "1 of 2 values not finite"),
    (lambda: state((0, [-1.0, 1.0])), "activations", "1 of 2 values below 0"),
    (lambda: state((0, [1.0, 2.0]), (1, [1.0])), "activations", "row 1 a second time"),
    (lambda: state((3, [1.0]), (0, [1.0, 2.0]), (2, [1.0, 2.0])), "activations", "row 3 a second time"),
    (lambda: state((-1, [1.0])), "first_row", "-1"),
    (lambda: state((0, [1.0])).result(), "points of the activations", "1"),
    (lambda: state((0, [1.0, 2.0])).result("median"), "rest", "'median'"),
    (lambda: state((0, [1.0])).update(torch.ones(1, 2), 5), "units of the activations", "2"),
    (lambda: ClassMemState(2, 1).update(one, torch.tensor([2])), "label", "2 in row 0"),
    (lambda: ClassMemState(2, 1).update(two, torch.tensor([1])), "activations and label", "2 and 1 values"),
    (lambda: LogHistogram(1).order_statistic(0), "rank", "0"),
    (lambda: nearest(one, two, 3), "k", "3"),
    (lambda: predict_objects(torch.tensor([[2]]), yes), "neighbors", "2 in row 0"),
    (lambda: dejavu(~yes, yes, yes), "true objects", "no object in 2 pairs"),
    (lambda: dejavu(yes, yes, yes, fractions=(0.0,)), "fractions", "0.0"),
    (lambda: raw(in_out_means)(np.ones((2, 1)), np.ones((1, 1), dtype=bool)), "member", "shape (1, 1)"),
    (lambda: in_out_means(np.ones((0, 1)), np.ones((0, 1), dtype=bool)), "values", "no model"),
    (lambda: holm(np.array([0.5, 1.5])), "p-values", "1.5 at index 1"),
    (lambda: paired_test(np.array([]), np.array([])), "a", "no value"),
]


@pytest.mark.parametrize(("act", "what", "got"), CASES)
def test_what_is_refused(act, what, got):
    with pytest.raises(InputError) as error:
        act()
    assert (error.value.what, error.value.got) == (what, got)


def test_what_is_undefined_is_nan_or_none():
    values, member = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[True, True], [False, True]])
    sure = jackknife_models(values, member)
    assert np.isnan(sure.stderr).all()  # one model a side says nothing of its spread
    constant = jackknife_models(np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([[True], [True], [False], [False]]))
    assert (constant.stderr[0], constant.low[0], constant.high[0]) == (0.0, 1.0, 1.0)
    assert holm(np.array([np.nan, 0.25])).tolist()[1] == 0.25
    same = paired_test(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert (same.difference, same.t, same.wilcoxon_p, same.effect) == (0.0, None, 1.0, None)
    assert nearest(torch.ones(0, 1), two, 2).rows.shape == (0, 2)
