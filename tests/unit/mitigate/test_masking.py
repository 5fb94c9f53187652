"""Text masking against a slow loop: frequency, streams, and in the training loop."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.mitigations import (
    TextMaskingSection,
)
from clipmem.base.random import derive_seed, uniform
from clipmem.mitigate.masking import TextMasking, drop_tokens
from clipmem.train.hooks import Moment
from tests.unit.mitigate.test_base import KEYS, fit


def slow_drop(row, key, probability, seed, step):
    drawn = uniform(np.array([key]), derive_seed(seed, "text mask", step), len(row))[0]
    end = max((place for place, token in enumerate(row) if token), default=0)
    words = list(range(1, end))
    stay = [place for place in words if drawn[place] >= probability]
    if words and not stay:
        stay = [max(words, key=lambda place: drawn[place])]
    kept = [row[0], *(row[place] for place in stay), *([row[end]] if end else [])]
    return kept + [0] * (len(row) - len(kept))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.95])
def test_masking_against_the_slow_loop(probability):
    rng = np.random.default_rng(0)
    tokens = np.zeros((300, 12), dtype=np.int64)
    for row in tokens:
        length = rng.integers(0, 10)
        row[0], row[1 : 1 + length], row[1 + length] = 90, rng.integers(0, 80, length), 91  # 0 may be a word
    found = drop_tokens(torch.from_numpy(tokens), KEYS, probability=probability, seed=3, step=5)
    for row, key, got in zip(tokens.tolist(), KEYS, found.tolist(), strict=True):
        assert got == slow_drop(row, key, probability, 3, 5)


def test_masking_frequency_streams_and_zero():
    tokens = torch.tensor([[90, *range(1, 41), 91]]).repeat(300, 1)
    p, kept = 0.3, Counter()
    for step in range(20):
        found = drop_tokens(tokens, KEYS, probability=p, seed=1, step=step)
        kept.update(token for row in found.tolist() for token in row if 0 < token < 90)
    spread = math.sqrt(6000 * p * (1 - p))
    assert all(abs(kept[token] - 6000 * (1 - p)) < 5 * spread for token in range(1, 41))
    once = drop_tokens(tokens, KEYS, probability=p, seed=1, step=0)
    assert torch.equal(once[7:9], drop_tokens(tokens[7:9], KEYS[7:9], probability=p, seed=1, step=0))
    assert not torch.equal(once, drop_tokens(tokens, KEYS, probability=p, seed=1, step=1))
    assert not torch.equal(once, drop_tokens(tokens, KEYS, probability=p, seed=2, step=0))
    assert drop_tokens(tokens, KEYS, probability=0.0, seed=1, step=0) is tokens
    with pytest.raises(InputError) as caught:
        drop_tokens(tokens, KEYS, probability=1.0, seed=1, step=0)
    assert (caught.value.what, caught.value.got) == ("probability", "1.0")


def test_masking_refuses_what_it_cannot_read():
    """Tokens as of SigLIP (no start token, padding 1), as of RoBERTa (padding 1) and as of a masking tokenizer."""
    hook = TextMasking(TextMaskingSection(probability=0.5))
    moment = Moment(0, 0, 0, np.arange(3), KEYS[:3])
    fit = torch.tensor([[90, 5, 6, 91, 0], [90, 5, 91, 0, 0], [90, 5, 91, 91, 91]])
    assert hook.tokens(fit, moment).shape == fit.shape
    for other in (
        [[5, 6, 7, 1, 1], [6, 7, 1, 1, 1], [7, 1, 1, 1, 1]],
        [[0, 6, 2, 1, 1], [0, 7, 2, 1, 1], [0, 7, 7, 7, 2]],
        [[90, 5, 91, -1, -1], [90, 5, 91, -1, -1], [90, 5, 91, -1, -1]],
    ):
        with pytest.raises(InputError) as caught:
            hook.tokens(torch.tensor(other), moment)
        assert caught.value.what == "[mitigate.text_masking]"


def test_masking_in_the_loop_is_the_function(tmp_path):
    masked, _ = fit(tmp_path / "a", TextMasking(TextMaskingSection(probability=0.5)))
    plain, _ = fit(tmp_path / "b")
    assert masked["final_sha256"] != plain["final_sha256"]
    assert masked["mitigate"] == {"text_masking": {"probability": 0.5}}
