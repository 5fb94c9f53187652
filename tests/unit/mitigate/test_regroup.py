"""Regrouping of batches against a slow loop, and how often it acts."""

import numpy as np
import pytest

from clipmem.base.errors import InputError
from clipmem.base.mitigations import (
    RegroupSection,
)
from clipmem.mitigate.regroup import Regroup, regroup
from tests.tiny import epoch_batches
from tests.unit.mitigate.test_base import fit
from tests.unit.train.test_loop import N


def slow_regroup(batches, removal_score, share, places):
    """Take slots one by one, the worst first into the batches of `places`."""
    order = [slot for batch in batches for slot in batch]
    room = sum(len(batches[place]) for place in places)
    worst = set(sorted(order, key=lambda slot: (-removal_score[slot], order.index(slot)))[:room])
    laid, own, others = [], [s for s in order if s in worst], [s for s in order if s not in worst]
    for place, batch in enumerate(batches):
        queue = own if place in places else others
        laid.append([queue.pop(0) for _ in batch])
    return laid


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("n", [20, 53])
def test_regroup_against_the_slow_loop(n, share):
    removal_score = np.round(np.random.default_rng(n).normal(size=n), 1)  # with ties
    for epoch in range(4):
        batches = epoch_batches(n, 8, seed=1, epoch=epoch)
        laid = regroup(batches, removal_score, share=share, seed=1, epoch=epoch)
        assert [len(batch) for batch in laid] == [len(batch) for batch in batches]
        assert sorted(np.concatenate(laid)) == list(range(n))
        count = len(batches)
        own = min(count - 1, max(1, round(share * count)))
        means = [removal_score[batch].min() for batch in laid]
        places = set(np.argsort(means, kind="stable")[::-1][:own].tolist())
        assert [batch.tolist() for batch in laid] == slow_regroup(batches, removal_score, share, places)


def test_regroup_places_differ_between_epochs_and_unknown_pairs_come_last():
    removal_score = np.array([np.nan, *range(39)], dtype=float)
    batches, seen = [np.arange(k, 40, 5) for k in range(5)], set()
    for epoch in range(30):
        laid = regroup(batches, removal_score, share=0.2, seed=0, epoch=epoch)
        [place] = [k for k, batch in enumerate(laid) if set(batch) == set(range(32, 40))]
        seen.add(place)
        assert 0 not in laid[place]
    assert seen == set(range(5))


def test_regroup_needs_two_batches():
    with pytest.raises(InputError) as caught:
        regroup([np.arange(4)], np.zeros(4), share=0.5, seed=0, epoch=0)
    assert str(caught.value) == (
        "[mitigate.regroup] share: got one batch an epoch, expected two or more. "
        "Set train.batch_size to less than half of the training pairs."
    )


def test_regroup_hook_acts_every_so_many_epochs(tmp_path):
    hook = Regroup(RegroupSection(share=0.4, every=2, scores="x"), 0, np.arange(N, dtype=float))
    for epoch in range(4):
        batches = epoch_batches(N, 8, seed=0, epoch=epoch)
        changed = [a.tolist() for a in hook.batches(batches, epoch)] != [b.tolist() for b in batches]
        assert changed == (epoch % 2 == 0)
    record, _ = fit(tmp_path, hook)
    assert record["samples_seen"] == 2 * N
