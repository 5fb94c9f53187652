"""Finding 2: mismatched or vague captions and distorted images are memorized most, clear and precise pairs least.

Flaws are added on purpose: swapped captions, captions that name only a pair's class, and images turned or cropped to a
corner. A planned reproduction has vague captions of a second kind: no two pairs share one.
Among the other pairs, two proxies are correlated with CLIPMem: the rarity of a caption's words, and the distance of an
image's pixels from those of its nearest images. The first is poor where rare words are precise.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache, partial

import numpy as np
from jaxtyping import Float64

from clipmem.functional import spearman
from clipmem_reproduce.effects import ABOVE, Effect, Panel, Results, widened
from clipmem_reproduce.finding import Context, Finding
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.sources import UNIQUE_VAGUE
from clipmem_reproduce.spec import RunSpec

FLAWS = {"vague": "vague captions", UNIQUE_VAGUE: "unique vague captions", "distorted": "distorted images"}
PROXIES = ("rare words", "atypical image")
SWAPPED, ORDINARY = "swapped captions", "ordinary pairs"
_NEAR = 10  # neighbors over which the distance is averaged
_BLOCK = 256  # images at a time
_LEAST = 2  # pairs of a kind in each role


def flawed(context: Context) -> RunSpec:
    """Return the base study with added flaws."""
    return RunSpec(context.scale.flaws)


def rarity(captions: list[str]) -> Float64[np.ndarray, " n"]:
    """Return the rarity of each caption's words: the mean of -log(share of captions with the word)."""
    words = [set(caption.casefold().split()) for caption in captions]
    count = Counter(word for each in words for word in each)
    return np.array([np.mean([-np.log(count[word] / len(words)) for word in each]) if each else 0.0 for each in words])


def atypicality(pixels: Float64[np.ndarray, "n size"], near: int = _NEAR) -> Float64[np.ndarray, " n"]:
    """Return the mean Euclidean distance of each image to its `near` nearest neighbors, float64."""
    square = (pixels**2).sum(axis=1)
    means = [np.zeros(0)]
    for start in range(0, len(pixels), _BLOCK):  # one product of many rows: row by row takes twenty times as long
        some = pixels[start : start + _BLOCK]
        distance = np.sqrt(np.maximum(square + square[start : start + _BLOCK, None] - 2 * some @ pixels.T, 0))
        means.append(np.sort(distance, axis=1)[:, 1 : near + 1].mean(axis=1))  # the first is the image itself
    return np.concatenate(means)


@cache
def _proxies(run: Measured) -> dict[str, dict[str, float]]:
    values = rarity([captions[0] for captions in run.captions.values()]), atypicality(run.small_images())
    proxies = zip(PROXIES, values, strict=True)
    return {name: dict(zip(run.captions, proxy.tolist(), strict=True)) for name, proxy in proxies}


@cache
def kinds(run: Measured) -> dict[str, set[str]]:
    """Return the pairs of each kind; a swapped caption counts before another flaw."""
    flaw = {
        uid: next((words for name, words in FLAWS.items() if key.endswith(f"({name})")), ORDINARY)
        for uid, key in run.run.pairs.select("uid", "key").iter_rows()
    }
    by_kind: dict[str, set[str]] = {kind: set() for kind in (SWAPPED, *FLAWS.values(), ORDINARY)}
    for uid in run.run.splits["uid"]:
        by_kind[SWAPPED if uid in run.planted else flaw[uid]].add(uid)
    return by_kind


def by_kind(run: Measured) -> dict[str, list[float]]:
    """Return the mean CLIPMem of each kind by seed (half-difference), for kinds with pairs in both roles."""
    candidates, independent = run.uids("candidate"), run.uids("independent")
    sets = {kind: (uids & candidates, uids & independent) for kind, uids in kinds(run).items()}
    return {kind: run.half_difference(*pair) for kind, pair in sets.items() if min(map(len, pair)) >= _LEAST}


