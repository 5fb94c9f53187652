"""Finding 2: who is memorized most: wrong and rare captions, atypical images; least: clear ones with usual captions.

"Vague" and "atypical" are judgments of people. Two stand-ins are measured that need nobody: how rare a caption's words
are among the captions of the data, and how far an image's pixels are from those of its nearest images. They are poor
stand-ins where rare words are precise ones.
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

_NEAR = 10  # neighbors that say how usual an image is


def rarity(captions: list[str]) -> Float64[np.ndarray, "n"]:
    """Return how rare the words of each caption are: the mean of -log(share of captions that have the word)."""
    words = [set(caption.casefold().split()) for caption in captions]
    count = Counter(word for own in words for word in own)
    return np.array([np.mean([-np.log(count[word] / len(words)) for word in own]) if own else 0.0 for own in words])


def atypicality(pixels: Float64[np.ndarray, "n size"], near: int = _NEAR) -> Float64[np.ndarray, "n"]:
    """Return the mean Euclidean distance of each image to its `near` nearest others, in float64."""
    square = (pixels**2).sum(axis=1)
    found: list[float] = []
    for row, own in zip(pixels, square, strict=True):
        distance = np.sqrt(np.maximum(square + own - 2 * pixels @ row, 0))
        found.append(float(np.sort(distance)[1 : near + 1].mean()))  # the first is the image itself
    return np.array(found)


@cache
def _judged(run: FinishedRun) -> dict[str, dict[str, float]]:
    """Return rarity and atypicality of each pair of a run, by uid."""
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
    """Who is memorized most."""

    title = "Which pairs are memorized"
    claim = "Wrong, vague or imprecise captions and atypical images are memorized most; clear and precise pairs least."
    published = "Shown as images; no number was published."
    limits = "Rare words and distance of pixels stand in for what people would call vague and atypical."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"exchanged": exchanged(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """AUROC of wrong captions minus 0.5; rank correlations with both stand-ins among the other candidates."""
        run, level = results[exchanged(context)], results.level(primary=True)
        candidates = sorted(run.uids("candidate"))
        wrong = np.array([uid in run.planted for uid in candidates])
        seeds = _by_seed(run, candidates)
        found = [auroc(scores, wrong).mean - 0.5 for scores in seeds]
        effect = results.effect("AUROC of wrong captions by CLIPMem, minus 0.5", found, None, ABOVE, primary=True)
        # the wrong captions are few
        pairs = auroc(np.mean(seeds, axis=0), wrong, level)
        low, high = (None if end is None else end - 0.5 for end in (pairs.low, pairs.high))
        return [widened(effect, low, high), *self._correlations(run, results)]

    def _correlations(self, run: FinishedRun, results: Results) -> list[Effect]:
        right = sorted(run.uids("candidate") - run.planted)
        seeds, effects = _by_seed(run, right), list[Effect]()
        for name, judged in _judged(run).items():
            values = np.array([judged[uid] for uid in right])
            found = [spearman(scores, values).spearman or 0.0 for scores in seeds]
            said = f"rank correlation of CLIPMem with {name}, among right captions"
            pairs = spearman(np.mean(seeds, axis=0), values, results.level())
            effects.append(widened(results.effect(said, found, None, ABOVE), pairs.low, pairs.high))
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
