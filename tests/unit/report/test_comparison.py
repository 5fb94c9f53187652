"""Comparisons of runs and of audits: arithmetic against slow references, and what every refusal names."""

import io
import json
import math
from math import sqrt

import numpy as np
import polars as pl
import pytest
import scipy.stats
from rich.console import Console

from clipmem.base.errors import InputError
from clipmem.base.summary import Attack, Audit, Rate, Risk
from clipmem.functional import holm
from clipmem.report.comparison import PAIRS, compare_audits, compare_finished, compare_runs, write_compared
from clipmem.report.formats import side_of
from clipmem.report.frontier import dominance, is_useful
from clipmem.report.page import render
from clipmem.report.run import Run, read_finished
from clipmem.report.sections.comparison import answer
from clipmem.report.terminal import VERBOSE, print_screen
from tests.compared import METRICS, SIZES, build

SEEDS = (0, 1, 2)
T_975 = {2: 4.302652729911275}  # t quantile of two degrees of freedom


@pytest.fixture
def runs(tmp_path):
    build(tmp_path / "plain")
    build(tmp_path / "noisy", "mitigate.text_noise.std=0.15", effect=0.5, noise=2, utility=0.05, rate=500.0)
    return tmp_path


def difference(document, measure, run="noisy"):
    [row] = [row for row in document["differences"] if (row["run"], row["measure"]) == (run, measure)]
    return row


def slow_mean(folder, seed, uids):
    """Mean of A(f) - A(g) over pairs, a pair at a time."""
    table = pl.read_parquet(folder / "seed_scores.parquet")
    values = [row["f"] - row["g"] for row in table.iter_rows(named=True) if row["seed"] == seed and row["uid"] in uids]
    assert len(values) == len(uids)
    return math.fsum(values) / len(values)


def slow_halved(folder, seed, candidates, independent):
    """Half the difference of the means over candidates and over independent pairs."""
    return (slow_mean(folder, seed, candidates) - slow_mean(folder, seed, independent)) / 2


def uids(role, kept=None):
    return {f"{role[0]}{k:02d}" for k in range(SIZES[role] if kept is None else kept)}


def slow_paired(values, base):
    """Mean difference and its t interval, from the definition."""
    d = [a - b for a, b in zip(values, base, strict=True)]
    mean = math.fsum(d) / len(d)
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in d) / (len(d) - 1))
    half = T_975[len(d) - 1] * sd / math.sqrt(len(d))
    return mean, mean - half, mean + half


def test_differences_are_paired_by_seed(runs):
    document = compare_runs([runs / "plain", runs / "noisy"])
    own, mirror = uids("candidate"), uids("independent")
    groups = {
        "clipmem": (16, lambda run, seed: slow_halved(run, seed, own, mirror)),
        "clipmem candidates": (8, lambda run, seed: slow_mean(run, seed, own)),
        "clipmem mismatched": (2, lambda run, seed: slow_mean(run, seed, {"c00", "c01"})),
        "clipmem held-out": (6, lambda run, seed: slow_mean(run, seed, uids("external"))),
    }
    assert [row["measure"] for row in document["differences"] if row["kind"] == "memorization"] == list(groups)
    for measure, (n, mean) in groups.items():
        values, base = ([mean(runs / name, seed) for seed in SEEDS] for name in ("noisy", "plain"))
        row = difference(document, measure)
        np.testing.assert_allclose(row["values"], values, atol=1e-12)
        found = row["difference"], row["low"], row["high"]
        np.testing.assert_allclose(found, slow_paired(values, base), atol=1e-12)
        assert (row["n"], row["seeds"], row["kind"]) == (n, 3, "memorization")
    for metric in METRICS:
        there = [
            json.loads((runs / name / "evaluate" / "utility.json").read_text())["metrics"]["f"][metric]["by_seed"]
            for name in ("noisy", "plain")
        ]
        row = difference(document, metric)
        np.testing.assert_allclose([row["difference"], row["low"], row["high"]], slow_paired(*there), atol=1e-12)
    p = np.array([row["p"] for row in document["differences"]])
    np.testing.assert_array_equal([row["p_holm"] for row in document["differences"]], holm(p))


def test_a_run_against_its_own_copy_does_not_differ(tmp_path):
    for name in ("plain", "copy"):
        build(tmp_path / name)
    document = compare_runs([tmp_path / "plain", tmp_path / "copy"])
    assert {row["difference"] for row in document["differences"]} == {0.0}
    assert {(row["low"], row["p_holm"]) for row in document["differences"]} == {(None, None)}
    assert document["pareto"]["linear_probe_acc1"]["front"] == ["plain", "copy"]


