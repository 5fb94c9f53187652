"""Studies with mitigations, as a user runs them: all hooks at once, a child of a parent, and what is refused."""

import json

import numpy as np
import polars as pl
import pytest

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import dump_recipe
from clipmem.data.sources import open_source
from clipmem.train.paired import check_paired
from tests.e2e import test_torchrun
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe

pytestmark = pytest.mark.slow

BASE = ("train.seeds=[0]", "train.epochs=2")
HOOKS = (
    "mitigate.text_noise.std=0.05",
    "mitigate.image_noise.std=0.05",
    "mitigate.image_noise.place=pre",
    "mitigate.captions.count=3",
    'mitigate.caption_variants.kinds=["dropout", "reorder", "templates"]',
    "mitigate.image_variants.probability=0.5",
    "mitigate.image_variants.count=2",
    "mitigate.text_masking.probability=0.2",
    "mitigate.weight_decay.factor=2.0",
    "mitigate.early_stopping.share=0.7",
)


def record(run, side):
    return json.loads((run.path / "models" / side / "seed-0" / "record.json").read_text())


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return clipmem.run(tiny_recipe(*BASE), tmp_path_factory.mktemp("parent") / "run")


@pytest.fixture(scope="module")
def hooked(tmp_path_factory):
    return clipmem.run(tiny_recipe(*BASE, *HOOKS), tmp_path_factory.mktemp("hooked") / "run")


def test_all_hooks_of_a_study(hooked, parent):
    f, g = record(hooked, "f"), record(hooked, "g")
    check_paired({"f": f, "g": g})
    assert list(f["mitigate"]) == [
        "text_noise", "image_noise", "captions", "caption_variants", "image_variants", "text_masking", "weight_decay",
        "early_stopping",
    ]  # fmt: skip
    assert f["mitigate"] == g["mitigate"]
    # 80 pairs in 3 batches, 2 epochs: 4 of 6 steps
    assert f["steps"] == 4
    assert f["samples_seen"] == 80 + 27
    assert "mitigate" not in record(parent, "f")
    assert record(parent, "f")["samples_seen"] == 160
    assert f["init_sha256"] == record(parent, "f")["init_sha256"]
    assert f["final_sha256"] != record(parent, "f")["final_sha256"]


def test_variants_are_those_of_the_pairs_that_train(hooked):
    folder = RunFolder(hooked.path)
    trained = set(hooked.splits.filter(pl.col("role") != "external")["uid"])
    texts, images = folder.read("mitigate/caption_variants"), folder.read("mitigate/image_variants")
    assert set(texts["uid"]) <= trained
    captions = dict(hooked.pairs.select("uid", "captions").iter_rows())
    source = dict(hooked.splits.select("uid", "captions_from").iter_rows())
    for uid, caption, kind, variant in texts.iter_rows():
        assert caption in captions[source[uid]][:3]
        assert kind in {"dropout", "reorder", "templates"}
        assert variant != caption
    variants = dict(hooked.pairs.select("uid", "variants").iter_rows())
    expected = [(uid, one) for uid in variants if uid in trained for one in variants[uid][:2]]
    assert list(images.select("uid", "reference").iter_rows()) == expected
    cache = np.load(hooked.path / "cache" / "variants.npy", mmap_mode="r")
    assert len(cache) == images.height
    from clipmem.data.decoding import decode

    [data] = open_source(hooked.recipe.data).read([images["reference"][5]])
    assert np.array_equal(cache[5], decode(data, cache.shape[1]))


def test_scores_are_taken_on_the_same_captions(hooked, parent):
    assert hooked.recipe.train.captions == parent.recipe.train.captions == 1
    assert hooked.scores["uid"].to_list() == parent.scores["uid"].to_list()
    assert hooked.splits.equals(parent.splits)


@pytest.fixture(scope="module")
def child(parent, tmp_path_factory):
    settings = (f"mitigate.remove.scores={parent.path}", "mitigate.remove.count=12",
                f"mitigate.regroup.scores={parent.path}", "mitigate.regroup.share=0.4")  # fmt: skip
    return clipmem.run(tiny_recipe(*BASE, *settings), tmp_path_factory.mktemp("child") / "run")


def test_a_child_leaves_out_the_worst_pairs_of_its_parent(child, parent):
    removed = RunFolder(child.path).read("removed")
    own = removed.filter(pl.col("rank").is_not_null()).sort("rank")
    mine = parent.scores.filter(pl.col("role").is_in(["shared", "candidate"]))
    assert own["uid"].to_list() == mine.sort("clipmem", "uid", descending=[True, False])["uid"].to_list()[:12]
    assert own["uid"].to_list() == clipmem.mitigate.removal_list(parent.path, 12)
    assert set(child.splits["uid"]) == set(parent.splits["uid"]) - set(removed["uid"])
    candidates = (own["role"] == "candidate").sum()
    assert 0 < candidates == removed["rank"].is_null().sum()
    f, g = record(child, "f"), record(child, "g")
    check_paired({"f": f, "g": g})
    assert f["pairs"] == g["pairs"] == 80 - 12
    assert child.summary.roles["candidate"].n == 20 - candidates


def test_the_manifest_names_the_parent(child, parent):
    parents = child.manifest["parents"]
    assert set(parents) == {"remove", "regroup"}
    assert parents["remove"]["path"] == str(parent.path)
    assert parents["remove"]["data_sha256"] == parent.manifest["data_sha256"] == child.manifest["data_sha256"]
    assert parents["remove"]["recipe_sha256"] == parent.manifest["recipe_sha256"]
    assert len(parents["remove"]["scores_sha256"]) == 64
    assert "parents" not in parent.manifest


def test_a_finished_child_needs_its_parent_no_more(child):
    before = contents(child.path)
    for stage in ("score", "evaluate", "report"):
        RunFolder(child.path).marker(stage).unlink()
    recipe = child.recipe.model_dump(mode="python")
    clipmem.run(recipe, child.path)
    assert contents(child.path) == before


def test_a_parent_of_other_data_is_refused(parent, tmp_path):
    scores = parent.scores.with_columns(uid=pl.lit("0" * 31) + pl.col("uid").str.slice(31))
    scores = scores.unique("uid").head(3)
    scores.write_parquet(tmp_path / "scores.parquet")
    settings = (f"mitigate.remove.scores={tmp_path / 'scores.parquet'}", "mitigate.remove.count=1")
    with pytest.raises(clipmem.InputError, match="that are not in the data, such as"):
        clipmem.run(tiny_recipe(*BASE, *settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_processes_have_the_losses_of_one(tmp_path, hooked):
    file = tmp_path / "study.toml"
    file.write_text(dump_recipe(tiny_recipe(*BASE, *HOOKS, "train.precision=fp32")))
    one = clipmem.run(file, tmp_path / "one")
    code, _, stderr = test_torchrun.run(2, "-m", "clipmem", "run", file, "--out", tmp_path / "two")
    assert code == 0, stderr
    for side in ("f", "g"):
        assert test_torchrun.losses(tmp_path / "two", side) == pytest.approx(
            test_torchrun.losses(one.path, side), abs=1e-4
        )
