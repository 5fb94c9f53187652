"""Training: pairs per second of the whole machine, against open_clip's trainer and against the bare passes."""

import itertools
import os
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
from timing import Row, in_turn, output, script
from torch import Tensor
from workload import Workload, emoji

from clipmem.base.sections import TrainSection
from clipmem.data.views import draw_crops, normalize_pixels, pair_keys, render
from clipmem.models.openclip import OpenClipEncoder, contrastive_loss, create
from clipmem.train.numerics import computing, resolve_precision

HERE = Path(__file__).parent.parent
_TRIED = 4  # batches of a trial run; the first two do not count
_RATE = re.compile(r"^RATE ([0-9.e+]+)$", re.MULTILINE)


def measure(folder: Path, *, rounds: int, before: str, device: str) -> list[Row]:  # noqa: ARG001
    """Compare with the demo's model, and with ViT-B-32 and captions of COCO's length."""
    config = str(files("clipmem.models") / "configs" / "clipmem-tiny.json")
    tiny = emoji(folder / "tiny", size=64, pairs=1500)
    large = emoji(folder / "large", size=224, pairs=96, coco=True)
    return [
        _against(
            folder / "tiny",
            tiny,
            "demo recipe",
            "clipmem-tiny",
            config,
            128,
            (10, 2),
            rounds,
            coco=False,
            device=device,
        ),
        _bare(tiny, "demo recipe", "clipmem-tiny", 128, rounds, device),
        _against(
            folder / "large",
            large,
            "ViT-B-32, 224 px",
            "ViT-B-32",
            "ViT-B-32",
            32,
            (2, 2),
            rounds,
            coco=True,
            device=device,
        ),
    ]


def rates(processes: list[str]) -> float:
    """Add the rates that processes printed."""
    return sum(float(_RATE.findall(text)[-1]) for text in processes)


def _ours(
    folder: Path, data: Workload, model: str, batch: int, epochs: int, coco: str, device: str
) -> Callable[[], float]:
    """Train like a study: one model per core with one thread each, or one on a GPU."""
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    threads = 1 if device == "cpu" else len(os.sched_getaffinity(0))
    precision = resolve_precision("auto", device)

    def run() -> float:
        words = [str(HERE / "ours.py"), str(folder), str(data.size), str(len(data.uids)), coco, model, str(batch)]
        running = [script(*words, str(epochs), precision, device, threads=threads) for _ in range(cores)]
        return rates([output(p) for p in running])

    return run


def _theirs(data: Workload, config: str, batch: int, epochs: int, device: str) -> list[Callable[[], float]]:
    """Train by open_clip in each precision, as one process with all threads and a loader per core, or one per core.

    Configurations clearly slower than the best in a short trial are dropped. bf16 is included only if the processor
    supports it; elsewhere it is emulated, and much slower than fp32.
    """
    cores = len(os.sched_getaffinity(0))

    def run(table: Path, epochs: int, precision: str, processes: int, workers: int) -> float:
        words = [str(HERE / "peer.py"), str(table), config, str(batch), str(epochs), precision, str(workers), device]
        threads = max(1, cores // processes)
        return rates([output(p) for p in [script(*words, threads=threads) for _ in range(processes)]])

    precisions = ("fp32", "amp_bf16") if resolve_precision("auto", device) == "bf16" else ("fp32",)
    ways = [
        (precision, processes, workers)
        for precision in precisions
        for processes, workers in (((1, cores), (cores, 0)) if device == "cpu" else ((1, cores), (1, 0)))
    ]
    short = _head(data.csv, rows=_TRIED * batch)
    tried = [run(short, 1, *way) for way in ways]
    for (precision, processes, workers), rate in zip(ways, tried, strict=True):
        threads = max(1, cores // processes)
        print(f"open_clip {precision}, {processes} x {threads} threads, {workers} loaders: {rate:.1f} pairs/s")
    best = [way for way, rate in zip(ways, tried, strict=True) if rate > 0.95 * max(tried)]
    return [lambda way=way: run(data.csv, epochs, *way) for way in best]


def _head(table: Path, *, rows: int) -> Path:
    """Write the first rows of a table to a new file."""
    short = table.with_stem("short")
    with table.open(encoding="utf-8") as stream:
        short.write_text("".join(itertools.islice(stream, rows + 1)), encoding="utf-8")
    return short


def _against(
    folder: Path,
    data: Workload,
    case: str,
    model: str,
    config: str,
    batch: int,
    epochs: tuple[int, int],
    rounds: int,
    *,
    coco: bool,
    device: str,
) -> Row:
    ways = _theirs(data, config, batch, epochs[1], device)
    return in_turn(
        "training",
        f"{case}: a study's models, open_clip at its best",
        "open_clip",
        _ours(folder, data, model, batch, epochs[0], "coco" if coco else "short", device),
        ways,
        unit="pairs/s",
        rounds=rounds,
        more_is_better=True,
    )


def _bare(data: Workload, case: str, model: str, batch: int, rounds: int, device: str) -> Row:
    """Compare the training loop in one process and thread with forward and backward passes on batches in memory."""
    precision = resolve_precision("auto", device)
    words = [
        str(HERE / "suites" / "bare.py"),
        str(data.cache.parent),
        str(len(data.uids)),
        model,
        str(batch),
        precision,
        device,
    ]
    ours = [str(HERE / "ours.py"), str(data.cache.parent), str(data.size), str(len(data.uids)), "short", model]
    return in_turn(
        "training",
        f"{case}: the loop, one process",
        "bare",
        lambda: rates([output(script(*ours, str(batch), "8", precision, device, threads=1))]),
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
