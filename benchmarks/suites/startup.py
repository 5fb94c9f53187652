"""Time of `clipmem --help`, compared with importing the libraries that it must not import."""

import subprocess
import sys
from pathlib import Path

from timing import Row, in_turn, seconds


def _run(*arguments: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))  # noqa: S603


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Compare the times of whole processes."""
    return [
        in_turn(
            "startup",
            f"{case} against {name}",
            "bare",
            lambda words=words: _run(*words),
            lambda other=other: _run("-c", other),
            unit="s",
            rounds=1 if smallest else max(rounds, 5),
            more_is_better=False,
        )
        for case, words in (
            ("clipmem --help", ("-m", "clipmem", "--help")),
            ("import clipmem", ("-c", "import clipmem")),
        )
        for name, other in (("an empty interpreter", "pass"), ("import torch, open_clip", "import torch, open_clip"))
    ]
