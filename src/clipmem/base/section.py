"""Base class of recipe sections (frozen, strict, no unknown keys) and their number types.

Every number has an upper bound far above any use, so that a slip such as `epochs = 1e26` is refused at once.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

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
