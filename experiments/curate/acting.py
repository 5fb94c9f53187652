"""Does acting on suspect captions train a better model? Removal by each detector, reweighting, and an oracle.

    python experiments/curate/acting.py --scale tiny --out runs/acting-tiny     # under three minutes
    python experiments/curate/acting.py --scale full --out runs/acting          # emoji-artists, 8 seeds: resumes
    python experiments/curate/acting.py --out runs/acting --record              # stores it in acting.json, then writes
                                                                                # the tables of
                                                                                # experiments/mitigate/RESULTS.md

A share of the training pairs gets the caption of another one: at random, or of the same category. The model trains from
scratch on

    everything     all pairs
    random         as many pairs removed at random as are swapped
    NAME           as many removed by a detector of `clipmem curate`, which sees the data, and the embeddings and
                   trajectory of the model trained on everything: two trainings
    free:NAME      the same by a detector without any model: one training
    curate         the suspects of the whole list removed, however many; free:curate without any model
    clipmem, low-alignment
                   as many removed by two shadow models, each trained on a random half of the pairs, together one
                   training
    reweight       [mitigate.reweight] with share = twice the share of swapped captions, 0.2 with none: one training
    oracle         exactly the pairs with swapped captions removed

The metric is R@5 on held-out pairs with their own captions, mean of both directions, identical captions count as
right. Seeds are paired: the same swapped captions, initial weights and order. The share of the oracle's gain is

    (mean recall of the method - mean recall of everything) / (mean recall of the oracle - mean recall of everything)

with a bootstrap over seeds. Cost is processor time of training and detection, in trainings on everything.
"""

import argparse
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from threadpoolctl import threadpool_limits

from clipmem.base.hashing import image_part, numbered
from clipmem.base.mitigations import ReweightSection
from clipmem.base.paths import write_json
from clipmem.base.random import generator
from clipmem.base.recipes import Recipe, load_recipe
from clipmem.base.sections import DataSection
from clipmem.curation.ranking import curate
from clipmem.data.cache import build_cache, open_cache
from clipmem.data.sources import open_source
from clipmem.functional import alignment, alignment_parts
from clipmem.measure.retrieval import identity_of, retrieve
from clipmem.mitigate.reweight import Reweight, neighbor_agreement
from clipmem.models import openclip, passes
from clipmem.models.passes import Means, unit_means
from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores import PAIR_SCORES, usable
from clipmem.train.batches import TrainingData
from clipmem.train.checkpoint import CHECKPOINT_FILE, Checkpoints, sweep
from clipmem.train.hooks import NO_HOOKS, Hooks
from clipmem.train.loop import Session, Timing, train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet
from clipmem.train.recorder import read_trajectory

ROOT = Path(__file__).parents[2]
SCALES: dict[str, dict[str, Any]] = {
    "tiny": {"pairs": 300, "test": 150, "epochs": 2, "seeds": 2, "rates": (0.0, 0.2), "kinds": ("random",)},
    "small": {"pairs": 1500, "test": 600, "epochs": 8, "seeds": 4, "rates": (0.4,), "kinds": ("random",)},
    "full": {
        "pairs": 4000,
        "test": 900,
        "epochs": 15,
        "seeds": 8,
        "rates": (0.0, 0.1, 0.2, 0.4),
        "kinds": ("random", "category"),
    },
}
SIMPLE = ("everything", "random", "oracle", "reweight")
HALVES, BANK = ("clipmem", "low-alignment"), 500
DRAWS, EVERY, CLEAN = 2000, 20.0, 0.2
RECORD, PAGE = ROOT / "experiments" / "curate" / "acting.json", ROOT / "experiments" / "mitigate" / "RESULTS.md"
KINDS = {"random": "at random", "category": "within the category"}
NAMES = {
    "random": "random pairs removed, as many as were swapped",
    **{
        name: f"worst by `{name}` removed"
        for name in (
            "similarity",
            "s-cliploss",
            "lemon",
            "embedded-neighbors",
            "loss",
            "margin",
            "low-alignment",
            "clipmem",
        )
    },
    "free:image-neighbors": "worst by `image-neighbors` removed, no model",
    "rank-sum": "worst by `clipmem curate` removed, with that model",
    "curate": "suspects of `clipmem curate` removed, with that model",
    "free:curate": "suspects of `clipmem curate` removed, no model",
    "reweight": "`mitigate.reweight`, `share` twice the swapped share",
    "oracle": "oracle removal",
}


