"""`clipmem inspect` and `export`: what is said of a data set, other formats with the same uids, lists of uids."""

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clipmem.base.progress import Quiet
from clipmem.base.recipes import dump_recipe
from clipmem.base.sections import DataSection
from clipmem.data import inspection
from clipmem.data.sources import detect, open_data, open_source
from clipmem.study import data_commands as of_pairs
from clipmem.study.starting import start
from tests.e2e.running import clip, clip_alone
from tests.tiny import encoded_image, tiny_recipe

HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b[2J\x1b]0;title\x07",
    "=cmd()|' /C calc'!A0",
    "\u202egnp.exe\u202c \u200f",
    "word " * 10_000,
    "nul\x00 and bell\x07",
    "[bold red]markup[/]",
    "a\nb\r\nc\n",
    "\ufeffmark",
    "{{ 7 * 7 }}",
]


def inspect(path, **how):
    """What `clipmem inspect PATH` shows."""
    return of_pairs.inspect(path, lambda: open_data(path), of_pairs.Inspecting(**how))


def export(path, out, to, *, settings=(), **how):
    """What `clipmem export pairs PATH` writes."""
    return of_pairs.export(open_data(path, settings=settings), out, to, **how)


def hostile_pairs(path):
    """Pairs whose captions would do harm, one image that does not decode, and one that stands there twice."""
    captions = [[text] for text in HOSTILE] + [["a plain one", "another"], ["a"], ["b"]]
    images = [encoded_image(k) for k in range(len(captions))]
    images[-1] = images[-2]
    rows = pl.DataFrame({"image": [*images, encoded_image(99)[:90]], "captions": [*captions, ["cut"]]})
    rows.write_parquet(path)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return hostile_pairs(tmp_path_factory.mktemp("data") / "hostile.parquet")


def harmless(text):
    """Nothing in it can move a cursor, color a screen, or turn the direction of writing."""
    return not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", text)


# ---- inspect


