"""Finding 7: Gaussian noise on text embeddings lowers memorization and raises utility, best at 0.15.

Whether the published noise came before or after normalisation is not known, so all three kinds are swept. In d
dimensions noise of standard deviation 0.15 has length 0.15 sqrt(d): 1.7 in 128 dimensions and
3.4 in 512, on a unit vector.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from clipmem.base.random import bootstrap_counts, generator
from clipmem.functional.verdict import Claim, verdict
from clipmem.study.reproduce.finding import FINDINGS, Context, Effect, Finding, Panel, Results, mitigated
from clipmem.study.reproduce.findings.captions import sweep_panels
from clipmem.study.reproduce.findings.distributions import BASE
from clipmem.study.reproduce.scales import NOISE_LEVELS
from clipmem.study.reproduce.wanted import Wanted

PLACES = ("pre", "post", "post-scaled")
BEST = 0.15
# COCO, read off a figure: ±0.0005
PUBLISHED = {
    "CLIPMem, normalised": (0.438, 0.435, 0.428, 0.421, 0.417, 0.422, 0.436, 0.447),
    "linear probe, ImageNet": (0.6311, 0.6336, 0.640, 0.6495, 0.6535, 0.648, 0.633, 0.615),
}
_DRAWS = 2000


def noisy(place: str, std: float, *, tower: str = "text") -> Wanted:
    """Return the base study with noise on one tower's embeddings; std = 0 is the base study itself."""
    if std == 0:
        return BASE
    section = f"mitigate.{tower}_noise"
    return Wanted((f"{section}.std={std}", f"{section}.place={place}"))


def optimum(
    levels: tuple[float, ...], values: np.ndarray, confidence: float, *, seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Find the level with the least mean over seeds, and the percentile interval of its place over resampled seeds.

    Args:
        levels: The levels.
        values: One row a level, one column a seed.
        confidence: Level of the interval.
        seed: Seed of the bootstrap.

    Returns:
        The level, and the ends of the interval; None with one seed.

    Example:
        >>> optimum((0.0, 0.1, 0.2), np.array([[1.0, 1.0], [0.5, 0.25], [2.0, 2.0]]), 0.95)
        (0.1, 0.1, 0.1)
    """
    best = levels[int(values.mean(axis=1).argmin())]
    seeds = values.shape[1]
    if seeds < 2:
        return best, None, None
    counts = bootstrap_counts(generator(seed, "optimum"), _DRAWS, seeds)
    places = np.array(levels)[(values @ counts.T).argmin(axis=0)]
    low, high = np.quantile(places, [(1 - confidence) / 2, (1 + confidence) / 2])
    return best, float(low), float(high)


@FINDINGS.register("text-noise")
class TextNoise(Finding):
    """Noise on text embeddings."""

    title = "Noise on text embeddings"
    claim = "There is a sweet spot at 0.15: less memorization and better utility than without noise."
    published = (
        "std 0 .01 .05 .10 .15 .20 .25 .30: CLIPMem .438 .435 .428 .421 .417 .422 .436 .447, "
        "probe .6311 .6336 .640 .6495 .6535 .648 .633 .615 (±0.0005)."
    )
    limits = (
        "The finding holds if one kind of noise bears out all of its own claims, and fails if none can: the published "
        "kind is not known. Rings are the best level of each curve; how sure the one of CLIPMem is stands below."
    )

    def runs(self, context: Context) -> Mapping[str, Wanted]:
        """Every level of every kind, and noise on image embeddings as the control."""
        scale = context.scale
        text = {f"{place} {std}": noisy(place, std) for place in PLACES for std in scale.noise}
        return text | {f"image, post {std}": noisy("post", std, tower="image") for std in scale.images}

    def _of_place(self, context: Context, results: Results, place: str) -> list[Effect]:
        size = 1 - PUBLISHED["CLIPMem, normalised"][NOISE_LEVELS.index(BEST)] / PUBLISHED["CLIPMem, normalised"][0]
        found = mitigated(results, BASE, noisy(place, BEST), f"{place} {BEST}", size=size)
        levels = context.scale.noise
        values = np.array([results.memorization(noisy(place, std)) for std in levels])
        best, low, high = optimum(levels, values, results.confidence)
        # published: the curve falls up to 0.15 and rises after it, so that the best level is neither end of the sweep
        ends = (None, None) if low is None or high is None else (low - BEST, high - BEST)
        answer = verdict(*ends, Claim("zero", 0.1 + 1e-9))
        said = "within 0.05 to 0.25"
        found.append(Effect(f"{place}: std with least CLIPMem", best, low, high, answer, said, values.shape[1]))
        return [replace(one, part=place) for one in found]

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Each kind at 0.15 and its optimum; image noise beside it."""
        found = [one for place in PLACES for one in self._of_place(context, results, place)]
        for std in context.scale.images:
            control = noisy("post", std, tower="image")
            found += mitigated(results, BASE, control, f"image, post {std}", counts=False)[:2]
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        """Memorization and utility over the noise, a curve a kind."""
        levels = context.scale.noise
        runs = {place: [noisy(place, std) for std in levels] for place in PLACES}
        panels = sweep_panels(results, "std of the noise", levels, runs, PUBLISHED, NOISE_LEVELS)
        return [replace(one, optimum="lowest" if "CLIPMem" in one.ylabel else "highest") for one in panels]