@dataclass(frozen=True)
class Data:
    """Pixels, and the pairs for training, test and the bank: row of the pixels, uid, first caption, category."""

    pixels: np.ndarray
    train: pl.DataFrame
    test: pl.DataFrame
    bank: pl.DataFrame
    recipe: Recipe


def load(out: Path, scale: Mapping[str, Any]) -> Data:
    """Draw the pairs, and decode their images once."""
    source = open_source(DataSection(source="emoji-artists"))  # pyright: ignore[reportCallIssue]
    table = source.pairs().with_columns(caption=pl.col("captions").list.first())
    order = generator(0, "acting").permutation(table.height)[: scale["pairs"] + scale["test"] + BANK]
    chosen = table[order.tolist()].with_row_index("row")
    recipe = load_recipe("", ["model.name=clipmem-tiny", f"train.epochs={scale['epochs']}", "train.record=true"])
    geometry, file = openclip.geometry_of_config(recipe.model.name), out / f"pixels-{chosen.height}.npy"
    if not file.is_file():
        build_cache(file, dict(enumerate(chosen["image"])), source.read, geometry)
    cut, end = scale["pairs"], scale["pairs"] + scale["test"]
    return Data(open_cache(file), chosen[:cut], chosen[cut:end], chosen[end:], recipe)


def planted(train: pl.DataFrame, rate: float, kind: str, seed: int) -> tuple[list[str], np.ndarray]:
    """Return the captions of the training pairs, a share of them of other pairs, and which are wrong."""
    drawn, captions = generator(seed, "wrong captions", kind, round(100 * rate)), train["caption"].to_list()
    given, wrong = list(captions), np.zeros(len(captions), dtype=np.bool_)
    category = train["sublabel"].to_numpy() if kind == "category" else np.zeros(len(captions))
    for row in drawn.permutation(len(captions)):
        if wrong.sum() >= round(rate * len(captions)):
            break
        others = drawn.permutation(np.flatnonzero(category == category[row]))[:50]
        other = next((k for k in others if captions[k] != captions[row]), None)
        if other is not None:
            given[row], wrong[row] = captions[other], True
    return given, wrong


def fit(data: Data, captions: Sequence[str], kept: np.ndarray, seed: int, hooks: Hooks, folder: Path) -> float:
    """Train on some of the training pairs, or resume; write the model into a folder; return the processor seconds."""
    rows, started, timing = np.flatnonzero(kept), time.process_time(), Timing()
    uids = data.train["uid"].to_list()
    own = TrainingData(
        data.pixels, data.train["row"].to_numpy().astype(np.int64)[rows], [[captions[k]] for k in rows.tolist()]
    )
    plan = TrainingSet("f", seed, tuple(uids[k] for k in rows), 0)
    encoder, checkpoints = (
        openclip.create(data.recipe.model.name, seed=plan.init_seed),
        Checkpoints(folder / CHECKPOINT_FILE, EVERY),
    )
    settings = data.recipe.train
    train(Towers(encoder, hooks=hooks), own, plan, settings, folder, Session(checkpoints=checkpoints, timing=timing))
    sweep(folder)
    # what an earlier process did before it was stopped took as long for each pair
    return (time.process_time() - started) / timing.pairs * len(rows) * settings.epochs


def embedded(data: Data, encoder: Any, rows: pl.DataFrame, captions: Sequence[str]) -> Means:
    """Return the unit embeddings of some pairs."""
    place = rows["row"].to_numpy().astype(np.int64)
    texts, uids = [[one] for one in captions], rows["uid"].to_list()
    inputs = passes.Inputs(data.pixels, place, texts, uids)
    found = passes.embed(encoder, inputs, data.recipe.embed, data.recipe.train)
    return unit_means(found.image, found.text, found.text_pair)


