"""Does what was learned of other data rank the pairs of new data, of which there is only f? (RESULTS.md)

python experiments/estimators/prior.py validated/full icons/full titles/full

Each folder is the `full` of a `clipmem validate-estimators`. A regression of the ground truth on the features of
`distilled` is fitted on all data but one, and ranks that one. Features and truth are normal scores of ranks, by data.
"""

import sys

import numpy as np
from compare import agreement, registered, signals_in
from scipy.stats import norm, rankdata
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV

from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores.halves import features, halves_of
from clipmem.stats.reliability import Estimated

CLOSED_FORM = ("closed-form", "closed-form-rbf")


def scores_of(values: np.ndarray) -> np.ndarray:
    """Return normal scores of ranks."""
    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))


def prior(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the mean prediction of ridge regression and of boosted trees."""
    ridge = RidgeCV(np.logspace(-1, 5, 13)).fit(x, y)
    trees = HistGradientBoostingRegressor(max_iter=150, learning_rate=0.05, max_leaf_nodes=15, random_state=0).fit(x, y)
    return (ridge.predict(new) + trees.predict(new)) / 2


def main(*folders: str) -> None:
    """Print the table: a row for each data set that is left out."""
    data: list[tuple[Signals, np.ndarray, np.ndarray]] = []
    for signals in map(signals_in, folders):
        x = np.stack([scores_of(values) for values in features(signals).values()], axis=1)
        data.append((signals, x, scores_of(halves_of(signals).effect.mean(axis=0))))
    print("| ranked | `closed-form` | `closed-form-rbf` | prior | prior + `closed-form-rbf` |")
    print("| --- | --- | --- | --- | --- |")
    for k, (folder, (signals, new, _)) in enumerate(zip(folders, data, strict=True)):
        others = [row for j, row in enumerate(data) if j != k]
        learned = prior(np.vstack([row[1] for row in others]), np.concatenate([row[2] for row in others]), new)
        *closed, rbf = ranked = [scores_of(registered(name)(signals)) for name in CLOSED_FORM]
        ranked = [*closed, rbf, learned, scores_of(learned) + rbf]
        print(f"| {folder} | {' | '.join(agreement(signals, Estimated(score)) for score in ranked)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
