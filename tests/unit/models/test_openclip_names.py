"""Every name of open_clip that the package uses is there: with another open_clip, this says which one is missing."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "src" / "clipmem"


def used():
    """Names of open_clip in all modules, as module and name: imported ones, and attributes of the module itself."""
    names = set()
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "open_clip":
                names |= {(node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "open_clip":
                names.add(("open_clip", node.attr))
    return sorted(names)


def test_the_list_has_the_private_names():
    assert {("open_clip.model", "CLIP"), ("open_clip.transformer", "VisionTransformer")} <= set(used())
    assert ("open_clip", "create_model") in used()


@pytest.mark.parametrize(("module", "name"), used(), ids=".".join)
def test_open_clip_has(module, name):
    assert hasattr(import_module(module), name), f"open_clip has no {module}.{name}"
