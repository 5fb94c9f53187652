"""The four-way protocol and its summary, against loops and scipy."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from clipmem.base.sections import ScoreSection
from clipmem.base.summary import Interval
from clipmem.functional import AlignmentParts, roc_curve
from clipmem.models.passes import Embeddings
from clipmem.scoring import aligning, summary
from clipmem.scoring.design import PARTS, ScoreTables
from clipmem.scoring.summary import Scored
from tests.reference import loops as reference
from tests.scoring import score, scored_with

ROLES = ["shared"] * 5 + ["candidate"] * 7 + ["independent"] * 6 + ["external"] * 5
N, D = len(ROLES), 5
ORDER = np.random.default_rng(3).permutation(N)  # roles are mixed in the split table


def split_table(*, planted=3):
    role = [ROLES[k] for k in ORDER]
    candidates = [i for i, one in enumerate(role) if one == "candidate"]
    return pl.DataFrame(
        {
            "uid": [f"{k:032x}" for k in range(N)],
            "role": role,
            "group": [f"group {k // 2}" for k in range(N)],
            "planted": [i in candidates[:planted] for i in range(N)],
            "captions_from": [f"{k:032x}" for k in range(N)],
        }
    )


SPLITS = split_table()
EXTERNAL = (SPLITS["role"] == "external").to_numpy()
COUNTS = [k % 3 + 1 for k in range(N)]


def embeddings(seed, *, views=2):
    rng = np.random.default_rng(seed)
    text_pair = np.repeat(np.arange(N), COUNTS)
    image = rng.standard_normal((N, views, D)) * rng.uniform(0.1, 9, (N, views, 1)) + 0.5
    text = rng.standard_normal((len(text_pair), D)) * 3 - 0.3
    return Embeddings(
        torch.from_numpy(image.astype(np.float32)),
        torch.from_numpy(text.astype(np.float32)),
        torch.from_numpy(text_pair),
    )


def models(seeds, *, views=2):
    return {side: {seed: embeddings(100 * seed + k, views=views) for seed in seeds} for k, side in enumerate("fg")}


def parts_of(made, external=EXTERNAL):
    return {side: {s: aligning.parts_of(one, external) for s, one in by_seed.items()} for side, by_seed in made.items()}


def scored(made, *, weight=1.0, confidence=0.95, splits=SPLITS):
    return score(splits, parts_of(made), weight=weight, confidence=confidence)


def loop_parts(one):
    """(positive, image_bank, text_bank) of every pair from the equation; external pairs leave themselves out."""
    views = one.image.double().tolist()
    captions = [one.text[one.text_pair == k].double().tolist() for k in range(N)]
    bank = np.flatnonzero(EXTERNAL).tolist()
    return [
        reference.alignment_parts(
            views[k],
            captions[k],
            [views[j] for j in bank],
            [captions[j] for j in bank],
            member=bank.index(k) if k in bank else -1,
        )
        for k in range(N)
    ]


# ---- scores


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize(("seeds", "views"), [((0, 1, 4), 2), ((2,), 1), ((5, 3), 3)])
def test_scores_are_the_equation(seeds, views, weight):
    made = models(seeds, views=views)
    result = scored(made, weight=weight)
    loops = {side: {seed: loop_parts(one) for seed, one in made[side].items()} for side in "fg"}
    aligned = {
        side: [[p - weight * (i + t) for p, i, t in loops[side][seed]] for seed in sorted(seeds)] for side in "fg"
    }
    expected = reference.clipmem(aligned["f"], aligned["g"])
    table = result.scores
    assert table["uid"].to_list() == SPLITS["uid"].to_list()
    assert table["role"].to_list() == SPLITS["role"].to_list()
    assert table["clipmem"].to_list() == pytest.approx(expected, abs=1e-10)
    for side, (k, name) in itertools.product("fg", enumerate(PARTS)):
        means = [math.fsum(loops[side][seed][i][k] for seed in seeds) / len(seeds) for i in range(N)]
        assert table[f"{side}_{name}"].to_list() == pytest.approx(means, abs=1e-10)
    candidates = [value for value, role in zip(expected, SPLITS["role"], strict=True) if role == "candidate"]
    span = max(candidates) - min(candidates)
    assert result.normalizer == pytest.approx(span)
    assert table["clipmem_norm"].to_list() == pytest.approx([value / span for value in expected])
    # one row a pair and seed
    assert result.seed_scores.height == N * len(seeds)
    for k, seed in enumerate(sorted(seeds)):
        rows = result.seed_scores.filter(pl.col("seed") == seed)
        assert rows["uid"].to_list() == SPLITS["uid"].to_list()
        for side in "fg":
            assert rows[side].to_list() == pytest.approx(aligned[side][k], abs=1e-10)


def test_clipmem_is_what_the_parts_say():
    table = scored(models((0, 1)), weight=0.5).scores
    a = {s: table[f"{s}_positive"] - 0.5 * (table[f"{s}_image_bank"] + table[f"{s}_text_bank"]) for s in "fg"}
    assert table["clipmem"].to_list() == pytest.approx((a["f"] - a["g"]).to_list(), abs=1e-12)


def test_errors_over_seeds():
    one = scored(models((0,))).scores
    for name in ("stderr", "low", "high"):
        assert one[name].null_count() == N  # one seed says nothing about its error
    assert one["clipmem"].null_count() == one["clipmem"].is_nan().sum() == 0
    three, wider = (scored(models((0, 1, 2)), confidence=c).scores for c in (0.9, 0.99))
    values = three["clipmem"].to_numpy()
    low, high, stderr = (three[name].to_numpy() for name in ("low", "high", "stderr"))
    assert (stderr > 0).all()
    assert (high - values) == pytest.approx(values - low)
    assert (wider["high"].to_numpy() > high).all()
    assert (wider["low"].to_numpy() < low).all()
    quantile = (high - values) / stderr
    assert quantile == pytest.approx(np.full(N, quantile[0]))
    assert stats.norm.ppf(0.95) <= quantile[0] <= stats.t.ppf(0.95, 2)


def test_swapping_f_and_g_negates():
    made = models((0, 1, 2))
    a, b = scored(made), scored({"f": made["g"], "g": made["f"]})
    assert np.array_equal(a.scores["clipmem"].to_numpy(), -b.scores["clipmem"].to_numpy())
    assert a.normalizer == b.normalizer
    assert a.scores["low"].to_list() == pytest.approx([-x for x in b.scores["high"]])
    assert a.seed_scores["f"].equals(b.seed_scores["g"], null_equal=False)


def test_equal_models_differ_by_nothing():
    made = models((0, 1))
    table = scored({"f": made["f"], "g": made["f"]}).scores
    assert table["clipmem"].to_list() == [0.0] * N
    assert table["clipmem_norm"].null_count() == N  # there is no range to divide by


def test_external_pairs_are_scored_against_the_others():
    one = embeddings(1)
    parts = aligning.parts_of(one, EXTERNAL)
    for k in np.flatnonzero(EXTERNAL):
        others = EXTERNAL.copy()
        others[k] = False
        without = aligning.parts_of(one, others)  # the pair is not in the bank at all
        for a, b in zip(parts, without, strict=True):
            assert a[k].item() == pytest.approx(b[k].item(), abs=1e-10)
    # and a bank pair counts for the pairs outside it
    assert abs(parts.image_bank[~EXTERNAL] - without.image_bank[~EXTERNAL]).max() > 1e-4


def test_permuting_rows_permutes_scores():
    order = np.random.default_rng(8).permutation(N)
    made = {**models((0, 1)), "base": {0: embeddings(77)}}

    def permuted(one):
        rows = [torch.nonzero(one.text_pair == k)[:, 0] for k in order]
        pair = torch.repeat_interleave(torch.arange(N), torch.tensor([len(own) for own in rows]))
        return Embeddings(one.image[order], one.text[torch.cat(rows)], pair)

    moved = {side: {seed: permuted(one) for seed, one in by_seed.items()} for side, by_seed in made.items()}
    a = scored(made)
    b = score(SPLITS[order], parts_of(moved, EXTERNAL[order]), weight=1.0, confidence=0.95)
    for column in a.scores.columns:
        left, right = a.scores[column].to_numpy()[order], b.scores[column].to_numpy()
        if left.dtype == object or column in ("uid", "role", "planted"):
            assert left.tolist() == right.tolist()
        else:
            assert left == pytest.approx(right, abs=1e-12, nan_ok=True)  # wordings are null


# ---- summary


def tables(seeds, *, planted=3, shift=0.5):
    """Score tables with known numbers: candidates higher by `shift`."""
    splits, rng = split_table(planted=planted), np.random.default_rng(17)
    f, g = rng.standard_normal((2, len(seeds), N))
    f = f + shift * (splits["role"] == "candidate").to_numpy() + 2 * splits["planted"].to_numpy()
    scores = splits.select("uid", "role", "planted").with_columns(pl.Series("clipmem", (f - g).mean(axis=0)))
    seed_scores = pl.concat(
        [
            splits.select("uid").with_columns(pl.lit(s).alias("seed"), pl.Series("f", f[k]), pl.Series("g", g[k]))
            for k, s in enumerate(seeds)
        ]
    )
    return Scored(splits, ScoreTables(scores, seed_scores)), splits, f, g


def test_seeds_are_kept_apart():
    one, _, f, g = tables((4, 9))
    assert one.seeds == [4, 9]
    assert np.array_equal(one.f, f)
    assert np.array_equal(one.g, g)
    assert len(np.unique(one.group)) == 12


def test_roles():
    one, splits, f, g = tables((0, 1))
    found = summary.roles(one, seed=0, draws=300, confidence=0.9)
    assert list(found) == list(summary.ROLES)
    for role, row in found.items():
        values = (f - g).mean(axis=0)[(splits["role"] == role).to_numpy()]
        assert row.n == len(values) == ROLES.count(role)
        assert row.mean == pytest.approx(values.mean())
        assert row.sd == pytest.approx(np.std(values, ddof=1))
        assert row.median == pytest.approx(np.median(values))
        assert row.low < row.mean < row.high
        assert row.over == "pairs"  # of two seeds
    means = summary.roles(tables((0, 1, 2))[0], seed=0, draws=300, confidence=0.9)
    assert means["candidate"].over == "pairs and seeds"


def test_half_difference():
    one, splits, f, g = tables((0, 1))
    role = splits["role"].to_numpy()
    found = summary.halved(one, confidence=0.9)
    own, others = ((f - g)[:, role == name].mean() for name in ("candidate", "independent"))
    assert found.mean == pytest.approx((own - others) / 2)
    assert found.low < found.mean < found.high
    assert found.over == "pairs and seeds"


def centered_of(one):
    half = summary.halved(one, confidence=0.95)
    return summary.centered(one, half, confidence=0.95)


@pytest.mark.parametrize("worse", [0.0, 9.0])
def test_centered_means_and_column_do_not_change_when_f_is_worse_throughout(worse):
    splits, rng = split_table(planted=3), np.random.default_rng(17)
    made = {
        side: {s: AlignmentParts(*torch.from_numpy(rng.standard_normal((3, N)))) for s in (0, 1, 2)} for side in "fg"
    }
    plain, moved = (
        score(
            splits,
            {**made, "f": {s: one._replace(positive=one.positive - by) for s, one in made["f"].items()}},
            weight=1.0,
            confidence=0.95,
        )
        for by in (0.0, worse)
    )
    a, b = (centered_of(Scored(splits, ScoreTables(one.scores, one.seed_scores))) for one in (plain, moved))
    assert b.shift == pytest.approx(a.shift - worse)
    for role in summary.ROLES:
        assert b.roles[role].document() == pytest.approx(a.roles[role].document())
    columns = [one.scores["clipmem_centered"].to_numpy() for one in (plain, moved)]
    assert columns[1] == pytest.approx(columns[0])
    assert moved.scores["clipmem_centered"].to_numpy() == pytest.approx(moved.scores["clipmem"].to_numpy() - b.shift)
    assert (plain.scores["clipmem"].rank() == plain.scores["clipmem_centered"].rank()).all()


def test_without_external_pairs_nothing_is_centered():
    splits = split_table(planted=0).with_columns(role=pl.lit("candidate"))
    parts = {side: {0: AlignmentParts(*torch.randn(3, N, dtype=torch.float64))} for side in "fg"}
    made = score(splits, parts, weight=1.0, confidence=0.95)
    assert made.scores["clipmem_centered"].null_count() == N
    assert centered_of(Scored(splits, ScoreTables(made.scores, made.seed_scores))) is None


@pytest.mark.parametrize(
    ("shift", "sd", "said"),
    [(-0.2, 0.02, "worse"), (0.2, 0.02, "better"), (0.0, 0.002, "negligible"), (0.02, 0.2, "inconclusive")],
)
def test_the_verdict_on_the_shift(shift, sd, said):
    rng, role = np.random.default_rng(0), np.repeat(summary.ROLES, 40)
    effect = 0.15 * ((role == "candidate") * 1.0 - (role == "independent"))
    values = effect + shift + sd * rng.standard_normal((3, 160))
    half = Interval(mean=0.15, low=None, high=None)
    scored = scored_with(f=values, g=np.zeros_like(values), role=role, group=np.arange(160), paired=True)
    found = summary.centered(scored, half, confidence=0.95)
    assert (found.verdict, found.margin) == (said, pytest.approx(0.015))
    assert found.low <= found.shift <= found.high


def test_tests():
    one, splits, f, g = tables((0, 1))
    values = (f - g).mean(axis=0)
    found = summary.tests(one, summary.COMPARED, confidence=0.9)
    assert [(row.a, row.b) for row in found] == [
        ("candidate", "external"),
        ("candidate", "shared"),
        ("independent", "external"),
    ]
    for row in found:
        a, b = (values[(splits["role"] == getattr(row, side)).to_numpy()] for side in "ab")
        welch = stats.ttest_ind(a, b, equal_var=False)
        interval = welch.confidence_interval(0.9)
        rank = stats.mannwhitneyu(a, b)
        assert row.difference == pytest.approx(a.mean() - b.mean())
        assert (row.welch_t, row.welch_df, row.welch_p) == pytest.approx((welch.statistic, welch.df, welch.pvalue))
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
        assert (row.mannwhitney_u, row.mannwhitney_p) == pytest.approx((rank.statistic, rank.pvalue))
        assert row.superiority == pytest.approx(reference.superiority(a.tolist(), b.tolist()))
        v = len(a) + len(b) - 2
        pooled = math.sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / v)
        j = math.gamma(v / 2) / (math.sqrt(v / 2) * math.gamma((v - 1) / 2))
        assert row.hedges_g == pytest.approx(j * (a.mean() - b.mean()) / pooled)


def test_the_tests_are_adjusted_as_one_family_each():
    found = summary.tests(tables((0, 1))[0], summary.COMPARED, confidence=0.9)
    for name in ("welch_p", "mannwhitney_p"):
        raw = sorted(getattr(row, name) for row in found)
        # Holm: the smallest of three counts thrice, the next twice, and none falls below the one before
        steps = np.maximum.accumulate([min(1.0, (3 - k) * p) for k, p in enumerate(raw)])
        assert sorted(getattr(row, f"{name}_holm") for row in found) == pytest.approx(steps)
        assert all(getattr(row, f"{name}_holm") >= getattr(row, name) for row in found)


def test_a_test_without_p_is_left_out_of_the_family():
    scores, role = np.array([1.0, 1.0, 0.0, 0.0, 0.5, 0.7]), np.array(["a", "a", "b", "b", "c", "c"])
    scored = scored_with(clipmem=scores, role=role)
    constant, other = summary.tests(scored, (("a", "b"), ("a", "c"), ("a", "d")), confidence=0.95)
    assert constant.welch_p is constant.welch_p_holm is None
    assert other.welch_p_holm == other.welch_p


def test_paired():
    one, splits, f, g = tables((0, 1, 2))
    where = (splits["role"] == "candidate").to_numpy()
    found = summary.paired(one, confidence=0.9)
    a, b = f[:, where].mean(axis=1), g[:, where].mean(axis=1)
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.9)
    assert (found.role, found.seeds) == ("candidate", 3)
    assert found.difference == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.t, found.p) == pytest.approx((test.statistic, test.pvalue))
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(a - b).pvalue)
    assert summary.paired(tables((0,))[0], confidence=0.9) is None


def test_floor():
    for seeds in ((0, 1, 2), (0,)):
        one, splits, f, g = tables(seeds)
        found = summary.floor(one, confidence=0.8)
        control = (f - g)[:, (splits["role"] == "external").to_numpy()]
        center = np.sort(control, axis=1)[:, 1:-1].mean()
        distances = np.abs(control.mean(axis=0) - center)
        expected = {"center": pytest.approx(center), "half_width": pytest.approx(distances.max())}
        assert found.document() == {"pairs": 5, "confidence": 0.8, **expected}
        assert summary.floor(one, confidence=0.9) is None  # needs nine pairs
    settings = ScoreSection(confidence=0.8, draws=100)
    assert summary.summarize(one, settings, seed=0).noise_floor == found
    assert summary.summarize(one, settings, seed=0, estimated=True).noise_floor is None


def test_stability():
    one, splits, f, g = tables((0, 1, 2))
    found = summary.stability(one, seed=0, confidence=0.9)
    own = (f - g)[:, (splits["role"] == "candidate").to_numpy()]
    couples = list(itertools.combinations(own, 2))
    assert found.spearman == pytest.approx(np.mean([stats.spearmanr(a, b).statistic for a, b in couples]))
    assert found.low < found.spearman < found.high
    assert found.top1_overlap == pytest.approx(np.mean([a.argmax() == b.argmax() for a, b in couples]))
    assert found.top10_overlap == pytest.approx(np.mean([a.argmax() == b.argmax() for a, b in couples]))
    assert summary.stability(tables((0,))[0], seed=0, confidence=0.9) is None


def test_planted():
    one, splits, f, g = tables((0, 1))
    found = summary.planted(one, confidence=0.9)
    where = (splits["role"] == "candidate").to_numpy()
    wrong, values = splits["planted"].to_numpy()[where], (f - g).mean(axis=0)[where]
    assert (found.n, found.rest) == (3, 4)
    assert found.auroc == pytest.approx(reference.auroc(values.tolist(), wrong.tolist()))
    assert found.low < found.auroc <= found.high
    assert found.mean_planted == pytest.approx(values[wrong].mean())
    assert found.mean_rest == pytest.approx(values[~wrong].mean())
    assert found.precision_at_n == pytest.approx(wrong[np.argsort(-values)[:3]].mean())
    assert np.trapezoid(found.roc["tpr"], found.roc["fpr"]) == pytest.approx(found.auroc)
    alone = reference.auroc((-g[:, where].mean(axis=0)).tolist(), wrong.tolist())
    assert found.reference_alignment_auroc.auroc == pytest.approx(alone)
    assert set(found.reference_alignment_auroc.document()) == {"auroc", "low", "high"}


@pytest.mark.parametrize("decimals", [1, 9])  # with and without ties
def test_the_roc_curve_of_the_summary_is_the_whole_curve_without_points_in_straight_runs(decimals):
    values, wrong = np.random.default_rng(0).normal(size=2000).round(decimals), np.arange(2000) < 5
    values[wrong] += 1
    fpr, tpr = roc_curve(values, wrong)
    scored = scored_with(clipmem=values, planted=wrong, g=values[None], role=np.full(2000, "candidate"))
    kept = summary.planted(scored, confidence=0.9).roc
    kept_fpr, kept_tpr = np.array(kept["fpr"]), np.array(kept["tpr"])
    assert np.interp(fpr + tpr, kept_fpr + kept_tpr, kept_tpr) == pytest.approx(tpr, abs=1e-12)
    assert len(kept_fpr) <= (2 * 5 + 2 if decimals == 9 else len(fpr))


@pytest.mark.parametrize("planted", [0, 7])
def test_planted_needs_both_kinds(planted):
    assert summary.planted(tables((0, 1), planted=planted)[0], confidence=0.9) is None
