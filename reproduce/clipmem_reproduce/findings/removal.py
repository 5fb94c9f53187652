"""Finding 8: removing the most memorized pairs first improves utility, then lowers it; CLIPMem chooses best.

A planned reproduction has one share of swapped captions, and one share of removed candidates decides. Beside them it
repeats a trial in which CLIPMem chose well, changes the trial by factors, and follows both scores over the length of
training: where A(f) is the same for all pairs, A(f) - A(g) ranks them as -A(g) does. On data with errors that people
made no caption is swapped, and more than one share is removed.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from clipmem.functional import spearman
from clipmem_reproduce.effects import ABOVE, BELOW, Effect, Panel, Results, Series
from clipmem_reproduce.finding import Context, Finding, label
from clipmem_reproduce.findings.planted import above_chance, scored
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.spec import RunSpec, Settings

WAYS = {
    "random": "random",
    "similarity": "CLIP similarity",
    "g-alignment": "low A(g)",
    "clipmem": "CLIPMem",
    "planted": "the oracle",
}
UNSCORED = ("random", "planted")
_RIVALS = ("random", "similarity", "g-alignment")
PRIMARY = 0.2  # share of mismatched captions on which the verdict is based, set before any run
MAIN, EQUAL, TRIAL = "main design", "equal steps", "trial"
COUNT = "mitigate.remove.count"
# shares of the seeds: of runs that decide nothing, of the trial and its factors, of each length
SOME, OF_TRIAL, OF_LENGTH = 1 / 2, 1 / 3, 1 / 4
SCORES = ("clipmem", "g-alignment")
# read off figures, ±0.0005
PUBLISHED_N = (0, 50, 100, 200, 400, 800, 1600, 3200)
PUBLISHED = {
    "COCO": {
        "random": (0.6311, 0.632, 0.6314, 0.6312, 0.630, 0.6285, 0.6263, 0.624),
        "similarity": (0.6311, 0.6475, 0.6545, 0.6475, 0.6325, 0.6256, 0.6210, 0.613),
        "clipmem": (0.6311, 0.650, 0.6645, 0.6457, 0.632, 0.6251, 0.6202, 0.6106),
    },
    "CC3M": {
        "random": (0.6609, 0.6611, 0.6605, 0.6612, 0.660, 0.6587, 0.6557, 0.651),
        "similarity": (0.6609, 0.6677, 0.6705, 0.6716, 0.6705, 0.6656, 0.659, 0.649),
        "clipmem": (0.6609, 0.669, 0.6765, 0.676, 0.671, 0.666, 0.659, 0.648),
    },
}


def parent(context: Context, noise: float, share: float = 0.0) -> RunSpec:
    """Return the study before removal, with a share of mismatched captions among all pairs that a model trains on.

    Runs on which the verdict rests have all seeds: those at no removal, at the peak and at the most.
    """
    spec = RunSpec({"split.planted_share": noise} if noise else {}, context.scale.removal)
    decisive = noise == PRIMARY and share in {0, peak_of(context, noise), context.scale.removed[noise][-1]}
    return spec if decisive else context.fewer(spec)


def without(context: Context, noise: float, share: float, way: str, *, steps: bool = False) -> RunSpec:
    """Return the study after removing a share of the candidates; with `steps`, trained for as many steps as before."""
    whole = parent(context, noise, share)
    base = RunSpec(study=context.scale.removal).recipe(context.base)
    count = round(share * base.split.candidate)
    if count == 0:
        return whole
    return _trained_again(context, whole, count, way, steps=steps)


def _trained_again(context: Context, whole: RunSpec, count: int, way: str, *, steps: bool = False) -> RunSpec:
    settings = {COUNT: count, "mitigate.remove.by": way, "mitigate.remove.role": "candidate"}
    if steps:
        base = whole.recipe(context.base)
        trained = base.split.shared + base.split.candidate
        settings["train.epochs"] = round(base.train.epochs * trained / (trained - count))
    run = whole.with_settings(settings, {"protocol": "f-only"})
    return run if way in UNSCORED else RunSpec(run.settings, run.study, parent=whole)


def design(context: Context, way: str = "", changes: Settings | None = None, *, steps: bool = False) -> RunSpec:
    """Return the planned study, with some changes: before removal, or after removal by a way.

    The share of pairs that decides goes, unless the changes say another number.
    """
    noise, (share, *_) = planned_removal(context)
    settings: dict[str, Any] = {**({"split.planted_share": noise} if noise else {}), **(changes or {})}
    count = settings.pop(COUNT, None)
    whole = RunSpec(settings, context.scale.removal)
    count = count or round(share * whole.recipe(context.base).split.candidate)
    return _trained_again(context, whole, count, way, steps=steps) if way else whole


def at_share(share: float) -> str:
    """Return the name of the main design with another share removed."""
    return f"{share:.0%} of the candidates"


def planned_removal(context: Context) -> tuple[float, tuple[float, ...]]:
    """Return the share of swapped captions of a planned reproduction, and the shares removed; the first decides."""
    [planned] = context.scale.removed.items()
    return planned


def designs(context: Context) -> dict[str, dict[str, RunSpec]]:
    """Return the planned runs of each design by way; "" is nothing removed.

    These are the main design, other shares of it, equal steps, the trial and its factors, and each length.
    """
    scale, times = context.scale, context.scale.more_seeds.get("removal", 1.0)
    noise, (_, *others) = planned_removal(context)
    shares = {"": times, "random": 1, "g-alignment": SOME, "clipmem": times}
    shares |= {"planted": SOME} if noise else {"similarity": SOME}  # no one knows which errors people made
    runs = {MAIN: {way: context.with_seeds(design(context, way), share) for way, share in shares.items()}}
    for share in others:
        count = {COUNT: round(share * design(context).recipe(context.base).split.candidate)}
        ways = ("", "random", "clipmem")
        runs[at_share(share)] = {way: context.with_seeds(design(context, way, count), SOME) for way in ways}
    runs[EQUAL] = {"clipmem": context.with_seeds(design(context, "clipmem", steps=True), SOME)}
    for factors, changes in factorial(scale.removal_trial).items():
        name = cell(scale.removal_trial, factors)
        ways = ("", "similarity", "g-alignment", "clipmem") if name == TRIAL else ("", "clipmem")
        runs[name] = {way: context.with_seeds(design(context, way, changes), OF_TRIAL) for way in ways}
    for epochs in scale.removal_lengths:
        changes = {**scale.removal_curve, "train.epochs": epochs}
        ways = ("", *SCORES)
        runs[f"{epochs} epochs"] = {way: context.with_seeds(design(context, way, changes), OF_LENGTH) for way in ways}
    return runs


def factorial(trial: Mapping[str, Settings]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the half of a factorial with an even number of factors at the trial's level: these → their settings.

    Each factor has both levels equally often with each level of every other one. Of four factors main effects are
    aliased with interactions of three (resolution IV). Without factors it is empty.
    """
    counts = range(0, len(trial) + 1, 2) if trial else ()
    cells = [factors for count in counts for factors in combinations(trial, count)]
    return {factors: {key: value for name in factors for key, value in trial[name].items()} for factors in cells}


