"""Tests of the tokenizer that remembers: ids equal open_clip's, whatever was asked before."""

import hypothesis.strategies as st
import open_clip
import pytest
import torch
from hypothesis import given, settings

from clipmem.models import tokenizers as module
from clipmem.models.tokenizers import SimpleTokenizer, simple_tokenizer

TEXT = st.text(st.sampled_from("ab '&;é猫👍\t"), max_size=12)


@pytest.mark.slow
@given(calls=st.lists(st.lists(TEXT, max_size=6), max_size=4))
@settings(max_examples=30)
def test_ids_equal_those_of_open_clip_in_any_order_of_calls(calls: list[list[str]]) -> None:
    """Repeated texts, within a call and across calls, have the ids that open_clip gives them."""
    ours, theirs = simple_tokenizer(8), open_clip.SimpleTokenizer(context_length=8)
    for texts in calls:
        assert torch.equal(ours(texts), theirs(texts))


def test_models_of_one_configuration_share_a_tokenizer() -> None:
    """Settings, in any order, name one tokenizer; another length is another one."""
    assert simple_tokenizer(8, '{"clean": "lower"}') is simple_tokenizer(8, '{"clean": "lower"}')
    assert simple_tokenizer(8) is not simple_tokenizer(9)


def test_forgets_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most the given number of texts is kept, and calls with more of them are not remembered."""
    monkeypatch.setattr(module, "_KEPT", 3)
    ours, theirs = SimpleTokenizer(8, {}), open_clip.SimpleTokenizer(context_length=8)
    for texts in (["a", "b"], ["b", "c"], list("abcd"), ["a"]):
        assert torch.equal(ours(texts), theirs(texts))
        assert len(ours._ids) <= 3


def test_a_random_reduction_is_drawn_each_time() -> None:
    """A tokenizer that drops random words of a long text never repeats an earlier draw."""
    ours = SimpleTokenizer(6, {"reduction_mask": "random"})
    text = " ".join("abcdefghijklmnopqrstuvwxyz")
    torch.manual_seed(0)
    assert len({tuple(ours([text])[0].tolist()) for _ in range(8)}) > 1
