"""Recipes: everything that determines a study's result, as a frozen, validated model read from and written to TOML.

Options that do not change the result, such as the number of processes, are not part of a recipe.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache, partial
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from clipmem.base import sections
from clipmem.base.declared import declared, key_of, load, plugins
from clipmem.base.errors import InputError, require, shorten, shorten_text
from clipmem.base.mitigations import MitigateSection
from clipmem.base.sections import Section as _Section
from clipmem.base.sections import explain, known

_EXAMPLE = "For example: settings={'train.lr': 1e-4}."
Overrides = Sequence[str] | Mapping[str, object]  # settings: ["section.key=value"], or {"section.key": value}


class Recipe(_Section):
    r"""A whole study. `load(dump(recipe)) == recipe`.

    Example:
        >>> load_recipe('[train]\nepochs = 3').train.epochs
        3
    """

    protocol: Annotated[str, AfterValidator(partial(known, "protocols"))] = Field(
        "four-way", description="How f and g are obtained."
    )
    data: sections.DataSection = sections.DataSection()
    split: sections.SplitSection = sections.SplitSection()
    model: sections.ModelSection = sections.ModelSection()
    train: sections.TrainSection = sections.TrainSection()
    subsample: sections.SubsampleSection = sections.SubsampleSection()
    halves: sections.HalvesSection = sections.HalvesSection()
    leave_one_out: sections.LeaveOneOutSection = sections.LeaveOneOutSection()
    given: sections.GivenSection = sections.GivenSection()
    embed: sections.EmbedSection = sections.EmbedSection()
    score: sections.ScoreSection = sections.ScoreSection()
    dejavu: sections.DejavuSection = sections.DejavuSection()
    localize: sections.LocalizeSection = sections.LocalizeSection()
    evaluate: sections.EvaluateSection = sections.EvaluateSection()
    mitigate: MitigateSection = MitigateSection()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as plain data: the class of a recipe with plugin tables is created at run time."""
        return recipe_from, (self.model_dump(),)

    @property
    def _protocol(self) -> Any:
        return declared("protocols", self.protocol)

    @property
    def _objective(self) -> Any:
        return declared("objectives", self.train.objective)

    @model_validator(mode="after")
    def _mirror(self) -> "Recipe":
        split = self.split
        if not self._protocol.trains:  # uses only `external` and the seed of [split]
            return self
        if split.candidate != split.independent:
            raise ValueError(
                f"[split] candidate = {split.candidate} and independent = {split.independent} differ; "
                "f and g must train on the same number of pairs: make them equal"
            )
        if split.planted == 1 or split.planted > split.candidate:
            raise ValueError(
                f"[split] planted = {split.planted} of {split.candidate} candidates; "
                "planted swaps captions between pairs: use 0, or 2 up to the number of candidates"
            )
        if split.planted and split.planted_share:
            raise ValueError("[split] planted and planted_share both swap captions; omit one of them")
        return self

    @model_validator(mode="after")
    def _given_models(self) -> "Recipe":
        target, reference = self.given.target, self.given.reference
        if self._protocol.trains:
            if target or reference:
                text = f"protocol = {self.protocol!r} trains its own models; omit [given], or run protocol = 'given'"
                raise ValueError(text)
            return self
        if not target:
            text = "[given] target is empty; set target = ['FOLDER'] to a model that trained on the candidates, and "
            raise ValueError(f"{text}reference = ['FOLDER'] to one that did not")
        if len(target) != len(reference):
            raise ValueError(
                f"[given] has {len(target)} targets and {len(reference)} references; "
                "each target is compared with the reference at its position: give the same number of both"
            )
        return self

    @model_validator(mode="after")
    def _towers_and_heads(self) -> "Recipe":
        objective, alignment = self.train.objective, self.score.alignment
        needs = declared("alignments", alignment).needs
        if "class head" in needs and not self._protocol.trains:  # the objective is not used
            text = f"alignment = {alignment!r} needs class heads, which given models do not have; choose another one"
            raise ValueError(text)
        if not self._protocol.trains:
            return self
        if "class head" in needs and not self._objective.class_head:
            raise ValueError(
                f"alignment = {alignment!r} needs a class head, but objective = {objective!r} trains none; "
                "set train.objective = 'supervised'"
            )
        if not self._objective.uses_text and {"captions", "caption variants"} & set(needs):
            raise ValueError(
                f"objective = {objective!r} trains no text tower, but alignment = {alignment!r} needs one; "
                "set score.alignment = 'sslmem-image' and embed.views = 6"
            )
        if self.train.record and not (self._objective.uses_text and self._objective.normalizes):
            raise ValueError(
                f"[train] record needs unit embeddings of images and captions, which objective = {objective!r} does "
                "not train; set train.record = false"
            )
        if not self._objective.uses_text and self.evaluate.wordings > 1:
            raise ValueError(
                f"[evaluate] wordings = {self.evaluate.wordings} measures captions, but objective = {objective!r} "
                "trains no text tower; set evaluate.wordings = 1"
            )
        return self

    @model_validator(mode="after")
    def _pretrained(self) -> "Recipe":
        if self.train.adapter != "none" and not self.model.pretrained:
            raise ValueError(f"adapter = {self.train.adapter!r} needs a pretrained model; set model.pretrained")
        if "image" in self.train.freeze and not self._objective.uses_text:
            raise ValueError(f"freeze has 'image', the only tower that objective = {self.train.objective!r} trains")
        if self.evaluate.retained and not self.model.pretrained:
            raise ValueError("[evaluate] retained compares with a pretrained model; set model.pretrained, or omit it")
        if self.model.pretrained and not self._protocol.trains:
            raise ValueError(f"[model] pretrained is set but protocol = {self.protocol!r} trains nothing; omit it")
        return self

    @model_validator(mode="after")
    def _mitigations(self) -> "Recipe":
        names = self.protocol, self.train.objective
        freeze, pretrained = self.train.freeze, bool(self.model.pretrained)
        conflict = self.mitigate.conflict(self._protocol, self._objective, names, freeze, pretrained=pretrained)
        if conflict:
            raise ValueError(conflict)
        return self


