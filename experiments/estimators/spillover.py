"""Does D get less noisy without the effects of the other pairs of a half? (RESULTS.md).

    python experiments/estimators/spillover.py validated/full RUN    # RUN: shadow models on the same pairs

With m_ki = 1 if the first of the k-th pair of shadow models trained on pair i, -1 if the second one did, and effects
that add up, the difference that is measured for pair i is

    D_ki = τ_ii + Σ_{j≠i} m_ki m_kj τ_ij + noise.

The sum is taken as a function of what i and j have in common, by the features φ of `clipmem score --trace`:

    x_kif = m_ki Σ_j m_kj (φ_fij - mean of φ_fi), j of other groups of near-duplicates,

with the same weights for all pairs and couples, by ridge regression. Halves are random, so that x is unrelated to τ_ii,
and D less what x explains is still unbiased.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from clipmem.models.signals import Halves, Signals
from clipmem.report.formats import interval, plain
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.pair_scores.halves import halves_of
from clipmem.stats.agreement import directions
from clipmem.stats.reliability import Estimated
from clipmem.stats.tracing import common
from clipmem.study import estimating
from clipmem.study.plan import PlannedStudy

RIDGE = 1e-2  # of the penalty, in units of the mean square of the features
CELLS = 2**21  # pairs x pairs at a time


def signals_in(folder: str) -> Signals:
    """Read the signals of a finished run of protocol halves."""
    study = PlannedStudy(Path(folder))
    return estimating.signals_of(study, study.aligned(study.models))


def signs(halves: Halves) -> np.ndarray:
    """Return m, shape (couple, n)."""
    return np.where(halves.member[::2], 1.0, -1.0)


def company(known: Signals, member: np.ndarray) -> np.ndarray:
    """Return x, shape (couple, n, feature)."""
    assert known.image is not None  # noqa: S101  of a run
    assert known.text is not None  # noqa: S101
    by_content = (known.shapes_and_colors, known.words)
    images, captions = (
        [own.double().numpy(), directions(torch.from_numpy(np.asarray(side)), "features").numpy()]
        for own, side in zip((known.image, known.text), by_content, strict=True)
    )
    group, blocks = known.group, list[np.ndarray]()
    for rows in np.array_split(np.arange(len(group)), 1 + len(group) ** 2 // CELLS):
        phi = common([(side[rows], side) for side in images], [(side[rows], side) for side in captions])
        phi = (phi - phi.mean(axis=2, keepdims=True)) * (group[rows, None] != group)
        blocks.append((phi @ member.T).transpose(2, 1, 0))
    return np.concatenate(blocks, axis=1) * member[:, :, None]


def centered(values: np.ndarray) -> np.ndarray:
    """Return values less their mean over pairs, the second axis."""
    return values - values.mean(axis=1, keepdims=True)


def weights(x: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Return the weights of features of mean square 1, by ridge regression over all pairs and couples."""
    kernel, products = np.einsum("kif,kig->fg", x, x), np.einsum("kif,ki->f", x, centered(effect))
    return np.linalg.solve(kernel + RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel)), products)


def noise(effect: np.ndarray) -> float:
    """Return the variance of D over couples, less its mean over pairs."""
    return float(centered(effect).var(axis=0, ddof=1).mean())


def rows(truth: Signals, folder: str) -> Iterator[str]:
    """Yield a row for the first 2 and for the first 4 shadow models of a run."""
    halves = halves_of(signals_in(folder))
    member, effect = signs(halves), halves.effect
    x = company(truth, member)
    x = centered(x / np.sqrt((x**2).mean(axis=(0, 1))))
    for number in (1, 2):
        used, others = slice(number), slice(len(effect) // 2, None)
        spill = x @ weights(x[used], effect[used])
        told = 1 - noise(effect[others] - spill[others]) / noise(effect[others])
        some = Halves(halves.alignment[: 2 * number], halves.member[: 2 * number], halves.proxy)
        lower = some.alignment.copy()
        lower[::2] -= member[used] * spill[used]
        cells = list[str]()
        for name in ("raw", "distilled"):
            for shadow in (some, replace(some, alignment=lower)):
                score = PAIR_SCORES[name]().estimate(replace(truth, halves=shadow)).score
                found = estimating.expected_agreement(truth, Estimated(score))
                assert found is not None  # noqa: S101  there are shadow models
                cells.append(f"{plain(found.value)} {interval(found._asdict())}")
        yield f"| {Path(folder).name} | {2 * number} | {told:.1%} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print("| run | shadow models | noise explained | `raw` | less spillover | `distilled` | less spillover |")
    print("|" + " --- |" * 7)
    for folder in sys.argv[2:]:
        for row in rows(signals_in(sys.argv[1]), folder):
            print(row, flush=True)
