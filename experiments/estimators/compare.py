"""Compare other estimates with the ground truth of `clipmem validate-estimators`.

python experiments/estimators/compare.py scores validated/full              # published scores that need one training
python experiments/estimators/compare.py shadow-models validated/full RUN   # shadow models that another recipe trained
python experiments/estimators/compare.py effects validated/full             # effects of training pairs, by TRAK, too
python experiments/estimators/compare.py learned NAME=validated/full ...    # a ranking learned from the other data
python experiments/estimators/compare.py near validated/full RUN            # features of near pairs only, as of many

The recorder keeps of each pair and epoch the margin to the hardest other pair of its batch. Scores that their authors
define by losses or probabilities of all classes are computed from margins: the probability is sigmoid(margin / .07).
TRAK and RelatIF use the gradient of a bilinear last layer, as `clipmem.functional.self_influence` does.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from scipy.special import expit
from scipy.stats import t
from sklearn.linear_model import Ridge

from clipmem.base.random import generator
from clipmem.models.signals import Signals
from clipmem.report.formats import interval, plain
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.pair_scores.halves import facts, halves_of, normal_scores
from clipmem.scoring.pair_scores.trajectory import trajectory_of
from clipmem.stats.agreement import directions
from clipmem.stats.cells import EXACT, PROBES, Cells
from clipmem.stats.intervals import crossed_mean
from clipmem.stats.reliability import Estimated
from clipmem.stats.similarity import normalize
from clipmem.stats.tracing import lds
from clipmem.study import estimating
from clipmem.study.plan import PlannedStudy
from clipmem.train.paired import TrainingSet

TAU, WIDTH, RIDGE = 0.07, 512, 1e-2  # of the margin; of TRAK's projection; of its kernel, in units of the mean square
EARLY = slice(1, 5)  # epochs of EL2N
FEWER = (PROBES, PROBES // 8)  # cells of mean size that a pair is compared with in `near`
PENALTY, PAIRS = 1000.0, 3000  # of `learned`: its penalty, where each data set weighs as much as so many pairs
TRANSFERRED = Path(__file__).parents[2] / "src" / "clipmem" / "scoring" / "pair_scores" / "transferred.json"


def margins(signals: Signals) -> np.ndarray:
    """Return the recorded margins, shape (epoch, n)."""
    return trajectory_of(signals).margin.astype(np.float64)


def forgetting(signals: Signals) -> np.ndarray:
    """Count the epochs after which a pair was no longer told apart; a pair that never was counts most."""
    learned = margins(signals) > 0
    times = (learned[:-1] & ~learned[1:]).sum(axis=0).astype(np.float64)
    return np.where(learned.any(axis=0), times, len(learned))


def learning_time(signals: Signals) -> np.ndarray:
    """Return the first epoch from which on a pair was told apart."""
    learned = margins(signals)[::-1] > 0
    return len(learned) - np.where(learned.all(axis=0), len(learned), learned.argmin(axis=0)).astype(np.float64)


def projections(seed: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Gaussian projections of images and of captions."""
    stream = generator(seed, "trak")
    a, b = (torch.from_numpy(stream.normal(size=(width, WIDTH))) for _ in range(2))
    return a, b


def gradients(signals: Signals) -> tuple[np.ndarray, np.ndarray]:
    """Return projected gradients of log odds by a bilinear last layer, shape (n, WIDTH), and 1 - p, shape (n,).

    The log odds are the mean of both directions, o_i = s u_i·v_i - log Σ_j≠i exp(s u_i·v_j), whose gradient by the
    layer is s u_i (v_i - v̄_i)' for one of them, v̄_i the softmax mean of the other captions. A product of Gaussian
    projections of both factors is a Gaussian projection of the matrix, up to its scale.
    """
    assert signals.image is not None and signals.text is not None and signals.logit_scale is not None  # noqa: PT018, S101
    u, v = (normalize(x.double(), name="embeddings") for x in (signals.image, signals.text))
    a, b = projections(signals.seed, u.shape[1])
    total, missing = torch.zeros(len(u), WIDTH, dtype=u.dtype), torch.zeros(len(u), dtype=u.dtype)
    for query, key, of_query, of_key in ((u, v, a, b), (v, u, b, a)):
        logits = signals.logit_scale * query @ key.T
        missing += (1 - torch.softmax(logits, dim=1).diagonal()) / 2
        others = torch.softmax(logits.fill_diagonal_(-torch.inf), dim=1) @ key
        total += signals.logit_scale / 2 * (query @ of_query) * ((key - others) @ of_key)
    return total.numpy() / np.sqrt(WIDTH), missing.numpy()


def whitened(phi: np.ndarray) -> np.ndarray:
    """Return the rows (Φ'Φ + λ)⁻¹ φ."""
    kernel = phi.T @ phi
    return np.linalg.solve(kernel + RIDGE * np.trace(kernel) / WIDTH * np.eye(WIDTH), phi.T).T


