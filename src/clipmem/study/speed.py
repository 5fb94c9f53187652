"""How fast this machine is, for `clipmem doctor --speed`: real pictures, real workers, real passes, in a minute.

Every number is from seconds of work on this machine as it was just then: other work on it makes all of them smaller,
and a laptop slows down when it gets hot. Ratios hold longer than rates.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe, dump_recipe, load_recipe
from clipmem.data.cache import build_cache
from clipmem.data.sources import open_source
from clipmem.embed import passes
from clipmem.models import openclip
from clipmem.models.names import model_config
from clipmem.score.protocols import protocol_of
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.study import api, execution, pool, work
from clipmem.study.plan import CACHE, PlannedStudy
from clipmem.train.numerics import threads
from clipmem.train.objectives import Towers, create_objective

_SETTLE, _MEASURE = 1.5, 3.0  # seconds: workers start one after another
_VIT, _VIT_PAIRS = "ViT-B-32", 8
_EPOCH_PAIRS = 70_000
_CAPTION = "A man riding a wave on top of a surfboard in the sea"  # as long as captions of photographs are


@dataclass(frozen=True)
class Rate:
    """One line of the table.

    Attributes:
        what: What was done.
        rate: How much of it a second.
        unit: What is counted.
        against: What it is compared with; empty for the first of its kind.
        ratio: `rate` divided by that one's.
    """

    what: str
    rate: float
    unit: str
    against: str = ""
    ratio: float = 1.0


@dataclass(frozen=True)
class Speed:
    """What was measured, and what it means for two studies.

    Attributes:
        rates: The table.
        load: Processes that wanted a core over the last minute, before the measurement.
        demo: Estimated seconds of training in `clipmem demo`.
        vit_epoch: Estimated seconds of one epoch of ViT-B-32 over 70,000 pairs.
    """

    rates: list[Rate]
    load: float
    demo: float
    vit_epoch: float


class _EnoughError(Exception):
    """Ends a training that was only started to be timed."""


def measure(*, device: str = "auto", say: Callable[[str], object] = lambda _: None) -> Speed:
    """Measure this machine; takes about a minute when it has nothing else to do.

    Args:
        device: `auto`, `cpu` or `cuda`.
        say: Told what is measured next.
    """
    load, demo = os.getloadavg()[0], api.find_recipe("demo")
    best = execution.resolve(demo, 64, device=device)
    with tempfile.TemporaryDirectory() as place:
        say("decoding the shipped pictures")
        folder = RunFolder(Path(place) / "run")
        pictures, megabytes = _planned(folder, _recipe(demo, best.workers))
        trained: dict[tuple[str, int], float] = {}
        for workers in sorted({1, best.workers}):
            for precision in ("fp32", "bf16"):
                say(f"training in {precision}, {workers} at a time")
                how = execution.Execution(best.device, precision, best.threads, workers)
                trained[precision, workers] = _training(folder, how)
        say("embedding")
        embedded = _embedding(folder, best)
    say(f"a step of {_VIT}")
    vit = training_rate(_VIT, best, _VIT_PAIRS)
    rates = [
        _train_rate(precision, workers, trained)
        for precision, workers in sorted(trained, key=lambda key: (key[1], key[0] != "fp32"))
    ]
    fastest = max(trained.values())
    rates += [
        Rate(
            "decode, once a study",
            pictures,
            "pictures/s",
            "best training",
            pictures / fastest,
        ),
        Rate("the same, encoded bytes", megabytes, "MB/s"),
        Rate("embed, both towers", embedded, "pairs/s", "best training", embedded / fastest),
        Rate(f"train {_VIT}, {best.precision}", vit, "pairs/s", "best training", vit / fastest),
    ]
    models = 2 * len(demo.train.seeds)
    pairs = models * demo.train.epochs * (demo.split.shared + demo.split.candidate)
    return Speed(rates, load, pairs / trained[best.precision, best.workers], _EPOCH_PAIRS / vit)


def _train_rate(precision: str, workers: int, trained: dict[tuple[str, int], float]) -> Rate:
    names = {key: f"train, {key[0]}, {key[1]} process{'es' if key[1] > 1 else ''}" for key in trained}
    rate = trained[precision, workers]
    other = ("fp32", 1) if (precision, workers) in {("bf16", 1)} else (precision, 1)
    if (precision, workers) == ("fp32", 1):
        return Rate(names["fp32", 1], rate, "pairs/s")
    return Rate(
        names[precision, workers],
        rate,
        "pairs/s",
        names[other].removeprefix("train, "),
        rate / trained[other],
    )


def _recipe(demo: Recipe, models: int) -> Recipe:
    # more epochs than anybody waits for: each training is stopped when it has been timed
    seeds = list(range(-(-models // 2)))
    return load_recipe(dump_recipe(demo), ["train.epochs=10000", f"train.seeds={seeds}"])


def _planned(folder: RunFolder, recipe: Recipe) -> tuple[float, float]:
    """Decode and split the shipped data; return pictures and megabytes decoded a second."""
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


def _training(folder: RunFolder, how: execution.Execution) -> float:
    """Train as many models as there are workers until the time is over; return pairs a second of all together."""
    recipe = folder.recipe()
    folder.write_json(
        "manifest.json",
        manifest.build(recipe, data_sha256="", command="", user_set=(), execution=how.as_dict()),
    )
    models = PlannedStudy(folder).models
    n = len(models[0].uids)
    batch = n / -(-n // recipe.train.batch_size)
    clock = _Clock()
    try:
        pool.run(work.train_task, folder.path, models[: how.workers], how, progress=clock)
    except _EnoughError:
        return clock.steps * batch / clock.seconds
    raise InputError("clipmem doctor --speed", got="a training that ended at once", hint="Report this.")


class _Clock:
    """Counts steps from the time when all workers run until enough have been counted."""

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
            raise _EnoughError


def _embedding(folder: RunFolder, how: execution.Execution) -> float:
    study = PlannedStudy(folder)
    recipe, uids = study.recipe, study.uids
    encoder = openclip.create(recipe.model.name, seed=0)

    def once(n: int) -> float:
        started = time.monotonic()
        passes.embed(
            encoder,
            study.pixels(),
            study.rows[:n],
            study.captions[:n],
            uids[:n],
            recipe.embed,
            recipe.train,
            device=how.device,
        )
        return n / (time.monotonic() - started)

    with threads(how.threads * how.workers):
        once(recipe.embed.batch_size)  # the first pass allocates
        return once(len(uids))


def training_rate(name: str, how: execution.Execution, pairs: int = 64) -> float:
    """Return pairs a second of forward and backward passes of an architecture, on all cores, batches of `pairs`."""
    encoder = openclip.create(name, seed=0)
    encoder.module.to(how.device).train()
    settings = load_recipe("").train
    objective = create_objective(encoder, settings, labels=None, classes=0, n=pairs, seed=0).to(how.device)
    pixels = torch.from_numpy(
        np.random.default_rng(0).normal(size=(pairs, 3, encoder.image_size, encoder.image_size)).astype(np.float32)
    ).to(how.device)
    tokens = encoder.tokenize([_CAPTION] * pairs).to(how.device)
    towers = Towers(encoder, how.precision, how.device)

    def step(n: int) -> float:
        started = time.monotonic()
        loss: torch.Tensor = objective(towers, [pixels[:n]], tokens[:n], None)
        loss.backward()
        loss.item()  # waits for a GPU
        return n / (time.monotonic() - started)

    with threads(how.threads * how.workers):
        step(2)  # the first pass allocates
        return step(pairs)


def in_words(seconds: float) -> str:
    """Write an estimate with no more digits than it has.

    Example:
        >>> in_words(83.0), in_words(4e3), in_words(4e5)
        ('1.4 min', '1.1 h', '4.6 days')
    """
    sizes: Sequence[tuple[float, str]] = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))
    size, name = next((one for one in sizes if seconds >= one[0]), sizes[-1])
    return f"{seconds / size:.2g} {name}" if seconds / size < 10 else f"{seconds / size:.0f} {name}"
