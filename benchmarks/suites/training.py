"""Training: pairs per second of the whole machine, against open_clip's trainer and against the bare passes."""

import itertools
import os
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch
from timing import Row, in_turn, output, script
from torch import Tensor
from workload import Workload, emoji

from clipmem.base.sections import TrainSection
from clipmem.data.views import draw_crops, normalize_pixels, pair_keys, render
from clipmem.models.numerics import computing, resolve_precision
from clipmem.models.openclip import OpenClipEncoder, contrastive_loss, create

HERE = Path(__file__).parent.parent
_TRIED = 4  # batches of a trial run; the first two do not count
_RATE = re.compile(r"^RATE ([0-9.e+]+)$", re.MULTILINE)


class Case(NamedTuple):
    """A model and its data; `config`: open_clip's name of the model, or its file; `epochs`: ours and open_clip's."""

    name: str
    model: str
    config: str
    size: int
    pairs: int
    batch: int
    epochs: tuple[int, int]
    coco: bool = False


def _shipped(model: str) -> str:
    return str(files("clipmem.models") / "configs" / f"{model}.json")


DEMO = Case("demo recipe", "clipmem-tiny", _shipped("clipmem-tiny"), 64, 1500, 128, (10, 2))
LARGE = Case("ViT-B-32, 224 px", "ViT-B-32", "ViT-B-32", 224, 96, 32, (2, 2), coco=True)
SMALLEST = Case("smallest", "clipmem-micro", _shipped("clipmem-micro"), 32, 32, 8, (2, 1))


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Compare with the demo's model, and with ViT-B-32 and captions of COCO's length."""
    small = SMALLEST if smallest else DEMO
    rows: list[Row] = []
    for case in (small,) if smallest else (small, LARGE):
        data = emoji(folder / str(case.size), size=case.size, pairs=case.pairs, coco=case.coco)
        rows.append(_against(case, data, rounds, device))
        if case is small:
            rows.append(_bare(case, data, rounds, device, seconds=1.0 if smallest else 12.0))
    return rows


def one_process(folder: Path, device: str, *, smallest: bool, epochs: tuple[int, int]) -> list[str]:
    """Write the demo's data; return the words that train its model in one process, longer if it is the smallest."""
    model, size, pairs, batch = ("clipmem-micro", 32, 16, 8) if smallest else ("clipmem-tiny", 64, 1500, 128)
    emoji(folder, size=size, pairs=pairs)
    words = ["short", model, str(batch), str(epochs[smallest]), resolve_precision("auto", device), device]
    return [str(HERE / "ours.py"), str(folder), str(size), str(pairs), *words]


def rates(processes: list[str]) -> float:
    """Add the rates that processes printed."""
    return sum(float(_RATE.findall(text)[-1]) for text in processes)


def _words(case: Case, data: Workload) -> list[str]:
    """Return the first arguments of `ours.py`."""
    captions = "coco" if case.coco else "short"
    place = str(data.cache.parent)
    return [str(HERE / "ours.py"), place, str(case.size), str(case.pairs), captions, case.model, str(case.batch)]


def _ours(case: Case, data: Workload, device: str) -> Callable[[], float]:
    """Train like a study: one model per core with one thread each, or one on a GPU."""
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    threads = 1 if device == "cpu" else len(os.sched_getaffinity(0))
    precision = resolve_precision("auto", device)
    words = [*_words(case, data), str(case.epochs[0]), precision, device]

    def run() -> float:
        running = [script(*words, threads=threads) for _ in range(cores)]
        return rates([output(p) for p in running])

    return run


