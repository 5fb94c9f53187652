"""Finding 2: who is memorized most: wrong and rare captions, atypical pictures; least: clear ones with usual captions.

"Vague" and "atypical" are judgements of people. Two stand-ins are measured that need nobody: how rare a caption's words
are among the captions of the data, and how far a picture's pixels are from those of its nearest pictures. They are poor
stand-ins where rare words are precise ones.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np
from jaxtyping import Float64

from clipmem.data.cache import open_cache
from clipmem.functional.ranking import auroc, spearman
from clipmem.report.compare.run import ComparedRun
from clipmem.study.plan import CACHE
from clipmem.study.reproduce.finding import ABOVE, FINDINGS, Context, Effect, Finding, Panel, Results
from clipmem.study.reproduce.findings.planted import exchanged
from clipmem.study.reproduce.wanted import Wanted

_NEAR = 10  # neighbours that say how usual a picture is
_SIDE = 16  # pixels of a picture's side when pictures are compared


def rarity(captions: list[str]) -> Float64[np.ndarray, "n"]:
    """Return how rare the words of each caption are: the mean of -log(share of captions that have the word).

    Example:
        >>> rarity(["red heart", "red dog", "red"]).round(3).tolist()
        [0.549, 0.549, 0.0]
    """
    words = [set(caption.casefold().split()) for caption in captions]
    count = Counter(word for own in words for word in own)
    return np.array([np.mean([-np.log(count[word] / len(words)) for word in own]) if own else 0.0 for own in words])


def atypicality(pixels: Float64[np.ndarray, "n size"], near: int = _NEAR) -> Float64[np.ndarray, "n"]:
    """Return the mean Euclidean distance of each picture to its `near` nearest others, in float64.

    Example:
        >>> atypicality(np.array([[0.0], [1.0], [5.0]]), near=1).tolist()
        [1.0, 1.0, 4.0]
    """
    square = (pixels**2).sum(axis=1)
    found: list[float] = []
    for row, own in zip(pixels, square, strict=True):
        distance = np.sqrt(np.maximum(square + own - 2 * pixels @ row, 0))
        found.append(float(np.sort(distance)[1 : near + 1].mean()))  # the first is the picture itself
    return np.array(found)


def _small(run: ComparedRun) -> Float64[np.ndarray, "n size"]:
    cache_of = open_cache(run.folder.path / CACHE)
    rows = {uid: k for k, uid in enumerate(run.folder.read("pairs")["uid"])}
    pictures = cache_of[[rows[uid] for uid in run.splits["uid"]]].astype(np.float64) / 255
    step = max(1, pictures.shape[1] // _SIDE)
    whole = pictures[:, : step * _SIDE, : step * _SIDE]
    small = whole.reshape(len(whole), -1, step, whole.shape[2] // step, step, 3).mean(axis=(2, 4))
    return small.reshape(len(small), -1)


@cache
def _judged(run: ComparedRun) -> dict[str, dict[str, float]]:
    """Return rarity and atypicality of each pair of a run, by uid."""
    captions = dict(run.folder.read("pairs").select("uid", "captions").iter_rows())
    first = [captions[uid][0] for uid in run.splits["captions_from"]]
    uids = run.splits["uid"].to_list()
    return {
        "rare words": dict(zip(uids, rarity(first).tolist(), strict=True)),
        "atypical picture": dict(zip(uids, atypicality(_small(run)).tolist(), strict=True)),
    }


def _by_seed(run: ComparedRun, uids: list[str]) -> list[np.ndarray]:
    found = list[np.ndarray]()
    for seed in run.seeds:
        rows = run.seed_scores.filter(run.seed_scores["seed"] == seed)
        own = dict(zip(rows["uid"], (rows["f"] - rows["g"]).to_list(), strict=True))
        found.append(np.array([own[uid] for uid in uids]))
    return found


@FINDINGS.register("memorized")
class Memorized(Finding):
    """Who is memorized most."""

    title = "Which pairs are memorized"
    claim = (
        "Wrong, vague or imprecise captions and atypical pictures are memorized most; clear and precise pairs least."
    )
    published = "Shown as pictures; no number was published."
    limits = "Rare words and distance of pixels stand in for what people would call vague and atypical."

    def runs(self, context: Context) -> Mapping[str, Wanted]:
        """The study with exchanged captions."""
        return {"exchanged": exchanged(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """AUROC of wrong captions less 0.5; rank correlations with both stand-ins among the other candidates.

        Their intervals contain that over seeds and that over pairs.
        """
        run = results[exchanged(context)]
        candidates = sorted(run.uids("candidate"))
        wrong = np.array([uid in run.planted for uid in candidates])
        seeds = _by_seed(run, candidates)
        found = [auroc(scores, wrong, results.confidence).mean - 0.5 for scores in seeds]
        effect = results.effect("AUROC of wrong captions by CLIPMem, less 0.5", found, None, ABOVE, "above 0")
        # the wrong captions are few
        pairs = auroc(np.mean(seeds, axis=0), wrong, results.confidence)
        low, high = (None if end is None else end - 0.5 for end in (pairs.low, pairs.high))
        effects = [results.widened(effect, low, high, ABOVE)]
        return effects + self._correlations(run, results)

    def _correlations(self, run: ComparedRun, results: Results) -> list[Effect]:
        right = sorted(run.uids("candidate") - run.planted)
        seeds, effects = _by_seed(run, right), list[Effect]()
        for name, judged in _judged(run).items():
            values = np.array([judged[uid] for uid in right])
            found = [spearman(scores, values).spearman or 0.0 for scores in seeds]
            said = f"rank correlation of CLIPMem with {name}, among right captions"
            effect = results.effect(said, found, None, ABOVE, "above 0")
            pairs = spearman(np.mean(seeds, axis=0), values, results.confidence)
            effects.append(results.widened(effect, pairs.low, pairs.high, ABOVE))
        return effects

    def panels(self, context: Context, results: Results) -> list[Panel]:
        """CLIPMem of each quarter of the candidates by both stand-ins."""
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
