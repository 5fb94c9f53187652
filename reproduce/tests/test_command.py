"""`clipmem reproduce` and `clipmem compare` as a user types them: one figure for real, and all of them under `slow`."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
from tests.e2e.running import clip
from tests.e2e.test_docs_blocks import BLOCKS, commands
from tests.golden.digest import differences, machine, of_folder

from clipmem.cli.app import app
from clipmem_reproduce.findings import FINDINGS
from clipmem_reproduce.reproduction import reproduce

SHORT = ("--set", "train.epochs=2", "--set", "split.shared=60", "--set", "split.candidate=20")
SIZES = (*SHORT, "--set", "split.independent=20", "--set", "split.external=20")
ROW = {"finding", "measure", "estimate", "low", "high", "holds", "primary", "confidence", "seeds", "seconds"}


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
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


def test_the_commands_of_the_pages_exist_with_their_options():
    lines = [line for *_, language, text in BLOCKS if language in {"sh", "bash"} for line in commands(text)]
    ours = [line for line in lines if line[0] == "reproduce"]
    assert len(ours) >= 5
    for line in ours:
        command, _, _ = app.parse_args(line, exit_on_error=False, print_error=False)
        assert command


@pytest.mark.slow
def test_numbers_of_a_small_reproduction_are_those_on_record(tmp_path):
    golden = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
    reproduce(tmp_path / "out", findings=["planted"], seeds=2, settings=["train.precision=fp32"])
    made = {"tables": {}, "weights": {}, "numbers": of_folder(tmp_path / "out")["numbers"]}
    assert differences(golden["studies"], {"reproduced": made}, same_machine=golden["machine"] == machine()) == []


@pytest.mark.slow
def test_all_figures_at_scale_tiny(tmp_path):
    done = clip("reproduce", "--scale", "tiny", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert tuple(one["finding"] for one in document["findings"]) == tuple(FINDINGS)
    assert all(one["effects"] and one["panels"] for one in document["findings"])
    holds = {one["finding"]: one["holds"] for one in document["findings"]}
    assert holds["roles"] != "no"
    [candidates] = [row for row in document["rows"] if row["measure"] == "CLIPMem of candidates"]
    assert candidates["estimate"] > 0.1