def test_cost_is_a_ratio_over_models(runs):
    document = compare_runs([runs / "plain", runs / "noisy"])
    cost = {row["measure"]: row for row in document["cost"]}
    assert cost["pairs/s a model"]["ratio"] == pytest.approx(0.5)
    assert cost["training seconds a model"]["ratio"] == pytest.approx(2.0)
    assert cost["peak memory, MiB"]["mean"] == pytest.approx(1024, abs=1e-3)
    assert cost["seconds of all stages"]["ratio"] == 1.0  # the report's seconds are not among them
    rates = [1000.0 * (1 + 0.01 * seed + 0.02 * g) for g in (0, 1) for seed in SEEDS]
    assert cost["pairs/s a model"]["baseline"] == pytest.approx(sum(rates) / 6)
    build(runs / "elsewhere", processor="another")
    document = compare_runs([runs / "plain", runs / "elsewhere"])
    assert document["cost"] == []
    assert {"kind": "other_machine"} in document["notes"]
    build(runs / "older", memory=None)
    names = {row["measure"] for row in compare_runs([runs / "plain", runs / "older"])["cost"]}
    assert names == {"training seconds a model", "pairs/s a model", "seconds of all stages"}


def test_the_front_and_what_differs(runs):
    build(runs / "worse", "mitigate.captions.count=3", effect=0.9, noise=3, utility=-0.2)
    document = compare_runs([runs / name for name in ("plain", "noisy", "worse")])
    assert document["pareto"]["linear_probe_acc1"]["front"] == ["noisy"]
    assert "image_retrieval_median_rank" not in document["pareto"]  # lower is better there
    assert document["runs"][2]["differs"] == {"mitigate.captions.count": [0, 3]}
    place = document["pareto"]["zero_shot_acc1"]["points"][0]
    assert place == {
        "run": "plain",
        "memorization": {"difference": 0.0, "low": None, "high": None},
        "utility": {"difference": 0.0, "low": None, "high": None},
        "front": False,
    }


def test_removed_pairs_are_left_out_of_both_sides(runs):
    build(runs / "fewer", "mitigate.remove.count=2", "mitigate.remove.by=random", without=("c06", "c07", "i06", "i07"))
    document = compare_runs([runs / "plain", runs / "fewer"])
    both, mirror = uids("candidate", 6), uids("independent", 6)
    row, alone = (difference(document, name, "fewer") for name in ("clipmem", "clipmem candidates"))
    assert (row["n"], alone["n"]) == (12, 6)
    assert row["baseline_values"] == pytest.approx([slow_halved(runs / "plain", k, both, mirror) for k in SEEDS])
    assert alone["baseline_values"] == pytest.approx([slow_mean(runs / "plain", seed, both) for seed in SEEDS])
    assert document["notes"][:2] == [
        {"kind": "fewer_pairs", "run": "fewer", "pairs": 2, "samples_seen": 8, "passes": 1.0},
        {"kind": "common_candidates", "run": "fewer", "n": 6},
    ]
    build(runs / "longer", samples_seen=56, without=("c06", "c07", "i06", "i07"))
    note = compare_runs([runs / "plain", runs / "longer"])["notes"][0]
    assert (note["samples_seen"], round(note["passes"], 2)) == (0, 1.17)


def test_notes_say_what_else_a_comparison_rests_on(runs):
    build(runs / "other", "train.captions=2", start="elsewhere", seeds=(0,), metrics=None)
    build(runs / "one", seeds=(0,))
    assert compare_runs([runs / "one", runs / "other"])["notes"] == [
        {"kind": "other_start", "run": "other"},
        {"kind": "other_captions", "run": "other", "captions": 2, "baseline": 1},
        {"kind": "no_utility", "run": "other"},
        {"kind": "one_seed"},
    ]


REFUSED = [
    ({"data": "e" * 64}, "different data", "eeeeeeeeeeeeeeee"),
    ({"settings": ["score.weight=0.5"]}, "different alignment", "clip with weight 0.5"),
    ({"settings": ["embed.views=3"]}, "different views of the alignment", "3 views, 0 caption edits"),
    ({"settings": ["evaluate.labels=sublabel"]}, "different evaluation", "{'evaluate.labels': 'sublabel'}"),
    ({"seeds": (0, 1)}, "different seeds", "[0, 1]"),
    ({"protocol": "subsample"}, "run folder ROOT/other", "protocol 'subsample'"),
    (
        {"without": [f"c{k:02d}" for k in range(8)], "samples_seen": 56},
        "different candidates",
        "none of the 8 candidates",
    ),
    (
        {"without": [f"i{k:02d}" for k in range(8)]},
        "different independent pairs",
        "none of the 8 independent pairs",
    ),
]


