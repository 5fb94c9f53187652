"""The terminal's tables: they fit, hold every number, and no caption moves the cursor."""

import io
import subprocess
import sys
from collections.abc import Callable

import polars as pl
import pytest
from rich.console import Console
from tests.report.run_folder import Built

from clipmem.report.terminal import planted_line, print_summary, roles_table, top_table

Build = Callable[..., Built]


def printed(built: Built, width: int = 100, terminal: bool = False) -> str:
    stream = io.StringIO()
    print_summary(built.folder, Console(file=stream, width=width, force_terminal=terminal))
    return stream.getvalue()


def test_it_says_what_was_found(two_seeds: Built) -> None:
    words = " ".join(printed(two_seeds).split())
    for entry in two_seeds.summary["roles"].values():
        assert f"{entry['mean']:+.3f} [{entry['low']:+.3f}, {entry['high']:+.3f}]" in words
    planted = two_seeds.summary["planted"]
    assert (
        f"CLIPMem finds them with AUROC {planted['auroc']:.3f} [{planted['low']:.3f}, {planted['high']:.3f}]" in words
    )
    assert "mean +0.004 [-0.017, +0.025], sd 0.081, mean size 0.062" in words
    assert "Most memorized, 10 of 60 candidates" in words


def test_one_seed_and_nothing_planted_is_said(one_seed: Built) -> None:
    words = " ".join(printed(one_seed).split())
    assert words.count("one seed") >= 10
    assert "Planted pairs: none planted." in words
    assert "Noise floor: not known, it needs two seeds" in words


@pytest.mark.parametrize("width", [100, 200])
def test_it_fits_100_columns_and_is_plain_where_there_is_no_terminal(build: Build, width: int) -> None:
    built = build(seeds=(0, 1), captions=[["a very long caption " * 30]] * 124)
    lines = printed(built, width).splitlines()
    assert max(len(line) for line in lines if not line.startswith("Report:")) <= 100
    assert "\x1b" not in "".join(lines)


def test_the_path_of_the_report_is_on_one_line(build: Build) -> None:
    built = build(seeds=(0, 1))
    assert printed(built, 40).splitlines()[-1] == "Report: not written yet."
    (built.folder / "report").mkdir()
    (built.folder / "report" / "index.html").write_text("x")
    assert printed(built, 40).splitlines()[-1] == f"Report: {built.folder / 'report' / 'index.html'}"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_caption_neither_colours_nor_moves(build: Build, terminal: bool) -> None:
    hostile = "[bold red]x[/bold red] \x1b[2J\x1b]0;t\x07 \u202e [link=http://a]b[/link] [/] \ud800"
    built = build(seeds=(0, 1), captions=[["plain"]] * 124)
    scores, splits = built.scores, built.splits.with_columns(captions_from="uid")
    # Parquet holds no lone surrogate; a table in memory need not either, so it is left to `visible`'s own
    # test
    pairs = built.pairs.with_columns(captions=pl.lit([hostile.replace("\ud800", "")]))
    stream = io.StringIO()
    Console(file=stream, width=100, force_terminal=terminal, color_system=None).print(
        top_table(scores, pairs, splits, 3)
    )
    text = stream.getvalue()
    assert "[bold red]x[/bold red] ␛[2J␛]0;t␇ \\u202e [link=http://" in text
    assert "\x07" not in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_the_table_is_in_the_order_of_the_score(two_seeds: Built) -> None:
    table = top_table(two_seeds.scores, two_seeds.pairs, two_seeds.splits, k=5)
    best = two_seeds.scores.filter(pl.col("role") == "candidate").sort("clipmem", descending=True).head(5)
    assert [str(cell) for cell in table.columns[0].cells] == ["1", "2", "3", "4", "5"]
    wanted = [f"{score:+.3f} ± {error:.3f}" for score, error in best.select("clipmem", "stderr").iter_rows()]
    assert [str(cell) for cell in table.columns[1].cells] == wanted
    assert [str(cell) for cell in table.columns[3].cells] == ["planted" if p else "" for p in best["planted"]]
    sources = dict(two_seeds.splits.select("uid", "captions_from").iter_rows())
    captions = dict(two_seeds.pairs.select("uid", "captions").iter_rows())
    assert [str(cell) for cell in table.columns[2].cells] == [captions[sources[uid]][0] for uid in best["uid"]]


def test_roles_are_named_with_who_trained_on_them(two_seeds: Built) -> None:
    table = roles_table(two_seeds.summary)
    assert list(zip(table.columns[0].cells, table.columns[1].cells, strict=True)) == [
        ("candidate", "f only"),
        ("independent", "g only"),
        ("shared", "f and g"),
        ("external", "neither"),
    ]
    assert "Chance is 0.5." in planted_line(two_seeds.summary)


def _loaded(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


def test_the_terminal_loads_no_plotting_and_nothing_loads_torch() -> None:
    assert "matplotlib" not in _loaded("clipmem.report.terminal")
    page = _loaded("clipmem.report.page")
    assert "matplotlib" in page
    assert not page & {"torch", "open_clip", "matplotlib.pyplot"}
