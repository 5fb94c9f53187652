"""Shards: ranges, lists and folders of them, what is in a tar's pairs, and the speed of listing them."""

import subprocess
import sys
import tarfile

import numpy as np
import polars as pl
import pytest

from clipmem.base.errors import InputError, RunError
from clipmem.base.sections import DataSection
from clipmem.data.export import export_pairs, write_cleaned
from clipmem.data.sources import open_source
from clipmem.data.sources.webdataset import expand
from tests.tiny import encoded_image
from tests.unit.data.sources.formats import add_member


def shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add_member(tar, name, data)
    return path


def pair_members(*numbers):
    return [
        one for k in numbers for one in ((f"{k:03d}.png", encoded_image(k)), (f"{k:03d}.txt", f"caption {k}".encode()))
    ]  # fmt: skip


def test_ranges_lists_and_folders_name_the_same_pairs(tmp_path):
    for k in range(3):
        shard(tmp_path / "shards" / f"s-{k:04d}.tar", pair_members(2 * k, 2 * k + 1))
    paths = [
        str(tmp_path / "shards"),
        str(tmp_path / "shards" / "s-{0000..0002}.tar"),
        str(tmp_path / "shards" / "s-{0000,0001,0002}.tar"),
        "::".join(str(tmp_path / "shards" / f"s-000{k}.tar") for k in range(3)),
        f"{tmp_path}/shards/s-{{0000..0001}}.tar::{tmp_path}/shards/s-0002.tar",
    ]
    found = []
    for path in paths:
        source = open_source(DataSection(path=path))
        pairs = source.pairs()
        assert source.problems == []
        assert len(source.read(pairs["image"].to_list())) == 6
        found.append(pairs["uid"].to_list())
    assert found == [found[0]] * 5
    with pytest.raises(InputError) as error:
        open_source(DataSection(path=str(tmp_path / "shards" / "s-{0001..0004}.tar")))
    assert str(error.value) == (
        f"[data] path: got no file {str(tmp_path / 'shards' / 's-0003.tar')!r} (2 of 4 shards are missing), "
        "expected all named shards. Restore it, or fix the range."
    )


def test_expand():
    assert expand("a/{0..2}/{x,y}.tar") == [f"a/{k}/{name}.tar" for k in range(3) for name in "xy"]
    assert expand("{098..101}") == ["098", "099", "100", "101"]
    for text in ("{5..1}.tar", "{0..9999999}.tar"):
        with pytest.raises(InputError, match="an increasing range of at most 1,000,000 shards"):
            expand(text)
    with pytest.raises(InputError, match="more than 1,000,000 shards"):
        expand("{0..9999}{0..9999}.tar")


def test_members_that_do_not_stand_together_are_still_one_pair(tmp_path):
    names = pair_members(1, 2, 3)
    one = shard(tmp_path / "a.tar", names)
    other = shard(tmp_path / "b.tar", names[::2] + names[1::2])
    alone = open_source(DataSection(path=str(one))).pairs()
    source = open_source(DataSection(path=str(other)))
    assert source.pairs()["uid"].to_list() == alone["uid"].to_list()
    assert source.problems == []


def test_what_is_missing_or_broken_is_listed_and_the_rest_used(tmp_path):
    shard(
        tmp_path / "0.tar",
        [
            *pair_members(1),
            ("002.png", encoded_image(2)),  # no caption
            ("003.txt", b"no image"),
            ("004.png", b""),
            ("004.txt", b"zero bytes"),
            ("005.jpg", b"<html>not found</html>"),
            ("005.txt", b"not an image"),
            ("006.png", encoded_image(6)),
            ("006.txt", b"\xff\xfe\x00\xd8"),  # half a surrogate pair of UTF-16
            ("007.png", encoded_image(7)),
            ("007.txt", b"caf\xe9"),
            ("008.png", encoded_image(1)),
            ("008.txt", b"caption 1"),
            *pair_members(9),
        ],
    )
    cut = shard(tmp_path / "1.tar", pair_members(20, 21))
    cut.write_bytes(cut.read_bytes()[:3590])
    (tmp_path / "2.tar").write_bytes(b"")
    source = open_source(DataSection(path=str(tmp_path)))
    assert sorted(source.pairs()["key"]) == ["001", "009", "020"]
    assert sorted(source.problems) == [
        ("0.tar", "002", "no caption"),
        ("0.tar", "003", "no image"),
        ("0.tar", "004", "empty file"),
        ("0.tar", "005", "not an image of a known format"),
        ("0.tar", "006", "caption is not valid Unicode (save the file as UTF-8)"),
        ("0.tar", "007", "caption is not valid Unicode (save the file as UTF-8)"),
        ("0.tar", "008", "same image and captions as an earlier record"),
        ("1.tar", "021", "no caption"),
        ("1.tar", "member '021.txt' is truncated", "broken or truncated tar"),
        ("2.tar", "the end of the tar is missing", "broken or truncated tar"),
    ]


