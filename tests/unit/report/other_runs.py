"""Run folders of the other protocols, and what `localize` adds: the four-way folder of `run_folder`, made over."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.random import generator
from clipmem.base.tables import SCHEMAS, write_table
from clipmem.scoring.protocols.subsample import balanced_draw
from tests.tiny import whole
from tests.unit.report.run_folder import Built, build_run, entry, write_log

SIZES = {"candidate": 60, "external": 20}


def _made_over(
    built: Built, protocol: str, summary: dict[str, Any], *, scores: pl.DataFrame, seed_scores: pl.DataFrame
) -> Built:
    """Write the tables and a summary whose roles and normalizer are those of the scores."""
    for role in SIZES:
        values = scores.filter((pl.col("role") == role) & pl.col("clipmem").is_not_null())["clipmem"].to_numpy()
        sd, median = float(values.std(ddof=1)), float(np.median(values))
        summary["roles"][role] = {"n": len(values), **entry(values), "sd": sd, "median": median}
    summary |= {"protocol": protocol, "alignment": "clip", "half_difference": None}
    summary["centered"] = None if protocol == "subsample" else summary["centered"]
    summary["roles"] = {role: summary["roles"][role] for role in SIZES}
    summary["tests"] = [one for one in summary["tests"] if one["b"] == "external"]
    write_table(built.folder / "scores.parquet", "scores", whole("scores", scores))
    write_table(built.folder / "seed_scores.parquet", "seed_scores", whole("seed_scores", seed_scores))
    (built.folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    shutil.rmtree(built.folder / "models")
    return replace(built, summary=summary, scores=scores)


def build_finetuned(folder: Path, **settings: Any) -> Built:
    """Build a four-way folder whose f and g start from a base model, with the scores of that model."""
    built = build_run(folder, **settings)
    rng, parts = generator(9, "base"), ("g_positive", "g_image_bank", "g_text_bank")
    g = built.scores.select(pl.col(parts[0]) - pl.col(parts[1]) - pl.col(parts[2])).to_series()
    learned = pl.Series("learned", rng.normal(0.2, 0.1, built.scores.height))
    scores = built.scores.with_columns((g - learned).alias("a_base"), learned)
    roles = {
        role: {
            "n": len(own),
            **{name: entry(own[name].to_numpy()) for name in ("a_base", "learned", "clipmem")},
        }
        for (role,), own in scores.partition_by("role", as_dict=True).items()
    }
    rank = {"spearman": -0.321, "low": -0.53, "high": -0.07}
    summary = {**built.summary, "base": "runs/first/models/f/seed-0", "learned": {"roles": roles, "spearman": rank}}
    write_table(folder / "scores.parquet", "scores", scores)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return replace(built, summary=summary, scores=scores)


def build_subsample(
    folder: Path, *, models: int = 8, fraction: float = 0.7, planted: int = 8, earlier: bool = False
) -> Built:
    """Build a folder of the protocol "subsample"; of an earlier version: the first candidate has no score."""
    built = build_run(folder, seeds=range(models), planted=planted, sizes=SIZES_FOUR)
    rng = generator(8, "subsample")
    scores, role = built.scores, built.scores["role"].to_list()
    member = balanced_draw(np.ones(scores.height, dtype=np.int64), models, round(fraction * models), rng)
    if earlier:  # all models trained on it
        member[:, role.index("candidate")] = True
    gain = np.array([0.6 if one == "candidate" else 0.0 for one in role])
    values = rng.normal(0.3, 0.05, member.shape) + gain * member
    with np.errstate(invalid="ignore"):
        had, had_not = member.sum(axis=0), (~member).sum(axis=0)
        f = (values * member).sum(axis=0) / np.where(had > 0, had, np.nan)
        g = (values * ~member).sum(axis=0) / np.where(had_not > 0, had_not, np.nan)
    scores = scores.with_columns(
        clipmem=pl.Series(f - g).fill_nan(None), f_positive=f, g_positive=pl.Series(g).fill_nan(None)
    )
    seed_scores = pl.concat(
        pl.DataFrame(
            {
                "uid": scores["uid"],
                "seed": [k] * scores.height,
                "f": np.where(member[k], values[k], np.nan),
                "g": np.where(member[k], np.nan, values[k]),
            }
        ).with_columns(pl.col("f", "g").fill_nan(None))
        for k in range(models)
    )
    summary = dict(built.summary) | {"seed_noise": None}
    summary["stability"] = {"spearman": 0.412, "low": 0.2, "high": 0.6, "top10_overlap": 0.25}
    summary["stability"] |= {"halves": [models // 2] * 2}
    summary["retrieval"] = {key: value for key, value in summary["retrieval"].items() if key != "g"}
    built = _made_over(built, "subsample", summary, scores=scores, seed_scores=seed_scores)
    recipe = built.folder / "recipe.toml"
    recipe.write_text(recipe.read_text("utf-8") + f"[subsample]\nmodels = {models}\nfraction = {fraction}\n", "utf-8")
    for k in range(models):
        write_log(built.folder / "models" / "r" / f"seed-{k}" / "log.jsonl", 20, generator(k, "r"))
    return built


SIZES_FOUR = {"shared": 4, "candidate": 60, "independent": 4, "external": 20}


def build_leave_one_out(folder: Path, *, seeds: Sequence[int] = (0, 1), left_out: int = 12, planted: int = 4) -> Built:
    """Build a folder of the protocol "leave-one-out"."""
    built = build_run(folder, seeds=seeds, planted=planted, sizes={**SIZES_FOUR, "candidate": left_out})
    scores = built.scores.filter(pl.col("role").is_in(list(SIZES)))
    seed_scores = pl.concat(
        scores.select("uid", pl.lit(k, pl.Int64).alias("seed"), pl.col("f_positive").alias("f"), g="g_positive")
        for k in seeds
    )
    built = _made_over(built, "leave-one-out", dict(built.summary), scores=scores, seed_scores=seed_scores)
    sides = ["f", *(f"without-{uid[-12:]}" for uid in scores.filter(pl.col("role") == "candidate")["uid"])]
    for side in sides:
        for seed in seeds:
            write_log(built.folder / "models" / side / f"seed-{seed}" / "log.jsonl", 20, generator(seed, side))
    return built


def add_audit(built: Built, document: Mapping[str, Any]) -> None:
    """Write `audit/` into a folder of the protocol "subsample": the risk falls with the uid."""
    (built.folder / "audit").mkdir()
    (built.folder / "audit" / "audit.json").write_text(json.dumps(document), encoding="utf-8")
    rows = built.scores.filter(role="candidate").sort("uid").select("uid", "planted").with_row_index()
    risk, zero = 1 / (1 + pl.col("index") // 4), pl.lit(0.0)
    table = rows.with_columns(risk=risk, false_alarm=zero, percentile=risk).drop("index")
    write_table(built.folder / "audit" / "pairs.parquet", "audit/pairs", table)


def add_localize(built: Built, *, reliable: bool = True, failures: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Write `localize/` into a four-way folder; return the tables and the document."""
    rng = generator(11, "localize")
    owners = built.scores.filter(pl.col("role") == "candidate")["uid"].to_list()
    units, layers = [], []
    for side in ("f", "g"):
        for tower, depth in (("image", 4), ("text", 3)):
            for layer in range(1, depth + 1):
                units += [
                    {
                        "side": side,
                        "seed": 0,
                        "tower": tower,
                        "layer": layer,
                        "kind": kind,
                        "unit": unit,
                        "unitmem": None if unit == 0 else float(rng.uniform(0.2, 0.9)),
                        "unitmem_median": 0.5,
                        "classmem": float(rng.uniform(0.1, 0.5)),
                        "mu_max": 0.8,
                        "mu_rest": 0.1,
                        "median_error": 0.0,
                        "uid": None if unit == 0 else owners[int(rng.integers(len(owners)))],
                        "label": "things",
                    }
                    for kind in ("attn", "mlp")
                    for unit in range(8)
                ]
    for role, base in (("candidate", 0.06), ("external", 0.0)):
        for tower, depth in (("image", 4), ("text", 3)):
            rows = [(k, kind) for k in range(1, depth + 1) for kind in ("attn", "mlp", "block")]
            for layer, kind in [*rows, (depth + 1, "embedding")]:
                mean, step = base + 0.01 * layer * (base > 0), None if layer == 1 or kind == "embedding" else 0.01
                mem = 0.5 + 0.02 * layer if role == "candidate" and kind in ("attn", "mlp") else None
                layers.append(
                    {
                        "role": role,
                        "tower": tower,
                        "layer": layer,
                        "kind": kind,
                        "n": 60,
                        "layermem": mean,
                        "low": mean - 0.01,
                        "high": mean + 0.01,
                        "delta": step,
                        "delta_low": step and step - 0.02,
                        "delta_high": step and step + 0.02,
                        "n_units": 8 if mem else None,
                        "unitmem_mean": mem,
                        "unitmem_low": mem and mem - 0.02,
                        "unitmem_high": mem and mem + 0.02,
                        "reference_unitmem_mean": mem and mem - 0.05,
                    }
                )
    scores = built.scores
    shares = {"image_share": 0.2 * scores["clipmem"], "text_share": 0.8 * scores["clipmem"]}
    towers = scores.select("uid", "role", "clipmem").with_columns(**shares, reliable=pl.lit(reliable))
    found: dict[str, Any] = {
        "units": pl.DataFrame(units, schema=SCHEMAS["localize/units"]),
        "layers": pl.DataFrame(layers, schema=SCHEMAS["localize/layers"]),
        "towers": towers,
        "document": {
            "reliable": reliable,
            "failures": list(failures),
            "image_r2": [{"shared": 0.91, "external": 0.8}],
            "text_r2": [{"shared": 0.87, "external": 0.7}],
            "shared_bias": 0.02,
            "external_bias": None,
            "roles": {
                role: {
                    "n": 60,
                    "clipmem": {"mean": 0.655, "low": 0.576, "high": 0.74},
                    "image_share": {"mean": 0.049, "low": 0.032, "high": 0.067},
                    "text_share": {"mean": 0.607, "low": 0.524, "high": 0.697},
                    "text_fraction": 0.926,
                }
                for role in ("candidate", "external")
            },
        },
    }
    (built.folder / "localize").mkdir(exist_ok=True)
    for name in ("units", "layers", "towers"):
        found[name].write_parquet(built.folder / "localize" / f"{name}.parquet")
    (built.folder / "localize" / "towers.json").write_text(json.dumps(found["document"]), encoding="utf-8")
    return found


def build_given(folder: Path) -> Built:
    """Build a folder of the protocol "given": two targets, two references."""
    built = build_run(folder, planted=2, sizes={**SIZES_FOUR, "candidate": 12})
    path = built.folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    model = {"name": "a", "parameters": 1200, "image_size": 32, "files": {"m.safetensors": "a" * 64}}
    manifest["given"] = {"target": [model, model], "reference": [model, model], "roles": None}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    shutil.rmtree(built.folder / "models")
    summary = {**built.summary, "protocol": "given"}
    (built.folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return replace(built, summary=summary)
