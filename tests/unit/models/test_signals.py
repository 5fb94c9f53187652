"""What several pair scores need of a data set is computed once, and goes with it."""

import weakref
from dataclasses import replace

import numpy as np

from clipmem.models.signals import Signals


class Longest:
    """The longest captions, at most so many."""

    def __init__(self, signals: Signals, most: int = 1) -> None:
        self.captions = sorted((texts[0] for texts in signals.captions), key=len)[-most:]


def pairs(*captions: str) -> Signals:
    return Signals(list(captions), [[text] for text in captions], np.arange(len(captions)))


def test_what_pair_scores_share_is_computed_by_the_first_of_them() -> None:
    signals = pairs("a cat", "a kitten")
    first = signals.once(Longest, 2)
    assert first.captions == ["a cat", "a kitten"]
    assert signals.once(Longest) is first


def test_other_pairs_or_a_copy_share_nothing() -> None:
    signals = pairs("a cat", "a kitten")
    signals.once(Longest)
    other = replace(signals, captions=[["one dog"], ["it"]])
    assert other.once(Longest).captions == ["one dog"]
    assert pairs("a cat", "a kitten").once(Longest) is not signals.once(Longest)


def test_it_is_freed_with_the_pairs() -> None:
    signals = pairs("a cat")
    made = weakref.ref(signals.once(Longest))
    assert made() is not None
    del signals
    assert made() is None
