"""The commands of docs/scale.md are commands that clipmem understands, and the tests that it names are there."""

import re
import shlex
from pathlib import Path

import pytest

from clipmem.cli.app import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
LINES = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
]
IN_TABLE = re.findall(r"\| `((?:clipmem|torchrun) [^`]*)`", PAGE)


def clipmem_part(line):
    """What follows `clipmem` on the line, in any of its three forms; None for other programs."""
    found = re.search(r"(?:^|-m |auto |-- )clipmem (.*)$", line)
    return shlex.split(found[1]) if found else None


def test_there_are_commands():
    assert len(LINES) == 9
    assert len(IN_TABLE) == 3
    assert sum(clipmem_part(line) is not None for line in LINES + IN_TABLE) == 10


@pytest.mark.parametrize("line", [line for line in LINES + IN_TABLE if clipmem_part(line)])
def test_clipmem_understands_them(line):
    command, bound, _ = app.parse_args(clipmem_part(line), exit_on_error=False, print_error=False)
    assert command.__name__ in {"run", "embeddings"}
    assert bound.arguments.get("engine", "local").startswith(("local", "ray"))


def test_the_tests_it_names_are_there():
    named = set(re.findall(r"tests/[\w/]+\.py", PAGE))
    assert all(list(ROOT.glob(f"tests/e2e/{name}")) for name in re.findall(r"test_\w+\*\.py", PAGE))
    assert len(named) == 3
    assert all((ROOT / name).is_file() for name in named)
