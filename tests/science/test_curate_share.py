"""The number of mismatched captions that curation expects, against swapped ones: experiments/curate/RESULTS.md.

    pytest -m slow -s tests/science/test_curate_share.py

4,000 drawings, and as many of the clip art that `CLIPMEM_CLIPART` names (experiments/curate/clipart.py); of the planted
captions half are swapped at random and half within the category. 1,797 scans of handwritten digits, whose captions
are the names of ten classes; all planted captions are swapped at random.
"""

import os
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_digits

from clipmem.base.random import generator
from clipmem.base.sections import DataSection
from clipmem.curation.aim import Aim
from clipmem.curation.ranking import curate
from clipmem.curation.share import plant, share_of
from clipmem.curation.suspects import by_rule, choose, expectations
from clipmem.data.decoding import Geometry
from clipmem.models.signals import Signals
from clipmem.scoring.evidence import Evidence
from clipmem.study.score_inputs import read_pairs

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAIRS, SHARES, PLANTINGS = 4000, (0.0, 0.05, 0.15, 0.3), 7
SMALL = Geometry(64, "squash", "bicubic")

pytestmark = pytest.mark.slow


def show(line):
    sys.stdout.write(line + "\n")


def swapped(captions, labels, share, stream):
    """Swap captions; return them and which are wrong."""
    captions = np.array(captions, dtype=object)
    chosen = stream.permutation(len(captions))[: round(share * len(captions))]
    half = len(chosen) // 2
    groups = [chosen[:half], *(chosen[half:][labels[chosen[half:]] == one] for one in np.unique(labels))]
    found = captions.copy()
    for group in groups:
        found[group] = captions[np.roll(group, 1)]
    return found.tolist(), found != captions


def scanned():
    """Return scans of handwritten digits (scikit-learn's), and a caption with the digit's name for each."""
    found = load_digits()
    gray = np.kron(found.images * 15, np.ones((8, 8))).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=3), [f"a photo of the digit {DIGITS[k]}" for k in found.target]


def read(name):
    """Return the pixels, captions and categories of a data set."""
    if name == "digits":
        pixels, own = scanned()
        return pixels, own, np.zeros(len(own))  # no categories: all swapped at random
    section, path = {"source": "emoji-artists"}, os.environ.get("CLIPMEM_CLIPART")
    if name == "clip art":
        if path is None:
            pytest.skip("CLIPMEM_CLIPART is not set")
        section = {"source": "parquet", "path": path, "caption_column": "captions", "label_column": "category"}
    pairs = read_pairs(DataSection.model_validate(section), 1, "--data")
    rows = np.sort(generator(0, "curate shares").permutation(len(pairs))[:PAIRS])
    pixels = np.concatenate([pairs.decoded(part, [SMALL]).pixels[SMALL] for part in np.array_split(rows, 4)])
    table = pairs.table[rows]
    return pixels, [texts[0] for texts in table["captions"]], table["label"].to_numpy()


def best_bin(observed, swapped, gamma=0.01, delta=0.1):
    """Return the share of swapped captions by best-bin estimation (Garg et al., NeurIPS 2021, their Algorithm 1)."""
    at = np.unique(swapped)
    above, found = (1 - np.searchsorted(np.sort(x), at) / len(x) for x in (observed, swapped))
    margin = sum(np.sqrt(np.log(4 / delta) / (2 * len(x))) for x in (observed, swapped))
    best = np.argmin((above + (1 + gamma) * margin) / found)
    return float(above[best] / found[best])


def best_bins(planted, draws=200):
    """Return that share, and the ends of its 95% bootstrap interval."""
    scores, stream = (planted.observed, np.concatenate([planted.random, planted.alike])), generator(0, "best bin")
    again = [best_bin(*(x[stream.integers(len(x), size=len(x))] for x in scores)) for _ in range(draws)]
    return best_bin(*scores), *np.quantile(again, (0.025, 0.975))


def test_the_best_bin_is_the_share_where_only_swapped_captions_are_like_swapped_ones():
    stream = generator(0, "best bin test")
    observed, swapped = np.r_[stream.normal(size=1600), stream.normal(9, size=400)], stream.normal(9, size=4000)
    assert best_bin(observed, swapped) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("name", ["drawings", "clip art"])
