"""Alignment and uniformity of embeddings against loops."""

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.measure.hypersphere import Hypersphere, alignment_distances, potentials
from clipmem.measure.retrieval import Identity, identity_of
from clipmem.models.passes import Embeddings
from tests.reference import loops_utility as reference
from tests.unit.measure.test_retrieval import study

HYPERSPHERE = Hypersphere()


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_the_loop(seed):
    image, text, pair, images, captions = study(seed)
    distances = alignment_distances(image[:, None], text, pair)
    assert distances.mean() == pytest.approx(reference.alignment_loss(image.tolist(), text.tolist(), pair.tolist()))
    for cells in (1, 20, 10**6):
        loss = np.log(potentials(image, cells=cells).mean())
        assert loss == pytest.approx(reference.uniformity_loss(image.tolist()), rel=1e-10)
    same = identity_of([name + "0" * 16 for name in images], captions)
    found = HYPERSPHERE.measure({"f": [Embeddings(image[:, None], text, pair)]}, same, np.arange(9), 0.95)["f"]
    distinct = [text[int(np.flatnonzero(same.text == k)[0])].tolist() for k in sorted(set(same.text.tolist()))]
    assert found["text_uniformity_loss"]["mean"] == pytest.approx(reference.uniformity_loss(distinct))
    assert found["alignment_loss"]["mean"] == pytest.approx(distances.mean())


def test_distances_lie_in_their_ranges_and_reach_their_ends():
    one, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]])
    assert alignment_distances(one[:, None], far, torch.zeros(1, dtype=torch.long)).tolist() == [4.0]
    assert alignment_distances(one[:, None], 5 * one, torch.zeros(1, dtype=torch.long)).tolist() == [0.0]
    assert np.log(potentials(torch.cat([one, far])).mean()) == pytest.approx(-8)
    assert np.log(potentials(torch.cat([one, one])).mean()) == pytest.approx(0)


def test_one_distinct_caption_has_no_uniformity():
    one = Embeddings(torch.eye(3)[:, None], torch.eye(3), torch.arange(3))
    found = HYPERSPHERE.measure({"f": [one]}, Identity(np.arange(3), np.zeros(3, dtype=int)), np.arange(3), 0.95)
    assert list(found["f"]) == ["alignment_loss", "image_uniformity_loss"]
    with pytest.raises(InputError) as error:
        potentials(torch.ones(1, 2))
    assert (error.value.what, error.value.got) == ("embeddings", "1 row")


def test_the_interval_of_uniformity_covers():
    rng = np.random.default_rng(0)

    def draw(n):
        return torch.from_numpy(rng.normal(size=(n, 4)) + np.array([1.0, 0, 0, 0]))

    truth, covered = float(np.log(potentials(draw(6000)).mean())), 0
    for _ in range(200):
        image = draw(60)
        same = Identity(np.arange(60), np.arange(60))
        found = HYPERSPHERE.measure(
            {"f": [Embeddings(image[:, None], image, torch.arange(60))]}, same, np.arange(60), 0.9
        )
        entry = found["f"]["image_uniformity_loss"]
        covered += entry["low"] <= truth <= entry["high"]
    assert 0.84 <= covered / 200 <= 0.96
