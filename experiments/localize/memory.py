"""Memory of UnitMem in addition to the model: one pass of a model over emoji pairs and their views.

    python experiments/localize/memory.py --write       # ViT-B-32, 1,000 pairs, 10 views: also writes memory.json
    python experiments/localize/memory.py --model clipmem-tiny --pairs 50 --views 2     # the same in seconds

The model has random weights, which do not affect memory or time. `extra_mib` is the peak resident memory minus that
after loading the model: the pass, its states, and the pages of the pixel cache. If building the model needed more
memory than the pass, the peak is that of building, so the number is never too small.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from clipmem.base.machine import peak_memory
from clipmem.base.sections import DataSection, LocalizeSection
from clipmem.data.cache import build_cache, open_cache
from clipmem.data.decoding import Geometry
from clipmem.data.pairs import Pairs
from clipmem.data.sources import open_source
from clipmem.measure.units import sweep_model
from clipmem.models import openclip

HERE = Path(__file__).parent
MIB = 2**20


def resident() -> float:
    """Return the resident memory of the process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def peak() -> float:
    """Return the peak resident memory of the process in MiB."""
    return (peak_memory(since_reset=True) or 0) / MIB  # not of the process that started this one


def emoji_pairs(cache: Path, pairs: int, size: int) -> Pairs:
    """Return the first pairs of the shipped data, decoded at the model's size."""
    source = open_source(DataSection())  # pyright: ignore[reportCallIssue]
    table = source.pairs().head(pairs)
    build_cache(cache, dict(enumerate(table["image"])), source.read, Geometry(size))
    return Pairs("emoji", table.with_row_index("row"), pixels={Geometry(size): open_cache(cache)})


def measure(name: str, pairs: int, views: int) -> dict[str, object]:
    """Localize units over the pairs and return time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        size = openclip.model_config(name)["vision_cfg"]["image_size"]
        decoded = emoji_pairs(Path(folder) / "pixels.npy", pairs, size)
        encoder = openclip.create(name, seed=0)
        images = 0

        def count(_module: nn.Module, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
            nonlocal images
            images += len(inputs[0])

        encoder.module.visual.register_forward_hook(count)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        loaded, building = resident(), peak()
        done = {"pairs": 0}

        def progress(number: int) -> None:
            done["pairs"] += number
            print(f"{done['pairs']} of {2 * pairs} pairs, {peak() - loaded:.0f} MiB", file=sys.stderr, flush=True)

        started = time.monotonic()
        settings = LocalizeSection(views=views)
        units, _ = sweep_model(encoder, decoded, settings, unit_pairs=None, progress=progress)
        seconds = time.monotonic() - started
    return {
        "model": name,
        "parameters": sum(values.numel() for values in encoder.module.parameters()),
        "pairs": pairs,
        "views": views,
        "threads": torch.get_num_threads(),
        "units": units.height,
        "images_per_pair": images / pairs,
        "loaded_mib": round(loaded, 1),
        "building_peak_mib": round(building, 1),
        "peak_mib": round(peak(), 1),
        "extra_mib": round(peak() - loaded, 1),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Print time and memory as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="write memory.json next to this file")
    asked = parser.parse_args()
    found = measure(asked.model, asked.pairs, asked.views)
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if asked.write:
        (HERE / "memory.json").write_text(text, encoding="utf-8")
    # one pass: each pair's clean image and each view once
    if found["images_per_pair"] != 1 + asked.views or peak() - float(str(found["loaded_mib"])) >= 1024:
        sys.exit("more than one pass, or at least 1 GiB in addition to the model")


if __name__ == "__main__":
    main()
