"""Golden numbers of the scores and statistics, in float64.

They pin what a release computes; they do not say that it is right (tests/reference does). The inputs are
sines, so no random generator can move them. Limits: 1e-10, room for another processor's sine. Regenerate, and
say why in the change:

    python tests/golden/test_golden_functional.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clipmem.functional import (
    alignment,
    alignment_parts,
    auroc,
    clipmem,
    compare_groups,
    crossed_mean,
    noise_floor,
    pair_means,
    range_normalize,
    seed_interval,
    seed_noise,
    spearman,
)
from clipmem.measure.retrieval import retrieve

GOLDEN = Path(__file__).with_name("functional.json")


def waves(start, *shape):
    steps = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return torch.sin(start + 0.37 * steps**2).reshape(shape)


def compute():
    """One small study: two seeds, six pairs with two views and one or two captions, a bank of three."""
    text_pair = torch.tensor([0, 1, 2, 3, 4, 5, 0, 2, 4])
    sides = []
    for start in (0.0, 50.0):
        rows = []
        for seed in (1.0, 2.0):
            u, v = pair_means(waves(start + seed, 6, 2, 4), waves(start + 2.3 * seed, 9, 4), text_pair)
            member = torch.tensor([-1, -1, -1, 0, 1, 2])
            rows.append(alignment(alignment_parts(u, v, u[3:], v[3:], member=member)))
        sides.append(torch.stack(rows))
    target, reference = sides
    scores = clipmem(target, reference)
    f, g, values = target.numpy(), reference.numpy(), scores.numpy()
    spread = seed_interval((f - g) * np.arange(1, 7) ** 2)
    groups = np.array([0, 1, 2, 3, 4, 4])
    found = retrieve(waves(3.0, 6, 4), waves(4.0, 9, 4), text_pair, ks=(1, 2))
    return {
        "clipmem": values.tolist(),
        "normalizer": range_normalize(scores, torch.arange(6) < 4)[1],
        "seed_stderr": spread.stderr.tolist(),
        "seed_low": spread.low.tolist(),
        "seed_high": spread.high.tolist(),
        "crossed_mean": list(crossed_mean(f - g, groups)[:3]),
        "seed_noise": list(seed_noise(f, groups) or ()),
        "noise_floor": list(noise_floor(f - g, confidence=0.5) or ()),
        "compare_groups": list(compare_groups(values[:3], values[3:])),
        "auroc": list(auroc(values, np.array([True, False, True, False, False, True]))[:3]),
        "spearman": list(spearman(f[0], g[0])),
        "retrieval": found.metrics,
    }


@pytest.mark.parametrize("name", sorted(compute()))
def test_golden(name):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert compute()[name] == pytest.approx(golden[name], rel=1e-10, abs=1e-12)


def test_the_golden_file_has_nothing_else():
    assert set(json.loads(GOLDEN.read_text(encoding="utf-8"))) == set(compute())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(compute(), indent=1) + "\n", encoding="utf-8")
