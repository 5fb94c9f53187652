"""The share of each tower in the score."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from clipmem.report.gallery import TOWERS
from clipmem.report.read import Localized, RunFiles
from clipmem.report.sections import SECTIONS, Section

_SHARES = ("clipmem", "image_share", "text_share")


@SECTIONS.register("towers")
class Towers(Section):
    """The share of the image tower and of the text tower in the score."""

    nav, order, screen = "Towers", 100, "localize"

    def applies(self, subject: RunFiles) -> bool:
        return bool(tower_rows(subject)) or bool(subject.localized.left_out)

    def data(self, subject: RunFiles) -> dict[str, Any]:
        found, rows = subject.localized, tower_rows(subject)
        shares = found.shares
        biases = {"shared": shares.get("shared_bias"), "external": shares.get("external_bias")}
        return {
            "rows": rows,
            "candidate": next((row for row in rows if row["role"] == "candidate"), None),
            "reliable": is_reliable(found),
            "failures": shares.get("failures", []),
            "text_fraction": shares.get("roles", {}).get("candidate", {}).get("text_fraction"),
            "maps": [(tower, [one["shared"] for one in shares.get(f"{tower}_r2") or []]) for tower in TOWERS],
            "biases": [(role, value) for role, value in biases.items() if value is not None],
        }

    def document(self, subject: RunFiles) -> Mapping[str, Any]:
        return {"towers": subject.localized.shares}


def is_reliable(found: Localized) -> bool:
    """Return whether the tower shares are reliable; False if unknown."""
    if "reliable" in found.shares:
        return bool(found.shares["reliable"])
    return found.towers is not None and found.towers.height > 0 and bool(found.towers["reliable"].all())


def tower_rows(run: RunFiles) -> list[dict[str, Any]]:
    """Return the entries clipmem, image_share and text_share (mean, low, high) of each role."""
    rows: list[dict[str, Any]] = []
    towers = run.localized.towers
    if towers is None:
        return rows
    for role in run.roles:
        known = run.localized.shares.get("roles", {}).get(role)
        if known:
            rows.append({"role": role, "n": known["n"], **{name: known[name] for name in _SHARES}})
            continue
        own = towers.filter(pl.col("role") == role)
        means = {name: {"mean": own[name].mean(), "low": None, "high": None} for name in _SHARES}
        rows += [{"role": role, "n": own.height, **means}] if own.height else []
    return rows
