"""Does LEMoN find more with settings that are tuned on known errors?

    python experiments/curate/lemon.py runs/lemon icons.parquet clipart.parquet    # 5 minutes on one core
    python experiments/curate/lemon.py --page                                      # writes the table in RESULTS.md

The pairs, the mismatched captions (seed 0) and the `clipmem-tiny` that trained on them are those of the benchmark of
detectors. LEMoN's settings have the highest F1 in its authors' grid (run_lemon.py of github.com/MLforHealth/LEMoN), on
up to 4,000 other pairs of the same data that the model did not train on, with mismatched captions of the same kinds
(seed 2). Intervals are a bootstrap over the pairs that are ranked.
"""

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from foreign import record, some, suite  # noqa: E402

from clipmem.base.random import bootstrap_counts, generator  # noqa: E402
from clipmem.curation.ranking import curate  # noqa: E402
from clipmem.models.signals import Signals  # noqa: E402
from clipmem.scoring.pair_scores import PAIR_SCORES  # noqa: E402
from clipmem.scoring.pair_scores.similarity import embeddings_of  # noqa: E402
from clipmem.stats.agreement import lemon  # noqa: E402

SEED, DRAWS = 2, 1000
NEIGHBORS, TAU, WEIGHTS = (1, 2, 5, 10, 15, 20, 30, 50), (0.0, 1.0, 5.0, 10.0), np.arange(0, 101, 5.0)
FIXED, TUNED, OURS = "fixed", "tuned", "clipmem, all signals"
RECORD, MARK = HERE / "lemon.json", "<!-- lemon -->\n"


class Settings(NamedTuple):
    """LEMoN's settings, and their F1 on the pairs with known errors."""

    f1: float
    k: int
    weights: tuple[float, float]
    tau: tuple[float, float]

    def score(self, signals: Signals) -> np.ndarray:
        """Return LEMoN's scores."""
        return lemon(*embeddings_of(signals), self.k, weights=self.weights, tau=self.tau).numpy()


def highest_f1(scores: np.ndarray, wrong: np.ndarray) -> float:
    """Return the F1 at the best threshold."""
    right = np.cumsum(wrong[np.argsort(-scores)])
    return float((2 * right / (np.arange(1, len(wrong) + 1) + right[-1])).max())


def best(signals: Signals, wrong: np.ndarray) -> Settings:
    """Return the settings of the grid with the highest F1."""
    tried = Settings(0.0, 1, (0.0, 0.0), (0.0, 0.0))
    apart = tried.score(signals)
    for k, tau in product(NEIGHBORS, product(TAU, TAU)):
        by_image, by_text = (Settings(0.0, k, one, tau).score(signals) - apart for one in ((1.0, 0.0), (0.0, 1.0)))
        for beta, gamma in product(WEIGHTS, WEIGHTS):
            f1 = highest_f1(apart + beta * by_image + gamma * by_text, wrong)
            tried = max(tried, Settings(f1, k, (beta, gamma), tau))
    return tried


def measured(pairs: suite.Clean, folder: Path) -> dict[str, Any]:
    """Tune on other pairs, and return the AUROC of each kind of mismatched captions."""
    size = suite.Size()
    data = suite.mismatched(pairs, size.pairs)
    other = some(pairs, np.flatnonzero(~np.isin(pairs.uids, data.uids)))
    known = suite.mismatched(other, min(size.pairs, len(other.uids)), SEED)
    signals = suite.signals_of(data, folder, "cpu", epochs=size.epochs)
    encoder = suite.trained(data, folder, "cpu", epochs=size.epochs)
    settings = best(suite.embedded(known, encoder, "cpu"), known.kind >= 0)
    scores = {
        FIXED: PAIR_SCORES["lemon"]().score(signals),
        TUNED: settings.score(signals),
        OURS: np.asarray(curate(signals).table["score"]),
    }
    kinds = list[dict[str, Any]]()
    for kind, numbers in suite.KINDS.items():
        wrong = np.isin(data.kind, numbers)
        chosen = wrong | (data.kind < 0)
        counts = bootstrap_counts(generator(0, "lemon"), DRAWS, int(chosen.sum()))
        area = {name: float(roc_auc_score(wrong[chosen], x[chosen])) for name, x in scores.items()}
        draws = {name: suite.bootstrap_areas(x[chosen], wrong[chosen], counts) for name, x in scores.items()}
        gains = ("over fixed", draws[TUNED] - draws[FIXED]), ("over tuned", draws[OURS] - draws[TUNED])
        intervals = {name: np.quantile(values, (0.025, 0.975)).tolist() for name, values in gains}
        kinds.append({"kind": kind, "auroc": area, **intervals})
    return {"tuned on": len(known.uids), "settings": settings._asdict(), "kinds": kinds}


def table(results: list[dict[str, Any]]) -> str:
    """Format the results as Markdown."""
    lines = [
        "| data | captions | LEMoN, fixed | LEMoN, tuned | clipmem | tuned minus fixed | clipmem minus tuned |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        for row in result["kinds"]:
            areas = (f"{row['auroc'][name]:.3f}" for name in (FIXED, TUNED, OURS))
            gains = (f"{low:+.3f} to {high:+.3f}" for low, high in (row["over fixed"], row["over tuned"]))
            lines.append(f"| {' | '.join((result['data'], row['kind'], *areas, *gains))} |")
    return "\n".join([*lines, ""])


def chosen_settings(results: list[dict[str, Any]]) -> str:
    """Format the tuned settings as Markdown."""
    lines = ["| data | tuned on | F1 there | k | beta, gamma | τ₁, τ₂ |", "| --- | --- | --- | --- | --- | --- |"]
    for result in results:
        settings = Settings(**result["settings"])
        pairs = (f"{first:g}, {second:g}" for first, second in (settings.weights, settings.tau))
        cells = result["data"], f"{result['tuned on']:,} pairs", f"{settings.f1:.2f}", str(settings.k), *pairs
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def page(text: str) -> str:
    """Return the page with the tables of the record."""
    results = json.loads(RECORD.read_text(encoding="utf-8"))
    head, _, tail = text.split(MARK)
    return MARK.join([head, f"\n{table(results)}\n{chosen_settings(results)}\n", tail])


def measure(folder: Path, icons: str, clipart: str) -> Iterator[dict[str, Any]]:
    """Yield the results of each data set."""
    for data, section in suite.sections(icons, clipart).items():
        yield {"data": data, **measured(suite.clean(section), folder / data.replace(" ", "-"))}


if __name__ == "__main__":
    record(__doc__, RECORD, page, measure)