def cell(trial: Mapping[str, Settings], factors: tuple[str, ...]) -> str:
    """Return the name of a cell of the factorial: the factors at the trial's level; `trial` for all of them."""
    return TRIAL if len(factors) == len(trial) else f"{TRIAL}: {' + '.join(factors) or 'none'}"


def rank_correlation(run: Measured) -> list[float]:
    """Return Spearman's correlation of CLIPMem with -A(g) over the candidates under each seed.

    CLIPMem contains -A(g): the correlation is about 0.7, not 0, if A(f) and A(g) are unrelated and spread equally. It
    is 0 where all candidates tie.
    """
    by_seed = zip(*(scored(run, by)[0] for by in SCORES), strict=True)
    return [spearman(*scores).spearman or 0.0 for scores in by_seed]


def spread(run: Measured) -> list[float]:
    """Return the standard deviation of A(f) over the candidates, in units of that of A(g), under each seed."""
    by_f, by_g = (scored(run, by)[0].std(axis=1) for by in ("f-alignment", "g-alignment"))
    return (by_f / by_g).tolist()


def gain(results: Results, runs: Mapping[str, RunSpec], way: str, metric: str) -> list[float]:
    """Return the change of a metric by removal by seed, as a share of its mean with nothing removed."""
    after, before = results.values(runs[way], metric), results.values(runs[""], metric)
    return [float(a - b) / float(np.mean(before)) for a, b in zip(after, before, strict=False)]


def ways_of(noise: float) -> list[str]:
    """Return the ways of choosing pairs; without mismatched captions there are no known ones."""
    return [way for way in WAYS if noise or way != "planted"]


def peak_of(context: Context, noise: float) -> float:
    """Return the share at which as many pairs go as are mismatched: the place of the claimed peak."""
    return min(context.scale.removed[noise], key=lambda share: (abs(share - (noise or 0.02)), share))


