"""What every section of a recipe is: frozen, strict, no unknown keys; and the kinds of numbers in them.

Every number has a largest value, far above any use, so that a slip such as `epochs = 1e26` is refused before anything
is read. Below it, `clipmem run` estimates time, memory and disk space.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[float, Field(gt=0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=0, le=1_000_000)]
# the largest published image-text data have 5.85 billion pairs
MOST_PAIRS = 10_000_000_000
PairCount = Annotated[int, Field(ge=1, le=MOST_PAIRS)]
# each is one more forward pass of a pair, or one more text that is kept of it
Views = Annotated[int, Field(ge=1, le=1000)]
OptionalViews = Annotated[int, Field(ge=0, le=1000)]
# tables hold seeds in 64 bits
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


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
