"""The run folder: where everything of a study lies, which stages are done, and who is working on it.

A stage writes its outputs, then its marker `stages/NAME.json`, last. What is done is read off the markers and the
sizes of the outputs they name, never off "the last command". One process at a time works on a folder.
"""

import contextlib
import fcntl
import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.errors import InputError, RunError
from clipmem.base.paths import checked_path, reading
from clipmem.base.recipes import Recipe, differences, load_recipe
from clipmem.store.atomic import atomic_write, explain_write_errors, make_folder
from clipmem.store.hashing import file_sha256
from clipmem.store.tables import read_table, write_table

SIDES = ("f", "g")


class RunFolder:
    """A run folder on disk.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = checked_path(path, "run folder")

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    # ---- tables and documents

    def table_path(self, name: str) -> Path:
        """Return where the table `name` lies."""
        return self.path / f"{name}.parquet"

    def read(self, name: str) -> pl.DataFrame:
        """Read the table `name` (see `clipmem.store.tables.SCHEMAS`)."""
        return read_table(self.table_path(name), name)

    def write(self, name: str, table: pl.DataFrame) -> Path:
        """Write the table `name` atomically and return its path."""
        write_table(self.table_path(name), name, table)
        return self.table_path(name)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON document of the folder.

        Raises:
            InputError: It is missing or is not JSON.
        """
        path = self.path / name
        if not path.is_file():
            raise InputError(
                f"run folder {self.path}",
                got=f"no {name} in it",
                expected="the folder of a finished run",
                hint="Run `clipmem run RECIPE.toml --out DIR` on it first.",
            )
        try:
            with reading(f"{path}", expected="a file that clipmem wrote"):
                return json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                f"{path}",
                got=f"text that is not JSON ({error})",
                hint="Delete the file and run the study again.",
            ) from error

    def write_json(self, name: str, value: object) -> Path:
        """Write a JSON document of the folder atomically and return its path."""
        path = self.path / name
        atomic_write(path, (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())
        return path

    def model_dir(self, side: str, seed: int) -> Path:
        """Return the folder of one model, for example `models/f/seed-0`."""
        return self.path / "models" / side / f"seed-{seed}"

    def embedding_dir(self, side: str, seed: int) -> Path:
        """Return the folder of one model's embeddings."""
        return self.path / "embeddings" / side / f"seed-{seed}"

    # ---- the recipe

    def claim(self, recipe: Recipe, dump: str) -> None:
        """Make the folder this recipe's, or check that it already is.

        Args:
            recipe: The recipe of the run.
            dump: Its TOML text, written when the folder is new.

        Raises:
            InputError: As `check_claim`.
        """
        if self.check_claim(recipe):
            atomic_write(self.path / "recipe.toml", dump.encode())

    def check_claim(self, recipe: Recipe) -> bool:
        """Check that the folder is this recipe's, or can become it; return whether it is new.

        Raises:
            InputError: The folder was made with another recipe (both sides are shown), or holds other files.
        """
        if (self.path / "recipe.toml").is_file():
            there = self.recipe()
            different = differences(there, recipe)
            if different:
                shown = "; ".join(f"{key} = {a!r} there, {b!r} now" for key, a, b in different[:6])
                more = f" (and {len(different) - 6} more)" if len(different) > 6 else ""
                raise InputError(
                    f"run folder {self.path} was made with another recipe",
                    got=f"{shown}{more}",
                    expected="the recipe that it was made with",
                    hint="Choose another --out DIR, or delete the folder to make it anew.",
                )
            return False
        if self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(
                f"run folder {self.path}",
                got="a folder that holds other files and no recipe.toml",
                expected="a new folder, or one that clipmem made",
                hint="Choose another --out DIR.",
            )
        return True

    def recipe(self) -> Recipe:
        """Read the folder's recipe."""
        file = self.path / "recipe.toml"
        if not file.is_file():
            raise InputError(
                f"{self.path}",
                got="no recipe.toml in it" if self.path.is_dir() else "no such folder",
                expected="a folder that `clipmem run` or `clipmem demo` made",
                hint="Check the path.",
            )
        with reading(f"{file}", expected="the recipe that clipmem wrote"):
            text = file.read_text(encoding="utf-8")
        return load_recipe(text, origin=str(file))

    # ---- stages

    def marker(self, stage: str) -> Path:
        """Return the path of a stage's marker."""
        return self.path / "stages" / f"{stage}.json"

    def is_done(self, stage: str) -> bool:
        """Tell whether a stage is finished: its marker is there and every output has the size it names."""
        file = self.marker(stage)
        if not file.is_file():
            return False
        outputs: dict[str, dict[str, Any]] = self.read_json(f"stages/{stage}.json")["outputs"]
        return all(
            (self.path / name).is_file() and (self.path / name).stat().st_size == output["bytes"]
            for name, output in outputs.items()
        )

    def finish(
        self, stage: str, outputs: Sequence[Path], seconds: float, measured: Mapping[str, float] | None = None
    ) -> None:
        """Write a stage's marker, after its outputs: their sizes and hashes, how long it took, what else was timed."""
        described = {
            str(path.relative_to(self.path)): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(outputs)
        }
        took = {"seconds": round(seconds, 3), **(measured or {})}
        self.write_json(f"stages/{stage}.json", {"stage": stage, **took, "outputs": described})

    def seconds(self) -> dict[str, float]:
        """Return how long each finished stage took."""
        markers = sorted((self.path / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return {file.stem: self.read_json(f"stages/{file.name}")["seconds"] for file in markers}

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Hold the folder for this process; the lock goes with the process, however it ends.

        Raises:
            RunError: Another process works on the folder.
        """
        make_folder(self.path)
        with explain_write_errors(self.path / ".lock"):
            stream = (self.path / ".lock").open("a")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"another clipmem process works on {self.path}. Wait for it to end, or choose another --out DIR."
                ) from None
            yield
