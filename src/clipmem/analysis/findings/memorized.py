"""Finding 2: wrong or rare captions and atypical images are memorized most, clear images with usual captions least.

"Vague" and "atypical" are human judgments. Two proxies replace them: the rarity of a caption's words in the data, and
the distance of an image's pixels from those of its nearest images. The first is poor where rare words are precise.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np
from jaxtyping import Float64

from clipmem.analysis.effects import ABOVE, FINDINGS, Context, Effect, Finding, Panel, Results, widened
from clipmem.analysis.findings.planted import exchanged
from clipmem.analysis.run_specs import RunSpec
from clipmem.analysis.runs import FinishedRun
from clipmem.functional.ranking import auroc, spearman

_NEAR = 10  # neighbors over which the distance is averaged


def rarity(captions: list[str]) -> Float64[np.ndarray, "n"]:
    """Return the rarity of each caption's words: the mean of -log(share of captions with the word)."""
    words = [set(caption.casefold().split()) for caption in captions]
    count = Counter(word for own in words for word in own)
    return np.array([np.mean([-np.log(count[word] / len(words)) for word in own]) if own else 0.0 for own in words])


def atypicality(pixels: Float64[np.ndarray, "n size"], near: int = _NEAR) -> Float64[np.ndarray, "n"]:
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


def _by_seed(run: FinishedRun, uids: list[str]) -> list[np.ndarray]:
    return [np.array([own[uid] for uid in uids]) for own in map(run.scores, run.seeds)]


@FINDINGS.register("memorized")
class Memorized(Finding):
    """Which pairs are memorized most."""

    title = "Which pairs are memorized"
    claim = "Wrong, vague or imprecise captions and atypical images are memorized most; clear and precise pairs least."
    published = "Shown as images; no number was published."
    limits = "Rare words and pixel distance are proxies for what people would call vague and atypical."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"exchanged": exchanged(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """AUROC of wrong captions minus 0.5; rank correlations with both proxies among the other candidates."""
        run, level = results[exchanged(context)], results.level(primary=True)
        candidates = sorted(run.uids("candidate"))
        wrong = np.array([uid in run.planted for uid in candidates])
        seeds = _by_seed(run, candidates)
        found = [auroc(scores, wrong).mean - 0.5 for scores in seeds]
        effect = results.effect("AUROC of wrong captions by CLIPMem, minus 0.5", found, None, ABOVE, primary=True)
        # there are few wrong captions
        pairs = auroc(np.mean(seeds, axis=0), wrong, level)
        low, high = (None if end is None else end - 0.5 for end in (pairs.low, pairs.high))
        return [widened(effect, low, high), *self._correlations(run, results)]

    def _correlations(self, run: FinishedRun, results: Results) -> list[Effect]:
        right = sorted(run.uids("candidate") - run.planted)
        seeds, effects = _by_seed(run, right), list[Effect]()
        for name, judged in _judged(run).items():
            values = np.array([judged[uid] for uid in right])
            found = [spearman(scores, values).spearman or 0.0 for scores in seeds]
            measure = f"rank correlation of CLIPMem with {name}, among right captions"
            pairs = spearman(np.mean(seeds, axis=0), values, results.level())
            effects.append(widened(results.effect(measure, found, None, ABOVE), pairs.low, pairs.high))
        return effects

    def panels(self, context: Context, results: Results) -> list[Panel]:
        run = results[exchanged(context)]
        right = sorted(run.uids("candidate") - run.planted)
        series: list[tuple[str, list[list[float]]]] = []
        for name, judged in _judged(run).items():
            order = sorted(right, key=lambda uid, judged=judged: (judged[uid], uid))
            quarters = [set(part.tolist()) for part in np.array_split(np.array(order), 4)]
            series.append((name, [run.memorization(uids) for uids in quarters]))
        drawn = [results.series(name, range(4), values) for name, values in series]
        ticks = ["lowest", "2nd", "3rd", "highest"]
        return [Panel("here", "quarter of the candidates", "CLIPMem", drawn, ticks=ticks)]
