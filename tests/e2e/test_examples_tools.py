"""The examples of other tools, against the real libraries: what comes out is read by them, and by clipmem."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from clipmem.base.hashing import image_part
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from clipmem.models import openclip
from clipmem.models.embeddings import Embeddings
from tests.e2e.running import clip
from tests.e2e.test_shares import files
from tests.tiny import encoded_image
from tests.unit.data.sources import formats

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def tools():
    folder = str(EXAMPLES)
    sys.path.insert(0, folder)
    import other_tools

    yield other_tools
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def chosen(finished):
    """Ten pairs of a run as (name, bytes, captions), with their uids; the first three are to be removed."""
    rows = finished.scores.sort("clipmem", "uid", descending=[True, False]).head(10)
    captions = dict(finished.pairs.select("uid", "captions").iter_rows())
    images = finished.images(rows["uid"].to_list())
    return rows["uid"].to_list(), [
        (f"{k}.webp", one, list(captions[uid])) for k, (uid, one) in enumerate(images.items())
    ]


def images_of(path):
    """The hashes of the images that clipmem reads."""
    return {image_part(uid) for uid in open_source(DataSection.model_validate({"path": str(path)})).pairs()["uid"]}


def test_datasets_in_and_out(finished, chosen, tools, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    uids, pairs = chosen
    rows = [({"bytes": image, "path": None}, caption) for _, image, captions in pairs for caption in captions[:2]]
    rows.append(({"bytes": formats.some_pairs(1)[0][1], "path": None}, "another image"))
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    data = {"image": [image for image, _ in rows], "caption": [caption for _, caption in rows]}
    scored = tools.with_scores(datasets.Dataset.from_dict(data, features=features), finished)
    assert set(scored["uid"]) == {*uids, None}
    known = dict(finished.scores.select("uid", "clipmem").iter_rows())
    assert scored["clipmem"] == [known.get(uid) for uid in scored["uid"]]
    cleaned = tools.without(scored, set(uids[:3]))
    assert len(cleaned) < len(scored) == len(rows)
    cleaned.save_to_disk(tmp_path / "cleaned")
    assert images_of(tmp_path / "cleaned") >= {image_part(uid) for uid in uids[3:]}
    assert not images_of(tmp_path / "cleaned") & {image_part(uid) for uid in uids[:3]}


def test_pandas(finished, tools):
    pytest.importorskip("pandas", reason="the extra bench is not installed")
    table = tools.as_pandas(finished)
    assert len(table) == finished.scores.height
    assert table["clipmem"].is_monotonic_decreasing
    assert table.groupby("role")["clipmem"].mean()["candidate"] == pytest.approx(
        finished.summary.roles["candidate"].mean
    )


# these libraries leave files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_webdataset_without_pairs(finished, chosen, tools, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="the extra bench is not installed")
    uids, pairs = chosen
    tars = sorted(formats.webdataset(tmp_path / "tars", pairs).glob("*.tar"))
    assert tools.tars_without(tars, tmp_path / "kept", set(uids[:3]), finished) == 7
    kept = sorted((tmp_path / "kept").glob("*.tar"))
    assert [tar.name for tar in kept] == [tar.name for tar in tars]
    samples = [one for tar in kept for one in webdataset.WebDataset(str(tar), shardshuffle=False)]
    assert {one["webp"] for one in samples} == {image for _, image, _ in pairs[3:]}
    assert images_of(tmp_path / "kept") == {image_part(uid) for uid in uids[3:]}


# these libraries leave files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_open_clips_csv_without_pairs(finished, chosen, tools, tmp_path):
    pd = pytest.importorskip("pandas", reason="the extra bench is not installed")
    from PIL import Image

    uids, pairs = chosen
    formats.write_images(tmp_path, pairs)
    table = formats.write_csv(tmp_path / "train.tsv", ("filepath", "title"), pairs, "\t")
    kept = tools.csv_without(table, tmp_path / "kept.tsv", set(uids[:3]), finished)
    assert (
        kept == sum(len(captions) for _, _, captions in pairs[3:]) == len(pd.read_csv(tmp_path / "kept.tsv", sep="\t"))
    )
    assert images_of(tmp_path / "kept.tsv") == {image_part(uid) for uid in uids[3:]}
    # open_clip's own reader of such files
    data = pytest.importorskip("open_clip_train.data", reason="open_clip's trainer is not installed")
    frame = pd.read_csv(tmp_path / "kept.tsv", sep="\t")
    frame["filepath"] = [str(tmp_path / name) for name in frame["filepath"]]
    frame.to_csv(tmp_path / "absolute.tsv", sep="\t", index=False)
    read = data.CsvDataset(
        str(tmp_path / "absolute.tsv"),
        lambda image: image.size,
        "filepath",
        "title",
        "\t",
        tokenizer=lambda texts: texts,
    )
    assert len(read) == kept
    assert read[0][0] == Image.open(io.BytesIO(pairs[3][1])).size


def test_samples_of_fiftyone(finished, tools, tmp_path):
    count = tools.fiftyone_samples(finished, tmp_path / "samples.json")
    samples = json.loads((tmp_path / "samples.json").read_text())["samples"]
    assert count == len(samples) == finished.scores["clipmem"].count()
    assert all(set(one) == {"filepath", "tags", "uid", "clipmem", "captions"} for one in samples)


class Exported(NamedTuple):
    """Pairs as Parquet, of which two are none, a model, and their embeddings by `clipmem export embeddings`."""

    captions: list[list[str]]
    images: list[bytes]
    model: Path
    stored: Embeddings

    def write(self, path, form):
        """Write the pairs with images as bytes, or in the struct of `datasets`."""
        images = [{"bytes": image, "path": None} for image in self.images] if form == "struct" else self.images
        pl.DataFrame({"image": images, "captions": self.captions}).write_parquet(path)

    def check(self, table):
        """Compare a table with the stored embeddings."""
        assert table.columns == ["captions", "uid", "image_embedding", "text_embedding", "problem"]
        assert table["captions"].to_list() == self.captions
        assert [row for row, problem in enumerate(table["problem"]) if problem] == [1, 3]
        by_uid = {row["uid"]: row for row in table.filter(pl.col("problem") == "").to_dicts()}
        assert sorted(by_uid) == sorted(self.stored.uids)
        means = self.stored.means()
        for uid, image, text in zip(self.stored.uids, means.image, means.text, strict=True):
            np.testing.assert_allclose(by_uid[uid]["image_embedding"], image, rtol=0, atol=1e-6)
            np.testing.assert_allclose(by_uid[uid]["text_embedding"], text, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    images = [b"\x89PNG\r\n\x1a\n no image" if k == 3 else encoded_image(k) for k in range(12)]
    captions = [["a cat", "the same cat"], [" "], *([f"thing {k}"] for k in range(2, 12))]
    data, model, out = (folder / name for name in ("pairs.parquet", "model", "embeddings"))
    pl.DataFrame({"image": images, "captions": captions}).write_parquet(data)
    openclip.create("clipmem-micro", seed=1).save(model)
    done = clip("export", "embeddings", "--model", model, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    return Exported(captions, images, model, Embeddings.open(out))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_embeddings_of_daft(exported, tmp_path, monkeypatch, form):
    monkeypatch.setenv("DO_NOT_TRACK", "1")  # else daft sends who imports it
    pytest.importorskip("daft", reason="the extra bench is not installed")
    data, out = tmp_path / "pairs.parquet", tmp_path / "daft"
    exported.write(data, form)
    # a script: daft's processes do not find a class in a module of sys.path
    words = [sys.executable, EXAMPLES / "daft_embeddings.py", data, "--model", exported.model, "--out", out]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    exported.check(pl.read_parquet(out / "*.parquet"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its imports
@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_embeddings_of_nemo_curator(exported, tools, tmp_path, monkeypatch, form):
    """The stage by itself, as its workers call it: without an executor."""
    pytest.importorskip("nemo_curator", reason="nemo-curator is not installed")
    import nemo_curator_stage
    from nemo_curator.tasks import DocumentBatch

    monkeypatch.setattr(nemo_curator_stage, "ROWS", 5)
    exported.write(tmp_path / "pairs.parquet", form)
    stage = nemo_curator_stage.EmbedPairs(str(exported.model), {"device": "cpu"})
    stage.setup()
    batch = DocumentBatch("pairs", pl.read_parquet(tmp_path / "pairs.parquet").to_arrow())
    [result] = stage.process_batch([batch])
    exported.check(pl.DataFrame(result.data))


def in_parts(*words, **environment):
    """Run the example of submitit."""
    words = [sys.executable, EXAMPLES / "submitit_parts.py", *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.mark.slow
def test_parts_by_submitit(exported, tmp_path):
    pytest.importorskip("submitit", reason="the extra bench is not installed")
    shards, out, logs = (tmp_path / name for name in ("shards", "embeddings", "logs"))
    shards.mkdir()
    pairs = pl.DataFrame({"image": exported.images, "captions": exported.captions})
    for k in range(3):
        pairs.slice(4 * k, 4).write_parquet(shards / f"{k:04d}.parquet")
    command = ("export", "embeddings", "--model", exported.model, "--data", shards, "--out")
    assert clip(*command, tmp_path / "whole").returncode == 0
    shard, words = shards / "0001.parquet", ("--parts", 2, "--cluster", "local", "--logs", logs, "--", "clipmem")
    data, fact = shard.read_bytes(), shard.stat()
    shard.write_bytes(data[: len(data) // 2])
    done = in_parts(*words, *command, out)
    assert done.returncode == 1
    [log] = re.findall(r"^part 2/2: exit status 2, log (.+)$", done.stderr, flags=re.MULTILINE)
    assert f"clipmem: {shard}: got not readable as Parquet" in Path(log).read_text()
    assert "part 1/2" not in done.stderr
    assert "without --part" not in done.stderr
    assert sorted(file.stem for file in (out / "markers").iterdir()) == ["part-000000", "part-000002"]
    shard.write_bytes(data)
    os.utime(shard, ns=(fact.st_atime_ns, fact.st_mtime_ns))  # which the folder states
    done = in_parts(*words, *command, out)
    assert done.returncode == 0, done.stderr
    assert files(out) == files(tmp_path / "whole")


# what submitit calls on a cluster; here, the tasks of an array start at once
SLURM = {
    "sbatch": r"""cat $1 >> $SCRIPTS
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\)%.*/\1/p' $1)
if [ $last ]; then
    for k in $(seq 0 $last); do SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$k bash $1 &> /dev/null & done
    echo Submitted batch job 7
