"""External pairs that choose settings: held out of the measures of utility, and measured by retrieval alone."""

import numpy as np
import pytest

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import load_recipe
from clipmem.study.plan import PlannedStudy
from clipmem.study.utility import _held_out

RECIPE = """
[data]
source = "emoji-artists"
[split]
shared = 40
candidate = 10
independent = 10
external = 60
[model]
name = "clipmem-micro"
[train]
seeds = [0]
epochs = 1
[evaluate]
validation = 0.3
wordings = 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return clipmem.run(load_recipe(RECIPE), tmp_path_factory.mktemp("validation") / "run")


def recall(image, text, names, k):
    """Mean over both directions of the share of queries with a right item among the first k, by plain loops."""
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    similarity = image @ text.T
    right = np.array([[a == b for b in names] for a in names])
    found = []
    for table, truth in ((similarity, right), (similarity.T, right.T)):
        # identical captions are one item among the captions, and their images all count
        rows = []
        for own, is_right in zip(table, truth, strict=True):
            best = own[is_right].max()
            worse = {round(float(x), 9) for x, ok in zip(own, is_right, strict=True) if not ok and x > best}
            rows.append(len(worse) < k)
        found.append(np.mean(rows))
    return float(np.mean(found))


@pytest.mark.slow
def test_held_out_pairs_measure_retrieval_alone(run):
    study = PlannedStudy(run.path)
    held = _held_out(study)
    external = study.role == "external"
    assert 18 <= held.sum() <= 20
    assert not (held & ~external).any()
    groups = study.group
    assert not set(groups[held]) & set(groups[external & ~held])
    document = RunFolder(run.path).read_json("evaluate/utility.json")
    assert document["n"]["test"] == int((external & ~held).sum())
    assert set(document["validation"]) == {"f", "g"}
    assert {"retrieval_recall@5", "retrieval_wordings_recall@5"} <= set(document["validation"]["f"])
    assert not any(name.startswith(("zero_shot", "linear_probe")) for name in document["validation"]["f"])
    model = study.model("f", 0)
    one = study.embeddings(model)
    rows = np.flatnonzero(held)
    names = [study.captions[row][0].casefold() for row in rows]
    if len(set(names)) == len(names):  # each image and caption once: the plain definition
        expected = recall(one.image[rows, 0].numpy(), one.text[rows].numpy(), names, 5)
        assert document["validation"]["f"]["retrieval_recall@5"]["by_seed"][0] == pytest.approx(expected)
    expected = document["metrics"]["f"]["retrieval_recall@5"]["by_seed"]
    assert document["validation"]["f"]["retrieval_recall@5"]["by_seed"] != expected


@pytest.mark.slow
def test_the_scores_do_not_depend_on_them(run, tmp_path):
    plain = clipmem.run(load_recipe(RECIPE, ["evaluate.validation=0"]), tmp_path / "plain")
    assert (plain.path / "scores.parquet").read_bytes() == (run.path / "scores.parquet").read_bytes()
    assert "validation" not in RunFolder(plain.path).read_json("evaluate/utility.json")
