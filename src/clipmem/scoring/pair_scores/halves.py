"""Scores from shadow models: their raw difference, and `distilled`, what they say of all pairs as a function of each.

A member of a shadow model is drawn at random, so that D, the alignment of a pair under the shadow model that trained on
it minus that under its complement, is an unbiased and very noisy measurement of the effect of training on the pair. A
regression of D on features of the pair averages the noise of pairs that are alike.

When not to trust `distilled` and `transferred`: they know of a pair what its features say. Two pairs with equal
features get equal scores.
"""

import json
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy.stats import norm, rankdata

from clipmem.base.hashing import numbered, same_words
from clipmem.base.random import derive_seed
from clipmem.models.signals import Halves, Signals
from clipmem.scoring.pair_scores.base import MEMORIZATION, PAIR_SCORES, PairScore, Scores
from clipmem.stats.agreement import directions, lemon, neighbor_votes, softmax_agreements
from clipmem.stats.intervals import seed_interval
from clipmem.stats.leave_one_out import leave_one_out
from clipmem.stats.reliability import Estimated, in_blocks, noise_of, own_weight
from clipmem.stats.similarity import contrast

FOLDS, LANDMARKS, REFITS = 5, 200, 8


def halves_of(signals: Signals) -> Halves:
    """Return the shadow models."""
    assert signals.halves is not None  # noqa: S101  of `needs`
    return signals.halves


class FromHalves(PairScore):
    """A score that shadow models calibrate."""

    good_for = MEMORIZATION

    def score(self, signals: Signals) -> Scores:
        return self.estimate(signals).score


@PAIR_SCORES.register("raw")
class RawDifference(FromHalves):
    """Score = mean of D over the pairs of shadow models; with two or more, it has the error of `seed_interval`.

    Unbiased, and with few models mostly noise.
    """

    summary = "Alignment with the pair minus without it, over shadow models."
    needs = frozenset({"shadow models"})

    def estimate(self, signals: Signals) -> Estimated:
        halves = halves_of(signals)
        score, error = halves.effect.mean(axis=0), seed_interval(halves.effect)
        return Estimated(score, error.stderr if error.df else None, not halves.proxy, own=1.0, df=error.df)


@PAIR_SCORES.register("distilled")
class Distilled(FromHalves):
    """Score = p + w (D - p): p the cross-fitted regression of D on the pair's features, w the weight of its own D.

    p is the mean of three regressions: ridge and gradient-boosted trees on `features` as normal scores of ranks; and
    kernel ridge, whose kernel is the sum of exp(-|a - b|² / 2) of these, divided by the root of their number, and of
    f's centered unit embeddings of the image and of the caption, each by 200 Nyström landmarks. Penalties are chosen by
    leave-one-out. All are fitted on four fifths of the groups of near-duplicates at a time and predict the rest, so
    that no pair's D enters its own p. w is estimated from the noise of D (`functional.reliability`), and so is the
    error, sqrt((1 - w) v), v = var of the truth about p, at least the standard error of its estimate, as it is never
    known to be 0. With one pair of shadow models w = 0, and there is no error.
    """

    summary = "Regression of the shadow models' differences on what is known of each pair, cross-fitted"
    needs = frozenset({"embeddings", "alignment", "pixels", "shadow models"})

    def estimate(self, signals: Signals) -> Estimated:
        halves = halves_of(signals)
        x = np.stack([normal_scores(values) for values in features(signals).values()], axis=1)
        effect, mean = halves.effect, halves.effect.mean(axis=0)
        blocks = in_blocks(effect, REFITS)
        without = [np.delete(blocks, k, axis=0).mean(axis=0) for k in range(len(blocks))] if len(blocks) > 1 else []
        predicted, *refitted = _cross_fitted(x, signals, np.stack([mean, *without]))
        if len(effect) == 1:  # what is noise shows in the difference of two
            return Estimated(predicted, None, not halves.proxy, 0.0, predicted)
        weight, rest = own_weight(mean, predicted, noise_of(effect).noise), mean - predicted
        noises = (effect - effect.mean(axis=1, keepdims=True)).var(axis=0, ddof=1) / len(effect)
        missed = (rest - rest.mean()) ** 2 - noises
        variance = max(missed.mean(), missed.std(ddof=1) / np.sqrt(len(rest)))
        error = np.full(len(rest), np.sqrt((1 - weight) * variance))
        score = predicted + weight * (mean - predicted)
        return Estimated(score, error, not halves.proxy, weight, predicted, np.stack(refitted))


def transfer() -> dict[str, Any]:
    """Return the weights of `transferred`, and its agreement with the truth of data that they were not fitted on."""
    return json.loads((files("clipmem.scoring.pair_scores") / "transferred.json").read_text(encoding="utf-8"))


