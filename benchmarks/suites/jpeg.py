"""JPEG decoders on photographs, in one process with one thread: Pillow, as clipmem uses it, against two others.

The environment variable PHOTOGRAPHS names a folder with JPEG files, of which 240 are drawn, as many from each of its
subfolders where possible. Without it, the images are drawings. simplejpeg is measured where it is installed.
"""

import importlib
import io
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import chain, zip_longest
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from timing import Row
from torchvision.io import ImageReadMode, decode_jpeg
from workload import emoji

from clipmem.data.decoding import decode
from clipmem.models.openclip import create

SIZE, MOST, BATCH = 224, 240, 20
Decoder = Callable[[bytes], np.ndarray]


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Compare decoding, decoding and resizing, and embedding, in seconds of the processor."""
    torch.set_num_threads(1)
    images = _images(folder, 8 if smallest else MOST)
    model = create("ViT-B-32", seed=0)
    model.module.eval()

    def embed(prepare: Decoder, batch: Sequence[bytes]) -> None:
        pixels = torch.from_numpy(np.stack([prepare(data) for data in batch]))
        with torch.inference_mode():
            model.encode_image(pixels.permute(0, 3, 1, 2).float() / 255)

    rows: list[Row] = []
    for name, decoder in _others().items():
        apart = [np.abs(decoder(data).astype(int) - _pillow(data)) for data in images]
        means = [float(values.mean()) for values in apart]
        print(f"{name}: differs by {np.mean(means):.3f} of 255 on average, at most {max(map(np.max, apart))}")

        def square(data: bytes, decoder: Decoder = decoder) -> np.ndarray:
            return _square(Image.fromarray(decoder(data)))

        few = [images[start : start + BATCH] for start in range(0, min(len(images), 3 * BATCH), BATCH)]
        for case, ours, theirs, items, weight in (
            ("decoding", _pillow, decoder, images, 1),
            (f"decoding and resizing to {SIZE} px", _ours, square, images, 1),
            (
                "embedding with ViT-B-32",
                lambda batch: embed(_ours, batch),
                lambda batch, square=square: embed(square, batch),
                few,
                len(few[0]),
            ),
        ):
            rows.append(_row(f"{case}: Pillow against {name}", ours, theirs, items, weight, rounds))
    return rows


def _row(case: str, ours: Callable, theirs: Callable, items: Sequence, weight: int, rounds: int) -> Row:
    """Time both in turn on each item, in alternating order."""
    rates: list[tuple[float, float]] = []
    for number in range(rounds):
        spent = [0.0, 0.0]
        for index, item in enumerate(items):
            for side in (0, 1) if (index + number) % 2 else (1, 0):
                started = time.thread_time()
                (ours, theirs)[side](item)
                spent[side] += time.thread_time() - started
        rates.append((weight * len(items) / spent[0], weight * len(items) / spent[1]))
        print(f"  {case}, round {number + 1}: {rates[-1][0]:,.4g} against {rates[-1][1]:,.4g} images/s", flush=True)
    ratios = [first / second for first, second in rates]
    ours_median, theirs_median = (statistics.median(side) for side in zip(*rates, strict=True))
    return Row(
        "jpeg",
        case,
        "bare",
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        ours_median,
        theirs_median,
        "images/s",
        rounds,
    )


def _images(folder: Path, most: int) -> list[bytes]:
    if "PHOTOGRAPHS" not in os.environ:
        table = emoji(folder / "data", size=SIZE, pairs=most, coco=True).csv.read_text(encoding="utf-8").splitlines()
        return [Path(line.split("\t")[0]).read_bytes() for line in table[1:]]
    root, folders = Path(os.environ["PHOTOGRAPHS"]), dict[str, list[Path]]()
    for file in sorted(root.rglob("*")):
        if file.suffix.lower() in {".jpg", ".jpeg"}:
            folders.setdefault(file.relative_to(root).parts[0], []).append(file)
    for files in folders.values():
        random.Random(0).shuffle(files)  # noqa: S311
    files = [file for file in chain(*zip_longest(*folders.values())) if file is not None]
    return [file.read_bytes() for file in files[:most]]


def _others() -> dict[str, Decoder]:
    """The other decoders, both with the accurate transform and smooth upsampling, as Pillow's."""
    decoders: dict[str, Decoder] = {"torchvision": _torchvision}
    if find_spec("simplejpeg"):
        library = importlib.import_module("simplejpeg")
        decoders["simplejpeg"] = lambda data: library.decode_jpeg(data, "RGB")
        decoders["simplejpeg, fast"] = lambda data: library.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True)
    return decoders


def _torchvision(data: bytes) -> np.ndarray:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    decoded = cast("torch.Tensor", decode_jpeg(encoded, mode=ImageReadMode.RGB))  # a list only for a list of files
    return decoded.permute(1, 2, 0).numpy()


def _ours(data: bytes) -> np.ndarray:
    return decode(data, SIZE)


def _pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _square(image: Image.Image) -> np.ndarray:
    """Resize the shorter side, and crop the center, as `clipmem.data.decoding`."""
    short = min(image.size)
    width, height = (SIZE if side == short else int(SIZE * side / short) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    x, y = round((width - SIZE) / 2), round((height - SIZE) / 2)
    return np.asarray(image.crop((x, y, x + SIZE, y + SIZE)))