def trak(signals: Signals) -> np.ndarray:
    """Return the attribution of each pair to itself with one model: φ'(Φ'Φ + λ)⁻¹ φ (1 - p)."""
    phi, missing = gradients(signals)
    return (phi * whitened(phi)).sum(axis=1) * missing


def relatif(signals: Signals) -> np.ndarray:
    """Return the influence on itself, φ'(Φ'Φ + λ)⁻¹ φ (1 - p)², by the length of the change that it makes."""
    phi, missing = gradients(signals)
    changed = whitened(phi) * missing[:, None]
    return (phi * missing[:, None] * changed).sum(axis=1) / np.maximum(np.linalg.norm(changed, axis=1), 1e-300)


def registered(name: str) -> Callable[[Signals], np.ndarray]:
    """Return a score of clipmem."""
    return lambda signals: np.asarray(PAIR_SCORES[name]().score(signals))


SCORES: dict[str, Callable[[Signals], np.ndarray]] = {
    "CSL, cumulative loss (ICML 2025)": registered("loss"),
    "area under the margin (NeurIPS 2020)": registered("margin"),
    "EL2N, epochs 2 to 5 (NeurIPS 2021)": lambda signals: expit(-margins(signals)[EARLY] / TAU).mean(axis=0),
    "forgetting events (ICLR 2019)": forgetting,
    "learning time": learning_time,
    "TracIn (NeurIPS 2020)": registered("tracin"),
    "RelatIF (AISTATS 2020)": relatif,
    "TRAK (ICML 2023)": trak,
    "`closed-form`": registered("closed-form"),
}


def learned(*named: str) -> None:
    """Print how ridge regression on the truth of all data but one ranks that one, and store that of all data.

    Arguments are NAME=FOLDER. Features are the `facts` of clipmem's estimators; they and the truth are normal scores of
    ranks, by data. All data weigh the same.
    """
    data = dict[str, tuple[Signals, np.ndarray, np.ndarray]]()
    for name, folder in (one.split("=", 1) for one in named):
        signals = signals_in(folder)
        described = facts(signals)
        x = np.stack([normal_scores(values) for values in described.values()], axis=1)
        data[name] = signals, x, normal_scores(halves_of(signals).effect.mean(axis=0))

    def fitted(rows: Sequence[tuple[Signals, np.ndarray, np.ndarray]]) -> np.ndarray:
        weight = np.concatenate([np.full(len(y), PAIRS / len(y)) for _, _, y in rows])
        x, y = np.vstack([x for _, x, _ in rows]), np.concatenate([y for _, _, y in rows])
        return Ridge(PENALTY).fit(x, y, sample_weight=weight).coef_

    print("| ranked | `closed-form` | `transferred`, fitted on the others |")
    print("| --- | --- | --- |")
    agreements: dict[str, dict[str, float]] = {"closed-form": {}, "transferred": {}}
    for name, (signals, x, _) in data.items():
        score = x @ fitted([row for other, row in data.items() if other != name])
        ranked = [Estimated(each) for each in (registered("closed-form")(signals), score)]
        print(f"| {name} | {' | '.join(agreement(signals, each) for each in ranked)} |", flush=True)
        for estimator, each in zip(agreements, ranked, strict=True):
            expected = estimating.expected_agreement(signals, each)
            assert expected is not None  # noqa: S101  there are shadow models
            agreements[estimator][name] = round(expected.value, 3)
    new = {estimator: next_value(list(each.values())) for estimator, each in agreements.items()}
    weights = dict(zip(described, fitted(list(data.values())).round(4).tolist(), strict=True))
    document = {"weights": weights, "agreement": agreements["transferred"], "new data": new}
    TRANSFERRED.write_text(f"{json.dumps(document, indent=1)}\n", encoding="utf-8")
    cells = (f"{plain(each['mean'])} {interval(each)}" for each in new.values())
    print(f"| new data | {' | '.join(cells)} |")


def next_value(values: Sequence[float]) -> dict[str, float]:
    """Return the mean, and where one more draw from the same normal distribution lies with 95%, at most 1."""
    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
    return {"mean": round(mean, 3), "low": round(mean - half, 3), "high": round(min(mean + half, 1.0), 3)}


def signals_in(folder: str) -> Signals:
    """Read the signals of a finished run of protocol halves."""
    study = PlannedStudy(Path(folder))
    return estimating.signals_of(study, study.aligned(study.models))


