"""Tests of the halves protocol's design: complementary, balanced, groups together, and its bad input."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.scoring.protocols import protocol_of
from clipmem.scoring.protocols.halves import HALVES
from clipmem.train.recorder import AlignmentRecorder

RECIPE = 'protocol = "halves"\n[split]\nshared = 160\ncandidate = 30\nindependent = 30\nexternal = 40'


def planned(*settings: str, n: int = 220, external: int = 41):
    """Return the protocol, a split table with some groups of two and three, and the design."""
    protocol = protocol_of(load_recipe(RECIPE, settings))
    uids = [f"{k:04d}" for k in range(n + external)]
    groups = [f"g{k // 3}" if k % 10 < 3 else f"s{k}" for k in range(n + external)]
    roles = ["candidate"] * n + ["external"] * external
    splits = pl.DataFrame({"uid": uids, "role": roles, "group": groups}).sample(fraction=1, shuffle=True, seed=1)
    return protocol, splits, protocol.design(splits)


@pytest.mark.parametrize("pairs", [1, 3])
def test_halves_are_complementary_and_of_one_size(pairs: int) -> None:
    """One shadow model of each pair trained on each pair of the pool, and f on all of them."""
    _, splits, design = planned(f"halves.pairs={pairs}")
    pool = set(splits.filter(role="candidate")["uid"])
    f, *halves = design.models
    assert (f.side, set(f.uids)) == ("f", pool)
    assert not design.sign[0].any()
    assert [(one.side, one.seed) for one in halves] == [(side, k) for k in range(pairs) for side in HALVES]
    column = {uid: k for k, uid in enumerate(splits["uid"])}
    for k, (a, b) in enumerate(zip(halves[::2], halves[1::2], strict=True)):
        assert set(a.uids) | set(b.uids) == pool
        assert not set(a.uids) & set(b.uids)
        assert abs(len(a.uids) - len(b.uids)) <= 1
        assert a.largest == b.largest == max(len(a.uids), len(b.uids))
        assert all(design.sign[1 + 2 * k, column[uid]] == 1 for uid in a.uids)
    assert (design.sign[1::2] == -design.sign[2::2]).all()
    assert design.scored.all()
    assert design.seeds == list(range(pairs))


def test_groups_are_in_one_half_and_external_pairs_have_a_placebo() -> None:
    _, splits, design = planned("halves.pairs=4")
    for sign in design.sign[1:]:
        by_group = splits.with_columns(sign=pl.Series(sign)).group_by("group", "role").agg(pl.col("sign").n_unique())
        assert by_group["sign"].max() == 1
    external = (splits["role"] == "external").to_numpy()
    assert abs(int(design.sign[1:, external].astype(int).sum(axis=1).max())) <= 1
    assert len(np.unique(design.sign[1::2], axis=0)) == 4


def test_the_draw_depends_on_the_seed_of_the_split_and_not_on_the_order_of_rows() -> None:
    protocol, splits, design = planned()
    again = protocol.design(splits.sort("uid"))
    assert [one.uids for one in again.models] == [one.uids for one in design.models]
    other = planned("split.seed=1")[2]
    assert other.models[1].uids != design.models[1].uids


def test_only_shadow_models_are_of_the_proxy() -> None:
    _, _, design = planned("halves.proxy=clipmem-i64-t64")
    assert [one.model for one in design.models] == ["", *["clipmem-i64-t64"] * 4]


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("split.shared=100", "[split]"),
        ("halves.estimator=distiled", "pair score"),
        ("halves.pairs=0", "[halves] estimator"),
        ("halves.estimator=margin", "[halves] estimator"),
        ("halves.estimator=hygiene", "[halves] estimator"),
        ("halves.trajectory=a.npz", "[halves] trajectory"),
        ("halves.proxy=clipmem-micro", "[halves] proxy"),
        ("halves.proxy=nothing", "[model] name"),
        ("split.external=100000", "[split]"),
    ],
)
def test_bad_input(setting: str, what: str) -> None:
    """Too few pairs, an unknown estimator, a proxy with other images or none, more pairs than there are."""
    protocol = protocol_of(load_recipe(RECIPE, (setting,)))
    with pytest.raises(InputError) as error:
        protocol.check_pairs(pl.DataFrame({"uid": [str(k) for k in range(1000)]}))
    assert what in error.value.what


@pytest.mark.parametrize("setting", ["split.planted=4", "split.planted_share=0.1"])
def test_an_existing_f_saw_no_planted_captions(setting: str) -> None:
    protocol = protocol_of(load_recipe(RECIPE, ("halves.model=somewhere", setting)))
    with pytest.raises(InputError) as error:
        protocol.check_pairs(pl.DataFrame({"uid": [str(k) for k in range(1000)]}))
    assert error.value.what == "[split] planted"


@pytest.mark.parametrize(
    ("recorded", "got"),
    [(220, ""), (219, "no record of 1 of 220"), (221, "a record of 1 external"), (0, "another or a")],
)
def test_the_record_of_an_existing_f_is_of_the_pool_alone(tmp_path: Path, recorded: int, got: str) -> None:
    file = tmp_path / "record.npz"
    file.write_bytes(b"no archive")
    if recorded:
        AlignmentRecorder([f"{k:04d}" for k in range(recorded)], 1).save(file)
    if not got:
        _, _, design = planned(f"halves.trajectory={file}", "halves.model=somewhere", "halves.pairs=1")
        assert [one.exists for one in design.models] == [True, False, False]
    protocol, splits, _ = planned()
    protocol = protocol_of(load_recipe(RECIPE, (f"halves.trajectory={file}", "halves.model=somewhere")))
    if not got:
        assert protocol.roles(splits)["uid"].to_list() == splits["uid"].to_list()
        return
    with pytest.raises(InputError) as error:
        protocol.roles(splits)
    assert error.value.what == str(file)
    assert error.value.got.startswith(got)
