"""Scores and suspects of shards: embedded by shard, in shares that open only their own files; the same bytes always."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from clipmem.base.errors import InputError, Unfinished
from clipmem.models import openclip
from clipmem.scoring import evidence
from clipmem.study import curating, pool, scoring
from clipmem.study.api import Inputs, score_into
from clipmem.study.curating import Curating, curate_and_write
from clipmem.study.score_inputs import Settings, pairs_of
from tests.e2e.test_shards import spoil
from tests.tiny import encoded_image

SHARDS, EACH, BROKEN = 5, 48, 61
SHARED, IN = 7, 3  # an image, with another caption in that shard, too


def image(k):
    return b"\x89PNG\r\n\x1a\n no image" if k == BROKEN else encoded_image(k)


def numbers(k):
    return [*range(EACH * k, EACH * k + EACH), *([SHARED] if k == IN else [])]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    for name in ("tables", "one", "images"):
        (folder / name).mkdir()
    for k in range(SHARDS * EACH):
        (folder / "images" / f"{k}.png").write_bytes(image(k))
    tables = list[pl.DataFrame]()
    for k in range(SHARDS):
        words = [f"a {'red' if j % 3 else 'blue'} thing {j} in {k}" for j in numbers(k)]
        tables.append(pl.DataFrame({"image": [f"../images/{j}.png" for j in numbers(k)], "caption": words}))
        tables[-1].write_parquet(folder / "tables" / f"{k}.parquet")
    pl.concat(tables).write_parquet(folder / "one" / "one.parquet")
    for name, seed in (("small", 1), ("other", 2)):
        openclip.create("clipmem-micro", seed=seed).save(folder / name)
    return folder


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(pool, "_FEW", 1000)


def scored(world, out, part="", *, data="tables", **more):
    inputs = Inputs([str(world / "small")], [str(world / "other")], str(world / data), **more)
    return score_into(out, inputs, part=part, bank_size=20)


def ranked(world, out, part=""):
    return score_into(out, Inputs(data=str(world / "tables"), model=str(world / "small")), part=part)


def curated(world, out, part="", *, data="tables"):
    curate_and_write(str(world / data), Curating(str(world / "small"), out=out, part=part))
    return out / "suspects.parquet"


@pytest.mark.parametrize("command", [scored, ranked, curated])
def test_shares_give_the_bytes_of_the_whole(made, tmp_path, command):
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    command(made, whole)
    for number in (2, 1, 2):
        with pytest.raises(Unfinished) as ended:
            command(made, out, f"{number}/2")
        assert ended.value.total == SHARDS
    assert ended.value.remaining == 0
    command(made, out)
    files = (whole, out) if whole.is_file() else (whole / "suspects.parquet", out / "suspects.parquet")
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("command", [scored, ranked])
def test_a_share_reads_no_file_of_another_one(made, tmp_path, command):
    """But the first file, from whose columns tables are recognized."""
    shutil.copytree(made, tmp_path / "made")
    for k in (2, 3, 4):
        spoil(tmp_path / "made" / "tables" / f"{k}.parquet")
    with pytest.raises(Unfinished) as ended:
        command(tmp_path / "made", tmp_path / "out.parquet", "2/5")
    assert (ended.value.remaining, ended.value.total) == (SHARDS - 1, SHARDS)


def test_an_image_in_two_shards_is_one_pair_where_all_are_listed(made, tmp_path):
    """Its captions are joined, and it is embedded with both; what does not decode is listed once."""
    of_shards, of_one = curated(made, tmp_path / "a"), curated(made, tmp_path / "b", data="one/one.parquet")
    uids = pl.read_parquet(of_one)["uid"]
    assert set(pl.read_parquet(of_shards)["uid"]) == set(uids)
    assert len(uids) == SHARDS * EACH - 1
    skipped = [pl.read_parquet(tmp_path / name / "skipped.parquet") for name in "ab"]
    assert [table["reason"].to_list() for table in skipped] == [["truncated image"]] * 2


@pytest.fixture
def stored(made, tmp_path, monkeypatch):
    """Embeddings of which near pairs alone are compared, in tasks of about 50."""
    scoring.embed_pairs(str(made / "small"), str(made / "tables"), tmp_path / "E", Settings.of())
    for module in (evidence, curating):
        monkeypatch.setattr(module, "EXACT", 100)
    monkeypatch.setattr(evidence, "_SPAN", 50)
    return tmp_path / "E"


def suspects(stored, out, part=""):
    curate_and_write(None, Curating(str(stored), out=out, part=part))
    return out / "suspects.parquet"


def test_comparisons_in_shares_give_the_bytes_of_the_whole(stored, tmp_path, monkeypatch):
    whole = suspects(stored, tmp_path / "whole").read_bytes()
    work, did = evidence._near_span, list[str]()
    monkeypatch.setattr(
        evidence, "_near_span", lambda job, name, *more, **how: (did.append(name), work(job, name, *more, **how))
    )
    evidence._near_span.__name__ = work.__name__
    for count in (1, 4, 16):
        out = tmp_path / f"{count}"
        did.clear()
        for number in range(count, 0, -1):
            if count > 1:
                with pytest.raises(Unfinished) as ended:
                    suspects(stored, out, f"{number}/{count}")
                assert ended.value.total >= 8
                assert (number == 1) == (ended.value.remaining == 0)
        assert suspects(stored, out).read_bytes() == whole
        assert len(did) == len(set(did)) >= 8  # each once
        assert not (out / "comparing").exists()


@pytest.mark.parametrize("spoiled", ["unreadable", "short"])
def test_a_damaged_part_of_another_share_is_done_again(stored, tmp_path, spoiled):
    """Of the size that its marker says, or with a marker that fits."""
    whole, out = suspects(stored, tmp_path / "whole").read_bytes(), tmp_path / "out"
    with pytest.raises(Unfinished):
        suspects(stored, out, "1/2")
    marker = min((out / "comparing" / "markers").glob("sort-*-*-cpu-*.json"))
    document = json.loads(marker.read_text())
    name = min(document["outputs"])
    file = out / "comparing" / name
    if spoiled == "short":
        np.save(file, np.load(file)[:-1])
        document["outputs"][name]["bytes"] = file.stat().st_size
        marker.write_text(json.dumps(document))
    else:
        file.write_bytes(b"x" * file.stat().st_size)
    assert suspects(stored, out).read_bytes() == whole


def test_a_share_that_was_stopped_goes_on(stored, tmp_path, monkeypatch):
    whole, work, did = suspects(stored, tmp_path / "whole").read_bytes(), evidence._near_span, list[str]()

    def stopping(job, name, *more, **how):
        did.append(name)
        if len(did) == 3:
            raise KeyboardInterrupt
        work(job, name, *more, **how)

    stopping.__name__ = work.__name__
    monkeypatch.setattr(evidence, "_near_span", stopping)
    with pytest.raises(KeyboardInterrupt):
        suspects(stored, tmp_path / "out", "2/2")
    with pytest.raises(Unfinished):
        suspects(stored, tmp_path / "out", "2/2")
    assert did[2] == did[3]
    assert len(set(did)) == len(did) - 1
    assert suspects(stored, tmp_path / "out").read_bytes() == whole


def test_scores_of_shards_are_those_of_their_pairs(made, tmp_path):
    """An image in two shards is a pair in each; the bank is given, since another one would be drawn."""
    bank = str(tmp_path / "bank.parquet")
    pl.DataFrame({"image": [encoded_image(k) for k in range(900, 920)], "caption": ["others"] * 20}).write_parquet(bank)
    of_shards = scored(made, tmp_path / "a.parquet", bank=bank)
    of_one = scored(made, tmp_path / "b.parquet", bank=bank, data="one/one.parquet")
    joined = of_one.scores.join(of_shards.scores, on="uid")
    assert joined.height == of_one.scores.height - 1 == of_shards.scores.height - 2
    np.testing.assert_allclose(joined["clipmem"], joined["clipmem_right"], atol=1e-6)
    assert of_shards.about["data"] == str(made / "tables")
    assert next(iter(of_shards.captions.values()))[0].startswith("a ")


def test_finished_scores_of_shards_are_shown_again(made, tmp_path, monkeypatch):
    first = scored(made, tmp_path / "a.parquet")
    monkeypatch.setattr(scoring, "embed", None)
    again = scored(made, tmp_path / "a.parquet")
    assert again.captions == first.captions
    assert len(first.captions) == 10
    assert again.about == first.about


def test_shards_that_changed_since_a_share_are_refused(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    with pytest.raises(Unfinished):
        scored(tmp_path / "made", tmp_path / "out.parquet", "1/2")
    pl.read_parquet(file := tmp_path / "made" / "tables" / "0.parquet").head(9).write_parquet(file)
    with pytest.raises(InputError) as caught:
        scored(tmp_path / "made", tmp_path / "out.parquet", "2/2")
    assert "data" in caught.value.got


def test_a_bank_of_uids_needs_the_list_of_all_pairs(made, tmp_path):
    uids = pairs_of([], str(made / "tables"), Settings.of(), "--data").uids
    of_bank = scored(made, tmp_path / "a.parquet", bank=uids[:30].to_list()).scores.filter(role="external")
    assert set(of_bank["uid"]) == set(uids[:30]) - set(pl.read_parquet(tmp_path / "a.skipped.parquet")["key"])
