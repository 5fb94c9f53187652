"""The notebooks run from the first cell to the last, within their time, and show tables, images and figures."""

import os
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MINUTES = 3
# figures, tables, and what is in their HTML
SHOWN = {"did-my-mitigation-work": (3, 3, ("data:image/", "<svg")), "which-captions-are-wrong": (1, 1, ("vague",))}


def test_they_are_kept_without_output():
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel, which the extra dev has")
    assert NOTEBOOKS
    for file in NOTEBOOKS:
        cells = nbformat.read(file, as_version=4).cells
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")], file.name


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_they_run(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # for `!clipmem`
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook, started = nbformat.read(file, as_version=4), time.monotonic()
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=60 * MINUTES * 3, resources=resources).execute()
    shown = [set(one.get("data", {})) for cell in notebook.cells for one in cell.get("outputs", [])]
    text = "".join(
        str(one["data"].get("text/html", ""))
        for cell in notebook.cells
        for one in cell.get("outputs", [])
        if "data" in one
    )
    figures, tables, parts = SHOWN[file.stem]
    assert sum("image/png" in one for one in shown) >= figures
    assert sum("text/html" in one for one in shown) >= tables
    assert all(part in text for part in parts)
    # three times as long where other programs take the cores
    assert time.monotonic() - started < 60 * MINUTES * 3
