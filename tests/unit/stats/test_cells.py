"""Near rows among many: means against a loop, exact where all cells are compared, and the list that comes of it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.curation.ranking import curate
from clipmem.functional import auroc
from clipmem.scoring import evidence
from clipmem.stats.agreement import TEMPERATURE, directions, directions_into
from clipmem.stats.cells import PROBES, Cells
from tests.unit.curation.test_ranking import drawings, with_model


def unit(n, d, seed):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def loop(query, value, others, i, temperature):
    """P_i and the nearest rows, one product at a time."""
    products = {int(j): float(np.dot(query[i], query[j])) for j in others if j != i}
    largest = max(products.values())
    weights = {j: np.exp((one - largest) / temperature) for j, one in products.items()}
    mean = sum(weight * value[j] for j, weight in weights.items()) / sum(weights.values())
    return mean, sorted(products, key=lambda j: -products[j])


@settings(max_examples=25)
@given(st.integers(4, 60), st.integers(2, 5), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_means_against_a_loop(n, d, probes, seed, grouped):
    query, value = (x.astype(np.float16).astype(np.float32) for x in (unit(n, d, seed), unit(n, 3, seed + 1)))
    group = np.random.default_rng(seed).integers(max(2, n // 3), size=n) if grouped else np.arange(n)
    cells = Cells(query, probes=probes)
    compared = {int(i): cells.order[others].tolist() for places, others in cells for i in cells.order[places]}
    assert sorted(compared) == list(range(n))  # every row once
    seen = set()
    for found in cells.means(value, 2, group if grouped else None, temperature=0.07):
        for row, mean, near in zip(found.rows, found.mean, found.near, strict=True):
            assert row in compared[int(row)]
            others = [j for j in compared[int(row)] if group[j] != group[row]]
            if not others:
                assert (mean == 0).all()
                assert (near == -1).all()
                continue
            expected, order = loop(query, value, others, row, 0.07)
            np.testing.assert_allclose(mean, expected, atol=2e-5)
            assert near.tolist() == ([*order[:2], -1])[:2]
            seen.add(int(row))
    assert seen or n < 8


def test_all_cells_are_all_rows():
    query, value = (x.astype(np.float16).astype(np.float32) for x in (unit(50, 4, 0), unit(50, 3, 1)))
    found, near = np.zeros((50, 3)), np.zeros(50)
    for one in Cells(query, probes=50).means(value, 1, temperature=0.07):
        found[one.rows], near[one.rows] = one.mean, one.near[:, 0]
    means, orders = zip(*(loop(query, value, range(50), i, 0.07) for i in range(50)), strict=True)
    np.testing.assert_allclose(found, means, atol=2e-5)
    assert near.tolist() == [order[0] for order in orders]


def test_half_precision_changes_little():
    """Of features of 512 numbers: cosines by less than 1e-3, means by less than a fiftieth of their size."""
    query, value = unit(300, 512, 0), unit(300, 400, 1)
    query = (query + unit(6, 512, 2)[np.arange(300) % 6] * 1.5).astype(np.float32)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    halves = query.astype(np.float16).astype(np.float32)
    assert np.abs(halves @ halves.T - query @ query.T).max() < 1e-3
    for one in Cells(query, probes=50).means(value, 1, temperature=TEMPERATURE):
        for row, mean in zip(one.rows, one.mean, strict=True):
            expected, _ = loop(query, value, range(300), row, TEMPERATURE)
            assert np.linalg.norm(mean - expected) < 0.02 * np.linalg.norm(expected)


def test_no_cell_takes_a_large_share():
    """Of rows around many directions: by distance, a center near 0 is near all of them."""
    stream, n = np.random.default_rng(0), 6000
    query = stream.normal(size=(1500, 256))[stream.integers(1500, size=n)] + stream.normal(size=(n, 256))
    query = (query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32)
    sizes = [len(places) for places, _ in Cells(query)]
    assert sum(sizes) == n
    assert max(sizes) < 0.02 * n


def test_near_rows_are_compared_where_there_are_more_things_than_cells():
    """1,500 things in about 570 cells; those of MiniBatchKMeans leave .74 of the nearest."""
    rng, n = np.random.default_rng(0), 20_000
    rows = rng.normal(size=(1500, 512)).astype(np.float32)[rng.integers(1500, size=n)]
    rows += rng.normal(size=rows.shape).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    some = rng.permutation(n)[:300]
    products = rows[some] @ rows.T
    products[np.arange(len(some)), some] = -1
    nearest = dict(zip(some.tolist(), np.argsort(-products, axis=1)[:, :8], strict=True))
    cells, compared = Cells(rows, probes=PROBES), dict[int, np.ndarray]()
    for places, others in cells:
        compared |= {row: cells.order[others] for row in cells.order[places].tolist() if row in nearest}
    assert np.mean([np.isin(nearest[row], others).mean() for row, others in compared.items()]) > 0.88
    assert np.mean([len(others) for others in compared.values()]) < 0.08 * n
    sizes = [len(others) for _, others in Cells(rows)]  # of so few, more are compared
    assert 4096 <= min(sizes) < max(sizes) < 4400


def test_any_number_of_threads_gives_the_same_and_is_restored():
    import torch

    before, found = torch.get_num_threads(), []
    cells, value = Cells(unit(400, 8, 0)), unit(400, 3, 1)
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(list(cells.means(value, 2, temperature=0.07)))
            assert torch.get_num_threads() == count
            next(cells.means(value, 2, temperature=0.07))  # not to the end
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_directions_are_the_same_in_parts():
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    x[7] = x.mean(axis=0)
    import torch

    expected = directions(torch.from_numpy(x), "x").numpy()
    found = directions_into(np.empty((100, 4), dtype=np.float32), x, "x", block=7)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(InputError):
        directions_into(np.empty((5, 2), dtype=np.float32), np.ones((5, 2)), "x", block=2)
    with pytest.raises(InputError):
        directions_into(np.empty((5, 2), dtype=np.float32), np.full((5, 2), np.nan), "x", block=2)


@pytest.mark.slow
@pytest.mark.parametrize("model", [False, True])
def test_a_list_of_many_pairs_is_nearly_that_of_all(monkeypatch, model):
    signals, wrong = drawings(n=600, wrong=60)
    signals = with_model(signals) if model else signals
    exact = curate(signals)
    evidence._KNOWN.clear()
    monkeypatch.setattr("clipmem.scoring.evidence.EXACT", 100)
    near = curate(signals)
    areas = [auroc(one.table["score"].to_numpy(), wrong).mean for one in (exact, near)]
    assert areas[1] == pytest.approx(areas[0], abs=0.02)
    assert areas[1] > 0.9
    # ridge regression does not depend on neighbors
    for name in ("left_out_score", "vague_score"):
        np.testing.assert_allclose(near.table[name].to_numpy(), exact.table[name].to_numpy(), atol=1e-5)


@pytest.fixture
def calls(monkeypatch):
    """Compare near cells from 100 pairs on, and return the ridge regressions that ran."""
    found, real = [], evidence.leave_one_out
    monkeypatch.setattr("clipmem.scoring.evidence.EXACT", 100)

    def counted(features, targets, **settings):
        found.append(targets.shape)
        return real(features, targets, **settings)

    monkeypatch.setattr("clipmem.scoring.evidence.leave_one_out", counted)
    return found


@pytest.mark.slow
def test_an_interrupted_comparison_of_many_pairs_goes_on(monkeypatch, tmp_path, calls):
    """What was finished is not computed again, and the list is the same; other data share nothing."""
    signals = with_model(drawings(n=600, wrong=60)[0])
    whole = curate(signals).table
    assert len(calls) == 2
    place, ran = replace(signals, scratch=tmp_path / "comparing"), []
    for name in ("Cells", "directions_into"):
        real = getattr(evidence, name)
        monkeypatch.setattr(evidence, name, lambda *own, real=real, name=name: ran.append(name) or real(*own))
    calls.clear()
    stopped = evidence.leave_one_out

    def stop_at_the_second(features, targets, **settings):
        if len(calls) == 1:
            raise KeyboardInterrupt
        return stopped(features, targets, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(evidence, "leave_one_out", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            curate(place)
    assert (len(calls), ran) == (1, ["directions_into"] * 2 + ["Cells"] * 2)
    # as another process would: nothing in memory
    again = curate(replace(place)).table
    assert again.equals(whole)
    assert (len(calls), ran[4:]) == (2, ["directions_into"] + ["Cells"] * 2)  # those of the model's embeddings
    assert curate(replace(place)).table.equals(whole)
    assert len(calls) == 2
    other = [["another"], *signals.captions[1:]]
    changed = curate(replace(place, captions=other)).table
    assert len(calls) == 4
    assert changed.equals(curate(replace(signals, captions=other)).table)


def test_a_models_embeddings_that_are_the_evidence_are_compared_once(monkeypatch, tmp_path, calls):
    """Stored embeddings without images: the agreement is that of the evidence, found again."""
    signals = replace(with_model(drawings(n=300, wrong=30)[0]), pixels=None, scratch=tmp_path / "comparing")
    compared, real = [], evidence.Cells
    monkeypatch.setattr(evidence, "Cells", lambda rows: compared.append(rows.shape) or real(rows))
    known = evidence.Evidence(signals)
    both = known.agreement(signals.image)
    assert known.features == "embeddings"
    assert len(compared) == 2
    for agreement, fit in zip(both, known.fits[:2], strict=True):
        np.testing.assert_allclose(agreement, fit, atol=1e-6)


@pytest.mark.parametrize(("n", "probes"), [(1, 2), (5, 0)])
def test_too_few(n, probes):
    with pytest.raises(InputError):
        Cells(unit(n, 2, 0), probes=probes)
