"""Print the tables of RESULTS.md: UnitMem by layer of CLIP, supervised and SimCLR on the emoji.

    pip install -e ./reproduce
    for r in clip supervised simclr; do
        clipmem run experiments/paradigms/$r.toml --out runs/$r
        clipmem localize runs/$r
    done
    python experiments/paradigms/compare.py runs

The curves (mean UnitMem of each layer, one row per model) and the accuracies of the models are in `curves.parquet` and
`learned.parquet`; `--stored` prints the same tables and draws the figure from these files, without any run.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from clipmem.base.folder import RunFolder
from clipmem.base.random import derive_seed
from clipmem.data.cache import open_cache
from clipmem.data.views import as_float, normalize_pixels
from clipmem.functional import paired_test
from clipmem.measure.localize import sample_pairs, views_of
from clipmem.measure.units import sweep_model
from clipmem.models import openclip
from clipmem.report.figures import standalone
from clipmem.report.formats import interval, p_value, signed
from clipmem.study.localizing import localized_pairs
from clipmem.study.plan import PlannedStudy
from clipmem.train.objectives import class_head
from clipmem_reproduce.curves import KINDS, TITLES, answers_of, compare_curves, curves_figure, curves_of, trained_of

HERE = Path(__file__).parent
NEIGHBORS = 5
WHAT = {
    "neighbors": "label of unseen pairs by 5 neighbors",
    "largest_class": "share of the largest class",
    "head_trained_on": "label by the head, trained on",
    "head_external": "label by the head, unseen",
    "first_loss": "loss, first epoch",
    "last_loss": "loss, last epoch",
}


def collect(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Collect the curves and accuracies of all runs, and of untrained towers."""
    curves = [
        curves_of(pl.read_parquet(folder / name / "localize" / "units.parquet"), run=TITLES[name], objective=name)
        for name in TITLES
    ]
    first = RunFolder(folder / "clip")
    learned: list[dict[str, Any]] = []
    for seed in first.recipe().train.seeds:
        untrained = openclip.create(first.recipe().model.name, seed=derive_seed(seed, "init"))
        curves.append(curve_of_untrained(first, untrained, seed))
        learned.append({"run": "untrained", "seed": seed, **accuracy(first, untrained, None)})
        for name in TITLES:
            study = RunFolder(folder / name)
            place = study.model_dir("f", seed)
            head = class_head(place)
            learned.append(
                {
                    "run": TITLES[name],
                    "seed": seed,
                    **accuracy(study, openclip.load(place), head),
                    **losses(place),
                }
            )
    return pl.concat(curves), pl.DataFrame(learned, infer_schema_length=None)


def curve_of_untrained(study: RunFolder, encoder: openclip.OpenClipEncoder, seed: int) -> pl.DataFrame:
    """Return UnitMem of a tower at its initial weights, over the same images and views."""
    recipe = study.recipe()
    sample = sample_pairs(localized_pairs(PlannedStudy(study.path)), recipe)
    candidates = replace(sample, table=sample.table.filter(role="candidate"))
    units, _ = sweep_model(encoder, candidates, views_of(recipe), unit_pairs=None, model=("f", seed), towers=["image"])
    return curves_of(units, run="untrained", objective="none")