def _ordinary(run: Measured, proxy: str) -> tuple[Float64[np.ndarray, "seed n"], Float64[np.ndarray, " n"]]:
    """Return the scores of ordinary candidates by seed, and their values of a proxy."""
    uids = sorted(run.uids("candidate") & kinds(run)[ORDINARY])
    scores = np.array([[scores[uid] for uid in uids] for scores in map(run.scores, run.seeds)])
    return scores, np.array([_proxies(run)[proxy][uid] for uid in uids])


def _correlations(run: Measured, proxy: str) -> list[float]:
    scores, values = _ordinary(run, proxy)
    return [spearman(of_seed, values).spearman or 0.0 for of_seed in scores]


def of_quarter(run: Measured, proxy: str, k: int) -> list[float]:
    """Return the mean CLIPMem by seed of quarter `k` of the ordinary candidates in the order of a proxy."""
    values, ordinary = _proxies(run)[proxy], run.uids("candidate") & kinds(run)[ORDINARY]
    order = np.array(sorted(ordinary, key=lambda uid: (values[uid], uid)))
    return run.memorization(np.array_split(order, 4)[k].tolist())


class Memorized(Finding):
    name = "memorized"
    title = "Which pairs are memorized"
    claim = "Mismatched and vague captions and distorted images are memorized more than ordinary pairs."
    published = "Shown as images; no number was published."
    limits = (
        "The flaws are added on purpose. Vague captions name the class of a pair, so many pairs share them. Rare words "
        "and pixel distance are proxies for what people would call imprecise and atypical."
    )
    negligible = 0.05
    claims = 4

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"flaws": flawed(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Each kind of flaw minus ordinary pairs; the smallest of these decides, unless each has a verdict by plan."""
        means, planned = self._means(context, results), context.scale.crossed
        plain = means.pop(ORDINARY)
        name = "CLIPMem of flawed pairs minus that of ordinary pairs: the smallest difference"
        single = [
            results.effect(f"CLIPMem of {kind} minus that of ordinary pairs", values, plain, ABOVE, primary=planned)
            for kind, values in means.items()
        ]
        pairs = [(values, plain) for values in means.values()]
        smallest = [results.weakest(name, pairs, ABOVE, primary=True)] if pairs and not planned else []
        return [*smallest, *single, *self._correlations(context, results)]

    def _means(self, context: Context, results: Results) -> dict[str, list[float]]:
        """Return the mean CLIPMem of each kind by seed, for kinds that every split has in both roles."""
        means = [by_kind(run) for run in results.each(flawed(context))]
        return {
            kind: [value for of_run in means for value in of_run[kind]]
            for kind in means[0]
            if all(kind in of_run for of_run in means)
        }

    def _correlations(self, context: Context, results: Results) -> list[Effect]:
        runs, effects = results.each(flawed(context)), list[Effect]()
        for name in PROXIES:
            measure = f"rank correlation of CLIPMem with {name}, among ordinary pairs"
            correlations = results.by_seed(flawed(context), partial(_correlations, proxy=name))
            effect = results.effect(measure, correlations, None, ABOVE)
            if len(runs) == 1:  # several splits differ in their pairs, so that the seeds' interval covers these
                scores, values = _ordinary(runs[0], name)
                over_pairs = spearman(scores.mean(axis=0), values, results.level())
                effect = widened(effect, over_pairs.low, over_pairs.high)
            effects.append(effect)
        return effects

    def panels(self, context: Context, results: Results) -> list[Panel]:
        means = self._means(context, results)
        flaws = results.series("", range(len(means)), list(means.values()))
        curves = []
        for name in PROXIES:
            quarters = [results.by_seed(flawed(context), partial(of_quarter, proxy=name, k=k)) for k in range(4)]
            curves.append(results.series(name, range(4), quarters))
        ticks = ["lowest", "2nd", "3rd", "highest"]
        return [
            Panel("added flaws", "", "CLIPMem", [flaws], ticks=list(means), joined=False),
            Panel("ordinary pairs", "quarter of the candidates", "CLIPMem", curves, ticks=ticks),
        ]
