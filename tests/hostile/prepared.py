"""Folders that a command resumes from or reads back, as somebody may send them: with pickles that run code.

Every folder is real, of a command that finished or was stopped. Then files of a kind are replaced by pickles whose load
makes a file, in the form that a careless reader would take (`.npy` with objects, torch's zip, a bare pickle), and the
markers are made to fit, so that the next command takes them for its own.
"""

import io
import json
import os
import pickle
import random
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tests.hostile.case import EITHER, TRAP, Case, group

PAIRS = 240
# more than these are compared in files: 30,000 would take minutes
FEW = "import clipmem.scoring.evidence as evidence\nevidence.EXACT = 100\n"


class Bomb:
    """An object whose load makes a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {TRAP}",)


def bomb(name: str) -> bytes:
    """Return a file of this name that runs code in a reader that unpickles."""
    stream = io.BytesIO()
    if name.endswith(".npy"):
        np.save(stream, np.array([Bomb()] * 300, dtype=object), allow_pickle=True)
    elif name.endswith(".npz"):
        np.savez(stream, *(np.array([Bomb()], dtype=object) for _ in range(3)), allow_pickle=True)
    elif name.endswith((".pt", ".pth", ".ckpt")):
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    else:
        pickle.dump(Bomb(), stream)
    return stream.getvalue()


def arm(folder: Path, *patterns: str) -> list[Path]:
    """Replace the files of these patterns by pickles, and make all markers fit."""
    armed = sorted({file for pattern in patterns for file in folder.rglob(pattern) if file.is_file()})
    assert armed, f"no {patterns} in {folder}"
    for file in armed:
        file.write_bytes(bomb(file.name))
    for marker in folder.rglob("*.json"):
        try:
            document = json.loads(marker.read_text())
        except ValueError:
            continue
        outputs = document.get("outputs") if isinstance(document, dict) else None
        for name, about in (outputs or {}).items():
            data = next((file for above in marker.parents if (file := above / name).is_file()), None)
            if data in armed:
                about |= {"bytes": data.stat().st_size, "sha256": sha256(data.read_bytes()).hexdigest()}
        if outputs:
            marker.write_text(json.dumps(document))
    return armed


def _new(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"clipmem-hostile-{name}-"))


class _Stopped(BaseException):
    """A kill."""


def _stopping(stage: str) -> Any:
    from clipmem.base.progress import Quiet

    class Stop(Quiet):
        def begin(self, name: str, total: int | None = None, unit: str = "") -> None:
            if name == stage:
                raise _Stopped

    return Stop()


def _stopped(work: Callable[[], object]) -> None:
    try:
        work()
    except _Stopped:
        return
    raise AssertionError("it was not stopped")


def _command(*arguments: object) -> None:
    from clipmem.cli import main

    try:
        main([str(one) for one in arguments])
    except SystemExit as end:
        assert not end.code, arguments  # noqa: PT017


def _data(folder: Path) -> None:
    """Write drawings of which some look alike."""
    import polars as pl

    from clipmem.data.sources.emoji import emoji_table

    table = emoji_table().unique("unicode", keep="first", maintain_order=True).head(PAIRS)
    table.select("image", pl.col("captions").list.head(1)).write_parquet(folder / "pairs.parquet")


@cache
def _study(*settings: str) -> Path:
    """Make a finished study."""
    import clipmem
    from tests.tiny import tiny_recipe

    folder = _new("study")
    clipmem.run(tiny_recipe("train.seeds=[0]", "train.record=true", "split.shared=120", *settings), folder / "run")
    _data(folder)
    return folder


@cache
def _halves() -> Path:
    return _study(*HALVES, "halves.pairs=2", "train.epochs=1")


@cache
def _validated() -> Path:
    """Stop `validate-estimators` once the images of its first run are decoded."""
    from clipmem.base.recipes import dump_recipe, load_recipe
    from clipmem.study.validating import validate
    from tests.tiny import TINY_STUDY

    folder = _new("validate-estimators")
    (folder / "study.toml").write_text(dump_recipe(load_recipe(TINY_STUDY, ["split.shared=200", "split.planted=0"])))
    _stopped(lambda: validate(folder / "study.toml", folder / "out", truth=6, reporter=_stopping("train")))
    return folder


@cache
def _embedded() -> Path:
    """Embed pairs in parts."""
    folder = _new("embedded")
    shutil.copytree(_study(), folder, dirs_exist_ok=True)
    model, data = folder / "run" / "models" / "f" / "seed-0", folder / "pairs.parquet"
    _command("export", "embeddings", "--model", model, "--data", data, "--out", folder / "new")
    return folder


@cache
def _scored() -> Path:
    """Stop a score before its table is written."""
    folder = _new("scored")
    shutil.copytree(_study(), folder, dirs_exist_ok=True)
    with patch("clipmem.study.scoring._tables", side_effect=_Stopped):
        _stopped(lambda: _command(*_score(folder)))
    return folder


def _score(folder: Path = Path()) -> list[str]:
    models = [str(folder / "run" / "models" / side / "seed-0") for side in "fg"]
    data, out = str(folder / "pairs.parquet"), str(folder / "scores.parquet")
    return ["score", "--target", models[0], "--reference", models[1], "--data", data, "--out", out]


@cache
def _compared() -> Path:
    """Stop `curate` of many pairs before its list is written."""
    from clipmem.scoring import evidence
    from clipmem.study import curating

    folder = _new("compared")
    _data(folder)
    (folder / "sitecustomize.py").write_text(FEW)
    how = curating.Curating(out=folder / "curated")
    with patch.object(evidence, "EXACT", 100), patch.object(curating, "write_parquet", side_effect=_Stopped):
        _stopped(lambda: curating.curate_and_write(str(folder / "pairs.parquet"), how))
    return folder


def _undone(folder: Path, *stages: str) -> None:
    """Remove the markers of stages, so that they run again on what earlier ones wrote."""
    for stage in stages:
        for marker in (folder / "run" / "stages").glob(f"{stage}.json"):
            marker.unlink()


def _made(made: Callable[[], Path], *changes: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(work: Path) -> None:
        shutil.copytree(made(), work, dirs_exist_ok=True)
        for change in changes:
            change(work)

    return make


def _armed(*patterns: str) -> Callable[[Path], object]:
    return lambda work: arm(work, *patterns)


def _again(*stages: str) -> Callable[[Path], object]:
    return lambda work: _undone(work, *stages)


def _checkpoint(work: Path) -> None:
    from clipmem.train.checkpoint import CHECKPOINT_FILE

    for side in "fg":
        file = work / "run" / "models" / side / "seed-0" / CHECKPOINT_FILE
        file.write_bytes(bomb(file.name))


HALVES = ("protocol=halves", "split.shared=200", "split.planted=0")


def _typed(ending: str) -> Callable[[Path], object]:
    """Write pairs whose image column has a type of Python's own, which older pyarrow unpickled on reading."""

    def make(work: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        about = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Bomb())}
        image, caption = pa.field("image", pa.binary(), metadata=about), pa.field("caption", pa.string())
        table = pa.table({"image": [b"x"] * 3, "caption": ["a", "b", "c"]}, pa.schema([image, caption]))
        if ending == "parquet":
            pq.write_table(table, work / "data.parquet")
        else:
            with pa.ipc.new_stream(work / "data.arrow", table.schema) as stream:
                stream.write_table(table)

    return make


