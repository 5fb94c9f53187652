"""Build a run folder with plausible numbers: the files that a report reads, nothing trained."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from clipmem.base.random import generator
from clipmem.base.tables import write_table
from clipmem.data.inspection import regime_of
from tests.tiny import whole

# f and g of a role: mean and sd of the alignment
ALIGNED = {
    "shared": ((0.92, 0.05), (0.91, 0.05)),
    "candidate": ((0.91, 0.06), (0.30, 0.22)),
    "independent": ((0.33, 0.20), (0.90, 0.06)),
    "external": ((0.31, 0.20), (0.32, 0.20)),
}
SIZES = {"shared": 24, "candidate": 60, "independent": 20, "external": 20}


@dataclass(frozen=True)
class Built:
    """A run folder, the images of its pairs, and what it was made of."""

    folder: Path
    images: Mapping[str, bytes]
    summary: Mapping[str, Any]
    scores: pl.DataFrame
    pairs: pl.DataFrame
    splits: pl.DataFrame


def encoded_image(number: int) -> bytes:
    """Draw a small PNG that differs with `number`."""
    image = Image.new("RGB", (32, 32), (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    ImageDraw.Draw(image).ellipse((6, 6, 26, 26), fill=(255 - number % 256, 200, 40))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def entry(values: np.ndarray) -> dict[str, float]:
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    mean = float(values.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half, "over": "pairs"}


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    wins = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    return float(np.mean(wins))


def make_tables(
    seeds: Sequence[int], planted: int, sizes: Mapping[str, int], captions: Sequence[Sequence[str]] | None
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return pairs, splits and scores."""
    rng = generator(5, "report")
    roles = [role for role, size in sizes.items() for _ in range(size)]
    uids = [f"{number:032x}" for number in rng.permutation(len(roles)) + 1]
    texts = captions or [
        [f"a thing number {i}", f"thing {i}", f"one of many things, {i}", f"another {i}"] for i in range(len(roles))
    ]
    chosen = {uid for uid, role in zip(uids, roles, strict=True) if role == "candidate"}
    marked = [uid for uid in uids if uid in chosen][:planted]
    source = dict(zip(marked, marked[1:] + marked[:1], strict=True))
    pairs = pl.DataFrame(
        {
            "uid": uids,
            "key": [f"key-{i}" for i in range(len(roles))],
            "image": [f"data#{i}" for i in range(len(roles))],
            "captions": [list(texts[i]) for i in range(len(roles))],
            "variants": [[] for _ in roles],
            "group": [f"g{i}" for i in range(len(roles))],
            "label": ["things"] * len(roles),
            "sublabel": ["small things"] * len(roles),
            "credit": [f"Artist {i % 3}, CC-BY-4.0" for i in range(len(roles))],
        },
        schema_overrides={"variants": pl.List(pl.String)},
    )
    splits = pl.DataFrame(
        {
            "uid": uids,
            "role": roles,
            "group": pairs["group"],
            "planted": [uid in source for uid in uids],
            "captions_from": [source.get(uid, uid) for uid in uids],
        }
    )
    return pairs, splits, make_scores(uids, roles, set(source), seeds)


def make_scores(uids: Sequence[str], roles: Sequence[str], marked: set[str], seeds: Sequence[int]) -> pl.DataFrame:
    rng = generator(6, "scores")
    rows: list[dict[str, Any]] = []
    for uid, role in zip(uids, roles, strict=True):
        (f_mean, f_sd), (g_mean, g_sd) = ALIGNED[role]
        f, g = rng.normal(f_mean, f_sd), rng.normal(g_mean - 0.3 * (uid in marked), g_sd)
        f_bank, g_bank = rng.normal(0, 0.05, 2), rng.normal(0, 0.05, 2)
        score = float((f - f_bank.sum()) - (g - g_bank.sum()))
        error = float(abs(rng.normal(0.05, 0.02)) + 0.01) if len(seeds) > 1 else None
        rows.append(
            {
                "uid": uid,
                "role": role,
                "planted": uid in marked,
                "clipmem": score,
                "stderr": error,
                "low": None if error is None else score - 2 * error,
                "high": None if error is None else score + 2 * error,
                "f_positive": f,
                "f_image_bank": f_bank[0],
                "f_text_bank": f_bank[1],
                "g_positive": g,
                "g_image_bank": g_bank[0],
                "g_text_bank": g_bank[1],
            }
        )
    floats = dict.fromkeys(("stderr", "low", "high"), pl.Float64)
    table = pl.DataFrame(rows, schema_overrides=floats, infer_schema_length=None)
    span = candidate_span(table)
    return table.with_columns(clipmem_norm=pl.col("clipmem") / span)


