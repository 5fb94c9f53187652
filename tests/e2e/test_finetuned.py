"""A fine-tuned study end to end: the base model's scores, what was retained, errors before training."""

import json

import numpy as np
import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.hashing import file_sha256
from clipmem.models import passes
from clipmem.models.start import Start
from clipmem.report.run import read_finished
from clipmem.study.plan import PlannedStudy
from tests.e2e.running import clip
from tests.reference import loops_score as reference
from tests.tiny import encoded_image, tiny_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pretrained(finished):
    return f"model.pretrained={finished.path / 'models' / 'f' / 'seed-0'}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of classes: data that the base model could know."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(24):
        place = folder / ("square", "circle")[k % 2] / f"{k}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(encoded_image(900 + k))
    return folder


@pytest.fixture(scope="module")
def finetuned(pretrained, photos, tmp_path_factory):
    recipe = tiny_recipe(pretrained, 'model.name=""', f"evaluate.retained={photos}")
    return clipmem.run(recipe, tmp_path_factory.mktemp("finetuned") / "run")


def test_the_base_model_is_scored_by_the_equation(finetuned):
    study = PlannedStudy(finetuned.path)
    assert [model.side for model in study.embedded] == ["f", "g", "f", "g", "base"]
    assert study.design.seeds == [0, 1]
    found = {model.side: study.embeddings(model) for model in study.embedded if model.side == "base"}["base"]
    scores = finetuned.scores
    external = [k for k, role in enumerate(study.role) if role == "external"]
    views = found.image.double().tolist()
    text = [[found.text[row].tolist()] for row in range(len(found.text))]  # one caption each
    bank = [[of[j] for j in external] for of in (views, text)]
    member = {pair: place for place, pair in enumerate(external)}
    for pair in range(0, 120, 7):
        [row] = scores.filter(uid=study.pair_uids[pair]).to_dicts()
        value = reference.alignment(views[pair], text[pair], *bank, member=member.get(pair, -1))
        assert row["a_base"] == pytest.approx(value, abs=1e-6)
        g = row["g_positive"] - row["g_image_bank"] - row["g_text_bank"]
        assert row["learned"] == pytest.approx(g - row["a_base"], abs=1e-12)


def test_the_base_model_s_embeddings_are_those_of_the_start(finetuned, finished):
    model = Start(finetuned.recipe.model, finetuned.recipe.train).base()
    assert model.module.state_dict().keys() == finished.model("f", 0).module.state_dict().keys()
    ours = passes.load(finetuned.path / "embeddings" / "base" / "seed-0")
    theirs = passes.load(finished.path / "embeddings" / "f" / "seed-0")  # the same pairs and split
    assert np.array_equal(ours.image, theirs.image)
    assert np.array_equal(ours.text, theirs.text)


def test_the_summary_and_the_report_know_the_base_model(finetuned):
    summary = finetuned.summary
    assert summary.base.endswith("models/f/seed-0")
    candidate = summary.learned.roles["candidate"]
    own = finetuned.scores.filter(role="candidate")
    for name in ("a_base", "learned", "clipmem"):
        assert getattr(candidate, name).mean == pytest.approx(own[name].mean(), abs=1e-12)
    page = finetuned.report.read_text(encoding="utf-8")
    assert "--against" in page
    assert 'id="retained"' in page
    assert "no image" not in page


def test_from_scratch_there_is_no_base_model(finished):
    assert finished.summary.base is None
    assert finished.summary.learned is None
    assert finished.scores["learned"].null_count() == finished.scores.height
    assert not (finished.path / "embeddings" / "base").exists()


def test_what_was_retained(finetuned, photos):
    found = json.loads((finetuned.path / "evaluate" / "retained.json").read_text())
    assert list(found["metrics"]) == ["base", "f", "g"]
    assert found["seeds"] == {"base": [0], "f": [0, 1], "g": [0, 1]}
    assert (found["pairs"], found["n"]["test"], found["n"]["classes"], found["left_out"]) == (str(photos), 24, 2, 0)
    assert not any(name.startswith("linear_probe") for own in found["metrics"].values() for name in own)
    for name, base in found["metrics"]["base"].items():
        assert "change" not in base
        for side in "fg":
            entry = found["metrics"][side][name]
            assert entry["change"]["mean"] == pytest.approx(np.mean(entry["by_seed"]) - base["by_seed"][0])
    metrics = finetuned.summary.retained.metrics
    assert not metrics["f"]["zero_shot_acc1"].model_extra  # no values by seed
    assert metrics["g"]["zero_shot_acc1"].change.document() == found["metrics"]["g"]["zero_shot_acc1"]["change"]
    utility = read_finished(finetuned.path).utility
    assert utility["retained_zero_shot_acc1"] == found["metrics"]["f"]["zero_shot_acc1"]["by_seed"]


