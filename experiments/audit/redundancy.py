"""How memorization and audit risk change with the number of other drawings of the same emoji (RESULTS.md).

    python experiments/audit/redundancy.py OUT    # trains, and continues after a stop
    python experiments/audit/redundancy.py        # prints the table again from redundancy.json

A seed draws for each of 1,165 emoji with four or more drawings whether 1, 2 or 4 of them are in the data. 16 models of
`drawings.toml` train on random halves of these 2,717 pairs, with the name of the emoji as the caption. In one arm each
pair is drawn by itself, so that other drawings of its emoji are in the training data or not, whatever the pair. In the
other arm all drawings of an emoji are in or out together.

Decided before the first run: six seeds, each with other pairs, halves and models; one look. Two primary effects, which
share a level of 95%: the risk beyond false alarms (LiRA at 1% FPR, `clipmem audit`) of pairs with no other drawing
minus that of pairs with three, claimed above 0 where each pair is drawn by itself, and below 0 where all drawings of
an emoji are drawn together. The score of the run decides nothing.
"""

import json
import sys
from pathlib import Path

import polars as pl

import clipmem
from clipmem.base.random import generator
from clipmem.data.sources.emoji import emoji_table
from clipmem.functional import paired_test

HERE = Path(__file__).parent
STORED = HERE / "redundancy.json"
SEEDS, DRAWINGS, EXTERNAL = range(200, 206), (1, 2, 4), 300
EMOJI, ROLES = 1164, ("candidate", "independent")  # the protocol treats all alike, but each role needs a pair
ARMS = {"each pair by itself": "", "all drawings together": "emoji"}
MEASURES = ("memorization", "risk")
CONFIDENCE = 0.95


def pairs(seed: int) -> pl.DataFrame:
    """Return the pairs of a seed: 1, 2 or 4 drawings of each emoji, and held-out drawings of other emoji."""
    drawings = emoji_table().unique("image_sha1", keep="first", maintain_order=True)
    rng, rows, held_out = generator(seed, "redundancy"), list[tuple[str, str]](), list[tuple[str, str]]()
    emoji, turn = drawings.group_by("unicode", maintain_order=True).agg("id"), 0
    for k in rng.permutation(emoji.height).tolist():
        ids: list[str] = emoji["id"][k].to_list()
        order = [ids[i] for i in rng.permutation(len(ids)).tolist()]
        if len(ids) < max(DRAWINGS):
            held_out.append((order[0], "external"))
        elif turn <= EMOJI:
            role = "shared" if turn == EMOJI else ROLES[turn // len(DRAWINGS) % len(ROLES)]
            rows += [(drawing, role) for drawing in order[: DRAWINGS[turn % len(DRAWINGS)]]]
            turn += 1
    table = pl.DataFrame(rows + held_out[:EXTERNAL], schema=["id", "role"], orient="row")
    about = drawings.select("id", "image", emoji="unicode", caption=pl.col("captions").list.first())
    return table.join(about, on="id", how="left", maintain_order="left")


def measured(out: Path, seed: int, group: str) -> dict[str, list[float]]:
    """Train and audit the models of a seed and an arm; return each measure by the number of drawings."""
    out.mkdir(parents=True, exist_ok=True)
    data = out / "pairs.parquet"
    if not data.is_file():
        pairs(seed).write_parquet(data)
    table = pl.read_parquet(data)
    of_data = {"source": "parquet", "path": f"{data}", "caption_column": "caption", "label_column": "emoji"}
    of_data |= {"role_column": "role", "group_column": group}
    sizes = dict(table.group_by("role").len().iter_rows())
    settings = {
        **{f"data.{key}": value for key, value in of_data.items()},
        **{f"split.{role}": size for role, size in sizes.items()},
        "split.seed": seed,
        "split.near_duplicates": False,
        "split.planted_share": 0,
        "train.seeds": [seed],
        "evaluate.labels": "none",
    }
    run = clipmem.run(HERE / "drawings.toml", out / "run", settings=settings)
    if not (out / "run" / "audit" / "pairs.parquet").is_file():
        clipmem.audit(run)
    drawn = dict(table.group_by("emoji").len().iter_rows())
    risks = pl.read_parquet(out / "run" / "audit" / "pairs.parquet")
    rows = risks.join(run.pairs.select("uid", "label"), on="uid").join(run.scores.select("uid", "clipmem"), on="uid")
    rows = rows.with_columns(drawings=pl.col("label").replace_strict(drawn))
    means = rows.group_by("drawings").agg(
        memorization=pl.col("clipmem").mean(), risk=(pl.col("risk") - pl.col("false_alarm")).mean()
    )
    return {measure: means.sort("drawings")[measure].to_list() for measure in MEASURES}


def lines(document: dict[str, dict[str, list[list[float]]]]) -> list[str]:
    """Return the table: means by the number of drawings, and the first minus the last with its interval."""
    rows = ["| members | measure | no other drawing | one | three | none minus three |", "|" + " --- |" * 6]
    for arm, measures in document.items():
        for name, by_seed in measures.items():
            columns = [list(column) for column in zip(*by_seed, strict=True)]
            level = 1 - (1 - CONFIDENCE) / len(ARMS) if name == "risk" else CONFIDENCE
            test = paired_test(columns[0], columns[-1], level)
            means = " | ".join(f"{sum(column) / len(column):.3f}" for column in columns)
            rows.append(f"| {arm} | {name} | {means} | {test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}] |")
    return rows


if __name__ == "__main__":
    if sys.argv[1:]:
        runs = {
            arm: [measured(Path(sys.argv[1]) / f"{seed}-{group or 'pair'}", seed, group) for seed in SEEDS]
            for arm, group in ARMS.items()
        }
        stored = {arm: {name: [run[name] for run in of] for name in MEASURES} for arm, of in runs.items()}
        STORED.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines(json.loads(STORED.read_text(encoding="utf-8")))))