def test_inspect_says_what_lies_there(hostile):
    done = clip("inspect", hostile, "--time")
    assert done.returncode == 0, done.stderr
    assert harmless(done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 100
    shown = " ".join(done.stdout.split())
    for text in (
        "format parquet (Parquet with 'image' and 'captions')",
        "records 14 records read: 13 pairs, 1 left out",
        "pairs 13",
        "captions 14; pairs by number of captions: 1: 12, 2: 1",
        "images PNG 14 (all 14 headers)",
        "width 32 to 32, median 32, 95% at most 32 pixels",
        "duplicates exact: 2 of 14 images in 1 group",
        "problems 1 listed; 1 of 14 images do not decode",
        "1 truncated image",
        "Cost of a study: ",
        "a pixel cache of",
        "pairs trained per second",
    ):
        assert text in shown, text


def test_inspect_as_json_is_the_same_document(hostile):
    done = clip("inspect", hostile, "--json")
    assert done.returncode == 0, done.stderr
    assert harmless(done.stdout)
    found = json.loads(done.stdout)
    here = inspect(str(hostile), cost=False)
    assert {**found, "seconds": 0} == {**here, "seconds": 0}
    assert found["captions"]["words"]["max"] >= 10_000
    assert [len(one["captions"]) for one in found["samples"]] == [1] * 5 or len(found["samples"]) == 5
    [problem] = found["problems"]["reasons"]
    assert (problem["reason"], problem["count"]) == ("truncated image", 1)
    assert problem["examples"] == [{"source": str(hostile), "key": "13"}]
    assert found["duplicates"]["exact"] == {"groups": 1, "images": 2, "of": 14}
    assert found["usable"] is True
    assert "cost" not in found


def test_inspect_export_and_init_count_alike(tmp_path):
    images = [encoded_image(k, size=16)[: 60 if k in {3, 5} else None] for k in range(70)]
    captions = [[f"thing {k}"] if k else [] for k in range(70)]
    images[69], captions[69] = images[1], captions[1]  # a pair that is there twice
    pl.DataFrame({"image": images, "captions": captions}).write_parquet(tmp_path / "a.parquet")
    found = inspect(str(tmp_path / "a.parquet"))
    records = found["records"]
    assert (records["read"], records["pairs"], records["merged"], records["left_out"]) == (70, 66, 0, 4)
    assert found["pairs"] == found["captions"]["total"] == 66
    assert found["problems"]["listed"] == sum(one["count"] for one in found["problems"]["reasons"]) == 4
    assert "70 records read: 66 pairs, 4 left out" in export(str(tmp_path / "a.parquet"), tmp_path / "out", "parquet")
    assert pl.read_parquet(tmp_path / "out" / "00000.parquet").height == 66
    assert pl.read_parquet(tmp_path / "out-skipped.parquet").height == 4
    assert "66, 4 records left out" in " ".join(start(str(tmp_path / "a.parquet")).notes)
    shutil.rmtree(tmp_path / "out")
    pl.read_parquet(tmp_path / "a.parquet")[10:60].write_parquet(tmp_path / "a.parquet")
    export(str(tmp_path / "a.parquet"), tmp_path / "out", "parquet")
    assert not (tmp_path / "out-skipped.parquet").exists()  # of the first export


@pytest.mark.slow
def test_inspect_of_the_shipped_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = inspect("emoji", cost=False)
    assert (found["pairs"], found["source"]) == (1914, "emoji")
    assert found["images"]["formats"] == {"WEBP": 1914}
    assert found["problems"]["decoded"] == inspection.DECODED
    assert len(found["samples"]) == 5
    assert found["duplicates"]["near"]["images"] > 0


def test_a_sample_is_said_to_be_one_and_full_looks_at_all(tmp_path, monkeypatch):
    n = 40
    images = [encoded_image(k)[: 80 if k == 30 else None] for k in range(n)]
    path = tmp_path / "a.parquet"
    pl.DataFrame({"image": images, "captions": [f"thing {k}" for k in range(n)]}).write_parquet(path)
    for name, value in (("HEADERS", 16), ("DECODED", 8), ("RUN", 4)):
        monkeypatch.setattr(inspection, name, value)
    found = inspect(str(path), cost=False)
    assert (found["images"]["read"], found["images"]["of"]) == (16, 40)
    assert 8 <= found["problems"]["decoded"] <= 9  # a header that does not read counts as tried
    full = inspect(str(path), cost=False, full=True)
    assert (full["problems"]["decoded"], full["problems"]["undecodable"]) == (40, 1)
    assert full["problems"]["reasons"][0]["examples"] == [{"source": str(path), "key": "30"}]


def test_every_record_is_read_once_and_few_a_second_time(tmp_path, monkeypatch):
    export(str(numbered(tmp_path / "a.parquet", 300)), tmp_path / "tars", "webdataset", shard=100)
    source = open_source(DataSection(source="auto", path=str(tmp_path / "tars")))
    monkeypatch.setattr(inspection, "HEADERS", 64)
    monkeypatch.setattr(inspection, "DECODED", 64)
    passes, second = [], []
    records, read = source.records, source.read
    source.records = lambda: (passes.append(1), records())[1]
    source.read = lambda references: (second.extend(references), read(references))[1]
    facts, _ = inspection.inspect_source(source)
    assert len(passes) == 1
    assert len(second) == 64
    assert facts["pairs"] == facts["duplicates"]["exact"]["of"] == 300


@pytest.mark.parametrize(
    ("n", "most", "run"), [(10, 10, 3), (11, 10, 3), (11, 10, 64), (1000, 128, 64), (129, 128, 64)]
)
def test_a_sample_is_of_places_that_are_there_each_once(n, most, run):
    chosen = inspection.runs(n, most, run=run)
    assert len(chosen) == len(set(chosen))
    assert set(chosen) <= set(range(n))
    assert len(chosen) == n if n <= most else most - run < len(chosen) <= most


def numbered(path, n):
    rows = {"image": [encoded_image(k, size=16) for k in range(n)], "captions": [f"thing {k}" for k in range(n)]}
    pl.DataFrame(rows).write_parquet(path)
    return path


def test_leaks_are_listed_and_fail_a_test_of_the_data(tmp_path, monkeypatch):
    """Five of eight test pairs are training pairs."""
    for name, first in (("test", 0), ("train", 3)):
        rows = {"image": [encoded_image(first + k) for k in range(8)], "caption": [f"{first + k}" for k in range(8)]}
        pl.DataFrame(rows).write_parquet(tmp_path / f"{name}.parquet")
    test, train = tmp_path / "test.parquet", tmp_path / "train.parquet"
    out, summary = tmp_path / "leaks.csv", tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    passed = clip("inspect", test, "--against", train, "--fail-above", 0.7, "--out", out)
    assert passed.returncode == 0, passed.stderr
    assert "62.5%" in passed.stdout
    assert summary.read_text().count("62.5%") == 1
    rows = pl.read_csv(out, schema_overrides=[pl.String] * 6)
    assert sorted(rows["caption"]) == rows["other_caption"].sort().to_list() == ["3", "4", "5", "6", "7"]
    assert set(rows["match"]) == {"same image and caption"}
    failed = clip("inspect", test, "--against", train, "--fail-above", 0.5)
    assert (failed.returncode, "got 0.625" in failed.stderr, "62.5%" in failed.stdout) == (1, True, True)
    plain = json.loads(clip("inspect", test, "--against", train, "--json").stdout)
    assert (plain["leaks"]["leaked"], plain["leaks"]["share"], plain["leaks"]["path"]) == (5, 0.625, str(train))
    unreadable = clip("inspect", test, "--against", tmp_path)
    assert unreadable.returncode == 2


def test_inspect_exits_with_2_when_the_data_cannot_be_used(tmp_path):
    nothing = clip("inspect", tmp_path)
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("clipmem: [data] path: got ")
    pl.DataFrame({"image": [encoded_image(1)[:90]], "captions": ["cut"]}).write_parquet(tmp_path / "cut.parquet")
    broken = clip("inspect", tmp_path / "cut.parquet")
    assert broken.returncode == 2
    assert "1 truncated image" in " ".join(broken.stdout.split())
    assert broken.stderr.splitlines()[-1] == (
        f"clipmem: {tmp_path / 'cut.parquet'}: got no decodable image (of 1), expected images. See the reasons above."
    )
    other = clip("inspect", tmp_path, "--set", "train.lr=1")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1] == (
        "clipmem: --set train.lr=1: got a setting of another section, expected data.KEY=VALUE. See the keys of "
        "[data] with `clipmem init -`."
    )