def load_recipe(text: str, settings: Overrides = (), *, origin: str = "recipe") -> Recipe:
    """Read a recipe from TOML text, then apply settings such as `train.lr=1e-4`.

    Args:
        text: The TOML document; missing keys have their defaults.
        settings: A list of `section.key=value`, value in TOML (bare words are strings), or a mapping of `section.key`
            to value.
        origin: Name of the text in error messages.

    Raises:
        InputError: The text is not TOML, a key is unknown, or a value is out of range.
    """
    try:
        document = _parsed(text)
    except ValueError as error:
        got = f"text that is not TOML ({shorten_text(str(error), 160)})"
        hint = "Fix that line; `clipmem init` writes a correct file."
        raise InputError(origin, got=got, expected="a TOML document", hint=hint) from error
    return recipe_from(document, settings, origin=origin)


def _parsed(text: str) -> dict[str, Any]:
    """Parse TOML; huge numbers and deep nesting raise a `ValueError`, as wrong TOML does."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        got = "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"
        raise ValueError(got) from error


def as_settings(settings: object) -> list[str]:
    """Return a list of `section.key=value`, from such a list or from a mapping of `section.key` to value."""
    if isinstance(settings, Mapping) and all(isinstance(name, str) and "=" not in name for name in settings):
        return [f"{name}={_toml(value)}" for name, value in settings.items()]
    if isinstance(settings, list | tuple) and all(isinstance(setting, str) for setting in settings):
        return list(settings)
    expected = "['section.key=value', ...] or {'section.key': value, ...}"
    raise InputError("settings", got=shorten(settings), expected=expected, hint=_EXAMPLE)


def recipe_from(document: Mapping[str, object], settings: Overrides = (), *, origin: str = "recipe") -> Recipe:
    """Validate plain data (parsed TOML) as a recipe, with settings applied; see `load_recipe` for the errors."""
    document = deepcopy(dict(document))
    for setting in as_settings(settings):
        _apply(document, setting)
    kind = _assembled(tuple(_brought(document)))
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise explain(error, origin, kind) from None


# table of the recipe ("" = top level) → kind of declarations that add tables to it, and the key that names one
_DECLARED = {
    "": ("protocols", "protocol"),
    "data": ("sources", "source"),
    "train": ("objectives", "objective"),
    "score": ("alignments", "alignment"),
    "mitigate": ("mitigations", ""),
}


def _brought(document: Mapping[str, object]) -> Iterator[tuple[str, str, type[_Section]]]:
    """Yield table, key and class of the settings of the plugins that a document names."""
    for table, (kind, selector) in _DECLARED.items():
        section = document.get(table) if table else document
        if not isinstance(section, Mapping):
            continue
        for name, point in plugins(kind).items():
            key = key_of(name)
            if (section.get(selector) == name or key in section) and key not in _table(table).model_fields:
                settings = getattr(load(point), "Settings", None)
                if settings is not None:
                    yield table, key, settings


def _table(name: str) -> Any:
    return Recipe.model_fields[name].annotation if name else Recipe


@cache
def _assembled(brought: Sequence[tuple[str, str, type[_Section]]]) -> type[Recipe]:
    fields: dict[str, Any] = {key: (settings, settings()) for table, key, settings in brought if not table}
    for table in dict.fromkeys(table for table, *_ in brought if table):
        base = _table(table)
        extensions: dict[str, Any] = {key: (settings, settings()) for name, key, settings in brought if name == table}
        section = create_model(base.__name__, __base__=base, __doc__=base.__doc__, **extensions)
        fields[table] = (section, section())
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **fields) if fields else Recipe


def dump_recipe(recipe: Recipe, *, comments: bool = False) -> str:
    """Write a recipe as TOML with every value; `comments` adds each key's description, as `clipmem init` does."""
    lines = [f'protocol = "{recipe.protocol}"']
    for section_name, section in _sections(recipe):
        lines += ["", f"[{section_name}]"]
        for key, field in _own_fields(section).items():
            line = f"{key} = {_toml(getattr(section, key))}"
            lines.append(f"{line:<39} # {field.description}" if comments else line)
    return "\n".join(lines) + "\n"


