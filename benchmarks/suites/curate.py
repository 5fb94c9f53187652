"""Detectors of mismatched captions: every one of them by kind of mismatch, against the best published one.

4,000 pairs, 15% of them with mismatched captions: a third swapped at random, a third swapped within the category, and a
third replaced by the category's name. clipmem-tiny trains on them for 15 epochs with `train.record`. A kind is scored
against the pairs with their own captions. Intervals are a bootstrap over pairs. `CLIPMEM_ICONS` names the icons of
experiments/reproduce/RESULTS.md as a second regime, `CLIPMEM_CLIPART` the clip art of experiments/curate/clipart.py
as a third, and `CLIPMEM_CURATE` a folder that keeps the trained models.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import page
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from clipmem.base import slices
from clipmem.base.random import bootstrap_counts, generator
from clipmem.base.sections import DataSection, EmbedSection, TrainSection
from clipmem.curation.ranking import curate
from clipmem.data.decoding import Geometry
from clipmem.models import given, passes
from clipmem.models.numerics import keep_memory, resolve_precision
from clipmem.models.openclip import create
from clipmem.models.passes import unit_means
from clipmem.models.protocol import DualEncoder
from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores import PAIR_SCORES, usable
from clipmem.study.score_inputs import read_pairs
from clipmem.train.batches import TrainingData
from clipmem.train.checkpoint import CHECKPOINT_FILE, Checkpoints
from clipmem.train.loop import Session, train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet
from clipmem.train.recorder import read_trajectory

WRONG = 0.15
KINDS = {  # the numbers in `Data.kind`
    "swapped at random": (0,),
    "swapped within the category": (1,),
    "vague: the category's name": (2,),
    "all three": (0, 1, 2),
    "both kinds of swaps": (0, 1),
}
OURS = "clipmem, all signals", "clipmem, no model", "clipmem, no model, ranks alone"
_GEOMETRY = Geometry(64, "squash", "bicubic")


class Data(NamedTuple):
    """Pairs with mismatched captions: `kind` is 0, 1 or 2 for a wrong one, else -1."""

    uids: list[str]
    pixels: np.ndarray
    captions: list[str]
    kind: np.ndarray


class Clean(NamedTuple):
    """Pairs with their own captions: uids, names of the images, pixels, captions, and categories."""

    uids: list[str]
    keys: list[str]
    pixels: np.ndarray
    captions: list[str]
    labels: np.ndarray


class Size(NamedTuple):
    """How much is measured: pairs, epochs of the model, draws of the bootstrap."""

    pairs: int = 4000
    epochs: int = 15
    draws: int = 500


class Result(NamedTuple):
    """A detector on a kind of mismatched captions; `low` and `high`: its AUROC minus that of the best published one.

    `seconds` are of one core; detectors share features, which are in the time of clipmem's own lists.
    """

    regime: str
    kind: str
    detector: str
    published: bool
    auroc: float
    precision: float
    low: float
    high: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return self._asdict()


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Result]:  # noqa: ARG001
    """Score every detector in every regime."""
    keep = folder if smallest else Path(os.environ.get("CLIPMEM_CURATE", folder))
    size = Size(200, 1, 20) if smallest else Size()
    regimes = sections(*(os.environ.get(variable) for variable in ("CLIPMEM_ICONS", "CLIPMEM_CLIPART")))
    return [row for name, section in regimes.items() for row in _regime(name, section, size, keep / name, device)]


def sections(icons: str | None, clipart: str | None) -> dict[str, DataSection]:
    """Return the data sets by name, without those whose file is not given."""
    found = {"emoji-artists": DataSection.model_validate({"source": "emoji-artists"})}
    for name, path in (("icons", icons), ("clip art", clipart)):
        if path:
            section = {"source": "parquet", "path": path, "caption_column": "captions", "label_column": "category"}
            found[name] = DataSection.model_validate(section)
    return found


def clean(section: DataSection) -> Clean:
    """Read all pairs of a data set, each with its first caption, and decode their images."""
    pairs = read_pairs(section, 1, "--data")
    rows = np.arange(len(pairs))
    blocks = [pairs.decoded(rows[part], [_GEOMETRY]) for part in slices(len(rows), 1024)]
    pixels, table = np.concatenate([block.pixels[_GEOMETRY] for block in blocks]), pairs.table
    captions = [texts[0] for texts in table["captions"]]
    return Clean(table["uid"].to_list(), table["key"].to_list(), pixels, captions, table["label"].to_numpy())


def mismatched(pairs: Clean, count: int, seed: int = 0) -> Data:
    """Draw pairs, and give 15% of them other captions, a third of each kind."""
    stream = generator(seed, "curate benchmark")
    rows = np.sort(stream.permutation(len(pairs.uids))[:count])
    own, labels = [pairs.captions[row] for row in rows], pairs.labels[rows]
    captions, kind, m = list(own), np.full(len(own), -1), round(WRONG * len(own) / 3)
    named = stream.permutation(np.flatnonzero(labels != ""))
    vague, within = named[:m], named[m : 2 * m]
    anyone = np.setdiff1d(stream.permutation(len(own)), named[: 2 * m], assume_unique=True)[:m]
    for number, groups in enumerate(([anyone], [within[labels[within] == one] for one in np.unique(labels[within])])):
        for group in groups:
            for row, other in zip(group, np.roll(group, 1), strict=True):
                captions[row] = own[other]
                kind[row] = number if own[other] != own[row] else -1
    for row in vague:
        captions[row], kind[row] = str(labels[row]).replace("-", " "), 2
    return Data([pairs.uids[row] for row in rows], pairs.pixels[rows], captions, kind)


def trained(data: Data, folder: Path, device: str, *, epochs: int) -> DualEncoder:
    """Train clipmem-tiny on the pairs, or read the model that did."""
    if not (folder / "log.jsonl").is_file():
        torch.set_num_threads(1)  # as a training process of a study
        torch.set_flush_denormal(True)
        keep_memory()
        checkpoints = Checkpoints(folder / CHECKPOINT_FILE, 30.0)
        settings = TrainSection.model_validate({"batch_size": 128, "epochs": epochs, "lr": 1e-3, "record": True})
        train(
            Towers(create("clipmem-tiny", seed=0), resolve_precision("auto", device), device),
            TrainingData(data.pixels, np.arange(len(data.uids)), [[text] for text in data.captions]),
            TrainingSet("f", 0, tuple(data.uids), len(data.uids)),
            settings,
            folder,
            Session(checkpoints=checkpoints),
        )
        checkpoints.remove()
    return given.load(given.find(str(folder)))


def embedded(data: Data, encoder: DualEncoder, device: str) -> Signals:
    """Return the signals of the pairs, with their embeddings."""
    texts = [[text] for text in data.captions]
    inputs = passes.Inputs(data.pixels, np.arange(len(texts)), texts, data.uids)
    settings, crops = EmbedSection(), TrainSection()  # pyright: ignore[reportCallIssue]
    found = passes.embed(encoder, inputs, settings, crops, device=device)
    means = unit_means(found.image, found.text, found.text_pair)
    return replace(plain(data), image=means.image, text=means.text)


def signals_of(data: Data, folder: Path, device: str, *, epochs: int) -> Signals:
    """Return the signals of the pairs with a model that trained on them."""
    signals = embedded(data, trained(data, folder, device, epochs=epochs), device)
    return replace(signals, trajectory=read_trajectory(folder, data.uids))


def plain(data: Data) -> Signals:
    """Return what is known without a model; no group of near-duplicates is known."""
    rows = np.arange(len(data.uids))
    return Signals(data.uids, [[text] for text in data.captions], rows, pixels=data.pixels.__getitem__)


def _regime(name: str, section: DataSection, size: Size, folder: Path, device: str) -> list[Result]:
    data = mismatched(clean(section), size.pairs)
    torch.set_num_threads(1)
    scores, seconds = dict[str, np.ndarray](), dict[str, float]()

    def timed(key: str, work: Callable[[], np.ndarray]) -> None:
        started = time.process_time()
        scores[key] = work()
        seconds[key] = time.process_time() - started

    def ours(known: Signals, **options: Any) -> Callable[[], np.ndarray]:
        return lambda: np.asarray(curate(known, **options).table["score"])

    timed(OURS[1], ours(plain(data)))
    timed(OURS[2], ours(plain(data), combine="ranks"))
    signals = signals_of(data, folder, device, epochs=size.epochs)
    timed(OURS[0], ours(signals))
    for detector in usable("mismatched captions", signals):
        timed(detector, lambda detector=detector: PAIR_SCORES[detector]().score(signals))
    results = list[Result]()
    for kind, numbers in KINDS.items():
        wrong = np.isin(data.kind, numbers)
        chosen = wrong | (data.kind < 0)
        results += _compared(
            name, kind, {key: x[chosen] for key, x in scores.items()}, wrong[chosen], seconds, size.draws
        )
    return results


def _compared(
    regime: str,
    kind: str,
    scores: Mapping[str, np.ndarray],
    wrong: np.ndarray,
    seconds: Mapping[str, float],
    draws: int,
) -> list[Result]:
    area = {key: float(roc_auc_score(wrong, x)) for key, x in scores.items()}
    published = {key for key in scores if key not in OURS and PAIR_SCORES[key].source}
    best = max(published, key=area.__getitem__)
    counts = bootstrap_counts(generator(0, "curate bootstrap"), draws, len(wrong))
    areas = {key: bootstrap_areas(x, wrong, counts) for key, x in scores.items()}
    rows = list[Result]()
    for key, x in scores.items():
        low, high = np.quantile(areas[key] - areas[best], (0.025, 0.975))
        precision = float(average_precision_score(wrong, x))
        rows.append(Result(regime, kind, key, key in published, area[key], precision, low, high, seconds[key]))
    return sorted(rows, key=lambda row: -row.auroc)


def bootstrap_areas(x: np.ndarray, wrong: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the AUROC of each bootstrap draw, ties shared evenly."""
    order, place = np.unique(x, return_inverse=True)
    positive, negative = (
        np.stack([np.bincount(place[side], row[side], len(order)) for row in counts]) for side in (wrong, ~wrong)
    )
    below = np.cumsum(negative, axis=1) - negative / 2
    return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def table(rows: Sequence[Result]) -> str:
    """Format the rows as Markdown."""
    return page.detectors([row.as_dict() for row in rows])
