"""Marks: what people said decides, and a better order is learned from enough of it."""

import json

import numpy as np
import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.marks import read_marks
from clipmem.base.mitigations import RemoveSection
from clipmem.curation.ranking import Curation, apply_marks, learn
from clipmem.functional import auroc
from clipmem.mitigate.parent import read_parent
from clipmem.mitigate.remove import removal_list


def listed(n=200, good=0.0, seed=0):
    """A list whose order is noise; one of its two detectors knows the wrong pairs as well as `good` says."""
    drawn = np.random.default_rng(seed)
    wrong = np.arange(n) < n // 5
    score = np.sort(drawn.random(n))[::-1][drawn.permutation(n)]
    table = pl.DataFrame(
        {
            "uid": [f"u{k}" for k in range(n)],
            "score": score,
            "is_suspect": score > 0.9,
            "probability": score / 2,
            "kind": pl.Series(["exchanged" if one > 0.9 else None for one in score], dtype=pl.String),
            "noise_score": drawn.normal(size=n),
            "knows_score": drawn.normal(size=n) + good * wrong,
        }
    )
    return Curation(table, {"pairs": n}), wrong


def test_marked_pairs_come_first_and_last():
    curation, _ = listed()
    found = apply_marks(curation, {"u7": "wrong", "u8": "fine", "u9": "unsure", "other": "wrong"})
    ranked = found.table.sort("score", descending=True)
    assert ranked.row(0, named=True).items() >= {"uid": "u7", "is_suspect": True, "probability": 1.0}.items()
    assert ranked.row(-1, named=True).items() >= {"uid": "u8", "is_suspect": False, "probability": 0.0}.items()
    rest = ~pl.col("uid").is_in(["u7", "u8"])
    assert found.table.filter(rest).equals(curation.table.filter(rest))
    assert found.document["suspects"] == found.table["is_suspect"].sum()
    suspects = curation.table.filter("is_suspect")["uid"]
    assert found.document["kinds"] == {"exchanged": len(suspects) - ("u8" in suspects)}
    first = ranked["probability"].head(10).mean()
    assert found.document["precision"][0] == {"length": 10, "precision": pytest.approx(first)}
    assert found.document["marks"] == {"wrong": 1, "fine": 1, "used": False, "learned": None, "list": None}


def test_a_better_order_is_learned():
    curation, wrong = listed(good=3.0)
    marks = {f"u{k}": "wrong" if wrong[k] else "fine" for k in (*range(15), *range(100, 130))}
    found = apply_marks(curation, marks)
    rest = ~pl.col("uid").is_in(list(marks))
    after, before = (one.table.filter(rest).sort("score", descending=True) for one in (found, curation))
    truth = {f"u{k}" for k in np.flatnonzero(wrong)}
    assert found.document["marks"]["used"]
    assert np.mean([uid in truth for uid in after["uid"].head(20)]) > 0.7
    # the probabilities belong to ranks, so their order is that of the scores
    assert after["probability"].is_sorted(descending=True)
    assert after["is_suspect"].sum() == pytest.approx(before["is_suspect"].sum(), abs=12)


def test_noise_changes_nothing():
    drawn, used = np.random.default_rng(1), 0
    for seed in range(20):
        curation, _ = listed(seed=seed)
        marks = {f"u{k}": ("wrong", "fine")[k] for k in ()} | {
            f"u{k}": str(drawn.choice(["wrong", "fine"])) for k in range(60)
        }
        used += apply_marks(curation, marks).document["marks"]["used"]
    assert used <= 4  # 1 is expected


@pytest.mark.parametrize(("wrong", "fine"), [(15, 4), (4, 30), (9, 10)])
def test_too_few_marks(wrong, fine):
    curation, _ = listed(good=3.0)
    marked = np.arange(200) < wrong + fine
    values = curation.table.select("noise_score", "knows_score").to_numpy()
    assert learn(values, curation.table["score"].to_numpy(), marked, np.arange(200) < wrong) is None


def test_unknown_scores_are_in_the_middle():
    curation, wrong = listed(good=3.0)
    values = curation.table.select("noise_score", "knows_score").to_numpy().copy()
    values[::3, 0] = np.nan
    found = learn(values, curation.table["score"].to_numpy(), np.arange(200) < 100, wrong)
    assert found is not None
    assert found.list_auroc == pytest.approx(auroc(curation.table["score"].to_numpy()[:100], wrong[:100]).mean)
    assert np.isfinite(found.score).all()


def test_the_last_mark_counts(tmp_path):
    file = tmp_path / "marks.jsonl"
    rows = [("a", "fine"), ("b", "wrong"), ("a", "wrong"), ("b", None), ("c", "memorized")]
    file.write_text(
        "\n".join(json.dumps({"uid": uid, "mark": mark, "time": "t", "note": ""}) for uid, mark in rows) + "\n\n"
    )
    assert {uid: given.mark for uid, given in read_marks(file).items()} == {"a": "wrong", "c": "memorized"}
    assert removal_list(file, 1, by="marks") == ["a"]
    with pytest.raises(InputError) as caught:
        removal_list(file, 2, by="marks")
    assert caught.value.what == "removal_list count"


@pytest.mark.parametrize("line", ["[]", '{"uid": "a"}', '{"uid": 1, "mark": "fine"}', '{"uid": "a", "mark": "bad"}'])
def test_lines_that_are_no_marks(tmp_path, line):
    file = tmp_path / "marks.jsonl"
    file.write_text('{"uid": "a", "mark": "fine"}\n' + line)
    with pytest.raises(InputError) as caught:
        read_marks(file)
    assert caught.value.what.endswith("line 2")


def test_deep_lines_are_skipped_and_notes_are_text(tmp_path):
    file = tmp_path / "marks.jsonl"
    lone = '{"uid": "a", "mark": "fine", "note": "x\\ud800"}'
    file.write_text("[" * 100_000 + f"\n{lone}\n" + '{"uid": "b", "mark": "fine", "note": 5}\n')
    assert [one.note for one in read_marks(file).values()] == ["x?", "5"]


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