def candidate_span(scores: pl.DataFrame) -> float:
    values = scores.filter(pl.col("role") == "candidate")["clipmem"].to_numpy()
    return float(values.max() - values.min())


def make_summary(scores: pl.DataFrame, seeds: Sequence[int]) -> dict[str, Any]:
    """Make a summary whose means and AUROCs are those of the scores; intervals are normal approximations."""
    by_role = {role: scores.filter(pl.col("role") == role)["clipmem"].to_numpy() for role in SIZES}
    roles = {
        role: {"n": len(v), **entry(v), "sd": float(v.std(ddof=1)), "median": float(np.median(v))}
        for role, v in by_role.items()
    }
    own, others = by_role["candidate"], by_role["independent"]
    paired = min(len(own), len(others))
    half = entry((own[:paired] - others[:paired]) / 2) | {"mean": float(own.mean() - others.mean()) / 2}
    tests = []
    for other in ("external", "shared", "independent"):
        a, b = by_role["candidate"], by_role[other]
        difference = float(a.mean() - b.mean())
        tests.append(
            {
                "a": "candidate",
                "b": other,
                "difference": difference,
                "low": difference - 0.1,
                "high": difference + 0.1,
                "welch_t": 11.52,
                "welch_df": 61.4,
                "welch_p": 3.1e-17,
                "welch_p_holm": 9.3e-17,
                "mannwhitney_u": 1712.0,
                "mannwhitney_p": 0.0213,
                "mannwhitney_p_holm": 0.0639,
                "hedges_g": 2.41,
                "superiority": 0.953,
            }
        )
    two = len(seeds) > 1
    recall = {"mean": 0.25, "low": 0.2, "high": 0.3, "over": "pairs"}
    side = {f"{way}_retrieval_recall@{k}": recall for way in ("image", "text") for k in (1, 5, 10)}
    side |= {
        f"{way}_retrieval_median_rank": {"mean": 21.5, "low": 18.0, "high": 26.0, "over": "pairs"}
        for way in ("image", "text")
    }
    return {
        "format": 2,
        "protocol": "four-way",
        "seeds": list(seeds),
        "weight": 1.0,
        "confidence": 0.95,
        "roles": roles,
        "normalizer": candidate_span(scores),
        "centered": make_centered(by_role, half["mean"]),
        "half_difference": half | {"over": "pairs and seeds" if len(seeds) > 1 else "pairs"},
        "tests": tests,
        "paired": {
            "role": "candidate",
            "seeds": 2,
            "difference": 0.412,
            "low": -0.031,
            "high": 0.855,
            "t": 11.8,
            "df": 1,
            "p": 0.0537,
            "wilcoxon_p": 0.5,
            "effect": None,
        }
        if two
        else None,
        "noise_floor": {"pairs": 20, "center": -0.004, "half_width": 0.162, "confidence": 0.95},
        "seed_noise": {"seed_pairs": 1, "mean": 0.004, "low": -0.017, "high": 0.025, "sd": 0.081, "mean_abs": 0.062}
        if two
        else None,
        "stability": {"spearman": 0.671, "low": 0.55, "high": 0.77, "top1_overlap": 0.25, "top10_overlap": 0.5}
        if two
        else None,
        "planted": make_planted(scores),
        "retrieval": {
            "n": 20,
            "f": side,
            "g": {**side, "image_retrieval_recall@1": {**recall, "mean": 0.2345}},
            "chance": {f"{way}_retrieval_recall@{k}": k / 20 for way in ("image", "text") for k in (1, 5, 10)}
            | {f"{way}_retrieval_median_rank": 10.5 for way in ("image", "text")},
        },
        "seconds": {
            "plan": 0.4,
            "decode": 3.1,
            "train": 412.0,
            "embed": 20.0,
            "score": 1.2,
            "evaluate": 2.2,
            "report": 1.0,
        },
    }