def test_expected_precision_and_recall(name):
    """Half of the captions swapped at random and half within the kind, or all at random."""
    pixels, own, labels = read(name)
    n = len(own)
    plain = Signals([str(row) for row in range(n)], [[text] for text in own], np.arange(n), pixels=pixels.__getitem__)
    features, inside, misses = plain.shapes_and_colors, [], []
    show("\n| swapped | suspects | number | precision: expected | is | recall: expected | is |")
    show("| --- | --- | --- | --- | --- | --- | --- |")
    for kinds, share, seed in product((labels, np.zeros(n)), SHARES[1:], range(2)):
        captions, wrong = swapped(own, kinds, share, generator(seed, "shares", round(100 * share)))
        signals = replace(plain, captions=[[text] for text in captions], seed=seed)
        signals.__dict__["shapes_and_colors"] = features  # images do not change
        ranking = curate(signals)
        for aim in ("", "precision=0.9", "precision=0.7", "recall=0.5"):
            curation = choose(ranking, Aim.parse(aim)) if aim else ranking
            suspect = curation.table.select(pl.col("is_suspect") & ~by_rule()).to_series().to_numpy()
            expected = expectations(curation, [int(suspect.sum())])
            right = wrong[suspect].sum()
            true = {"precision": right / max(suspect.sum(), 1), "recall": right / wrong.sum()}
            cells = (f"{100 * share:.0f}%", aim or "default", suspect.sum())
            if not expected:  # the list is empty, or the lower end of the share is 0
                assert not suspect.any() or ranking.document["expected"]["low"] == 0
                ends = f"none | {true['precision']:.2f} | none | {true['recall']:.2f}"
                show(f"| {' | '.join(map(str, cells))} | {ends} |")
                continue
            rates = expected[0]._asdict()
            told = {rate: f"{value:.2f}" for rate, value in rates.items()}
            precision = f"{told['precision']} [{told['low']}, {told['high']}] | {true['precision']:.2f}"
            show(f"| {' | '.join(map(str, cells))} | {precision} | {told['recall']} | {true['recall']:.2f} |")
            inside.append(rates["low"] <= true["precision"] <= rates["high"])
            misses.append([abs(rates[rate] - value) for rate, value in true.items()])
    assert misses or name == "clip art"
    if not misses:
        return
    median, most = np.median(misses, axis=0), np.max(misses, axis=0)
    show(f"precision inside {np.sum(inside)} of {len(inside)}; misses of both: median {median}, largest {most}")
    assert np.mean(inside) >= 0.9
    assert (median <= 0.15).all()


@pytest.mark.parametrize("name", ["drawings", "clip art", "digits"])
def test_expected_numbers(name):
    pixels, own, labels = read(name)
    n = len(own)
    uids = [str(row) for row in range(n)]
    plain = Signals(uids, [[text] for text in own], np.arange(n), pixels=pixels.__getitem__)
    features, covered, errors, rival = plain.shapes_and_colors, [], [], []
    head = "| swapped | expected | lower ends | upper ends | within 25% | covered | best bin | covered |"
    show(f"\n{head}\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for share in SHARES:
        rows = []
        for seed in range(PLANTINGS if share else 1):
            captions, wrong = swapped(own, labels, share, generator(seed, "shares", round(100 * share)))
            signals = replace(plain, captions=[[text] for text in captions], seed=seed)
            signals.__dict__["shapes_and_colors"] = features  # images do not change
            texts = np.unique(captions, return_inverse=True)[1]
            planted = plant(signals.once(Evidence), texts, seed)
            one, count = share_of(planted, 0.95), int(wrong.sum())
            binned, *bins = (round(n * end) for end in best_bins(planted))
            ends = [round(n * end) for end in (one.share, one.low, one.high)]
            error = ends[0] / count - 1 if count else 0.0
            rows.append(
                (count, *ends, binned, abs(error) <= 0.25, ends[1] <= count <= ends[2], bins[0] <= count <= bins[1])
            )
            if name == "drawings":
                assert one.clear
                assert one.found == (share > 0)
            errors += [error] if share else []
            rival += [binned / count - 1] if share else []
        *wide, binned = (f"{min(values)} to {max(values)}" for values in list(zip(*rows, strict=True))[:5])
        near, inside, caught = (f"{sum(row[k] for row in rows)} of {len(rows)}" for k in (5, 6, 7))
        covered += [row[6] for row in rows]
        show(f"| {' | '.join((*wide, near, inside, binned, caught))} |")
    show(f"median error {np.median(np.abs(errors)):.0%}, of the best bin {np.median(np.abs(rival)):.0%}")
    assert np.mean(covered) >= 0.9
    # the aim is .25 for each planting: three of 21 miss it, all at 5 %; clip art has mismatched captions of its own
    assert np.median(np.abs(errors)) <= 0.25
    assert name == "clip art" or np.max(np.abs(errors)) <= 0.5
