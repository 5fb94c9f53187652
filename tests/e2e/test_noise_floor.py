"""Of held-out pairs, whose true score is 0, 95 % are within what is shown beside a score, in studies of every kind."""

import numpy as np
import pytest

import clipmem
from clipmem.functional import noise_floor
from tests.tiny import tiny_recipe

SHORT = ("train.epochs=1", "split.external=200", "split.planted=0", "score.draws=100")
STUDIES = {
    "two seeds": ("train.seeds=[0,1]",),
    "one seed": ("train.seeds=[2]", "split.seed=1"),
    "longer": ("train.seeds=[3]", "split.seed=2", "train.epochs=4"),
    "subsample": ("protocol=subsample", "subsample.models=6", "split.seed=3"),
    "leave-one-out": ("protocol=leave-one-out", "leave_one_out.pairs=3", "train.seeds=[4]", "split.seed=4"),
}
SPLITS = 200  # of the held-out pairs into halves


@pytest.fixture(
    scope="module",
    params=[
        "two seeds",
        "subsample",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("one seed", "longer", "leave-one-out")),
    ],
)
def run(request, tmp_path_factory):
    return clipmem.run(tiny_recipe(*SHORT, *STUDIES[request.param]), tmp_path_factory.mktemp("run") / "run")


def held_out(run):
    """Return the scores of the held-out pairs by seed, shape (seed, n); one row for unpaired models."""
    order = run.scores.filter(role="external")["uid"]
    by_seed = run.seed_scores.filter(run.seed_scores["uid"].is_in(order.implode())).drop_nulls(["f", "g"])
    if by_seed.height < len(order):
        return run.scores.filter(role="external")["clipmem"].to_numpy()[None]
    parts = by_seed.partition_by("seed", maintain_order=True)
    return np.stack([(part["f"] - part["g"]).to_numpy() for part in parts])


@pytest.mark.slow
def test_95_percent_of_other_held_out_pairs_are_within_the_floor_of_half_of_them(run):
    control, rng, inside = held_out(run), np.random.default_rng(0), []
    for _ in range(SPLITS):
        half, rest = np.array_split(rng.permutation(200), 2)
        floor = noise_floor(control[:, half])
        inside.append(np.abs(control[:, rest].mean(axis=0) - floor.center) <= floor.half_width)
    assert 0.94 <= np.mean(inside) <= 0.98  # expected 0.95 to 0.96


@pytest.mark.slow
def test_the_floor_is_that_of_all_held_out_pairs_and_far_above_their_standard_errors(run):
    shown, control = run.summary.noise_floor, held_out(run)
    assert shown.document() == pytest.approx(noise_floor(control)._asdict())
    assert np.mean(np.abs(control.mean(axis=0) - shown.center) <= shown.half_width) >= 0.95
    assert run.top(3)["noise_floor"].to_list() == [shown.half_width] * 3
    assert f"noise floor ±{shown.half_width:.3f}" in run.report.read_text(encoding="utf-8")
