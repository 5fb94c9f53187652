"""What a model that did not train on the pairs has to say in suggested captions."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from clipmem.curation.ranking import curate
from clipmem.scoring.evidence import Evidence
from tests.unit.curation.test_ranking import NAMES, THINGS, N, drawings

ALIKE = 6  # names


def lookalikes():
    """As `drawings`, but six names share three patterns; a model that did not train on them tells these apart."""
    signals, _ = drawings()
    stream, thing = np.random.default_rng(2), np.arange(N) % THINGS
    pattern = np.where(thing < ALIKE, thing // 2, thing)
    patterns = stream.integers(0, 256, (THINGS, 8, 8, 3))[pattern].repeat(8, 1).repeat(8, 2)
    images = np.clip(patterns + stream.normal(0, 40, (N, 64, 64, 3)), 0, 255).astype(np.uint8)
    named = [NAMES.index(texts[0].split()[-1]) for texts in signals.captions]
    vectors = (np.eye(THINGS)[things] + stream.normal(0, 0.1, (N, THINGS)) for things in (thing, named))
    image, text = (torch.tensor(values, dtype=torch.float32) for values in vectors)
    return replace(signals, pixels=images.__getitem__), {"image": image, "text": text, "unseen": True}


def test_a_model_that_did_not_train_on_the_pairs_has_a_say_in_suggestions():
    signals, model = lookalikes()
    noise = dict(zip(("image", "text"), torch.randn(2, N, 8, generator=torch.Generator().manual_seed(0)), strict=True))
    right = dict[str, float]()
    for kind, more in {
        "none": {},
        "model": model,
        "trained": model | {"unseen": False},
        "noise": model | noise,
    }.items():
        table = curate(replace(signals, **more)).table.with_row_index("k").drop_nulls("suggested_caption")
        table = table.filter(pl.col("k") % THINGS < ALIKE)
        words = [text.split()[-1] for text in table["suggested_caption"]]
        assert len(words) > 15
        right[kind] = np.mean([NAMES[k % THINGS] == word for k, word in zip(table["k"], words, strict=True)])
    assert right["none"] < 0.8
    assert right["model"] > 0.95
    # one that trained on the pairs learned their mismatched captions, too
    assert right["trained"] == pytest.approx(right["none"], abs=0.1)
    assert right["noise"] == pytest.approx(right["none"], abs=0.1)


def test_a_model_that_knows_every_pair_by_heart_leaves_no_suspect():
    """As one that trained on the pairs, and is called one that did not: no caption looks like a planted one."""
    vectors = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
    table = curate(replace(drawings()[0], image=vectors, text=vectors, unseen=True)).table
    assert table["probability"].is_between(0, 1).all()
    assert table["probability"].max() < 0.5


def test_the_weight_of_a_model_in_suggestions_is_that_of_a_linear_discriminant():
    signals, model = lookalikes()
    evidence, order = replace(signals, **model).once(Evidence), np.argsort(signals.once(Evidence).fold, kind="stable")
    rows = [(i, j) for i, j in zip(order[1:], order[:-1], strict=True) if evidence.fold[i] == evidence.fold[j]]
    image, caption = (np.array(column) for column in zip(*rows, strict=True))
    fits = np.hstack([evidence.fits[:, image], evidence.fit(image, caption)])
    inputs, label = np.stack([fits[:3].sum(axis=0), fits[-1]], axis=1), np.repeat([1, 0], len(rows))
    others, cosine = LinearDiscriminantAnalysis(solver="lsqr").fit(inputs, label).coef_[0]
    assert cosine / others > 0.1
    assert evidence.sums == pytest.approx(evidence.fits[:3].sum(axis=0) + cosine / others * evidence.fits[-1])
