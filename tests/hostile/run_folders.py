"""Run folders and tables of scores that were changed, damaged, or made by something else."""

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import polars as pl

from tests.hostile.case import ACCEPTED, EITHER, REFUSED, Case, group


@cache
def _finished() -> Path:
    """Make one tiny study."""
    import clipmem
    from tests.tiny import tiny_recipe

    return clipmem.run(tiny_recipe(), Path(tempfile.mkdtemp(prefix="clipmem-hostile-")) / "run").path


def _changed(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(work: Path) -> None:
        shutil.copytree(_finished(), work / "run")
        change(work / "run")

    return make


def _edit(name: str, **values: object) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        document = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(document | values))

    return change


def _without(name: str) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        target = run / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return change


def _filled(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(data)


@group("run folders and scores")
def cases(rng: random.Random) -> Iterator[Case]:
    """Folders under `view --report`, `export ids`, `localize`, `compare`; tables of scores under `export ids`."""
    untouched = _changed(lambda _: None)
    yield Case("an untouched run, report", ["view", "run", "--report"], untouched, ACCEPTED)
    yield Case(
        "an untouched run, export ids", ["export", "ids", "run", "--out", "x.txt", "--top", "5"], untouched, ACCEPTED
    )
    changes: dict[str, Callable[[Path], object]] = {
        "without a recipe": _without("recipe.toml"),
        "without scores": _without("scores.parquet"),
        "without splits": _without("splits.parquet"),
        "with an empty recipe": _filled("recipe.toml", b""),
        "with a recipe that is no TOML": _filled("recipe.toml", b"[["),
        "with scores of random bytes": _filled("scores.parquet", rng.randbytes(900)),
        "with a manifest that is no JSON": _filled("manifest.json", b"{"),
        "with a manifest of a newer format": _edit("manifest.json", format=99, schema=99, format_version=99),
        "with a manifest that is a list": _filled("manifest.json", b"[]"),
        "with splits of other columns": lambda run: pl.DataFrame({"a": [1]}).write_parquet(run / "splits.parquet"),
    }
    for name, change in changes.items():
        yield Case(
            f"report of a run {name}",
            ["view", "run", "--report"],
            _changed(change),
            EITHER if "manifest" in name or "empty" in name else REFUSED,
        )
    for name in ("without scores", "with scores of random bytes", "without a recipe"):
        yield Case(
            f"export ids of a run {name}",
            ["export", "ids", "run", "--out", "x.txt"],
            _changed(changes[name]),
            EITHER if "recipe" in name else REFUSED,
        )
    for words in (["--by", "nope"], ["--role", "x"], ["--top", "5", "--bottom", "5"], ["--by", "role"]):
        yield Case(
            f"export ids {' '.join(words)}",
            ["export", "ids", "run", "--out", "x.txt", *words],
            untouched,
            REFUSED if "bottom" not in words[0] else EITHER,
        )
    for out in ("x", "x.exe", "nowhere/x.txt", "run", "x.npy", "x.csv"):
        yield Case(
            f"export ids --out {out}",
            ["export", "ids", "run", "--out", out],
            untouched,
            EITHER if out.endswith(("npy", "csv", "txt")) else REFUSED,
        )
    yield Case("compare a run with itself", ["compare", "run", "run"], untouched, EITHER)
    yield Case("compare with a file", ["compare", "run", "run/scores.parquet"], untouched)
    yield Case("localize --views 0", ["localize", "run", "--views", "0"], untouched)
    yield Case("localize --pairs -1", ["localize", "run", "--pairs", "-1"], untouched)
    yield Case("evaluate with data without labels", ["evaluate", "run", "--data", "run/pairs.parquet"], untouched)
    yield Case("another recipe in the folder", ["run", "quick", "--out", "run"], untouched)
    yield Case("a table where a run should be", ["view", "run/scores.parquet", "--report"], untouched)
    tables: dict[str, dict[str, object]] = {
        "no uid": {"clipmem": [1.0]},
        "no clipmem": {"uid": ["a"]},
        "no rows": {"uid": pl.Series([], dtype=pl.String), "clipmem": pl.Series([], dtype=pl.Float64)},
        "texts as scores": {"uid": ["a", "b"], "clipmem": ["x", "y"]},
        "uids twice": {"uid": ["a", "a"], "clipmem": [1.0, 2.0]},
        "uids that are null": {"uid": [None, "b"], "clipmem": [1.0, 2.0]},
        "scores that are null": {"uid": ["a", "b"], "clipmem": [None, None]},
        "scores that are NaN": {"uid": ["a", "b"], "clipmem": [float("nan"), 1.0]},
        "uids with line breaks": {"uid": ["a\nb", "c"], "clipmem": [1.0, 2.0]},
        "uids that are formulas": {"uid": ["=1+1", "c"], "clipmem": [1.0, 2.0]},
    }
    for name, columns in tables.items():

        def make(work: Path, columns: dict[str, object] = columns) -> None:
            pl.DataFrame(columns).write_parquet(work / "s.parquet")

        yield Case(f"scores with {name}", ["export", "ids", "s.parquet", "--out", "x.txt"], make, EITHER)
