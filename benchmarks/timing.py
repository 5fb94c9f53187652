"""Measure two alternatives in turn and take their ratio, which is reliable even on a shared machine."""

import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import IO, Any, Literal

Against = Literal["open_clip", "loop", "bare", "before", "full", "default"]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        suite: The suite it belongs to.
        case: What was measured.
        against: `open_clip` (its own trainer), `loop` (one pair and view at a time), `bare` (the same passes on
            tensors in memory, or an empty interpreter), `before` (an earlier version of this project, or a first run),
            `full` (training the whole model), `default` (of the libraries).
        ratio: Median over rounds of the factor by which clipmem is faster (or smaller).
        low: Smallest ratio of a round.
        high: Largest ratio of a round.
        ours: Median of clipmem's values.
        theirs: Median of the other's values.
        unit: Unit of both.
        rounds: Number of rounds.
    """

    suite: str
    case: str
    against: Against
    ratio: float
    low: float
    high: float
    ours: float
    theirs: float
    unit: str
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def in_turn(
    suite: str,
    case: str,
    against: Against,
    ours: Callable[[], float],
    theirs: Callable[[], float] | Sequence[Callable[[], float]],
    *,
    unit: str,
    rounds: int,
    more_is_better: bool,
) -> Row:
    """Measure both in every round, in alternating order, and return the ratios; the best of several `theirs` counts."""
    ways = [theirs] if callable(theirs) else list(theirs)
    a: list[float] = []
    b: list[float] = []
    for index in range(rounds):
        if index % 2:
            other = [way() for way in ways]
            own = ours()
        else:
            own = ours()
            other = [way() for way in ways]
        a.append(own)
        b.append(max(other) if more_is_better else min(other))
        print(f"  {case}, round {index + 1}: {a[-1]:,.4g} against {b[-1]:,.4g} {unit}", flush=True)
    ratios = [x / y if more_is_better else y / x for x, y in zip(a, b, strict=True)]
    return Row(
        suite,
        case,
        against,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(a),
        statistics.median(b),
        unit,
        rounds,
    )


def seconds(work: Callable[[], object], *, repeats: int = 1) -> float:
    """Return the shortest time of `work` over `repeats`."""
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def machine() -> dict[str, Any]:
    """Describe the machine."""
    import torch

    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    names = ("clipmem", "torch", "open_clip_torch", "numpy", "polars", "pyarrow")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "bf16": bool(torch.cpu._is_avx512_bf16_supported()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
        "load_before": os.getloadavg()[0],
    }


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as stream:  # noqa: PTH123
            return stream.read().splitlines()
    except OSError:
        return []


@dataclass
class Script:
    """A running script and its output file; a full pipe could block it while another script is read."""

    process: subprocess.Popen[bytes]
    printed: IO[bytes]


def script(*arguments: str, threads: int | None = None, **variables: str) -> Script:
    """Start this interpreter with arguments and environment variables, with output to a file."""
    environment = {**os.environ, **variables}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    printed = tempfile.TemporaryFile()  # noqa: SIM115
    words = [sys.executable, *arguments]
    return Script(
        subprocess.Popen(words, stdout=printed, stderr=subprocess.STDOUT, env=environment),  # noqa: S603
        printed,
    )


def output(one: Script) -> str:
    """Wait for a script and return what it printed.

    Raises:
        RuntimeError: It failed, with its last lines as the message.
    """
    code = one.process.wait()
    with one.printed as stream:
        stream.seek(0)
        text = stream.read().decode(errors="replace")
    if code:
        raise RuntimeError(f"{one.process.args} ended with {code}:\n" + "\n".join(text.splitlines()[-15:]))
    return text
