"""What decides scores besides models, pairs and bank."""

from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal

from clipmem.base.errors import InputError, shorten
from clipmem.base.recipes import EmbedSection, recipe_from
from clipmem.study import execution
from clipmem.study.scoring.sides import Side, open_side


def _plain(value: object) -> object:
    """Return numbers of other libraries as Python's own, and all else as it is, to be refused."""
    return float(value) if isinstance(value, Real) else value


@dataclass(frozen=True)
class Settings:
    """What decides the scores besides models, pairs and bank.

    Attributes:
        views: Random image views of a pair; 0 = the picture as it is.
        captions: Captions used of each pair; None = all.
        precision: `fp32`, or `bf16` autocast.
        batch_size: Pictures or captions in a forward pass.
        bank_size: How many pairs are drawn as the bank where none is given.
        seed: Seed of that draw.
        weight: w of the alignment.
        confidence: Level of the intervals over several pairs of models.
        block: Pairs in a block; None = 1,024 where pictures are decoded, 8,192 where not.
        device: `auto`, `cpu` or `cuda`.
    """

    views: int = 0
    captions: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = 256
    bank_size: int = 200
    seed: int = 0
    weight: float = 1.0
    confidence: float = 0.95
    block: int | None = None
    device: str = "auto"

    def checked(self) -> "Settings":
        """Check the values, and return them with a device.

        Raises:
            InputError: One is out of range, or there is no such device.
        """
        recipe = recipe_from(
            {
                "embed": {"views": self.views, "batch_size": self.batch_size},
                "train": {"captions": 1 if self.captions is None else self.captions, "precision": self.precision},
                "score": {"weight": _plain(self.weight), "confidence": _plain(self.confidence)},
            },
            origin="score",
        )
        whole = {"bank_size": (self.bank_size, 0), "seed": (self.seed, None), "block": (self.block, 1)}
        for name, (value, least) in whole.items():
            if value is not None and not (isinstance(value, Integral) and (least is None or value >= least)):
                expected = "a whole number" if least is None else f"a whole number, {least} or more"
                raise InputError(name, got=shorten(value), expected=expected, hint="Omit it for the default.")
        return replace(self, device=execution.resolve(recipe, 1, device=self.device).device)

    @property
    def embed(self) -> EmbedSection:
        """The part of a recipe that says how pairs are embedded."""
        return EmbedSection(views=self.views, batch_size=self.batch_size)  # pyright: ignore[reportCallIssue]

    def side(self, address: str) -> Side:
        """Open a model or a folder of embeddings."""
        return open_side(address, self.embed, device=self.device, precision=self.precision)

    def made_with(self) -> dict[str, Any]:
        """Return what decides an embedding besides the model and the pairs."""
        names = ("views", "captions", "precision", "batch_size", "device")
        return {name: getattr(self, name) for name in names}
