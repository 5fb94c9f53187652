"""The folder beside the output in which finished blocks wait: part files, then their done markers.

What is done is read off the markers and the sizes of the files they name. The folder is removed at the end.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from clipmem.base.errors import InputError, RunError, shorten
from clipmem.data.quarantine import Problem, quarantine_table
from clipmem.store.atomic import atomic_write, make_folder
from clipmem.store.tables import write_table

_SHOWN = 6
QUARANTINE = "quarantine.parquet"


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested plain data as `a.b` → value.

    Example:
        >>> flat({"a": {"b": 1}, "c": [{"d": 2}]})
        {'a.b': 1, 'c.0.d': 2}
    """
    found: dict[str, Any] = {}
    for key, one in value.items():
        inner = dict(enumerate(one)) if isinstance(one, list) else one
        if isinstance(inner, Mapping):
            found |= flat({str(name): item for name, item in inner.items()}, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = one
    return found


def refuse_other(what: str, there: Mapping[str, Any], now: Mapping[str, Any], hint: str) -> None:
    """Refuse to mix work with other settings, models or data.

    Args:
        what: What was begun or made.
        there: With what.
        now: With what it would go on.
        hint: What the user can do.

    Raises:
        InputError: They differ; both sides are shown.
    """
    before, after = flat(there), flat(now)
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    if keys:
        shown = "; ".join(
            f"{key} = {shorten(before.get(key), 24)} there, {shorten(after.get(key), 24)} now" for key in keys[:_SHOWN]
        )
        more = f" (and {len(keys) - _SHOWN} more)" if len(keys) > _SHOWN else ""
        raise InputError(f"{what} with other settings", got=f"{shown}{more}", hint=hint)


class Done(NamedTuple):
    """A finished block: its file, and the records that it left out."""

    file: Path
    problems: list[Problem]


class PartsFolder:
    """Finished blocks on disk.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begun(self) -> dict[str, Any] | None:
        """Return with what the folder was begun; None where it was not."""
        file = self.path / "job.json"
        if not file.is_file():
            return None
        job: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return job

    def claim(self, job: Mapping[str, Any]) -> None:
        """Begin the folder, or go on in it.

        Raises:
            InputError: It was begun with something else.
        """
        there = self.begun()
        if there is None:
            make_folder(self.path)
            atomic_write(self.path / "job.json", json.dumps(job, indent=1).encode())
            return
        refuse_other(
            f"{self.path} was begun", there, json.loads(json.dumps(job)), "Choose another --out, or delete that folder."
        )

    def done(self, name: str) -> Done | None:
        """Return a finished block, or None where it is not finished."""
        marker = self.path / f"{name}.json"
        if not marker.is_file():
            return None
        said = json.loads(marker.read_text(encoding="utf-8"))
        file = self.path / said["file"]
        if not file.is_file() or file.stat().st_size != said["bytes"]:
            return None
        return Done(file, [Problem(*one) for one in said["problems"]])

    def finished(self, name: str) -> Done:
        """Return a block that has been finished.

        Raises:
            RunError: Somebody has removed it meanwhile.
        """
        done = self.done(name)
        if done is None:
            raise RunError(f"{self.path / name} has vanished. Run the same command again: it makes that block anew.")
        return done

    def finish(self, name: str, ending: str, data: bytes, problems: Sequence[Problem]) -> None:
        """Write a block's file, then its marker."""
        file = self.path / f"{name}.{ending}"
        atomic_write(file, data)
        said = {"file": file.name, "bytes": len(data), "problems": [list(one) for one in problems]}
        atomic_write(self.path / f"{name}.json", json.dumps(said).encode())

    def remove(self) -> None:
        """Delete the folder, `job.json` first: what is left of it after a kill is then nobody's."""
        (self.path / "job.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def cut(total: int, size: int, word: str) -> Iterator[tuple[str, range]]:
    """Cut `total` rows into blocks with names.

    Example:
        >>> list(cut(5, 2, "part"))
        [('part-000000', range(0, 2)), ('part-000001', range(2, 4)), ('part-000002', range(4, 5))]
    """
    for k, start in enumerate(range(0, total, size)):
        yield f"{word}-{k:06d}", range(start, min(start + size, total))


def write_quarantine(path: Path, problems: Sequence[Problem]) -> None:
    """Write the records that were left out: source, key, reason."""
    write_table(path, "quarantine", quarantine_table(dict.fromkeys(problems)))  # the bank may be the data


def read_quarantine(path: Path) -> list[Problem]:
    """Read what `write_quarantine` wrote; nothing where there is no such file."""
    return [Problem(*row) for row in pl.read_parquet(path).iter_rows()] if path.is_file() else []
