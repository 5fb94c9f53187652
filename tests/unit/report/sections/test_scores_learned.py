"""The section on learned against memorized: there with a pretrained start only, numbers, figure, corners, images."""

import json

import polars as pl
import pytest

from clipmem.report.gallery import corners, gallery_uids, ranked_candidates, shown_credits
from clipmem.report.page import write_report
from clipmem.report.run import Run, read_run
from clipmem.report.sections.scores import Learned, learned_figure
from tests.screens import screen_text
from tests.unit.report.other_runs import build_finetuned
from tests.unit.report.outline import outline

SIZES = {"shared": 6, "candidate": 150, "independent": 6, "external": 8}


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    return build_finetuned(tmp_path_factory.mktemp("finetuned") / "study", planted=4, sizes=SIZES)


def page_of(built):
    return outline(write_report(built.folder, built.images))


def ids(page):
    return [attrs.get("id") for tag, attrs in page.tags if tag == "section"]


def test_from_scratch_there_is_no_section(two_seeds):
    page = page_of(two_seeds)
    assert "learned" not in ids(page)
    assert "other pre-trainings" not in page.words()
    assert "--against" not in screen_text("report", read_run(two_seeds.folder))


def test_the_page_says_what_the_base_model_may_have_seen(finetuned):
    page = page_of(finetuned)
    words = page.words()
    assert "learned" in ids(page)
    assert "clipmem inspect PATH --against MODEL" in words
    assert "runs/first/models/f/seed-0" in words
    assert "other pre-trainings" in words
    entry = finetuned.summary["learned"]["roles"]["candidate"]
    for name in ("a_base", "learned", "clipmem"):
        assert f"{entry[name]['mean']:+.3f}" in words


def test_the_screen_takes_three_lines(finetuned):
    lines = screen_text("report", read_run(finetuned.folder)).partition("--verbose:")[2].splitlines()
    own = [line for line in lines if "learned from other pairs" in line or "--against" in line]
    assert sum(-(-len(line) // 100) for line in own) <= 3
    assert len(own) == 2


def test_corners_are_the_extremes_of_rank_sums(finetuned):
    ranked = ranked_candidates(finetuned.scores)
    found = corners(ranked)
    assert [rows.height for rows in found] == [3, 3, 3, 3]
    uids = [uid for rows in found for uid in rows["uid"]]
    assert len(set(uids)) == 12
    learned, memorized = (sorted(ranked[name]) for name in ("learned", "clipmem"))
    left = set(ranked["uid"])
    for rows, (x, y) in zip(found, ((1, 1), (-1, 1), (1, -1), (-1, -1)), strict=True):
        sums = {
            row["uid"]: x * learned.index(row["learned"]) + y * memorized.index(row["clipmem"])
            for row in ranked.filter(pl.col("uid").is_in(list(left))).iter_rows(named=True)
        }
        assert sorted((sums[uid] for uid in rows["uid"]), reverse=True) == sorted(sums.values(), reverse=True)[:3]
        left -= set(rows["uid"])


def test_few_pairs_are_in_one_corner_each_and_pairs_without_scores_in_none():
    table = pl.DataFrame({"uid": list("abc"), "clipmem": [1.0, 2.0, 3.0], "learned": [0.0, None, 1.0]})
    assert [rows["uid"].to_list() for rows in corners(table)] == [["c"], ["a"], [], []]
    assert [rows.height for rows in corners(table.with_columns(learned=pl.lit(None, pl.Float64)))] == [0, 0, 0, 0]


def test_images_and_credits_of_the_corners_are_read(finetuned):
    shown = {uid for rows in corners(ranked_candidates(finetuned.scores)) for uid in rows["uid"]}
    ends = set(gallery_uids(Run(finetuned.folder)))
    assert shown <= ends
    assert len(ends) > 48  # more than the gallery alone
    images = {uid: finetuned.images[uid] for uid in ends}
    section = outline(write_report(finetuned.folder, images))
    assert "no image" not in section.words()
    run = read_run(finetuned.folder, images, ["source"])
    credited = dict(run.pairs.select("uid", "credit").iter_rows())
    assert {credited[uid] for uid in shown} <= set(shown_credits(run))


def test_the_figure_in_both_sizes(finetuned):
    run = read_run(finetuned.folder)
    wide, narrow = (learned_figure(run, run.summary.learned).svg("learned", size) for size in ("wide", "narrow"))
    for svg in (wide, narrow):
        assert "150 candidates" in svg
        assert all(svg.count(f">{letter}<") == 3 for letter in "ABCD")
        assert "mismatched candidate" in svg
    assert wide != narrow
    assert learned_figure(run, run.summary.learned).svg("learned", "wide") == wide


@pytest.mark.parametrize(
    ("learned", "clipmem"), [((0.1, 0.3), (0.1, 0.2)), ((-0.3, -0.1), (-0.2, -0.1)), ((-0.1, 0.1), (-0.1, 0.1))]
)
def test_the_heading_follows_the_intervals(tmp_path, learned, clipmem):
    built = build_finetuned(tmp_path / "study", planted=0, sizes=SIZES)
    path = built.folder / "summary.json"
    summary = json.loads(path.read_text())
    entry = summary["learned"]["roles"]["candidate"]
    for name, (low, high) in (("learned", learned), ("clipmem", clipmem)):
        entry[name] |= {"low": low, "high": high}
    path.write_text(json.dumps(summary))
    headings = " ".join("".join(block) for block in page_of(built).blocks if "".join(block).startswith("## "))
    expected = {
        0.1: ("raised the candidates", "raised it"),
        -0.3: ("lowered the candidates", "lowered it"),
        -0.1: ("not shown",) * 2,
    }[learned[0]]
    assert all(part in headings for part in expected)


def test_an_alignment_that_the_base_model_lacks(finetuned, tmp_path):
    built = build_finetuned(tmp_path / "study", sizes=SIZES)
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "learned": None, "alignment": "confidence"}))
    none = pl.lit(None, pl.Float64)
    scores = pl.read_parquet(built.folder / "scores.parquet").with_columns(a_base=none, learned=none)
    scores.write_parquet(built.folder / "scores.parquet")
    run = read_run(built.folder)
    assert Learned().figures(run) == {}
    words = page_of(built).words()
    assert "class head" in words
    assert "--against" in words
    assert "--against" in screen_text("report", run)
