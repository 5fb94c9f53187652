"""Benchmark of this machine (`clipmem doctor --speed`), and estimates of the time and space of a study.

The time of training and embedding is bounded by counting the operations of a forward pass; only if the bounds do not
decide, some batches are timed. Studies that take more than a day, or more memory or disk space than available, need
consent.

When not to trust it: rates are measured for seconds and depend on other work and temperature. Studies with short
captions take less than estimated, and machines added by Ray are not counted.
"""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from clipmem.base import manifest
from clipmem.base.errors import InputError, require
from clipmem.base.folder import RunFolder
from clipmem.base.machine import cores, memory, peak_memory, reset_peak_memory
from clipmem.base.recipes import Recipe, dump_recipe, load_recipe
from clipmem.data.cache import build_cache
from clipmem.data.pairs import Pairs
from clipmem.data.sources import open_source
from clipmem.mitigate.base import ready_model
from clipmem.models import openclip
from clipmem.models.embeddings import Model
from clipmem.models.names import model_config
from clipmem.models.numerics import threads
from clipmem.models.outline import Outline, outline_of
from clipmem.models.start import Start, freeze
from clipmem.scoring.protocols import Protocol, protocol_of
from clipmem.study import api, execution, pool, work
from clipmem.study.execution import Execution
from clipmem.study.plan import CACHE, PlannedStudy
from clipmem.train.objectives import Towers, create_objective

LONGEST = 86_400.0  # maximum seconds of a study without consent
_TRAINING = 3  # a backward pass costs two forward passes
# Lower and upper bounds of operations per second: two cores reach 2.5e11 in fp32; the peak of a core is 3e11 in fp32
# and 3e12 in bf16, of a GPU 2.5e15.
_SLOWEST = 2e10
_FASTEST = {"fp32": 4e11, "tf32": 4e11, "bf16": 4e12}
_FASTEST_GPU = 5e15
_FEW = 10_000  # presentations that take the largest open_clip models a day on two cores
_STEP, _STEP_PARAMETER = 0.01, 3e-9  # maximum overhead of a step in seconds, and per parameter (AdamW)
_FLOAT, _STATE = 4, 16  # bytes of a float32, and of a weight with gradient and AdamW's moments
_CONSENT = "add --yes (in Python: allow_long=True)"
_SETTLE, _MEASURE = 1.5, 3.0  # seconds of warmup and measurement
_VIT, _VIT_PAIRS = "ViT-B-32", 8
_EPOCH_PAIRS = 70_000
_CAPTION = "A man riding a wave on top of a surfboard in the sea"  # of typical length


@dataclass(frozen=True)
class Rate:
    """One line of the table."""

    what: str
    rate: float
    unit: str
    against: str = ""
    ratio: float = 1.0


@dataclass(frozen=True)
class Speed:
    """Measured rates, load of the machine, and estimated seconds of two trainings."""

    rates: list[Rate]
    load: float
    demo: float
    vit_epoch: float


class _StopTiming(Exception):  # noqa: N818
    """Stops a training that was started for timing."""


def measure(*, device: str = "auto", log: Callable[[str], object] = lambda _: None) -> Speed:
    """Benchmark this machine, in about a minute."""
    load, demo = os.getloadavg()[0], api.find_recipe("demo")
    best = execution.resolve(demo, 64, device=device)
    with tempfile.TemporaryDirectory() as place:
        log("decoding the shipped images")
        folder = RunFolder(Path(place) / "run")
        images, megabytes = _planned(folder, _recipe(demo, best.workers))
        trained: dict[tuple[str, int], float] = {}
        for workers in sorted({1, best.workers}):
            for precision in ("fp32", "bf16"):
                log(f"training in {precision}, {workers} at a time")
                resources = execution.Execution(best.device, precision, best.threads, workers)
                trained[precision, workers] = _training(folder, resources)
        log("embedding")
        embedded = _embedding(folder, best)
    log(f"a step of {_VIT}")
    vit = training_rate(_start(_VIT), best, _VIT_PAIRS)
    rates: list[Rate] = []
    for precision, workers in sorted(trained, key=lambda key: (key[1], key[0] != "fp32")):
        rate, other = trained[precision, workers], (precision if workers > 1 else "fp32", 1)
        against = "" if (precision, workers) == other else f"{other[0]}, 1 process"
        name = f"train, {precision}, {workers} process{'es' if workers > 1 else ''}"
        rates.append(Rate(name, rate, "pairs/s", against, rate / trained[other]))
    fastest = max(trained.values())
    rates += [
        Rate("decode, once per study", images, "images/s", "best training", images / fastest),
        Rate("decode, encoded bytes", megabytes, "MB/s"),
        Rate("embed, both towers", embedded, "pairs/s", "best training", embedded / fastest),
        Rate(f"train {_VIT}, {best.precision}", vit, "pairs/s", "best training", vit / fastest),
    ]
    models = 2 * len(demo.train.seeds)
    pairs = models * demo.train.epochs * (demo.split.shared + demo.split.candidate)
    return Speed(rates, load, pairs / trained[best.precision, best.workers], _EPOCH_PAIRS / vit)


