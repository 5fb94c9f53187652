"""The recorder: similarity and margin of each pair in every epoch, from the embeddings that the loss sees.

With u, v the unit embeddings of a batch's images and of the captions shown,

    similarity_i = u_i·v_i        margin_i = u_i·v_i - max over j ≠ i of max(u_i·v_j, u_j·v_i).

Recording draws no random numbers and adds nothing to the gradient: the weights are bitwise those of a training without
it. A margin depends on the rest of its batch, so compare margins only between trainings with the same batch size.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Float32, Int
from torch import Tensor

from clipmem.base.errors import InputError, require, require_range, shorten
from clipmem.base.paths import atomic_file, reading
from clipmem.models.signals import Trajectory
from clipmem.train.distributed import ALONE, World

TRAJECTORY_FILE = "trajectory.npz"
_EXPECTED = "a .npz of similarity, margin and uids"
_BLOCK = 1024  # rows of the similarity matrix at a time
_SETTLE = 16  # steps between copies from the accelerator, which synchronize with it


class AlignmentRecorder:
    """Record the similarity and margin of each pair in every epoch, in any training loop.

    Call `update` with the embeddings that go to the loss, once per step, and `save` at the end. A pair that is shown
    several times in an epoch keeps its last values.

    Args:
        pairs: The pairs' ids, by index in the training set; or their number, for the ids "0", "1", ...
        epochs: Number of epochs; more are added as they come.
        world: The processes that train the model, each with its rows of every batch: all rows are gathered, as in a
            loss over the whole batch. All processes must call `update`; each has the whole record.

    Example:
        >>> recorder = AlignmentRecorder(3)
        >>> recorder.update([2, 0], torch.eye(2), torch.eye(2), epoch=0)
        >>> recorder.margin.tolist()
        [[1.0, nan, 1.0]]
    """

    def __init__(self, pairs: int | Sequence[str], epochs: int = 0, world: World = ALONE) -> None:
        ids = [str(k) for k in range(pairs)] if isinstance(pairs, int) else list(pairs)
        require(ids, "AlignmentRecorder pairs", "no pair", "one or more", "Pass the size of the training set.")
        got, hint = f"{len(ids) - len(set(ids))} repeated ids", "Give every pair its own id."
        require(len(set(ids)) == len(ids), "AlignmentRecorder pairs", got, "unique ids", hint)
        self._ids, self._world = ids, world
        self._values = torch.full((2, epochs, len(ids)), torch.nan)
        self._waiting: list[tuple[int, Tensor, Tensor]] = []

    @torch.no_grad()
    def update(
        self,
        indices: Sequence[int] | Int[Tensor, " n"] | Int[np.ndarray, " n"],
        image: Float[Tensor, "..."],
        text: Float[Tensor, "..."],
        epoch: int,
    ) -> None:
        """Record a step.

        Args:
            indices: Index of each pair in the training set, shape (n,).
            image: Embeddings of the images, shape (n, d); their length does not matter.
            text: Embeddings of the captions, in the same order.
            epoch: Number of the epoch, from 0.

        Raises:
            InputError: Shapes differ, an index is outside the training set, or the epoch is negative.
        """
        places = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        got = f"shapes {tuple(image.shape)} and {tuple(text.shape)} for {len(places)} indices"
        same = image.ndim == 2 and image.shape == text.shape and len(places) == len(image) > 0
        require(same, "recorder.update", got, "one embedding of each kind per pair", "Pass what the loss gets.")
        for index in (int(places.min()), int(places.max())):
            require_range("recorder.update indices", index, 0, len(self._ids) - 1, "Count pairs from 0.")
        require_range("recorder.update epoch", epoch, 0, hint="Count epochs from 0.")
        with torch.autocast(image.device.type, enabled=False):  # bf16 has too few digits for a difference
            u, v = (F.normalize(rows.detach().float(), dim=-1) for rows in (image, text))
            counts = self._world.counts(len(u), u.device)
            start = sum(counts[: self._world.rank])
            images, texts = self._world.gather(u, counts), self._world.gather(v, counts)
            similarity = (u * v).sum(1)
            other = torch.maximum(_largest_other(u, texts, start), _largest_other(v, images, start))
            # a batch of one pair has no margin
            margin = torch.where(other.isinf(), torch.nan, similarity - other)
            values = self._world.gather(torch.stack([similarity, margin], 1), counts)
        if self._world.size > 1:
            places = self._world.gather(places[:, None].to(u.device), counts)[:, 0]
        self._waiting.append((epoch, places, values))
        if len(self._waiting) >= _SETTLE:
            self._settle()

    @property
    def similarity(self) -> Float32[np.ndarray, "epoch n"]:
        """Cosine of image and caption in each epoch; NaN where the pair was not shown."""
        return self.tensors()["similarity"].numpy()

    @property
    def margin(self) -> Float32[np.ndarray, "epoch n"]:
        """Similarity minus the largest one to another image or caption of the batch; NaN as for `similarity`."""
        return self.tensors()["margin"].numpy()

    def tensors(self) -> dict[str, Tensor]:
        """Return the record, for checkpoints: copy saved values into these tensors to resume."""
        self._settle()
        return {"similarity": self._values[0], "margin": self._values[1]}

    def save(self, path: str | Path) -> Path:
        """Write a .npz file atomically: `similarity` and `margin`, float32 (epoch, n), and the ids in UTF-8."""
        ids, file = np.array([uid.encode() for uid in self._ids]), Path(path)
        with atomic_file(file) as stream:
            np.savez(stream, similarity=self.similarity, margin=self.margin, uids=ids)
        return file

    def _settle(self) -> None:
        for epoch, places, values in self._waiting:
            if epoch >= self._values.shape[1]:
                more = torch.full((2, epoch + 1 - self._values.shape[1], len(self._ids)), torch.nan)
                self._values = torch.cat([self._values, more], 1)
            self._values[:, epoch, places.cpu()] = values.T.cpu()
        self._waiting.clear()


def _largest_other(rows: Float[Tensor, "own d"], others: Float[Tensor, "n d"], start: int) -> Float[Tensor, " own"]:
    """Return each row's largest dot product with the others, except that at its own place, `start` + its number."""
    largest: list[Tensor] = []
    for first in range(0, len(rows), _BLOCK):
        products = rows[first : first + _BLOCK] @ others.T
        products.diagonal(start + first).fill_(-torch.inf)
        largest.append(products.amax(1))
    return torch.cat(largest)


