"""Hooks: the points at which a mitigation can change a training.

The training loop and the objectives call each method of every hook; methods that a hook does not define change nothing.
Random numbers of a hook are functions of (seed, step or epoch, pair), so its effect on a pair depends neither on the
rest of the batch nor on the number of processes, and is the same in f and g for shared pairs.
"""
# ruff: noqa: ARG002  (by default a hook changes nothing)

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt64
from torch import Tensor, nn

from clipmem.base.sections import TrainSection
from clipmem.data.views import Crops, Images, Pixels
from clipmem.train.distributed import World
from clipmem.train.recorder import TRAJECTORY_FILE, AlignmentRecorder

T = TypeVar("T")
Weights = Sequence[tuple[str, Tensor]]
Kind = Literal["image", "text"]
# sizes differ by one, so the axis has no name
Batches = list[Int[np.ndarray, " _"]]


class Moment(NamedTuple):
    """A step of a training, and this process's pairs in it.

    Attributes:
        seed: Seed of this pair of models, the same for f and g.
        epoch: From 0.
        step: From 0.
        slots: Indices of the pairs in the training set, shape (n,).
        keys: 64-bit keys of the pairs (see `clipmem.data.views.pair_keys`), shape (n,).
    """

    seed: int
    epoch: int
    step: int
    slots: Int[np.ndarray, " n"]
    keys: UInt64[np.ndarray, " n"]


class Hook:
    """A change of a training; every method changes nothing by default.

    Class attributes:
        name: Its name in `record.json`, that of its section `[mitigate.NAME]`.
        changes: Whether it changes the training; if not, `record.json` does not mention it.
        follows: Whether it reads the record of the training, which is made then.
    """

    name: ClassVar[str] = ""
    changes: ClassVar[bool] = True
    follows: ClassVar[bool] = False

    def facts(self) -> dict[str, object]:
        """Return its settings for `record.json`, which must be the same for f and g."""
        return {}

    def content(self) -> str:
        """Return a hash of its data, so that checkpoints made with other data are ignored."""
        return ""

    def settings(self, train: TrainSection) -> TrainSection:
        """Change the `[train]` section."""
        return train

    def last_step(self, steps: int) -> int:
        """Return the last of `steps` steps to run."""
        return steps

    def captions(self, captions: Sequence[Sequence[str]], uids: Sequence[str], first: Sequence[int]) -> list[list[str]]:
        """Return additional texts of each pair; called once, before training.

        Args:
            captions: The captions of each pair.
            uids: The pairs.
            first: Index that the first of these texts will have among its pair's texts.
        """
        return [[] for _ in captions]

    def choose(self, choice: Int[np.ndarray, " n"], moment: Moment) -> Int[np.ndarray, " n"]:
        """Choose the text of each pair, as an index into its captions followed by the hooks' texts."""
        return choice

    def tokens(self, tokens: Int[Tensor, "n length"], moment: Moment) -> Int[Tensor, "n length"]:
        """Change the chosen texts, token ids padded with 0."""
        return tokens

    def images(self, values: Images, pixels: Pixels, crops: Crops, moment: Moment, view: int) -> Images:
        """Change a view.

        Args:
            values: The view, values in [0, 1].
            pixels: The uncropped images.
            crops: The crops of the view.
            moment: The pairs.
            view: Number of the view, from 0.
        """
        return values

    def embedding(self, kind: Kind, raw: Float[Tensor, "n d"], moment: Moment, view: int) -> Float[Tensor, "n d"]:
        """Change embeddings before they are normalized."""
        return raw

    def unit(self, kind: Kind, unit: Float[Tensor, "n d"], moment: Moment, view: int) -> Float[Tensor, "n d"]:
        """Change embeddings after they are normalized; the result goes to the loss."""
        return unit

    def follow(self, record: AlignmentRecorder) -> None:
        """Take the record of the training, before the first step; checkpoints keep it."""

    def weigh(self, weights: Float[Tensor, " n"], moment: Moment) -> Float[Tensor, " n"]:
        """Change the weights of the pairs in the loss, 1 each at first; the same tensor means no change."""
        return weights

    def batches(self, batches: Batches, epoch: int) -> Batches:
        """Rearrange the slots of an epoch; the number of batches must not change."""
        return batches

    def begin(self, module: nn.Module) -> None:
        """Read the model before training."""

    def step(self, weights: Weights, decay: float) -> None:
        """Read the trained weights; called before the first step and after every step.

        Args:
            weights: Trained parameters and averages of batch norm, by name. The token embedding may have only the rows
                that the captions use.
            decay: What training has multiplied its other rows by.
        """

    def end(self, weights: Weights, decay: float) -> float:
        """Change the trained weights in place after the last step; return what to multiply the other rows by."""
        return decay

    def after(self, module: nn.Module) -> None:
        """Change the trained model in place before it is written."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state that steps change, for checkpoints."""
        return {}

    def write(self, folder: Path) -> list[Path]:
        """Write files of its own into the model's folder; return them."""
        return []