class Removal(Finding):
    name = "removal"
    title = "Removing memorized pairs"
    claim = (
        "Utility over the number of removed pairs is an inverted U: mismatched captions go first, then useful atypical "
        "pairs; and CLIPMem chooses better than chance."
    )
    published = (
        "COCO probe, 0.6311 with nothing removed; at 100 and 3,200 removed: by CLIPMem 0.6645 and 0.6106, by "
        "similarity 0.6545 and 0.613, at random 0.6314 and 0.624 (±0.0005)."
    )
    negligible = 0.05
    limits = (
        f"The verdict is based on {PRIMARY:.0%} swapped captions among all training pairs. As many pairs are removed "
        "as are swapped among the candidates, and every method chooses among the candidates. Training makes the same "
        "number of passes over the rest; equal steps are shown too. Where people made the errors, none is swapped."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        if context.scale.crossed:
            return {
                f"{name}, {f'removed by {WAYS[way]}' if way else 'nothing removed'}": run
                for name, runs in designs(context).items()
                for way, run in runs.items()
            }
        specs = {f"{noise:.0%} wrong": parent(context, noise) for noise in context.scale.removed}
        for noise, shares in context.scale.removed.items():
            for way in ways_of(noise):
                for share in shares:
                    name = f"{noise:.0%} wrong, {share:.0%} removed by {WAYS[way]}"
                    specs[name] = without(context, noise, share, way)
                if noise == PRIMARY:
                    share = peak_of(context, noise)
                    name = f"{noise:.0%} wrong, {share:.0%} removed by {WAYS[way]}, equal steps"
                    specs[name] = without(context, noise, share, way, steps=True)
        return specs

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """At 20 % mismatched captions the peak against both ends and chance; then each difference at each peak."""
        if context.scale.crossed:
            return _planned_effects(context, results)
        effects, metric = list[Effect](), context.scale.utility
        for noise, shares in context.scale.removed.items():
            peak, whole, last = peak_of(context, noise), parent(context, noise), shares[-1]
            at = {way: without(context, noise, peak, way) for way in ways_of(noise)}
            where, best = f"{noise:.0%} swapped captions, {peak:.0%} removed", at["clipmem"]
            contrasts = [(f"{where} by {WAYS[way]} minus none", run, whole, ABOVE) for way, run in at.items()]
            contrasts += [(f"{where}: CLIPMem minus {WAYS[way]}", best, at[way], ABOVE) for way in _RIVALS]
            if last != peak:
                name = f"{noise:.0%} swapped captions, by CLIPMem: {last:.0%} removed minus {peak:.0%}"
                contrasts.append((name, without(context, noise, last, "clipmem"), best, BELOW))
            if noise == PRIMARY:
                steps = {way: without(context, noise, peak, way, steps=True) for way in at}
                contrasts += [
                    (f"{where}, equal steps: CLIPMem minus {WAYS[way]}", steps["clipmem"], steps[way], ABOVE)
                    for way in _RIVALS
                ]
                ends = {
                    "none": whole,
                    "most": without(context, noise, last, "clipmem"),
                    "random": at["random"],
                }
                effects += _against(results, metric, best, ends, where)
                effects += _shares(results, metric, at, whole, where)
            for name, run, other, claim in contrasts:
                effects += results.contrast(f"{name}: change of {label(metric)}", run, other, claim, metric)
        return sorted(effects, key=lambda effect: not effect.primary)

    def panels(self, context: Context, results: Results) -> list[Panel]:
        """A panel for each way of choosing, a curve for each share of swapped captions."""
        panels = _planned_panels(context, results) if context.scale.crossed else self._panels(context, results)
        published = [n / 5000 for n in PUBLISHED_N]
        for way in PUBLISHED["COCO"]:
            series = [Series(name, published, list(curves[way])) for name, curves in PUBLISHED.items()]
            axes = (f"published: {WAYS[way]}", "removed / candidates", "linear probe, ImageNet")
            panels.append(Panel(*axes, series, published=True))
        return panels

    def _panels(self, context: Context, results: Results) -> list[Panel]:
        panels, metric = list[Panel](), context.scale.utility
        for way in sorted(WAYS, key=lambda way: way not in PUBLISHED["COCO"]):
            series: list[Series] = []
            for noise, shares in context.scale.removed.items():
                if way in ways_of(noise):
                    x = (0.0, *shares)
                    values = [results.values(without(context, noise, share, way), metric) for share in x]
                    series.append(results.series(f"{noise:.0%} swapped captions", x, values))
            panels.append(Panel(f"removed: {WAYS[way]}", "share removed", label(metric), series))
        return panels


def _against(results: Results, metric: str, best: RunSpec, ends: Mapping[str, RunSpec], where: str) -> list[Effect]:
    """Return the primary effect: utility at the peak minus the best of the ends and of chance."""
    peak, others = results.values(best, metric), [results.values(run, metric) for run in ends.values()]
    if not peak or not all(others):
        return []
    name = f"{where} by CLIPMem minus the best of {', '.join(ends)}: {label(metric)}"
    return [results.weakest(name, [(peak, values) for values in others], ABOVE, primary=True)]


def _shares(results: Results, metric: str, at: Mapping[str, RunSpec], whole: RunSpec, where: str) -> list[Effect]:
    """Return each way's gain as a share of the gain from removing the known mismatched ones."""
    best, plain = results.values(at["planted"], metric), results.values(whole, metric)
    gain = float(np.mean(best) - np.mean(plain)) if best and plain else 0.0
    if gain <= 0:
        return []
    name, base = f"{where}: gain as a share of that from oracle removal, by", np.array(plain) / gain
    return [
        results.effect(
            f"{name} {WAYS[way]}", (np.array(results.values(run, metric)) / gain).tolist(), base.tolist(), ABOVE
        )
        for way, run in at.items()
        if way not in UNSCORED
    ]


def _planned_effects(context: Context, results: Results) -> list[Effect]:
    """CLIPMem against nothing removed and against chance; each way; the trial, its factors, and each length."""
    runs, metric = designs(context), context.scale.utility
    main, lengths = runs[MAIN], [f"{epochs} epochs" for epochs in context.scale.removal_lengths]
    noise, (_, *further) = planned_removal(context)
    effects = _both(context, results, main, metric)
    steps = {**runs[EQUAL], "": main[""]}
    others = [(at_share(share), runs[at_share(share)]) for share in further]
    for name, of_design in ((MAIN, main), *others, (EQUAL, steps), (TRIAL, runs.get(TRIAL, {}))):
        metrics = dict.fromkeys((metric, "retrieval_recall@5")) if name == TRIAL else (metric,)
        gains = {(way, of): gain(results, of_design, way, of) for way in of_design if way for of in metrics}
        for (way, of), values in gains.items():
            title = f"{name}, {{}}: relative change of {label(of)}"
            effects += _effect(results, title.format(f"removed by {WAYS[way]} minus none"), values)
            if way in _RIVALS and values and (best := gains["clipmem", of]):
                effects.append(results.effect(title.format(f"CLIPMem minus {WAYS[way]}"), best, values, ABOVE))
    for factor, (trial, usual) in main_effects(context, results).items():
        title = f"{TRIAL}, {factor}: gain by CLIPMem as in the trial minus as in the main design"
        effects.append(results.effect(title, trial, usual, ABOVE))
    for name in (MAIN, *lengths) if noise else ():
        for by in SCORES:
            area = results.by_seed(runs[name][""], lambda run, by=by: above_chance(run, by))
            effects += _effect(results, f"{name}: AUROC of swapped captions by {WAYS[by]}, minus 0.5", area)
            if name in lengths:
                values = gain(results, runs[name], by, metric)
                title = f"{name}, removed by {WAYS[by]} minus none: relative change of {label(metric)}"
                effects += _effect(results, title, values)
    if lengths:
        first, last = (_closeness(results, runs[name], metric) for name in (lengths[0], lengths[-1]))
        for title, claim in _CLOSENESS.items():
            if first[title] and last[title]:
                name = f"{title}: {lengths[-1]} minus {lengths[0]}"
                effects.append(results.effect(name, last[title], first[title], claim))
    return effects


_CLOSENESS = {
    "standard deviation of A(f) over that of A(g)": BELOW,
    "rank correlation of CLIPMem and -A(g)": ABOVE,
    "AUROC of swapped captions by low A(g) minus that by CLIPMem": BELOW,
    "gain of utility by low A(g) minus that by CLIPMem": BELOW,
}


def _closeness(results: Results, runs: Mapping[str, RunSpec], metric: str) -> dict[str, list[float]]:
    """Return by seed how near CLIPMem is to low A(g) in a study and its removals (`_CLOSENESS`)."""
    over_pairs = [results.by_seed(runs[""], measure) for measure in (spread, rank_correlation)]
    areas = [results.by_seed(runs[""], lambda run, by=by: above_chance(run, by)) for by in SCORES]
    gains = [gain(results, runs, by, metric) for by in SCORES]
    gaps = [np.subtract(low, memorized).tolist() for memorized, low in (areas, gains)]
    return dict(zip(_CLOSENESS, (*over_pairs, *gaps), strict=True))


def main_effects(context: Context, results: Results) -> dict[str, tuple[list[float], list[float]]]:
    """Return by factor the mean gain by CLIPMem over the cells with the trial's level and over the others, by seed."""
    trial, runs = context.scale.removal_trial, designs(context)
    cells = {
        factors: gain(results, runs[cell(trial, factors)], "clipmem", context.scale.utility)
        for factors in factorial(trial)
    }
    if not all(cells.values()):
        return {}
    effects: dict[str, tuple[list[float], list[float]]] = {}
    for factor in trial:
        high, low = ([cells[factors] for factors in cells if (factor in factors) == at] for at in (True, False))
        effects[factor] = np.mean(high, axis=0).tolist(), np.mean(low, axis=0).tolist()
    return effects


def _effect(results: Results, name: str, values: list[float]) -> list[Effect]:
    return [results.effect(name, values, None, ABOVE)] if values else []


def _both(context: Context, results: Results, runs: Mapping[str, RunSpec], metric: str) -> list[Effect]:
    """Return the primary effect: the smaller relative change by CLIPMem, over nothing removed and over chance."""
    best, plain, chance = (results.values(runs[way], metric) for way in ("clipmem", "", "random"))
    if not (best and plain and chance):
        return []
    best, plain, chance = ((np.array(values) / np.mean(plain)).tolist() for values in (best, plain, chance))
    noise, (share, *_) = planned_removal(context)
    where = f"{noise:.0%} swapped captions, {share:.0%} removed by CLIPMem"
    name = f"{where} minus the better of none and random: relative change of {label(metric)}"
    return [results.weakest(name, [(best, plain), (best, chance)], ABOVE, primary=True)]


def _planned_panels(context: Context, results: Results) -> list[Panel]:
    """Gains by way, main effects of the factors, and over the length AUROC, gain and rank correlation."""
    runs, metric, lengths = designs(context), context.scale.utility, context.scale.removal_lengths
    bars = {name: runs[name] for name in (MAIN, TRIAL) if name in runs}
    ways = [way for way in WAYS if any(way in bar for bar in bars.values())]
    change = f"relative change of {label(metric)}"
    gains = {
        name: [gain(results, bar, way, metric) if way in bar else [] for way in ways] for name, bar in bars.items()
    }
    series = [results.series(name, range(len(ways)), values) for name, values in gains.items()]
    panels = [Panel("removal", "removed by", change, series, ticks=[WAYS[way] for way in ways], joined=False)]
    _, (first, *others) = planned_removal(context)
    if others:
        removed = sorted((first, *others))
        of_share = {share: runs[MAIN if share == first else at_share(share)] for share in removed}
        curves = [
            results.series(WAYS[way], removed, [gain(results, of_share[share], way, metric) for share in removed])
            for way in ("random", "clipmem")
        ]
        panels.append(Panel("by share", "share of the candidates removed", change, curves))
    if factors := main_effects(context, results):
        differences = [np.subtract(*pair).tolist() for pair in factors.values()]
        series = [results.series("as in the trial minus as in the main design", range(len(factors)), differences)]
        panels.append(
            Panel("factors of the trial", "factor", "gain by CLIPMem", series, ticks=list(factors), joined=False)
        )
    if not lengths:
        return panels
    by_length = [runs[f"{epochs} epochs"] for epochs in lengths]
    areas, changes = list[Series](), list[Series]()
    for by in SCORES:
        values = [results.by_seed(run[""], lambda run, by=by: above_chance(run, by)) for run in by_length]
        areas.append(results.series(WAYS[by], lengths, [[value + 0.5 for value in row] for row in values]))
        changes.append(results.series(WAYS[by], lengths, [gain(results, run, by, metric) for run in by_length]))
    ranks = [results.by_seed(run[""], rank_correlation) for run in by_length]
    return [
        *panels,
        Panel("swapped captions by length", "epochs", "AUROC of swapped captions", areas),
        Panel("gain by length", "epochs", change, changes),
        Panel("ranks by length", "epochs", "rank correlation", [results.series("CLIPMem with -A(g)", lengths, ranks)]),
    ]
