"""LayerMem: SSLMem on the output of every layer, and how much each layer adds to the one before.

With L_l(m; x) = mean_a || m_l(x) - m_l(x_a) ||_2 on normalised outputs of layer l (tokens or space flattened into
one vector, then normalised, as the published script does): LayerMem_l(x) = L_l(g; x) - L_l(f; x), divided by max -
min over the points when asked for (published script), and averaged over the points. Delta_l = LayerMem_l -
LayerMem_{l-1} (Wang et al., NeurIPS 2024; design, section 2).

The division is by each layer's own range, which its two most extreme points set: differences between layers are
then partly differences of those points. Look at the raw values beside the normalised ones. Both sides of a
comparison need the same views. For flattened tokens the length of the sequence must be the same for clean input and
views.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.functional.sslmem import view_distance


class LayerMem(NamedTuple):
    """LayerMem of every layer.

    Attributes:
        score: LayerMem_l(x) of each point, raw or divided by `normaliser`, shape (layer, n).
        mean: Its mean over the points, shape (layer,).
        delta: Mean less that of the layer before, NaN for the first, shape (layer,).
        normaliser: max - min of each layer's raw scores; 1 where not asked for, shape (layer,).
    """

    score: Float64[Tensor, "layer n"]
    mean: Float64[Tensor, "layer"]
    delta: Float64[Tensor, "layer"]
    normaliser: Float64[Tensor, "layer"]


def layer_distances(
    layers: Iterable[tuple[Float[Tensor, "n *shape"], Float[Tensor, "n view *shape"]]],
) -> Float[Tensor, "layer n"]:
    """Compute L of every layer of one model from its outputs, given one layer at a time.

    L_l(m; x) = mean_a || m_l(x) - m_l(x_a) ||_2 on outputs that are flattened and then normalised.

    Args:
        layers: For each layer the output for the clean inputs, shape (n, *shape), and for their views, shape (n,
            view, *shape). A generator will do: one layer is looked at, then let go.

    Returns:
        L, float64, in [0, 2], shape (layer, n).

    Raises:
        InputError: No layer, layers with different numbers of inputs, or as for `view_distance` (an all-zero output
            has no direction).

    Example:
        >>> clean, views = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 1.0]]])
        >>> layer_distances([(clean, clean.unsqueeze(1)), (clean, -views.flip(-1))]).tolist()
        [[0.0], [2.0]]
    """
    rows: list[Tensor] = []
    for clean, views in layers:
        distance = view_distance(clean.flatten(1), views.flatten(2) if views.dim() > 2 else views.unsqueeze(-1))
        if rows and len(distance) != len(rows[0]):
            raise InputError(
                "layers",
                got=f"{len(distance)} inputs in layer {len(rows)}",
                expected=f"{len(rows[0])}, as in layer 0",
                hint="Give every layer's output for the same inputs.",
            )
        rows.append(distance)
    if not rows:
        raise InputError("layers", got="no layer", expected="at least one", hint="Check which layers were selected.")
    return torch.stack(rows)


def _check(name: str, values: Tensor) -> None:
    if 0 in values.shape:
        raise InputError(
            name,
            got=f"shape {tuple(values.shape)}",
            expected="at least one layer and one input",
            hint="Make it with clipmem.functional.layer_distances.",
        )
    wrong = ~torch.isfinite(values)
    if bool(wrong.any()):
        layer, row = torch.nonzero(wrong)[0].tolist()
        raise InputError(
            name,
            got=f"{int(wrong.sum())} values not finite, the first in layer {layer}, input {row}",
            expected="finite numbers",
            hint="Look at the outputs behind it.",
        )


def layermem(
    target: Float[Tensor, "layer n"], reference: Float[Tensor, "layer n"], *, normalise: bool = False
) -> LayerMem:
    """Compare the layers of a model that saw the inputs with those of one that did not.

    LayerMem_l(x) = L_l(g; x) - L_l(f; x); Delta_l = mean LayerMem_l - mean LayerMem_{l-1}.

    Args:
        target: L of each layer under f (mean over seeds), from `layer_distances`, shape (layer, n).
        reference: L under g, shape (layer, n).
        normalise: Divide each layer by its max - min over these inputs: the published script. The script prints the
            mean of these. A layer that is 0 for every input stays 0.

    Returns:
        Scores, means and differences. Higher is more memorized. Raw scores are in [-2, 2].

    Raises:
        InputError: Shapes differ, there is nothing, a value is not finite, or a layer to be normalised has the same
            score, not 0, for every input.

    Example:
        >>> found = layermem(torch.tensor([[0.5, 0.0], [0.0, 0.0]]), torch.tensor([[0.5, 0.5], [0.5, 1.0]]))
        >>> found.mean.tolist(), found.delta.tolist()
        ([0.25, 0.75], [nan, 0.5])
    """
    if target.shape != reference.shape:
        raise InputError(
            "reference",
            got=f"shape {tuple(reference.shape)}",
            expected=f"shape {tuple(target.shape)}, that of the target",
            hint="Compare the same layers on the same inputs.",
        )
    _check("target", target)
    _check("reference", reference)
    score = reference.double() - target.double()
    normaliser = torch.ones(len(score), dtype=torch.float64, device=score.device)
    if normalise:
        spread = score.amax(dim=1) - score.amin(dim=1)
        constant = (spread == 0) & (score[:, 0] != 0)
        if bool(constant.any()):
            layer = int(torch.nonzero(constant)[0])
            raise InputError(
                f"layer {layer}",
                got=f"the same score {float(score[layer, 0]):.6g} for all {score.shape[1]} inputs",
                expected="scores that differ",
                hint="Use the raw scores: there is no range to divide by.",
            )
        normaliser = torch.where(spread == 0, 1.0, spread)
        score = score / normaliser.unsqueeze(1)
    mean = score.mean(dim=1)
    delta = torch.cat([mean.new_full((1,), torch.nan), mean[1:] - mean[:-1]])
    return LayerMem(score, mean, delta, normaliser)
