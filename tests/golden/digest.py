"""What is kept of a run folder: each column of each table by hash and moments, numbers of documents, weights.

Hashes are equal bit for bit on the machine that recorded them. Elsewhere another processor or thread count orders
additions otherwise: there the moments alone are compared, within a tolerance that training of a few steps keeps. Of
documents the values are kept without their keys, each once: a key may be renamed, a number may not change.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

Digest = dict[str, Any]
# what differs from run to run although nothing has changed
_VOLATILE = ("second", "bytes", "rate", "date", "time", "created", "sha256", "version", "commit", "path", "command")


def machine() -> dict[str, str]:
    """Return what decides the order of additions: processor and its maker, threads, torch."""
    cpu, facts = torch.backends.cpu.get_cpu_capability(), Path("/proc/cpuinfo")
    maker = re.search(r"vendor_id\s*: (\S+)", facts.read_text(encoding="utf-8") if facts.is_file() else "")
    kind = f"{maker[1] if maker else 'unknown'} {platform.machine()} {cpu}"
    return {"cpu": kind, "cores": str(os.cpu_count()), "torch": torch.__version__}


def of_table(table: pl.DataFrame) -> Digest:
    """Return the hash of each column, and of columns of numbers the count, mean and standard deviation."""
    return {name: _of_column(table[name]) for name in table.columns}


def _of_column(column: pl.Series) -> list[Any]:
    if column.dtype.is_float():
        values = column.fill_null(np.nan).cast(pl.Float64).to_numpy()
        finite = values[np.isfinite(values)]
        moments = [_short(finite.mean()), _short(finite.std())] if len(finite) else [0.0, 0.0]
        return [_sha(np.ascontiguousarray(values).tobytes()), len(finite), *moments]
    return [_sha(json.dumps(column.to_list(), default=str).encode())]


def of_folder(folder: Path) -> Digest:
    """Return the digest of all tables, documents and weights in a run folder."""
    found: Digest = {"tables": {}, "numbers": [], "weights": {}}
    for file in sorted(folder.rglob("*.parquet")):
        found["tables"][file.relative_to(folder).as_posix()] = of_table(pl.read_parquet(file))
    numbers: set[float] = set()
    for file in sorted(folder.rglob("*.json")):
        name = file.relative_to(folder).as_posix()
        if file.name == "record.json":
            found["weights"][name] = json.loads(file.read_text())["final_sha256"][:16]
        elif not name.startswith(("stages/", "manifest", "models/", "embeddings/", "cache/")):
            numbers |= set(_leaves(json.loads(file.read_text())))
    found["numbers"] = sorted(numbers)
    return found


def _leaves(value: Any) -> Iterator[float]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if not any(word in str(key) for word in _VOLATILE):
            yield from _leaves(inner)
    # whole numbers are counts and sizes, which tables hold too
    if isinstance(value, float) and not value.is_integer():
        yield _short(value)


def differences(old: Mapping[str, Digest], new: Mapping[str, Digest], *, same_machine: bool) -> list[str]:
    """List what differs between two records, study by study; what is new in the second is no difference.

    A column or number that only changed its name is not listed: its values are found under another one.
    """
    found: list[str] = []
    for study, digest in old.items():
        if study not in new:
            found.append(f"{study}: gone")
        else:
            found += [f"{study}: {line}" for line in _between(digest, new[study], same_machine)]
    return found


def _between(old: Digest, new: Digest, same_machine: bool) -> Iterator[str]:
    if len(old["weights"]) != len(new["weights"]):
        yield f"{len(old['weights'])} models then, {len(new['weights'])} now"
    then, now = _columns(old), _columns(new)
    renamed = [value for key, value in now.items() if key not in then]
    for key, value in then.items():
        candidates = [now[key]] if key in now else renamed
        if not any(_same_column(value, one, same_machine) for one in candidates):
            yield f"{key}: {value} then, {now.get(key, 'gone')} now"
    if same_machine:
        yield from (
            f"weights of {name}" for name, sha in old["weights"].items() if new["weights"].get(name, sha) != sha
        )
        for value in old["numbers"]:
            nearest = min(new["numbers"], key=lambda one: abs(one - value), default=np.inf)
            if not np.isclose(value, nearest, rtol=1e-6, atol=1e-6):
                yield f"the number {value} is gone; the nearest is {nearest}"


def _columns(digest: Digest) -> dict[str, list[Any]]:
    return {f"{file}:{key}": value for file, columns in digest["tables"].items() for key, value in columns.items()}


def _same_column(a: list[Any], b: list[Any], same_machine: bool) -> bool:
    if a[0] == b[0]:
        return True
    tolerance = 1e-6 if same_machine else 2e-2
    return len(a) == len(b) == 4 and a[1] == b[1] and bool(np.allclose(a[2:], b[2:], rtol=tolerance, atol=tolerance))


def _short(value: float) -> float:
    return float(f"{value:.9g}")


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
