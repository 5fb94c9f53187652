"""Finding 2: wrong or vague captions and distorted images are memorized most, clear images with precise captions least.

Flaws are planted: exchanged captions, captions that name a pair's class only, and images turned or cropped to a corner.
Among the other pairs, two proxies are correlated with CLIPMem: the rarity of a caption's words, and the distance of an
image's pixels from those of its nearest images. The first is poor where rare words are precise.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np
from jaxtyping import Float64

from clipmem.report.effects import ABOVE, FINDINGS, Context, Effect, Finding, Panel, Results, widened
from clipmem.report.run_specs import RunSpec
from clipmem.report.runs import FinishedRun
from clipmem.stats.ranking import spearman

FLAWS = {"vague": "vague captions", "distorted": "distorted images"}
WRONG, ORDINARY = "exchanged captions", "ordinary pairs"
_NEAR = 10  # neighbors over which the distance is averaged
_LEAST = 2  # pairs of a kind in each role


def flawed(context: Context) -> RunSpec:
    """Return the base study with planted flaws."""
    return RunSpec(context.scale.flaws)


def rarity(captions: list[str]) -> Float64[np.ndarray, " n"]:
    """Return the rarity of each caption's words: the mean of -log(share of captions with the word)."""
    words = [set(caption.casefold().split()) for caption in captions]
    count = Counter(word for own in words for word in own)
    return np.array([np.mean([-np.log(count[word] / len(words)) for word in own]) if own else 0.0 for own in words])


def atypicality(pixels: Float64[np.ndarray, "n size"], near: int = _NEAR) -> Float64[np.ndarray, " n"]:
    """Return the mean Euclidean distance of each image to its `near` nearest neighbors, float64."""
    square = (pixels**2).sum(axis=1)
    found: list[float] = []
    for row, own in zip(pixels, square, strict=True):
        distance = np.sqrt(np.maximum(square + own - 2 * pixels @ row, 0))
        found.append(float(np.sort(distance)[1 : near + 1].mean()))  # the first is the image itself
    return np.array(found)


@cache
def _judged(run: FinishedRun) -> dict[str, dict[str, float]]:
    captions = dict(run.table("pairs").select("uid", "captions").iter_rows())
    pixels = run.table("small_images")
    first = [captions[uid][0] for uid in run.splits["captions_from"]]
    far = atypicality(np.array(pixels["pixels"].to_list(), dtype=np.float64))
    return {
        "rare words": dict(zip(run.splits["uid"], rarity(first).tolist(), strict=True)),
        "atypical image": dict(zip(pixels["uid"], far.tolist(), strict=True)),
    }


@cache
def kinds(run: FinishedRun) -> dict[str, set[str]]:
    """Return the pairs of each kind; an exchanged caption counts before another flaw, own or given."""
    flaw = {
        uid: next((words for name, words in FLAWS.items() if key.endswith(f"({name})")), ORDINARY)
        for uid, key in run.table("pairs").select("uid", "key").iter_rows()
    }
    found: dict[str, set[str]] = {kind: set() for kind in (WRONG, *FLAWS.values(), ORDINARY)}
    for uid in run.splits["uid"]:
        found[WRONG if uid in run.planted else flaw[uid]].add(uid)
    return found


def by_kind(run: FinishedRun) -> dict[str, list[float]]:
    """Return the mean CLIPMem of each kind by seed (half-difference), for kinds with pairs in both roles."""
    candidates, independent = run.uids("candidate"), run.uids("independent")
    sets = {kind: (own & candidates, own & independent) for kind, own in kinds(run).items()}
    return {kind: run.halved(*own) for kind, own in sets.items() if min(map(len, own)) >= _LEAST}


@FINDINGS.register("memorized")
class Memorized(Finding):
    """Which pairs are memorized most."""

    title = "Which pairs are memorized"
    claim = "Wrong and vague captions and distorted images are memorized more than ordinary pairs."
    published = "Shown as images; no number was published."
    limits = (
        "The flaws are planted. Vague captions name the class of a pair, so many pairs share them. Rare words and "
        "pixel distance are proxies for what people would call imprecise and atypical."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"flaws": flawed(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Each kind of flaw minus ordinary pairs; the primary effect is the smallest of these."""
        run = results[flawed(context)]
        means = by_kind(run)
        plain = means.pop(ORDINARY)
        single = [
            results.effect(f"CLIPMem of {kind} minus that of ordinary pairs", own, plain, ABOVE)
            for kind, own in means.items()
        ]
        pairs, name = [(own, plain) for own in means.values()], "CLIPMem of flawed pairs minus that of ordinary pairs"
        smallest = [results.weakest(f"{name}: the smallest difference", pairs, ABOVE, primary=True)] if pairs else []
        return [*smallest, *single, *self._correlations(run, results)]

    def _correlations(self, run: FinishedRun, results: Results) -> list[Effect]:
        right = sorted(run.uids("candidate") & kinds(run)[ORDINARY])
        seeds, effects = [np.array([own[uid] for uid in right]) for own in map(run.scores, run.seeds)], list[Effect]()
        for name, judged in _judged(run).items():
            values = np.array([judged[uid] for uid in right])
            found = [spearman(scores, values).spearman or 0.0 for scores in seeds]
            measure = f"rank correlation of CLIPMem with {name}, among ordinary pairs"
            pairs = spearman(np.mean(seeds, axis=0), values, results.level())
            effects.append(widened(results.effect(measure, found, None, ABOVE), pairs.low, pairs.high))
        return effects

    def panels(self, context: Context, results: Results) -> list[Panel]:
        run = results[flawed(context)]
        means = by_kind(run)
        drawn = results.series("", range(len(means)), list(means.values()))
        panels = [Panel("planted flaws", "", "CLIPMem", [drawn], ticks=list(means), joined=False)]
        right = sorted(run.uids("candidate") & kinds(run)[ORDINARY])
        series: list[tuple[str, list[list[float]]]] = []
        for name, judged in _judged(run).items():
            order = sorted(right, key=lambda uid, judged=judged: (judged[uid], uid))
            quarters = [set(part.tolist()) for part in np.array_split(np.array(order), 4)]
            series.append((name, [run.memorization(uids) for uids in quarters]))
        curves = [results.series(name, range(4), values) for name, values in series]
        ticks = ["lowest", "2nd", "3rd", "highest"]
        return [*panels, Panel("ordinary pairs", "quarter of the candidates", "CLIPMem", curves, ticks=ticks)]