def flatten(recipe: Recipe) -> dict[str, object]:
    """Return the recipe as `section.key` → plain value, in order."""
    flat: dict[str, object] = {"protocol": recipe.protocol}
    for name, section in _sections(recipe):
        for key, value in section.model_dump(mode="json", include=set(_own_fields(section))).items():
            flat[f"{name}.{key}"] = value
    return flat


def differences(first: Recipe, second: Recipe) -> list[tuple[str, object, object]]:
    """List the keys that differ, with both values."""
    a, b = flatten(first), flatten(second)
    return [(key, a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)]


def _sections(parent: _Section, path: str = "") -> Iterator[tuple[str, _Section]]:
    """Yield all tables that have keys with their dotted names, parents first."""
    for name in type(parent).model_fields:
        value = getattr(parent, name)
        if path == "data." and name not in ("flaws", key_of(getattr(parent, "source", ""))):  # another source's table
            continue
        if isinstance(value, _Section):
            if _own_fields(value):
                yield f"{path}{name}", value
            yield from _sections(value, f"{path}{name}.")


def _own_fields(section: _Section) -> dict[str, FieldInfo]:
    fields = type(section).model_fields.items()
    return {name: field for name, field in fields if not isinstance(getattr(section, name), _Section)}


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str() | PurePath():
            escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
            # TOML allows no raw control characters in a basic string
            escaped = (escapes.get(c, c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in str(value))
            return f'"{"".join(escaped)}"'
        case tuple() | list():
            return f"[{', '.join(_toml(item) for item in value)}]"  # pyright: ignore[reportUnknownVariableType]
        case _:
            got = f"a value of type {type(value).__name__}"
            raise InputError("settings", got=got, expected="text, numbers, true, false, or lists", hint=_EXAMPLE)


def _apply(document: dict[str, Any], setting: str) -> None:
    path, separator, value = setting.partition("=")
    keys = path.strip().split(".")
    subject, expected = f"--set {shorten(setting)}", "section.key=value"
    got = "no section.key before an =" if separator else "no ="
    require(separator and all(keys), subject, got, expected, "For example: --set train.lr=1e-4.")
    section = document
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        is_table = isinstance(section, dict)  # pyright: ignore[reportUnnecessaryIsInstance]
        require(is_table, subject, f"{shorten(key)} is not a section", expected, "Use section.key=value.")
    section[keys[-1]] = _value(value.strip())


def _value(text: str) -> object:
    """Parse a TOML value; a bare word is a string, in lists as well."""
    try:
        return _parsed(f"value = {text}")["value"]
    except ValueError:
        listed = text.startswith("[") and text.endswith("]") and "[" not in text[1:]
        return [_value(part.strip()) for part in text[1:-1].split(",")] if listed else text
