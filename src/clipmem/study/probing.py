"""What `clipmem inspect` and `clipmem doctor` show that needs torch: costs, aligned pairs, parts of models, a test.

When not to trust it: the estimated cost of a study is rates of a few seconds times counts, good for orders of magnitude
only. Other work on the machine makes it too large.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from clipmem.base.random import generator
from clipmem.base.recipes import Overrides, Recipe, as_settings, load_recipe
from clipmem.base.registry import Registry
from clipmem.base.sections import ModelSection
from clipmem.data.inspection import ImageSample
from clipmem.data.pairs import Pairs
from clipmem.data.sources import SOURCES, open_source
from clipmem.data.sources.base import Source
from clipmem.measure.retrieval import retrieve
from clipmem.measure.utility import MEASURES
from clipmem.mitigate import MITIGATIONS
from clipmem.models.embeddings import Model, embed
from clipmem.models.family import FAMILIES
from clipmem.models.names import is_architecture, parse
from clipmem.models.numerics import threads
from clipmem.models.start import Start, freeze, table_of_parts
from clipmem.report.sections import all_sections
from clipmem.scoring.alignments import ALIGNMENTS
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.protocols import PROTOCOLS
from clipmem.study import api, execution, forecast, starting
from clipmem.study.score_inputs import Settings
from clipmem.train.objectives import OBJECTIVES

_TINY = [
    "model.name=clipmem-micro", "split.shared=60", "split.candidate=20", "split.independent=20", "split.external=20",
    "train.epochs=2", "train.seeds=[0]", "train.batch_size=40", "score.draws=200",
]  # fmt: skip
Fact = str | int | float | None
_TIMED, _SEARCHED = 64, 10_000  # pairs in a timed batch; pairs to compare with a model
_EMBEDDED, _LARGE, _LARGE_PAIRS = 256, "ViT-B-32", 8


def cost_of_study(pairs: int, sample: ImageSample, recipe: Recipe, preset: str = "") -> dict[str, Fact]:
    """Estimate decoding, cache, training and memory of the four-way study that `init --data` writes for the pairs."""
    tag = parse(recipe.model.pretrained) if recipe.model.pretrained else None
    # the weights of a tag need not be on this machine
    named = recipe.model if tag is None or tag.kind != "tag" else ModelSection(name=tag.name)
    start = Start(named, recipe.train)
    side, resources = start.geometry.size, execution.resolve(recipe, 1)
    sizes = starting.sizes_of(pairs)
    each = sizes["shared"] + sizes["candidate"]
    epochs = recipe.train.epochs if preset else starting.training_of(each)[1]
    models = 2 * len(recipe.train.seeds)
    decoded = len(sample.decoded) / max(sample.seconds, 1e-9)
    batch = min(recipe.train.batch_size, _TIMED)
    trained, peak = forecast.training_rate_and_memory(start, resources, batch)
    return {
        "model": start.name,
        "memory_bytes": peak,
        "memory_batch": batch,
        "device": resources.device,
        "decoded_per_second": round(decoded, 1),
        "trained_per_second": round(trained, 1),
        "cache_bytes": pairs * side * side * 3,
        "decode_seconds": round(pairs / decoded, 1),
        "train_seconds": round(models * epochs * each / trained, 1),
        "assumed": (
            f"{pairs:,} pairs; the four-way study of `clipmem init --data` with {len(recipe.train.seeds)} seeds "
            f"({models} models) and {epochs} epochs of {each:,} pairs; {start.name} at {side} pixels, one model at a "
            f"time on this machine's {resources.device} in {resources.precision}"
        ),
    }


def aligned_pairs(source: Source, name: str) -> dict[str, Any]:
    """Find the pairs that a model already aligns as training would: image and caption are each other's nearest.

    A pair counts if its first caption is the nearest of all captions to its image, and its image the nearest of all
    images to that caption, among the decodable pairs of a random sample of at most 10,000. The contrastive loss makes
    members so; the model may have seen such a pair, or find it easy.
    """
    settings, table = Settings.of(), source.pairs()
    rows = np.sort(generator(0, "against").permutation(table.height)[:_SEARCHED])
    first = pl.col("captions").list.head(1)
    pairs = Pairs(source.title, table[rows].with_columns(first), source)
    with tempfile.TemporaryDirectory() as scratch:
        [embedded] = embed({Path(scratch) / "embeddings": settings.model(name)}, pairs, settings.made_with())
        means = embedded.means()
        usable = pairs.table.filter(pl.col("uid").is_in(embedded.uids.implode()))
    ranks = retrieve(means.image, means.text, means.ok.nonzero()[:, 0])
    nearest = (ranks.image.rank < 1.5) & (ranks.text.rank < 1.5)
    return {
        "model": name,
        "searched": usable.height,
        "aligned": int(nearest.sum()),
        "uids": usable.filter(pl.Series(nearest))["uid"].to_list(),
        "samples": usable.filter(pl.Series(nearest)).head(5).select("key", "captions").to_dicts(),
    }


def parts_of(model: str, settings: Overrides = (), *, names: bool = False) -> dict[str, Any]:
    """Return towers, blocks and parameters of an architecture or a model, by the names that `train.freeze` takes.

    `settings` show their effect, such as `train.freeze=[image]`; with `names` the screen lists every parameter.
    """
    key = "name" if is_architecture(model) else "pretrained"
    recipe = load_recipe("", [f"model.{key}={model}", *as_settings(settings)], origin="--set")
    encoder = Start(recipe.model, recipe.train).outline()
    freeze(encoder, recipe.train)
    return {
        "model": model,
        "image_size": encoder.image_size,
        "context": encoder.context,
        "freeze": recipe.train.freeze,
        "adapter": recipe.train.adapter,
        "parts": table_of_parts(encoder),
        "listed": names,
    }


def registries() -> list[Registry[Any]]:
    """Return what can be declared by name, including what other packages declare."""
    return [PROTOCOLS, ALIGNMENTS, OBJECTIVES, MITIGATIONS, MEASURES, PAIR_SCORES, SOURCES, FAMILIES, all_sections()]


def resources() -> tuple[execution.Execution, str]:
    """Return what the demo study would compute with, and the name of the GPU if it is used."""
    demo = execution.resolve(api.find_recipe("demo"), models=4)
    return demo, torch.cuda.get_device_name() if demo.device == "cuda" else ""


def rates() -> dict[str, float]:
    """Measure pairs per second of training, embedding and decoding on this machine, in seconds."""
    demo, source = api.find_recipe("demo"), open_source(api.find_recipe("demo").data)
    start, best = Start(demo.model, demo.train), execution.resolve(demo, 1)
    pairs, started = Pairs(source.title, source.pairs(), source), time.monotonic()
    decoded = pairs.decoded(np.arange(_EMBEDDED), [start.geometry])
    decoding = len(decoded) / (time.monotonic() - started)
    model = Model("", lambda: start.create(0), demo.embed, device=best.device, precision=best.precision)
    with threads(best.threads):
        model.embed(replace(decoded, table=decoded.table[:_TIMED]))  # the first pass allocates
        started = time.monotonic()
        model.embed(decoded)
        embedding = len(decoded) / (time.monotonic() - started)
    large = Start(load_recipe("", [f"model.name={_LARGE}"]).model, demo.train)
    return {
        f"train {start.name}": forecast.training_rate(start, best, demo.train.batch_size),
        f"embed with {start.name}": embedding,
        "decode images": decoding,
        f"train {_LARGE}": forecast.training_rate(large, best, _LARGE_PAIRS),
    }


def tiny_study() -> tuple[float, Mapping[str, float]]:
    """Run a tiny study end to end; return its seconds in all, and by stage."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        run = api.run("quick", Path(folder) / "run", settings=_TINY)
        return time.monotonic() - started, run.summary.seconds