else
    SLURM_JOB_ID=8 bash $1 &> /dev/null & echo Submitted batch job 8
fi""",
    "srun": 'until [ $1 = --cpus-per-task=4 ]; do shift; done; shift; exec "$@"',
    "sacct": "",
}
# in place of clipmem
COMMAND = """import os, sys
with open(os.environ["CALLS"], "a") as file:
    print(*sys.argv[1:], file=file)
if "FAIL" in os.environ and sys.argv[-1] != "1/3":
    sys.exit(3) if sys.argv[-1] == "2/3" else os.kill(os.getpid(), 9)
"""


def test_an_array_of_slurm_by_submitit(tmp_path):
    """By programs with the names of Slurm's; nothing of Slurm itself."""
    pytest.importorskip("submitit", reason="the extra bench is not installed")
    for name, text in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "command.py").write_text(COMMAND)
    calls, scripts = tmp_path / "calls", tmp_path / "scripts"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": f"{calls}", "SCRIPTS": f"{scripts}"}
    environment["PYTHONPATH"] = f"{tmp_path}"
    words = ("--parts", 3, "--gpus", 2, "--minutes", 90, "--partition", "long", "--", "command", "--out", "E")
    done = in_parts("--logs", tmp_path / "failed", *words, FAIL="1", **environment)
    assert done.returncode == 1
    logs = [tmp_path / "failed" / f"7_{k}_0_log.err" for k in (1, 2)]
    assert done.stderr.splitlines()[-3:] == [
        f"part 2/3: exit status 3, log {logs[0]}",
        f"part 3/3: died with <Signals.SIGKILL: 9>, log {logs[1]}",
        "Read the logs, and run the same command again: it does only what is missing.",
    ]
    parts = [f"--out E --part {k}/3" for k in (1, 2, 3)]
    assert sorted(calls.read_text().splitlines()) == parts  # no last job
    calls.unlink()
    done = in_parts("--logs", tmp_path / "logs", *words, **environment)
    assert done.returncode == 0, done.stderr
    *first, last = calls.read_text().splitlines()
    assert sorted(first) == parts
    assert last == "--out E"
    text = scripts.read_text()
    assert text.count("#SBATCH --array=0-2%3\n") == 2  # not the last job
    for setting in ("cpus-per-task=4", "gpus-per-node=2", "job-name=clipmem", "partition=long", "time=90"):
        assert text.count(f"#SBATCH --{setting}\n") == 3


STEP = """import os, pathlib, sys, time
starts = pathlib.Path(sys.argv[1])
first = not starts.exists()
with starts.open("a") as file:
    print(os.getpid(), file=file)
time.sleep(600 * first)
"""


# submitit leaves processes to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_job_of_submitit_at_its_time_limit_starts_again(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="the extra bench is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLES}")  # of the job
    import submitit_parts

    starts, executor = tmp_path / "starts", submitit.AutoExecutor(tmp_path / "logs", cluster="local")
    job = executor.submit(submitit_parts.Command(), [sys.executable, "-c", STEP, f"{starts}"])
    deadline = time.monotonic() + 120
    while not (starts.exists() and starts.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    [task] = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # as Slurm does
    assert job.exception() is None
    stopped, _ = map(int, starts.read_text().split())
    assert not Path(f"/proc/{stopped}").exists()