def _theirs(case: Case, data: Workload, device: str) -> list[Callable[[], float]]:
    """Train by open_clip in each precision, as one process with all threads and a loader per core, or one per core.

    Configurations clearly slower than the best in a short trial are dropped. bf16 is included only if the processor
    supports it; elsewhere it is emulated, and much slower than fp32.
    """
    cores, batch = len(os.sched_getaffinity(0)), str(case.batch)

    def run(table: Path, epochs: int, precision: str, processes: int, workers: int) -> float:
        words = [str(HERE / "peer.py"), str(table), case.config, batch, str(epochs), precision, str(workers), device]
        threads = max(1, cores // processes)
        return rates([output(p) for p in [script(*words, threads=threads) for _ in range(processes)]])

    precisions = ("fp32", "amp_bf16") if resolve_precision("auto", device) == "bf16" else ("fp32",)
    ways = [
        (precision, processes, workers)
        for precision in precisions
        for processes, workers in (((1, cores), (cores, 0)) if device == "cpu" else ((1, cores), (1, 0)))
    ]
    short = _head(data.csv, rows=_TRIED * case.batch)
    tried = [run(short, 1, *way) for way in ways]
    for (precision, processes, workers), rate in zip(ways, tried, strict=True):
        threads = max(1, cores // processes)
        print(f"open_clip {precision}, {processes} x {threads} threads, {workers} loaders: {rate:.1f} pairs/s")
    best = [way for way, rate in zip(ways, tried, strict=True) if rate > 0.95 * max(tried)]
    return [lambda way=way: run(data.csv, case.epochs[1], *way) for way in best]


def _head(table: Path, *, rows: int) -> Path:
    """Write the first rows of a table to a new file."""
    short = table.with_stem("short")
    with table.open(encoding="utf-8") as stream:
        short.write_text("".join(itertools.islice(stream, rows + 1)), encoding="utf-8")
    return short


def _against(case: Case, data: Workload, rounds: int, device: str) -> Row:
    return in_turn(
        "training",
        f"{case.name}: a study's models, open_clip at its best",
        "open_clip",
        _ours(case, data, device),
        _theirs(case, data, device),
        unit="pairs/s",
        rounds=rounds,
        more_is_better=True,
    )


def _bare(case: Case, data: Workload, rounds: int, device: str, *, seconds: float) -> Row:
    """Compare the training loop in one process and thread with forward and backward passes on batches in memory."""
    precision = resolve_precision("auto", device)
    file, place = str(HERE / "suites" / "bare.py"), str(data.cache.parent)
    words = [file, place, str(case.pairs), case.model, str(case.batch), precision, device, str(seconds)]
    ours = [*_words(case, data), "8", precision, device]
    return in_turn(
        "training",
        f"{case.name}: the loop, one process",
        "bare",
        lambda: rates([output(script(*ours, threads=1))]),
        lambda: rates([output(script(*words, threads=1))]),
        unit="pairs/s",
        rounds=rounds,
        more_is_better=True,
    )


def prepared(encoder: OpenClipEncoder, data: Workload, batch: int, batches: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches of normalized views and trimmed captions."""
    settings = TrainSection.model_validate({})
    made: list[tuple[Tensor, Tensor]] = []
    for k in range(batches):
        rows = slice(k * batch, (k + 1) * batch)
        crops = draw_crops(
            pair_keys(data.uids[rows]),
            seed=0,
            size=data.size,
            scale=settings.crop_scale,
            ratio=settings.crop_ratio,
            flip=0,
        )
        pixels = render(torch.from_numpy(data.pixels[rows].copy()), crops, size=encoder.image_size)
        made.append((normalize_pixels(pixels, encoder.mean, encoder.std), encoder.tokenize(data.captions[rows])))
    return made


def passes(encoder: OpenClipEncoder, batch: tuple[Tensor, ...], precision: str, device: str) -> None:
    """Run a forward and a backward pass."""
    with computing(precision, device, tokens=encoder.tokens):
        image, text = encoder.encode_image(batch[0]), encoder.encode_text(batch[1])
    loss = contrastive_loss(
        torch.nn.functional.normalize(image.float(), dim=-1),
        torch.nn.functional.normalize(text.float(), dim=-1),
        encoder.logit_scale(),
    )
    loss.backward()
    loss.item()  # synchronizes with a GPU, like a loop that logs its loss


def bare_encoder(model: str) -> OpenClipEncoder:
    """Return a new model in training mode."""
    encoder = create(model, seed=0)
    encoder.module.train()
    return encoder