def effects(*folders: str) -> None:
    """Print the LDS of effects by shadow models, by TRAK with f, and by similarity of images times captions.

    TRAK: the effect of training pair i on similarity q is g_q'(Φ'Φ + λ)⁻¹ φ_i (1 - p_i), g_q the projected gradient of
    the similarity, less its means over the held-out captions and images, by the same bilinear last layer.
    """
    print("| data | effects | TRAK | similarity |\n| --- | --- | --- | --- |")
    for folder in folders:
        study = PlannedStudy(Path(folder))
        signals, held, answer = signals_in(folder), study.role == "external", estimating.traced(study)

        def towers(model: TrainingSet, study: PlannedStudy = study, held: np.ndarray = held) -> list[torch.Tensor]:
            means = study.means(model, held)
            return [normalize(x.double(), name="embeddings") for x in (means.image, means.text)]

        def centered(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return u * v - u * v.mean(dim=0) - u.mean(dim=0) * v

        couples = [[study.models[k] for k in couple] for couple in study.design.couples]
        d = np.stack(
            [np.subtract(*(centered(*towers(model)).sum(dim=1).numpy() for model in pair)) for pair in couples]
        )
        f, (phi, missing) = towers(study.models[0]), gradients(signals)
        query = centered(*(x @ a for x, a in zip(f, projections(signals.seed, f[0].shape[1]), strict=True)))
        effect = query.numpy() @ (whitened(phi) * missing[:, None]).T
        member = np.where(study.design.sign[study.design.couples[:, 0]][:, ~held] > 0, 1.0, -1.0)
        by_trak = crossed_mean(lds(member @ effect.T, d)[None], study.group[held])
        cells = (
            f"{plain(each.mean)} {interval(each._asdict())}" for each in (answer.lds, by_trak, answer.lds_of_similarity)
        )
        print(f"| {folder} | {' | '.join(cells)} |", flush=True)


def agreement(truth: Signals, estimated: Estimated) -> str:
    """Return the agreement with the shadow models of the truth, which the estimate does not know, and its interval."""
    found = estimating.expected_agreement(truth, estimated)
    assert found is not None  # noqa: S101  there are shadow models
    return f"{plain(found.value)} {interval(found._asdict())}"


def scores(*folders: str) -> None:
    """Print a table of published scores, a column for each validation."""
    columns = list[list[str]]()
    for signals in map(signals_in, folders):
        values = (np.nan_to_num(score(signals)) for score in SCORES.values())
        columns.append([agreement(signals, Estimated(value)) for value in values])
    print(f"| score | {' | '.join(folders)} |\n| --- |{' --- |' * len(folders)}")
    for row in zip(SCORES, *columns, strict=True):
        print(f"| {' | '.join(row)} |")


def first(signals: Signals, pairs: int) -> Signals:
    """Return signals with the first pairs of shadow models alone."""
    halves = signals.halves
    assert halves is not None  # noqa: S101
    some = replace(halves, alignment=halves.alignment[: 2 * pairs], member=halves.member[: 2 * pairs])
    return replace(signals, halves=some)


def near(truth: str, run: str) -> None:
    """Print what estimates lose if their features compare each pair with those in near cells only."""
    known = signals_in(truth)
    small = replace(known, halves=signals_in(run).halves)
    assert known.image is not None  # noqa: S101
    print("| compared | `transferred` | `distilled` of 4 | `distilled` of 8 |\n| --- | --- | --- | --- |")
    for probes in (None, *FEWER):
        compared, share = [first(small, pairs) for pairs in (8, 2, 4)], 1.0  # copies, as `Signals.once` keeps facts
        with ExitStack() as stack:
            if probes is not None:
                stack.enter_context(patch("clipmem.stats.agreement.Cells", partial(Cells, probes=probes)))
                for module in ("agreement", "similarity"):
                    stack.enter_context(patch(f"clipmem.stats.{module}.EXACT", EXACT // 32))
                cells = Cells(directions(known.image, "image").float().numpy(), probes=probes)
                share = sum(len(rows) * len(others) for rows, others in cells) / len(known.uids) ** 2
            ranked = [
                PAIR_SCORES[name]().estimate(signals).score
                for name, signals in zip(("transferred", "distilled", "distilled"), compared, strict=True)
            ]
        print(f"| {share:.1%} | {' | '.join(agreement(known, Estimated(score)) for score in ranked)} |", flush=True)


def shadow_models(truth: str, *folders: str) -> None:
    """Print a table of the shadow models of other runs on the same pairs, for 2, 4, 8, ... of them."""
    known = signals_in(truth)
    print("| run | shadow models | cost | `raw` | `distilled` |\n| --- | --- | --- | --- | --- |")
    for folder in folders:
        study = PlannedStudy(Path(folder))
        halves = signals_in(folder).halves
        assert halves is not None  # noqa: S101
        # f trains as long as the shadow models do, and longer in the truth
        epochs = study.recipe.train.epochs / PlannedStudy(Path(truth)).recipe.train.epochs
        price, number = estimating.cost_of(study) / len(halves.effect) * epochs, 1
        while number <= len(halves.effect):
            signals = first(replace(known, halves=halves), number)
            estimates = (PAIR_SCORES[name]().estimate(signals).score for name in ("raw", "distilled"))
            cells = " | ".join(agreement(known, Estimated(score)) for score in estimates)
            print(f"| {Path(folder).name} | {2 * number} | {plain(price * number, 2)} | {cells} |", flush=True)
            number *= 2


if __name__ == "__main__":
    commands = {"scores": scores, "shadow-models": shadow_models, "effects": effects, "learned": learned, "near": near}
    commands[sys.argv[1]](*sys.argv[2:])
