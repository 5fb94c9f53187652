"""`clipmem reproduce` and `clipmem compare` as a user types them: one figure for real, and all of them under `slow`."""

import json
import re

import polars as pl
import pytest

from clipmem.report.findings import ORDER
from tests.e2e.running import clip

SHORT = ("--set", "train.epochs=2", "--set", "split.shared=60", "--set", "split.candidate=20")
SIZES = (*SHORT, "--set", "split.independent=20", "--set", "split.external=20")
ROW = {"finding", "measure", "estimate", "low", "high", "holds", "primary", "confidence", "seeds", "seconds"}


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_one_figure_is_made_resumed_and_its_runs_compared(tmp_path):
    out = tmp_path / "out"
    command = ("reproduce", "--finding", "captions", "--scale", "tiny", "--out", out, *SIZES)
    done = clip(*command)
    assert done.returncode == 0, done.stderr
    assert re.search(r"2 of 2 runs to train, 8 models: about [\d.]+ (s|min)", " ".join(done.stderr.split()))
    document = json.loads((out / "findings.json").read_text())
    assert [one["finding"] for one in document["findings"]] == ["captions"]
    assert len(document["rows"]) == 8
    for row in document["rows"]:
        assert set(row) == ROW
        assert row["finding"] == "captions"
        assert row["holds"] in {"yes", "no", "inconclusive"}
        # two seeds may agree to the last digit in a coarse metric: no interval then
        assert row["low"] is None or row["low"] <= row["estimate"] <= row["high"]
        assert (row["seeds"], row["seconds"] > 0) == (2, True)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "Number of captions" in " ".join(done.stdout.split())
    # what is made is not made again, and the same folders give the same document
    before, runs = (out / "findings.json").read_bytes(), files_of(out / "runs")
    again = clip(*command)
    assert again.returncode == 0, again.stderr
    assert "all 2 runs are finished" in " ".join(again.stderr.split())
    assert files_of(out / "runs") == runs
    assert (out / "findings.json").read_bytes() == before

    base, other = (out / "runs" / document["runs"][name] for name in document["runs"])
    compared = clip("compare", base, other, "--out", tmp_path / "compared")
    assert compared.returncode == 0, compared.stderr
    table = pl.read_parquet(tmp_path / "compared" / "compare.parquet")
    assert {"clipmem", "linear_probe_acc1", "image_retrieval_recall@5", "peak memory, MiB"} <= set(table["measure"])
    found = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert found["runs"][1]["differs"] == {"mitigate.captions.count": [0, 5]}
    [memory] = [row for row in found["differences"] if row["measure"] == "clipmem"]
    relative = document["rows"][0]
    assert memory["difference"] / abs(memory["baseline"]) == pytest.approx(relative["estimate"])
    assert "Pareto front" in compared.stdout
    refused = clip("compare", base, out / "probe")
    assert refused.returncode == 2
    assert "different seeds: got [0], expected [0, 1]" in refused.stderr


@pytest.mark.slow
def test_all_figures_at_scale_tiny(tmp_path):
    done = clip("reproduce", "--scale", "tiny", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert tuple(one["finding"] for one in document["findings"]) == ORDER
    assert all(one["effects"] and one["panels"] for one in document["findings"])
    holds = {one["finding"]: one["holds"] for one in document["findings"]}
    assert holds["distributions"] != "no"
    [candidates] = [row for row in document["rows"] if row["measure"] == "CLIPMem of candidates"]
    assert candidates["estimate"] > 0.1
