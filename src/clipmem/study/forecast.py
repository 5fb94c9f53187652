"""What a study takes: computation, time, memory and disk space. More than this machine has needs consent.

When not to trust it: the rate of training is that of one batch, and depends on other work and temperature. Studies with
short captions take less time than estimated, and machines added by Ray are not counted.
"""

import math
import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from clipmem.base.errors import require
from clipmem.base.machine import memory, peak_memory, reset_peak_memory
from clipmem.base.recipes import Recipe, load_recipe
from clipmem.mitigate.base import ready_model
from clipmem.models.numerics import threads
from clipmem.models.start import Start, freeze
from clipmem.report.formats import in_bytes
from clipmem.scoring.protocols import Protocol
from clipmem.study.execution import Execution
from clipmem.train.objectives import Towers, create_objective

LONGEST = 86_400.0  # maximum seconds of a study without consent
_TRAINING = 3  # a backward pass costs two forward passes
_FEW = 10_000  # samples seen that take the largest open_clip models a day on two cores
_FLOAT, _STATE = 4, 16  # bytes of a float32, and of a weight with gradient and AdamW's moments
_CONSENT = "add --yes (in Python: allow_long=True)"
_CAPTION = "A man riding a wave on top of a surfboard in the sea"  # of typical length


def work_of(recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame) -> tuple[float, float]:
    """Count the samples seen in all trainings, and the forward passes that embed pairs."""
    train = recipe.train
    epochs = 0.0 if ready_model(recipe, "f", train.seeds[0]) else train.epochs * recipe.mitigate.early_stopping.share
    texts, views = _per_pair(recipe, pairs)
    passes = protocol.count * protocol.used_pairs(pairs) * (views + texts) / 2
    return protocol.count * epochs * protocol.trained_pairs, passes


def check_forecast(
    recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame, resources: Execution, start: Start, out: Path
) -> None:
    """Refuse a study that takes more memory or disk space than available, or more than a day.

    Raises:
        InputError: It does.
    """
    samples_seen, passes = work_of(recipe, protocol, pairs)
    timed, parameters = samples_seen > _FEW, 0
    if timed:
        parameters = sum(weight.numel() for weight in start.outline().module.parameters())
    image = 3 * start.geometry.size**2
    texts, views = _per_pair(recipe, pairs)
    embedded = protocol.used_pairs(pairs) * (texts + views) * start.width * _FLOAT
    batch = min(recipe.train.batch_size, protocol.trained_pairs)
    stored = pairs.height * image + protocol.count * (embedded + parameters * _FLOAT)
    training = resources.workers * (parameters * _STATE + batch * image * _FLOAT)
    while not out.exists():
        out = out.parent
    free, working = shutil.disk_usage(out).free, max(embedded, training)
    for subject, needed, available, name in (
        ("disk space of the study", stored, free, f"the free space at {out}"),
        ("memory of the study", working, memory() or math.inf, "the memory of this machine"),
    ):
        got, expected = f"{in_bytes(needed)} or more", f"at most {in_bytes(available)}, {name}"
        hint = f"Reduce the number of models, embed.views or the sizes in [split], or {_CONSENT}."
        require(needed <= available, subject, got, expected, hint)
    if not timed:
        return
    units = max(1, resources.processes // resources.workers) if resources.device == "cpu" else resources.processes
    pairs_each = (samples_seen + passes / _TRAINING) / units
    rate = training_rate(start, resources, 8)
    if pairs_each / rate > LONGEST and (rate > 8 or resources.device == "cuda"):  # small batches are slower
        rate = max(rate, training_rate(start, resources, 64))
    got = f"about {pairs_each / rate / LONGEST:,.1f} days on this machine's {resources.device} for {protocol.count:,} "
    got += f"models of {start.name} over {recipe.train.epochs:,} epochs of {protocol.trained_pairs:,} pairs"
    hint = f"Reduce train.epochs, the number of models or the sizes in [split], or {_CONSENT}."
    require(pairs_each / rate <= LONGEST, "time of the study", got, "at most a day", hint)


def _per_pair(recipe: Recipe, pairs: pl.DataFrame) -> tuple[float, int]:
    """Return the texts, on average, and the views of a pair."""
    most = max(recipe.train.captions, recipe.evaluate.wordings)
    captions = float(pairs["captions"].list.len().clip(upper_bound=most).sum()) / pairs.height
    return captions + recipe.embed.caption_edits, max(1, recipe.embed.views)


def training_rate(start: Start, resources: Execution, pairs: int = 64) -> float:
    """Return pairs per second of training passes of a model, on all cores, in batches of `pairs`."""
    encoder, settings, frozen = start.create(0), load_recipe("").train, frozenset(start.train.freeze)
    encoder.module.to(resources.device).train()
    freeze(encoder, start.train)
    objective = create_objective(encoder, settings, labels=None, classes=0, n=pairs, seed=0).to(resources.device)
    draw = np.random.default_rng(0)
    pixels = torch.from_numpy(draw.normal(size=(pairs, 3, encoder.image_size, encoder.image_size)).astype(np.float32))
    tokens = encoder.tokenize([_CAPTION] * pairs)
    embedded = torch.from_numpy(draw.normal(size=(pairs, start.width)).astype(np.float32))
    images = (embedded if "image" in frozen else pixels).to(resources.device)
    texts = (embedded if "text" in frozen else tokens).to(resources.device)
    towers = Towers(encoder, resources.precision, resources.device, frozen=frozen)

    def step(n: int) -> float:
        started = time.monotonic()
        loss: torch.Tensor = objective(towers, [images[:n]], texts[:n], None)
        loss.backward()
        loss.item()  # synchronizes
        return n / (time.monotonic() - started)

    with threads(resources.threads * resources.workers):
        step(2)  # the first pass allocates
        return step(pairs)


def training_rate_and_memory(start: Start, resources: Execution, pairs: int) -> tuple[float, int | None]:
    """Return pairs per second (see `training_rate`), and the bytes that training with AdamW takes; None if unknown."""
    model = start.outline()
    freeze(model, start.train)
    moments = 2 * _FLOAT * sum(weight.numel() for weight in model.module.parameters() if weight.requires_grad)
    if resources.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        rate = training_rate(start, resources, pairs)
        return rate, torch.cuda.max_memory_allocated() + moments
    reset = reset_peak_memory()
    rate = training_rate(start, resources, pairs)
    peak = peak_memory(since_reset=reset)
    return rate, peak and peak + moments
