"""Does a model that did not train on the pairs help `clipmem curate`, and does one that knows nothing do harm?

    python experiments/curate/foreign.py runs/foreign icons.parquet clipart.parquet    # 20 minutes on one core
    python experiments/curate/foreign.py --page                                        # writes the table in RESULTS.md
    python experiments/curate/foreign.py --suggested runs/foreign                      # suggested captions of drawings

`icons.parquet` has 8,000 icons (`python experiments/reproduce/icons.py package icons.parquet 8000`), `clipart.parquet`
is that of clipart.py. A `clipmem-tiny` trains for 30 epochs on pairs with their own captions:

    drawings by three artists    curates those of the other three
    every second icon            curates the other icons
    every second clip art        curates the other clip art
    all drawings                 curates icons, and clip art, of which it knows next to nothing

Captions are mismatched as in the benchmark of detectors (15%, three kinds), with seed 1: the method was chosen with
seed 0. Intervals are a bootstrap over pairs. "Published" is the best of CLIPScore, LEMoN and s-CLIPLoss with the same
model, chosen on these pairs.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))

from suites import curate as suite  # noqa: E402

from clipmem.base.hashing import same_words  # noqa: E402
from clipmem.base.paths import write_json  # noqa: E402
from clipmem.base.random import bootstrap_counts, generator  # noqa: E402
from clipmem.curation.ranking import curate  # noqa: E402
from clipmem.scoring.evidence import Evidence  # noqa: E402
from clipmem.scoring.pair_scores import PAIR_SCORES  # noqa: E402

SEED, EPOCHS, DRAWS = 1, 30, 1000
PUBLISHED = "similarity", "lemon", "s-cliploss"
RECORD, PAGE, MARK = HERE / "foreign.json", HERE / "RESULTS.md", "<!-- foreign -->\n"


def some(pairs: suite.Clean, rows: np.ndarray) -> suite.Clean:
    """Return some of the pairs."""
    uids, keys, captions = ([values[row] for row in rows] for values in (pairs.uids, pairs.keys, pairs.captions))
    return suite.Clean(uids, keys, pairs.pixels[rows], captions, pairs.labels[rows])


def regimes(icons: str, clipart: str) -> Iterator[tuple[str, str, suite.Clean, suite.Clean]]:
    """Yield what is curated, what the model trained on, the pairs that it trained on, and those that it curates."""
    sections = suite.sections(icons, clipart)
    drawings = suite.clean(sections.pop("emoji-artists"))
    artists = np.array([key.rsplit("_", 1)[1] for key in drawings.keys])
    three = np.isin(artists, sorted(set(artists))[::2])
    yield "drawings", "other artists", some(drawings, np.flatnonzero(~three)), some(drawings, np.flatnonzero(three))
    for name, section in sections.items():
        pairs = suite.clean(section)
        rows = np.arange(len(pairs.uids))
        yield name, f"other {name}", some(pairs, rows[1::2]), some(pairs, rows[::2])
        yield name, "drawings", drawings, some(pairs, rows[::2])


def measured(known: str, data: suite.Data, folder: Path, other: suite.Clean) -> dict[str, Any]:
    """Return the AUROCs of each kind with and without the model, and of the best published detector with it."""
    pairs = suite.Data(other.uids, other.pixels, other.captions, np.full(len(other.uids), -1))
    signals = replace(suite.embedded(data, suite.trained(pairs, folder, "cpu", epochs=EPOCHS), "cpu"), unseen=True)
    found = {"none": curate(suite.plain(data)), "model": curate(signals)}
    scores = {name: np.asarray(ranking.table["score"]) for name, ranking in found.items()}
    scores |= {name: PAIR_SCORES[name]().score(signals) for name in PUBLISHED}
    rows = list[dict[str, Any]]()
    for kind, numbers in suite.KINDS.items():
        wrong = np.isin(data.kind, numbers)
        chosen = wrong | (data.kind < 0)
        area = {name: float(roc_auc_score(wrong[chosen], x[chosen])) for name, x in scores.items()}
        best = max(PUBLISHED, key=area.__getitem__)
        counts = bootstrap_counts(generator(0, "foreign"), DRAWS, int(chosen.sum()))
        draws = {
            name: suite.bootstrap_areas(scores[name][chosen], wrong[chosen], counts) for name in ("none", "model", best)
        }
        row: dict[str, Any] = {
            "kind": kind,
            "published": best,
            "auroc": [area[name] for name in ("none", "model", best)],
        }
        for name, reference in (("over none", "none"), ("over published", best)):
            row[name] = np.quantile(draws["model"] - draws[reference], (0.025, 0.975)).tolist()
        rows.append(row)
    swapped = int(np.isin(data.kind, (0, 1)).sum())
    return {
        "model": known,
        "pairs": len(data.uids),
        "evidence": found["model"].document["evidence"],
        "weights": {
            name: found["model"].document["combination"][name] for name in ("similarity", "embedded-neighbors")
        },
        "kinds": rows,
        "swapped": swapped,
        "expected": {name: ranking.document["expected"]["pairs"] for name, ranking in found.items()},
    }


def suggested(folder: Path) -> dict[str, Any]:
    """Return how many suggestions for mismatched drawings have the words of the drawing's own caption, by their say."""
    _, known, other, pairs = next(regimes("", ""))
    data, own = suite.mismatched(pairs, len(pairs.uids), SEED), dict(zip(pairs.uids, pairs.captions, strict=True))
    clean = suite.Data(other.uids, other.pixels, other.captions, np.full(len(other.uids), -1))
    encoder = suite.trained(clean, folder / known.replace(" ", "-"), "cpu", epochs=EPOCHS)
    signals = replace(suite.embedded(data, encoder, "cpu"), unseen=True)
    outcome: dict[str, np.ndarray] = {}
    for name, weight in (("no say", lambda _: 0.0), ("a say", Evidence._weight_of_model)):
        with patch.object(Evidence, "_weight_of_model", weight):
            ranked = curate(replace(signals)).table.select("uid", "suggested_caption")
        texts = dict(ranked.iter_rows())
        rows = [(texts[uid] is not None, texts[uid] and same_words(texts[uid]) == same_words(own[uid])) for uid in own]
        outcome[name] = np.array(rows, dtype=bool)[data.kind >= 0]
    n = int((data.kind >= 0).sum())
    counts = bootstrap_counts(generator(0, "suggested"), DRAWS, n)
    share = {name: (counts @ rows[:, 1]) / (counts @ rows[:, 0]) for name, rows in outcome.items()}
    gain = np.quantile(share["a say"] - share["no say"], (0.025, 0.975)).tolist()
    return {"mismatched": n, "gain": gain, **{name: rows.sum(axis=0).tolist() for name, rows in outcome.items()}}