LATE = ("embed", "evaluate", "score", "report")
RUN = ["run", "run/recipe.toml", "--out", "run"]
DATA = ("*.npy", "*.safetensors", "*.npz", "*.bin")  # tables, which are read first, are a case of their own


@group("prepared folders")
def cases(rng: random.Random) -> Iterator[Case]:
    """Resumed and read folders of every command that has one."""
    few = (("PYTHONPATH", os.pathsep.join(filter(None, [".", os.environ.get("PYTHONPATH", "")]))),)
    curate = ["curate", "pairs.parquet"]
    embed = ["export", "embeddings", "--model", "run/models/f/seed-0", "--data", "pairs.parquet", "--out", "new"]
    validate = ["validate-estimators", "study.toml", "--out", "out", "--truth", "6"]
    decoded, stopped = ("pixels.npy",), ("evaluate", "score", "report")
    resumed: dict[str, tuple[Sequence[str], Callable[[Path], object]]] = {
        "decoded images of a run": (RUN, _made(_study, _armed("pixels.npy"), _again("train*", *LATE))),
        "checkpoints of a run": (RUN, _made(_study, _checkpoint, _again("train*", *LATE))),
        "models of a run": (RUN, _made(_study, _armed("*.safetensors"), _again(*LATE))),
        "records of a run": (RUN, _made(_study, _armed("record.json", "*.jsonl", "*.npz"), _again(*LATE))),
        "embeddings of a run": (RUN, _made(_study, _armed("embeddings/**/*.npy"), _again(*stopped))),
        "tables of a run": (RUN, _made(_study, _armed("*.parquet"), _again("report"))),
        "markers of a run": (RUN, _made(_study, _armed("stages/*.json"))),
        "runs of validate-estimators": (validate, _made(_validated, _armed(*decoded))),
        "parts of embed": (embed, _made(_embedded, _armed("img_emb*.npy", "metadata*.parquet"))),
        "embeddings under curate": ([*curate, "--model", "new"], _made(_embedded, _armed("???*_emb*.npy"))),
        "parts of score": (_score(), _made(_scored, _armed("scores.parts/**/*.npy", "scores.parts/**/*.parquet"))),
        "settings of score": (_score(), _made(_scored, _armed("scores.parts/**/*.json"))),
        "parts of curate": (curate, _made(_compared, _armed("comparing/*.npy"))),
        "markers of curate": (curate, _made(_compared, _armed("comparing/**/*.json"))),
        "a run of halves": (RUN, _made(_halves, _armed("*.npy", "*.safetensors"), _again(*LATE))),
    }
    for name, (arguments, make) in resumed.items():
        yield Case(f"resume: {name}", arguments, make, EITHER, environment=few)
    read: dict[str, Sequence[str]] = {
        "report": ["view", "run", "--report"],
        "compare": ["compare", "run", "other"],
        "evaluate": ["evaluate", "run"],
        "localize": ["localize", "run", "--pairs", "20"],
        "curate": ["curate", "run"],
        "view": ["view", "run", "--export", "page"],
        "export ids": ["export", "ids", "run", "--out", "x.txt"],
    }
    for name, arguments in read.items():
        made = _made(_study, lambda work: shutil.copytree(work / "run", work / "other"), _armed(*DATA))
        yield Case(f"read: all data of a run, {name}", arguments, made, EITHER)
    for name in ("report", "curate", "view"):
        made = _made(_study, lambda work: arm(work / "run", "*.json", "*.jsonl"))
        yield Case(f"read: all documents of a run, {name}", read[name], made, EITHER)
    halves = _made(_halves, lambda work: arm(work / "run", *DATA))
    yield Case("read: all data of a run of halves, audit", ["audit", "run"], halves, EITHER)
    marks = _made(_study, lambda work: (work / "run" / "marks.jsonl").write_bytes(bomb("marks.jsonl")))
    for name in ("curate", "view"):
        yield Case(f"read: marks, {name}", read[name], marks, EITHER)
    for ending in ("parquet", "arrow"):
        yield Case(f"read: a type of Python's own, {ending}", ["inspect", f"data.{ending}"], _typed(ending), EITHER)
