"""What every section of a recipe is: frozen, strict, and closed to keys that it does not know."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a recipe."""

    # strict: `epochs = "40"` or `epochs = 40.5` is a mistake, not a number to round
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
