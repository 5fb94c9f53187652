"""What the score tables say, as numbers with intervals: roles, tests, noise, stability, mismatched pairs."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import polars as pl

from clipmem.base.random import derive_seed, generator
from clipmem.base.sections import ROLES, ScoreSection
from clipmem.base.summary import (
    Auroc,
    Centered,
    Correlation,
    Entry,
    Interval,
    Learned,
    LearnedRole,
    NoiseFloor,
    Planted,
    Role,
    ScoreSummary,
    Stability,
    Wordings,
)
from clipmem.scoring.design import ScoreTables
from clipmem.stats.centering import centered_mean, control_shift, noise_floor
from clipmem.stats.comparisons import Claim, compare_groups, holm, paired_test, verdict
from clipmem.stats.intervals import crossed_mean, half_difference, seed_noise
from clipmem.stats.ranking import auroc, precision_at_n, roc_curve, spearman, top_overlap
from clipmem.stats.resampling import in_out_means

TOPS = {"top1_overlap": 0.01, "top10_overlap": 0.1}
NEGLIGIBLE = 0.1  # a shift within this share of the mean CLIPMem is no matter
_SHIFTED: Mapping[str, Literal["negligible", "inconclusive"]] = {"yes": "negligible", "inconclusive": "inconclusive"}
COMPARED = (("candidate", "external"), ("candidate", "shared"), ("independent", "external"))


class Scored:
    """The score tables as arrays, rows in the order of the table `scores`."""

    def __init__(self, splits: pl.DataFrame, tables: ScoreTables) -> None:
        splits = splits.filter(pl.col("uid").is_in(tables.scores["uid"].implode()))
        self.role = splits["role"]
        self.planted = splits["planted"].to_numpy()
        self.group = np.unique(splits["group"].to_numpy(), return_inverse=True)[1].astype(np.int64)
        self.clipmem = tables.scores["clipmem"].to_numpy()
        self.seeds: list[int] = sorted(tables.seed_scores["seed"].unique().to_list())
        by_seed = tables.seed_scores.partition_by("seed", as_dict=True)
        self.f, self.g = (
            np.stack([by_seed[(seed,)][side].cast(pl.Float64).to_numpy() for seed in self.seeds]) for side in "fg"
        )
        self.paired = bool(np.isfinite(self.f).all() and np.isfinite(self.g).all())

    def of(self, role: str) -> np.ndarray:
        """Tell which pairs have the role."""
        return np.asarray(self.role == role)

    @property
    def differences(self) -> np.ndarray:
        """CLIPMem of every pair by each seed alone, shape (seed, n), where models are paired."""
        return self.f - self.g

    @property
    def seen(self) -> np.ndarray:
        """Which model saw which pair, shape (seed, n), where models are not paired."""
        return np.isfinite(self.f)

    @property
    def values(self) -> np.ndarray:
        """Alignment of every pair under every model, shape (seed, n), where models are not paired."""
        return np.where(self.seen, self.f, self.g)

    @property
    def unseen_mean(self) -> np.ndarray:
        """Mean alignment under the models that did not see the pair, shape (n,)."""
        return np.nanmean(self.g, axis=0)


def summarize(scored: Scored, settings: ScoreSection, *, seed: int, estimated: bool = False) -> ScoreSummary:
    """Say what the tables show: the part of `summary.json` that comes from scores alone.

    Where scores are `estimated`, those of held-out pairs are not: such scores have no noise floor.
    """
    level = settings.confidence
    half = halved(scored, confidence=level)
    return ScoreSummary(
        seeds=scored.seeds,
        half_difference=half,
        centered=centered(scored, half, confidence=level),
        roles=roles(scored, seed=seed, draws=settings.draws, confidence=level),
        tests=tests(scored, COMPARED, confidence=level),
        paired=paired(scored, confidence=level),
        noise_floor=None if estimated else floor(scored, confidence=level),
        seed_noise=between_seeds(scored, confidence=level),
        stability=stability(scored, seed=seed, confidence=level),
        planted=planted(scored, confidence=level),
    )


def roles(scored: Scored, *, seed: int, draws: int, confidence: float) -> dict[str, Role]:
    """Mean, interval (over groups of pairs, and seeds or models), sd and median of the scores of each role."""
    means: dict[str, Role] = {}
    for role in ROLES:
        where = scored.of(role)
        if not where.any():  # for given models the shared pairs may be unknown
            continue
        if scored.paired:
            mean = crossed_mean(scored.differences[:, where], scored.group[where], confidence=confidence)
            interval = Interval(**mean._asdict())
        else:
            groups = np.unique(scored.group[where], return_inverse=True)[1]
            interval = two_way_interval(
                scored.values[:, where], scored.seen[:, where], groups, seed=seed, draws=draws, confidence=confidence
            )
        values = scored.clipmem[where]
        means[role] = Role(
            n=int(where.sum()),
            **dict(interval),
            sd=float(values.std(ddof=1)) if len(values) > 1 else None,
            median=float(np.median(values)),
        )
    return means


def learned(scored: Scored, a_base: pl.Series, roles: Mapping[str, Role], *, confidence: float) -> Learned | None:
    """Say what fine-tuning taught about pairs: means of each role, and the rank correlation of learned and clipmem.

    With m_0 the base model that f and g start from, a_base = A(m_0) and learned = mean of A(g) - A(m_0): what training
    on the other pairs taught about a pair. clipmem = mean of A(f) - mean of A(g) is what only seeing it taught.

    When not to trust it: A(g) is in both learned and clipmem, with opposite signs, so its noise makes their rank
    correlation too low. In four-way studies g trained on the shared and the independent pairs, so their `learned`
    includes seeing them: read that of candidates and external pairs. The base model may have seen any pair in
    pre-training.

    Args:
        scored: The score tables.
        a_base: The column of the table `scores`, shape (n,).
        roles: The entry `roles` of the summary, with the means of clipmem.
        confidence: Level of the intervals. That of learned is over pairs, and over seeds with three or more; where
            models are not paired, over pairs alone, for these models.

    Returns:
        `roles` → role → `a_base`, `learned` and `clipmem`, each a mean with its interval, and `spearman`; None without
        a base model, or if the alignment is not defined under it.
    """
    if a_base.null_count():
        return None
    base, means = a_base.to_numpy(), dict[str, LearnedRole]()
    taught = scored.unseen_mean - base
    by_seed = scored.g - base if scored.paired else taught[None]
    for role, entry in roles.items():
        where = scored.of(role)
        before, gain = (
            Interval(**crossed_mean(values[:, where], scored.group[where], confidence=confidence)._asdict())
            for values in (base[None], by_seed)
        )
        clipmem = Interval(mean=entry.mean, low=entry.low, high=entry.high, over=entry.over)
        means[role] = LearnedRole(n=entry.n, a_base=before, learned=gain, clipmem=clipmem)
    where = scored.of("candidate")
    rank = spearman(taught[where], scored.clipmem[where], confidence)
    return Learned(roles=means, spearman=Correlation(**rank._asdict()))


def halved(scored: Scored, *, confidence: float) -> Interval | None:
    """Estimate the mean CLIPMem from candidate and independent pairs; None without both, or without pairs of models."""
    c, i = scored.of("candidate"), scored.of("independent")
    if not (scored.paired and c.any() and i.any()):
        return None
    values, group = scored.differences, scored.group
    mean = half_difference(values[:, c], values[:, i], group[c], group[i], confidence=confidence)
    return Interval(**mean._asdict())


def over_wordings(
    splits: pl.DataFrame, tables: ScoreTables, count: int, settings: ScoreSection, *, seed: int
) -> Wordings | None:
    """Repeat the means over all `count` wordings; None if only the first captions were scored."""
    if tables.scores["clipmem_wordings"].is_null().all():
        return None
    scores = tables.scores.with_columns(clipmem="clipmem_wordings")
    scored = Scored(splits, ScoreTables(scores, tables.seed_scores.with_columns(f="f_wordings", g="g_wordings")))
    means = roles(scored, seed=seed, draws=settings.draws, confidence=settings.confidence)
    return Wordings(count=count, roles=means, half_difference=halved(scored, confidence=settings.confidence))


def centered(scored: Scored, half: Interval | None, *, confidence: float) -> Centered | None:
    """Say how much better f is than g throughout, by the external pairs, and center the roles' means on it.

    `verdict`: "worse" or "better" if the whole interval of the shift is farther from 0 than `margin`, "negligible" if
    it is nearer, else "inconclusive". The margin is a tenth of the half-difference, or, without one, of the candidates'
    centered mean. None without external pairs, or without pairs of models.
    """
    external = scored.of("external")
    if not (scored.paired and external.any()):
        return None
    differences, group = scored.differences, scored.group
    control = differences[:, external], group[external]
    shift = control_shift(*control, confidence=confidence)
    roles: dict[str, Interval] = {}
    for name in ROLES:
        where = scored.of(name)
        if where.any():
            mean = centered_mean(differences[:, where], control[0], group[where], control[1], confidence=confidence)
            roles[name] = Interval(**mean._asdict())
    center = half or roles.get("candidate")
    margin = NEGLIGIBLE * abs((center and center.mean) or 0.0)
    answer = verdict(shift.low, shift.high, Claim("zero", max(margin, float(np.finfo(float).tiny))))
    return Centered(
        shift=shift.mean,
        low=shift.low,
        high=shift.high,
        over=shift.over,
        stderr=shift.stderr,
        margin=margin,
        verdict=_SHIFTED.get(answer, "better" if shift.mean > 0 else "worse"),
        roles=roles,
    )


def tests(scored: Scored, couples: Sequence[tuple[str, str]], *, confidence: float) -> list[Entry]:
    """Compare couples of roles that there are by Welch's and Mann and Whitney's tests, with effect sizes."""
    scores = {role: scored.clipmem[scored.of(role)] for couple in couples for role in couple}
    rows: list[dict[str, str | float | None]] = [
        {"a": a, "b": b, **compare_groups(scores[a], scores[b], confidence)._asdict()}
        for a, b in couples
        if len(scores[a]) and len(scores[b])
    ]
    for name in ("welch_p", "mannwhitney_p"):
        adjusted = holm(np.array([np.nan if row[name] is None else row[name] for row in rows]))
        for row, p in zip(rows, adjusted.tolist(), strict=True):
            row[f"{name}_holm"] = None if np.isnan(p) else p
    return [Entry.model_validate(row) for row in rows]


def paired(scored: Scored, *, confidence: float) -> Entry | None:
    """Test the candidates' mean under f against that under g, one number a seed; None with one seed or unpaired models.

    f and g of a seed share their start and the order of what both saw, so the seed's part cancels in the difference.
    """
    where = scored.of("candidate")
    if len(scored.seeds) < 2 or not scored.paired:
        return None
    test = paired_test(scored.f[:, where].mean(axis=1), scored.g[:, where].mean(axis=1), confidence)
    return Entry.model_validate({"role": "candidate", "seeds": len(scored.seeds), **test._asdict()})


def floor(scored: Scored, *, confidence: float) -> NoiseFloor | None:
    """Measure how far from 0 a score can be by chance, on the external pairs; None with too few of them."""
    where = scored.of("external")
    control = scored.differences if scored.paired else scored.clipmem[None]
    noise = noise_floor(control[:, where], confidence=confidence) if where.any() else None
    return noise and NoiseFloor(**noise._asdict())


def between_seeds(scored: Scored, *, confidence: float) -> Entry | None:
    """Compare f with f of another seed on the candidates; None without pairs of models, or with one seed."""
    where = scored.of("candidate")
    noise = seed_noise(scored.f[:, where], scored.group[where], confidence=confidence) if scored.paired else None
    return noise and Entry.model_validate(noise._asdict())


def stability(scored: Scored, *, seed: int, confidence: float) -> Stability | None:
    """Compare the candidates' order between single seeds or, for unpaired models, between two halves of the models."""
    where = scored.of("candidate")
    if not scored.paired:
        return halves(scored.values, scored.seen, where, seed=seed, confidence=confidence)
    single = scored.differences[:, where]
    couples = list(combinations(range(len(single)), 2))
    if not couples:
        return None
    ranks = [spearman(single[a], single[b], confidence) for a, b in couples]
    rank, low, high = (_mean(values) for values in zip(*ranks, strict=True))
    shared = [float(np.mean([top_overlap(single[a], single[b], share) for a, b in couples])) for share in TOPS.values()]
    return Stability(spearman=rank, low=low, high=high, top1_overlap=shared[0], top10_overlap=shared[1])