def make_centered(by_role: Mapping[str, np.ndarray], half: float, verdict: str = "negligible") -> dict[str, Any]:
    """Center means on the median of the external pairs, which stands for their trimmed mean."""
    shift = float(np.median(by_role["external"]))
    roles = {role: entry(values - shift) | {"over": "pairs and seeds"} for role, values in by_role.items()}
    interval = {"low": shift - 0.01, "high": shift + 0.01, "over": "pairs", "stderr": 0.005}
    return {"shift": shift, **interval, "margin": abs(half) / 10, "verdict": verdict, "roles": roles}


def make_planted(scores: pl.DataFrame) -> dict[str, Any] | None:
    rows = scores.filter(pl.col("role") == "candidate")
    marked, score = rows["planted"].to_numpy(), rows["clipmem"].to_numpy()
    if not marked.any():
        return None
    aligned = rows.select(pl.col("g_positive") - pl.col("g_image_bank") - pl.col("g_text_bank")).to_series().to_numpy()
    order = np.argsort(-score)
    found, flagged = np.cumsum(marked[order]) / marked.sum(), np.cumsum(~marked[order]) / (~marked).sum()
    ours, theirs = auroc(score, marked), auroc(-aligned, marked)
    return {
        "n": int(marked.sum()),
        "rest": int((~marked).sum()),
        "auroc": ours,
        "low": ours - 0.07,
        "high": min(1.0, ours + 0.05),
        "mean_planted": float(score[marked].mean()),
        "mean_rest": float(score[~marked].mean()),
        "precision_at_n": float(marked[order][: marked.sum()].mean()),
        "roc": {"fpr": [0.0, *flagged.tolist()], "tpr": [0.0, *found.tolist()]},
        "reference_alignment_auroc": {"auroc": theirs, "low": theirs - 0.06, "high": min(1.0, theirs + 0.04)},
    }


RECIPE = """# a small study
[data]
source = "emoji"
[split]
candidate = 60
independent = 60
planted = 8
[model]
name = "tiny"
[train]
epochs = 4
captions = 4
batch_size = 32
crop_scale = [0.9, 1.0]
lr = 1e-3
[score]
confidence = 0.95
"""


def build_run(
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1),
    planted: int = 8,
    sizes: Mapping[str, int] = SIZES,
    captions: Sequence[Sequence[str]] | None = None,
    steps: int = 40,
) -> Built:
    """Write the files of a finished run into `folder`."""
    pairs, splits, scores = make_tables(seeds, planted, sizes, captions)
    pairs, scores = whole("pairs", pairs), whole("scores", scores)
    summary = make_summary(scores, seeds)
    summary["regime"] = regime_of(pairs["captions"].list.first(), splits["group"].to_list())
    folder.mkdir(parents=True)
    for name, table in (("pairs", pairs), ("splits", splits), ("scores", scores)):
        write_table(folder / f"{name}.parquet", name, table)
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    manifest = {
        "format": 1,
        "clipmem": "0.1.0",
        "created": "2026-01-02T03:04:05Z",
        "command": "clipmem run study.toml --out study",
        "recipe_sha256": "ab" * 32,
        "data_sha256": "cd" * 32,
        "user_set": ["train.epochs"],
        "packages": {"torch": "2.9.1", "open_clip_torch": "3.3.0"},
        "python": "3.11.7",
        "platform": "Linux",
        "processor": "x86_64",
        "cores": 2,
        "device": "cpu",
        "precision": "float32",
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for side in ("f", "g"):
        for seed in seeds:
            write_log(folder / "models" / side / f"seed-{seed}" / "log.jsonl", steps, generator(seed, side))
    images = {uid: encoded_image(number) for number, uid in enumerate(pairs["uid"].to_list())}
    return Built(folder, images, summary, scores, pairs, splits)


def write_log(path: Path, steps: int, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True)
    lines = []
    for step in range(steps):
        loss = 3.4 * float(np.exp(-4 * step / steps)) + 0.15 + float(rng.normal(0, 0.06))
        lines.append(
            json.dumps({"step": step, "epoch": step * 4 // steps, "loss": loss, "lr": 1e-3, "logit_scale": 14.3})
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
