"""What every section of a recipe is: frozen, strict, no unknown keys; and the kinds of numbers in them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A table of a recipe."""

    # strict: `epochs = "40"` or `epochs = 40.5` is a mistake, not a number to round
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
