"""Paths that are none, or lead where no user would want to go."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile.case import EITHER, REFUSED, Case, group


def _here(work: Path) -> None:
    """Make one of each kind of thing that a path can lead to."""
    (work / "empty-file").touch()
    (work / "empty-folder").mkdir()
    (work / "text").write_text("just words\n" * 3)
    os.mkfifo(work / "pipe")
    (work / "dangling").symlink_to("nowhere")
    (work / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        if len(str(work)) < 100:  # a socket's path has at most 107 characters
            listener.bind(str(work / "socket"))
    inside = work / "ring" / "a"
    inside.mkdir(parents=True)
    (inside / "back").symlink_to(work / "ring")


_PLACES = [
    "nowhere", "nowhere/further/down", "empty-file", "empty-folder", "text", "text/inside-a-file", "pipe", "socket",
    "dangling", "loop", "ring", "/proc/self/mem", "/dev/null", "/dev/zero", "/proc/self/fd/0", "/proc/kcore",
    "x" * 300, "y/" * 5000, "z" * 10_000, "line\nbreak", "~nobody/x", "$HOME/x", "*.csv", "{0..9}.tar",
    "{00000000..99999999}.tar", "a.tar::b.tar", "hf-hub:", "hf-hub:no/such", "hf-hub:../../etc", "file:///etc/passwd",
    "s3://bucket/key", "C:\\photos", "-", ".", "..", " ", "",
]  # fmt: skip

_AUTO = ["run", "quick", "--set", "data.source=auto"]
_READ: dict[str, Callable[[str], list[str]]] = {
    "inspect": lambda path: ["inspect", path],
    "run, the data": lambda path: [*_AUTO, "--set", f"data.path={path}", "--out", "new"],
    "run, the recipe": lambda path: ["run", path, "--out", "new"],
    "report": lambda path: ["view", path, "--report"],
    "export ids": lambda path: ["export", "ids", path, "--out", "new.txt"],
    "compare": lambda path: ["compare", path, path, "--out", "new"],
}  # fmt: skip
_OUT = [
    "/proc/new", "/proc/self/new", "/dev/null", "/dev/null/new", "/sys/new", "text", "text/new", "pipe", "loop",
    "dangling/new", "x" * 300, "y/" * 5000, "socket",
]  # fmt: skip
_WRITE: dict[str, Callable[[str], list[str]]] = {
    "run --out": lambda path: ["run", "quick", "--out", path],
    "export pairs --out": lambda path: ["export", "pairs", "emoji", "--to", "parquet", "--out", path],
    "init": lambda path: ["init", path],
}  # fmt: skip


@group("paths")
def cases(rng: random.Random) -> Iterator[Case]:
    """Each place under two of the commands that read a path, and each bad output under two that write one."""
    for place in _PLACES:
        for command in rng.sample(sorted(_READ), 2):
            if command.startswith("run") and place in {"", " "} and "data" in command:
                continue  # no path: the shipped data
            yield Case(f"{command}: {_short(place)}", _READ[command](place), _here, REFUSED)
    for place in _OUT:
        for command in rng.sample(sorted(_WRITE), 2):
            yield Case(f"{command}: {_short(place)}", _WRITE[command](place), _here, REFUSED)
    for place in ("nowhere", "text", "empty-folder", "/proc/self/mem", "z" * 10_000):
        model = f"ViT-B-32@{place}"
        yield Case(
            f"export embeddings --model: {_short(model)}",
            ["export", "embeddings", "--model", model, "--data", "emoji", "--out", "new"],
            _here,
            REFUSED,
        )
    yield Case(
        "inspect: a folder that is not ours to read",
        ["inspect", "/root/../proc/1/fd"],
        ends=EITHER - {0},
    )


def _short(place: str) -> str:
    return repr(place if len(place) < 30 else f"{place[:10]}… ({len(place):,} characters)")
