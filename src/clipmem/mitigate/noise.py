"""Gaussian noise on the embeddings of one tower in training: text noise, and image noise as its control.

The published work does not specify where the noise is added (Wang et al. 2025, section 5):

    post         v' = v/|v| + std ε             the unit vector plus noise; v' is not normalized again
    pre          v' = (v + std ε) / |v + std ε|  std is in the units of the raw embedding
    post-scaled  v' = v/|v| + (std / √d) ε       the noise has length of about std, for any width d

with ε standard normal in each of the d dimensions. The noise of `post` has length std √d: 3.4 for std = 0.15 and
d = 512, on a unit vector. Do not compare values between places or widths.

The first part of the training, `start`, has no noise, because it would exceed early similarities (docs/mitigations.md).
"""

import math
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import ndtri
from torch import Tensor, nn

from clipmem.base.errors import Number, require, require_one_of, require_range
from clipmem.base.random import derive_seed, uniform
from clipmem.data.views import Keys
from clipmem.mitigate.base import MITIGATIONS, Mitigation
from clipmem.train.hooks import Kind, Moment

PLACES = ("post", "pre", "post-scaled")


def gaussian(keys: Keys, seed: int, width: int) -> Float64[np.ndarray, "n d"]:
    """Return standard normal numbers that depend only on (seed, key, dimension), shape (n, d)."""
    # shifted by half a step: the quantile of 0 is infinite
    return ndtri(uniform(keys, seed, width) + 2.0**-54)


class EmbeddingNoise(nn.Module):
    """Add Gaussian noise to embeddings in training mode only, as dropout does.

    x + s ε, s = std, or std / √d with `post-scaled`. With `pre`, call the module on the tower's output and normalize
    afterwards; otherwise call it on normalized embeddings, and do not normalize again.

    The noise is a function of `seed`, `keys` and `step`, whatever `start` is. With a key per pair, a pair has the same
    noise in any batch or process. Without keys, the keys are row numbers and `step` (a buffer in the state dict) counts
    the calls: then each process needs its own seed.

    Args:
        std: Standard deviation, 0 or more.
        place: `post`, `pre` or `post-scaled`.
        seed: Seed of the noise.
        start: Share of the training in [0, 1) before which there is no noise: the first round(start · steps) steps.
        steps: Number of steps of the training, 1 or more; required unless std or start is 0.

    Raises:
        InputError: std is negative or not finite, the place is unknown, start is not in [0, 1), or steps is missing.

    Example:
        >>> noise = TextEmbeddingNoise(0.15, seed=3, steps=3)
        >>> v = nn.functional.normalize(torch.ones(2, 8), dim=-1)
        >>> bool((noise(v) == v).all())  # the first of three steps
        True
        >>> bool((noise(v) != v).any()), bool((noise.eval()(v) == v).all())
        (True, True)
    """

    kind: ClassVar[Kind] = "text"

    def __init__(
        self, std: float, place: str = "post", seed: int = 0, *, start: Number = 0.33, steps: int | None = None
    ) -> None:
        super().__init__()
        name = type(self).__name__
        require_range(f"{name} std", std, 0, hint="Set std to 0 for no noise.")
        require_one_of(f"{name} place", place, PLACES)
        require(0 <= start < 1, f"{name} start", f"{start}", "0 or more, below 1", "Use 0.33, a third.")
        counted = not (std and start) or (steps is not None and steps >= 1)
        hint = "Pass steps=EPOCHS * len(LOADER), or start=0 for noise from the first step."
        require(counted, f"{name} steps", f"{steps}", f"the training's number of steps, with start = {start}", hint)
        self.std, self.place, self.seed, self.first = float(std), place, seed, round(start * (steps or 0))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def extra_repr(self) -> str:
        """Return the settings, for `repr`."""
        return f"std={self.std}, place={self.place!r}, seed={self.seed}, first={self.first}"

    def scale(self, width: int) -> float:
        """Return s, the standard deviation in each of `width` dimensions."""
        return self.std / math.sqrt(width) if self.place == "post-scaled" else self.std

    def forward(
        self, embeddings: Float[Tensor, "n d"], keys: Keys | None = None, step: int | None = None, view: int = 0
    ) -> Float[Tensor, "n d"]:
        """Return the embeddings with noise; unchanged in evaluation mode, with std 0, or in the first steps.

        Args:
            embeddings: Shape (n, d).
            keys: A 64-bit number per row, shape (n,); by default 0 to n - 1.
            step: Number of the sample; by default calls are counted.
            view: Number of the view; each has its own noise.
        """
        if not self.training or self.std == 0:
            return embeddings
        if step is None:
            counter: Tensor = self.step  # pyright: ignore[reportAssignmentType]
            step = int(counter)
            counter += 1
        if step < self.first:
            return embeddings
        n, width = embeddings.shape
        rows = np.arange(n, dtype=np.uint64) if keys is None else keys
        draws = gaussian(rows, derive_seed(self.seed, f"{self.kind} noise", step, *([view] if view else [])), width)
        noise = torch.from_numpy((self.scale(width) * draws).astype(np.float32))
        return embeddings + noise.to(embeddings.device, embeddings.dtype)


class TextEmbeddingNoise(EmbeddingNoise):
    """Gaussian noise on text embeddings (see `EmbeddingNoise`).

    Example:
        >>> TextEmbeddingNoise(0.15, "post-scaled", start=0).scale(100)
        0.015
    """


class ImageEmbeddingNoise(EmbeddingNoise):
    """Gaussian noise on image embeddings (see `EmbeddingNoise`): the control of text noise."""

    kind = "image"


class _Noise(Mitigation):
    """Noise in studies, with the keys of the pairs and the seed of the pair of models."""

    module: ClassVar[type[EmbeddingNoise]]

    def last_step(self, steps: int) -> int:
        section = self.section
        self._noise = self.module(section.std, section.place, self.seed, start=section.start, steps=steps)
        return steps

    def embedding(self, kind: Kind, raw: Tensor, moment: Moment, view: int) -> Tensor:
        return self._added(kind, raw, moment, view) if self.section.place == "pre" else raw

    def unit(self, kind: Kind, unit: Tensor, moment: Moment, view: int) -> Tensor:
        return unit if self.section.place == "pre" else self._added(kind, unit, moment, view)

    def _added(self, kind: Kind, embeddings: Tensor, moment: Moment, view: int) -> Tensor:
        return self._noise(embeddings, moment.keys, moment.step, view) if kind == self.module.kind else embeddings


@MITIGATIONS.register("text_noise")
class TextNoise(_Noise):
    """`[mitigate.text_noise]`."""

    summary = "Add Gaussian noise to text embeddings."
    module = TextEmbeddingNoise


@MITIGATIONS.register("image_noise")
class ImageNoise(_Noise):
    """`[mitigate.image_noise]`."""

    summary = "Add Gaussian noise to image embeddings: the control of text noise."
    module = ImageEmbeddingNoise
