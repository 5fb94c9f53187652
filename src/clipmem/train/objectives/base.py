"""What an objective is: a loss on one batch, and the parameters that it needs beside the model's.

All objectives share the image tower, the images, the order of the batches and the number of epochs. Two things differ
between them, and a comparison must say so: an objective with two views puts every image through the image tower
twice a presentation, and one that uses no text leaves the text tower at its initial weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipmem.base.errors import InputError
from clipmem.base.registry import Registry
from clipmem.base.require import require
from clipmem.base.section import Section
from clipmem.base.sections import TrainSection
from clipmem.models.openclip import OpenClipEncoder
from clipmem.train.distributed import ALONE, World
from clipmem.train.hooks import NO_HOOKS, Hooks, Kind, Moment
from clipmem.train.numerics import computing

OBJECTIVE_FILE = "objective.safetensors"


@dataclass(frozen=True)
class Towers:
    """A model as an objective sees it: passes in the training's precision, embeddings in float32.

    The loss stays in float32: bf16 has 3 digits, too few for a softmax over similarities.
    """

    encoder: OpenClipEncoder
    precision: str
    device: str
    world: World = ALONE
    hooks: Hooks = NO_HOOKS
    moment: Moment | None = None

    def encode_image(self, pixels: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n d"]:
        """Embed normalized images; the embeddings are not normalized."""
        with computing(self.precision, self.device, tokens=self.encoder.tokens):
            image = self.encoder.encode_image(pixels)
        return image.float()

    def encode_text(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
        """Embed captions; the embeddings are not normalized."""
        with computing(self.precision, self.device, tokens=self.encoder.tokens):
            text = self.encoder.encode_text(tokens)
        return text.float()

    def unit(self, kind: Kind, raw: Float[Tensor, "n d"], view: int = 0) -> Float[Tensor, "n d"]:
        """Normalize embeddings, and let the hooks change them before and after."""
        if self.moment is None:
            return F.normalize(raw, dim=-1)
        moment = self.moment
        raw = self.hooks.through(lambda hook, rows: hook.embedding(kind, rows, moment, view), raw)
        return self.hooks.through(lambda hook, rows: hook.unit(kind, rows, moment, view), F.normalize(raw, dim=-1))

    def logit_scale(self) -> Float[Tensor, ""]:
        """The exponentiated logit scale."""
        return self.encoder.logit_scale()


class Objective(nn.Module):
    """A loss, and its own parameters (a head, a bias): those of this `nn.Module`.

    Class attributes say what an objective needs:
        needs_labels: Every pair must have a class index.
        uses_text: The text tower and the logit scale are trained; otherwise nothing outside the image tower is touched.
        class_head: It trains one (see `head_of`).
        normalizes: Embeddings reach the loss as unit vectors, through `Towers.unit`.
        Settings: The table that it brings to the recipe's `[train]`, under its name; None for none.
        views: Random views of each image in a batch, 1 or more.
        shares: On several processes it returns this one's share of the loss.
    """

    needs_labels: ClassVar[bool] = False
    name: ClassVar[str] = ""
    Settings: ClassVar[type[Section] | None] = None
    uses_text: ClassVar[bool] = True
    class_head: ClassVar[bool] = False
    normalizes: ClassVar[bool] = True
    views: ClassVar[int] = 1
    shares: ClassVar[bool] = False

    @classmethod
    def create(cls, encoder: OpenClipEncoder, settings: TrainSection, *, classes: int, seed: int) -> "Objective":  # noqa: ARG003
        """Make the objective for a model.

        Args:
            encoder: The model that will be trained.
            settings: The recipe's `[train]` section.
            classes: Number of classes; 0 without labels.
            seed: Seed of the objective's own initial parameters.
        """
        return cls()

    @classmethod
    def head_of(cls, state: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor] | None:  # noqa: ARG003
        """Return the class head whose trained parameters these are; by default an objective has none."""
        return None

    def prepare(self, encoder: OpenClipEncoder) -> None:
        """Set what this objective starts otherwise in the model itself; by default nothing."""

    def facts(self) -> dict[str, int]:
        """Return what must be the same for f and g and is not in the settings; goes into `record.json`."""
        return {}

    def forward(
        self,
        encoder: Towers,
        views: Sequence[Float[Tensor, "n 3 size size"]],
        tokens: Int[Tensor, "n length"],
        labels: Int[Tensor, " n"] | None,
    ) -> Float[Tensor, ""]:
        """Return the loss of one batch; on several processes, this one's share (see `clipmem.train.distributed`).

        Args:
            encoder: The model.
            views: Normalized images, one tensor a view, all of the same pairs in the same order.
            tokens: One caption of each pair.
            labels: The class index of each pair, or None.
        """
        raise NotImplementedError


OBJECTIVES: Registry[Objective] = Registry("objective", Objective)


def create_objective(
    encoder: OpenClipEncoder,
    settings: TrainSection,
    *,
    labels: Int[np.ndarray, " n"] | None,
    classes: int,
    n: int,
    seed: int,
) -> Objective:
    """Make the objective that a recipe's `[train]` section names."""
    chosen = OBJECTIVES[settings.objective]
    count = _class_count(settings.objective, labels, classes, n) if chosen.needs_labels else 0
    return chosen.create(encoder, settings, classes=count, seed=seed)


def _class_count(name: str, labels: np.ndarray | None, classes: int, n: int) -> int:
    if labels is None:
        what, hint = f"[train] objective = {name!r}", "Set data.label_column, or choose another objective."
        raise InputError(what, got="pairs without labels", expected="a class index for every pair", hint=hint)
    got, hint = f"{len(labels)} for {n} pairs", "Give every pair its class index."
    require(len(labels) == n, "labels", got, "one a pair", hint)
    low, high = int(labels.min()), int(labels.max())
    count = classes or high + 1
    expected = f"class indices from 0 to {count - 1}"
    hint = "Number the classes from 0, and omit pairs without a class."
    require(low >= 0 and high < count, "labels", f"values from {low} to {high}", expected, hint)
    require(count > 1, "labels", "one class", "two or more", "Choose a column that tells pairs apart.")
    return count


def embedding_width(encoder: OpenClipEncoder) -> int:
    """Return d, the width of the embeddings, from a pass of one empty image.

    The pass is one of evaluation, so that it moves neither the random numbers nor a batch norm's averages.
    """
    before = encoder.module.training
    device = next(encoder.module.parameters()).device
    try:
        encoder.module.eval()
        with torch.inference_mode():
            empty = torch.zeros(1, 3, encoder.image_size, encoder.image_size, device=device)
            return encoder.encode_image(empty).shape[1]
    finally:
        encoder.module.train(before)
