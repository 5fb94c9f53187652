"""`train.compile` against clipmem's own passes."""

from pathlib import Path

from timing import Row, in_turn, output, script

from suites.training import one_process, rates


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Train the demo's model in one process with one thread, with and without compilation, excluding compile time."""
    words = one_process(folder, device, smallest=smallest, epochs=(6, 24))
    return [
        in_turn(
            "compiled",
            "demo recipe, one process: train.compile off against on",
            "open_clip",
            lambda: rates([output(script(*words, "off", threads=1))]),
            lambda: rates([output(script(*words, "on", threads=1))]),
            unit="pairs/s",
            rounds=rounds,
            more_is_better=True,
        )
    ]
