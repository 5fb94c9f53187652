"""Pages and terminal tables of the protocols beside four-way: their own words, and the models behind each score."""

import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from clipmem.report.in_and_out import model_counts, stacked
from rich.console import Console
from tests.report.other_runs import build_leave_one_out, build_subsample
from tests.report.outline import Outline, outline
from tests.report.run_folder import Built

from clipmem.report import wording, words
from clipmem.report.figures import curves_figure
from clipmem.report.gallery import gallery_uids, ranked_candidates
from clipmem.report.page import write_report
from clipmem.report.read import TrainingLog
from clipmem.report.terminal import print_summary

Build = Callable[..., Built]


@pytest.fixture(scope="module")
def subsample(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_subsample(tmp_path_factory.mktemp("run") / "study")


@pytest.fixture(scope="module")
def leave_one_out(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_leave_one_out(tmp_path_factory.mktemp("run") / "study")


@pytest.fixture(scope="module")
def sub_page(subsample: Built) -> Outline:
    return outline(write_report(subsample.folder, subsample.images))


@pytest.fixture(scope="module")
def loo_page(leave_one_out: Built) -> Outline:
    return outline(write_report(leave_one_out.folder, leave_one_out.images))


def printed(built: Built) -> str:
    stream = io.StringIO()
    print_summary(built.folder, Console(file=stream, width=100))
    return " ".join(stream.getvalue().split())


def test_subsample_speaks_of_models_not_of_f_and_g(sub_page: Outline) -> None:
    text = sub_page.words()
    assert "candidates, each of which some of the models had in training and the others had not, score" in text
    assert "models8, each on a random part, about 70 %, of the pairs" in text
    assert "two random halves of the models (4 and 4) order the candidates alike to a rank correlation of 0.412" in text
    assert "its standard error over models" in text
    assert "a random part of the models" in text
    assert "Noise floor: no two models of this protocol had the same pairs" in text
    for foreign in ("under g", "f trained on", "g did not", "needs two seeds", "one seed", "Solid is f", "four roles"):
        assert foreign not in text, foreign


def test_leave_one_out_speaks_of_the_model_without_the_pair(loo_page: Outline) -> None:
    text = loo_page.words()
    assert "The 12 candidates, each of which f trained on and one retrained model did not, score" in text
    assert "f and 12 retrained without one pair each, for every seed" in text
    assert "f, and all retrained models but one" in text
    assert "instead of the model without the pair" in text
    assert "retrained without one pair" in text
    for foreign in ("under g alone", "g did not", "Solid is f, dashed is g", "four roles", "In and out"):
        assert foreign not in text, foreign


def test_the_terminal_has_the_words_of_the_protocol(subsample: Built, leave_one_out: Built) -> None:
    text = printed(subsample)
    assert "a random part of the models" in text
    assert "low alignment under the models without the pair with" in text
    assert "two random halves of the models" in text
    text = printed(leave_one_out)
    assert "f, and all retrained models but one" in text
    assert "low alignment under the model without the pair with" in text


def test_retrieval_has_a_column_for_each_kind_of_model(sub_page: Outline, loo_page: Outline) -> None:
    assert "foundthe modelschance" in sub_page.words()
    assert "foundfretrainedchance" in loo_page.words()


def test_the_largest_scores_are_shown_model_by_model(subsample: Built, sub_page: Outline) -> None:
    seed_scores = pl.read_parquet(subsample.folder / "seed_scores.parquet")
    best = ranked_candidates(subsample.scores).head(6)
    text = (subsample.folder / "report" / "index.html").read_text(encoding="utf-8")
    cards = text.split('<li class="inout">')[1:]
    assert len(cards) == 6
    for card, row in zip(cards, best.iter_rows(named=True), strict=True):
        own = seed_scores.filter(pl.col("uid") == row["uid"])
        had, had_not = own["f"].drop_nulls(), own["g"].drop_nulls()
        counts = f"{len(had)} had it, {len(had_not)} had not"
        assert counts in card
        title = f"had it {had.mean():+.3f} ({len(had)} models) and had not {had_not.mean():+.3f}"
        assert title in card.replace("\N{MINUS SIGN}", "-")
        marks = re.findall(r"<use [^>]*>", card.partition("</svg>")[0])
        assert len(marks) >= len(own)
    assert "Each pair was in the training of 6 of the 8 models, and out of the others." in sub_page.words()


def test_a_run_of_an_earlier_version_with_a_pair_without_a_score_is_readable(tmp_path: Path) -> None:
    built = build_subsample(tmp_path / "study", earlier=True)
    text = outline(write_report(built.folder, built.images)).words()
    assert "Each pair was in the training of 6 to 8 of the 8 models, and out of the others." in text
    assert "From 59 scored pairs" in text
    assert "candidate" in printed(built)


def test_pairs_that_a_half_cannot_score_are_counted(subsample: Built) -> None:
    summary = json.loads(json.dumps(subsample.summary))
    assert "left out" not in wording.stability(summary)
    summary["stability"]["unscored"] = 3
    assert "(3 of 60 pairs left out," in wording.stability(summary)


def test_model_counts_are_those_of_a_loop(subsample: Built) -> None:
    seed_scores = pl.read_parquet(subsample.folder / "seed_scores.parquet")
    candidates = subsample.scores.filter(pl.col("role") == "candidate")["uid"].to_list()
    rows = seed_scores.select("uid", "f").rows()
    had = [sum(1 for owner, f in rows if owner == uid and f is not None) for uid in candidates]
    counts = model_counts(seed_scores, subsample.scores)
    assert counts == {
        "models": 8,
        "least": min(had),
        "most": max(had),
    }


def test_stacked_values_stand_on_each_other_only_within_a_cell() -> None:
    values = np.array([0.5, -0.2, 0.55, 0.59, 0.61, -0.2])
    places, heights = stacked(values, 0.1)
    cells = sorted(math.floor(value / 0.1) for value in values)
    assert heights.tolist() == [cells[:i].count(cell) for i, cell in enumerate(cells)]
    np.testing.assert_allclose(places, [0.1 * cell + 0.05 for cell in cells])
    assert np.abs(places - np.sort(values)).max() <= 0.05 + 1e-12


@pytest.mark.parametrize("side", ["r", "without-0123456789ab", "something else"])
def test_curves_of_any_model_have_a_legend(side: str) -> None:
    step = np.arange(50.0)
    logs = [TrainingLog(side, seed, step, step // 10, 3.0 - step / 20) for seed in range(2)]
    assert words.CURVE_NAMES[words.curve_group(side)] in curves_figure(logs, "narrow")


def test_many_models_are_one_row_and_a_small_figure(tmp_path: Path) -> None:
    built = build_subsample(tmp_path / "study", models=32)
    path = write_report(built.folder, {})
    text = outline(path).words()
    assert "least to most of the models" in text
    assert "a model on its part of the pairs3220" in text
    assert path.stat().st_size < 1_000_000


def test_pages_are_the_same_each_time_and_load_nothing(subsample: Built, leave_one_out: Built) -> None:
    for built in (subsample, leave_one_out):
        first = write_report(built.folder, built.images).read_bytes()
        assert write_report(built.folder, dict(reversed(built.images.items()))).read_bytes() == first
        assert b"<script" not in first
        assert not re.search(rb"https?://", first)
    page = outline(subsample.folder / "report" / "index.html")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"}
    assert "in-and-out" in links
    assert links <= set(ids)


def test_a_caption_stays_text_in_the_small_multiples(tmp_path: Path) -> None:
    built = build_subsample(tmp_path / "study")
    hostile = "</bdi><script>alert(1)</script>\x1b[31m\u202e"
    pairs = built.pairs.with_columns(captions=pl.lit([hostile]))
    pairs.write_parquet(built.folder / "pairs.parquet")
    text = write_report(built.folder, built.images).read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search("[\x1b\u202e]", text)
    assert '<p class="said"><bdi>&lt;/bdi&gt;&lt;script&gt;' in text


def test_one_seed_of_leave_one_out_has_no_error(tmp_path: Path) -> None:
    built = build_leave_one_out(tmp_path / "study", seeds=(0,), left_out=3, planted=1)
    text = outline(write_report(built.folder, built.images)).words()
    assert "with one seed there is no error" in text
    assert "1 candidate was trained with another pair" in text
    assert "1 of the candidates was planted" in text


def test_few_pairs_have_no_top_tenth_and_no_interval(leave_one_out: Built) -> None:
    summary = json.loads(json.dumps(leave_one_out.summary))
    assert "top tenths" in wording.stability(summary)
    summary["roles"]["candidate"]["n"] = 3
    summary["stability"] |= {"spearman": 0.5, "low": None, "high": None}
    assert wording.stability(summary).endswith("rank correlation of 0.500 (no interval).")


def test_the_paired_test_names_what_f_is_paired_with(two_seeds: Built) -> None:
    summary = dict(two_seeds.summary)
    left_out = summary | {"protocol": "leave-one-out"}
    assert "under the models without them of the same seed;" in wording.paired(left_out)
    assert wording.paired(summary | {"protocol": "subsample", "paired": None}) == ""
    found = summary["paired"] | {"effect": 1.234, "seeds": 5}
    assert "of the same seed, 1.23 of its own sd over seeds; t test" in wording.paired(summary | {"paired": found})
    del summary["paired"]  # a summary of an earlier version
    assert wording.paired(summary) == ""


def test_the_top_hundredth_is_named_where_it_is_more_than_one_pair(two_seeds: Built) -> None:
    summary = json.loads(json.dumps(two_seeds.summary))
    assert "top hundredths" not in wording.stability(summary)
    summary["roles"]["candidate"]["n"] = 200
    assert "top tenths share 50 % of the pairs, their top hundredths 25 %." in wording.stability(summary)


@pytest.mark.parametrize(
    ("alignment", "score", "meaning", "bound"),
    [
        ("clip", "CLIPMem", "aligns a picture with its caption", "±6 (bank weight 1)"),
        ("cmc", "CMC memorization", "aligns a picture with its caption", "±6 (bank weight 1)"),
        ("sslmem-image", "SSLMem, image tower", "f with g, by the mean distance", "±2 (no bank takes part)"),
        ("sslmem-text", "SSLMem, text tower", "holds its captions", "±2 (no bank takes part)"),
        ("confidence", "Confidence memorization", "it cannot see a wrong caption", "±1 (no bank takes part)"),
    ],
)
def test_a_score_of_another_alignment_is_called_by_its_name(
    build: Build, alignment: str, score: str, meaning: str, bound: str
) -> None:
    built = build(seeds=(0, 1))
    summary = dict(built.summary) | {"alignment": alignment}
    (built.folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    said = dict(wording.trust(summary))
    assert meaning in said["What it means"]
    assert bound in said["Its range"]
    text = outline(write_report(built.folder, {})).words()
    assert f"{score} by role" in text
    assert f"{score}, not normalised" in text
    assert ("CLIPMem" in text) == (alignment == "clip")
    assert f"{score} by role" in printed(built)


def test_every_protocol_says_the_same_kinds_of_things(subsample: Built, leave_one_out: Built) -> None:
    for built in (subsample, leave_one_out):
        own = words.words_of(built.summary)
        assert set(own.trained_by) == set(own.expected) == set(built.summary["roles"])
        assert 0 in own.noisy
        assert 0 in own.intervals
    assert len(gallery_uids(subsample.folder)) == len(set(gallery_uids(subsample.folder))) == 48