def accuracy(
    study: RunFolder, encoder: openclip.OpenClipEncoder, head: Callable[[torch.Tensor], torch.Tensor] | None
) -> dict[str, float | None]:
    """Return the accuracy on external pairs, which no model saw, by nearest shared pairs, and by the head if any."""
    pairs, splits = study.read("pairs").with_row_index("row"), study.read("splits")
    table = splits.select("uid", "role").join(pairs.select("uid", "row", "label"), on="uid", maintain_order="left")
    names = sorted(set(pairs["label"]))
    label = torch.tensor([names.index(own) for own in table["label"]])
    pixels = open_cache(study.path / "cache" / "pixels.npy")
    encoder.module.eval()
    with torch.inference_mode():
        blocks = [
            encoder.encode_image(
                normalize_pixels(as_float(torch.from_numpy(pixels[rows])), encoder.mean, encoder.std)
            ).float()
            for rows in np.array_split(table["row"].to_numpy(), 20)
        ]
        embedded = torch.cat(blocks)
        scored = head(embedded).argmax(dim=1) if head else None
    role = table["role"].to_numpy()
    shared, external, candidate = (torch.from_numpy(role == own) for own in ("shared", "external", "candidate"))
    unit = torch.nn.functional.normalize(embedded, dim=1)
    near = (unit[external] @ unit[shared].T).topk(NEIGHBORS).indices
    votes = torch.nn.functional.one_hot(label[shared][near], len(names)).sum(dim=1)
    return {
        "neighbors": float((votes.argmax(dim=1) == label[external]).float().mean()),
        "largest_class": float(torch.bincount(label[external]).max() / external.sum()),
        "head_trained_on": float((scored == label)[shared | candidate].float().mean()) if scored is not None else None,
        "head_external": float((scored == label)[external].float().mean()) if scored is not None else None,
    }


def losses(place: Path) -> dict[str, float]:
    """Return the mean loss of the first and of the last epoch."""
    steps = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    last = max(step["epoch"] for step in steps)
    return {
        name: float(np.mean([step["loss"] for step in steps if step["epoch"] == epoch]))
        for name, epoch in (("first_loss", 0), ("last_loss", last))
    }


