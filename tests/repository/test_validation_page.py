"""The tables of experiments/validation/RESULTS.md are those that the stored scores give."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clipmem.scoring.alignments import ALIGNMENTS
from tests.close import alike

pytestmark = pytest.mark.slow
GROUPED = ("grouped_low", "grouped_high")
ROOT = Path(__file__).parents[2]


def test_the_stored_scores_give_the_documented_numbers(tmp_path):
    folder = ROOT / "experiments" / "validation"
    for name in ("compare.py", "scores.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    subprocess.run([sys.executable, tmp_path / "compare.py", "--stored"], check=True, capture_output=True)
    result = json.loads((tmp_path / "validation.json").read_text())
    assert alike(result, json.loads((folder / "validation.json").read_text()))
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    for row in result["agreement"]:
        assert f"| {row['run']} | {row['against']} | {row['pairs']:,} | {row['spearman']:.3f} |" in text
        assert f"{row['high']:.3f} | {100 * row['top10_overlap']:.0f}% | {row['mean_difference']:+.3f} |" in text
    for row in result["planted"]:
        assert f"| {row['auroc']:.3f} | {row['low']:.3f} to {row['high']:.3f} |" in text


def run_stored(tmp_path, script, *needed):
    folder = ROOT / "experiments" / "validation"
    for name in (script, *needed):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    subprocess.run([sys.executable, tmp_path / script, "--stored"], check=True, capture_output=True)
    written = script.replace("intervals.py", "coverage.json").replace(".py", ".json")
    result = json.loads((tmp_path / written).read_text())
    assert alike(result, json.loads((folder / written).read_text()))
    return result, (folder / "RESULTS.md").read_text(encoding="utf-8")


def test_the_stored_scores_give_the_documented_coverage(tmp_path):
    result, text = run_stored(
        tmp_path, "intervals.py", "compare.py", "scores.parquet", "coverage.parquet", "means.parquet"
    )
    for row in result["own protocol"]:
        spread = f"{100 * row['least']:.0f} to {100 * row['most']:.0f}%"
        name = row["run"].removeprefix("coverage-")
        assert f"| {name} | {100 * row['claimed']:.0f}% | {100 * row['covered']:.0f}% | {spread} |" in text
    for row in result["means"][:-2]:
        name = row["mean"].replace("candidate mean", "over candidates").replace("half-difference", "mean memorization")
        assert f"| {name} | {row['seeds']} | {row['over']} | {100 * row['covered']:.0f}% |" in text
    own, half = (row["covered"] for row in result["means"][-2:])
    assert f"{own:.3f} for the mean over candidates and {half:.3f} for mean memorization" in text.replace("\n", " ")
    for row in result["leave-one-out"]:
        cells = [f"{row['shift']:+.3f}", f"{row['error_sd']:.3f}", f"{row['between_sd']:.3f}"]
        cells += [
            f"{100 * row[f'{kind}_{level:g}']:.0f}%" for kind in ("plain", "widened") for level in (0.5, 0.8, 0.95)
        ]
        assert f"| {row['run']} | {' | '.join(cells)} |" in text
    for row in result["shared out"]:
        assert f"| {row['run']} | {row['component_sd']:.3f} | {row['low']:.3f} to {row['high']:.3f} |" in text


def test_the_stored_runs_and_planted_studies_give_the_documented_gain_of_balanced_draws(tmp_path):
    result, text = run_stored(tmp_path, "balanced.py", "balanced.json", "balanced.parquet")
    for row in result["simulated"]:
        ratios = [
            f"{row[f'ratio_{kind}']:.2f} [{row[f'ratio_{kind}_low']:.2f}, {row[f'ratio_{kind}_high']:.2f}]"
            for kind in ("independent", "same_share")
        ]
        changes = [f"{row[f'{name}_independent']:.3f} → {row[f'{name}_balanced']:.3f}" for name in ("truth", "halves")]
        changes += [f"{100 * row['lost_independent']:.0f}% → {100 * row['lost_balanced']:.0f}%"]
        changes += [f"{100 * row['covers_independent']:.1f}% → {100 * row['covers_balanced']:.1f}%"]
        cells = [row["models"], row["fraction"], row["times"], f"{100 * row['unscored_independent']:.1f}%"]
        assert f"| {' | '.join(str(cell) for cell in [*cells, *ratios, *changes])} |" in text
    for row in result["runs"]:
        models = f"{row['in_least']} to {row['in_most']} of {row['models']}"
        cells = [f"{row[name]:.4f} ± {row[f'{name}_stderr']:.4f}" for name in ("halves", "variance")]
        assert f"| {row['run']} | {models} | {row['unscored']} | {' | '.join(cells)} |" in text
    [found] = result["compared"]
    for name, low, high in (("halves_change", "halves_low", "halves_high"), ("grouped_change", *GROUPED)):
        assert f"{found[name]:+.3f} [{found[low]:+.3f}, {found[high]:+.3f}]" in text
    assert f"{found['variance_ratio']:.2f} [{found['ratio_low']:.2f}, {found['ratio_high']:.2f}]" in text


def test_the_stored_scores_give_the_documented_measures_and_their_declarations(tmp_path):
    rows, text = run_stored(tmp_path, "measures.py", "measures.parquet")
    assert sorted(row["measure"] for row in rows) == list(ALIGNMENTS)
    for row in rows:
        area = f"{row['auroc']:.3f} | {row['low']:.3f} to {row['high']:.3f}"
        alone = f"{row['g_alone']:.3f} | {row['g_alone_low']:.3f} to {row['g_alone_high']:.3f}"
        verdict = "yes" if row["finds_wrong_captions"] else "no"
        assert f"| {row['measure']} | {area} | {verdict} | {alone} |" in text
        # what a measure declares about itself is what was measured
        assert ALIGNMENTS[row["measure"]].finds_wrong_captions is row["finds_wrong_captions"]
