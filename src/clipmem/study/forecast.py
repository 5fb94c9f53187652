"""What a study will take, before it begins: time, memory and disk space; one that takes too much needs consent.

Time is that of training and embedding. It is bounded first, from the operations of a forward pass, which are counted
without computing anything: what is surely short begins at once, what is surely long is refused at once, and only in
between some batches are timed. When not to trust it: other work on the machine makes the rate too small, a study with
short captions takes less than is counted, and machines that Ray adds are not known here. It tells hours from weeks.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch.utils.flop_counter import FlopCounterMode

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe
from clipmem.models import openclip
from clipmem.score.protocols import Protocol
from clipmem.study import speed
from clipmem.study.execution import Execution, cores

LONGEST = 86_400.0  # seconds that a study may take without consent
_TRAINING = 3  # a backward pass costs two forward ones
# Operations a second that every machine in use reaches, and that none reaches: two cores reach some 2.5e11 in fp32; a
# core's vector units compute 3e11 in fp32 at most, its matrix units 3e12 in bf16, and one GPU of today 2.5e15.
_SLOWEST = 2e10
_FASTEST = {"fp32": 4e11, "tf32": 4e11, "bf16": 4e12}
_FASTEST_GPU = 5e15
_FEW = 10_000  # pairs in all trainings; the largest open_clip models need a day for as many on two cores
_STEP, _STEP_PARAMETER = 0.01, 3e-9  # seconds of a step beside its passes, at most: AdamW is bound by memory
_FLOAT, _STATE = 4, 16  # bytes of a number; of a weight in training, with its gradient and AdamW's two moments
_CONSENT = "add --yes (in Python: allow_long=True)"


@dataclass(frozen=True)
class Work:
    """What a study computes.

    Attributes:
        presentations: Pairs shown in all trainings together.
        passes: Pairs embedded by all models together; an image view without text is half a pair.
        steps: Optimizer steps of all models.
        models: Models.
    """

    presentations: float
    passes: float
    steps: float
    models: int

    @property
    def trained(self) -> float:
        """Pairs in training that cost as much as training and embedding."""
        return self.presentations + self.passes / _TRAINING


def work_of(recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame) -> Work:
    """Count what a study of these pairs computes."""
    train, share = recipe.train, recipe.mitigate.early_stopping.share
    trained, models = protocol.trained_pairs, protocol.count
    epochs = train.epochs * share
    texts, views = _per_pair(recipe, pairs)
    return Work(
        presentations=models * epochs * trained,
        passes=models * protocol.used_pairs(pairs) * (views + texts) / 2,
        steps=models * epochs * -(-trained // train.batch_size),
        models=models,
    )


def check(recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame, how: Execution, place: Path) -> None:
    """Refuse a study that takes more than a day, or more memory or disk space than there is.

    Args:
        recipe: The recipe; its models are trained.
        protocol: Its protocol.
        pairs: The pairs of the source.
        how: How models are computed here.
        place: The run folder, which need not exist.

    Raises:
        InputError: It takes more.
    """
    work, name = work_of(recipe, protocol, pairs), recipe.model.name
    operations, parameters = 0.0, 0
    if work.presentations > _FEW:
        operations, parameters = _outline(name)
        _check_time(recipe, protocol, work, how, operations, parameters)
    _check_space(recipe, protocol, pairs, how, parameters, place)


def _check_time(
    recipe: Recipe, protocol: Protocol, work: Work, how: Execution, operations: float, parameters: int
) -> None:
    total = work.trained * _TRAINING * operations
    units = max(1, how.processes // how.workers) if how.device == "cpu" else how.processes
    steps = work.steps * (_STEP + _STEP_PARAMETER * parameters)
    if total / (units * _SLOWEST) + steps <= LONGEST:
        return
    fastest = _FASTEST_GPU if how.device == "cuda" else _FASTEST[how.precision] * cores()
    word, seconds = "at least", total / (units * fastest)
    if seconds <= LONGEST:
        rate = _rate(recipe.model.name, how, work.trained / (units * LONGEST))
        word, seconds = "at the present rate about", work.trained / (units * rate)
    if seconds <= LONGEST:
        return
    train = recipe.train
    raise InputError(
        "time of the study",
        got=f"{word} {speed.in_words(seconds)} on this machine's {how.device} for {work.models:,} models of "
        f"{recipe.model.name} over {train.epochs:,} epochs of {protocol.trained_pairs:,} pairs",
        expected="at most a day",
        hint=f"Lower train.epochs, the number of models or the sizes in [split], or {_CONSENT}.",
    )


def _rate(name: str, how: Execution, needed: float) -> float:
    """Time a small batch; a large one, which makes better use of the machine, only where that decides and is quick."""
    rate = speed.training_rate(name, how, 8)
    if rate < needed and (rate > 8 or how.device == "cuda"):
        rate = max(rate, speed.training_rate(name, how, 64))
    return rate


def _check_space(
    recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame, how: Execution, parameters: int, place: Path
) -> None:
    side, width = openclip.geometry_of_config(recipe.model.name).size, openclip.model_config(recipe.model.name)
    image = 3 * side * side
    texts, views = _per_pair(recipe, pairs)
    embedded = protocol.used_pairs(pairs) * (texts + views) * int(width["embed_dim"]) * _FLOAT
    weights = parameters * _FLOAT
    batch = min(recipe.train.batch_size, protocol.trained_pairs)
    while not place.exists():
        place = place.parent
    sizes = (
        (
            "disk space of the study",
            pairs.height * image + protocol.count * (embedded + weights),
            shutil.disk_usage(place).free,
            f"which are free at {place}",
        ),
        (
            "memory of the study",
            max(embedded, how.workers * (parameters * _STATE + batch * image * _FLOAT)),
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "which this machine has",
        ),
    )
    for what, needed, there, which in sizes:
        if needed > there:
            raise InputError(
                what,
                got=f"{needed / 1e9:,.1f} GB or more",
                expected=f"at most {there / 1e9:,.1f} GB, {which}",
                hint=f"Lower the number of models, embed.views or the sizes in [split], or {_CONSENT}.",
            )


def _per_pair(recipe: Recipe, pairs: pl.DataFrame) -> tuple[float, int]:
    """Return the texts and the image views that are embedded of a pair."""
    captions = float(pairs["captions"].list.len().clip(upper_bound=recipe.train.captions).sum()) / pairs.height
    return captions + recipe.embed.caption_edits, max(1, recipe.embed.views)


def _outline(name: str) -> tuple[float, int]:
    """Return the operations of a pair's forward pass, its caption at full length, and the number of weights."""
    model, side = openclip.outline(name), openclip.geometry_of_config(name).size
    length = int(openclip.model_config(name)["text_cfg"].get("context_length", 77))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model.encode_image(torch.zeros(1, 3, side, side))  # pyright: ignore[reportCallIssue]
        model.encode_text(torch.zeros(1, length, dtype=torch.long))  # pyright: ignore[reportCallIssue]
    return float(counter.get_total_flops()), sum(weight.numel() for weight in model.parameters())
