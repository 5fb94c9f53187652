"""Arguments of formulas: lists, arrays and tensors give the same numbers; anything else is refused."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

from clipmem import functional
from clipmem.base.errors import InputError


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
