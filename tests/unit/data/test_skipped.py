"""Leaving records out: gaps in the pixel cache, roles of pairs that are gone, and the words for it."""

import numpy as np
import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.progress import Quiet
from clipmem.base.sections import DataSection
from clipmem.base.summary import Records
from clipmem.data.cache import build_cache, open_cache
from clipmem.data.decoding import Geometry, decode
from clipmem.data.skipped import Problem, left_out_sentence, skipped_table, source_name, stop_at, summarize
from clipmem.data.sources import open_source
from clipmem.data.user_tables import read_roles
from clipmem.study.decode_stage import decode_images, write_pairs
from tests.tiny import encoded_image


def cache(path, data, order=None, *, left_out=None, size=16):
    references = {row: list(data)[row] for row in order or range(len(data))}
    build_cache(path, references, lambda names: [data[name] for name in names], Geometry(size), left_out=left_out)
    return path.read_bytes()


@pytest.mark.parametrize("broken", [{0}, {11}, {0, 1, 2}, {9, 10, 11}, {0, 5, 6, 11}, set(range(12)) - {4}, set()])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_cache_has_the_bytes_of_one_without_the_broken_images(tmp_path, broken, seed):
    good = {str(k): encoded_image(k) for k in range(12)}
    data = {name: b"no image" if int(name) in broken else found for name, found in good.items()}
    order = None if seed is None else np.random.default_rng(seed).permutation(12).tolist()
    met = {}
    found = cache(tmp_path / "a.npy", data, order, left_out=lambda place, error: met.update({place: error.reason}))
    kept = {name: found for name, found in good.items() if int(name) not in broken}
    assert found == cache(tmp_path / "b.npy", kept)
    assert met == dict.fromkeys(broken, "not an image of a known format")
    np.testing.assert_array_equal(open_cache(tmp_path / "a.npy"), np.stack([decode(one, 16) for one in kept.values()]))


def test_a_cache_that_nothing_may_be_left_out_of_stops_at_the_first(tmp_path):
    with pytest.raises(InputError, match="image 'b': got 1 bytes that do not decode"):
        cache(tmp_path / "a.npy", {"a": encoded_image(0), "b": b"x"})
    assert not list(tmp_path.iterdir())


def roles_file(path, rows):
    pl.DataFrame(rows, schema=["uid", "role", "captions_from"], orient="row").write_parquet(path)
    return path


def test_roles_of_pairs_that_do_not_decode_are_passed_over(tmp_path):
    rows = [
        ("a", "candidate", None),
        ("b", "candidate", "gone"),
        ("c", "candidate", "a"),
        ("d", "external", None),
        ("e", "external", None),
        ("gone", "external", None),
    ]
    path = roles_file(tmp_path / "roles.parquet", rows)
    left = frozenset("abcde")
    found = read_roles(path, left, others="leave out")
    # b would train with the captions of a pair that takes no part
    assert found["uid"].to_list() == ["a", "c", "d", "e"]
    assert found["captions_from"].to_list() == ["a", "a", "d", "e"]
    with pytest.raises(InputError, match="got unknown uid 'gone'"):
        read_roles(path, left)
    with pytest.raises(InputError, match="got shared 0, candidate 2, independent 0, external 1, expected at least 2"):
        read_roles(path, left - {"e"}, others="leave out")


def test_the_words():
    table = skipped_table(
        [
            Problem("s", "2", "truncated image"),
            Problem("s", "1", "truncated image"),
            Problem("r", "9", "empty file"),
        ]
    )
    assert table.rows() == [("r", "9", "empty file"), ("s", "1", "truncated image"), ("s", "2", "truncated image")]
    counts = summarize(table, 5)
    assert counts.document() == {"used": 5, "problems": 3, "reasons": {"truncated image": 2, "empty file": 1}}
    assert left_out_sentence(counts) == "3 problems, 5 pairs used: 2 truncated image, 1 empty file"
    assert left_out_sentence(summarize(skipped_table([]), 5)) == ""
    many = Records(used=1, problems=9, reasons={f"reason {k}": 1 for k in range(9)})
    assert left_out_sentence(many).endswith("1 reason 5, 3 for other reasons")
    error = stop_at(Problem("a.tar", "k", "empty file"))
    assert (error.what, error.got) == ("a.tar, record 'k'", "empty file")


def test_data_without_a_path_are_the_shipped_ones():
    assert source_name(DataSection(path="x.csv")) == "x.csv"
    assert source_name(DataSection()) == source_name(DataSection(source="emoji")) == "emoji"


class Notes(Quiet):
    """Keeps what a stage says."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def test_the_decode_stage_says_what_became_of_every_record(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encoded_image(k))
    (tmp_path / "cut.png").write_bytes(encoded_image(9)[:90])
    path = tmp_path / "pairs.csv"
    path.write_text("image,caption\n0.png,a\n0.png,b\n1.png,c\ngone.png,d\ngone.png,e\ncut.png,f\n")
    source, reporter = open_source(DataSection(path=str(path))), Notes()
    geometries = [Geometry(16)]
    pairs = source.pairs()
    _, usable = decode_images(RunFolder(tmp_path), pairs, source, geometries, reporter=reporter)
    write_pairs(RunFolder(tmp_path), usable, source, lambda _: None, reporter)
    assert reporter.said == [
        "decode    6 records read: 2 pairs, 1 merged into the pair of their image, 3 left out; "
        "1 image that no record names",
        "decode    2 problems, 2 pairs used: 1 no such image file, 1 truncated image (see skipped.parquet)",
    ]


def test_records_of_one_key_are_counted_each():
    assert skipped_table([Problem("a", "1", "x")] * 2).height == 2
