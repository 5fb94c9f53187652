"""Hooks: the places where a mitigation changes a training, and what it may change there.

The loop and the objectives call every hook at each place; what a hook does not define passes unchanged, and with no
hook the training is bitwise the one without this module. A hook draws from streams that are addressed by (seed, step
or epoch, pair): what it does to a pair depends neither on the rest of the batch nor on how many processes train, and is
the same in f and in g for the pairs they share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8, UInt64
from torch import Tensor

from clipmem.base.sections import TrainSection
from clipmem.data.views import Crops

T = TypeVar("T")
Kind = Literal["image", "text"]
# sizes differ by one: the axis has no name
Batches = list[Int[np.ndarray, " _"]]


class Moment(NamedTuple):
    """Where a training is, and which pairs this process has in its hands.

    Attributes:
        seed: Seed of this pair of models: the same for f and g.
        epoch: Number of the epoch, from 0.
        step: Number of the step, from 0.
        slots: The pairs' places in the training set, shape (n,).
        keys: The pairs' 64-bit keys (see `clipmem.data.views.pair_keys`), shape (n,).
    """

    seed: int
    epoch: int
    step: int
    slots: Int[np.ndarray, " n"]
    keys: UInt64[np.ndarray, " n"]


class Hook:
    """A change of a training; every method's default is none.

    Class attributes:
        name: What it is called in `record.json`: the name of its section, `[mitigate.NAME]`.
    """

    name: ClassVar[str] = ""

    def facts(self) -> dict[str, Any]:
        """Return its settings, which must be the same for f and g; they go into `record.json`."""
        return {}

    def content(self) -> str:
        """Return a hash of the data that it brings, so that a checkpoint made with others is not taken up."""
        return ""

    def settings(self, train: TrainSection) -> TrainSection:
        """Change the `[train]` section."""
        return train

    def last_step(self, steps: int) -> int:
        """Return after how many of `steps` steps the training ends."""
        return steps

    def captions(
        self,
        captions: Sequence[Sequence[str]],
        uids: Sequence[str],  # noqa: ARG002
        first: Sequence[int],  # noqa: ARG002
    ) -> list[list[str]]:
        """Return texts that each pair brings along beside its captions; called once, before training.

        Args:
            captions: The captions of each pair.
            uids: The pairs.
            first: The number that the first of these texts has among its pair's: after those of the hooks before.
        """
        return [[] for _ in captions]

    def choose(self, chosen: Int[np.ndarray, " n"], moment: Moment) -> Int[np.ndarray, " n"]:  # noqa: ARG002
        """Choose which text of each pair is shown, of its captions and then those that hooks brought along.

        Args:
            chosen: Number of each pair's text; from this hook, one of the pair's own texts, from 0.
            moment: The pairs.
        """
        return chosen

    def tokens(self, tokens: Int[Tensor, "n length"], moment: Moment) -> Int[Tensor, "n length"]:  # noqa: ARG002
        """Change the chosen captions, as token ids padded with 0."""
        return tokens

    def images(
        self,
        values: Float[Tensor, "n 3 size size"],
        pixels: UInt8[Tensor, "n side side 3"],  # noqa: ARG002
        crops: Crops,  # noqa: ARG002
        moment: Moment,  # noqa: ARG002
        view: int,  # noqa: ARG002
    ) -> Float[Tensor, "n 3 size size"]:
        """Change a view.

        Args:
            values: The view, values in [0, 1].
            pixels: The whole images that it was cut from.
            crops: Where it was cut.
            moment: The pairs.
            view: Number of the view, from 0.
        """
        return values

    def embedding(self, kind: Kind, raw: Float[Tensor, "n d"], moment: Moment, view: int) -> Float[Tensor, "n d"]:  # noqa: ARG002
        """Change embeddings before they are normalized."""
        return raw

    def unit(self, kind: Kind, unit: Float[Tensor, "n d"], moment: Moment, view: int) -> Float[Tensor, "n d"]:  # noqa: ARG002
        """Change embeddings after they were normalized; the loss is taken of what is returned."""
        return unit

    def batches(self, batches: Batches, epoch: int) -> Batches:  # noqa: ARG002
        """Lay an epoch's batches anew: the same slots, as many batches."""
        return batches


@dataclass(frozen=True)
class Hooks:
    """All hooks of a training, applied one after the other in this order; none by default."""

    all: tuple[Hook, ...] = ()

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return the settings of all, by name."""
        return {hook.name: hook.facts() for hook in self.all}

    def content(self) -> list[str]:
        """Return the hashes of what all bring."""
        return [hook.content() for hook in self.all]

    def through(self, change: Callable[[Hook, T], T], value: T) -> T:
        """Let every hook change a value, one after the other."""
        for hook in self.all:
            value = change(hook, value)
        return value

    def last_step(self, steps: int) -> int:
        """Return the first of the ends."""
        return min([steps, *(hook.last_step(steps) for hook in self.all)])

    def captions(self, captions: Sequence[Sequence[str]], uids: Sequence[str]) -> list[list[str]]:
        """Return the texts of each pair: its captions, then those of each hook."""
        texts = [list(own) for own in captions]
        for hook in self.all:
            for own, more in zip(texts, hook.captions(captions, uids, [len(own) for own in texts]), strict=True):
                own += more
        return texts

    def batches(self, batches: Batches, epoch: int) -> Batches:
        """Return an epoch's batches as the hooks lay them."""
        return self.through(lambda hook, laid: hook.batches(laid, epoch), batches)


NO_HOOKS = Hooks()