def _recipe(demo: Recipe, models: int) -> Recipe:
    # enough epochs: trainings are stopped after timing
    seeds = list(range(-(-models // 2)))
    return load_recipe(dump_recipe(demo), ["train.epochs=10000", f"train.seeds={seeds}"])


def _planned(folder: RunFolder, recipe: Recipe) -> tuple[float, float]:
    source = open_source(recipe.data)
    pairs = source.pairs()
    folder.claim(recipe, dump_recipe(recipe))
    references = pairs["image"].to_list()
    size = model_config(recipe.model.name)["vision_cfg"]["image_size"]
    started = time.monotonic()
    build_cache(folder.path / CACHE, references, source.read, size=size)
    seconds = time.monotonic() - started
    folder.write("pairs", pairs)
    folder.write("splits", protocol_of(recipe).split(pairs, pairs["group"].to_list()))
    return len(references) / seconds, sum(map(len, source.read(references))) / 1e6 / seconds


def _training(folder: RunFolder, resources: execution.Execution) -> float:
    recipe = folder.recipe()
    folder.write_json(
        "manifest.json", manifest.build(recipe, data_sha256="", command="", user_set=(), execution=resources.as_dict())
    )
    models = PlannedStudy(folder.path).models
    n = len(models[0].uids)
    batch = n / -(-n // recipe.train.batch_size)
    clock = _Clock()
    try:
        pool.run(work.train_task, folder.path, models[: resources.workers], resources, progress=clock)
    except _StopTiming:
        return clock.steps * batch / clock.seconds
    raise InputError("clipmem doctor --speed", got="a training that ended early", hint="Please report this bug.")


class _Clock:
    def __init__(self) -> None:
        self.steps, self.seconds = 0, 0.0
        self._first = self._since = 0.0

    def __call__(self, steps: int, note: str) -> None:  # noqa: ARG002
        now = time.monotonic()
        self._first = self._first or now
        if now - self._first < _SETTLE:
            self._since = now
            return
        self.steps += steps
        self.seconds = now - self._since
        if self.seconds >= _MEASURE:
            raise _StopTiming


def _embedding(folder: RunFolder, resources: execution.Execution) -> float:
    study = PlannedStudy(folder.path)
    load = partial(openclip.create, study.recipe.model.name, seed=0)
    model = Model("", load, study.recipe.embed, study.recipe.train, resources.device)
    every = Pairs("study", study.splits, pixels={model.geometry: study.pixels()})

    def once(n: int) -> float:
        started = time.monotonic()
        model.embed(replace(every, table=every.table[:n]), captions=study.captions[:n], rows=study.rows[:n])
        return n / (time.monotonic() - started)

    with threads(resources.threads * resources.workers):
        once(study.recipe.embed.batch_size)  # the first pass allocates
        return once(len(every))


def _start(name: str) -> Start:
    recipe = load_recipe("", [f"model.name={name}"])
    return Start(recipe.model, recipe.train)


def training_rate_and_memory(start: Start, resources: execution.Execution, pairs: int) -> tuple[float, int | None]:
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


def training_rate(start: Start, resources: execution.Execution, pairs: int = 64) -> float:
    """Return pairs per second of training passes of a model, on all cores, in batches of `pairs`."""
    encoder, settings, frozen = start.create(0), load_recipe("").train, frozenset(start.train.freeze)
    encoder.module.to(resources.device).train()
    freeze(encoder, start.train)
    objective = create_objective(encoder, settings, labels=None, classes=0, n=pairs, seed=0).to(resources.device)
    draw = np.random.default_rng(0)
    pixels = torch.from_numpy(draw.normal(size=(pairs, 3, encoder.image_size, encoder.image_size)).astype(np.float32))
    tokens = encoder.tokenize([_CAPTION] * pairs)
    embedded = torch.from_numpy(draw.normal(size=(pairs, start.width)).astype(np.float32))
    pixels, tokens = (embedded if kind in frozen else one for kind, one in (("image", pixels), ("text", tokens)))
    pixels, tokens = pixels.to(resources.device), tokens.to(resources.device)
    towers = Towers(encoder, resources.precision, resources.device, frozen=frozen)

    def step(n: int) -> float:
        started = time.monotonic()
        loss: torch.Tensor = objective(towers, [pixels[:n]], tokens[:n], None)
        loss.backward()
        loss.item()  # synchronizes
        return n / (time.monotonic() - started)

    with threads(resources.threads * resources.workers):
        step(2)  # the first pass allocates
        return step(pairs)


def in_words(seconds: float) -> str:
    """Format an estimate with two digits."""
    sizes: Sequence[tuple[float, str]] = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))
    size, name = next((one for one in sizes if seconds >= one[0]), sizes[-1])
    return f"{seconds / size:.2g} {name}" if seconds / size < 10 else f"{seconds / size:.0f} {name}"


# ---- estimates of a study


@dataclass(frozen=True)
class Work:
    """The amount of computation of a study."""

    presentations: float
    passes: float
    steps: float
    models: int

    @property
    def trained(self) -> float:
        """Presentations that cost as much as training and embedding."""
        return self.presentations + self.passes / _TRAINING


def work_of(recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame) -> Work:
    """Count the computation of a study of these pairs."""
    train, share = recipe.train, recipe.mitigate.early_stopping.share
    trained, models = protocol.trained_pairs, protocol.count
    epochs = 0.0 if ready_model(recipe, "f", train.seeds[0]) else train.epochs * share
    texts, views = _per_pair(recipe, pairs)
    return Work(
        presentations=models * epochs * trained,
        passes=models * protocol.used_pairs(pairs) * (views + texts) / 2,
        steps=models * epochs * -(-trained // train.batch_size),
        models=models,
    )


def check_forecast(
    recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame, resources: Execution, start: Start, place: Path
) -> None:
    """Refuse a study that takes more than a day, or more memory or disk space than available."""
    work, outline = work_of(recipe, protocol, pairs), Outline(0.0, 0)
    if work.presentations > _FEW:
        outline = outline_of(start)
        _check_time(recipe, protocol, work, resources, start, outline)
    _check_space(recipe, protocol, pairs, resources, start, outline.parameters, place)


def _check_time(
    recipe: Recipe, protocol: Protocol, work: Work, resources: Execution, start: Start, outline: Outline
) -> None:
    total, cpu = work.trained * _TRAINING * outline.operations, resources.device == "cpu"
    units = max(1, resources.processes // resources.workers) if cpu else resources.processes
    steps = work.steps * (_STEP + _STEP_PARAMETER * outline.parameters)
    if total / (units * _SLOWEST) + steps <= LONGEST:
        return
    fastest = _FASTEST_GPU if resources.device == "cuda" else _FASTEST[resources.precision] * cores()
    word, seconds = "at least", total / (units * fastest)
    if seconds <= LONGEST:
        rate = _rate(start, resources, work.trained / (units * LONGEST))
        word, seconds = "about", work.trained / (units * rate)
    if seconds <= LONGEST:
        return
    train = recipe.train
    got = f"{word} {in_words(seconds)} on this machine's {resources.device} for {work.models:,} models of "
    got += f"{start.name} over {train.epochs:,} epochs of {protocol.trained_pairs:,} pairs"
    hint = f"Reduce train.epochs, the number of models or the sizes in [split], or {_CONSENT}."
    raise InputError("time of the study", got=got, expected="at most a day", hint=hint)


def _rate(start: Start, resources: Execution, needed: float) -> float:
    rate = training_rate(start, resources, 8)
    if rate < needed and (rate > 8 or resources.device == "cuda"):
        rate = max(rate, training_rate(start, resources, 64))
    return rate


def _check_space(
    recipe: Recipe,
    protocol: Protocol,
    pairs: pl.DataFrame,
    resources: Execution,
    start: Start,
    parameters: int,
    place: Path,
) -> None:
    image = 3 * start.geometry.size**2
    texts, views = _per_pair(recipe, pairs)
    embedded = protocol.used_pairs(pairs) * (texts + views) * start.width * _FLOAT
    weights = parameters * _FLOAT
    batch = min(recipe.train.batch_size, protocol.trained_pairs)
    while not place.exists():
        place = place.parent
    sizes = (
        (
            "disk space of the study",
            pairs.height * image + protocol.count * (embedded + weights),
            shutil.disk_usage(place).free,
            f"the free space at {place}",
        ),
        (
            "memory of the study",
            max(embedded, resources.workers * (parameters * _STATE + batch * image * _FLOAT)),
            memory() or math.inf,
            "the memory of this machine",
        ),
    )
    for what, needed, there, which in sizes:
        got, expected = f"{needed / 1e9:,.1f} GB or more", f"at most {there / 1e9:,.1f} GB, {which}"
        hint = f"Reduce the number of models, embed.views or the sizes in [split], or {_CONSENT}."
        require(needed <= there, what, got, expected, hint)


def _per_pair(recipe: Recipe, pairs: pl.DataFrame) -> tuple[float, int]:
    most = max(recipe.train.captions, recipe.evaluate.wordings)
    captions = float(pairs["captions"].list.len().clip(upper_bound=most).sum()) / pairs.height
    return captions + recipe.embed.caption_edits, max(1, recipe.embed.views)
