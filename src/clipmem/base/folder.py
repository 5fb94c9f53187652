"""The run folder: files, finished stages and lock of a study."""

from pathlib import Path

import polars as pl

from clipmem.base.atomic import atomic_write, is_free
from clipmem.base.declared import declared
from clipmem.base.job import Job, refuse_other
from clipmem.base.paths import reading
from clipmem.base.recipes import Recipe, flatten, load_recipe
from clipmem.base.require import require
from clipmem.base.tables import read_table, write_table

SIDES = ("f", "g")


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

    def embedding_dir(self, side: str, seed: int) -> Path:
        """Return the folder of one model's embeddings."""
        return self.path / "embeddings" / side / f"seed-{seed}"

    def claim(self, recipe: Recipe, dump: str) -> None:
        """Claim the folder for a recipe, or check that it was claimed for it; `dump` is its TOML text."""
        if self.check_claim(recipe):
            atomic_write(self.path / "recipe.toml", dump.encode())

    def check_claim(self, recipe: Recipe) -> bool:
        """Check that the folder belongs to this recipe or is empty; return whether it is new."""
        if (self.path / "recipe.toml").is_file():
            what = f"run folder {self.path} was made with another recipe"
            hint = "Choose another --out DIR, or delete the folder to start over."
            refuse_other(what, flatten(self.recipe()), flatten(recipe), hint)
            return False
        free = is_free(self.path)
        got = "a folder with other files and no recipe.toml"
        expected = "a new folder, or one created by clipmem"
        require(free, f"run folder {self.path}", got, expected, "Choose another --out DIR.")
        return True

    def recipe(self) -> Recipe:
        """Read the folder's recipe."""
        return load_recipe(self.recipe_text(), origin=str(self.path / "recipe.toml"))

    def recipe_text(self) -> str:
        """Read the text of the folder's recipe."""
        file = self.path / "recipe.toml"
        got = "no recipe.toml in it" if self.path.is_dir() else "no such folder"
        expected = "a folder created by `clipmem run` or `clipmem demo`"
        require(file.is_file(), f"{self.path}", got, expected, "Check the path.")
        with reading(f"{file}", expected="the recipe written by clipmem"):
            return file.read_text(encoding="utf-8")

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each finished stage, in order."""
        markers = sorted((self.path / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return {file.stem: self.read_json(f"stages/{file.name}")["seconds"] for file in markers}
