"""The generator makes the same cases again, a sample of it ends well, and the judge of it can find fault."""

import random
import sys

import pytest

from tests.hostile import __main__ as hostile
from tests.hostile.case import ACCEPTED, REFUSED, Case, generate, run_case
from tests.hostile.tables import inspect, with_images

CASES = generate()


def test_there_are_enough_of_them_and_they_are_the_same_again():
    names = [f"{group}: {case.name}" for group, cases in CASES.items() for case in cases]
    assert len(names) >= 300
    assert len(set(names)) == len(names)
    again = [f"{group}: {case.name}" for group, cases in generate().items() for case in cases]
    assert again == names
    assert [case.name for cases in generate(1).values() for case in cases] != [name.split(": ", 1)[1] for name in names]


@pytest.mark.slow
def test_a_sample_of_every_group_ends_well(tmp_path):
    # all of them: python -m tests.hostile; CI runs every eighth
    rng = random.Random(0)
    quick = [group for group in CASES if group not in {"checkpoints", "run folders and scores"}]
    chosen = {group: [rng.choice(CASES[group])] for group in quick}
    outcomes = hostile.run_all(chosen, jobs=2)
    assert {group: outcome.faults for group, (outcome,) in outcomes.items()} == dict.fromkeys(chosen, ())
    table = hostile.table(chosen, outcomes)
    assert table[-1].startswith(f"| **all** | {len(chosen)} |")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import sys; sys.exit(1)", "exit code 1"),
        ("raise ValueError('x')", "a traceback"),
        ("import sys; print('\\x1b]0;x'); sys.exit(2)", "control characters"),
        ("import sys; sys.exit(2)", "refused without a word"),
        ("import pathlib, sys; pathlib.Path('code-of-the-input-ran').touch(); sys.exit(2)", "ran code of the input"),
        ("import pathlib, sys; pathlib.Path('../x').touch(); sys.exit(2)", "wrote outside its folder"),
        ("import sys; sys.exit('x' * 5000)", "5,001 characters"),
    ],
)
def test_the_judge_sees(tmp_path, monkeypatch, code, fault):
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert fault in "; ".join(run_case(Case("x", ["run"], ends=REFUSED), tmp_path / "case").faults)


@pytest.mark.slow
def test_a_record_that_is_lost_is_a_fault(tmp_path):
    data = b"image,caption\n0.png,zero\n1.png,one\n"
    case = Case("x", inspect("p.csv"), with_images("p.csv", data), ACCEPTED, records=3)
    assert run_case(case, tmp_path / "three").faults == ("1 of 3 records lost without a word",)
    case = Case("x", inspect("p.csv"), with_images("p.csv", data), ACCEPTED, records=2)
    assert run_case(case, tmp_path / "two").faults == ()
