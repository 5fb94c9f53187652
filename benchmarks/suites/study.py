"""Wall time of the demo, now and at an earlier commit (`--before REV`)."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.tiny import TINY_STUDY
from timing import Row, in_turn, seconds

ROOT = Path(__file__).parents[2]


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:
    """Run `clipmem demo` from two source trees in turn, and print the mean score of both."""
    before = before or "HEAD" * smallest
    if not before:
        print("study: skipped; set --before REV to a commit of this repository")
        return []
    tree, study = folder / "before", "demo"
    if smallest:
        study = str(folder / "tiny.toml")
        Path(study).write_text(TINY_STUDY, encoding="utf-8")
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(tree), before], check=True)  # noqa: S603, S607
    try:
        return [
            in_turn(
                "study",
                f"clipmem demo, against {before}",
                "before",
                lambda: seconds(lambda: _demo(ROOT / "src", study, device)),
                lambda: seconds(lambda: _demo(tree / "src", study, device)),
                unit="s",
                rounds=rounds,
                more_is_better=False,
            )
        ]
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)  # noqa: S603, S607


def _demo(source: Path, study: str, device: str) -> None:
    with tempfile.TemporaryDirectory() as out:
        environment = {**os.environ, "PYTHONPATH": str(source)}
        words = [sys.executable, "-m", "clipmem", "run", study, "--device", device, "--out", f"{out}/run"]
        subprocess.run(words, check=True, capture_output=True, env=environment)  # noqa: S603
        summary = json.loads(Path(out, "run", "summary.json").read_text())
    candidate, planted = summary["roles"]["candidate"], summary["planted"]
    print(
        f"{source}: candidates {candidate['mean']:+.3f} [{candidate['low']:+.3f}, {candidate['high']:+.3f}], "
        f"planted AUROC {planted['auroc']:.3f} [{planted['low']:.3f}, {planted['high']:.3f}]"
    )
