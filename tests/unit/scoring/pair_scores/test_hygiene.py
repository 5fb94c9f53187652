"""Captions that a file, a sign or an agency left; the rules for vague and empty ones are tested with the list."""

import time

import numpy as np
import pytest

from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores import PAIR_SCORES


@pytest.mark.parametrize(
    ("caption", "score"),
    [
        ("screenshot 2024-01-01 at 10.00.00", 1),
        ("Screen Shot 2019-03-02 at 9.41.00 AM", 1),
        ("IMG 204", 1),
        ("product-photo-final-2", 1),
        ("View larger image", 1),
        ("ALT TEXT", 1),
        ("Getty Images", 1.5),
        ("SALE 50% OFF CALL 555-1234", 1),
        ("$12.99", 1),
        ("Royalty-free image of a red car", 0.5),
        ("a dog on a beach - Getty Images", 0.5),
        ("собака - Getty Images", 0.5),
        *((text, 0) for text in ("a photo of a dog", "Two_Cats", "3 dogs", "a USB 3 and an HDMI 2 port", "HDMI 2")),
        *(
            (text, 0)
            for text in (
                "t-rex-2",
                "scandinavia-2",
                "semi-finalists-3",
                "view of a larger image frame",
                "a stock of apples",
                "image of 2 cats",
            )
        ),
    ],
)
def test_captions_of_files_signs_and_agencies(caption, score):
    captions = [[caption], *([f"a red thing, number {k}"] for k in range(40))]
    signals = Signals([str(k) for k in range(41)], captions, np.arange(41))
    assert PAIR_SCORES["hygiene"]().score(signals)[0] == score


@pytest.mark.parametrize(
    "caption",
    ["AB 12 " * 5000 + "x", "img" + "1" * 30_000 + "x", "photo-" * 5000 + "x", "a-" * 15_000 + "2", "A" * 30_000],
)
def test_long_captions_take_no_longer_than_they_are(caption):
    signals = Signals(["0", "1"], [[caption], ["a dog"]], np.arange(2))
    started = time.monotonic()
    PAIR_SCORES["hygiene"]().score(signals)
    assert time.monotonic() - started < 2
