"""Run every hostile input and print how each ended, by group: python -m tests.hostile [--seed N].

All of them take some minutes; CI takes every eighth (--every 8). Exit code 0 when no input did what none may do (see
`case`), else 1, with each fault named.
"""

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.hostile import (  # noqa: F401
    archives,
    command_lines,
    documents,
    images,
    models,
    paths,
    prepared,
    recipes,
    run_folders,
    tables,
)
from tests.hostile.case import Case, Outcome, generate, run_case

_HEAD = "| inputs | number | exit 0 | exit 2 | other | traceback | lost records | slowest, s | largest memory, MiB |"


def main() -> int:
    """Run the cases, and print the table and each fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", default="", help="only groups whose name holds this")
    parser.add_argument("--every", type=int, default=1, help="only each Nth input of a group")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    made = generate(options.seed).items()
    groups = {name: cases[:: options.every] for name, cases in made if options.group in name}
    began = time.monotonic()
    outcomes = run_all(groups, options.jobs)
    print("\n".join(table(groups, outcomes)))
    faults = [
        f"{name}: {case.name}: {'; '.join(outcome.faults)}\n    clipmem {' '.join(case.arguments)[:200]}\n"
        f"    {outcome.stderr.strip()[-600:]}"
        for name in groups
        for case, outcome in zip(groups[name], outcomes[name], strict=True)
        if outcome.faults
    ]
    print("\n".join(faults))
    total = sum(map(len, groups.values()))
    print(f"{total} inputs of seed {options.seed} in {time.monotonic() - began:.0f} s: {len(faults)} at fault")
    return bool(faults)


def run_all(groups: dict[str, list[Case]], jobs: int) -> dict[str, list[Outcome]]:
    """Run the cases of all groups, `jobs` at a time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        places = ((name, number) for name, cases in groups.items() for number in range(len(cases)))
        flat = [case for cases in groups.values() for case in cases]
        folders = [Path(folder) / f"{number:04d}" for number, _ in enumerate(places)]
        done = iter(list(pool.map(run_case, flat, folders)))
        return {name: [next(done) for _ in cases] for name, cases in groups.items()}


def table(groups: dict[str, list[Case]], outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Return the lines of the table of exit codes by group."""
    rows = [_row(name, outcomes[name]) for name in groups]
    rows.append(_row("**all**", [one for name in groups for one in outcomes[name]]))
    return [_HEAD, f"|{' --- |' * _HEAD.count('| ')}", *rows]


def _row(name: str, outcomes: list[Outcome]) -> str:
    codes = [one.code for one in outcomes]
    told = [" ".join(one.faults) for one in outcomes]
    cells = [
        name, len(outcomes), codes.count(0), codes.count(2), sum(code not in {0, 2} for code in codes),
        sum("traceback" in text for text in told), sum("lost" in text or "accounted" in text for text in told),
        f"{max(one.seconds for one in outcomes):.1f}", f"{max(one.memory for one in outcomes) / 2**20:,.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
