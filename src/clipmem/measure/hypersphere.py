"""Alignment and uniformity of embeddings on the unit sphere (Wang & Isola 2020): what the contrastive loss asks for.

When not to trust it: neither says whether a model is useful. All embeddings in one point have alignment 0, and random
ones are nearly uniform: look at both, beside a task. Wider embeddings can be more uniform.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import require
from clipmem.measure.base import MEASURES, Measure
from clipmem.measure.over_seeds import Metrics, entry
from clipmem.measure.retrieval import Identity, Sides
from clipmem.models.passes import Embeddings
from clipmem.stats.checks import Codes
from clipmem.stats.intervals import crossed_interval
from clipmem.stats.similarity import normalize, pair_means

_CELLS = 1 << 24  # similarities held at a time: 128 MB


def alignment_distances(
    image: Float[Tensor, "n 1 d"], text: Float[Tensor, "m d"], text_pair: Int[Tensor, " m"]
) -> Float64[np.ndarray, " n"]:
    """Return the mean over a pair's captions of ||u - v||² on unit embeddings, 0 to 4; its mean is the alignment loss.

    It is 2 - 2 u·v̄ with v̄ the mean of the unit captions (Wang & Isola 2020, section 4.1, exponent 2).
    """
    u, v = pair_means(image, text, text_pair)
    return (2 - 2 * (u * v).sum(dim=1)).cpu().numpy()


def potentials(x: Float[Tensor, "n d"], *, cells: int = _CELLS) -> Float64[np.ndarray, " n"]:
    """Return each row's mean over the other rows of exp(-2 ||x_i - x_j||²) on unit embeddings; two rows or more.

    The log of their mean is the uniformity loss, -8 to 0 (Wang & Isola 2020, section 4.1, with t = 2). About `cells`
    similarities are held at a time.
    """
    n = len(x)
    require(n > 1, "embeddings", f"{n} row{'s' * (n != 1)}", "at least 2", "Choose more pairs.")
    unit, sums = normalize(x.double()), np.empty(n)
    for rows in slices(n, max(1, cells // n)):
        kernel = torch.exp(4 * (unit[rows] @ unit.T) - 4)
        kernel.diagonal(rows.start).fill_(0)
        sums[rows] = kernel.sum(dim=1).cpu().numpy()
    return sums / (n - 1)


@MEASURES.register("hypersphere")
class Hypersphere(Measure):
    """Alignment over pairs, and uniformity over distinct images and over distinct captions."""

    summary = "Alignment and uniformity on the unit sphere."

    def values(self, embeddings: Embeddings) -> dict[str, Float64[np.ndarray, " n"]]:
        image, text = embeddings.image[:, :1], embeddings.text
        return {"alignment_loss": alignment_distances(image, text, embeddings.text_pair)}

    def measure(self, models: Sides, same: Identity, groups: Codes, confidence: float, *, against: str = "") -> Metrics:
        """Measure both under each side.

        An image or caption that several pairs have counts once for uniformity: two copies are in one point under every
        model. Without two distinct ones there is no uniformity. Intervals are over groups of pairs, and over seeds.
        """
        metrics = super().measure(models, same, groups, confidence, against=against)
        text_pair = next(iter(models.values()))[0].text_pair.numpy()
        for name, classes, of in (("image", same.image, groups), ("text", same.text, groups[text_pair])):
            rows = np.sort(np.unique(classes, return_index=True)[1])
            if len(rows) < 2:
                continue
            spread = {
                side: np.stack([potentials((m.image[:, 0] if name == "image" else m.text)[rows]) for m in several])
                for side, several in models.items()
            }
            for side, values in spread.items():
                loss, influence = np.log(values.mean(axis=1)), _influence(values)
                influence = influence + (loss - loss.mean())[:, None] / values.shape[1]
                interval = crossed_interval(float(loss.mean()), influence, of[rows], confidence=confidence)
                metric = metrics[side][f"{name}_uniformity_loss"] = entry(interval, loss.tolist())
                if against not in ("", side):
                    difference = float(loss.mean() - np.log(spread[against].mean()))
                    influence = influence - _influence(spread[against])
                    change = crossed_interval(difference, influence, of[rows], confidence=confidence)
                    metric["change"] = change._asdict()
        return metrics


def _influence(values: Float64[np.ndarray, "seed n"]) -> Float64[np.ndarray, "seed n"]:
    """Return the influence of each row on the log of the mean potential K of its model: 2 (k_i - K) / (n K).

    A potential is a mean over other rows, so a row counts in its own and in theirs: hence 2.
    """
    mean = values.mean(axis=1, keepdims=True)
    return 2 * (values / mean - 1) / values.shape[1]