def recall(data: Data, encoder: Any) -> float:
    """Return recall@5 on the test pairs, mean of both directions."""
    captions = data.test["caption"].to_list()
    means = embedded(data, encoder, data.test, captions)
    same = identity_of(data.test["uid"].to_list(), [[one] for one in captions])
    result = retrieve(means.image, means.text, torch.arange(len(captions)), same, ks=(5,))
    return float(np.mean([(queries.rank <= 5).mean() for queries in (result.image, result.text)]))


def signals_of(data: Data, captions: Sequence[str], encoder: Any = None, folder: Path | None = None) -> Signals:
    """Return the signals of the training pairs, without a model or with the one trained on everything."""
    uids, rows = data.train["uid"].to_list(), data.train["row"].to_numpy()
    base = {
        "uids": uids,
        "captions": [[one] for one in captions],
        "group": np.unique([image_part(uid) for uid in uids], return_inverse=True)[1].astype(np.int64),
        "pixels": lambda chosen: data.pixels[rows[chosen]],
    }
    if encoder is None or folder is None:
        return Signals(**base)
    means = embedded(data, encoder, data.train, captions)
    return Signals(**base, image=means.image, text=means.text, trajectory=read_trajectory(folder, uids))


def first(score: np.ndarray, count: int) -> np.ndarray:
    """Return which pairs have the largest scores; NaN is lowest."""
    kept = np.zeros(len(score), dtype=np.bool_)
    kept[np.argsort(-np.where(np.isnan(score), -np.inf, score), kind="stable")[:count]] = True
    return kept


def lists_of(signals: Signals, count: int, prefix: str) -> tuple[dict[str, np.ndarray], float]:
    """Return the pairs that each detector and the whole list remove, and the seconds that finding them took."""

    started = time.process_time()
    table = curate(signals, detectors=usable("mismatched captions", signals)).table
    seconds = time.process_time() - started
    own = [name for name in table.columns if name.endswith("_score")]
    numbers = table.select(pl.col(own).cast(pl.Float64).fill_null(float("nan")))
    found = {
        f"{prefix}{name.removesuffix('_score').replace('_', '-')}": first(numbers[name].to_numpy(), count)
        for name in own
    }
    found[f"{prefix}rank-sum"] = first(table["score"].to_numpy(), count)
    found[f"{prefix}curate"] = table["is_suspect"].to_numpy()
    return found, seconds


