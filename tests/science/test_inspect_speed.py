"""`clipmem inspect` on 100,000 pairs in tars takes about as long as reading them once (slow)."""

import io
import os
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.sources.formats import add_member

from clipmem.base.sections import DataSection
from clipmem.data.sources import open_data, open_source
from clipmem.study.data_commands import Inspecting, inspect

PAIRS = int(os.environ.get("CLIPMEM_INSPECTED", "100000"))


def photographs(n):
    """JPEGs of some 10 kB; what follows the last marker makes each one another file."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((320, 240))
        grain = rng.normal(0, 4, (240, 320, 3))
        stream = io.BytesIO()
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=70)
        yield stream.getvalue()


@pytest.mark.slow
def test_an_inspection_takes_about_as_long_as_reading_once(tmp_path):
    some = list(photographs(100))
    for shard in range(10):
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for k in range(shard * PAIRS // 10, (shard + 1) * PAIRS // 10):
                add_member(tar, f"{k:09d}.jpg", some[k % len(some)] + k.to_bytes(8, "little"))
                add_member(tar, f"{k:09d}.txt", f"a photograph of thing number {k}".encode())
    started = time.process_time()
    assert open_source(DataSection(path=str(tmp_path))).pairs().height == PAIRS
    once = time.process_time() - started
    started = time.process_time()
    found = inspect(str(tmp_path), lambda: open_data(str(tmp_path)), Inspecting())
    ours = time.process_time() - started
    size = sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    sys.stdout.write(
        f"\n{PAIRS:,} pairs, {size / 1e9:.2f} GB: read once {once:.1f} s, inspect {ours:.1f} s, "
        f"ratio {ours / once:.2f}\n"
    )
    assert found["pairs"] == PAIRS
    assert found["duplicates"]["exact"] == {"groups": 0, "images": 0, "of": PAIRS}
    # reading once, and a sample of fixed size: 4,096 headers and 1,024 images
    assert ours < 1.25 * once + 12
