"""Which signal should LiRA attack? `signals.py RUN` (RESULTS.md)

RUN is a finished run of protocol halves or subsample. Signals, each from the embeddings and the temperature of a model:

- similarity s of image and caption, in standard deviations of the external pairs, and its Fisher z, artanh(s);
- log odds log p - log(1 - p) of the caption among the captions of the external pairs (image), of the image among the
  images (caption), of the mean of both log p (the margin of `clipmem audit`), and the sum of the two LiRA scores.

Prints AUC and TPR at 1% FPR, means over the models as targets, and the difference of the AUC from that of the margin.
Decided before the first run: the AUC decides, on the runs of both data sets.
"""

import sys
from collections.abc import Mapping

import numpy as np

from clipmem.base.random import generator
from clipmem.report.formats import interval, plain, signed
from clipmem.stats.intervals import crossed_interval
from clipmem.stats.membership import InOut, lira, log_probability
from clipmem.stats.ranking import placements, target_means
from clipmem.study.plan import PlannedStudy

BASE = "LiRA, margin"


def odds(log_p: np.ndarray) -> np.ndarray:
    """Return log p - log(1 - p)."""
    return log_p - np.log(-np.expm1(log_p))


def attacks(study: PlannedStudy) -> tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the scores of every attack, shape (model, n), the members, and the groups of near-duplicates."""
    audited, pool, external = study.design.sign.any(axis=1), study.role == "candidate", study.role == "external"
    member, couple = study.design.sign[audited][:, pool] > 0, np.arange(len(study.models))
    couple[study.design.couples.T[1]] = study.design.couples.T[0]
    rows: dict[str, list[np.ndarray]] = {}
    for k in np.flatnonzero(audited).tolist():
        model = study.models[k]
        means = study.means(model, np.ones_like(pool))
        image, text = means.image.double().numpy(), means.text.double().numpy()
        s = (image * text).sum(axis=1)
        for name, values in {"similarity": s, "Fisher z": np.arctanh(s)}.items():
            rows.setdefault(name, []).append((values[pool] - values[external].mean()) / values[external].std())
        scale = float(study.load(model).logit_scale().detach())
        both = log_probability(image, text, external, scale)[pool]
        others = np.logaddexp.reduce(scale * image[pool] @ text[external].T, axis=1)
        of_image = scale * s[pool] - np.logaddexp(others, scale * s[pool])
        for name, values in {"margin": both, "image": of_image, "caption": 2 * both - of_image}.items():
            rows.setdefault(name, []).append(odds(values))
    signals = {name: np.stack(values) for name, values in rows.items()}
    keys = generator(study.recipe.split.seed, "audit").random(member.shape)
    scores = {f"LiRA, {name}": lira(InOut(signal, member, keys, couple[audited])) for name, signal in signals.items()}
    scores["LiRA, image + caption"] = scores["LiRA, image"] + scores["LiRA, caption"]
    return {"similarity": signals["similarity"], **scores}, member, study.group[pool]


def areas(scores: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC of each target, and the influence of each pair on it, as in `target_means`."""
    placed = np.stack([placements(*row) for row in zip(scores, member, strict=True)])
    auc = np.array([row[inside].mean() for row, inside in zip(placed, member, strict=True)])
    size = np.where(member, member.sum(axis=1, keepdims=True), (~member).sum(axis=1, keepdims=True))
    return auc, (placed - auc[:, None]) / size


def main(path: str) -> None:
    """Print the table."""
    scores, member, groups = attacks(PlannedStudy(path))
    base = areas(scores[BASE], member)
    print("| attack | AUC | minus that of the margin | TPR at 1% FPR, % |\n| --- | --- | --- | --- |")
    for name, values in scores.items():
        auc, rate = target_means(values, member, groups, np.array([0.01]))
        gain, influence = (a - b for a, b in zip(areas(values, member), base, strict=True))
        influence += ((gain - gain.mean()) / len(groups))[:, None]
        above = "" if name == BASE else crossed_interval(float(gain.mean()), influence, groups)
        cell = above and f"{signed(above.mean)} {interval(above._asdict(), sign=True)}"
        low, high = (f"{100 * (end or 0):.1f}" for end in rate[1:3])
        print(
            f"| {name} | {plain(auc.mean)} {interval(auc._asdict())} | {cell} | {100 * rate.mean:.1f} [{low}, {high}] |"
        )


if __name__ == "__main__":
    main(sys.argv[1])