def test_img2dataset_tables_and_statistics(tmp_path):
    import polars as pl

    shard(tmp_path / "00000.tar", pair_members(1, 2, 3))
    pl.DataFrame(
        {
            "key": ["001", "002", "003", "004"],
            "status": ["success", "failed_to_resize", "success", "failed_to_download"],
        }
    ).write_parquet(tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_text('{"count": 6, "successes": 5}')
    source = open_source(DataSection(path=str(tmp_path)))
    assert sorted(source.pairs()["key"]) == ["001", "003"]
    assert sorted(source.problems) == [
        ("00000.parquet", "002", "img2dataset: failed_to_resize"),
        ("00000.parquet", "004", "img2dataset: failed_to_download"),
        ("00000.tar", "3 of 5", "fewer images than in its _stats.json"),
    ]


def test_captions_of_json_and_text(tmp_path):
    shard(
        tmp_path / "0.tar",
        [
            ("a.jpg", encoded_image(1, form="JPEG")),
            ("a.json", b'{"caption": "of the json", "width": 3}'),
            ("b.jpg", encoded_image(2, form="JPEG")),
            ("b.json", b'{"caption": "of the json"}'),
            ("b.txt", b"of the text,\nall of it\n"),
            ("c.jpg", encoded_image(3, form="JPEG")),
            ("c.json", b'{"captions": ["one", "two"]}'),
            ("c.txt", b"one"),
            ("d.jpg", encoded_image(4, form="JPEG")),
            ("d.json", b"[not json"),
            ("d.txt", b"still there"),
        ],
    )
    pairs = open_source(DataSection(path=str(tmp_path / "0.tar"))).pairs()
    assert dict(zip(pairs["key"], pairs["captions"].to_list(), strict=True)) == {
        "a": ["of the json"],
        "b": ["of the text,\nall of it"],
        "c": ["one", "two"],
        "d": ["still there"],
    }


def test_compressed_and_other_files_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + b"x" * 600)
    (tmp_path / "b.tar").write_bytes(b"hello" * 200)
    messages = {
        "a.tar": "got a compressed tar, expected an uncompressed tar. Decompress it, for example with gunzip.",
        "b.tar": "got a file that is not a tar, expected an uncompressed tar. Remove it from data.path.",
    }
    for name, text in messages.items():
        with pytest.raises(InputError) as error:
            open_source(DataSection(source="webdataset", path=str(tmp_path / name)))
        assert str(error.value) == f"{tmp_path / name}: {text}"


def test_a_tar_that_has_changed_since_is_named(tmp_path):
    path = shard(tmp_path / "0.tar", pair_members(1, 2))
    source = open_source(DataSection(path=str(path)))
    references = source.pairs()["image"].to_list()
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match="got a shorter tar than before"):
        source.read(references)
    path.unlink()
    with pytest.raises(InputError, match="got No such file or directory, expected unchanged data"):
        source.read(references)


# in a process of its own: here every call is checked for its types
SPEED = """
import sys, tarfile, time
from pathlib import Path
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
bare, ours = [], []
for _ in range(3):
    started = time.process_time()
    for path in sorted(Path(sys.argv[1]).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                tar.extractfile(member).read()
    bare.append(time.process_time() - started)
    started = time.process_time()
    assert open_source(DataSection(path=sys.argv[1])).pairs().height == 20_000
    ours.append(time.process_time() - started)
print(min(ours), min(bare))
"""


@pytest.mark.slow
def test_tars_are_listed_at_the_speed_of_reading_them(tmp_path):
    """20,000 pairs of 10 kB: against Python's own reader, which reads every member and does nothing with it."""
    rng = np.random.default_rng(0)
    for shard in range(4):
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for k in range(5000):
                key = f"{shard:05d}{k:04d}"
                add_member(tar, f"{key}.jpg", b"\xff\xd8\xff" + rng.bytes(10_000))
                add_member(tar, f"{key}.txt", f"caption {key}".encode())
                add_member(tar, f"{key}.json", f'{{"caption": "caption {key}", "key": "{key}"}}'.encode())
    done = subprocess.run([sys.executable, "-c", SPEED, str(tmp_path)], capture_output=True, text=True, check=True)
    ours, bare = map(float, done.stdout.split())
    sys.stdout.write(f"ours / tarfile: {ours / bare:.2f} ({ours:.2f} s, {bare:.2f} s)\n")
    assert ours < 1.2 * bare


def test_blocks_of_a_key_that_would_join_are_refused_and_parquet_holds_them(tmp_path):
    """Without the pair between two blocks of a key, the second block would be further members of the first."""
    members = [(f"a{name[3:]}" if k != 1 else name, data) for k in range(3) for name, data in pair_members(k)]
    source = open_source(DataSection(path=str(shard(tmp_path / "set.tar", members))))
    pairs = source.pairs()
    between = pairs.filter(pl.col("key") == "001")["uid"].to_list()
    with pytest.raises(RunError, match="1 pairs are missing"):
        write_cleaned(source, tmp_path / "clean", between)
    assert not (tmp_path / "clean").exists()
    export_pairs(source, tmp_path / "table", "parquet")
    source = open_source(DataSection(path=str(tmp_path / "table")))
    assert write_cleaned(source, tmp_path / "clean", between).kept == 2