class Recorder(Hook):
    """`[train] record`: the recorder in a study's training; unit embeddings are recorded before noise on them."""

    name, changes = "record", False

    def __init__(self, uids: Sequence[str], epochs: int, world: World, *, keep: bool = True) -> None:
        self.record, self._keep = AlignmentRecorder(uids, epochs, world), keep
        self._shown: dict[Kind, Tensor] = {}

    def unit(self, kind: Kind, unit: Float[Tensor, "n d"], moment: Moment, view: int) -> Float[Tensor, "n d"]:
        """Record the first view and its captions."""
        if view == 0:
            self._shown[kind] = unit.detach()
        if len(self._shown) == 2:
            self.record.update(moment.slots, self._shown["image"], self._shown["text"], moment.epoch)
            self._shown.clear()
        return unit

    def tensors(self) -> dict[str, Tensor]:
        """Return the record."""
        return self.record.tensors()

    def write(self, folder: Path) -> list[Path]:
        """Write `trajectory.npz`, unless the record is for other hooks only."""
        return [self.record.save(folder / TRAJECTORY_FILE)] if self._keep else []


@dataclass(frozen=True)
class Hooks:
    """All hooks of a training, applied in this order."""

    all: tuple[Hook, ...] = ()

    def facts(self) -> dict[str, dict[str, object]]:
        """Return the settings of all that change the training, by name."""
        return {hook.name: hook.facts() for hook in self.all if hook.changes}

    def content(self) -> list[str]:
        """Return the hashes of the data of all."""
        return [hook.content() for hook in self.all]

    def through(self, change: Callable[[Hook, T], T], value: T) -> T:
        """Apply a change by every hook in turn."""
        for hook in self.all:
            value = change(hook, value)
        return value

    def each(self, call: Callable[[Hook], object]) -> None:
        """Call every hook in turn."""
        for hook in self.all:
            call(hook)

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Return the state of all, by name."""
        return [(f"{hook.name}/{name}", tensor) for hook in self.all for name, tensor in hook.tensors().items()]

    def last_step(self, steps: int) -> int:
        """Return the smallest last step."""
        return min([steps, *(hook.last_step(steps) for hook in self.all)])

    def captions(self, captions: Sequence[Sequence[str]], uids: Sequence[str]) -> list[list[str]]:
        """Return the texts of each pair: its captions, then those of the hooks."""
        texts = [list(pair) for pair in captions]
        for hook in self.all:
            for pair, more in zip(texts, hook.captions(captions, uids, [len(pair) for pair in texts]), strict=True):
                pair += more
        return texts

    def batches(self, batches: Batches, epoch: int) -> Batches:
        """Return an epoch's batches as the hooks arrange them."""
        return self.through(lambda hook, arranged: hook.batches(arranged, epoch), batches)


NO_HOOKS = Hooks()
