"""`clipmem curate`: data without a model, with one, and a run; marks; cleaned data; what is refused."""

import io
import json
import pickle
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from itertools import cycle

import numpy as np
import polars as pl
import pytest

import clipmem
from clipmem.base.errors import ClipmemWarning, InputError, RunError
from clipmem.base.hashing import pair_uid
from clipmem.base.progress import Quiet
from clipmem.base.sections import DataSection
from clipmem.cli.view import open_explorer
from clipmem.data.sources import open_source
from clipmem.data.sources.emoji import emoji_table
from clipmem.report.explorer.server import Explorer
from clipmem.report.explorer.subject import open_subject
from clipmem.scoring import evidence
from clipmem.study import curating
from clipmem.study.curating import Curating, curate_and_write, write_reviewed
from tests.e2e.running import clip
from tests.hostile.case import TRAP
from tests.hostile.prepared import Bomb, bomb
from tests.tiny import tiny_recipe, write_parquet

N, WRONG = 240, 40


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Emoji, some with captions of others; the uids of those."""
    table = emoji_table().unique("unicode", keep="first", maintain_order=True).head(N)
    images, captions = table["image"].to_list(), [own[:1] for own in table["captions"].to_list()]
    rows = np.random.default_rng(0).permutation(N)[:WRONG]
    given = list(captions)
    for row, other in zip(rows, np.roll(rows, 1), strict=True):
        given[row] = captions[other]
    path = tmp_path_factory.mktemp("planted") / "pairs.parquet"
    pl.DataFrame({"image": images, "captions": given}).write_parquet(path)
    wrong = {pair_uid(images[row]["bytes"], given[row]) for row in rows if given[row] != captions[row]}
    return path, wrong


@pytest.mark.slow
def test_data_without_a_model(planted, tmp_path):
    path, wrong = planted
    before = path.read_bytes()
    done = clip("curate", path, "--out", tmp_path / "out", "--write", tmp_path / "clean")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert path.read_bytes() == before
    table = pl.read_parquet(tmp_path / "out" / "suspects.parquet")
    assert table.height == N
    own = ("uid", "is_suspect", "score", "probability", "kind", "reason", "second_reason", "neighbors")
    assert {*own, "suggested_caption"} < set(table.columns)
    assert table["score"].is_sorted(descending=True)
    document = json.loads((tmp_path / "out" / "curate.json").read_text())
    suspects = set(table.filter("is_suspect")["uid"])
    assert document["suspects"] == len(suspects) > 0
    # far better than chance, which is .17
    assert np.mean([uid in wrong for uid in table["uid"].head(20)]) > 0.5
    written = document["written"]
    assert (written["read"], written["kept"], written["removed"]) == (N, N - len(suspects), len(suspects))
    kept = clipmem.curate(tmp_path / "clean" / "pairs.parquet")["uid"]
    assert set(kept) == set(table["uid"]) - suspects


def test_a_list_without_a_model_does_not_wait_for_open_clip(planted):
    """Its import took 2 of 12 s of a list of 4,000 pairs."""
    program = "import sys, clipmem; clipmem.curate(sys.argv[1]); sys.exit('open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", program, planted[0]], check=False).returncode == 0


@pytest.mark.slow
def test_a_killed_comparison_of_many_pairs_goes_on_and_gives_the_same_list(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "EXACT", 100)
    whole, out = tmp_path / "whole", tmp_path / "out"
    curate_and_write(str(planted[0]), Curating(out=whole))
    code = (
        "import sys, time\nfrom clipmem.scoring import evidence\nevidence.EXACT = 100\n"
        "evidence.leave_one_out = lambda *_, **__: time.sleep(600)\nfrom clipmem.cli import main\nmain(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, "curate", str(planted[0]), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list((out / "comparing" / "markers").glob("sort-*-*-cpu.json"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    begun = [file for file in (out / "comparing").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in begun) > N * 1000

    def _sort(*_):
        raise AssertionError("what is finished is not computed again")

    monkeypatch.setattr(evidence, "_sort", _sort)
    assert curate_and_write(str(planted[0]), Curating(out=out)).document["pairs"] == N
    names = ["curate.json", "ranking.parquet", "suspects.parquet"]
    assert sorted(file.name for file in out.iterdir()) == names
    for name in names[1:]:
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_parts_that_somebody_prepared_are_computed_again_and_run_no_code(planted, tmp_path, monkeypatch):
    """Pickles, arrays of other lengths and empty files, each with a marker that fits; a broken marker is refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evidence, "EXACT", 100)
    how, place = Curating(out=tmp_path / "out"), tmp_path / "out" / "comparing"

    def listed():
        curate_and_write(str(planted[0]), how)
        return pl.read_parquet(how.out / "suspects.parquet")

    def begun():
        (how.out / "ranking.parquet").unlink(missing_ok=True)  # else it is used again
        with monkeypatch.context() as patch:
            patch.setattr(curating, "write_parquet", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                curate_and_write(str(planted[0]), how)
        return sorted(place.glob("*.npy"))

    files = begun()
    assert len(files) == 12
    whole = listed()
    forms = (bomb("x.npy"), pickle.dumps(Bomb()), npy(np.zeros((3, 2), dtype=np.float32)), b"")
    assert begun() == files
    for file, data in zip(files, cycle(forms), strict=False):
        file.write_bytes(data)
        for marker in place.glob("markers/*.json"):
            document = json.loads(marker.read_text())
            if file.name in document["outputs"]:
                document["outputs"][file.name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
                marker.write_text(json.dumps(document))
    assert begun() == files
    assert listed().equals(whole)
    for text in (b"[]", pickle.dumps(Bomb())):
        begun()
        for marker in place.glob("markers/*.json"):
            marker.write_bytes(text)
        with pytest.raises(InputError) as caught:
            curate_and_write(str(planted[0]), how)
        assert "comparing/markers" in caught.value.what
        shutil.rmtree(place)
    assert not (tmp_path / TRAP).exists()


def npy(array):
    """Return the bytes of an array in a file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.slow
def test_a_full_disk_while_many_pairs_are_compared(planted, tmp_path, disk, monkeypatch):
    place, mount = disk
    monkeypatch.setattr(evidence, "EXACT", 100)
    how = Curating(out=place / "out")
    with pytest.raises(RunError, match="No space left"):
        curate_and_write(str(planted[0]), how)
    mount("size=64m")
    assert curate_and_write(str(planted[0]), how).document["pairs"] == N
    mount("size=64k")  # of temporary files
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with pytest.raises(RunError, match="No space left"):
        curate_and_write(str(planted[0]), Curating(out=tmp_path / "out"))


@pytest.mark.slow
def test_suggested_captions(planted, tmp_path):
    path, _ = planted
    done = clip("curate", path, "--out", tmp_path / "out", "--write", tmp_path / "clean", "--correct")
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(tmp_path / "out" / "suspects.parquet").filter("is_suspect")
    written = json.loads((tmp_path / "out" / "curate.json").read_text())["written"]
    assert written["corrected"] == table["suggested_caption"].is_not_null().sum()
    assert written["removed"] == table["suggested_caption"].is_null().sum()


@pytest.mark.slow
def test_as_many_suspects_as_somebody_asks_for(planted, tmp_path):
    path, wrong = str(planted[0]), planted[1]
    out = tmp_path / "out"

    def suspects(*options):
        done = clip("curate", path, "--out", out, *options)
        assert done.returncode == 0, done.stderr
        table, document = pl.read_parquet(out / "suspects.parquet"), json.loads((out / "curate.json").read_text())
        assert document["suspects"] == table["is_suspect"].sum()
        assert document["aim"] == (options[1] if options else "")
        assert "+".join(options[1:2]) in "+".join(done.stdout.split())
        return table, document

    usual, _ = suspects()
    table, document = suspects("--suspects", "45")
    assert document["reused"]
    assert (document["suspects"], table["is_suspect"].head(45).all()) == (45, True)
    assert table.filter("is_suspect")["reason"].null_count() == 0
    assert table.drop("is_suspect").sort("uid").equals(usual.drop("is_suspect").sort("uid"))
    assert clipmem.curate(path, suspects=45).filter("is_label_issue")["uid"].sort().equals(
        table.filter("is_suspect")["uid"].sort()
    )  # fmt: skip
    lists = {aim: suspects("--suspects", aim) for aim in ("precision=0.9", "recall=0.9")}
    precise, complete = (table.filter("is_suspect")["uid"] for table, _ in lists.values())
    assert set(precise) < set(complete)
    assert precise.is_in(list(wrong)).mean() > complete.is_in(list(wrong)).mean()
    probability = pl.col("probability").filter("is_suspect")
    assert lists["precision=0.9"][0].select(probability.mean()).item() >= 0.9
    assert lists["recall=0.9"][0].select(probability.sum() / pl.col("probability").sum()).item() >= 0.9
    # what the page writes are these suspects
    written = write_reviewed(out, tmp_path / "reviewed", Quiet(), correct=False, reviewed=False)
    assert written["removed"] == len(complete)
    assert clipmem_uids(path) - clipmem_uids(tmp_path / "reviewed") == set(complete)
    assert clip("curate", path, "--out", out, "--suspects", "45", "--write", tmp_path / "clean").returncode == 0
    for most, code in ((45 / N, 0), (44 / N, 1)):
        assert clip("curate", path, "--out", out, "--suspects", "45", "--fail-above", most).returncode == code
    assert len(clipmem_uids(path) - clipmem_uids(tmp_path / "clean")) == 45


@pytest.mark.slow
def test_the_table_of_python(planted):
    path, wrong = planted
    table = clipmem.curate(path)
    assert table.columns[:2] == ["is_label_issue", "label_score"]
    assert table["label_score"].is_between(0, 1).all()
    issues = table.filter("is_label_issue")
    assert issues["label_score"].max() < table.filter(~pl.col("is_label_issue"))["label_score"].median()
    kinds = [f"is_{kind}_issue" for kind in ("mismatched", "vague", "duplicate", "hygiene")]
    assert (table.select(pl.sum_horizontal(kinds)).to_series() == table["is_label_issue"]).all()
    assert table.filter("is_label_issue")["uid"].is_in(list(wrong)).mean() > 0.4
    assert [name for name in table.columns if name.endswith("_detector")]


@pytest.fixture(scope="module")
def run(planted, tmp_path_factory):
    path, wrong = planted
    sizes = ("split.shared=100", "split.candidate=50", "split.independent=50", "split.external=40", "split.planted=0")
    recipe = tiny_recipe(f"data.path={path}", *sizes, "train.seeds=[0]", "train.epochs=2", "train.record=true")
    return clipmem.run(recipe, tmp_path_factory.mktemp("run") / "run"), wrong


def clipmem_uids(path):
    return set(open_source(DataSection(path=str(path))).pairs()["uid"])


@pytest.mark.slow
def test_a_run_with_marks(planted, run, tmp_path):
    path, made = planted[0], run[0]
    done = clip("curate", made.path)
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(made.path / "curate" / "suspects.parquet")
    f = set(made.splits.filter(pl.col("role").is_in(["shared", "candidate"]))["uid"])
    assert set(table["uid"]) == f
    assert {"margin_score", "similarity_score"} <= set(table.columns)
    explorer = Explorer(open_subject(made.path / "curate"))
    assert explorer.columns.uids == table["uid"].to_list()
    assert explorer.columns.manifest["thumbnails"]
    assert explorer.marks_file == made.path / "marks.jsonl"
    first, last = table["uid"][0], table["uid"][-1]
    lines = [{"uid": last, "mark": "fine"}, {"uid": last, "mark": "wrong"}, {"uid": first, "mark": "fine"}]
    other = made.splits.filter(role="external")["uid"].sort()[0]
    lines += [{"uid": uid, "mark": "wrong"} for uid in (other, "of no pair")]
    (made.path / "marks.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    done = clip("curate", made.path, "--out", tmp_path / "out", "--write", tmp_path / "clean")
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(tmp_path / "out" / "suspects.parquet")
    assert (table["uid"][0], table["is_suspect"][0], table["probability"][0]) == (last, True, 1.0)
    assert (table["uid"][-1], table["is_suspect"][-1]) == (first, False)
    document = json.loads((tmp_path / "out" / "curate.json").read_text())
    assert document["marks"]["wrong"] == document["marks"]["fine"] == 1
    # all pairs of the data, those of other roles too
    assert document["written"]["read"] == made.pairs.height
    assert document["written"]["marked"] == 1
    assert "1 pair that the model did not train on was marked wrong" in " ".join(done.stdout.split())
    assert other not in clipmem_uids(tmp_path / "clean")
    assert clipmem.curate(made.path)["uid"].to_list() == table["uid"].to_list()
    # the page of the run has the review, and writes what was decided
    explorer = open_explorer(open_subject(made.path))
    assert explorer.columns.manifest["review"]["marks"] == "marks.jsonl"
    assert explorer.columns.manifest["sort"]["column"] == "clipmem"
    rows = json.loads(explorer.get("review.json", {})[0])["suspects"]
    assert explorer.columns.uids[rows[0]] == last
    written = write_reviewed(made.path / "curate", tmp_path / "reviewed", Quiet(), correct=False, reviewed=True)
    assert (written["read"], written["removed"]) == (made.pairs.height, 2)
    assert clipmem_uids(path) - clipmem_uids(tmp_path / "reviewed") == {last, other}
    (made.path / "marks.jsonl").unlink()


@pytest.mark.slow
def test_with_a_model(planted, run, tmp_path):
    path, _ = planted
    model = run[0].path / "models" / "f" / "seed-0"
    done = clip("curate", path, "--model", model, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(tmp_path / "out" / "suspects.parquet")
    assert "similarity_score" in table.columns
    assert table.height == N
    stored = tmp_path / "stored"
    assert clip("export", "embeddings", "--model", model, "--data", path, "--out", stored).returncode == 0
    done = clip("curate", path, "--model", stored, "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(tmp_path / "again" / "suspects.parquet").equals(table)
    assert clip("curate", run[0].path, "--model", model).returncode == 2
    done = clip("curate", "--model", stored, "--out", tmp_path / "alone")  # its metadata have the captions
    assert done.returncode == 0, done.stderr
    alone = pl.read_parquet(tmp_path / "alone" / "suspects.parquet")
    assert set(alone["uid"]) == set(table["uid"])
    similarity = [each.select("uid", "similarity_score").sort("uid") for each in (table, alone)]
    assert similarity[0].equals(similarity[1])
    document = json.loads((tmp_path / "alone" / "curate.json").read_text())
    assert (document["section"], document["evidence"]) == (None, "embeddings")
    assert document["command"] == ["clipmem", "curate", "--model", str(stored), "--out", str(tmp_path / "alone")]
    explorer = open_explorer(open_subject(tmp_path / "alone"))
    assert len(json.loads(explorer.get("review.json", {})[0])["suspects"]) == alone["is_suspect"].sum()
    assert "data to write again" in refused("--model", stored, "--write", tmp_path / "clean")


def foreign(folder, captions):
    """Write embeddings as clip-retrieval does, with some captions."""
    stream, n = np.random.default_rng(0), len(captions)
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for name in ("img_emb", "text_emb"):
        np.save(folder / name / f"{name}_0.npy", stream.normal(size=(n, 8)).astype(np.float16))
    table = pl.DataFrame({"image_path": [f"{k}.jpg" for k in range(n)], "caption": captions})
    table.write_parquet(folder / "metadata" / "metadata_0.parquet")
    return folder


def test_embeddings_stand_for_their_data(tmp_path):
    captions = [f"a {('red', 'blue', 'green')[k % 3]} {('car', 'house')[k % 2]}" for k in range(250)]
    stored = foreign(tmp_path / "stored", [*captions, captions[0], "", None])
    table = clipmem.curate(model=str(stored), out=tmp_path / "out")
    assert table.height == 251
    skipped = pl.read_parquet(tmp_path / "out" / "skipped.parquet")
    assert skipped["reason"].to_list() == ["no caption"] * 2
    with pytest.warns(ClipmemWarning, match="2 records left out"):
        scores = clipmem.score(model=str(stored))
    assert scores["uid"].n_unique() == 251
    with pytest.raises(InputError) as error:
        clipmem.curate(model=str(foreign(tmp_path / "silent", [""] * 150)))
    assert "0 usable pairs" in str(error.value)
    with pytest.raises(InputError) as error:
        clipmem.curate()
    assert error.value.got == "no data"


@pytest.mark.slow
def test_a_run_of_the_data_adds_its_margins(planted, tmp_path):
    """The commands for a training in docs/mismatched-captions.md, with a shorter one."""
    path, wrong = planted
    recipe, folder = tmp_path / "pairs.toml", tmp_path / "run"
    begun = clip("init", recipe, "--data", path, "--set", "train.record=true", "--set", "train.epochs=7")
    assert begun.returncode == 0, begun.stderr
    trained = clip("run", recipe, "--out", folder)
    assert trained.returncode == 0, trained.stderr
    done = clip("curate", folder)
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(folder / "curate" / "suspects.parquet")
    assert table["margin_score"].null_count() == 0
    assert json.loads((folder / "curate" / "curate.json").read_text())["not_judged"] == N - table.height > 0
    assert np.mean([uid in wrong for uid in table["uid"].head(20)]) > 0.4  # chance: .17


@pytest.mark.slow
def test_unreadable_images_are_listed(planted, tmp_path):
    path, _ = planted
    table = pl.read_parquet(path)
    images = table["image"].to_list()
    images[3] = {"bytes": images[3]["bytes"][:40], "path": "cut.webp"}
    pl.DataFrame({"image": images, "captions": table["captions"]}).write_parquet(tmp_path / "data.parquet")
    done = clip("curate", tmp_path / "data.parquet", "--out", tmp_path / "out", "--write", tmp_path / "clean")
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(tmp_path / "out" / "suspects.parquet").height == N - 1
    assert pl.read_parquet(tmp_path / "out" / "skipped.parquet").height == 1
    kept = pl.read_parquet(tmp_path / "clean" / "data.parquet")
    assert images[3] in kept["image"].to_list()
    written = json.loads((tmp_path / "out" / "curate.json").read_text())["written"]
    assert (written["read"], written["unusable"]) == (N - 1, 1)
    assert written["kept"] + written["removed"] == N - 1
    table.write_parquet(tmp_path / "data.parquet")  # all are usable: the list of the first call goes
    assert clip("curate", tmp_path / "data.parquet", "--out", tmp_path / "out").returncode == 0
    assert not (tmp_path / "out" / "skipped.parquet").exists()


def refused(*arguments):
    done = clip("curate", *arguments)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) > 0
    return done.stderr


def test_refused(planted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = write_parquet(tmp_path / "few.parquet", 20)
    assert "20" in refused(few)
    one = write_parquet(tmp_path / "one.parquet", 120, captions=[["the same"]] * 120)
    assert "captions" in refused(one)
    none = write_parquet(tmp_path / "none.parquet", 120, captions=[[]] * 120)
    assert "without a usable pair" in refused(none)
    path, _ = planted
    folder = tmp_path / "images"
    assert clip("export", "pairs", path, "--to", "imagefolder", "--out", folder).returncode == 0
    assert "--write" in refused(folder, "--write", folder / "clean")
    assert "--out" in refused(folder, "--out", folder / "out")
    assert "--write" in refused(path, "--write", folder)
    assert "--correct" in refused(path, "--correct")
    both = refused(path, "--write", tmp_path / "both", "--correct", "--reviewed-only")
    assert both.startswith("clipmem: --correct: got also --reviewed-only")
    assert "--write" in refused(path, "--write", tmp_path / "unused", "--out", tmp_path / "unused")
    assert "--write" in refused(path, "--write", tmp_path / "unused", "--out", tmp_path / "unused" / "list")
    assert "unknown" in refused(path, "--model", "unknown/model")
    assert not (tmp_path / "unused").exists()
    assert not (folder / "clean").exists()
    assert not (folder / "out").exists()


def test_a_run_has_its_own_model_and_captions(run, tmp_path):
    folder = run[0].path
    assert "--captions" in refused(folder, "--captions", 1, "--out", tmp_path / "out")
    for how in ({"captions": 1}, {"model": "some/model"}):
        with pytest.raises(clipmem.InputError) as caught:
            clipmem.curate(folder, **how)
        assert "with a run folder" in caught.value.got


def test_a_number_of_captions_below_one_is_refused_by_its_own_name(planted, tmp_path):
    done = clip("curate", planted[0], "--captions", "-1", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("clipmem: captions: got -1, expected 1 or more.")
    assert not (tmp_path / "out").exists()
