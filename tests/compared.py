"""Finished run folders with chosen numbers, for tests of comparisons: every file that is read, and nothing trained."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from clipmem.base.folder import RunFolder
from clipmem.base.recipes import dump_recipe, load_recipe
from clipmem.models import passes
from clipmem.models.passes import Embeddings
from tests.tiny import whole

SIZES = {"shared": 6, "candidate": 8, "independent": 8, "external": 6}
PAIRS = SIZES["shared"] + SIZES["candidate"]
EPOCHS = 4
METRICS = {"linear_probe_acc1": 0.5, "zero_shot_acc1": 0.4, "image_retrieval_median_rank": 3.0}


def split_of(planted=2, without=()):
    """A split table: uids are numbers, roles in blocks, the first candidates planted."""
    rows = []
    for role, size in SIZES.items():
        for k in range(size):
            uid = f"{role[0]}{k:02d}"
            wrong = role == "candidate" and k < planted
            other = f"c{(k + 1) % planted:02d}" if wrong else uid
            rows.append({"uid": uid, "role": role, "group": uid, "planted": wrong, "captions_from": other})
    return pl.DataFrame(rows).filter(~pl.col("uid").is_in(list(without))).sort("uid")


def scores_of(splits, seeds, effect, noise):
    """Alignment by pair and seed: f sees candidates, and what they gain is `effect` and a seed's own noise."""
    rng = np.random.default_rng(noise)
    rows = []
    for seed in seeds:
        shift = 0.1 * seed  # what a seed does to every run alike
        for uid, role in splits.select("uid", "role").iter_rows():
            gain = {"candidate": effect, "independent": -effect}.get(role, 0.0)
            f, g = rng.normal(gain + shift, 0.05), rng.normal(0, 0.05)
            rows.append({"uid": uid, "seed": seed, "f": f, "g": g})
    return pl.DataFrame(rows)


def build(path, *settings, effect=0.6, seeds=(0, 1, 2), noise=1, planted=2, without=(), utility=0.0, data="d" * 64,
          epochs=EPOCHS, rate=1000.0, memory=2**30, processor="a processor", start="start", protocol="four-way",
          metrics=METRICS, samples_seen=None, chance=None, validation=None, wordings=None):  # fmt: skip
    """Write a run folder.

    Args:
        path: Where.
        settings: Changes to the recipe.
        effect: CLIPMem of candidates, before noise.
        seeds: The seeds.
        noise: Seed of the noise in scores and utility.
        planted: How many candidates have another's captions.
        without: Pairs that were removed.
        utility: Added to each metric.
        data: The data's fingerprint.
        epochs: Passes over the pairs.
        rate: Pairs a second of a training.
        memory: Peak memory of a training in bytes; None = not measured.
        processor: The machine.
        start: Stands for the initial weights.
        protocol: The recipe's protocol.
        metrics: Utility metrics and their level; None = no utility was measured.
        samples_seen: Samples seen by a model, where they are not passes times pairs.
        chance: What is reached by chance, by metric.
        validation: Values by seed of metrics on validation pairs.
        wordings: CLIPMem of candidates over all captions, before noise; None = not measured.
    """
    folder, splits = RunFolder(Path(path)), split_of(planted, without)
    sizes = [f"split.{role}={size}" for role, size in SIZES.items()]
    recipe = load_recipe("", [
        *sizes, f"train.seeds={list(seeds)}", f"train.epochs={epochs}", f"split.planted={planted}",
        f"protocol={protocol}", *settings,
    ])  # fmt: skip
    folder.claim(recipe, dump_recipe(recipe))
    folder.write_json("manifest.json", {
        "format": 1, "data_sha256": data, "recipe_sha256": "r" * 64, "processor": processor, "cores": 2,
    })  # fmt: skip
    folder.write("splits", splits)
    scores = scores_of(splits, seeds, effect, noise)
    if wordings is not None:
        own = scores_of(splits, seeds, wordings, noise + 50).rename({"f": "f_wordings", "g": "g_wordings"})
        scores = scores.join(own, on=("uid", "seed"))
    folder.write("seed_scores", whole("seed_scores", scores))
    document = {"format": 2, "protocol": "four-way", "seeds": [0, 1, 2], "roles": {}, "normalizer": 1.0 + effect}
    folder.write_json("summary.json", document)
    own = PAIRS - len([uid for uid in without if uid[0] in "sc"])
    for side in "fg":
        for seed in seeds:
            record = {"pairs": own, "samples_seen": samples_seen or own * epochs, "init_sha256": f"{start} {seed}"}
            file = folder.write_json(f"models/{side}/seed-{seed}/record.json", record)
            # no two trainings take the same time
            measured = {"pairs_per_second": rate * (1 + 0.01 * seed + 0.02 * (side == "g"))}
            measured |= {} if memory is None else {"peak_memory_bytes": memory + seed}
            folder.finish(f"train-{side}-seed-{seed}", [file], 1.0, measured)
    if metrics is not None:
        rng = np.random.default_rng(noise + 100)
        by_seed = {
            name: {"by_seed": (level + utility + 0.01 * np.array(seeds) + rng.normal(0, 0.01, len(seeds))).tolist()}
            for name, level in metrics.items()
        }
        document = {"format": 1, "seeds": {"f": list(seeds)}, "metrics": {"f": by_seed}, "chance": chance or {}}
        held_out = {name: {"by_seed": values} for name, values in (validation or {}).items()}
        document |= {"validation": {"f": held_out}} if validation else {}
        folder.write_json("evaluate/utility.json", document)
    for stage, seconds in (("train", 10.0), ("evaluate", 0.0), ("report", 5.0)):
        folder.finish(stage, [], seconds)
    return folder.path


