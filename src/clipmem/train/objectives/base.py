"""The interface of objectives: a loss on a batch, with parameters of its own.

All objectives share the image tower, the images, the order of batches and the number of epochs. A comparison must
mention two differences: an objective with two views passes every image twice per sample, and one without text
leaves the text tower at its initial weights.
"""
# ruff: noqa: ARG003  (defaults use no argument)

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from clipmem.base.errors import InputError, require
from clipmem.base.registry import Registry
from clipmem.base.sections import Section, TrainSection
from clipmem.models.numerics import computing
from clipmem.models.protocol import TrainableEncoder
from clipmem.stats.checks import Codes
from clipmem.train.distributed import ALONE, World
from clipmem.train.hooks import NO_HOOKS, Hooks, Kind, Moment

OBJECTIVE_FILE = "objective.safetensors"
# a tower's inputs; its embeddings if it is frozen
Images = Float[Tensor, "n *image"]
Texts = Shaped[Tensor, "n width"]
Labels = Int[Tensor, " n"] | None  # class index of each pair


@dataclass(frozen=True)
class Towers:
    """A model for objectives: forward passes in the training's precision, embeddings in float32.

    The loss is computed in float32, because the 3 digits of bf16 are too few for a softmax over similarities.
    """

    encoder: TrainableEncoder
    precision: str = "fp32"
    device: str = "cpu"
    world: World = ALONE
    hooks: Hooks = NO_HOOKS
    moment: Moment | None = None
    frozen: Set[str] = frozenset()

    def encode_image(self, pixels: Images) -> Float[Tensor, "n d"]:
        """Embed normalized images, without normalizing the embeddings; a frozen tower's inputs are its embeddings."""
        return self._encoded("image", self.encoder.encode_image, pixels)

    def encode_text(self, tokens: Texts) -> Float[Tensor, "n d"]:
        """Embed captions, without normalizing the embeddings; a frozen tower's inputs are its embeddings."""
        return self._encoded("text", self.encoder.encode_text, tokens)

    def _encoded(self, kind: Kind, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        if kind in self.frozen:
            return inputs
        with computing(self.precision, self.device, tokens=self.encoder.tokens):
            return encode(inputs).float()

    def unit(self, kind: Kind, raw: Float[Tensor, "n d"], view: int = 0) -> Float[Tensor, "n d"]:
        """Normalize embeddings, with the hooks' changes before and after."""
        if self.moment is None:
            return F.normalize(raw, dim=-1)
        moment = self.moment
        raw = self.hooks.through(lambda hook, rows: hook.embedding(kind, rows, moment, view), raw)
        return self.hooks.through(lambda hook, rows: hook.unit(kind, rows, moment, view), F.normalize(raw, dim=-1))

    def weights(self, like: Tensor) -> Float[Tensor, " n"] | None:
        """Return the weight of each pair in the loss, float32 on the device of `like`; None if no hook weighs them."""
        if self.moment is None:
            return None
        moment, ones = self.moment, torch.ones(len(self.moment.slots))
        weights = self.hooks.through(lambda hook, w: hook.weigh(w, moment), ones)
        return None if weights is ones else weights.to(like.device)

    def logit_scale(self) -> Float[Tensor, ""]:
        """The exponentiated logit scale."""
        return self.encoder.logit_scale()


class Objective(nn.Module):
    """A loss and its own parameters, such as a head or a bias.

    Class attributes:
        needs_labels: Every pair must have a class index.
        uses_text: Whether the text tower and the logit scale are trained.
        softmax: Whether its logits are the model's similarities times its logit scale, in a softmax over the batch.
        class_head: Whether it trains one (see `head_of`).
        normalizes: Whether the loss uses unit vectors, from `Towers.unit`.
        Settings: Its table in the recipe's `[train]`, under its name; None for none.
        views: Number of random views of each image in a batch.
        shares: Whether it returns a process's share of the loss on several processes.
        weighs: Whether pairs can have weights in the loss, from `Towers.weights`.
    """

    needs_labels: ClassVar[bool] = False
    name: ClassVar[str] = ""
    Settings: ClassVar[type[Section] | None] = None
    uses_text: ClassVar[bool] = True
    softmax: ClassVar[bool] = False
    class_head: ClassVar[bool] = False
    normalizes: ClassVar[bool] = True
    views: ClassVar[int] = 1
    shares: ClassVar[bool] = False
    weighs: ClassVar[bool] = False

    @classmethod
    def create(cls, encoder: TrainableEncoder, settings: TrainSection, *, classes: int, seed: int) -> "Objective":
        """Create the objective for a model; `classes` is 0 without labels, `seed` is for its own parameters."""
        return cls()

    @classmethod
    def head_of(cls, state: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor] | None:
        """Return the class head with these trained parameters, if the objective has one."""
        return None

    def prepare(self, encoder: TrainableEncoder) -> None:
        """Change the model's initial parameters for this objective."""

    def finish(self, encoder: TrainableEncoder) -> None:
        """Change the trained model, for example to hold the objective's parameters."""

    def facts(self) -> dict[str, int]:
        """Return facts for `record.json` that must be the same for f and g and are not in the settings."""
        return {}

    def forward(self, encoder: Towers, views: Sequence[Images], tokens: Texts, labels: Labels) -> Float[Tensor, ""]:
        """Return the loss of a batch; on several processes, this one's share (see `clipmem.train.distributed`).

        Args:
            encoder: The model.
            views: Normalized images, one tensor per view, with the pairs in the same order.
            tokens: One caption of each pair.
            labels: The class index of each pair, or None.
        """
        raise NotImplementedError


OBJECTIVES: Registry[Objective] = Registry("objective", Objective)


def create_objective(
    encoder: TrainableEncoder, settings: TrainSection, *, labels: Codes | None, classes: int, n: int, seed: int
) -> Objective:
    """Create the objective of a recipe's `[train]` section."""
    objective = OBJECTIVES[settings.objective]
    if not objective.needs_labels:
        return objective.create(encoder, settings, classes=0, seed=seed)
    if labels is None:
        subject = f"[train] objective = {settings.objective!r}"
        hint = "Set data.label_column, or choose another objective."
        raise InputError(subject, got="pairs without labels", expected="a class index for every pair", hint=hint)
    got, hint = f"{len(labels)} for {n} pairs", "Give every pair its class index."
    require(len(labels) == n, "labels", got, "one per pair", hint)
    low, high = int(labels.min()), int(labels.max())
    count = classes or high + 1
    expected = f"class indices from 0 to {count - 1}"
    hint = "Number the classes from 0, and omit pairs without a class."
    require(low >= 0 and high < count, "labels", f"values from {low} to {high}", expected, hint)
    require(count > 1, "labels", "one class", "two or more", "Choose a column with several classes.")
    return objective.create(encoder, settings, classes=count, seed=seed)
