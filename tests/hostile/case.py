"""A hostile input and what may come of it; and the run of one, in a process of its own.

No input may end a command with a traceback, with exit code 1, after its time or memory, with files written outside
its folder, or with code of its own having run. A case says more where more is known: which exit code is right, and how
many records its data have, so that none is lost without a word.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120.0  # of a run on a busy machine
MEMORY = 3 * 2**30
TRAP = "code-of-the-input-ran"  # a payload that is executed makes a file of this name
ACCEPTED, REFUSED, EITHER = frozenset({0}), frozenset({2}), frozenset({0, 2})


def nothing(_: Path) -> None:
    """An input that needs no files."""


@dataclass(frozen=True)
class Case:
    """One command line.

    Attributes:
        name: What is hostile about it.
        arguments: What follows `clipmem`.
        make: Writes its files into a folder, the working directory of the command.
        ends: The exit codes that are right.
        records: How many records its data have; each must be a pair, part of one, or listed.
        environment: Variables beside those of this process.
    """

    name: str
    arguments: Sequence[str]
    make: Callable[[Path], object] = nothing
    ends: frozenset[int] = REFUSED
    records: int | None = None
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        code: The exit code; negative for a signal, 124 past its time.
        seconds: Wall time.
        memory: Largest resident memory in bytes.
        faults: What must not be, in words; empty when all is right.
        stderr: What it said.
    """

    code: int
    seconds: float
    memory: int
    faults: tuple[str, ...]
    stderr: str


Cases = Callable[[random.Random], Iterator[Case]]
GROUPS: dict[str, Cases] = {}


def group(name: str) -> Callable[[Cases], Cases]:
    """Register a generator of cases under the name that the table shows."""

    def register(cases: Cases) -> Cases:
        GROUPS[name] = cases
        return cases

    return register


def generate(seed: int = 0) -> dict[str, list[Case]]:
    """Return the cases of every group; the same for the same seed."""
    return {name: list(cases(random.Random(f"{seed} {name}"))) for name, cases in GROUPS.items()}


def run_case(case: Case, folder: Path) -> Outcome:
    """Run a case in a new folder."""
    work = folder / "work"
    work.mkdir(parents=True)
    case.make(work)
    before = _names(folder, work)
    began = time.monotonic()
    with (folder / "stdout").open("w+b") as out, (folder / "stderr").open("w+b") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "clipmem", *case.arguments],
            cwd=work, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            env={**os.environ, "COLUMNS": "100", **dict(case.environment)},
        )  # fmt: skip
        code, memory = _wait(process, began + SECONDS)
    seconds = time.monotonic() - began
    said = (folder / "stderr").read_bytes().decode(errors="replace")
    output = (folder / "stdout").read_bytes().decode(errors="replace")
    faults = list(_faults(case, code, memory, output, said))
    if any(work.rglob(TRAP)) or (folder / TRAP).exists():
        faults.append("ran code of the input")
    if stray := _names(folder, work) - before - {"stdout", "stderr"}:
        faults.append(f"wrote outside its folder: {sorted(stray)}")
    return Outcome(code, seconds, memory, tuple(faults), said)


def _wait(process: subprocess.Popen[bytes], until: float) -> tuple[int, int]:
    while time.monotonic() < until:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, used.ru_maxrss * 1024
        time.sleep(0.02)
    os.killpg(process.pid, 9)
    process.wait()
    return 124, 0


def _faults(case: Case, code: int, memory: int, output: str, said: str) -> Iterator[str]:
    if code == 124:
        yield f"ran longer than {SECONDS:.0f} s"
    elif code not in case.ends:
        yield f"exit code {code}, not {' or '.join(map(str, sorted(case.ends)))}"
    if "Traceback (most recent call last)" in said + output:
        yield "a traceback"
    if memory > MEMORY:
        yield f"{memory / 2**30:.1f} GiB of memory"
    if code == 2 and not said.strip():
        yield "refused without a word"
    if len(said) > 4000:
        yield f"{len(said):,} characters of messages"
    if any(sign in said + output for sign in ("\x1b]", "\x1b[2J", "\x07", "\u202e")):
        yield "control characters of the input reached the terminal"
    if code == 0 and case.records is not None:
        yield from _lost(case.records, output)


def _lost(records: int, output: str) -> Iterator[str]:
    """Check that `inspect --json` accounts for every record."""
    found = json.loads(output)["records"]
    told = found["pairs"] + found["merged"] + found["left_out"]
    if found["read"] != told:
        yield f"{found['read']} records read, {told} accounted for"
    if found["read"] < records:
        yield f"{records - found['read']} of {records} records lost without a word"


def _names(folder: Path, work: Path) -> set[str]:
    """Names of the siblings of the working folder."""
    return {path.name for path in folder.iterdir() if path != work}
