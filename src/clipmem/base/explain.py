"""Translate pydantic's validation errors into `InputError`."""

import re
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from clipmem.base.errors import InputError, shorten, shorten_text
from clipmem.base.section import Section
from clipmem.base.suggest import did_you_mean, near_names


def _table_at(root: type[BaseModel], location: Sequence[str | int]) -> tuple[int, type[BaseModel]]:
    """Follow a location in a recipe through its tables; return the number of tables and the last one."""
    table = root
    for depth, name in enumerate(location):
        field = table.model_fields.get(str(name))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return depth, table
        table = inner
    return len(location), table


# pydantic's error type → expected value
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_too_large": "a whole number of at most 64 bits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "nul": "text without the character NUL",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a table of keys",
    "dict_type": "a table of keys",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "string_too_short": "text of {min_length} or more characters",
    "too_short": "a list of {min_length} or more values",
    "too_long": "a list of at most {max_length} values",
    "missing": "a list of more values",
    "literal_error": "{expected}",
}


def explain(error: ValidationError, origin: str, root: type[BaseModel]) -> InputError:
    """Convert the first validation error, with the number of further ones."""
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    depth, table = _table_at(root, location[:-1])
    section = f"[{'.'.join(location[:depth])}] " if depth else ""
    key = ".".join(shorten_text(part) for part in location[depth:])
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    what, context = f"{origin}: {section}{key}{more}", problem.get("ctx", {})
    removed = table.removed if issubclass(table, Section) else {}
    if problem["type"] == "extra_forbidden":
        hint = removed.get(location[-1]) or did_you_mean(location[-1], table.model_fields, kind="key")
        return InputError(what, got="an unknown key", expected=f"a key of {section.strip() or 'the recipe'}", hint=hint)
    if problem["type"] == "value_error":  # raised by the recipe's own validators
        where = f"[{'.'.join(location)}] " if location else ""
        own = context.get("error")
        if isinstance(own, InputError):
            return InputError(f"{origin}: {where}{own.what}{more}", got=own.got, expected=own.expected, hint=own.hint)
        return InputError(f"{origin}: {where}{problem['msg'].removeprefix('Value error, ')}{more}.")
    value, hint = problem["input"], "`clipmem init` prints every key with its meaning."
    if problem["type"] == "literal_error" and isinstance(value, str):
        near = near_names(value, re.findall("'([^']*)'", str(context["expected"])))
        hint = removed.get(value) or (f"Did you mean {' or '.join(map(repr, near))}?" if near else hint)
    expected = _EXPECTED.get(problem["type"], "another value").format_map(context)
    return InputError(what, got=shorten(value), expected=expected, hint=hint)