def test_a_message_that_quotes_the_data_moves_no_cursor(tmp_path):
    name = tmp_path / "\x1b[31mred\u202e.parquet"
    name.write_bytes(b"nothing")
    done = clip("inspect", name)
    assert done.returncode == 2
    assert harmless(done.stderr)


# ---- export


@pytest.mark.parametrize("to", ["webdataset", "parquet", "imagefolder"])
def test_exported_pairs_have_the_same_uids_images_and_captions(hostile, tmp_path, to):
    sentence = export(str(hostile), tmp_path / "out", to, shard=5)
    beside = tmp_path / "out-skipped.parquet"
    assert sentence == (
        f"wrote 13 pairs to {tmp_path / 'out'}; 14 records read: 13 pairs, 1 left out; "
        f"1 problem, 13 pairs used: 1 truncated image (see {beside})"
    )
    assert pl.read_parquet(beside)["key"].to_list() == ["13"]
    assert detect(str(tmp_path / "out")).format == to
    first, second = (open_source(DataSection(source="auto", path=str(path))) for path in (hostile, tmp_path / "out"))
    before, after = first.pairs(), second.pairs()
    before = before.filter(pl.col("captions").list.first() != "cut")
    assert after["uid"].to_list() == before["uid"].to_list()
    assert after["captions"].to_list() == before["captions"].to_list()
    assert second.read(after["image"].to_list()) == first.read(before["image"].to_list())
    assert not second.problems
    export(str(hostile), tmp_path / "again", to, shard=5)
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
    assert len(contents(tmp_path / "out")) == {"webdataset": 3, "parquet": 3, "imagefolder": 14}[to]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_labels_and_groups_survive(tmp_path):
    columns = {"group_column": "who", "label_column": "kind", "object_column": "things", "role_column": "part"}
    pl.DataFrame(
        {
            "image": [encoded_image(k) for k in range(3)],
            "captions": ["a", "b", "c"],
            "who": ["x", "x", "y"],
            "kind": ["cat", "", "dog"],
            "things": ["sofa, cat", None, "dog"],
            "part": ["shared", "external", None],
        }
    ).write_parquet(tmp_path / "a.parquet")
    settings = [f"data.{key}={value}" for key, value in columns.items()]
    before = open_source(DataSection(source="auto", path=str(tmp_path / "a.parquet"), **columns)).pairs()
    back = {"group_column": "group", "label_column": "label", "object_column": "objects", "role_column": "role"}
    for to in ("webdataset", "parquet"):
        export(str(tmp_path / "a.parquet"), tmp_path / to, to, settings=settings)
        after = open_source(DataSection(source="auto", path=str(tmp_path / to), **back)).pairs()
        for name in ("uid", "group", "label", "objects", "role"):
            assert after[name].to_list() == before[name].to_list(), (to, name)


