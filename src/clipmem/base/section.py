"""Base class of recipe sections (frozen, strict, no unknown keys), their number types, and their errors in four parts.

Every number has an upper bound far above any use, so that a slip such as `epochs = 1e26` is refused at once.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from clipmem.base.errors import InputError, did_you_mean, near_names, shorten, shorten_text

Positive = Annotated[float, Field(gt=0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=0, le=1_000_000)]
# the largest published data set has 5.85 billion pairs
MOST_PAIRS = 10_000_000_000
PairCount = Annotated[int, Field(ge=1, le=MOST_PAIRS)]
# each is one more forward pass, or one more stored text, per pair
Views = Annotated[int, Field(ge=1, le=1000)]
OptionalViews = Annotated[int, Field(ge=0, le=1000)]
# tables store seeds as int64
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Section(BaseModel):
    """A table of a recipe.

    Attributes:
        removed: A hint for each key or value of an earlier version that is gone.
    """

    removed: ClassVar[Mapping[str, str]] = {}

    # strict: `epochs = "40"` and `epochs = 40.5` are errors
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Refuse integers beyond TOML's 64 bits and the character NUL."""
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, int) and not -(2**63) <= one < 2**63:
                raise PydanticCustomError("int_too_large", "more than 64 bits")
            if isinstance(one, str) and "\0" in one:
                raise PydanticCustomError("nul", "the character NUL")
        return value


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
