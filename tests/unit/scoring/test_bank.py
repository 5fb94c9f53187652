"""The pairs and the bank of `clipmem score`: lists of uids, the draw, the order of reading."""

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.scoring import bank


def test_lists_of_uids(tmp_path):
    (tmp_path / "a.txt").write_text("u1\n\n u2 \n")
    pl.DataFrame({"uid": ["u1", "u2"], "clipmem": [0.5, None]}).write_csv(tmp_path / "b.csv")
    roles = {"uid": ["u0", "u1", "u2"], "role": ["candidate", "external", "external"], "planted": [True, False, False]}
    pl.DataFrame(roles).write_parquet(tmp_path / "c.parquet")
    for name in ("a.txt", "b.csv", "c.parquet"):
        assert bank.listed_uids(tmp_path / name) == ["u1", "u2"], name


def test_data_sets_are_no_lists(tmp_path):
    (tmp_path / "flickr.txt").write_text("1.jpg#0\tA dog runs.\n")
    pl.DataFrame({"uid": ["x"], "filepath": ["1.jpg"], "title": ["a dog"]}).write_csv(tmp_path / "pairs.csv")
    pl.DataFrame({"uid": ["x"], "image": [b"x"], "captions": [["a"]]}).write_parquet(tmp_path / "pairs.parquet")
    for name in ("flickr.txt", "pairs.csv", "pairs.parquet", "nowhere.txt", "shards"):
        assert bank.listed_uids(tmp_path / name) is None, name


def test_a_list_that_cannot_be_read(tmp_path):
    (tmp_path / "bank.parquet").write_bytes(b"no")
    with pytest.raises(
        InputError, match=r"^--bank .*bank\.parquet: got an unreadable file \(.*\), expected uids, or a data set"
    ):
        bank.listed_uids(tmp_path / "bank.parquet")


def test_the_draw_depends_on_the_seed_and_not_on_the_order():
    uids = pl.Series([f"u{k}" for k in range(50)])
    drawn = bank.draw(uids, 10, 0)
    assert len(set(drawn)) == 10
    assert bank.draw(uids.reverse(), 10, 0) == drawn
    assert bank.draw(uids, 12, 0)[:10] == drawn
    assert set(bank.draw(uids, 10, 1)) != set(drawn)
    draws = [set(bank.draw(uids, 10, seed)) for seed in range(300)]
    times = [sum(uid in own for own in draws) for uid in uids]
    assert 30 < min(times) <= max(times) < 100  # 60 on average