def refused(*arguments, **settings):
    with pytest.raises(InputError) as error:
        compare_runs(*arguments, **settings)
    return error.value


@pytest.mark.parametrize(("change", "what", "got"), REFUSED)
def test_unfair_comparisons_are_refused(tmp_path, change, what, got):
    build(tmp_path / "plain")
    settings = change.get("settings", ())
    build(tmp_path / "other", *settings, **{key: value for key, value in change.items() if key != "settings"})
    error = refused([tmp_path / "plain", tmp_path / "other"])
    assert error.what.replace(str(tmp_path), "ROOT").endswith(what)
    assert error.got == got
    assert str(tmp_path / "plain") in error.expected or "protocol" in change


@pytest.mark.parametrize("change", [{"planted": 4}, {"without": ("e00",)}])
def test_another_split_is_refused(tmp_path, change):
    build(tmp_path / "plain")
    build(tmp_path / "other", **change)
    error = refused([tmp_path / "plain", tmp_path / "other"])
    assert error.what.endswith("different split")
    assert error.expected.startswith("28 pairs, ")


def test_the_published_scale_needs_one_normalizer(runs):
    pair = [runs / "plain", runs / "noisy"]
    error = refused(pair, measure="clipmem_norm")
    assert (error.what.rpartition("different ")[2], error.got) == ("normalizer of clipmem_norm", "1.5")
    build(runs / "same", noise=5)
    plain = difference(compare_runs([pair[0], runs / "same"]), "clipmem", "same")
    norm = difference(compare_runs([pair[0], runs / "same"], measure="clipmem_norm"), "clipmem_norm", "same")
    assert norm["difference"] == pytest.approx(plain["difference"] / 1.6)
    assert refused(pair, measure="sslmem").what == "measure"


def test_what_is_no_comparison(runs):
    assert refused([runs / "plain"]).got == "1 run"
    assert refused([runs / "plain", runs / "noisy", runs / "plain"]).got == f"['{runs / 'plain'}'] twice"
    build(runs / "more" / "plain")
    assert refused([runs / "plain", runs / "more" / "plain"]).got == "two runs named ['plain']"
    (runs / "noisy" / "stages" / "report.json").unlink()
    assert refused([runs / "plain", runs / "noisy"]).got == "a run that is not finished"


def printed(document, width):
    console = Console(width=width, record=True, file=io.StringIO())
    token = VERBOSE.set(True)
    print_screen("comparison", document, console, "Page: out/index.html")
    VERBOSE.reset(token)
    return console.export_text()


def test_the_mean_cancels_what_makes_f_better_than_g(tmp_path):
    # f of the other run is better on all pairs, and differs so by seed: C, I, S and E rise alike
    run = read_finished(build(tmp_path / "plain"))
    shift = pl.Series([0.3, -0.2, 0.9]).gather(run.seed_scores["seed"])
    better = read_finished(build(tmp_path / "better"))
    better.tables["seed_scores"] = run.seed_scores.with_columns(f=pl.col("f") + shift)
    document = compare_finished([run, better])
    assert difference(document, "clipmem", "better")["difference"] == pytest.approx(0, abs=1e-12)
    for name in ("candidates", "mismatched", "held-out"):
        assert difference(document, f"clipmem {name}", "better")["difference"] == pytest.approx(1 / 3)
    # without independent pairs there is nothing to cancel it with
    assert run.halved(run.uids("candidate"), set()) == run.memorization(run.uids("candidate"))
    assert run.memorization(set()) == run.halved(set(), run.uids("independent")) == []


