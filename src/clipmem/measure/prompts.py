"""Prompts of zero-shot classification: class names and templates.

By default a class is named by its label, with spaces for `-` and `_`. For labels such as `n01440764`, give a file of
class names.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipmem.base.errors import InputError, shorten
from clipmem.base.require import require
from clipmem.base.suggest import did_you_mean
from clipmem.data.user_tables import read_table

# the plain name comes first: few captions of a small study are sentences about photos
TEMPLATES = ("{}", "a photo of a {}.", "a picture of a {}.")
_HOLES = ("{}", "{c}")
_NAMES = "class names"
_EXAMPLE = "a photo of a {}."


class Prompts(NamedTuple):
    """Prompts of all classes."""

    classes: list[str]
    texts: list[str]
    prompt_class: list[int]
    templates: list[str]


def make_prompts(labels: Sequence[str], names: Mapping[str, Sequence[str]] | None, templates: Sequence[str]) -> Prompts:
    """Insert the names of each class into each template."""
    there = sorted(set(labels) - {""})
    if names is None:
        names = {label: [label.replace("-", " ").replace("_", " ")] for label in there}
    missing = [label for label in there if label not in names]
    for label in missing:
        got = f"none for label {shorten(label)} ({len(missing):,} of {len(there):,} labels have none)"
        hint = did_you_mean(label, names, kind="label")
        raise InputError(_NAMES, got=got, expected="a name for every label of the data", hint=hint)
    got = "no template" if names else "no class"
    require(names and templates, "prompts", got, "at least one", f"Give labels, or a template such as {_EXAMPLE!r}.")
    classes = sorted(names)
    prompts = [
        (k, _fill(template, name)) for k, label in enumerate(classes) for name in names[label] for template in templates
    ]
    return Prompts(classes, [text for _, text in prompts], [k for k, _ in prompts], [*templates])


def _fill(template: str, name: str) -> str:
    # not str.format: templates are user input with arbitrary braces
    return template.replace("{c}", name).replace("{}", name)


def check_templates(templates: Sequence[Any], where: str) -> list[str]:
    """Check that each template has a placeholder for the name, and return the templates."""
    require(templates, where, "no template", "at least one", f"For example: {_EXAMPLE}")
    for template in templates:
        usable = isinstance(template, str) and any(hole in template for hole in _HOLES)
        expected = "sentences with {} or {c} for the class name"
        require(usable, where, shorten(template), expected, f"For example: {_EXAMPLE}")
    return [*templates]


def read_templates(path: Path) -> list[str]:
    """Read templates from a JSON list, or from the lines of any other file."""
    where = f"templates {path}"
    text = _read(path, where, "one template per line, or a JSON list")
    found: Any = _json(text, where) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
    require(isinstance(found, list), where, shorten(found), "a list of texts", f"As in [{_EXAMPLE!r}].")
    return check_templates(found, where)


def read_classnames(path: Path) -> dict[str, list[str]]:
    """Read class names by label, from JSON or CSV."""
    where = f"{_NAMES} {path}"
    if path.suffix.lower() == ".csv":
        found: Any = {}
        for label, name in read_table(path, _NAMES, ("label", "name")).fill_null("").iter_rows():
            found.setdefault(label, []).append(name)
    else:
        found = _json(_read(path, where, "a JSON object, or CSV with the columns label and name"), where)
    usable = isinstance(found, dict) and bool(found)
    hint = 'As in {"n01440764": "tench"}.'
    require(usable, where, shorten(found), "an object: label -> name, or names", hint)
    names = {label: [own] if isinstance(own, str) else own for label, own in found.items()}
    for label, own in names.items():
        named = isinstance(own, list) and own and all(isinstance(name, str) and name.strip() for name in own)
        got = f"{shorten(own)} for label {shorten(label)}"
        require(named, where, got, "a name, or a list of names", "Name every class.")
    return names


def _read(path: Path, where: str, expected: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        got = f"an unreadable file ({shorten(str(error))})" if path.is_file() else "no such file"
        hint = "Check the path: relative paths start at the working directory."
        raise InputError(where, got=got, expected=expected, hint=hint) from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(where, got=f"text that is not JSON ({error})", hint="Correct the file.") from error
