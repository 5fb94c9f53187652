"""A whole study, tiny but real: what it writes, and that its numbers are those of the equation."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import open_clip
import polars as pl
import pytest
import torch

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.machine import cores
from clipmem.base.tables import SCHEMAS
from clipmem.data.sources import open_source
from clipmem.models import passes
from clipmem.study import execution, forecast
from clipmem.train.record import state_hash
from tests.reference import loops_score as reference
from tests.tiny import tiny_recipe, write_parquet


def test_the_files_that_others_rely_on(finished):
    names = {str(file.relative_to(finished.path)) for file in finished.path.rglob("*") if file.is_file()}
    for side in ("f", "g"):
        for seed in (0, 1):
            assert f"models/{side}/seed-{seed}/log.jsonl" in names
            assert f"embeddings/{side}/seed-{seed}/image.npy" in names
    assert {"recipe.toml", "manifest.json", "summary.json", "report/index.html"} <= names
    for table in ("pairs", "splits", "scores", "seed_scores"):
        assert pl.read_parquet(finished.path / f"{table}.parquet").columns == list(SCHEMAS[table])
    summary = json.loads((finished.path / "summary.json").read_text())
    assert set(summary["roles"]) == {"shared", "candidate", "independent", "external"}
    assert {"n", "mean", "low", "high"} <= set(summary["roles"]["candidate"])
    assert 0 <= summary["planted"]["auroc"] <= 1
    assert list(summary["seconds"]) == ["decode", "plan", "train", "embed", "score", "evaluate", "report"]
    assert summary["retrieval"]["n"] == 20


def test_a_study_that_was_begun_resumes_without_consent(finished, monkeypatch):
    monkeypatch.setattr(forecast, "check_forecast", lambda *_: pytest.fail("asked"))
    assert clipmem.run(finished.recipe, finished.path).scores.equals(finished.scores)


def test_open_clip_loads_a_trained_model_as_it_is(finished):
    folder = finished.path / "models" / "f" / "seed-0"
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    stored = passes.load(finished.path / "embeddings" / "f" / "seed-0")
    captions = dict(zip(finished.pairs["uid"], finished.pairs["captions"].to_list(), strict=True))
    first = [captions[uid][0] for uid in finished.splits["captions_from"]]
    with torch.no_grad():
        text = model.eval().encode_text(tokenizer(first))
    torch.testing.assert_close(text, stored.text, atol=1e-5, rtol=1e-4)
    assert preprocess is not None


def test_scores_are_those_of_the_equation(finished):
    role = finished.splits["role"].to_numpy()
    external = np.flatnonzero(role == "external")
    per_seed = {}
    for side in ("f", "g"):
        for seed in (0, 1):
            one = passes.load(finished.path / "embeddings" / side / f"seed-{seed}")
            images = one.image.tolist()
            texts = [one.text[one.text_pair == pair].tolist() for pair in range(len(images))]
            values = []
            for pair in (0, 7, int(external[0]), int(external[-1])):
                bank = [other for other in external if other != pair]
                values.append(
                    reference.alignment(
                        images[pair], texts[pair], [images[b] for b in bank], [texts[b] for b in bank], weight=1.0
                    )
                )
            per_seed[side, seed] = np.array(values)
    expected = (per_seed["f", 0] + per_seed["f", 1]) / 2 - (per_seed["g", 0] + per_seed["g", 1]) / 2
    rows = [0, 7, int(external[0]), int(external[-1])]
    np.testing.assert_allclose(finished.scores["clipmem"].to_numpy()[rows], expected, atol=1e-5)


def test_columns_add_up(finished):
    scores = finished.scores
    whole = pl.col("f_positive") - pl.col("f_image_bank") - pl.col("f_text_bank")
    other = pl.col("g_positive") - pl.col("g_image_bank") - pl.col("g_text_bank")
    assert scores.select((whole - other - pl.col("clipmem")).abs().max()).item() < 1e-12
    assert (
        scores.select((pl.col("clipmem_norm") * finished.summary.normalizer - pl.col("clipmem")).abs().max()).item()
        < 1e-12
    )
    assert scores.filter((pl.col("low") > pl.col("clipmem")) | (pl.col("high") < pl.col("clipmem"))).height == 0
    assert scores.filter(pl.col("planted"))["role"].unique().to_list() == ["candidate"]
    assert scores["planted"].sum() == 4


def test_nobody_saw_what_they_should_not(finished):
    splits = finished.splits
    assert splits.group_by("group").agg(pl.col("role").n_unique())["role"].max() == 1
    planted = splits.filter("planted")
    assert set(planted["uid"]) == set(planted["captions_from"])
    assert (planted["uid"] != planted["captions_from"]).all()
    records = {
        side: json.loads((finished.path / "models" / side / "seed-1" / "record.json").read_text()) for side in "fg"
    }
    assert records["f"]["init_sha256"] == records["g"]["init_sha256"]
    assert records["f"]["shared_order_sha256"] == records["g"]["shared_order_sha256"]
    assert records["f"]["final_sha256"] != records["g"]["final_sha256"]


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bytes(finished, tmp_path):
    again = clipmem.run(tiny_recipe(), tmp_path / "again")
    assert contents(again.path) == contents(finished.path)
    # one model at a time, where the first run may have had two: no difference either
    assert again.scores.equals(finished.scores)


def contents(folder):
    """Everything that a study computes: all but times, places and the page that shows them."""
    timed = {"manifest.json", "summary.json", ".lock"}
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    return {
        name: file.read_bytes()
        for name, file in files.items()
        if name not in timed and not name.startswith(("stages/", "report/"))
    }


@pytest.mark.slow
def test_another_seed_or_split_gives_other_scores(finished, tmp_path):
    other = clipmem.run(tiny_recipe("train.seeds=[2]", "train.epochs=1"), tmp_path / "run")
    assert other.splits.equals(finished.splits)
    assert not other.scores["clipmem"].equals(finished.scores["clipmem"])
    assert other.scores["stderr"].null_count() == other.scores.height
    assert other.summary.noise_floor.pairs == 20  # one seed has a floor too


def test_finished_stages_are_not_repeated(finished):
    before = {file: file.stat().st_mtime_ns for file in finished.path.rglob("*") if file.name != ".lock"}
    assert clipmem.run(tiny_recipe(), finished.path).scores.equals(finished.scores)
    after = {file: file.stat().st_mtime_ns for file in finished.path.rglob("*") if file.name != ".lock"}
    assert after == before


def test_other_data_in_the_same_file_is_refused(tmp_path):
    settings = ["data.source=parquet", f"data.path={tmp_path / 'p.parquet'}", "split.shared=10", "split.planted=0"]
    settings += [f"split.{role}=4" for role in ("candidate", "independent", "external")]
    settings += ["train.seeds=[0]", "train.epochs=1", "train.batch_size=7"]
    write_parquet(tmp_path / "p.parquet", 30)
    run = clipmem.run(tiny_recipe(*settings), tmp_path / "run")
    assert run.scores.height == 22
    write_parquet(tmp_path / "p.parquet", 30, captions=[[f"other {k}"] for k in range(30)])
    with pytest.raises(InputError, match=r"was made with other data: got fingerprint \w{16} there, \w{16} now"):
        clipmem.run(tiny_recipe(*settings), tmp_path / "run")


@pytest.mark.slow
def test_other_labels_and_other_lists_are_refused(tmp_path):
    """The same pairs, with what stages read of them changed: finished and unfinished studies alike."""
    data, wrong = tmp_path / "p.parquet", tmp_path / "wrong.txt"
    settings = ["data.source=parquet", f"data.path={data}", "data.label_column=label", "split.shared=10"]
    settings += [f"split.{role}=4" for role in ("candidate", "independent", "external")]
    settings += ["split.planted=0", f"split.wrong={wrong}", "train.seeds=[0]", "train.epochs=1", "train.batch_size=7"]
    write_parquet(data, 30)
    table = pl.read_parquet(data)
    marked = table.with_columns(label=pl.Series(list("ab" * 15)))
    marked.write_parquet(data)
    uids = open_source(tiny_recipe(*settings).data).pairs()["uid"]
    wrong.write_text("\n".join(uids[:3]) + "\n")
    clipmem.run(tiny_recipe(*settings), tmp_path / "run")
    wrong.write_text("\n".join(uids[:2]) + "\n")
    with pytest.raises(InputError) as caught:
        clipmem.run(tiny_recipe(*settings), tmp_path / "run")
    assert caught.value.got == "another file in [split] wrong"
    wrong.write_text("\n".join(uids[:3]) + "\n")
    clipmem.run(tiny_recipe(*settings), tmp_path / "run")
    marked.with_columns(label=pl.lit("a")).write_parquet(data)
    with pytest.raises(InputError) as caught:
        clipmem.run(tiny_recipe(*settings), tmp_path / "run")
    assert caught.value.got == "data with another label"


@pytest.mark.slow
def test_what_a_killed_command_left_is_swept(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    stray = tmp_path / "run/cache/.pixels.npy.4711.tmp"
    stray.touch()
    (tmp_path / "run/stages/report.json").unlink()
    clipmem.run(tiny_recipe(), tmp_path / "run")
    assert not stray.exists()


@pytest.mark.slow
def test_training_goes_on_where_it_began(finished, tmp_path):
    """A study begun on a GPU is not trained on without one; what is finished is read."""
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    shutil.copytree(finished.path, tmp_path / "run")
    manifest = tmp_path / "run/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"device": "cuda"}))
    (tmp_path / "run/stages/report.json").unlink()
    assert clipmem.run(tiny_recipe(), tmp_path / "run").scores.equals(finished.scores)
    for name in ("train", "train-f-seed-0", "embed"):
        (tmp_path / f"run/stages/{name}.json").unlink()
    with pytest.raises(InputError) as caught:
        clipmem.run(tiny_recipe(), tmp_path / "run")
    assert caught.value.got == "a study that started on a GPU, and none here"


@pytest.mark.slow
def test_more_pairs_than_there_are(tmp_path):
    with pytest.raises(InputError) as error:
        clipmem.run(tiny_recipe("split.shared=4000"), tmp_path / "run")
    assert error.value.what == "[split]"
    assert error.value.got == (
        "4,060 pairs (shared 4,000 + candidate 20 + independent 20 + external 20), with 1,914 in the data"
    )
    assert "clipmem init FILE --data PATH" in error.value.hint
    assert not (tmp_path / "run").exists()


def test_unknown_models_leave_nothing_behind(tmp_path):
    with pytest.raises(InputError, match=r"Did you mean 'clipmem-tiny'"):
        clipmem.run(tiny_recipe("model.name=clipmem-tin"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_execution_is_resolved_and_kept():
    how = execution.resolve(tiny_recipe("train.precision=fp32"), models=4, device="cpu")
    assert (how.device, how.precision) == ("cpu", "fp32")
    assert how.workers * how.threads <= max(cores(), how.workers)
    assert execution.from_manifest({**asdict(how), "other": 1}) == how
    if not torch.cuda.is_available():  # a run made on a GPU is analyzed here
        assert execution.from_manifest({**asdict(how), "device": "cuda"}) == how
    with pytest.raises(InputError, match="device 'tpu': got an unavailable device"):
        execution.resolve(tiny_recipe(), models=4, device="tpu")


def test_run_reads_back(finished):
    run = clipmem.load_run(finished.path)
    assert repr(run).endswith("shared 60, candidate 20, independent 20, external 20; seeds [0, 1])")
    top = run.top(3)
    assert top["clipmem"].is_sorted(descending=True)
    assert top.height == 3
    [data] = run.images([top["uid"][0]]).values()
    assert data[:4] == b"RIFF"
    with pytest.raises(InputError, match="uid 'x': got no such pair in this run"):
        run.images(["x"])


@pytest.mark.slow
def test_reading_a_run_imports_no_torch(finished):
    code = (
        "import sys, clipmem\n"
        f"run = clipmem.load_run({str(finished.path)!r}); run.top(2); run.images(run.top(1)['uid'].to_list())\n"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules\n"
        "run.model('f', 0)\n"
        "assert 'torch' in sys.modules  # the check above could have failed\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loaded_model_is_the_one_that_was_trained(finished):
    record = json.loads((finished.path / "models" / "g" / "seed-1" / "record.json").read_text())
    assert state_hash(finished.model("g", 1).module) == record["final_sha256"]
