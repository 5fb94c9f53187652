"""Commands: those of other packages, and what the shell does with arguments."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest

from clipmem.base.errors import InputError
from clipmem.cli.arguments import Check
from clipmem.cli.shell import checked, command, command_line

MODULE = '''
def greet(name: str, /):
    """Greet a user.

    Args:
        name: Who.
    """
    print(f"hello {name}")
'''


@pytest.fixture
def package(tmp_path):
    """An installed package with a command."""
    (tmp_path / "greeting.py").write_text(MODULE)
    info = tmp_path / "greeting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[clipmem.commands]\ngreet = greeting:greet\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


def typed(environment, *words):
    return subprocess.run(
        [sys.executable, "-m", "clipmem", *words], capture_output=True, text=True, check=False, env=environment
    )


def test_a_package_adds_a_command(package):
    assert "Greet a user." in typed(package, "--help").stdout
    assert typed(package, "greet", "you").stdout == "hello you\n"


def test_a_broken_package_is_named(package, tmp_path):
    (tmp_path / "greeting.py").write_text("import nothing_of_that_name\n")
    done = typed(package, "--help")
    assert done.returncode == 2
    assert "greet" in done.stderr
    assert "Update or uninstall greeting." in done.stderr


def test_arguments_are_checked_with_the_name_of_their_option():
    seen = []
    kind = Annotated[str, Check(lambda value, option: seen.append(option) or value.upper(), opens=True)]

    @command
    def act(first: kind, /, *, some_name: kind | None = None, other: kind = "default") -> str:
        """Act."""
        return f"{first} {some_name} {other}"

    act("a", some_name="b")
    assert seen == ["first", "--some-name"]  # a default is not checked
    with pytest.raises(InputError):
        checked("--out", Path("x\0y"), Path)


def test_a_command_line_is_written_as_it_was_typed():
    line = command_line("run", Path("a b.toml"), settings=["train.lr=1e-4"], out=Path("runs/x"), budget=None, yes=True)
    assert line == "clipmem run 'a b.toml' --set train.lr=1e-4 --out runs/x --yes"
