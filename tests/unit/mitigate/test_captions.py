"""Caption sampling: each caption is shown equally often."""

import math
from collections import Counter

import pytest

from clipmem.base.errors import InputError
from clipmem.base.random import derive_seed, uniform
from clipmem.base.recipes import load_recipe
from clipmem.mitigate import CaptionSampling, sample_captions
from clipmem.mitigate.base import captions_in_training
from tests.unit.mitigate.test_base import KEYS


def test_caption_sampling_shows_each_caption_equally_often():
    pairs = [(f"image {k}", [f"{k} {c}" for c in range(5)]) for k in range(100)]
    data, seen = CaptionSampling(pairs, seed=4, keys=KEYS[:100]), Counter()
    for epoch in range(60):
        data.set_epoch(epoch)
        items = [data[k] for k in range(len(data))]
        assert [image for image, _ in items] == [image for image, _ in pairs]
        assert [c for _, c in items] == sample_captions([c for _, c in pairs], KEYS[:100], epoch=epoch, seed=4)
        seen.update(caption.split()[1] for _, caption in items)
    assert sum(seen.values()) == 6000
    assert all(abs(count - 1200) < 5 * math.sqrt(6000 * 0.2 * 0.8) for count in seen.values())


def test_caption_sampling_is_what_the_loop_draws():
    captions = [[f"{k} {c}" for c in range(k % 4 + 1)] for k in range(50)]
    for k, chosen in enumerate(sample_captions(captions, KEYS[:50], epoch=2, seed=9)):
        u = uniform(KEYS[k : k + 1], derive_seed(9, "caption", 2), 1)[0, 0]
        assert chosen == captions[k][int(u * len(captions[k]))]


def test_a_pair_without_captions_is_refused():
    with pytest.raises(InputError) as caught:
        sample_captions([["a"], []], KEYS[:2], epoch=0)
    assert str(caught.value) == "captions of pair 1: got none, expected one or more. Leave the pair out."


def test_captions_in_training_and_in_scores_are_two_settings():
    assert captions_in_training(load_recipe("[train]\ncaptions = 3")) == 3
    assert captions_in_training(load_recipe("[train]\ncaptions = 3\n[mitigate.captions]\ncount = 5")) == 5
