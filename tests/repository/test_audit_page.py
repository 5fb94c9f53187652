"""docs/audit.md shows the numbers of experiments/audit/RESULTS.md, which says about its tables what they have."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "experiments" / "audit" / "RESULTS.md").read_text(encoding="utf-8")
ATTACKS = r"similarity|LiRA \(margin\)|LiRA|RMIA \(softmax\)|RMIA|margin|learned"
NUMBER = re.compile(r"\d+\.\d+")


def rows(text):
    """Rows of attacks: their name, and all numbers."""
    matches = re.findall(rf"^[ |\w]*?({ATTACKS}) [ |]*(\d.*)$", text, flags=re.MULTILINE)
    return [(name, NUMBER.findall(numbers)) for name, numbers in matches]


def test_the_screen_is_the_first_table():
    [screen] = re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(rows(screen)) == 7
    assert rows(screen) == rows(RESULTS)[:7]


def test_the_figure_is_of_the_first_table():
    figure = (ROOT / "docs" / "images" / "audit-roc.svg").read_text(encoding="utf-8")
    rates = dict(re.findall(rf"({ATTACKS}) (0\.\d+)", figure))
    assert {name: float(rate) for name, rate in rates.items()} == {
        name: round(float(numbers[3]) / 100, 3) for name, numbers in rows(RESULTS)[:7]
    }


def test_the_figure_is_of_the_stored_curves_which_have_the_rates_of_the_table():
    folder = ROOT / "experiments" / "audit"
    drawn = load_script(folder / "figure.py").figure()
    kept = (ROOT / "docs" / "images" / "audit-roc.svg").read_text(encoding="utf-8")
    assert re.sub(r"[\d.]+", "", drawn) == re.sub(r"[\d.]+", "", kept)
    assert re.findall(r"0\.\d{3} \[.*?\]", drawn) == re.findall(r"0\.\d{3} \[.*?\]", kept)
    document = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
    curves, table = document["roc"], rows(RESULTS)[:7]
    for (name, attack), (_, numbers) in zip(document["attacks"].items(), table, strict=True):
        values = [entry[key] for entry in (attack["auc"], *reversed(attack["tpr"])) for key in ("mean", "low", "high")]
        assert values == pytest.approx([float(number) / (1 if k < 3 else 100) for k, number in enumerate(numbers)])
        for rate, entry in zip((0.001, 0.01), attack["tpr"], strict=True):
            assert curves[name][curves["fpr"].index(rate)] == pytest.approx(entry["mean"], abs=6e-4)


def test_the_table_of_redundancy_is_of_the_stored_measurements():
    folder = ROOT / "experiments" / "audit"
    script = load_script(folder / "redundancy.py")
    stored = json.loads((folder / "redundancy.json").read_text(encoding="utf-8"))
    assert "\n".join(script.lines(stored)) in RESULTS
    assert all(len(by_seed) == len(script.SEEDS) for arm in stored.values() for by_seed in arm.values())
    alone, together = (np.mean(stored[arm]["risk"], axis=0)[-1] for arm in script.ARMS)
    assert round(together / alone) == 7
    assert round(np.mean(stored["each pair by itself"]["risk"], axis=0)[0] / alone) == 12


def test_the_text_says_what_the_second_table_has():
    rate = [float(numbers[3]) for _, numbers in rows(RESULTS[RESULTS.index("## What references add") :])]
    similarity, _, _, learned = rate[:4]
    [times] = re.findall(r"learned attack finds (\d\.\d) times as many", RESULTS)
    assert float(times) == round(learned / similarity, 1)
    similarity, lira, _, learned = rate[4:8]
    assert round(similarity / 100, 1) == 0.5  # half of the members
    assert round(learned / similarity, 1) == 1.3  # a third more
    assert round(lira / similarity, 2) == 1.24  # a quarter more


def test_the_text_says_which_signal_is_best():
    section = RESULTS[RESULTS.index("## Which signal LiRA") : RESULTS.index("## Redundancy hides")]
    table = re.findall(r"^\| [\w ]*\| ([\w, +]+) \| (\d\.\d+) [^|]+\| ([^|]*)\|", section, flags=re.MULTILINE)
    assert len(table) == 14
    for rows_of in (table[:7], table[7:]):
        assert max(rows_of, key=lambda row: float(row[1]))[0] == "LiRA, Fisher z"
        assert next(gain for name, _, gain in rows_of if name == "LiRA, Fisher z").count("+") == 3


def test_the_text_says_what_the_table_without_references_has():
    section = RESULTS[RESULTS.index("## One model, without references") : RESULTS.index("## What references add")]
    table = re.findall(r"^\| ([\w ()]+) \| [^|]+\| ([^|]*)\|", section, flags=re.MULTILINE)
    lead = {
        name: [float(number) for number in re.findall(r"[+-]?\d\.\d+", text)] for name, text in table if "[" in text
    }
    assert {name for name, (_, low, _) in lead.items() if low > 0} == {
        "WSA",
        "WSA (gradient)",
    }  # alone beat the similarity
    assert max(lead, key=lambda name: lead[name][0]) == "WSA (gradient)"
    assert len(lead) == 6