def table(results: list[dict[str, Any]]) -> str:
    """Format the results as Markdown."""
    lines = [
        "| data | model trained on | captions | no model | this model | published | minus no model | minus published |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        for row in result["kinds"]:
            none, model, best = row["auroc"]
            gains = (f"{low:+.3f} to {high:+.3f}" for low, high in (row["over none"], row["over published"]))
            cells = result["data"], result["model"], row["kind"], f"{none:.3f}", f"**{model:.3f}**"
            cells += f"{best:.3f} ({row['published']})", *gains
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def counts(results: list[dict[str, Any]]) -> str:
    """Format the expected numbers and the weights as Markdown."""
    lines = [
        "| data | model trained on | swapped | expected, no model | this model | weights: similarity, neighbors |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        expected = (f"{share:,} [{low:,}, {high:,}]" for share, low, high in result["expected"].values())
        weights = ", ".join(f"{weight:.2f}" for weight in result["weights"].values())
        lines.append(f"| {' | '.join((result['data'], result['model'], str(result['swapped']), *expected, weights))} |")
    return "\n".join([*lines, ""])


def page(text: str) -> str:
    """Return the page with the tables of the record."""
    results = json.loads(RECORD.read_text(encoding="utf-8"))
    head, _, tail = text.split(MARK)
    return MARK.join([head, f"\n{table(results)}\n{counts(results)}\n", tail])


def record(
    doc: str | None,
    file: Path,
    page: Callable[[str], str],
    measure: Callable[[Path, str, str], Iterator[dict[str, Any]]],
    **more: Callable[[Path], object],
) -> None:
    """Measure what the command line names and store it, write the page, or print what one of `more` returns."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="folder for the models, icons.parquet, clipart.parquet")
    for option in ("page", *more):
        parser.add_argument(f"--{option}", action="store_true", help="see above")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    folder, *files = options.paths
    torch.set_num_threads(1)
    for option, work in more.items():
        if getattr(options, option):
            print(json.dumps(work(Path(folder)), indent=1))
            return
    results = list[dict[str, Any]]()
    for result in measure(Path(folder), *files):
        results.append(result)
        print(json.dumps(result), flush=True)
    write_json(file, results)


def measure(folder: Path, icons: str, clipart: str) -> Iterator[dict[str, Any]]:
    """Yield the results of each data set and model."""
    for data, known, other, pairs in regimes(icons, clipart):
        mismatched, place = suite.mismatched(pairs, len(pairs.uids), SEED), folder / known.replace(" ", "-")
        yield {"data": data, **measured(known, mismatched, place, other)}


if __name__ == "__main__":
    record(__doc__, RECORD, page, measure, suggested=suggested)
