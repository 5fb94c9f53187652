"""docs/how-it-works.md and docs/budget.md show numbers of the stored results, and what the command prints."""

import json
import re
from pathlib import Path

from clipmem.base.recipes import load_recipe
from clipmem.models.names import PROXIES
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.pair_scores.halves import transfer
from clipmem.study.budget import plan
from tests.screens import screen_text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")
BUDGET = (ROOT / "docs/budget.md").read_text(encoding="utf-8")
REGIMES = {"emoji drawings": "emoji-artists", "icons": "icons", "clip art": "clip art"}
KINDS = {"vague": "vague: the category's name"}
OURS = "clipmem, no model"


def rows(text, head):
    """Return the cells of the rows below a table's head."""
    body = text.partition(head)[2].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def measured():
    """Return the rows of the suite by data and kind."""
    found = {}
    for row in json.loads((ROOT / "benchmarks/results/curate.json").read_text())["rows"]:
        found.setdefault((row["regime"], row["kind"]), []).append(row)
    return found


def test_the_table_of_rankings_has_the_stored_results():
    head = "| data | swapped at random | swapped within the category | vague | all three | both kinds of swaps |"
    kinds = [cell.strip() for cell in head.strip("|").split("|")][1:]
    shown, stored = rows(PAGE, head), measured()
    assert [row[0] for row in shown] == list(REGIMES)
    assert len(stored) == len(shown) * len(kinds)
    for data, *cells in shown:
        for kind, cell in zip(kinds, cells, strict=True):
            found = stored[REGIMES[data], KINDS.get(kind, kind)]
            [ours] = [row["auroc"] for row in found if row["detector"] == OURS]
            best = max(row["auroc"] for row in found if row["published"])
            assert cell == f"{ours:.3f} / {best:.3f}"


def test_the_readme_has_the_stored_results():
    readme, stored = (ROOT / "README.md").read_text(encoding="utf-8"), measured()
    for data, ours, best in rows(readme, "| data | clipmem, no model | best published detector, small CLIP model |"):
        found = {row["detector"]: row["auroc"] for row in stored[REGIMES[data], "all three"]}
        published = [row["detector"] for row in stored[REGIMES[data], "all three"] if row["published"]]
        name = max(published, key=found.__getitem__)
        assert (ours, best) == (f"{found[OURS]:.3f}", f"{found[name]:.3f} ({name})")


def test_the_intervals_that_contain_0_are_those_of_vague_captions_of_icons_and_clip_art():
    contains = {
        key for key, found in measured().items() for row in found if row["detector"] == OURS and row["low"] <= 0
    }
    assert contains == {("icons", KINDS["vague"]), ("clip art", KINDS["vague"])}
    assert "excludes 0, except for vague captions of icons and clip art" in PAGE


def test_the_table_of_estimates_has_the_stored_results():
    documents = [
        json.loads((ROOT / f"experiments/estimators/{name}.json").read_text()) for name in ("emoji-artists", "icons")
    ]
    shown = rows(PAGE, "| estimator | shadow models | cost | emoji drawings (redundant) | icons (long tail) |")
    assert len(shown) >= 9
    for estimator, models, cost, *agreements in shown:
        if fitted := PAIR_SCORES[estimator.strip("`")].fitted_on:  # the stored validations know other data as well
            assert (models, cost) == ("none", "0.00")
            assert agreements == [f"{fitted[name]:.3f}" for name in ("emoji-artists", "icons")]
            continue
        number = re.match(r"\d+", models)
        pairs, small = int(number[0]) // 2 if number else 0, models.endswith("small")
        for document, agreement in zip(documents, agreements, strict=True):
            [one] = [
                row
                for row in document["estimators"]
                if (f"`{row['estimator']}`", row["pairs"], row["proxy"]) == (estimator, pairs, small)
            ]
            assert (f"{one['cost']:.2f}", f"{one['agreement']:.3f}") == (cost, agreement)
    assert {2 * document["truth"] for document in documents} == {int(re.search(r"from (\d+) shadow", PAGE)[1])}


def test_the_pages_say_what_to_expect_on_new_data():
    stored = transfer()
    new = stored["new data"]["transferred"]
    shown = f"{new['mean']:.2f} [{new['low']:.2f}, {new['high']:.2f}]"
    assert all(shown in page for page in (PAGE, BUDGET, (ROOT / "docs/score.md").read_text(encoding="utf-8")))
    results = (ROOT / "experiments/estimators/RESULTS.md").read_text(encoding="utf-8")
    table = rows(results, "| ranked | `closed-form` | `transferred`, fitted on the others |")
    closed, transferred = ([float(row[k].split()[0]) for row in table[:-1]] for k in (1, 2))
    assert transferred == list(stored["agreement"].values())
    assert f"agreement of {min(transferred):.2f} to {max(transferred):.2f} on the fifth" in PAGE
    assert f"`closed-form` had {min(closed):.2f} to {max(closed):.2f}" in PAGE
    assert f"regression on {len(stored['weights'])} of the features" in PAGE


def test_the_page_of_budgets_shows_what_the_command_prints():
    recipe = load_recipe((ROOT / "experiments/estimators/emoji-artists.toml").read_text(encoding="utf-8"))
    [block] = re.findall(r"```text\n(.*?)```", BUDGET, flags=re.DOTALL)
    assert screen_text("budget", plan(recipe, 0.3)).removeprefix("# ").startswith(block)


def test_the_page_of_budgets_has_all_smaller_architectures():
    shown = rows(BUDGET, "| f | smaller architecture |")
    listed = {name: row[1].strip("`") for row in shown for name in re.findall(r"`([^`]+)`", row[0])}
    assert listed == PROXIES


def test_the_guide_has_the_agreement_of_the_data_that_no_choice_was_made_on():
    stored = json.loads((ROOT / "experiments/estimators/clip-art.json").read_text(encoding="utf-8"))
    key = {"estimator": "distilled", "pairs": 2, "proxy": True}
    [row] = [row for row in stored["estimators"] if key.items() <= row.items()]
    assert f"4 shadow models of `{stored['proxy']}` had {row['agreement']:.2f}." in BUDGET
