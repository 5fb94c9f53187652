"""The terminal's tables: they fit, hold every number, and no caption moves the cursor."""

import io
import re
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from clipmem.report.templating import next_steps
from clipmem.report.terminal import VERBOSE, print_run, print_screen, screen_lines
from clipmem.study.curating import Curated
from tests.screens import RUNS
from tests.unit.report.documents import MODEL_AUDIT, UTILITY
from tests.unit.report.run_folder import Built

Build = Callable[..., Built]


def printed(built: Built, width: int = 100, terminal: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    print_run("report", built.folder, console)
    return stream.getvalue()


@pytest.fixture
def verbose() -> Generator[None]:
    token = VERBOSE.set(True)
    yield
    VERBOSE.reset(token)


@pytest.mark.parametrize("width", [80, 100])
def test_a_number_of_many_models_is_never_cut(width: int) -> None:
    columns = {f"model {k}": f"alpha = {k / 4}" for k in range(5)}
    [of_f, *_] = UTILITY["metrics"].values()
    document = {**UTILITY, "confidence": 0.95, "probe": {"commonest_class_acc1": 0.2}, "columns": columns}
    lines = screen_lines("evaluated", document | {"metrics": dict.fromkeys(columns, of_f)}, width)
    assert max(map(len, lines)) <= width + 1
    rows = [line for line in lines if "R@5" in line and "[" in line]
    assert len(rows) > 2
    assert sum(row.count("]") for row in rows) == 5 * len({row.split("  ")[0] for row in rows})
    assert not any("…" in row for row in rows)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", list(RUNS))
def test_a_screen_has_the_verdict_first_and_at_most_25_lines(tmp_path: Path, name: str, width: int) -> None:
    built = RUNS[name](tmp_path / "study")
    lines = printed(built, width).splitlines()
    assert ": mean " in lines[0]
    assert len(lines) <= 25 + (name in {"given", "shifted", "finetuned"}) * 5  # and a warning
    commands = [line for line in lines if line.startswith("Next: clipmem ")]
    assert 1 <= len(commands) <= 3
    assert str(built.folder) in commands[0]


def test_details_are_for_verbose(two_seeds: Built, verbose: None) -> None:
    text = printed(two_seeds)
    assert "Regime: " in text
    assert "Most memorized, 10 of 60" in text


def test_a_command_whose_reason_does_not_fit_stands_alone() -> None:
    stream, steps = io.StringIO(), next_steps("view", run="a run")
    for width in (40, 100):
        print_screen("audited", MODEL_AUDIT, Console(file=stream, width=width), "", steps)
    assert re.findall("Next: .*", stream.getvalue()) == [
        "Next: clipmem view 'a run'",
        "Next: clipmem view 'a run'  # sort, search and mark the pairs",
    ]


def test_it_has_the_numbers_of_the_summary(two_seeds: Built) -> None:
    words = " ".join(printed(two_seeds).split())
    for entry in two_seeds.summary["roles"].values():
        assert f"{entry['mean']:+.3f} [{entry['low']:+.3f}, {entry['high']:+.3f}]" in words
    planted = two_seeds.summary["planted"]
    assert f"AUROC {planted['auroc']:.3f} [{planted['low']:.3f}, {planted['high']:.3f}]" in words


@pytest.mark.parametrize("width", [100, 200])
def test_it_fits_100_columns_and_is_plain_where_there_is_no_terminal(build: Build, width: int) -> None:
    built = build(seeds=(0, 1), captions=[["a very long caption " * 30]] * 124)
    lines = printed(built, width).splitlines()
    assert max(len(line) for line in lines if not line.startswith(("Report:", "Next:"))) <= 100
    assert "\x1b" not in "".join(lines)


def test_the_path_of_the_report_is_on_one_line(build: Build) -> None:
    built = build(seeds=(0, 1))
    assert printed(built, 40).splitlines()[-1] == "Report: not written yet."
    (built.folder / "report").mkdir()
    (built.folder / "report" / "index.html").write_text("x")
    assert printed(built, 40).splitlines()[-1] == f"Report: {built.folder / 'report' / 'index.html'}"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_caption_neither_colors_nor_moves(build: Build, terminal: bool) -> None:
    hostile = "[bold red]x[/bold red] \x1b[2J\x1b]0;t\x07 \u202e \x1d\x1e\x1f ¦ &amp; [link=http://a]b[/link] [/]"
    built = build(seeds=(0, 1), captions=[[hostile]] * 124)
    text = printed(built, terminal=terminal)
    if terminal:  # headings are bold
        text = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "[bold red]x[/bold red] ␛[2J␛]0;t␇ \\u202e ␝␞␟ ¦ &amp; [" in text
    assert not re.search("[\x07\x1b\x1d-\x1f\u202e]", text)


def test_the_table_is_in_the_order_of_the_score(two_seeds: Built) -> None:
    best = two_seeds.scores.filter(pl.col("role") == "candidate").sort("clipmem", descending=True).head(5)
    sources = dict(two_seeds.splits.select("uid", "captions_from").iter_rows())
    captions = dict(two_seeds.pairs.select("uid", "captions").iter_rows())
    lines = [" ".join(line.split()) for line in printed(two_seeds).splitlines()]
    shown = [line for line in lines if re.match(r"\d+ [+-]\d\.\d{3} ±", line)]
    assert shown == [
        f"{k} {row['clipmem']:+.3f} ± {row['stderr']:.3f} {captions[sources[row['uid']]][0]}"
        + " mismatched" * row["planted"]
        for k, row in enumerate(best.to_dicts(), start=1)
    ]


def _loaded(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


def test_the_terminal_loads_no_plotting_and_nothing_loads_torch() -> None:
    for module in ("terminal", "page", "comparison", "sections.comparison"):
        assert not _loaded(f"clipmem.report.{module}") & {"torch", "open_clip", "matplotlib"}, module


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("clear", [False, True])
def test_a_long_caption_leaves_room_for_other_columns(width: int, clear: bool) -> None:
    row = {"uid": "0123456789abcdef", "probability": 0.5, "caption": "long " * 34, "reason": None}
    expected = {"found": False, "clear": clear, "pairs": [3, 0, 9], "confidence": 0.95, "share": 0.1}
    about: dict[str, Any] = {"pairs": 400, "problems": 0, "model": None, "run": False, "seconds_in_all": 1.0}
    about |= {"expected": expected, "suspects": 3, "by_rule": 0, "curve": [], "aim": "", "expectation": []}
    lines = screen_lines("curated", Curated(Path("suspects"), about, [row]), width)
    cells = next(line for line in lines if "0123456789ab" in line).split()
    assert cells[-1].endswith("…")
    assert {"1", "0.50"} <= set(cells)
    assert ("unknown" in " ".join(lines)) != clear
    assert "guess" in " ".join(lines)  # without a lower end above 0, nothing is known of the list
    only_by_rule = Curated(Path("suspects"), {**about, "by_rule": 3}, [row])
    assert "guess" not in " ".join(screen_lines("curated", only_by_rule, width))