def mean_rows(table: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """Return means over seeds of a column of `learned`, with t intervals."""
    rows = []
    for run in table["run"].unique(maintain_order=True):
        values = table.filter(pl.col("run") == run)[name].drop_nulls().to_numpy()
        if len(values):
            found = paired_test(values, np.zeros_like(values))
            rows.append({"run": run, "what": name, "mean": found.difference, "low": found.low, "high": found.high})
    return rows


def gained(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Return each run's accuracy by neighbors minus that of its initial tower, paired by seed."""
    by_run = {run: table.filter(pl.col("run") == run).sort("seed")["neighbors"].to_numpy() for run in set(table["run"])}
    tests = {name: paired_test(by_run[TITLES[name]], by_run["untrained"]) for name in TITLES}
    return [
        {"run": TITLES[name], "difference": test.difference, "low": test.low, "high": test.high, "p": test.p}
        for name, test in tests.items()
    ]


def main() -> None:
    """Print and write the comparison."""
    if sys.argv[1] != "--stored":
        curves, learned = collect(Path(sys.argv[1]))
        curves.write_parquet(HERE / "curves.parquet")
        learned.write_parquet(HERE / "learned.parquet")
    curves, learned = (pl.read_parquet(HERE / f"{name}.parquet") for name in ("curves", "learned"))
    trained = curves.filter(pl.col("run") != "untrained")
    untrained = curves.filter(pl.col("run") == "untrained")
    result = {
        **compare_curves(trained),
        "untrained": untrained.group_by("kind", "layer").agg(pl.col("unitmem").mean()).sort("kind", "layer").to_dicts(),
        "between_by_median": compare_curves(trained, value="unitmem_median")["between"],
        "learned": [row for name in learned.columns[2:] for row in mean_rows(learned, name)],
        "gained": gained(learned),
        "runs": [{"run": TITLES[name], "objective": name} for name in TITLES],
    }
    (HERE / "paradigms.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_tables(result)
    if "docs" in sys.argv[2:]:
        image = HERE.parents[1] / "docs" / "images" / "paradigms.svg"
        image.write_text(
            standalone(replace(curves_figure(result), width=720).svg("side_by_side", "wide")), encoding="utf-8"
        )


def print_tables(result: dict[str, Any]) -> None:
    """Print the tables of RESULTS.md."""
    for line in markdown(result):
        print(line)


def markdown(result: dict[str, Any]) -> list[str]:
    """Return the lines of the tables of RESULTS.md."""
    runs = list(TITLES.values())
    mean = {(row["run"], row["side"], row["kind"], row["layer"]): row for row in result["curves"]}
    start = {(row["kind"], row["layer"]): row["unitmem"] for row in result["untrained"]}
    answer = {(row["kind"], row["layer"]): " ".join([row["answer"], row["side"]]).strip() for row in result["between"]}
    lines = ["", f"| units | layer | untrained | {' | '.join(runs)} | between? |", "| --- " * (len(runs) + 4) + "|"]
    sites = sorted(answer, key=lambda site: (list(KINDS).index(site[0]), site[1]))
    for kind, layer in sites:
        cells = [
            f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            for row in (mean[run, "f", kind, layer] for run in runs)
        ]
        lines.append(f"| {kind} | {layer} | {start[kind, layer]:.3f} | {' | '.join(cells)} | {answer[kind, layer]} |")
    lines += ["", "| units, layer | runs | difference | 95% interval | p (Holm) |", "| --- " * 5 + "|"]
    lines += [
        f"| {KINDS[row['kind']]}, {row['layer']} | {row['a']} - {row['b']} | {signed(row['difference'])} "
        f"| {interval(row, sign=True)} | {p_value(row['p_holm'])} |"
        for row in sorted(result["differences"], key=lambda row: sites.index((row["kind"], row["layer"])))
    ]
    lines += ["", "| units | layer | " + " | ".join(f"{run}: f - g" for run in runs) + " |", "| --- " * 5 + "|"]
    gain = {(row["run"], row["kind"], row["layer"]): row for row in result["trained"]}
    for kind, layer in sites:
        cells = [
            f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{' *' * (row['p_holm'] <= 0.05)}"
            for row in (gain[run, kind, layer] for run in runs)
        ]
        lines.append(f"| {kind} | {layer} | {' | '.join(cells)} |")
    lines += ["", "| run | what | mean over seeds | 95% interval |", "| --- " * 4 + "|"]
    for row in result["learned"]:
        lines.append(f"| {row['run']} | {WHAT[row['what']]} | {row['mean']:.3f} | {interval(row)} |")
    lines += ["", "| run | label of unseen pairs, minus an untrained tower | 95% interval | p |", "| --- " * 4 + "|"]
    for row in result["gained"]:
        lines.append(f"| {row['run']} | {row['difference']:+.3f} | {interval(row, sign=True)} | {row['p']:.3f} |")
    return [*lines, "", *map(answer_sentence, answers_of(result)), *(trained_sentence(result, kind) for kind in KINDS)]


def answer_sentence(answer: dict[str, Any]) -> str:
    """Say in which layers CLIP is between the others."""
    verdict = "In part" if answer["verdict"] == "partly" else answer["verdict"].capitalize()
    parts = []
    for part in answer["parts"]:
        side = f" ({part['side']} both)" if part["side"] else ""
        parts.append(f"{part['answer']}{side} in {layers(part['layers'])}")
    end = " (all of them)" if len(parts) == 1 else ""
    return f"Is CLIP between supervised and SimCLR in {KINDS[answer['kind']]}? {verdict}: {'; '.join(parts)}{end}."


def trained_sentence(result: dict[str, Any], kind: str) -> str:
    """Say in which layers f and g differ in each run."""
    runs = []
    for row in trained_of(result, kind):
        sides = [f"{side} in {layers(row[side])}" for side in ("above", "below") if row[side]]
        runs.append(f"{row['run']} {' and '.join(sides) or 'no difference shown'}")
    return f"f (trained on these pairs) against g (not trained on them), in {KINDS[kind]}: {'; '.join(runs)}."


def layers(numbers: list[int]) -> str:
    """Format sorted layers as ranges, such as "layers 1 to 3, 7"."""
    starts = [n for k, n in enumerate(numbers) if k == 0 or numbers[k - 1] != n - 1]
    ends = [a for a, b in pairwise(numbers) if b != a + 1] + numbers[-1:]
    ranges = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))
    return f"layer{'s' if len(numbers) > 1 else ''} {ranges}"


if __name__ == "__main__":
    main()
