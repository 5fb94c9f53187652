"""Class names and the sentences they are put into: the prompts of zero-shot classification.

A class has one name or several; with T templates a class of N names has N · T prompts. `{}`, or `{c}` as CLIP_benchmark
writes it, stands for the name. What the shipped data need is in `assets/emoji.json`.

When not to trust a default: a class without a name in the file is called by its label, with spaces for `-` and `_`. A
label such as `n01440764` is no name: give a file.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.suggest import did_you_mean

# plain words first: a model of a small study has seen captions, and few of them are sentences about photos
TEMPLATES = ("{}", "a photo of a {}.", "a picture of a {}.")
_HOLES = ("{}", "{c}")
_NAMES = "class names"


class Prompts(NamedTuple):
    """Prompts of all classes."""

    classes: list[str]
    texts: list[str]
    prompt_class: list[int]
    templates: list[str]


def make_prompts(labels: Sequence[str], names: Mapping[str, Sequence[str]] | None, templates: Sequence[str]) -> Prompts:
    """Put the names of each class into each template.

    Example:
        >>> make_prompts(["hot-dog", "cat"], None, ["a {}"]).texts
        ['a cat', 'a hot dog']
    """
    there = sorted(set(labels) - {""})
    if names is None:
        names = {label: [label.replace("-", " ").replace("_", " ")] for label in there}
    missing = [label for label in there if label not in names]
    if missing:
        raise InputError(
            _NAMES,
            got=f"none for label {shorten(missing[0])} ({len(missing):,} of {len(there):,} labels have none)",
            expected="a name for every label of the data",
            hint=did_you_mean(missing[0], names, kind="label"),
        )
    if not names or not templates:
        raise InputError(
            "prompts",
            got="no class" if not names else "no template",
            expected="at least one",
            hint="Give labels, or a template such as 'a photo of a {}.'.",
        )
    classes = sorted(names)
    prompts = [
        (k, _fill(template, name)) for k, label in enumerate(classes) for name in names[label] for template in templates
    ]
    return Prompts(classes, [text for _, text in prompts], [k for k, _ in prompts], [*templates])


def _fill(template: str, name: str) -> str:
    # no str.format: a template is a user's text, and braces in it may mean anything
    return template.replace("{c}", name).replace("{}", name)


def check_templates(templates: Sequence[Any], where: str) -> list[str]:
    """Return templates, each a text with a place for the name."""
    for template in templates:
        if not isinstance(template, str) or not any(hole in template for hole in _HOLES):
            raise InputError(
                where,
                got=shorten(template),
                expected="sentences with {} or {c} where the class name stands",
                hint="For example: a photo of a {}.",
            )
    if not templates:
        raise InputError(where, got="no template", expected="at least one", hint="For example: a photo of a {}.")
    return [*templates]


def read_templates(path: Path) -> list[str]:
    """Read templates: a JSON list of texts, or one a line in any other file."""
    where = f"templates {path}"
    text = _read(path, where, "one template a line, or a JSON list")
    found: Any = _json(text, where) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
    if not isinstance(found, list):
        raise InputError(where, got=shorten(found), expected="a list of texts", hint='As in ["a photo of a {}."].')
    return check_templates(found, where)


def read_classnames(path: Path) -> dict[str, list[str]]:
    """Read the names of classes."""
    where = f"{_NAMES} {path}"
    if path.suffix.lower() == ".csv":
        found: Any = _csv(path, where)
    else:
        found = _json(_read(path, where, "a JSON object, or CSV with the columns label and name"), where)
    if not isinstance(found, dict) or not found:
        raise InputError(
            where,
            got=shorten(found),
            expected="an object: label -> name, or names",
            hint='As in {"n01440764": "tench"}.',
        )
    names = {label: [own] if isinstance(own, str) else own for label, own in found.items()}
    for label, own in names.items():
        if not isinstance(own, list) or not own or not all(isinstance(name, str) and name.strip() for name in own):
            raise InputError(
                where,
                got=f"{shorten(own)} for label {shorten(label)}",
                expected="a name, or a list of names",
                hint="Name every class.",
            )
    return names


def _csv(path: Path, where: str) -> dict[str, list[str]]:
    try:
        table = pl.read_csv(path, infer_schema=False)
        rows = table.select("label", "name").fill_null("")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(path, where, error, "CSV with the columns label and name") from error
    found: dict[str, list[str]] = {}
    for label, name in rows.iter_rows():
        found.setdefault(label, []).append(name)
    return found


def _read(path: Path, where: str, expected: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, where, error, expected) from error


def _unreadable(path: Path, where: str, error: Exception, expected: str) -> InputError:
    return InputError(
        where,
        got=f"a file that does not read ({shorten(str(error))})" if path.is_file() else "no such file",
        expected=expected,
        hint="Check the path: a relative one starts at the working directory.",
    )


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(where, got=f"text that is not JSON ({error})", hint="Mend the file.") from error


@functools.cache
def _shipped() -> Mapping[str, Any]:
    return json.loads((files("clipmem.evaluate") / "assets" / "emoji.json").read_text(encoding="utf-8"))


def shipped(source: str, labels: str) -> tuple[Mapping[str, Sequence[str]] | None, Sequence[str]]:
    """Return names and templates for a data source: those in the package for emoji, else labels and plain sentences.

    Example:
        >>> shipped("parquet", "label")[0] is None, shipped("emoji", "label")[0]["flags"]
        (True, ['flag'])
    """
    if source != "emoji":
        return None, TEMPLATES
    return _shipped()[labels], _shipped()["templates"]
