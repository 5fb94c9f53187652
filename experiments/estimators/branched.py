"""f and g that are one model on the shared pairs until late in training: how well does their CLIPMem agree?

`python experiments/estimators/branched.py RUN [--out FILE]`, with RUN a finished four-way run of eight seeds or more,
trained from scratch. For each share b, f and g of the first half of the seeds are trained as in RUN, but their own
pairs (candidates, independent pairs) join in the last share b of the epochs only; before, both see the shared pairs of
the same batches, so they are one model to the last bit, and could be trained as one: 1 + b trainings instead of 2.

Agreement is the rank correlation over candidates with the CLIPMem of the other half of the seeds of RUN, which are
neither branched nor of the same initial weights, over the root of its reliability (split halves, Spearman-Brown). The
same for the unbranched first half is the most that can be had. Intervals: 95%, bootstrap over pairs.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from clipmem.base.folder import RunFolder
from clipmem.base.random import generator
from clipmem.functional import alignment, alignment_parts
from clipmem.models import given, passes
from clipmem.models.passes import unit_means
from clipmem.stats.reliability import correlations, reliability
from clipmem.study.plan import PlannedStudy
from clipmem.study.tasks import reproducible
from clipmem.train.hooks import Batches, Hook, Hooks
from clipmem.train.loop import train
from clipmem.train.objectives import Towers

SHARES = (0.1, 0.2, 0.4)
DRAWS = 2000


class Late(Hook):
    """Leaves the own pairs out of all batches before an epoch."""

    name = "late"

    def __init__(self, first: int, shared: int) -> None:
        self._first, self._shared = first, shared

    def facts(self) -> dict[str, Any]:
        """Return the first epoch with own pairs."""
        return {"first": self._first}

    def batches(self, batches: Batches, epoch: int) -> Batches:
        """Keep the shared slots, or all slots from the first epoch on."""
        return batches if epoch >= self._first else [batch[batch < self._shared] for batch in batches]


def scored(folder: str, side: str, seed: int, share: float) -> tuple[float, list[float]]:
    """Train one branched model; return its first epoch with own pairs and A of every pair of the split."""
    study = PlannedStudy(folder)
    recipe, plan = study.recipe, study.model(side, seed)
    first = recipe.train.epochs - round(share * recipe.train.epochs)
    with tempfile.TemporaryDirectory() as place, reproducible(1, "cpu"):
        train(
            Towers(
                study.start_of(plan).create(plan.init_seed),
                study.execution.precision,
                hooks=Hooks((Late(first, plan.shared),)),
            ),
            study.training_data(plan),
            plan,
            recipe.train,
            Path(place),
        )
        encoder = given.load_saved(Path(place))
    opened = replace(study.embedder(plan), load=lambda: encoder)
    uids = study.splits["uid"].to_list()
    made = opened.embed(passes.Inputs(study.pixels(opened.geometry), study.rows, study.captions, uids))
    means, external = unit_means(made.image, made.text, made.text_pair), np.flatnonzero(study.role == "external")
    member = np.full(len(study.pair_uids), -1)
    member[external] = np.arange(len(external))
    parts = alignment_parts(
        means.image, means.text, means.image[external], means.text[external], member=torch.from_numpy(member)
    )
    return first, alignment(parts, weight=recipe.score.weight).tolist()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the branched reference models of a run and print their agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    folder = RunFolder(options.run)
    study = PlannedStudy(folder.path)
    seeds, epochs = sorted(study.recipe.train.seeds), study.recipe.train.epochs
    half = len(seeds) // 2
    own = study.role == "candidate"
    table = folder.read("seed_scores").sort("seed")
    place = {uid: k for k, uid in enumerate(study.pair_uids)}
    known = np.full((len(seeds), len(study.pair_uids)), np.nan)
    for uid, seed, f, g in table.select("uid", "seed", "f", "g").iter_rows():
        known[seeds.index(seed), place[uid]] = f - g
    known = known[:, own]
    truth = known[half : 2 * half]
    found = {"references": known[:half]}
    firsts = {"references": 0}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [(side, seed, share) for share in SHARES for seed in seeds[:half] for side in ("f", "g")]
        made = pool.map(scored, *zip(*((str(folder.path), *job) for job in jobs), strict=True))
        alignments = dict(zip(jobs, made, strict=True))
    for share in SHARES:
        name = f"branched, {share:g}"
        pairs = [[np.array(alignments[side, seed, share][1])[own] for side in ("f", "g")] for seed in seeds[:half]]
        found[name] = np.stack([f - g for f, g in pairs])
        firsts[name] = int(alignments["f", seeds[0], share][0])
    text = json.dumps(results(found, truth, firsts, epochs), indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def results(
    found: dict[str, np.ndarray], truth: np.ndarray, firsts: dict[str, int], epochs: int
) -> list[dict[str, Any]]:
    """Return cost, mean and agreement of each kind of models."""
    n = truth.shape[1]
    times = generator(0, "branched").multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)
    weights = np.vstack([np.ones((1, n)), times])
    root = np.sqrt(reliability(truth, weights))
    target, rows = rankdata(truth.mean(axis=0)), []
    for name, scores in found.items():
        for count in (1, len(scores)):
            drawn = correlations(rankdata(scores[:count].mean(axis=0))[None], target[None], weights)[0] / root
            low, high = np.quantile(drawn[1:], [0.025, 0.975])
            share = 1 - firsts[name] / epochs
            rows.append(
                {"models": name, "seeds": count, "cost": round(count * (1 + share), 2), "mean": float(scores.mean())}
                | {"agreement": float(drawn[0]), "low": float(low), "high": float(high)}
            )
    return rows


if __name__ == "__main__":
    main()
