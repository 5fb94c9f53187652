"""Which measures find mismatched captions? Prints the table of RESULTS.md and writes measures.json.

    for r in measures measures-supervised; do
        clipmem run experiments/validation/$r.toml --out runs/$r
    done
    python experiments/validation/measures.py runs
    python experiments/validation/measures.py --stored     # the same table from measures.parquet

A measure's memorization of a pair is its mean over seeds under f minus that under g. All but `confidence` use the
stored embeddings of one study; `confidence` uses the other, which was trained on the same pairs with their labels.
"""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch

from clipmem.base.folder import RunFolder
from clipmem.functional import alignment, auroc
from clipmem.scoring.aligning import parts_of
from clipmem.scoring.alignments import ALIGNMENTS
from clipmem.study.plan import PlannedStudy

HERE = Path(__file__).parent


def collect(folder: Path) -> pl.DataFrame:
    """Score the candidates by every measure, from the embeddings of both studies."""
    return pl.concat(
        [
            scores(RunFolder(folder / ("measures-supervised" if name == "confidence" else "measures")), name)
            for name in ALIGNMENTS
        ]
    )


def scores(folder: RunFolder, name: str) -> pl.DataFrame:
    """Compute one measure's memorization of the candidates."""
    study = PlannedStudy(folder.path)
    values = {side: [] for side in "fg"}
    for model in study.models:
        parts = parts_of(
            study.embeddings(model), study.role == "external", name, labels=study.labels, head=study.head(model)
        )
        values[model.side].append(alignment(parts, weight=study.recipe.score.weight))
    f, g = (torch.stack(found).mean(dim=0).numpy() for found in values.values())
    return (
        study.splits.select("uid", "role", "planted")
        .with_columns(pl.lit(name).alias("measure"), pl.Series("score", f - g), pl.Series("without", g))
        .filter(pl.col("role") == "candidate")
        .drop("role")
    )


def found(table: pl.DataFrame, name: str) -> dict[str, object]:
    """Return the AUROC of the swapped pairs among the candidates, by the measure and by low values of g alone."""
    own = table.filter(pl.col("measure") == name)
    wrong = own["planted"].to_numpy()
    area, alone = auroc(own["score"].to_numpy(), wrong), auroc(-own["without"].to_numpy(), wrong)
    score = own["score"].to_numpy()
    return {
        "measure": name,
        "planted": int(wrong.sum()),
        "rest": int((~wrong).sum()),
        "mean": float(score.mean()),
        "mean_planted": float(np.mean(score[wrong])),
        "auroc": area.mean,
        "low": area.low,
        "high": area.high,
        "g_alone": alone.mean,
        "g_alone_low": alone.low,
        "g_alone_high": alone.high,
        "finds_wrong_captions": area.low > 0.5,
    }


def main() -> None:
    """Print and write the table."""
    stored = HERE / "measures.parquet"
    if sys.argv[1] != "--stored":
        collect(Path(sys.argv[1])).write_parquet(stored)
    table = pl.read_parquet(stored)
    rows = [found(table, name) for name in table["measure"].unique(maintain_order=True)]
    (HERE / "measures.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=180, float_precision=3, tbl_formatting="ASCII_MARKDOWN"):
        print(pl.DataFrame(rows))


if __name__ == "__main__":
    main()
