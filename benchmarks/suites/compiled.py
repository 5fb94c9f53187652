"""`train.compile` against clipmem's own passes."""

from pathlib import Path

from timing import Row, in_turn, output, script
from workload import emoji

from clipmem.models.numerics import resolve_precision
from suites.training import HERE, rates


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Train the demo's model in one process with one thread, with and without compilation, excluding compile time."""
    model, size, pairs, batch, epochs = (
        ("clipmem-micro", 32, 16, 8, 24) if smallest else ("clipmem-tiny", 64, 1500, 128, 6)
    )
    emoji(folder, size=size, pairs=pairs)
    words = [str(HERE / "ours.py"), str(folder), str(size), str(pairs), "short", model, str(batch), str(epochs)]
    words += [resolve_precision("auto", device), device]
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