def test_wordings_have_a_row_of_their_own_and_decide_if_all_runs_have_them(tmp_path):
    build(tmp_path / "plain", wordings=0.3)
    build(tmp_path / "more", "mitigate.captions.count=5", effect=0.4, wordings=0.5, noise=2, utility=0.2)
    document = compare_runs([tmp_path / "plain", tmp_path / "more"])
    own, mirror = uids("candidate"), uids("independent")
    row = difference(document, "clipmem_wordings", "more")
    for key, name in (("values", "more"), ("baseline_values", "plain")):
        table = pl.read_parquet(tmp_path / name / "seed_scores.parquet")
        for seed, value in zip(SEEDS, row[key], strict=True):
            here = table.filter(seed=seed).select("uid", d=pl.col("f_wordings") - pl.col("g_wordings")).rows()
            c, i = ([d for uid, d in here if uid in role] for role in (own, mirror))
            assert value == pytest.approx((sum(c) / len(c) - sum(i) / len(i)) / 2)
    # lower on the captions that were scored, higher over all captions: no mitigation
    assert side_of(difference(document, "clipmem", "more")) == "below"
    assert side_of(row) == "above"
    assert document["primary"]["memorization"] == "clipmem_wordings"
    assert document["dominates"][0]["dominates"] == "no"
    assert document["pareto"]["linear_probe_acc1"]["points"][1]["memorization"]["difference"] == row["difference"]
    assert "over all captions" in " ".join(printed(document, 100).split())
    # the published scale has one normalizer, of the scores on the captions that were scored
    build(tmp_path / "same", wordings=0.3, noise=3)
    norm = compare_runs([tmp_path / "plain", tmp_path / "same"], measure="clipmem_norm")
    assert "clipmem_wordings" not in {row["measure"] for row in norm["differences"]}
    # without them in one run, and with a value missing
    build(tmp_path / "less", effect=0.4, noise=4)
    document = compare_runs([tmp_path / name for name in ("plain", "more", "less")])
    assert {"kind": "no_wordings", "runs": ["less"]} in document["notes"]
    assert document["primary"]["memorization"] == "clipmem"
    run = read_finished(tmp_path / "plain")
    holes = pl.when(uid="c03", seed=1).then(None).otherwise("f_wordings").alias("f_wordings")
    run.tables["seed_scores"] = run.seed_scores.with_columns(holes)
    assert run.memorization(own, wordings=True) == run.halved(own, mirror, "clipmem_wordings") == []
    assert len(run.memorization(mirror, wordings=True)) == 3


def test_other_lengths_captions_and_wordings_are_compared_with_a_note(runs):
    build(runs / "longer", epochs=5)
    build(runs / "both", epochs=6, without=("c07", "i07"))
    notes = compare_runs([runs / name for name in ("plain", "longer", "both")])["notes"]
    assert notes == [
        {"kind": "other_length", "run": "longer", "samples_seen": 70, "baseline": 56, "passes": 1.25},
        {"kind": "fewer_pairs", "run": "both", "pairs": 1, "samples_seen": -22, "passes": 1.5},
        {"kind": "other_length", "run": "both", "samples_seen": 78, "baseline": 56, "passes": 1.5},
        {"kind": "common_candidates", "run": "both", "n": 7},
    ]


@pytest.mark.parametrize(
    ("utility", "baseline", "chance", "useful"),
    [(0.31, 0.5, 0.1, True), (0.29, 0.5, 0.1, False), (0.1, 0.1, 0.1, False), (0.05, 0.06, 0.1, False),
     (0.2, 0.1, 0.1, True), (0.01, 0.9, None, True)],
)  # fmt: skip
def test_a_useful_run_keeps_half_of_the_distance_from_chance(utility, baseline, chance, useful):
    assert is_useful(utility, baseline, chance) is useful


def test_a_run_near_chance_is_not_on_the_front(tmp_path):
    chance = {"linear_probe_acc1": 0.1}
    build(tmp_path / "plain", chance=chance)
    build(tmp_path / "noise", "mitigate.text_noise.std=0.3", effect=0.05, noise=2, utility=-0.38, chance=chance)
    build(tmp_path / "mild", "mitigate.text_noise.std=0.1", effect=0.5, noise=3, utility=-0.1, chance=chance)
    document = compare_runs([tmp_path / name for name in ("plain", "noise", "mild")])
    found = document["pareto"]["linear_probe_acc1"]
    noise = document["runs"][1]["utility"]["linear_probe_acc1"]
    assert found["left_off"] == [{"run": "noise", "reason": "near_chance", "utility": pytest.approx(np.mean(noise))}]
    assert (found["front"], found["chance"]) == (["mild", "plain"], 0.1)
    assert [point["front"] for point in found["points"]] == [True, False, True]
    # a metric whose chance is not known has no rule
    assert document["pareto"]["zero_shot_acc1"]["left_off"] == []
    assert "noise" in document["pareto"]["zero_shot_acc1"]["front"]
    assert "noise is left off" in " ".join(printed(document, 100).split())


