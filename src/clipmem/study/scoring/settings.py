"""What decides scores besides models, pairs and bank."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from clipmem.base.errors import InputError
from clipmem.base.recipes import EmbedSection, recipe_from
from clipmem.study import execution
from clipmem.study.scoring.sides import Side, open_side


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
                "score": {"weight": float(self.weight), "confidence": float(self.confidence)},
            },
            origin="score",
        )
        if self.block is not None and self.block < 1:
            raise InputError("block", got=f"{self.block}", expected="1 or more", todo="Leave it out.")
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