def test_pairs_that_a_model_trained_on_are_left_out(finished, pretrained, tmp_path):
    data = write_pairs(finished, finished.splits["uid"].to_list()[:60], tmp_path / "known.parquet")
    recipe = tiny_recipe(pretrained, 'model.name=""', f"evaluate.retained={data}", "train.epochs=1")
    run = clipmem.run(recipe, tmp_path / "run")
    external = finished.splits.head(60).filter(role="external").height
    assert 1 < external < 20
    found = run.summary.retained
    assert (found.left_out, found.n["test"]) == (60 - external, external)
    assert found.skipped["zero_shot"]  # no column of labels
    assert "image_retrieval_recall@5" in found.metrics["g"]


def write_pairs(run, uids, file):
    """Write pairs of a run, all their captions, as a table without labels."""
    captions = dict(run.pairs.select("uid", "captions").iter_rows())
    rows = [
        {"image": {"bytes": data, "path": f"{uid}.png"}, "captions": captions[uid]}
        for uid, data in run.images(uids).items()
    ]
    pl.DataFrame(rows).write_parquet(file)
    return file


def test_a_score_without_retained_is_the_same(finetuned, pretrained, tmp_path):
    other = clipmem.run(tiny_recipe(pretrained, 'model.name=""'), tmp_path / "run")
    assert file_sha256(other.path / "scores.parquet") == file_sha256(finetuned.path / "scores.parquet")
    assert other.summary.retained is None


@pytest.mark.parametrize(
    ("protocol", "scored"),
    [(("protocol=subsample", "subsample.models=4"), 120), (("protocol=leave-one-out", "leave_one_out.pairs=2"), 22)],
)
def test_other_protocols_have_a_base_model(pretrained, tmp_path, protocol, scored):
    run = clipmem.run(tiny_recipe(pretrained, 'model.name=""', "train.epochs=1", *protocol), tmp_path / "run")
    assert run.scores.height == scored
    assert run.scores.filter(pl.col("learned").is_finite() & pl.col("a_base").is_finite()).height == scored
    g = run.scores.select(pl.col("g_positive") - pl.col("g_image_bank") - pl.col("g_text_bank")).to_series()
    assert run.scores["learned"].to_numpy() == pytest.approx((g - run.scores["a_base"]).to_numpy(), abs=1e-12)
    assert set(run.summary.learned.roles) == {"candidate", "external"}
    assert 'id="learned"' in run.report.read_text(encoding="utf-8")


def test_an_alignment_that_needs_a_head_has_no_base_scores(pretrained, tmp_path):
    settings = ("train.objective=supervised", "score.alignment=confidence", "train.seeds=[0]", "train.epochs=1")
    run = clipmem.run(tiny_recipe(pretrained, 'model.name=""', *settings), tmp_path / "run")
    assert run.scores["a_base"].null_count() == run.scores["learned"].null_count() == run.scores.height
    assert run.scores["clipmem"].null_count() == 0
    assert run.summary.learned is None
    assert "--against" in run.report.read_text(encoding="utf-8")


def test_bad_data_are_refused_before_training(pretrained, tmp_path):
    recipe = tmp_path / "study.toml"
    recipe.write_text("[train]\nepochs = 1\n")
    done = clip("run", recipe, "--set", pretrained, "--set", "evaluate.retained=nowhere", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "[evaluate] retained" in done.stderr
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError) as caught:
        clipmem.run(tiny_recipe(pretrained, 'model.name=""', f"evaluate.retained={recipe}"), tmp_path / "run")
    assert caught.value.what.startswith("[evaluate] retained")
    assert not (tmp_path / "run" / "models").exists()


def test_only_pairs_that_the_study_trains_on_are_refused_before_training(finished, pretrained, tmp_path):
    trained = finished.splits.filter(pl.col("role") != "external")["uid"].head(5).to_list()
    data = write_pairs(finished, trained, tmp_path / "trained.parquet")
    recipe = tiny_recipe(pretrained, 'model.name=""', f"evaluate.retained={data}")
    with pytest.raises(InputError) as caught:
        clipmem.run(recipe, tmp_path / "run")
    assert "0 pairs" in caught.value.got
    assert not (tmp_path / "run" / "models").exists()
