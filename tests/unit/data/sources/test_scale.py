"""Many pairs: tars at the speed of reading them, Parquet in memory that does not grow with the images."""

import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.sources.formats import add_member

PEAK = """
import resource, sys
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
source = open_source(DataSection(path=sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert source.pairs().height == int(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


# in a process of its own: here every call is checked for its types
SPEED = """
import sys, tarfile, time
from pathlib import Path
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
bare, ours = [], []
for _ in range(3):
    started = time.process_time()
    for path in sorted(Path(sys.argv[1]).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                tar.extractfile(member).read()
    bare.append(time.process_time() - started)
    started = time.process_time()
    assert open_source(DataSection(path=sys.argv[1])).pairs().height == 20_000
    ours.append(time.process_time() - started)
print(min(ours), min(bare))
"""


@pytest.mark.slow
def test_tars_are_listed_at_the_speed_of_reading_them(tmp_path):
    """20,000 pairs of 10 kB: against Python's own reader, which reads every member and does nothing with it."""
    rng = np.random.default_rng(0)
    for shard in range(4):
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for k in range(5000):
                key = f"{shard:05d}{k:04d}"
                add_member(tar, f"{key}.jpg", b"\xff\xd8\xff" + rng.bytes(10_000))
                add_member(tar, f"{key}.txt", f"caption {key}".encode())
                add_member(tar, f"{key}.json", f'{{"caption": "caption {key}", "key": "{key}"}}'.encode())
    done = subprocess.run([sys.executable, "-c", SPEED, str(tmp_path)], capture_output=True, text=True, check=True)
    ours, bare = map(float, done.stdout.split())
    sys.stdout.write(f"ours / tarfile: {ours / bare:.2f} ({ours:.2f} s, {bare:.2f} s)\n")
    assert ours < 1.2 * bare


@pytest.mark.slow
def test_memory_of_many_pairs_does_not_grow_with_the_images(tmp_path):
    """100,000 pairs in one Parquet file, of 1 kB and of 10 kB each."""
    rng = np.random.default_rng(0)
    peaks = {}
    for size in (1000, 10_000):
        path = tmp_path / f"{size}.parquet"
        schema = pa.schema([("image", pa.binary()), ("caption", pa.string())])
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for start in range(0, 100_000, 1000):
                rows = range(start, start + 1000)
                table = {
                    "image": [b"\xff\xd8\xff" + rng.bytes(size) for _ in rows],
                    "caption": [f"an image of thing number {k}, in some detail" for k in rows],
                }
                writer.write_table(pa.table(table, schema))
        done = subprocess.run([sys.executable, "-c", PEAK, path, "100000"], capture_output=True, text=True, check=True)
        peaks[size] = float(done.stdout)
        path.unlink()
    sys.stdout.write(f"peak above the start, MiB: {peaks}\n")
    assert peaks[10_000] < peaks[1000] + 60
