"""The tables of docs/validation.md are those that the stored scores give."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_stored_scores_give_the_documented_numbers(tmp_path):
    folder = ROOT / "experiments" / "validation"
    for name in ("compare.py", "scores.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    subprocess.run([sys.executable, tmp_path / "compare.py", "--stored"], check=True, capture_output=True)
    result = json.loads((tmp_path / "validation.json").read_text())
    assert result == json.loads((folder / "validation.json").read_text())
    text = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    for row in result["agreement"]:
        assert f"| {row['run']} | {row['against']} | {row['pairs']:,} | {row['spearman']:.3f} |" in text
    for row in result["planted"]:
        assert f"| {row['auroc']:.3f} | {row['low']:.3f} to {row['high']:.3f} |" in text