def row_of(difference, low, high, p=0.01):
    ends = (end if end is None else float(end) for end in (low, high))
    return dict(zip(("difference", "low", "high", "p"), (difference, *ends, p), strict=True))


@pytest.mark.parametrize(
    ("memorization", "utility", "answer", "p"),
    [
        (row_of(-1, -2, -0.5, 0.02), row_of(1, 0.5, 2, 0.03), "yes", 0.03),
        (row_of(-1, -2, -0.5, 0.02), row_of(1, -0.5, 2, 0.2), "inconclusive", 0.2),
        (row_of(1, -1, 3, 0.3), row_of(1, 0.5, 2, 0.03), "inconclusive", 1.0),
        (row_of(-1, -2, -0.5), row_of(-1, -2, -0.5), "no", 1.0),
        (row_of(1, 0.5, 2), row_of(1, 0.5, 2), "no", 1.0),
        (row_of(-1, None, None, None), row_of(1, 0.5, 2), "inconclusive", None),
    ],
)
def test_a_run_dominates_if_both_intervals_exclude_0(memorization, utility, answer, p):
    assert dominance(memorization, utility) == {"dominates": answer, "p": p}


def test_dominating_runs_are_corrected_over_runs(runs):
    build(runs / "best", "mitigate.captions.count=3", effect=0.2, noise=3, utility=0.3)
    document = compare_runs([runs / name for name in ("plain", "noisy", "best")])
    found = document["dominates"]
    for row in found:
        both = [difference(document, name, row["run"]) for name in ("clipmem", "linear_probe_acc1")]
        assert dominance(*both) == {"dominates": row["dominates"], "p": row["p"]}
    assert found[1]["dominates"] == "yes"
    assert [row["p_holm"] for row in found] == holm(np.array([row["p"] for row in found])).tolist()
    assert "It dominates plain" in " ".join(printed(document, 100).split())


def test_one_utility_decides(runs):
    assert compare_runs([runs / "plain", runs / "noisy"])["primary"]["utility"] == "linear_probe_acc1"
    document = compare_runs([runs / "plain", runs / "noisy"], utility="zero_shot_acc1")
    assert document["primary"] == {"memorization": "clipmem", "utility": "zero_shot_acc1"}
    assert [name for name, _ in answer(document, "noisy").parts] == ["memorization", "zero-shot", "linear probe"]
    retrieval = {"retrieval_recall@5": 0.2, "linear_probe_acc1": 0.4}
    build(runs / "a", metrics=retrieval)
    build(runs / "b", metrics={"retrieval_wordings_recall@5": 0.2, **retrieval}, noise=2)
    assert compare_runs([runs / "b", runs / "a"])["primary"]["utility"] == "retrieval_recall@5"
    assert compare_runs([runs / "plain", runs / "a"])["primary"]["utility"] == "linear_probe_acc1"
    build(runs / "c", metrics={"image_retrieval_median_rank": 3.0, "alignment_loss": 0.2})
    assert compare_runs([runs / "c", runs / "plain"])["primary"]["utility"] == ""
    for name in ("linear_probe", "image_retrieval_median_rank", "retrieval_recall@5"):
        error = refused([runs / "plain", runs / "noisy"], utility=name)
        assert (error.what, error.got) == ("--utility", repr(name))
        assert error.expected == "linear_probe_acc1, zero_shot_acc1"