def test_export_refuses_a_folder_with_something_in_it(hostile, tmp_path):
    (tmp_path / "mine").write_text("mine")
    done = clip("export", "pairs", hostile, "--to", "parquet", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"clipmem: {tmp_path}: got an existing file or folder, expected a new or empty folder. "
        "Choose another --out DIR."
    )
    fresh = clip("export", "pairs", hostile, "--to", "parquet", "--out", tmp_path / "new")
    assert fresh.returncode == 0, fresh.stderr
    assert fresh.stdout.startswith(f"wrote 13 pairs to {tmp_path / 'new'}; 14 records read: 13 pairs")


@pytest.mark.parametrize("to", ["webdataset", "parquet", "imagefolder"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_interrupted_export_leaves_nothing(hostile, tmp_path, to, error):
    (tmp_path / "empty").mkdir()

    class Stops(Quiet):
        def advance(self, amount, note=""):
            raise error

    for out in (tmp_path / "new", tmp_path / "empty"):
        with pytest.raises(error):
            export(str(hostile), out, to, shard=5, reporter=Stops())
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []
    for out in (tmp_path / "new", tmp_path / "empty"):
        (tmp_path / "empty" / ".clipmem-partial.tmp").mkdir(exist_ok=True)  # of a killed process
        export(str(hostile), out, to, shard=5)
    assert contents(tmp_path / "new") == contents(tmp_path / "empty")


def test_export_knows_how_many_pairs_there_are(hostile, tmp_path):
    class Counts(Quiet):
        total = done = 0

        def begin(self, stage, total, unit):
            assert (stage, unit) == ("export", "pairs")
            self.total = total

        def advance(self, amount, note=""):
            self.done += amount

    reporter = Counts()
    export(str(hostile), tmp_path / "out", "parquet", reporter=reporter)
    assert reporter.done == reporter.total == 14


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("exported", [False, True])
def test_output_that_cannot_be_written_is_one_line(hostile, tmp_path, exported):
    arguments = ["export", "pairs", hostile, "--to", "parquet", "--out", tmp_path / "out"] if exported else ["--help"]
    with Path("/dev/full").open("w") as full:
        done = clip_alone(*arguments, stdout=full)
    assert done.returncode == 1
    last = "clipmem: could not write to standard output: No space left on device."
    assert [line for line in done.stderr.splitlines() if not line.startswith("export ")] == [last]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_a_reader_that_went_away_is_no_error_message(arguments):
    reads, writes = os.pipe()
    os.close(reads)
    done = clip_alone(*arguments, stdout=writes)
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


# ---- ids


def test_lists_of_a_run(finished, tmp_path):
    ranked = finished.scores.filter(role="candidate").sort("clipmem", "uid", descending=[True, False])
    for name in ("ids.txt", "ids.parquet", "ids.npy", "ids.csv"):
        done = clip("export", "ids", finished.path, "--top", "5", "--role", "candidate", "--out", tmp_path / name)
        assert (done.returncode, done.stdout) == (0, f"wrote 5 uids to {tmp_path / name}\n")
    expected = ranked["uid"].head(5).to_list()
    assert (tmp_path / "ids.txt").read_text().splitlines() == expected
    table = pl.read_parquet(tmp_path / "ids.parquet")
    assert table["uid"].to_list() == expected
    assert table["clipmem"].to_list() == ranked["clipmem"].head(5).to_list()
    stored = np.load(tmp_path / "ids.npy", allow_pickle=False)
    assert stored.dtype == np.dtype("u8,u8")
    assert [f"{high:016x}{low:016x}" for high, low in stored.tolist()] == sorted(expected)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "ids.csv").read_text())))
    assert [row["uid"] for row in rows] == expected
    rest = clip(
        "export", "ids", finished.path, "--top", "5", "--role", "candidate", "--invert", "--out", tmp_path / "r.txt"
    )
    uids = pl.read_parquet(finished.path / "pairs.parquet")["uid"]
    assert len(uids) > finished.scores.height  # some have no score
    assert rest.stdout == f"wrote {len(uids) - 5:,} uids to {tmp_path / 'r.txt'}\n"
    others = (tmp_path / "r.txt").read_text().splitlines()
    assert sorted([*others, *expected]) == sorted(uids)