def read_trajectory(path: Path, uids: Sequence[str]) -> Trajectory:
    """Read what a training recorded of these pairs, in their order.

    Args:
        path: Folder of a model, such as `RunFolder.model_dir(side, seed)`, or a file of `AlignmentRecorder.save`.
        uids: The pairs.

    Raises:
        InputError: There is no record, it is damaged, or the model did not train on one of the pairs.
    """
    file, (*values, ids) = _read(path)
    slots = {uid.decode(errors="replace"): slot for slot, uid in enumerate(ids.tolist())}
    missing = [uid for uid in uids if uid not in slots]
    got = f"no record of {len(missing)} of {len(uids)} pairs, such as {shorten(missing[0])}" if missing else ""
    hint = "Choose pairs that the model trained on, and record them by uid."
    require(not missing, f"{file}", got, "a record of every pair", hint)
    order = [slots[uid] for uid in uids]
    return Trajectory(values[0][:, order], values[1][:, order])


def recorded_uids(path: Path) -> set[str]:
    """Return the ids of all pairs in a record (see `read_trajectory`)."""
    return {uid.decode(errors="replace") for uid in _read(path)[1][2].tolist()}


def _read(path: Path) -> tuple[Path, list[np.ndarray]]:
    file = path / TRAJECTORY_FILE if path.is_dir() else path
    hint = "Set train.record = true and train again."
    try:
        with reading(f"{file}", expected=_EXPECTED, hint=hint), file.open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)  # pickled objects could run code
            arrays = [np.asarray(stored[key]) for key in ("similarity", "margin", "uids")]
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}", got="another or a damaged file", expected=_EXPECTED, hint=hint) from error
    *values, ids = arrays
    got = f"arrays of shapes {', '.join(str(part.shape) for part in arrays)}"
    whole = all(part.dtype == np.float32 and part.ndim == 2 and part.shape[1:] == ids.shape for part in values)
    require(whole and values[0].shape == values[1].shape and ids.dtype.kind == "S", f"{file}", got, _EXPECTED, hint)
    return file, arrays
