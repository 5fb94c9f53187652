"""A reproduction that somebody prepared, with pickles in place of its files, and command lines that were mistyped."""

from functools import cache
from pathlib import Path

import pytest
from tests.hostile.case import ACCEPTED, EITHER, Case, nothing, run_case
from tests.hostile.prepared import _armed, _made, _new, _stopped, _stopping

from clipmem_reproduce.reproduction import reproduce

COMMAND = ["reproduce", "--finding", "planted", "--scale", "tiny", "--out", "out"]


@cache
def stopped() -> Path:
    """Stop a reproduction once the images of its first run are decoded."""
    folder = _new("reproduce")
    _stopped(lambda: reproduce(folder / "out", findings=["planted"], scale="tiny", reporter=_stopping("train")))
    return folder


CASES = [
    Case("mistyped command", ["reprodcue"]),
    Case("an unknown option", ["reproduce", "--no-such-option"]),
    Case("help", ["reproduce", "--help"], nothing, ACCEPTED),
    Case("an argument too many", ["reproduce", "one"]),
    *(Case(f"scale {scale!r}", ["reproduce", "--scale", scale, "--out", "x"]) for scale in ("huge", "1")),
]
PREPARED = [
    Case("images of a run", COMMAND, _made(stopped, _armed("pixels.npy")), EITHER),
    Case("documents", COMMAND, _made(stopped, _armed("*.json")), EITHER),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[3:5], ids=lambda case: case.name)
def test_a_mistyped_command_line_is_refused(case, tmp_path):
    assert run_case(case, tmp_path / "case").faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *PREPARED], ids=lambda case: case.name)
def test_no_input_runs_code_or_ends_in_a_bug(case, tmp_path):
    assert run_case(case, tmp_path / "case").faults == ()
