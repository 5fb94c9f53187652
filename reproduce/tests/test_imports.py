"""The package stands on the public API of clipmem and the names that its README lists; clipmem does not know it."""

import ast
import re
from pathlib import Path

import clipmem

HERE = Path(__file__).parents[1]
ROWS = re.findall(
    r"^\| `(clipmem\.[\w.]+)` \| ([^|]+) \|", (HERE / "README.md").read_text(encoding="utf-8"), re.MULTILINE
)
LISTED = {f"{module}.{name}" for module, names in ROWS for name in re.findall(r"`(\w+)`", names)}


def imports(folder):
    """The names that the modules of a folder import, with their module."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)


def test_names_without_a_public_way_are_those_of_the_readme():
    public = {f"clipmem.{name}" for name in clipmem.__all__} | {"clipmem"}
    used = {name for name in imports(HERE / "clipmem_reproduce") if name.partition(".")[0] == "clipmem"}
    assert {name for name in used - public if not name.startswith("clipmem.functional.")} == LISTED


def test_clipmem_does_not_import_it():
    assert not [name for name in imports(Path(clipmem.__file__).parent) if name.startswith("clipmem_reproduce")]
