"""The run folder: files, finished stages and lock of a study; and resumable work in a folder, piece by piece.

A piece writes its outputs, then its marker. A piece is done if its marker exists and its outputs have the recorded
sizes. One process at a time works on a folder.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from clipmem.base import paths
from clipmem.base.declared import declared
from clipmem.base.errors import InputError, RunError, require, shorten
from clipmem.base.hashing import file_sha256
from clipmem.base.recipes import Recipe, flatten, load_recipe
from clipmem.base.tables import read_table, write_table

SIDES = ("f", "g")
GONE = "a folder that another call deleted meanwhile"
_SHOWN = 6
_HASH = re.compile("[0-9a-f]{64}")


def flat(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested plain data as `a.b` → value.

    Example:
        >>> flat({"a": {"b": 1}, "c": [{"d": 2}]})
        {'a.b': 1, 'c.0.d': 2}
    """
    leaves: dict[str, object] = {}
    for key, child in value.items():
        inner: object = child
        if isinstance(child, list) and any(isinstance(item, Mapping) for item in child):
            inner = dict(enumerate(child))
        if isinstance(inner, Mapping):
            leaves |= flat({str(name): item for name, item in inner.items()}, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = child
    return leaves


def refuse_other(subject: str, previous: Mapping[str, object], current: Mapping[str, object], hint: str) -> None:
    """Refuse to mix work with other settings, models or data."""
    before, after = (flat(json.loads(json.dumps(settings))) for settings in (previous, current))
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    diffs = "; ".join(f"{key} = {_shown(before.get(key))} there, {_shown(after.get(key))} now" for key in keys[:_SHOWN])
    more = f" (and {len(keys) - _SHOWN} more)" if len(keys) > _SHOWN else ""
    require(not keys, subject, f"{diffs}{more}", "the same on both sides", hint)


def _shown(value: object) -> str:
    return f"{value[:8]}…" if isinstance(value, str) and _HASH.fullmatch(value) else shorten(value, 48)


class Job:
    """A folder of finished pieces."""

    def __init__(self, path: Path | str, markers: str = "markers") -> None:
        self.path = paths.checked_path(path, "run folder")
        self._markers = markers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    # ---- documents

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder."""
        path = self.path / name
        subject, hint = f"run folder {self.path}", "Run `clipmem run RECIPE.toml --out DIR` on it first."
        require(path.is_file(), subject, f"no {name} in it", "the folder of a finished run", hint)
        try:
            with paths.reading(f"{path}", expected="a file written by clipmem"):
                document = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, RecursionError) as error:
            hint = "Delete the file and run the command again."
            raise InputError(f"{path}", got=f"text that is not JSON ({error})", expected="JSON", hint=hint) from error
        require(isinstance(document, dict), f"{path}", shorten(document), "a JSON object", "Delete the file.")
        return document

    def write_json(self, name: str, value: object) -> Path:
        """Write a JSON file of the folder atomically."""
        return paths.write_json(self.path / name, value)

    # ---- claim

    def settings(self) -> dict[str, object] | None:
        """Return the settings that the folder was started with; None if it was not."""
        return self.read_json("job.json") if (self.path / "job.json").is_file() else None

    def resume(self, settings: Mapping[str, object], *, start: bool = True) -> None:
        """Start the folder with these settings, or resume it; without `start`, refuse a folder that is gone."""
        previous = self.settings()
        if previous is None:
            require(start, f"{self.path}", GONE, "the folder of this job", "Run the same command again.")
            self.write_json("job.json", settings)
        else:
            hint = "Choose another --out, or delete the folder."
            refuse_other(f"{self.path} was started with other settings", previous, settings, hint)

    # ---- pieces

    def marker(self, name: str) -> Path:
        """Return the path of a piece's marker."""
        return self.path / self._markers / f"{name}.json"

    def facts(self, name: str, *, hashed: bool = False) -> dict[str, Any] | None:
        """Return the facts that a finished piece recorded; None if it is not finished or an output has another size.

        With `hashed` also if an output has other bytes, all of which are read.
        """
        if not self.marker(name).is_file():
            return None
        facts = self.read_json(f"{self._markers}/{name}.json")
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # a marker that clipmem did not write
            outputs = [(self.path / file, output) for file, output in facts["outputs"].items()]
            complete = all(file.is_file() and file.stat().st_size == output["bytes"] for file, output in outputs)
            if complete and (not hashed or all(file_sha256(file) == output["sha256"] for file, output in outputs)):
                return facts
        return None

    def is_done(self, name: str, *, hashed: bool = False) -> bool:
        """Return whether a piece is finished (see `facts`)."""
        return self.facts(name, hashed=hashed) is not None

    def outputs(self, name: str) -> tuple[list[Path], dict[str, Any]]:
        """Return the outputs and the facts of a finished piece."""
        facts = self.facts(name)
        if facts is None:
            raise RunError(f"{self.path / name} is missing. Run the same command again: it repeats that part.")
        return [self.path / file for file in facts["outputs"]], facts

    def finish(
        self, name: str, outputs: Sequence[Path], seconds: float, facts: Mapping[str, object] | None = None
    ) -> None:
        """Write a piece's marker: sizes and hashes of its outputs, seconds, facts."""
        described = {
            str(path.relative_to(self.path)): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(outputs)
        }
        header = {"stage": name, "seconds": round(seconds, 3), **(facts or {})}
        self.write_json(f"{self._markers}/{name}.json", {**header, "outputs": described})

    def discard(self, name: str) -> None:
        """Delete a finished piece, its marker first."""
        for file in (self.marker(name), *self.outputs(name)[0]):
            file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Lock the folder for this process; the lock ends with the process."""
        paths.make_folder(self.path)
        lock = FileLock(self.path / ".lock", timeout=0)
        with paths.explain_write_errors(self.path / ".lock"):
            try:
                lock.acquire()
            except Timeout:
                text = f"another clipmem process uses {self.path}. Wait for it to end, or choose another --out DIR."
                raise RunError(text) from None
        try:
            yield
        finally:
            lock.release()

    def remove(self) -> None:
        """Delete the folder, `job.json` first, so that a kill leaves no claimed folder."""
        (self.path / "job.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


class RunFolder(Job):
    """A run folder on disk; its pieces are the stages, and `train-SIDE-seed-K` for each model."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "stages")

    def table_path(self, name: str) -> Path:
        """Return the path of a table."""
        return self.path / f"{name}.parquet"

    def read(self, name: str) -> pl.DataFrame:
        """Read a table (see `clipmem.base.tables.SCHEMAS`)."""
        missing = not self.table_path(name).is_file()
        if missing and name in {"scores", "seed_scores"} and (self.path / "recipe.toml").is_file():
            protocol = self.recipe().protocol
            got, hint = f"protocol {protocol!r}, which measures utility alone", "Run it with the protocol four-way."
            require(declared("protocols", protocol).scored, f"run folder {self.path}", got, "a run with scores", hint)
        return read_table(self.table_path(name), name)

    def write(self, name: str, table: pl.DataFrame) -> Path:
        """Write a table atomically."""
        write_table(self.table_path(name), name, table)
        return self.table_path(name)

    def model_dir(self, side: str, seed: int) -> Path:
        """Return the folder of one model: `models/f/seed-0`."""
        return self.path / "models" / side / f"seed-{seed}"

    def record(self, side: str, seed: int) -> dict[str, Any]:
        """Read `record.json` of one model: what it was trained on."""
        return self.read_json(f"models/{side}/seed-{seed}/record.json")

    def embedding_dir(self, side: str, seed: int) -> Path:
        """Return the folder of one model's embeddings."""
        return self.path / "embeddings" / side / f"seed-{seed}"

    def claim(self, recipe: Recipe, dump: str) -> None:
        """Claim the folder for a recipe, or check that it was claimed for it; `dump` is its TOML text."""
        if self.check_claim(recipe):
            paths.atomic_write(self.path / "recipe.toml", dump.encode())

    def check_claim(self, recipe: Recipe) -> bool:
        """Check that the folder belongs to this recipe or is empty; return whether it is new."""
        if (self.path / "recipe.toml").is_file():
            subject = f"run folder {self.path} was made with another recipe"
            hint = "Choose another --out DIR, or delete the folder to start over."
            refuse_other(subject, flatten(self.recipe()), flatten(recipe), hint)
            return False
        free = paths.is_free(self.path)
        got = "a folder with other files and no recipe.toml"
        expected = "a new folder, or one created by clipmem"
        require(free, f"run folder {self.path}", got, expected, "Choose another --out DIR.")
        return True

    def recipe(self) -> Recipe:
        """Read the folder's recipe."""
        return load_recipe(self.recipe_text(), origin=str(self.path / "recipe.toml"))

    def recipe_text(self) -> str:
        """Read the text of the folder's recipe."""
        file = paths.recipe_file(self.path)
        with paths.reading(f"{file}", expected="the recipe written by clipmem"):
            return file.read_text(encoding="utf-8")

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each finished stage, in order."""
        markers = sorted((self.path / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return {file.stem: self.read_json(f"stages/{file.name}")["seconds"] for file in markers}
