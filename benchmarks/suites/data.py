"""Images per second that reach the model: cached, batch-wise views against decoding each image every time."""

import csv
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip_train.data import CsvDataset
from timing import Row, in_turn, seconds
from torch.utils.data import DataLoader
from workload import Workload, emoji

from clipmem.base.sections import TrainSection
from clipmem.data.cache import build_cache
from clipmem.data.decoding import Geometry
from clipmem.data.views import draw_crops, normalize_pixels, pair_keys, render, send
from clipmem.models.numerics import keep_memory
from clipmem.models.openclip import OpenClipEncoder, create

BATCH = 128


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Compare the batches of one epoch, with one thread each, and decoding."""
    torch.set_num_threads(1)
    keep_memory()  # as in the training processes of a study
    rows: list[Row] = []
    sizes = ((64, 16), (224, 8)) if smallest else ((64, 1500), (224, 400))
    for size, pairs in sizes:
        data = emoji(folder / f"data-{size}", size=size, pairs=pairs, coco=size == 224)
        encoder = create("clipmem-tiny" if size == 64 else "ViT-B-32", seed=0)
        rows.append(
            in_turn(
                "data",
                f"batches of views and tokens at {size} px, one thread",
                "open_clip",
                lambda data=data, encoder=encoder: len(data.uids) / seconds(lambda: _ours(data, encoder, device)),
                lambda data=data, size=size: len(data.uids) / seconds(lambda: _theirs(data, size)),
                unit="pairs/s",
                rounds=rounds,
                more_is_better=True,
            )
        )
    count = sizes[0][1]
    data = emoji(folder / "data-64", size=64, pairs=count)
    rows.append(
        in_turn(
            "data",
            "decoding once into the cache, against Pillow alone",
            "bare",
            lambda: count / seconds(lambda: _decode(data, folder)),
            lambda: count / seconds(lambda: _pillow(data)),
            unit="images/s",
            rounds=rounds,
            more_is_better=True,
        )
    )
    return rows


def _ours(data: Workload, encoder: OpenClipEncoder, device: str) -> None:
    settings = TrainSection.model_validate({})
    tokens = encoder.tokenize(data.captions)  # once per run, counted in one epoch here
    pixels = data.pixels
    crops = draw_crops(
        pair_keys(data.uids), seed=0, size=data.size, scale=settings.crop_scale, ratio=settings.crop_ratio, flip=0
    )
    for start in range(0, len(data.uids), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(data.uids)))
        picked = send(torch.from_numpy(pixels[chosen]), device)
        batch = render(picked, type(crops)(*(c[chosen] for c in crops)), size=data.size)
        normalize_pixels(batch, encoder.mean, encoder.std, in_place=True)
        assert len(tokens[chosen]) == len(chosen)  # noqa: S101
    if device == "cuda":
        torch.cuda.synchronize()


def _theirs(data: Workload, size: int) -> None:
    """open_clip's CSV data set and training transform in its own loader, in this process."""
    transform = open_clip.image_transform(size, is_train=True, aug_cfg={"scale": (0.9, 1.0)})
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    dataset = CsvDataset(str(data.csv), transform, "filepath", "title", sep="\t", tokenizer=tokenizer)
    for images, texts in DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0):
        assert len(images) == len(texts)  # noqa: S101


def _files(data: Workload) -> list[str]:
    with data.csv.open(encoding="utf-8") as stream:
        return [row["filepath"] for row in csv.DictReader(stream, delimiter="\t")]


def _decode(data: Workload, folder: Path) -> None:
    files = dict(enumerate(_files(data)))
    build_cache(
        folder / "again.npy", files, lambda paths: [Path(path).read_bytes() for path in paths], Geometry(data.size)
    )


def _pillow(data: Workload) -> None:
    from PIL import Image

    for path in _files(data):
        with Image.open(path) as image:
            image.convert("RGB").resize((data.size, data.size), Image.Resampling.BICUBIC)
