"""The detail of a pair: captions, alignment by seed, parts, detectors."""

from typing import Any

import numpy as np

from clipmem.base.folder import SIDES
from clipmem.report.escape import visible
from clipmem.report.explorer.columns import Columns
from clipmem.report.templating import reasons

_PARTS = ("positive", "image_bank", "text_bank")
_LONG = 20_000  # characters of a caption that is shown


class Details:
    """Details by row."""

    def __init__(self, columns: Columns) -> None:
        self._columns, self._subject = columns, columns.subject
        self._sorted: dict[str, np.ndarray] = {}
        seeds = columns.subject.seed_scores.select("uid", "seed", *SIDES)
        self._seeds = seeds.partition_by("seed", include_key=True)

    def get(self, row: int) -> dict[str, Any]:
        """Return everything that is known of a pair."""
        value = self._subject.scores.row(row, named=True)
        pair = {} if self._subject.pairs is None else self._subject.pairs.row(row, named=True)
        uid, source = value["uid"], pair.get("captions_from")
        moved = source not in {None, uid}
        parts = {side: {name: value.get(f"{side}_{name}") for name in _PARTS} for side in SIDES}
        return {
            "row": row,
            "uid": visible(uid, 100),
            "captions": self._captions(pair, moved=moved),
            "role": value.get("role"),
            "planted": value.get("planted"),
            "caption_from": source if moved else None,
            "seeds": [one for seed in self._seeds for one in seed.filter(uid=uid).drop("uid").to_dicts()],
            "parts": None if parts["f"]["positive"] is None else parts,
            "detectors": self._detectors(value),
            "credit": visible(pair["credit"]) if pair.get("credit") else None,
            "source": visible(pair.get("key") or pair.get("image") or "", 300),
        }

    def _captions(self, pair: dict[str, Any], *, moved: bool) -> list[dict[str, Any]]:
        """List the captions in training, then the pair's others."""
        used, own = (pair.get(name) or [] for name in ("captions", "own_captions"))
        count = len(used) if self._subject.trained_captions is None else self._subject.trained_captions
        texts = [(text, True) for text in used[:count]] + [(text, False) for text in (own if moved else used[count:])]
        return [{"text": visible(text, _LONG), "trained": trained} for text, trained in texts]

    def _detectors(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """List the detectors' scores with their ranks, 1 = the most suspect."""
        found: list[dict[str, Any]] = []
        why = "; ".join(reasons().get(own, own) for name in ("reason", "second_reason") if (own := value.get(name)))
        for name, about in self._columns.by_name.items():
            if about["group"] == "detector" and about["type"] == "f32" and value.get(name) is not None:
                if name not in self._sorted:
                    values = self._columns.values(name)
                    self._sorted[name] = np.sort(values[np.isfinite(values)])
                order = self._sorted[name]
                rank = 1 + len(order) - int(np.searchsorted(order, np.float32(value[name]), "right"))
                reason = why if name == "score" else about["about"]
                found.append(
                    {"name": name, "label": about["label"], "score": value[name], "rank": rank, "reason": reason}
                )
        return found
