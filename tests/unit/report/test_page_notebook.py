"""What a notebook shows of runs, tables and comparisons; figures are matplotlib axes with the numbers of the tables."""

from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.progress import Quiet
from clipmem.report.figures import light_colors
from clipmem.report.gallery import ranked_candidates
from clipmem.report.page import Plots, pairs_html, run_html
from clipmem.report.progress import reporter_here
from clipmem.report.run import read_run
from tests.compared import build as build_finished
from tests.unit.report.run_folder import Built, build_run

mpl.use("Agg")
HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    sizes = {"shared": 6, "candidate": 12, "independent": 6, "external": 8}
    captions = [[HOSTILE if i == 7 else f"a thing of kind {i % 5}"] for i in range(32)]
    return build_run(tmp_path_factory.mktemp("run") / "study", planted=2, sizes=sizes, captions=captions)


def test_a_run_is_a_table_and_images(built: Built) -> None:
    run = read_run(built.folder)
    first = ranked_candidates(run.scores).head(4)
    captions = {uid: run.trained_captions(uid) for uid in first["uid"]}
    text = run_html(run, pairs_html(first, built.images, captions, run.summary.noise_floor))
    assert "noise floor ±0.162 (95% of held-out pairs)" in text
    tags = Tags(text).tags
    assert [dict(attrs)["src"][:10] for tag, attrs in tags if tag == "img"] == ["data:image"] * 4
    allowed = "div p b code table thead tbody tr th td figure img figcaption i br bdi"
    assert {tag for tag, _ in tags} <= set(allowed.split())
    for role in run.roles:
        assert f"{run.summary.roles[role].mean:+.3f}".replace("-", "\N{MINUS SIGN}") in text


def test_captions_are_escaped(built: Built) -> None:
    text = pairs_html(built.scores.head(1), {}, {built.scores["uid"][0]: [HOSTILE]})
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    with pytest.raises(InputError) as error:
        pairs_html(pl.DataFrame({"x": [1]}), {}, {})
    assert "uid" in error.value.got or "uid" in error.value.expected


def test_figures_are_axes_with_the_numbers_of_the_tables(built: Built) -> None:
    run = read_run(built.folder)
    plots = Plots(run)
    axes = plots.top(3)
    first = ranked_candidates(run.scores).head(3)
    floor, *bars = axes.patches
    assert [bar.get_width() for bar in bars] == first["clipmem"].to_list()
    assert (floor.get_x(), floor.get_width()) == pytest.approx((-0.004 - 0.162, 2 * 0.162))
    assert mpl.colors.to_hex(bars[0].get_facecolor()) == light_colors()["--candidate"]
    mine = mpl.figure.Figure().add_subplot()
    assert plots.roles(mine) is mine
    assert [tick.get_text().split("\n")[0] for tick in mine.get_yticklabels()] == run.roles[::-1]
    means = {line.get_xdata()[0] for line in mine.lines if line.get_marker() == "o"}
    assert means == {run.summary.roles[role].mean for role in run.roles}
    with pytest.raises(InputError):
        plots.top(0)


def test_redundancy_counts_the_twins_of_each_caption(built: Built) -> None:
    run = read_run(built.folder)
    axes = Plots(run).redundancy()
    captions = {uid: texts[0] for uid, texts in run.own_captions.items()}
    groups: dict[int, list[float]] = {0: [], 1: [], 2: [], 3: []}
    for row in run.scores.filter(role="candidate").to_dicts():
        caption = run.trained_captions(row["uid"])[0]
        copies = sum(other == caption for uid, other in captions.items() if uid != row["uid"])
        groups[0 if copies == 0 else 1 if copies <= 2 else 2 if copies <= 5 else 3].append(row["clipmem"])
    shown = axes.lines[1].get_ydata()  # behind the line at 0
    expected = [np.mean(values) if values else np.nan for values in groups.values()]
    np.testing.assert_allclose(np.asarray(shown, float), expected)
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert [label.partition("(")[2] for label in labels] == [f"{len(values)})" for values in groups.values()]


def test_a_comparison(tmp_path: Path) -> None:
    build_finished(tmp_path / "plain")
    build_finished(tmp_path / "noisy", "mitigate.text_noise.std=0.15", effect=0.5, noise=2, utility=0.05)
    compared = clipmem.compare(tmp_path / "plain", tmp_path / "noisy")
    text = compared._repr_html_()
    assert "<svg" in text
    assert "var(--" not in text
    difference = compared.table.filter(measure="clipmem")["difference"][0]
    assert f"{difference:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    assert "noisy" in repr(compared)
    with pytest.raises(InputError):
        clipmem.compare(tmp_path / "plain")


def test_progress_in_notebooks_only() -> None:
    assert isinstance(reporter_here(), Quiet)
