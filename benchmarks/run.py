"""Benchmarks: ratios of measurements taken in turn on one machine: `python benchmarks/run.py --suite training`.

Needs the `bench` extra (open_clip's trainer needs pandas and webdataset): `pip install -e ".[bench]"`.
Run nothing else on the machine meanwhile. `load_before` in the JSON is the load at the start.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # suites; tests.tiny

import torch
from timing import Row, machine

SUITES = (
    "startup",
    "data",
    "training",
    "passes",
    "finetune",
    "compiled",
    "scoring",
    "embeddings",
    "memory",
    "study",
    "curate",
    "jpeg",
    "cells",
    "shared",
)


def table(rows: list[Row]) -> str:
    """Format rows in at most 100 columns."""
    lines = [f"{'case':<58} {'against':<9} {'ratio':>7} {'least':>7} {'most':>7}"]
    for row in rows:
        lines.append(f"{row.case[:58]:<58} {row.against:<9} {row.ratio:>7.2f} {row.low:>7.2f} {row.high:>7.2f}")
        lines.append(f"  {row.ours:,.4g} against {row.theirs:,.4g} {row.unit}, median of {row.rounds}")
    return "\n".join(lines)


def main() -> None:
    """Run the chosen suites."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", choices=[*SUITES, "all"], default="all", help="suite to run (all)")
    parser.add_argument("--json", type=Path, help="write the rows to this file, with hardware and versions")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (3)")
    parser.add_argument(
        "--smallest", action="store_true", help="one round on a few pairs: runs a suite, measures nothing"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="device to train and embed on (cpu)")
    parser.add_argument("--before", default="", help="suite study: an earlier commit to compare with")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no such device here")
    described, rows = machine() | {"device": chosen.device}, []
    for name in SUITES if chosen.suite == "all" else (chosen.suite,):
        with tempfile.TemporaryDirectory() as folder:
            module = importlib.import_module(f"suites.{name}")
            found: list[Row] = module.measure(
                Path(folder),
                rounds=1 if chosen.smallest else chosen.rounds,
                before=chosen.before,
                device=chosen.device,
                smallest=chosen.smallest,
            )
        print(getattr(module, "table", table)(found), flush=True)
        rows += found
    if chosen.json:
        document = {"machine": described, "rows": [row.as_dict() for row in rows]}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