def _mean(values: Sequence[float | None]) -> float | None:
    """Average what is defined; None when nothing is (fewer than four candidates, or all scores equal)."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def planted(scored: Scored, *, confidence: float) -> Planted | None:
    """Say how well the score finds candidates with mismatched captions, and how well low alignment alone does."""
    where = scored.of("candidate")
    positive, values = scored.planted[where], scored.clipmem[where]
    if not positive.any() or positive.all():
        return None
    area = auroc(values, positive, confidence)
    curve = np.stack(roc_curve(values, positive))
    corners = np.abs(np.diff(curve, 2)).max(axis=0) > 1e-12  # the line between them is the same without the others
    fpr, tpr = curve[:, np.concatenate([[True], corners, [True]])]
    plain = auroc(-scored.unseen_mean[where], positive, confidence)
    return Planted(
        n=int(positive.sum()),
        rest=int((~positive).sum()),
        auroc=area.mean,
        low=area.low,
        high=area.high,
        mean_planted=float(values[positive].mean()),
        mean_rest=float(values[~positive].mean()),
        precision_at_n=precision_at_n(values, positive, int(positive.sum())),
        roc={"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        reference_alignment_auroc=Auroc(auroc=plain.mean, low=plain.low, high=plain.high),
    )


def two_way_interval(
    values: np.ndarray, member: np.ndarray, groups: np.ndarray, *, seed: int, draws: int, confidence: float
) -> Interval:
    """Mean score of some pairs with a percentile interval that resamples models and groups of pairs.

    Every pair has models on both sides, but a resample of the models may have none on one side of a pair: that resample
    leaves the pair out.
    """
    models, pairs = generator(seed, "models"), generator(seed, "groups")
    count = int(groups.max()) + 1
    means: list[float] = []
    seen, unseen = values * member, values * ~member
    for _ in range(draws):
        weight = models.multinomial(len(values), np.full(len(values), 1 / len(values))).astype(np.float64)
        inside, outside = weight @ member, weight @ ~member
        usable = (inside > 0) & (outside > 0)
        times = pairs.multinomial(count, np.full(count, 1 / count))[groups] * usable
        if times.sum() == 0:
            continue
        score = weight @ seen / np.maximum(inside, 1) - weight @ unseen / np.maximum(outside, 1)
        means.append(float((score * times).sum() / times.sum()))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    mean = float(in_out_means(values, member).score.mean())
    return Interval(mean=mean, low=float(low), high=float(high), over="pairs and models")


def halves(
    values: np.ndarray, member: np.ndarray, where: np.ndarray, *, seed: int, confidence: float
) -> Stability | None:
    """Compare the order that two random halves of the models give.

    The draw is balanced over all models, not over half of them: a pair with few models on a side may have none there in
    a half. Such pairs are left out and counted in `unscored`.
    """
    order = generator(derive_seed(seed, "halves"), "order").permutation(len(values))
    a, b = (in_out_means(values[part], member[part]).score for part in np.array_split(order, 2))
    both = where & np.isfinite(a) & np.isfinite(b)
    if both.sum() < 10:
        return None
    rank = spearman(a[both], b[both], confidence)
    return Stability(
        **rank._asdict(),
        **{name: top_overlap(a[both], b[both], share) for name, share in TOPS.items()},
        halves=[len(part) for part in np.array_split(order, 2)],
        unscored=int((where & ~both).sum()),
    )