@pytest.mark.slow
def test_files_page_and_terminal(runs, tmp_path):
    hostile = runs / "<b>$x_1$"
    build(hostile, "mitigate.captions.count=5", effect=0.4, noise=4, utility=0.1)
    out = tmp_path / "out"
    document = write_compared([runs / "plain", runs / "noisy", hostile], out)
    assert json.loads((out / "compare.json").read_text()) == document
    table = pl.read_parquet(out / "compare.parquet")
    assert table.height == len(document["differences"]) + len(document["cost"])
    assert set(table["kind"]) == {"memorization", "utility", "cost"}
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page == render("comparison", document)
    assert "<b>$x_1$" not in page
    assert "&lt;b&gt;$x_1$" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert page.count("<svg") == 2
    name, memory = answer(document, "noisy").parts[0]
    assert (name, side_of(memory)) == ("memorization", "below")
    text = printed(document, width=140)
    assert max(len(line) for line in text.splitlines() if not line.startswith("Page: ")) <= 100
    for width in (80, 100):
        row = next(line for line in printed(document, width).splitlines() if line.startswith(" held-out"))
        assert "]" in row  # the interval is whole
    # again, with the same bytes
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    write_compared([runs / "plain", runs / "noisy", hostile], out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    with pytest.raises(InputError, match="a folder with other files"):
        write_compared([runs / "plain", runs / "noisy"], runs)


# ---- curves along a setting


def test_a_curve_has_the_mean_of_each_run_with_its_t_interval(tmp_path):
    alphas, seeds = (1.0, 0.0, 0.25), (0, 1, 2, 3)
    for k, alpha in enumerate(alphas):
        more = [] if alpha == 1 else [f"mitigate.interpolate.alpha={alpha}"]
        build(tmp_path / f"run {alpha}", "model.pretrained=base", *more, effect=0.1 + alpha, noise=k, seeds=seeds)
    folders = [tmp_path / f"run {alpha}" for alpha in alphas]
    document = compare_runs(folders, confidence=0.9, along="mitigate.interpolate.alpha")
    rows = [row for row in document["curve"]["rows"] if row["measure"] == "zero_shot_acc1"]
    assert [(row["value"], row["run"]) for row in rows] == [(a, f"run {a}") for a in sorted(alphas)]
    by_name = {run["run"]: run for run in document["runs"]}
    for measure in ("clipmem", "zero_shot_acc1", "image_retrieval_median_rank"):
        for row in (row for row in document["curve"]["rows"] if row["measure"] == measure):
            run = by_name[row["run"]]
            values = run["clipmem"] if measure == "clipmem" else run["utility"][measure]
            low, high = scipy.stats.t.interval(0.9, 3, np.mean(values), scipy.stats.sem(values))
            assert (row["mean"], row["low"], row["high"]) == pytest.approx((np.mean(values), low, high))
    assert compare_runs(folders, confidence=0.9)["curve"] == document["curve"]  # they differ in this setting alone
    assert "curve" not in compare_runs(folders[:2])
    assert document["runs"][1]["differs"] == {"mitigate.interpolate.alpha": [1.0, 0.0]}


def audited(name: str, auc: float, share: float | None = 0.5, confidence: float = 0.95, n: int = 200) -> Run:
    """Return an audit whose risks are .5 and false alarms .1."""
    entry = Rate(mean=auc, low=auc - 0.03, high=auc + 0.04)
    attack = Attack(auc=entry, tpr=[entry, Rate(mean=auc / 10, low=None, high=None)])
    pairs = pl.DataFrame({"uid": [f"{k}" for k in range(n)], "risk": [0.5] * n, "false_alarm": [0.1] * n})
    risk = Risk(attack="lira", share=share, pairs=2)
    run = Run(name)
    run.tables[PAIRS] = pairs
    shape = {"format": 1, "models": 8, "pairs": n, "seen": [4, 4], "nonmembers": n // 2, "roc": {}}
    about = {"confidence": confidence, "attacks": {"lira": attack}, "risk": risk}
    vars(run)["audit"] = Audit.model_validate(shape | about)
    return run


def test_differences_and_their_intervals() -> None:
    found = {row["measure"]: row for row in compare_audits([audited("a", 0.8), audited("b", 0.7, 0.25)])["audits"]}
    auc = found["auc lira"]
    assert auc["difference"] == pytest.approx(-0.1)
    assert (auc["low"], auc["high"]) == pytest.approx((-0.1 - sqrt(0.03**2 + 0.04**2), -0.1 + sqrt(0.03**2 + 0.04**2)))
    assert found["tpr lira"]["difference"] == pytest.approx(-0.01)
    assert found["tpr lira"]["low"] is None
    # half of the advantage .4 x 200 is on 2 pairs: 20 each, more than a share can be; the formula is linear
    assert found["exposed"]["baseline"]["mean"] == pytest.approx(0.5 * 0.4 * 200 / 2)
    assert found["exposed"]["difference"] == pytest.approx(-0.25 * 0.4 * 200 / 2)


def test_no_exposed_pairs_where_nothing_is_at_risk() -> None:
    rows = compare_audits([audited("a", 0.5, None), audited("b", 0.5)])["audits"]
    assert "exposed" not in {row["measure"] for row in rows}


@pytest.mark.parametrize("other", [audited("b", 0.7, n=199), audited("b", 0.7, confidence=0.9)])
def test_other_pairs_or_levels_are_refused(other: Run) -> None:
    with pytest.raises(InputError) as error:
        compare_audits([audited("a", 0.8), other])
    assert error.value.what == "audit of b"
