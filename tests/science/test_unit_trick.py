"""The validation trick: fine-tune one unit on one pair, by its incoming weights alone; only its UnitMem rises."""

import numpy as np
import polars as pl
import pytest
import torch
from tests.tiny import encoded_image

from clipmem.base.sections import LocalizeSection
from clipmem.data.decoding import Geometry, decode
from clipmem.data.pairs import Pairs
from clipmem.data.views import as_float, normalize_pixels
from clipmem.measure.sweep import pool, token_mask
from clipmem.measure.units import sweep_model
from clipmem.models import openclip

N, PAIR = 40, 17
VIEWS = LocalizeSection(views=4)
SQUARE = Geometry(32)
WORDS = (
    *("red", "green", "blue", "old", "new", "big", "small", "cat", "dog", "house"),
    *("tree", "car", "boat", "ship", "bird", "fish", "hand", "foot", "sun", "moon"),
)


def points():
    rng = np.random.default_rng(0)
    columns = {
        "uid": [f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(N)],
        "label": [""] * N,
        "row": np.arange(N),
        "captions": [[" ".join(rng.choice(WORDS, size=5, replace=False))] for _ in range(N)],
    }
    pixels = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
    return Pairs("test", pl.DataFrame(columns), pixels={SQUARE: pixels})


def fine_tune(encoder, pts, tower, unit):
    """Raise the unit's activation on one pair against the mean of the others; the weights' length stays."""
    model = encoder.module.eval()
    block = (model.visual.transformer if tower == "image" else model.transformer).resblocks[0]
    weight, bias = block.mlp.c_fc.weight, block.mlp.c_fc.bias
    seen, mask = {}, None
    if tower == "text":
        tokens = encoder.tokenize([own[0] for own in pts.captions])
        mask = token_mask(tokens)
    handle = block.mlp.gelu.register_forward_hook(lambda module, inputs, output: seen.update(out=output))
    pixels = normalize_pixels(as_float(torch.from_numpy(pts.pixels[SQUARE])), encoder.mean, encoder.std)
    length = float(weight[unit].detach().norm())
    for _ in range(80):
        encoder.encode_image(pixels) if tower == "image" else encoder.encode_text(tokens)
        mean = pool(seen["out"].clamp(min=0), "ntu", mask)[:, unit]
        rest = (mean.sum() - mean[PAIR]) / (N - 1)
        loss = -(mean[PAIR] - rest) / (mean[PAIR] + rest + 1e-6)
        step, step_bias = torch.autograd.grad(loss, [weight, bias])
        with torch.no_grad():
            weight[unit] -= 0.2 * length * step[unit] / (step[unit].norm() + 1e-12)
            weight[unit] *= length / weight[unit].norm()
            bias[unit] -= 0.02 * torch.sign(step_bias[unit])
    handle.remove()


@pytest.mark.parametrize("tower", ["image", "text"])
def test_only_the_tuned_unit_rises(tower):
    pts = points()
    encoder = openclip.create("clipmem-micro", seed=0)
    before, _ = sweep_model(encoder, pts, VIEWS, unit_pairs=None)
    here = (pl.col("tower") == tower) & (pl.col("layer") == 1) & (pl.col("kind") == "mlp")
    inside = before.filter(here & (pl.col("uid") != pts.uids[PAIR]))
    # a usual unit: of middle UnitMem, and of some response
    usual = inside.sort((pl.col("unitmem") - inside["unitmem"].median()).abs()).head(1).row(0, named=True)
    fine_tune(encoder, pts, tower, usual["unit"])
    after, _ = sweep_model(encoder, pts, VIEWS, unit_pairs=None)
    key = ["tower", "layer", "kind", "unit"]
    both = before.join(after, on=key, suffix="_after")
    rise = both.with_columns((pl.col("unitmem_after") - pl.col("unitmem")).alias("rise"))
    tuned = here & (pl.col("unit") == usual["unit"])
    own = rise.filter(tuned).row(0, named=True)
    others = rise.filter(~tuned)["rise"].drop_nulls().abs()
    print(tower, own["unitmem"], own["unitmem_after"], float(others.max()))  # noqa: T201
    assert own["rise"] > 0.25
    assert own["uid_after"] == pts.uids[PAIR]
    assert float(others.max()) < own["rise"] / 3
    same_layer = rise.filter(here & (pl.col("unit") != usual["unit"]))["rise"].drop_nulls().abs()
    assert float(same_layer.max()) == 0  # their inputs and weights are what they were
