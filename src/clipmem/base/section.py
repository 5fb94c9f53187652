"""What every section of a recipe is: frozen, strict, no unknown keys; and the kinds of numbers in them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A table of a recipe."""

    # strict: `epochs = "40"` or `epochs = 40.5` is a mistake, not a number to round
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Refuse what no setting can mean: integers beyond TOML's 64 bits, and the character NUL."""
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, int) and not -(2**63) <= one < 2**63:
                raise PydanticCustomError("int_too_large", "more than 64 bits")
            if isinstance(one, str) and "\0" in one:
                raise PydanticCustomError("nul", "the character NUL")
        return value