class Cell:
    """One share and kind of mismatched captions under one seed; a file per method, so that a run resumes."""

    def __init__(self, data: Data, rate: float, kind: str, seed: int, out: Path) -> None:
        self.data, self.about, self.seed = data, {"kind": kind, "rate": rate, "seed": seed}, seed
        self.place = out / "cells" / f"{kind}-{round(100 * rate)}-{seed}"
        self.captions, self.wrong = planted(data.train, rate, kind, seed)
        self.count = int(self.wrong.sum())

    def file(self, method: str) -> Path:
        """Return the file of a method."""
        return self.place / f"{method.replace(':', '-')}.json"

    def model(self, method: str) -> Path:
        """Return the folder of a model while it trains; that of everything stays."""
        return self.place / f"model-{method.replace(':', '-')}"

    def train(self, method: str, removed: np.ndarray, found: float, hooks: Hooks = NO_HOOKS) -> None:
        """Train, measure and write, unless it is done; `found` is what finding the pairs took, in seconds."""
        if self.file(method).is_file():
            return
        folder = self.model(method)
        seconds = fit(self.data, self.captions, ~removed, self.seed, hooks, folder)
        entry = {**self.about, "method": method, "recall": recall(self.data, openclip.load(folder))}
        hit = float((removed & self.wrong).sum() / max(removed.sum(), 1))
        entry |= {"seconds": seconds, "found": found, "removed": int(removed.sum()), "precision": hit}
        write_json(self.file(method), entry)
        print(json.dumps(entry), flush=True)
        if method != "everything":
            shutil.rmtree(folder)

    def halves(self) -> tuple[dict[str, np.ndarray], float]:
        """Return the pairs that the scores of two shadow models remove, and the seconds that finding them took.

        CLIPMem is A under the shadow model that trained on the pair minus A under the other, A(g) that of the other.
        """
        data, n = self.data, len(self.captions)
        member = generator(self.seed, "halves").permutation(n) < n // 2
        before, scores, right = 0.0, list[np.ndarray](), data.bank["caption"].to_list()
        for number, kept in enumerate((member, ~member)):
            folder = self.model(f"half-{number}")
            before += fit(data, self.captions, kept, self.seed, NO_HOOKS, folder)
            encoder = openclip.load(folder)
            pairs, bank = embedded(data, encoder, data.train, self.captions), embedded(data, encoder, data.bank, right)
            scores.append(alignment(alignment_parts(pairs.image, pairs.text, bank.image, bank.text)).numpy())
            shutil.rmtree(folder)
        seen, unseen = np.where(member, *scores), np.where(member, *scores[::-1])
        signals = Signals(
            uids=data.train["uid"].to_list(),
            captions=[[one] for one in self.captions],
            group=np.arange(n),
            scores={"clipmem": seen - unseen, "g_alignment": unseen},
        )
        return {name: first(PAIR_SCORES[name]().score(signals), self.count) for name in HALVES}, before

    def run(self, methods: Sequence[str]) -> None:
        """Run what is missing."""
        none, n = np.zeros(len(self.captions), dtype=np.bool_), len(self.captions)
        self.train("everything", none, 0.0)
        lists = {
            "random": (first(generator(self.seed, "random removal").random(n), self.count), 0.0),
            "oracle": (self.wrong, 0.0),
        }
        if not methods or not set(methods) <= {*SIMPLE, *HALVES}:
            folder, alone = self.model("everything"), json.loads(self.file("everything").read_text())["seconds"]
            encoder = openclip.load(folder)
            for prefix, own, before in (("free:", {}, 0.0), ("", {"encoder": encoder, "folder": folder}, alone)):
                found, seconds = lists_of(signals_of(self.data, self.captions, **own), self.count, prefix)
                lists |= {name: (removed, before + seconds) for name, removed in found.items()}
        wanted = [name for name in HALVES if not methods or name in methods]
        if self.count and not all(self.file(name).is_file() for name in wanted):
            found, seconds = self.halves()
            lists |= {name: (removed, seconds) for name, removed in found.items()}
        for method, (removed, found) in lists.items():
            if (not methods or method in methods) and removed.any():
                self.train(method, removed, found)
        if (not methods or "reweight" in methods) and not self.file("reweight").is_file():
            started, train = time.process_time(), self.data.train
            rows, pixels = train["row"].to_numpy(), self.data.pixels
            texts = [[one] for one in self.captions]
            group = numbered(map(image_part, train["uid"]))
            known = Signals(train["uid"].to_list(), texts, group, pixels=lambda k: pixels[rows[k]])
            agreement = neighbor_agreement(known)
            hook = Reweight(ReweightSection(share=min(2 * self.count / n or CLEAN, 0.99)), self.seed, agreement)
            self.train("reweight", none, time.process_time() - started, Hooks((hook,)))


def summary(out: Path) -> list[dict[str, Any]]:
    """Return the share of the oracle's gain of every method in each cell, with its interval over seeds.

    Cost: processor seconds of training and finding, in trainings on everything.
    """
    table = pl.DataFrame([json.loads(file.read_text()) for file in sorted(out.glob("cells/*/*.json"))])
    keys = ["kind", "rate", "seed"]
    for name in ("everything", "oracle"):
        own = table.filter(method=name).select(*keys, pl.col("recall", "seconds").name.prefix(f"{name}_"))
        table = table.join(own, on=keys, how="left")
    table = table.with_columns(
        gain=pl.col("recall") - pl.col("everything_recall"),
        best=pl.col("oracle_recall") - pl.col("everything_recall"),
        cost=(pl.col("seconds") + pl.col("found")) / pl.col("everything_seconds"),
    )
    return [
        {"kind": kind, "rate": rate, "method": method, **_summary(own.sort("seed"))}
        for (kind, rate, method), own in table.group_by("kind", "rate", "method", maintain_order=True)
    ]


