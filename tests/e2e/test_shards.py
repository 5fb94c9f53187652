"""Embeddings by shard: each file is listed where it is embedded, alone; the same rows as from a list of all pairs."""

import json
import os
import shutil

import fsspec
import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.data.pairs import ShardedPairs
from clipmem.data.sources import open_data, webdataset
from clipmem.models import embeddings, openclip
from clipmem.models.embeddings import Embeddings
from clipmem.study import pool
from clipmem.study.score_inputs import Settings, pairs_of, read_pairs
from tests.e2e.test_shares import during_the_first_part, embed, files, kill_share
from tests.e2e.test_survival_full_disk import fill
from tests.tiny import encoded_image
from tests.unit.data.sources.test_webdataset import pair_members, shard

SHARDS, EACH = 6, 7
BROKEN, REPEATED, EMPTY = (
    9,
    8,
    3,
)  # a pair that does not decode, one that is also in the last shard, a shard without any


def numbers(k):
    return [*range(EACH * k, EACH * k + EACH), *([REPEATED] if k == SHARDS - 1 else [])]


def image(k):
    return b"\x89PNG\r\n\x1a\n no image" if k == BROKEN else encoded_image(k)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Tars and Parquet of the same pairs, and models."""
    folder = tmp_path_factory.mktemp("shards")
    for k in range(SHARDS):
        members = [
            (name, image(j) if name.endswith("png") else data) for j in numbers(k) for name, data in pair_members(j)
        ]
        members = [(name, data) for name, data in members if k != EMPTY or name.endswith("png")]
        shard(folder / "tars" / f"{k:04d}.tar", members)
        captions = ["" if k == EMPTY else f"caption {j}" for j in numbers(k)]
        rows = {"jpg": [image(j) for j in numbers(k)], "caption": captions}
        (folder / "tables").mkdir(exist_ok=True)
        pl.DataFrame(rows).write_parquet(folder / "tables" / f"{k:04d}.parquet")
    openclip.create("clipmem-micro", seed=1).save(folder / "small")
    return folder


@pytest.fixture
def world(made, tmp_path):
    """A copy that a test can change, with the times of the originals."""
    shutil.copytree(made, tmp_path / "world")
    return tmp_path / "world"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(pool, "_FEW", 1000)


@pytest.fixture(params=["tars", "tables"])
def kind(request):
    return request.param


@pytest.fixture
def whole(made, kind, tmp_path):
    """The files of all shards done by one call."""
    assert embed(made, tmp_path / "whole", data=made / kind) == 0
    return files(tmp_path / "whole")


def shared(world, out, count, kind="tars", order=reversed):
    for number in order(range(1, count + 1)):
        assert embed(world, out, "--part", f"{number}/{count}", data=world / kind) == 0


@pytest.mark.parametrize("count", [1, 4, 16])
def test_shares_in_any_order_give_the_bytes_of_the_whole(made, tmp_path, kind, whole, count):
    out = tmp_path / "emb"
    shared(made, out, count, kind)
    assert files(out) == whole  # finished by the share that was the last one
    (out / "img_emb" / ".img_emb_0.npy.1a2b3c4d.tmp").write_bytes(b"of a process that was killed")
    assert embed(made, out, data=made / kind) == 0
    shared(made, out, count, kind, iter)  # done
    assert files(out) == whole
    assert len(list((out / "markers").iterdir())) == SHARDS


@pytest.mark.slow
def test_a_pool_gives_the_bytes_of_one_process(made, tmp_path, kind, whole, monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 2)
    monkeypatch.setattr(pool, "_FEW", 2)
    assert embed(made, tmp_path / "emb", data=made / kind) == 0
    assert files(tmp_path / "emb") == whole


def test_a_full_disk_in_one_part_keeps_the_others(made, tmp_path, disk, kind, whole, monkeypatch, capsys):
    (place, remount), write = disk, embeddings.write_part
    assert remount("size=8m").returncode == 0

    def filling(folder, number, *more):
        if number == 2:
            fill(place, 0)
        return write(folder, number, *more)

    monkeypatch.setattr(embeddings, "write_part", filling)
    out = place / "emb"
    assert embed(made, out, data=made / kind) == 1
    told = capsys.readouterr().err
    assert f"could not write {out}/" in told
    assert "No space left on device" in told
    assert {file.stem for file in (out / "markers").iterdir()} == {"part-000000", "part-000001"}
    assert not list(out.rglob("*.tmp"))
    (place / "ballast").unlink()
    monkeypatch.setattr(embeddings, "write_part", write)
    assert embed(made, out, data=made / kind) == 0
    assert files(out) == whole


@pytest.mark.slow
def test_a_share_that_is_killed_is_done_again(made, tmp_path):
    out = tmp_path / "emb"
    words = ["export", "embeddings", "--model", made / "small", "--data", made / "tars", "--out", out]
    kill_share([*words, "--part", "1/2"], out)
    assert "shards" not in json.loads((out / "clipmem.json").read_text())  # listed by a call that ends
    shared(made, out, 2)
    assert embed(made, out, data=made / "tars") == 0
    assert embed(made, tmp_path / "whole", data=made / "tars") == 0
    assert files(out) == files(tmp_path / "whole")


def test_the_rows_are_those_of_a_list_of_all_pairs(made, tmp_path, kind, whole):
    settings = Settings.of(device="cpu")
    pairs = read_pairs(str(made / kind), None, "--data")
    how = settings.made_with()
    [old] = embeddings.embed({tmp_path / "old": settings.model(str(made / "small"))}, pairs, how)
    new = Embeddings.open(tmp_path / "whole")
    assert len(new) == len(old) + 1
    assert new.uids.unique(maintain_order=True).equals(old.uids)
    means, expected = new.read(new.rows(old.uids)), old.means()
    torch.testing.assert_close(means.image, expected.image, rtol=0, atol=1e-6)
    torch.testing.assert_close(means.text, expected.text, rtol=0, atol=1e-6)
    assert new.captions(new.rows(old.uids)) == old.captions(np.arange(len(old)))
    assert {problem[1:] for problem in new.problems} == {problem[1:] for problem in old.problems}
    assert {problem.source for problem in new.problems} <= {path.name for path in (made / kind).iterdir()}
    assert "same image and captions as an earlier record" in {problem.reason for problem in new.problems}


def test_equal_batches_give_equal_bits(made, tmp_path, monkeypatch):
    """Parts of a list that are the shards."""
    monkeypatch.setattr(embeddings, "BLOCKS", 1)
    settings, data = Settings.of(device="cpu"), str(made / "tars" / "{0000..0001}.tar")
    for out, pairs in (
        ("old", read_pairs(data, None, "--data")),
        ("new", ShardedPairs(open_data(data, shard=""), None)),
    ):
        model = settings.model(str(made / "small"))
        embeddings.embed({tmp_path / out: model}, pairs, settings.made_with(), block=EACH)
    for name in ("img_emb/img_emb", "text_emb/text_emb"):
        for k in range(2):
            old, new = (np.load(tmp_path / side / f"{name}_{k}.npy") for side in ("old", "new"))
            assert np.array_equal(old, new)


def test_every_record_is_counted(made, tmp_path, kind, capsys):
    assert embed(made, tmp_path / "emb", data=made / kind) == 0
    read, rows = SHARDS * EACH + 1, SHARDS * EACH + 1 - EACH - 1
    told = capsys.readouterr().out
    assert told.startswith(f"embedded {rows - 1} pairs into")
    assert f"; {read} records read: {rows - 1} pairs, {EACH + 2} left out; {EACH + 2} problems listed" in told
    card = json.loads((tmp_path / "emb" / "clipmem.json").read_text())
    records = card["records"]
    assert records["read"] == records["pairs"] + records["merged"] + records["left_out"] == read
    assert len(card["shards"]) == card["parts"] == SHARDS
    suffix = {"tars": "tar", "tables": "parquet"}[kind]
    last, key = f"{SHARDS - 1:04d}.{suffix}", f"{REPEATED:03d}" if kind == "tars" else f"{EACH}"
    skipped = pl.read_parquet(tmp_path / "emb" / "skipped.parquet")
    again = skipped.filter(pl.col("reason").str.contains("earlier record"))
    assert again.select("source", "key").rows() == [(last, key)]
    pairs = pairs_of([Embeddings.open(tmp_path / "emb")], None, Settings.of(), "data")
    assert (len(pairs), len(pairs.problems)) == (rows - 1, EACH + 2)


def spoil(path):
    """Replace the content of a file, but not its size and time."""
    fact = path.stat()
    path.write_bytes(b"x" * fact.st_size)
    os.utime(path, ns=(fact.st_atime_ns, fact.st_mtime_ns))


@pytest.mark.parametrize("number", [1, 2, 6])
def test_a_share_opens_no_file_of_another_one(world, tmp_path, kind, number, capsys):
    """But the first file, from whose columns tables are recognized."""
    paths = sorted((world / kind).iterdir())
    for k, path in enumerate(paths):
        if k != number - 1 and (kind == "tars" or k):
            spoil(path)
    assert embed(world, tmp_path / "emb", "--part", f"{number}/{SHARDS}", data=world / kind) == 0
    assert [file.name for file in (tmp_path / "emb" / "markers").iterdir()] == [f"part-{number - 1:06d}.json"]
    capsys.readouterr()
    assert embed(world, tmp_path / "emb", data=world / kind) == 2  # the others are done, and not what they were
    assert str(world / kind) in capsys.readouterr().err


def truncate(folder):
    path = folder / "0002.tar"
    path.write_bytes(path.read_bytes()[:2000])
    return "0002.tar"


def add(folder):
    shutil.copy(folder / "0001.tar", folder / "0001b.tar")
    return "0001b.tar"


def remove(folder):
    (folder / "0004.tar").unlink()
    return "0004.tar"


def change(folder):
    path = folder / "0000.tar"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # of the same size
    return "0000.tar"


def beside(folder):
    pl.DataFrame({"key": ["008"], "status": ["failed_to_download"]}).write_parquet(folder / "0001.parquet")
    return "0001.tar"


@pytest.mark.parametrize("happens", [truncate, add, remove, change, beside])
def test_other_shards_are_refused_and_the_first_one_is_named(world, tmp_path, happens, capsys):
    out = tmp_path / "emb"
    shared(world, out, 1)
    before = files(out)
    assert embed(world, out, "--part", "1/2", data=world / "tars") == 0
    name = happens(world / "tars")
    capsys.readouterr()
    for part in (["--part", "2/2"], []):
        assert embed(world, out, *part, data=world / "tars") == 2
        shown = capsys.readouterr().err
        sides = shown[shown.index(f"shards.{name} = ") :].split(";")[0]
        assert " there, " in sides
        assert ("None" in sides) == (happens in (add, remove))
        assert shown.count("shards.") == 1
    assert files(out) == before


def test_a_shard_that_is_not_a_tar(world, tmp_path, capsys):
    path, data = world / "tars" / "0002.tar", (world / "tars" / "0002.tar").read_bytes()
    spoil(path)
    out = tmp_path / "emb"
    assert embed(world, out, data=world / "tars") == 2
    assert f"{path}: got a file that is not a tar" in capsys.readouterr().err
    assert embed(world, out, "--part", "2/6", data=world / "tars") == 0  # does not see it
    path.write_bytes(data)  # repaired, at another time
    assert embed(world, out, data=world / "tars") == 0
    assert len(Embeddings.open(out)) == SHARDS * EACH - EACH


def test_jobs_start_while_a_shard_that_was_repaired_is_embedded(world, tmp_path, monkeypatch):
    path, data = world / "tars" / "0002.tar", (world / "tars" / "0002.tar").read_bytes()
    assert embed(world, tmp_path / "whole", data=world / "tars") == 0
    spoil(path)
    out, finish, started = tmp_path / "emb", embeddings.Job.finish, list[int]()
    assert embed(world, out, data=world / "tars") == 2
    path.write_bytes(data)

    def finish_and_start(self, name, *rest):
        finish(self, name, *rest)
        if name == "part-000002" and not started:
            started.append(embed(world, out, "--part", "1/6", data=world / "tars"))

    monkeypatch.setattr(pool, "_FEW", 1000)  # in this process
    monkeypatch.setattr(embeddings.Job, "finish", finish_and_start)
    assert embed(world, out, data=world / "tars") == 0
    assert started == [0]
    arrays = [
        {name: content for name, content in files(x).items() if name.endswith(".npy")}
        for x in (out, tmp_path / "whole")
    ]
    assert arrays[0] == arrays[1] != {}


def test_a_shard_that_changes_during_a_call_is_refused(world, tmp_path, monkeypatch, capsys):
    out, path = tmp_path / "emb", world / "tars" / "0005.tar"
    during_the_first_part(monkeypatch, lambda: shutil.copy(world / "tars" / "0000.tar", path))
    assert embed(world, out, data=world / "tars") == 2
    shown = capsys.readouterr().err
    assert f"{path}: got" in shown
    assert shown.count("bytes, ") == 2
    assert {file.stem for file in (out / "markers").iterdir()} == {f"part-{k:06d}" for k in range(5)}
    assert embed(world, out, data=world / "tars") == 0  # as it is now


def test_damaged_metadata_are_named_by_the_share_that_finishes(world, tmp_path, capsys):
    out = tmp_path / "emb"
    assert embed(world, out, "--part", "1/2", data=world / "tars") == 0
    table = out / "metadata" / "metadata_2.parquet"
    table.write_bytes(bytes(table.stat().st_size))
    assert embed(world, out, "--part", "2/2", data=world / "tars") == 2
    assert f"{table}: got not readable as Parquet" in capsys.readouterr().err
    assert embed(world, out, data=world / "tars") == 0
    shutil.copy(table, table.with_stem("metadata_9"))
    assert embed(world, out, data=world / "tars") == 2
    assert f"{table.with_stem('metadata_9')}: got part 9" in capsys.readouterr().err


def test_shards_of_a_file_address_are_those_of_the_path(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard(tmp_path / str(made / "tars").strip("/") / "0.tar", pair_members(1))  # the path without its first slash
    for name, data in (("path", made / "tars"), ("address", f"file://{made}/tars")):
        assert embed(made, tmp_path / name, data=data) == 0
    assert Embeddings.open(tmp_path / "address").uids.equals(Embeddings.open(tmp_path / "path").uids)


def test_skipped_images_of_equal_keys_are_listed_with_their_shard(world, tmp_path):
    """The key of a row of Parquet is its number in its file."""
    for path in sorted((world / "tables").iterdir())[:2]:
        table = pl.read_parquet(path)
        images = [image(BROKEN) if row == 5 else value for row, value in enumerate(table["jpg"])]
        table.with_columns(jpg=pl.Series(images, dtype=pl.Binary)).write_parquet(path)
    assert embed(world, tmp_path / "emb", data=world / "tables") == 0
    skipped = pl.read_parquet(tmp_path / "emb" / "skipped.parquet").filter(key="5", reason="truncated image")
    assert skipped["source"].to_list() == ["0000.parquet", "0001.parquet"]


def test_a_truncated_tar_has_the_pairs_before_the_end(world, tmp_path):
    path = world / "tars" / "0001.tar"
    path.write_bytes(path.read_bytes()[:5000])
    assert embed(world, tmp_path / "emb", data=world / "tars") == 0
    stored = Embeddings.open(tmp_path / "emb")
    assert len(stored) < SHARDS * EACH - EACH
    assert ("0001.tar", "broken or truncated tar") in {(problem.source, problem.reason) for problem in stored.problems}


def test_shards_without_a_usable_pair(world, tmp_path, kind, capsys):
    """One has an empty part; if all are so, the data are refused as before."""
    for path in (world / kind).iterdir():
        shutil.copy(world / kind / f"{EMPTY:04d}{path.suffix}", path) if path.name[3] != f"{EMPTY}" else None
    assert embed(world, tmp_path / "emb", "--part", "1/2", data=world / kind) == 0
    capsys.readouterr()
    assert embed(world, tmp_path / "emb", data=world / kind) == 2
    shown = capsys.readouterr().err
    with pytest.raises(InputError) as caught:
        read_pairs(str(world / kind), None, "--data")
    assert str(caught.value) in shown


def test_columns_are_those_of_the_first_file(world, tmp_path, capsys):
    path = world / "tables" / "0002.parquet"
    pl.read_parquet(path).rename({"caption": "title"}).write_parquet(path)
    assert embed(world, tmp_path / "emb", data=world / "tables") == 2
    assert f"{path}: got no column 'caption'" in capsys.readouterr().err


def test_remote_shards(made, tmp_path):
    fsspec.filesystem("memory").put(f"{made}/tars/", "/by-shard/", recursive=True)
    assert embed(made, tmp_path / "local", data=made / "tars") == 0
    local = Embeddings.open(tmp_path / "local")
    for number, path in enumerate(("memory://by-shard", "memory://by-shard/{0000..0005}.tar")):
        out = tmp_path / f"remote-{number}"
        assert embed(made, out, "--part", "2/3", data=path) == 0
        assert embed(made, out, data=path) == 0
        remote = Embeddings.open(out)
        assert remote.uids.equals(local.uids)
        assert torch.equal(remote.means().image, local.means().image)
        data = fsspec.filesystem("memory").cat("/by-shard/0001.tar")
        fsspec.filesystem("memory").pipe("/by-shard/0001.tar", data)  # another time
        assert embed(made, out, data=path) == 2
    fsspec.filesystem("memory").rm("/by-shard", recursive=True)


def test_what_has_shards(made, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webdataset, "_head", lambda file: opened.append(file) or bytes(512))
    one = "tables/0000.parquet"
    for data, count in (("tars", 6), ("tars/{0000..0002}.tar", 3), ("tars/0000.tar", 1), ("tables", 6), (one, 1)):
        assert len(ShardedPairs(open_data(str(made / data), shard=""), None).shards) == count
    assert {file.name for file in opened} == {"0000.tar"}  # no other tar is opened


def test_progress_is_of_bytes_and_complete(made, tmp_path, kind):
    class Counter:
        total = done = 0

        def begin(self, stage, total=None, unit=""):
            self.total, self.unit = total, unit

        def advance(self, amount, note=""):
            self.done += amount

        def note(self, text): ...

        def end(self, stage, seconds, *, skipped=False): ...

    counter, settings = Counter(), Settings.of(device="cpu")
    pairs, model = ShardedPairs(open_data(str(made / kind), shard=""), None), settings.model(str(made / "small"))
    embeddings.embed({tmp_path / "emb": model}, pairs, settings.made_with(), reporter=counter)
    sizes = sum(-(-path.stat().st_size // 1000) for path in (made / kind).iterdir())
    assert (counter.total, counter.done, counter.unit) == (sizes, sizes, "kB")


def test_an_output_is_not_inside_the_data(world, kind, capsys):
    assert embed(world, world / kind / "emb", data=world / kind) == 2
    assert "--out" in capsys.readouterr().err
    assert not (world / kind / "emb").exists()
