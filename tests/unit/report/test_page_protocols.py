"""Pages of the other protocols: their own words, and the models behind each score."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clipmem.report.gallery import gallery_uids, ranked_candidates
from clipmem.report.page import write_report
from clipmem.report.run import Run, TrainingLog, read_run
from clipmem.report.sections.scores import model_counts, stacked
from clipmem.report.sections.study import MODELS, Meaning, curves_figure, group_of
from clipmem.report.templating import environment, measure_of, words_of
from tests.unit.report.other_runs import build_leave_one_out, build_subsample
from tests.unit.report.outline import Outline, outline
from tests.unit.report.run_folder import Built

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


def test_a_protocol_has_its_own_words(sub_page: Outline, loo_page: Outline) -> None:
    text = sub_page.words()
    for foreign in ("under g", "f trained on", "g did not", "needs two seeds", "one seed", "Solid is f", "four roles"):
        assert foreign not in text, foreign
    text = loo_page.words()
    for foreign in ("under g alone", "g did not", "Solid is f, dashed is g", "four roles", "In and out"):
        assert foreign not in text, foreign


def test_a_protocol_of_another_package_brings_its_words() -> None:
    own = words_of("thirds", {"memorized": "Two of three models memorized"})
    assert own["memorized"] == "Two of three models memorized"
    assert own["ranked"] == words_of("")["ranked"]
    assert measure_of("plain")["score"] == "plain"
    assert measure_of("plain", {"score": "Plain"})["score"] == "Plain"


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
        assert f"{len(had)} trained on it, {len(had_not)} did not" in card
        title = f"{had.mean():+.3f} over {len(had)} models that trained on the pair, {had_not.mean():+.3f} over"
        assert title in card.replace("\N{MINUS SIGN}", "-")
        marks = re.findall(r"<use [^>]*>", card.partition("</svg>")[0])
        assert len(marks) >= len(own)
    assert "6 of the 8 models" in sub_page.words()


def test_a_run_of_an_earlier_version_with_a_pair_without_a_score_is_readable(tmp_path: Path) -> None:
    built = build_subsample(tmp_path / "study", earlier=True)
    text = outline(write_report(built.folder, built.images)).words()
    assert "6 to 8 of the 8 models" in text
    assert "ranking of 59 scored pairs" in text


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
    assert MODELS[group_of(side)] in curves_figure(logs).svg("curves", "narrow")


def test_many_models_are_one_row_and_a_small_figure(tmp_path: Path) -> None:
    built = build_subsample(tmp_path / "study", models=32)
    path = write_report(built.folder, {})
    text = outline(path).words()
    assert "minimum to maximum over the models" in text
    assert "a model on its part of the pairs3220" in text
    assert path.stat().st_size < 1_000_000


@pytest.mark.slow
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
    assert "one seed: no error" in outline(write_report(built.folder, built.images)).words()


def test_shares_of_the_top_are_given_where_the_top_is_more_than_a_pair(leave_one_out: Built, tmp_path: Path) -> None:
    run = read_run(leave_one_out.folder)
    sentences = environment().get_template("sentences.jinja").module
    for n, agreed in ((3, ""), (12, "50% of the top 10%."), (200, "50% of the top 10% and 25% of the top 1%.")):
        run.summary.roles["candidate"].n = n
        assert str(sentences.stability(run.summary, run.words)).partition("They agree on ")[2].startswith(agreed)
        assert ("They agree on" in str(sentences.stability(run.summary, run.words))) == bool(agreed)


@pytest.mark.parametrize(
    ("alignment", "score", "bound"),
    [
        ("clip", "CLIPMem", 6),
        ("cmc", "CMC memorization", 6),
        ("sslmem-image", "SSLMem, image tower", 2),
        ("sslmem-text", "SSLMem, text tower", 2),
        ("confidence", "Confidence memorization", 1),
    ],
)
def test_a_score_of_another_alignment_is_called_by_its_name(
    build: Build, alignment: str, score: str, bound: float
) -> None:
    """By the formula |A| ≤ 1 + 2 w, and CLIPMem is a difference of two."""
    built = build(seeds=(0, 1))
    summary = dict(built.summary) | {"alignment": alignment}
    (built.folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    run = read_run(built.folder)
    assert Meaning().data(run)["bound"] == bound
    run.summary.weight = 0.5
    assert Meaning().data(run)["bound"] == (4 if bound == 6 else bound)
    text = outline(write_report(built.folder, {})).words()
    assert f"{score} by role" in text
    assert f"{score}, not normalized" in text
    assert ("CLIPMem" in text) == (alignment == "clip")


def test_every_protocol_names_its_roles(subsample: Built, leave_one_out: Built) -> None:
    for built in (subsample, leave_one_out):
        own = words_of(built.summary["protocol"])
        assert set(own["trained_by"]) == set(own["expected"]) == set(built.summary["roles"])
    assert len(gallery_uids(Run(subsample.folder))) == len(set(gallery_uids(Run(subsample.folder)))) == 48
