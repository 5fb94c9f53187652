"""Validate estimators against many shadow models: agreement against cost (`clipmem validate-estimators`)."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipmem.base.errors import require
from clipmem.base.folder import RunFolder
from clipmem.base.progress import Reporter
from clipmem.base.random import generator
from clipmem.base.recipes import Overrides, Recipe, as_settings
from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores import PAIR_SCORES, usable
from clipmem.scoring.pair_scores.halves import halves_of
from clipmem.stats.reliability import DRAWS, group_weights, halved, reliability
from clipmem.study import api, estimating
from clipmem.study.plan import PlannedStudy

DOCUMENT = "validated.json"
PROXY_PAIRS, SETS = 8, 4
BASELINE = ("raw", 2, False)  # four full-size shadow models


class Setting(NamedTuple):
    """An estimator, its number of pairs of shadow models (0 = none), and whether these are proxies."""

    estimator: str
    pairs: int
    proxy: bool


@dataclass(frozen=True)
class Source:
    """A finished halves study: its signals, and the cost of a pair of its shadow models."""

    signals: Signals
    cost: float
    planted: np.ndarray


def validate(
    recipe: Recipe | str | Path,
    out: Path,
    *,
    proxy: str = "",
    truth: int = 16,
    settings: Overrides = (),
    reporter: Reporter | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train f and shadow models, full-size and of a proxy, and compare every estimator with the ground truth.

    An estimator is compared with the pairs of full-size shadow models that it does not use. The agreement is its rank
    correlation with the truth, by `stats.reliability.halved`. Each estimator is applied to up to four sets
    of shadow models; intervals are a bootstrap over groups of pairs and over these sets. `printed` has for each set of
    two or more pairs the agreement that `clipmem run --budget` would print with these shadow models alone. `lds` is how
    well effects of training pairs predict similarities of held-out ones (`estimating.traced`, all full-size models).

    `options` are `device`, `engine` and `allow_long` of `clipmem.run`; the others are those of the command. Returns the
    content of `validated.json`.
    """
    require(truth >= 6, "--truth", f"{truth}", "6 or more pairs of shadow models", "Use 16.")
    common = ["protocol=halves", "halves.estimator=raw", "train.record=true", *as_settings(settings)]
    wanted = {"full": [*common, f"halves.pairs={truth}", "halves.proxy="]}
    if proxy:
        wanted["proxy"] = [*common, f"halves.pairs={PROXY_PAIRS}", f"halves.proxy={proxy}"]
    sources, studies = dict[str, Source](), dict[str, PlannedStudy]()
    for name, keys in wanted.items():
        api.run(recipe, out / name, settings=keys, reporter=reporter, **options)
        study = studies[name] = PlannedStudy(out / name)
        study.check_text(f"run {out / name}")
        signals = estimating.signals_of(study, study.aligned(study.models))
        cost = estimating.cost_of(study) / study.recipe.halves.pairs
        sources[name] = Source(signals, cost, study.splits["planted"].to_numpy()[study.role != "external"])
    rows = frontier(sources["full"], sources.get("proxy"))
    tracing = estimating.traced(studies["full"], reporter=reporter)
    signals = sources["full"].signals
    document = {
        "format": 1,
        "pairs": len(signals.uids),
        "planted": int(sources["full"].planted.sum()),
        "proxy": proxy or None,
        "truth": truth,
        "reliability": float(reliability(halves_of(signals).effect, np.ones((1, len(signals.uids))))[0]),
        "estimators": rows,
        "lds": tracing.lds._asdict(),
        "lds_of_similarity": tracing.lds_of_similarity._asdict(),
    }
    RunFolder(out).write_json(DOCUMENT, document)
    return document


def frontier(full: Source, proxy: Source | None) -> list[dict[str, Any]]:
    """Apply every estimator to sets of shadow models, and return agreement and cost of each, cheapest first."""
    effect, seed = halves_of(full.signals).effect, full.signals.seed
    weights = group_weights(full.signals.group, generator(seed, "validate estimators"))
    clean = weights[:1] * ~full.planted
    rows: dict[Setting, dict[str, Any]] = {}
    samples: dict[Setting, np.ndarray] = {}
    for setting, source in _settings(full, proxy):
        values, among, seconds, printed = list[np.ndarray](), list[float](), list[float](), list[dict[str, float]]()
        for used in _sets(setting, source):
            others = effect if setting.proxy else np.delete(effect, used, axis=0)
            started = time.monotonic()
            signals = _only(source.signals, used)
            estimated = PAIR_SCORES[setting.estimator]().estimate(signals)
            seconds.append(time.monotonic() - started)
            values.append(_agreement(estimated.score, others, weights))
            among.append(float(_agreement(estimated.score, others, clean)[0]))
            expected = estimating.expected_agreement(signals, estimated) if used else None
            if expected is not None:
                printed.append({"printed": expected.value, "agreement": float(values[-1][0])})
        sampled = np.stack(values)
        # the same draws of groups for every estimator, so that differences are paired
        picked = generator(seed, "sets", setting.estimator, setting.pairs).integers(len(values), size=DRAWS)
        samples[setting] = sampled[picked, np.arange(1, DRAWS + 1)]
        rows[setting] = {
            **setting._asdict(),
            "cost": setting.pairs * source.cost,
            "seconds": float(np.mean(seconds)),
            "sets": len(values),
            "agreement": float(sampled[:, 0].mean()),
            **_interval(samples[setting]),
            "among_clean": float(np.mean(among)),
            "printed": printed,
        }
    baseline = Setting(*BASELINE)
    for setting, row in rows.items():
        difference = row["agreement"] - rows[baseline]["agreement"]
        row["above_raw"] = {"mean": difference, **_interval(samples[setting] - samples[baseline])}
    return sorted(rows.values(), key=lambda row: (row["cost"], row["agreement"]))


def _settings(full: Source, proxy: Source | None) -> Iterator[tuple[Setting, Source]]:
    for name in usable("memorization", full.signals):
        if "shadow models" not in PAIR_SCORES[name].needs:
            yield Setting(name, 0, False), full
            continue
        for source in (full, proxy):
            if source is None:
                continue
            most = len(halves_of(source.signals).effect)
            for pairs in (1, 2, 4, 8):
                if pairs <= (most if source is proxy else most - 4):
                    yield Setting(name, pairs, source is proxy), source


def _sets(setting: Setting, source: Source) -> list[list[int]]:
    """Return up to four disjoint sets of pairs of shadow models."""
    if not setting.pairs:
        return [[]]
    most = len(halves_of(source.signals).effect)
    starts = range(0, most - setting.pairs + 1, setting.pairs)
    return [list(range(start, start + setting.pairs)) for start in starts][:SETS]


def _only(signals: Signals, used: Sequence[int]) -> Signals:
    if not used:
        return replace(signals, halves=None)
    halves, rows = halves_of(signals), [row for k in used for row in (2 * k, 2 * k + 1)]
    return replace(signals, halves=replace(halves, alignment=halves.alignment[rows], member=halves.member[rows]))


def _agreement(score: np.ndarray, effect: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank correlation with the truth under each row of weights."""
    c, shared = halved(effect, score, weights)
    return shared / np.sqrt(np.maximum(c, 1e-9))


def _interval(values: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}
