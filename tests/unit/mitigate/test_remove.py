"""Removal: which pairs go, of which role, and by which scores."""

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.mitigations import RemoveSection
from clipmem.mitigate.base import Parent, read_parent
from clipmem.mitigate.remove import removal_list, take_out
from tests.unit.curation.test_suspects import listed
from tests.unit.train.test_loop import uid


def test_removal_from_a_table_without_roles(tmp_path):
    pl.DataFrame({"uid": ["a", "b"], "clipmem": [0.1, 0.2]}).write_parquet(tmp_path / "scores.parquet")
    assert removal_list(tmp_path / "scores.parquet", 1) == ["b"]


def test_removal_by_any_column(tmp_path):
    curation, _ = listed()
    curation.table.write_parquet(tmp_path / "suspects.parquet")
    by_score = curation.table.sort("score", descending=True)["uid"].head(5).to_list()
    assert removal_list(tmp_path / "suspects.parquet", 5, by="file") == by_score
    by_noise = curation.table.sort("noise_score", descending=True)["uid"].head(5).to_list()
    assert removal_list(tmp_path / "suspects.parquet", 5, by="file", column="noise_score") == by_noise
    section = RemoveSection(count=5, by="file", scores=str(tmp_path / "suspects.parquet"), column="none")
    with pytest.raises(InputError) as caught:
        read_parent(section.scores, section.by, "[mitigate.remove]", section.column)
    assert "none" in str(caught.value)


def table(shared=6, candidate=4, independent=4, external=3):
    roles = [
        role
        for role, n in zip(
            ("shared", "candidate", "independent", "external"), (shared, candidate, independent, external), strict=True
        )
        for _ in range(n)
    ]
    uids = [uid(k) for k in range(len(roles))]
    return pl.DataFrame({"uid": uids, "role": roles}).sort("uid").with_columns(planted=pl.lit(value=False))


def parent_of(splits, values):
    return Parent("x", pl.DataFrame({"uid": splits["uid"], "removal_score": values}), {})


def test_the_worst_go_and_candidates_take_their_slots_independent_pair_along():
    splits = table()
    rng = np.random.default_rng(1)
    parent = parent_of(splits, rng.permutation(splits.height).astype(float))
    kept, removed = take_out(splits, RemoveSection(count=3, scores="x"), parent)
    mine = splits.filter(pl.col("role").is_in(["shared", "candidate"])).join(parent.table, on="uid")
    expected = mine.sort("removal_score", descending=True)["uid"].to_list()[:3]
    own = removed.filter(pl.col("rank").is_not_null())
    assert own["uid"].to_list() == expected
    assert own["rank"].to_list() == [1, 2, 3]
    of_role = {
        role: splits.filter(pl.col("role") == role)["uid"].sort().to_list() for role in ("candidate", "independent")
    }
    gone = [one for one in expected if one in of_role["candidate"]]
    mirrors = removed.filter(pl.col("rank").is_null())
    assert mirrors["went_with"].to_list() == gone
    assert mirrors["uid"].to_list() == [of_role["independent"][of_role["candidate"].index(one)] for one in gone]
    assert set(kept["uid"]) == set(splits["uid"]) - set(removed["uid"])
    assert (kept["role"] == "candidate").sum() == (kept["role"] == "independent").sum()
    assert (kept["role"] == "external").sum() == 3


@pytest.mark.parametrize("by", ["random", "planted", "clipmem"])
def test_removal_from_candidates_only(by):
    splits = table(candidate=30, independent=30).with_columns(
        planted=(pl.col("role") != "external") & pl.col("uid").hash(7).mod(4).eq(0)
    )
    parent = parent_of(splits, np.arange(splits.height).astype(float)) if by == "clipmem" else None
    section = RemoveSection(count=6, by=by, role="candidate", scores="x" if parent else "")
    _, removed = take_out(splits, section, parent)
    own = removed.filter(pl.col("rank").is_not_null())
    assert own["role"].to_list() == ["candidate"] * 6
    wrong = splits.filter((pl.col("role") == "candidate") & pl.col("planted"))["uid"].to_list()
    assert len(wrong) >= 3
    if by == "planted":  # the known wrong ones first, then others
        first = set(own.sort("rank")["uid"][: len(wrong)])
        assert first == set(wrong) if len(wrong) <= 6 else first <= set(wrong)
    assert removed.filter(pl.col("role") == "independent").height == 6