def test_lists_of_any_table_of_scores(tmp_path):
    uids = [f"{k:032x}" for k in range(4)]
    pl.DataFrame({"uid": uids, "mine": [2, 9, 9, None]}).write_parquet(tmp_path / "s.parquet")
    done = clip("export", "ids", tmp_path / "s.parquet", "--by", "mine", "--out", tmp_path / "a.txt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.txt").read_text().splitlines() == [uids[1], uids[2], uids[0]]
    clip("export", "ids", tmp_path / "s.parquet", "--by", "mine", "--bottom", "1", "--out", tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == uids[0] + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--by", "clipmen"],
            "got no column 'clipmen', expected uids and a numeric column. Did you mean 'clipmem' or 'clipmem_norm'?",
        ),
        (
            ["--role", "candidat"],
            "--role 'candidat': got no pairs with that role, "
            "expected candidate, external, independent, shared. Did you mean 'candidate'?",
        ),
        (["--top", "999"], "--top 999: got 140 pairs with a score, expected at most 140. Reduce --top."),
        (["--top", "1", "--bottom", "1"], "--top and --bottom: got both, expected one of them. Write two lists."),
        (["--out", "x.doc"], "got the file extension '.doc', expected .txt, .parquet, .npy, .csv."),
    ],
)
def test_a_list_that_cannot_be_made_is_one_line(finished, tmp_path, arguments, message):
    from clipmem.base.errors import InputError
    from clipmem.study.data_commands import write_list

    options = dict(zip((name.strip("-") for name in arguments[::2]), arguments[1::2], strict=True))
    choice = {name: int(value) if value.isdigit() else value for name, value in options.items() if name != "out"}
    total = finished.scores.height
    with pytest.raises(InputError) as error:
        write_list(finished.path, tmp_path / options.get("out", "a.txt"), **choice)
    assert message.replace("140", f"{total}") in str(error.value)


# ---- hostile captions through a whole study


@pytest.mark.slow
def test_a_study_of_hostile_captions_harms_no_output(tmp_path):
    captions = [f"{HOSTILE[k % len(HOSTILE)]} {k}" if k % 3 else HOSTILE[k % len(HOSTILE)] for k in range(124)]
    path = tmp_path / "hostile.parquet"
    rows = {"image": [encoded_image(k) for k in range(124)], "captions": captions, "kind": captions}
    pl.DataFrame(rows).write_parquet(path)
    recipe = tmp_path / "study.toml"
    settings = ["train.seeds=[0]", "train.epochs=1", f"data.path={str(path)!r}", "data.label_column=kind"]
    recipe.write_text(dump_recipe(tiny_recipe(*settings)))
    done = clip("run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert harmless(done.stdout + done.stderr)
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert harmless(page)
    assert "<script" not in page
    stored = pl.read_parquet(tmp_path / "run" / "pairs.parquet")
    assert sorted(text for texts in stored["captions"].to_list() for text in texts) == sorted(captions)
    listed = clip("export", "ids", tmp_path / "run", "--out", tmp_path / "all.csv")
    assert listed.returncode == 0, listed.stderr
    table = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_bytes().decode(), newline="")))
    assert len(table) == 120
    assert not [row for row in table if row["captions"].startswith(("=", "+", "-", "@"))]
    assert any(row["captions"].startswith("'=cmd()") for row in table)
