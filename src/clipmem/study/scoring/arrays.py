"""A comparison of embeddings that are in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.study.scoring.comparison import STORED, check_lists
from clipmem.study.scoring.job import Comparison
from clipmem.study.scoring.pairs import Bank, Pairs, bank_of_uids, draw
from clipmem.study.scoring.settings import Settings
from clipmem.study.scoring.sides import ArraySide, Side


def compare_arrays(lists: Mapping[str, list[Any]], uids: Any, bank: Any, settings: Settings) -> Comparison:
    """Make the comparison of embeddings in memory.

    Args:
        lists: `target` and `reference` → (image, text) or (image, text, text_pair), one for each model.
        uids: The pairs' uids; None numbers them.
        bank: uids, row numbers or a mask; None draws the bank.
        settings: The settings, checked.

    Raises:
        InputError: Arrays, uids or bank do not belong together.
    """
    sides: dict[str, list[Side]] = {}
    names = None if uids is None else [str(uid) for uid in uids]
    for kind, models in lists.items():
        if not all(isinstance(one, tuple) for one in models):
            raise InputError(
                kind, got="arrays and addresses", expected="one or the other", todo="Embed them all first."
            )
        sides[kind] = [ArraySide(f"{kind} {k}", names, *one[:3]) for k, one in enumerate(models)]
    check_lists({kind: len(models) for kind, models in sides.items()})
    counts = sorted({len(side) for models in sides.values() for side in models if isinstance(side, ArraySide)})
    names = [str(row) for row in range(counts[0])] if names is None else names
    if counts != [len(names)] or len(set(names)) != len(names) or not names:
        raise InputError(
            "pairs",
            got=f"{len(names)} uids, {len(set(names))} of them different, for arrays of {counts} pairs",
            expected="one pair or more, a uid for each, and the same pairs in all arrays",
            todo="Leave uids out to number the pairs.",
        )
    pairs = Pairs("arrays", pl.DataFrame({"uid": names}, schema={"uid": pl.String}))
    chosen = _array_bank(bank, pairs, settings)
    chosen.check(pairs)
    block = settings.block or STORED
    return Comparison(sides["target"], sides["reference"], pairs, chosen, block, settings.weight, settings.confidence)


def _array_bank(bank: Any, pairs: Pairs, settings: Settings) -> Bank:
    if bank is None:
        return Bank(pairs.only(draw(pairs.table["uid"], settings.bank_size, settings.seed), "drawn"), drawn=True)
    asked = np.asarray(bank)
    if asked.dtype.kind in "OUS":
        return bank_of_uids([str(uid) for uid in asked], pairs, "of uids")
    rows = np.flatnonzero(asked) if asked.dtype == bool or not asked.size else asked
    wrong = asked.ndim != 1 or rows.dtype.kind not in "iu" or (asked.dtype == bool and len(asked) != len(pairs))
    if wrong or (len(rows) and not 0 <= rows.min() <= rows.max() < len(pairs)):
        raise InputError(
            "bank",
            got=f"{shorten(bank)}",
            expected=f"uids, row numbers from 0 to {len(pairs) - 1}, or a mask of {len(pairs)}",
            todo="Say which of the pairs no model trained on.",
        )
    return Bank(pairs.only(pairs.table["uid"].gather(np.unique(rows)).to_list(), "of rows"), drawn=False)
