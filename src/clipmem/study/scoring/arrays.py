"""A comparison of embeddings that are in memory."""

from collections.abc import Iterable, Mapping
from pathlib import Path
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
    names = None if uids is None else _names(uids)
    for kind, models in lists.items():
        wrong = [one for one in models if not (isinstance(one, tuple) and len(one) in {2, 3})]
        if wrong:
            raise InputError(
                kind,
                got="an address beside arrays"
                if isinstance(wrong[0], str | Path)
                else f"a {type(wrong[0]).__name__} of {len(wrong[0])}"
                if hasattr(wrong[0], "__len__")
                else shorten(wrong[0]),
                expected="(image, text) or (image, text, pair) for each model",
                hint="Embed the pairs with every model first, or give addresses only.",
            )
        sides[kind] = [ArraySide(f"{kind} {k}", names, *one) for k, one in enumerate(models)]
    check_lists({kind: len(models) for kind, models in sides.items()})
    counts = sorted({len(side) for models in sides.values() for side in models if isinstance(side, ArraySide)})
    names = [str(row) for row in range(counts[0])] if names is None else names
    if counts != [len(names)] or len(set(names)) != len(names) or not names:
        raise InputError(
            "pairs",
            got=f"{len(names)} uids, {len(set(names))} of them different, for arrays of {counts} pairs",
            expected="one pair or more, a uid for each, and the same pairs in all arrays",
            hint="Leave uids out to number the pairs.",
        )
    pairs = Pairs("arrays", pl.DataFrame({"uid": names}, schema={"uid": pl.String}))
    chosen = _array_bank(bank, pairs, settings)
    chosen.check(pairs)
    block = settings.block or STORED
    return Comparison(sides["target"], sides["reference"], pairs, chosen, block, settings.weight, settings.confidence)


def _names(uids: Any) -> list[str]:
    """Return a list of uids as text."""
    if isinstance(uids, str | bytes | Path) or not isinstance(uids, Iterable) or getattr(uids, "ndim", 1) != 1:
        raise InputError(
            "uids",
            got=shorten(uids),
            expected="a list of uids: with arrays, pairs and bank are no data sets",
            hint="Omit uids to number the pairs.",
        )
    return [str(uid) for uid in uids]


def _array_bank(bank: Any, pairs: Pairs, settings: Settings) -> Bank:
    if bank is None:
        return Bank(pairs.only(draw(pairs.table["uid"], settings.bank_size, settings.seed), "drawn"), drawn=True)
    try:
        asked = np.asarray(bank)
    except ValueError:  # ragged
        asked = np.zeros((1, 1))
    if asked.dtype.kind in "OUS":
        return bank_of_uids(_names(bank), pairs, "of uids")
    rows = np.flatnonzero(asked) if asked.dtype == bool or not asked.size else asked
    wrong = asked.ndim != 1 or rows.dtype.kind not in "iu" or (asked.dtype == bool and len(asked) != len(pairs))
    if wrong or (len(rows) and not 0 <= rows.min() <= rows.max() < len(pairs)):
        raise InputError(
            "bank",
            got=f"{shorten(bank)}",
            expected=f"uids, row numbers from 0 to {len(pairs) - 1}, or a mask of {len(pairs)}",
            hint="Say which of the pairs no model trained on.",
        )
    return Bank(pairs.only(pairs.table["uid"].gather(np.unique(rows)).to_list(), "of rows"), drawn=False)