def add_contents(path, seed=0):
    """Add what some findings look at beside scores: captions, images, embeddings and the units of one layer pair."""
    folder, rng = RunFolder(Path(path)), np.random.default_rng(seed)
    splits = folder.read("splits")
    uids = splits["uid"].to_list()
    texts = [[("a red thing", "a blue thing", f"thing {k}")[k % 3], f"number {k}"] for k in range(len(uids))]
    empty = {name: [""] * len(uids) for name in ("image", "group", "label", "sublabel", "credit")}
    empty["key"] = [f"{k}{' (vague)' * (k % 3 == 2)}{' (distorted)' * (k % 3 == 1)}" for k in range(len(uids))]
    none = {name: pl.Series(name, [[]] * len(uids), dtype=pl.List(pl.String)) for name in ("variants", "objects")}
    folder.write("pairs", whole("pairs", pl.DataFrame({"uid": uids, "captions": texts, **empty, **none})))
    (folder.path / "cache").mkdir()
    np.save(folder.path / "cache" / "pixels.npy", rng.integers(0, 256, (len(uids), 32, 32, 3), dtype=np.uint8))
    seeds = folder.recipe().train.seeds
    for side in "fg":
        for k in seeds:
            arrays = Embeddings(
                torch.from_numpy(rng.normal(size=(len(uids), 1, 4)).astype(np.float32)),
                torch.from_numpy(rng.normal(size=(len(uids), 4)).astype(np.float32)),
                torch.arange(len(uids)),
            )
            passes.save(arrays, folder.embedding_dir(side, k))
    units = [
        {"side": side, "seed": k, "tower": "image", "layer": layer, "kind": "mlp", "unit": unit,
         "unitmem": rng.random(), "unitmem_median": rng.random(),
         "classmem": 0.5, "mu_max": 0.8, "mu_rest": 0.1, "median_error": 0.0, "uid": None, "label": ""}
        for side in "fg" for k in seeds for layer in (1, 2) for unit in range(3)
    ]  # fmt: skip
    (folder.path / "localize").mkdir()
    pl.DataFrame(units).write_parquet(folder.path / "localize" / "units.parquet")
