"""What `clipmem score` says in the terminal: what the number means, the spread, the highest pairs, and the caveat.

Captions are made visible and given to rich as `Text`, which reads no markup.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipmem.report.escape import visible
from clipmem.report.numbers import plain, signed
from clipmem.report.terminal import TABLE_STYLE, WIDTH
from clipmem.report.words import GIVEN

_CAPTION = 160
MEANING = (
    "CLIPMem of a pair: how much better the target aligns picture and captions than the reference does. 0: as well; "
    "above 0: better, and more memorized if only the target saw the pair. From -6 to 6 by the formula, in practice "
    "within about 2 of 0."
)


def pairs_sentence(about: Mapping[str, Any], quarantine: Path | None) -> str:
    """Say how many pairs were scored, against what, and how many were left out.

    Args:
        about: The content of `scores.json`.
        quarantine: The list of the records left out, if there is one.
    """
    bank = about["bank"]
    origin = "drawn from the data, as nobody named held-out pairs" if bank["drawn"] else f"from {bank['name']}"
    left = f" {about['left_out']:,} left out, listed in {quarantine}." if about["left_out"] else ""
    return f"{about['pairs']:,} pairs scored against a bank of {bank['pairs']:,} ({origin}).{left}"


def control_sentence(about: Mapping[str, Any]) -> str:
    """Say how the bank's own pairs score, which no model should have seen."""
    if about["control"] is None:
        return "Control: none, a bank of one pair has no other to be measured against."
    return (
        f"Control: the bank's own pairs score {signed(about['control'])} on average. If no model trained on them and "
        "the models differ in their training pairs only, that is about 0."
    )


def caveat(about: Mapping[str, Any]) -> str:
    """Say what cannot be known of given models, and whether the bank is known to be unseen."""
    drawn = " The bank is right only if no model trained on its pairs: give such pairs with --bank."
    return f"These models were not trained as twins by clipmem. {GIVEN.caveat}{drawn if about['bank']['drawn'] else ''}"


def _spread(scores: pl.DataFrame) -> Table:
    table = Table(title="CLIPMem by role", **TABLE_STYLE)
    table.add_column("role")
    for name in ("n", "mean", "sd", "median", "least", "most"):
        table.add_column(name, justify="right", no_wrap=True)
    for role in ("candidate", "external"):
        values = scores.filter(pl.col("role") == role)["clipmem"]
        if len(values):
            told = [values.mean(), values.std(), values.median(), values.min(), values.max()]
            cells = [f"{len(values):,}", *(plain(v) if k == 1 else signed(v) for k, v in enumerate(told))]  # pyright: ignore[reportArgumentType]
            table.add_row(role, *(Text(cell) for cell in cells))
    return table


def _top(scores: pl.DataFrame, captions: Mapping[str, Sequence[str]]) -> Table:
    candidates = scores.filter(pl.col("role") == "candidate")
    table = Table(title=f"Highest, {len(captions)} of {candidates.height:,} candidates", **TABLE_STYLE)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("score ± error", justify="right", no_wrap=True)
    table.add_column("uid", no_wrap=True)
    table.add_column("caption", overflow="ellipsis", no_wrap=True)
    ranked = candidates.sort("clipmem", "uid", descending=[True, False]).head(len(captions))
    for rank, row in enumerate(ranked.iter_rows(named=True), start=1):
        error = "" if row["stderr"] is None else f" ± {plain(row['stderr'])}"
        own = captions[row["uid"]]
        table.add_row(
            str(rank),
            Text(f"{signed(row['clipmem'])}{error}"),
            Text(visible(row["uid"], 12).partition("…")[0]),
            Text(visible(own[0], _CAPTION) if own else "(no caption)"),
        )
    return table


def print_scored(
    scores: pl.DataFrame,
    about: Mapping[str, Any],
    captions: Mapping[str, Sequence[str]],
    quarantine: Path | None,
    out: Path,
    console: Console,
) -> None:
    """Print what scores of given models say.

    Args:
        scores: The table of scores.
        about: The content of `scores.json`.
        captions: Captions of the candidates that score highest, by uid.
        quarantine: The list of the records left out, if there is one.
        out: Where the scores are.
        console: Where to print. At most 100 of its columns are used.
    """
    width = min(WIDTH, console.width)
    console.print(Text(MEANING), width=width)
    console.print()
    console.print(_spread(scores), width=width)
    if captions:
        console.print(_top(scores, captions), width=width)
    for line in (pairs_sentence(about, quarantine), control_sentence(about), caveat(about)):
        console.print(Text(visible(line)), width=width)
    console.print(Text(visible(f"Scores: {out}")), soft_wrap=True)