def _summary(own: pl.DataFrame) -> dict[str, Any]:
    gain, best = own["gain"].to_numpy(), own["best"].to_numpy()
    drawn = generator(0, "acting").integers(0, len(gain), (DRAWS, len(gain)))
    means = {name: own[name].mean() for name in ("recall", "gain", "cost", "precision")}
    found = {"seeds": len(gain), **means, "gain_interval": None, "share": None, "share_interval": None}
    if len(gain) > 1:
        found["gain_interval"] = np.quantile(gain[drawn].mean(axis=1), [0.025, 0.975]).tolist()
    if np.isfinite(best).all() and best.mean() > 0 and own["method"][0] != "everything":
        found["share"] = gain.mean() / best.mean()
        if len(gain) > 1:
            share = gain[drawn].mean(axis=1) / best[drawn].mean(axis=1)
            found["share_interval"] = np.quantile(share, [0.025, 0.975]).tolist()
    return found


def by_rate(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of gains by kind and share of swapped captions."""
    shown = ("oracle", "reweight", "free:curate")
    lines = [f"| swapped captions | R@5, nothing done | {' | '.join(NAMES[one] for one in shown)} |"]
    lines += [f"|{' --- |' * (2 + len(shown))}"]
    found = {(row["kind"], row["rate"], row["method"]): row for row in rows}
    for kind, named in KINDS.items():
        for rate in sorted({row["rate"] for row in rows if row["kind"] == kind}):
            cells = [_gain(found.get((kind, rate, method))) for method in shown]
            wrong = f"{100 * rate:.0f}% {named}" if rate else "none"
            lines += [f"| {wrong} | {100 * found[kind, rate, 'everything']['recall']:.1f}% | {' | '.join(cells)} |"]
    return "\n".join(lines)


def by_method(rows: Sequence[Mapping[str, Any]], kind: str = "random", rate: float = 0.2) -> str:
    """Return the table of all methods for one kind and share of swapped captions, the best last."""
    own = {row["method"]: row for row in rows if (row["kind"], row["rate"]) == (kind, rate)}
    lines = ["| method | R@5 | gain, points | share of oracle's gain | swapped among removed | cost, trainings |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [f"| nothing | {100 * own['everything']['recall']:.1f}% | 0 | 0 | | 1.00 |"]
    for method, named in sorted(NAMES.items(), key=lambda one: own[one[0]]["gain"]):
        row = own[method]
        low, high = (100 * end for end in row["gain_interval"])
        ends = "" if method == "oracle" else f" [{', '.join(f'{100 * end:.0f}' for end in row['share_interval'])}]"
        cells = [f"{100 * row['recall']:.1f}%", f"{100 * row['gain']:.1f} [{low:.1f}, {high:.1f}]"]
        cells += [f"{100 * row['share']:.0f}%{ends}", f"{100 * row['precision']:.0f}%" if row["precision"] else ""]
        lines += [f"| {named} | {' | '.join(cells)} | {row['cost']:.2f} |"]
    return "\n".join(lines)


def _gain(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = (100 * end for end in row["gain_interval"])
    # where the gain of the oracle is uncertain, so is the share of it
    known = row["method"] != "oracle" and row["share_interval"] and np.ptp(row["share_interval"]) < 1
    share = f", {100 * row['share']:.0f}%" if known else ""
    return f"{100 * row['gain']:+.1f} [{low:.1f}, {high:.1f}]{share}"


def write_page(rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the tables between the marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("rates", by_rate(rows)), ("methods", by_method(rows))):
        pattern = re.compile(rf"(<!-- acting: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the cells that are missing, then print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="tiny")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", type=float, nargs="*", help="instead of those of the scale")
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--methods", nargs="*", default=[], help="by default all")
    parser.add_argument("--record", action="store_true", help="store what is there, and write the tables of the page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)  # waiting threads of BLAS would count as processor time
    if not args.record:
        scale = SCALES[args.scale]
        args.out.mkdir(parents=True, exist_ok=True)
        data = load(args.out, scale)
        for seed in range(scale["seeds"]) if args.seeds is None else args.seeds:
            for kind in args.kinds or scale["kinds"]:
                for rate in scale["rates"] if args.rates is None else args.rates:
                    Cell(data, rate, kind, seed, args.out).run(args.methods)
    rows = summary(args.out)
    if args.record:
        new = {(row["kind"], row["rate"]) for row in rows}
        rows = [*(row for row in json.loads(RECORD.read_text()) if (row["kind"], row["rate"]) not in new), *rows]
        write_json(RECORD, rows)
        write_page(rows)
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
