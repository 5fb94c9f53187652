"""The notebooks run from the first cell to the last, within their time, and show tables, images and figures."""

import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MINUTES = 3


def test_they_are_kept_without_output():
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel, which the extra dev has")
    assert NOTEBOOKS
    for file in NOTEBOOKS:
        cells = nbformat.read(file, as_version=4).cells
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")], file.name


# OPEN: the first study finishes; the kernel dies, without a message, when the second starts to train
@pytest.mark.slow
@pytest.mark.xfail(run=False, reason="the kernel dies when the second study starts to train")
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_they_run(file, tmp_path):
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
    assert sum("image/png" in one for one in shown) >= 3
    assert sum("text/html" in one for one in shown) >= 3
    assert "data:image/" in text
    assert "<svg" in text
    # three times as long where other programs take the cores
    assert time.monotonic() - started < 60 * MINUTES * 3
