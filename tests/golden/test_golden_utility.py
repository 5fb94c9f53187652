"""Golden numbers of utility, in float64: zero-shot classification, the probe's choice, intervals, chance of retrieval.

They pin what a release computes; they do not say that it is right (tests/unit does). The inputs are sines, as those of
`test_golden_functional.py`, with the same limits; ranks are whole or half numbers. Regenerate, and say why in the
change:

    python -m tests.golden.test_golden_utility
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clipmem.measure.linear_probe import linear_probe, validation_part
from clipmem.measure.over_seeds import class_mean
from clipmem.measure.retrieval import chance
from clipmem.measure.zero_shot import class_embeddings, classification_metrics, zero_shot_ranks

GOLDEN = Path(__file__).with_name("utility.json")
CLASSES = 6


def waves(start, *shape):
    steps = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return torch.sin(start + 0.37 * steps**2).reshape(shape)


def compute():
    """Forty images of six classes, each with two prompts; the first 30 train the probe."""
    labels, groups = np.arange(40) * 7 % CLASSES, np.arange(40) // 2
    centers = waves(1.0, CLASSES, 5)
    image = centers[torch.from_numpy(labels)] + waves(2.0, 40, 5)
    prompts = torch.cat([centers, centers]) + 0.5 * waves(3.0, 2 * CLASSES, 5)
    classes = class_embeddings(prompts, torch.arange(2 * CLASSES) % CLASSES, CLASSES)
    ranks = zero_shot_ranks(image, classes, labels)
    probe = linear_probe((image[:30].numpy(), labels[:30]), groups[:30], (image[30:].numpy(), labels[30:]), seed=0)
    hits = (np.stack([ranks, np.roll(ranks, 7)]) <= 1).astype(float)
    return {
        "class_embeddings": classes[0].tolist(),
        "zero_shot": classification_metrics(ranks, labels, CLASSES),
        "zero_shot_ranks": ranks.tolist(),
        "class_mean": list(class_mean(hits, labels, groups)[:3]),
        "validation_part": np.flatnonzero(validation_part(groups, 0.2, seed=0)).tolist(),
        "probe": [probe.c, *probe.validation],
        "probe_ranks": probe.ranks.tolist(),
        "chance": chance(np.array([1, 2, 5, 5, 3, 1, 1]), 18),
    }


@pytest.mark.parametrize("name", sorted(compute()))
def test_golden(name):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert compute()[name] == pytest.approx(golden[name], rel=1e-10, abs=1e-12)


def test_the_golden_file_has_nothing_else():
    assert set(json.loads(GOLDEN.read_text(encoding="utf-8"))) == set(compute())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(compute(), indent=1) + "\n", encoding="utf-8")