def test_random_removal_is_uniform_and_seeded():
    splits, times = table(), Counter()
    for seed in range(600):
        _, removed = take_out(splits, RemoveSection(count=2, by="random", seed=seed), None)
        times.update(removed.filter(pl.col("rank").is_not_null())["uid"])
    assert len(times) == 10
    assert all(abs(count - 120) < 5 * math.sqrt(600 * 0.2 * 0.8) for count in times.values())
    again = [take_out(splits, RemoveSection(count=2, by="random", seed=5), None)[1] for _ in range(2)]
    assert again[0].equals(again[1])


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (
            11,
            "[mitigate.remove] count: got 11 of 10 pairs that f trains on and that have a score, expected 1 to 10. "
            "Remove fewer, or score more pairs.",
        ),
        (
            9,
            "[mitigate.remove] count: got 9, which leaves 0 candidate pairs, expected at least 2 of each role to stay. "
            "Remove fewer.",
        ),
    ],
)
def test_too_many_removed(count, message):
    splits = table()
    worst = splits["role"].replace_strict({"candidate": 3.0, "shared": 2.0}, default=0.0)
    with pytest.raises(InputError) as caught:
        take_out(splits, RemoveSection(count=count, scores="x"), parent_of(splits, worst))
    assert str(caught.value) == message


def scores(tmp_path, **columns):
    rows = {
        "uid": ["a", "b", "c", "d", "e"],
        "role": ["shared", "candidate", "candidate", "independent", "external"],
        "clipmem": [0.1, 0.9, 0.5, 2.0, None],
        "f_positive": [0.2, 0.8, 0.3, 0.0, 0.1],
        "g_positive": [0.9, 0.1, 0.5, 0.3, 0.2],
        "g_image_bank": [0.0, 0.0, 0.3, 0.0, 0.0],
        "g_text_bank": [0.0, 0.0, 0.3, 0.0, 0.0],
        **columns,
    }
    file = tmp_path / "scores.parquet"
    pl.DataFrame(rows).write_parquet(file)
    return file


@pytest.mark.parametrize(
    ("by", "expected"),
    [("clipmem", ["b", "c", "a"]), ("similarity", ["a", "c", "b"]), ("g-alignment", ["c", "b", "a"])],
)
def test_removal_list_of_a_run(tmp_path, by, expected):
    file = scores(tmp_path)
    assert removal_list(file, 3, by=by) == expected
    assert removal_list(file, 1, by=by) == expected[:1]


def test_removal_list_of_a_table_of_ones_own(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("uid,score\n07,1.5\n08,NaN\n09,10\n")
    assert removal_list(file, 2, by="file") == ["09", "07"]


@pytest.mark.parametrize(
    ("content", "by", "got"),
    [
        ("uid,role\na,shared\n", "clipmem", "the columns uid, role"),
        ("uid,score\na,\n", "file", "no value of ['score']"),
        ("uid,score\na,1\na,2\n", "file", "uid 'a' more than once"),
        (None, "file", "no such file"),
    ],
)
def test_unusable_scores_are_explained(tmp_path, content, by, got):
    file = tmp_path / "scores.csv"
    if content:
        file.write_text(content)
    with pytest.raises(InputError) as caught:
        removal_list(file, 1, by=by)
    assert (caught.value.what, caught.value.got) == (f"removal_list scores, {file}", got)