@PAIR_SCORES.register("transferred")
class Transferred(PairScore):
    """Score = Σ_k w_k z_k: z_k the normal scores of the ranks of `facts` k, w ridge regression of D on them, on others.

    w was fitted on the mean D of five data sets, see experiments/estimators/RESULTS.md; errors: see `leave_one_out`.
    """

    summary = "Regression of shadow models' differences on what is known of each pair, fitted on other data"
    good_for = MEMORIZATION
    needs = frozenset({"embeddings", "pixels"})
    fitted_on, new_data = transfer()["agreement"], transfer()["new data"]["transferred"]

    def score(self, signals: Signals) -> Scores:
        weights = transfer()["weights"]
        return np.sum([weights[name] * normal_scores(values) for name, values in signals.once(facts).items()], axis=0)


def normal_scores(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return normal scores of ranks; ties share one."""
    return norm.ppf((rankdata(values) - 0.5) / len(values))


def features(signals: Signals) -> dict[str, Float64[np.ndarray, " n"]]:
    """Describe each pair by its alignment, by `facts`, and by the training of f, shape (n,) each."""
    assert signals.alignment is not None  # noqa: S101  of `needs`
    described = {"alignment": signals.alignment, **signals.once(facts)}
    if signals.trajectory is not None:
        margin, similarity = signals.trajectory.margin, signals.trajectory.similarity
        described["mean margin"] = np.nan_to_num(signals.trajectory.mean_margin)
        # after a third, where easy and hard pairs differ most
        described["early similarity"] = np.nan_to_num(similarity[round(len(margin) / 3)].astype(np.float64))
    return described


def facts(signals: Signals) -> dict[str, Float64[np.ndarray, " n"]]:
    """Describe each pair by what f, its neighbors, its words and its pixels say of it, shape (n,) each."""
    assert signals.image is not None and signals.text is not None  # noqa: PT018, S101
    u, v, group = signals.image.double(), signals.text.double(), signals.group
    words = torch.from_numpy(np.asarray(signals.words[:], dtype=np.float64))
    pixels = torch.from_numpy(signals.shapes_and_colors.astype(np.float64))
    similar = zip(("similarity", "margin", "s-CLIPLoss"), contrast(u, v), strict=True)
    described: dict[str, np.ndarray] = {name: values.numpy() for name, values in similar}
    described["lemon"] = lemon(u, v, min(30, len(u) - 1), group=group).numpy()
    described["votes"] = neighbor_votes(u, words, group=group).numpy()
    sides = {"image": u, "text": v, "words": words, "pixels": pixels}
    for query, values in _WAYS.items():
        targets = [sides[value] for value in values]
        agreements = softmax_agreements(sides[query], targets, group=group)
        left_out = leave_one_out(sides[query].numpy(), torch.cat(targets, dim=1).numpy(), group=group)
        predictions = torch.from_numpy(left_out.prediction).split([target.shape[1] for target in targets], dim=1)
        for value, agreement, target, prediction in zip(values, agreements, targets, predictions, strict=True):
            described[f"agreement, {query} to {value}"] = agreement.numpy()
            cosine = torch.nn.functional.cosine_similarity(prediction, directions(target, value))
            described[f"left out, {query} to {value}"] = -cosine.numpy()
        if query in ("words", "pixels"):
            described[f"leverage, {query}"] = left_out.leverage
    number = numbered(same_words(texts[0]) for texts in signals.captions)
    described["equal captions"] = np.bincount(number)[number].astype(np.float64)
    described["words of the caption"] = np.array([len(texts[0].split()) for texts in signals.captions], np.float64)
    return described


_WAYS = dict.fromkeys(("words", "text"), ("image", "pixels")) | dict.fromkeys(("image", "pixels"), ("words", "text"))


def _cross_fitted(
    x: Float64[np.ndarray, "n p"], signals: Signals, targets: Float64[np.ndarray, "k n"]
) -> Float64[np.ndarray, "k n"]:
    from sklearn.ensemble import HistGradientBoostingRegressor  # slow to import
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    assert signals.image is not None and signals.text is not None  # noqa: PT018, S101
    sides = [directions(side.double(), "embeddings").numpy() for side in (signals.image, signals.text)]
    spaces, predicted = [x / np.sqrt(x.shape[1]), *sides], np.empty(targets.shape)
    split = GroupKFold(FOLDS, shuffle=True, random_state=derive_seed(signals.seed, "folds") % 2**32)
    for train, test in split.split(x, groups=signals.group):
        maps = [Nystroem(gamma=0.5, n_components=min(LANDMARKS, len(train)), random_state=0) for _ in spaces]
        z = np.hstack([each.fit(space[train]).transform(space) for each, space in zip(maps, spaces, strict=True)])
        ridges = [
            RidgeCV(penalties, alpha_per_target=True).fit(columns[train], targets[:, train].T).predict(columns[test]).T
            for columns, penalties in ((x, np.logspace(-1, 4, 12)), (z, np.logspace(-1, 3, 9)))
        ]
        trees = [
            HistGradientBoostingRegressor(
                max_iter=150, learning_rate=0.05, max_leaf_nodes=15, l2_regularization=1.0, random_state=0
            )
            .fit(x[train], y[train])
            .predict(x[test])
            for y in targets
        ]
        predicted[:, test] = (sum(ridges) + np.stack(trees)) / 3
    return predicted
