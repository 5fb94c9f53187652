"""Progress lines: when they come, what they count, and how well they know the time left."""

import io
import itertools
import re
import time

import pytest
from rich.console import Console

from clipmem.base.progress import Quiet, by_work
from clipmem.report import progress
from clipmem.report.progress import TerminalReporter

LINE = re.compile(r"^step +(\d+) % (\S+) (\S+) (\S+) left  (\S*)$")


class Clock:
    """A clock that only moves when work is done."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def lines_of(total, reports, warm_up=0.0, unit="pairs"):
    """Return each line of a step as (percent, rate, unit, left, true time left, seconds since the start)."""
    clock, text = Clock(), io.StringIO()
    end = clock.now + warm_up + sum(seconds for seconds, _ in reports)
    found = []
    with TerminalReporter(Console(file=text, get_time=clock, width=200)) as reporter:
        reporter.begin("step", total, unit)
        clock.now += warm_up
        for seconds, amount in reports:
            clock.now += seconds
            before = len(text.getvalue())
            reporter.advance(amount, "note")
            for line in text.getvalue()[before:].splitlines():
                percent, rate, of, left, note = LINE.match(line).groups()
                assert note == "note"
                seconds_left = None if "-" in left else sum(60**k * int(x) for k, x in enumerate(left.split(":")[::-1]))
                found.append((int(percent), rate, of, seconds_left, end - clock.now, clock.now - 1000))
    return found


STEADY = [(0.5, 5)] * 120
WORK = {
    "steady": (600, STEADY, 0),
    "reads a model first": (600, STEADY, 20),
    "slow at first": (630, [(1, 5)] * 6 + STEADY, 2),
    "in bursts of several models": (1200, [(0.1, 20), (0.1, 20), (4.8, 20)] * 20, 10),
    "every 20 s": (12, [(20, 1)] * 12, 5),
    "uneven parts": (600, [(0.2, 5), (0.9, 5), (0.4, 5)] * 40, 0),
    "slower and slower": (600, [(0.2 + k / 200, 5) for k in range(120)], 0),
}


@pytest.mark.parametrize("name", WORK)
def test_time_left_is_within_a_factor_of_two_after_the_first_tenth(name):
    total, reports, warm_up = WORK[name]
    found = lines_of(total, reports, warm_up)
    later = [(left, true) for percent, _, _, left, true, _ in found if percent >= 10 and left is not None]
    assert len(later) >= 2
    assert all(true / 2 - 1 <= left <= 2 * true + 1 for left, true in later), later


def test_first_line_after_two_seconds_then_at_most_every_fifteen():
    times = [seconds for *_, seconds in lines_of(600, STEADY)]
    assert times[0] == 2
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert (gaps[0], gaps[-1]) == (2, 15)
    assert lines_of(600, [(0.01, 5)] * 120) == []


def test_no_rate_and_no_time_left_before_there_are_two_reports():
    assert [line[:4] for line in lines_of(10, [(5, 1)])] == [(10, "-", "pairs/s", None)]
    assert [line[:4] for line in lines_of(10, [(5, 1), (5, 1)])][-1] == (20, "12", "pairs/min", 40)


def test_steps_of_different_cost_finish_units_as_their_work_is():
    class Counts(Quiet):
        total, done = 0, ()

        def begin(self, stage, total=None, unit=""):
            self.total = total

        def advance(self, amount, note=""):
            self.done += ((amount, note),)

    counts = Counts()
    advance = by_work(counts, "detect", 600, "pairs", {"cheap": 1.0, "costly": 8.5, "last": 0.5})
    advance("cheap", 1.0)
    for _ in range(3):
        advance("costly", 1 / 3)
    advance("costly", 0.5)  # more than there was to do
    assert counts.done == ((60, "cheap"), (170, "costly"), (170, "costly"), (170, "costly"), (0, "costly"))
    advance("last", 1.0)
    assert sum(amount for amount, _ in counts.done) == counts.total == 600


def test_a_step_of_nothing_and_more_than_announced_are_no_error():
    assert [line[0] for line in lines_of(0, [(5, 1), (5, 1)])] == [0, 0]
    assert [line[0] for line in lines_of(1, [(5, 1), (5, 1)])] == [100, 100]


def test_a_step_that_reports_nothing_is_not_silent(monkeypatch):
    monkeypatch.setattr(progress, "_FIRST", 0.05)
    monkeypatch.setattr(progress, "_UNCOUNTED", 0.05)
    text = io.StringIO()
    with TerminalReporter(Console(file=text)) as reporter:
        for arguments in (("report",), ("train", 8, "pairs")):
            reporter.begin(*arguments)
            started = time.monotonic()
            while not (said := text.getvalue().splitlines()) or not said[-1].startswith(arguments[0]):
                assert time.monotonic() < started + 20
                time.sleep(0.01)
        reporter.end("train", 1.0)
        ended = len(text.getvalue())
        time.sleep(0.2)
    assert re.fullmatch(r"report +0:00:00", text.getvalue().splitlines()[0])
    assert LINE.match(next(line for line in said if line.startswith("train")).replace("train", "step"))
    assert len(text.getvalue()) == ended
