"""The tables and the figure of experiments/paradigms/RESULTS.md are those that the stored curves give."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import curves
from tests.close import alike
from tests.scripts import load_script

from clipmem.base.recipes import flatten, load_recipe
from clipmem_reproduce.curves import KINDS, answers_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "paradigms"


@pytest.fixture(scope="module")
def compare():
    return load_script(FOLDER / "compare.py")


@pytest.mark.slow
def test_the_stored_curves_give_the_documented_numbers(tmp_path, compare):
    for name in ("compare.py", "curves.parquet", "learned.parquet"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    command = [sys.executable, tmp_path / "compare.py", "--stored"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads((tmp_path / "paradigms.json").read_text())
    assert alike(result, json.loads((FOLDER / "paradigms.json").read_text()))
    text = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) > 50
    flat = " ".join(text.split())
    for line in lines:
        assert " ".join(line.split()) in flat


def test_the_figure_is_the_one_of_the_stored_curves():
    result = json.loads((FOLDER / "paradigms.json").read_text())
    figure = (ROOT / "docs" / "images" / "paradigms.svg").read_text(encoding="utf-8")
    assert len(figure) < 60_000
    assert "var(" not in figure
    for answer in answers_of(result):
        assert f"{KINDS[answer['kind']]}: {answer['verdict']}" in figure


def test_sentences_name_layers_and_sides(compare):
    assert [compare.layers(numbers) for numbers in ([1, 9, 10, 11, 12], [3])] == ["layers 1, 9 to 12", "layer 3"]
    document = curves({"mlp": ["yes", "no below"], "attn": ["yes", "yes"]})
    mlp, attn = map(compare.answer_sentence, answers_of(document))
    assert mlp.endswith("MLP units? In part: yes in layer 1; no (below both) in layer 2.")
    assert attn.endswith("attention outputs? Yes: yes in layers 1 to 2 (all of them).")
    document["trained"][0].update(difference=-0.1)
    document["trained"][4].update(p_holm=0.2)
    runs = compare.trained_sentence(document, "mlp").partition("MLP units: ")[2].split("; ")
    assert runs == [
        "CLIP above in layer 2 and below in layer 1",
        "supervised above in layer 2",
        "SimCLR above in layers 1 to 2.",
    ]


def test_the_recipes_differ_in_the_objective_and_in_simclrs_views_only():
    recipes = {
        path.stem: flatten(load_recipe(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*.toml"))
    }
    scoring = ("score.", "embed.")
    for name, expected in {
        "supervised": {"train.objective"},
        "simclr": {"train.objective", "train.crop_scale", "train.flip", "train.color", "train.grayscale"},
    }.items():
        different = {key for key, value in recipes["clip"].items() if recipes[name][key] != value}
        assert {key for key in different if not key.startswith(scoring)} == expected
