"""Read what `localize` wrote into a run folder, and make it ready to be shown. Nothing is measured here.

The tables are optional: a folder that was not localized has none, and each is shown where it is there.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.report.numbers import excludes_zero, interval, level, p_value, percent, plain, signed

TOWERS = ("image", "text")
KIND_NAMES = {"attn": "attention", "mlp": "MLP", "block": "block", "embedding": "embedding"}
UNITS_SHOWN = 6
_AGAIN = "Run `clipmem localize` on this folder again."
_COLUMNS = {
    "units": ("side", "seed", "tower", "layer", "kind", "unit", "unitmem", "classmem", "mu_max", "mu_rest", "uid"),
    "layers": (
        *("role", "tower", "layer", "kind", "n", "layermem", "low", "high", "delta", "delta_low", "delta_high"),
        *("n_units", "unitmem_mean", "unitmem_low", "unitmem_high"),
    ),
    "towers": ("uid", "role", "clipmem", "image_share", "text_share", "reliable"),
}


@dataclass(frozen=True)
class Localized:
    """The tables of `localize/`, each None where it is not there, and its JSON documents, {} where they are not.

    `document` is `towers.json`, `settings` and `beside` are the files of these names.
    """

    units: pl.DataFrame | None
    layers: pl.DataFrame | None
    towers: pl.DataFrame | None
    document: Mapping[str, Any]
    settings: Mapping[str, Any]
    beside: Mapping[str, Any]

    def __bool__(self) -> bool:
        return any(table is not None for table in (self.units, self.layers, self.towers))


@dataclass(frozen=True)
class Unit:
    """A unit and the pair that it responds to most, by uid."""

    tower: str
    place: str
    seed: int
    uid: str
    unitmem: float
    classmem: float | None
    mu_max: float
    mu_rest: float


def read_localized(folder: Path) -> Localized:
    """Read `localize/` of a run folder; without it every part is missing.

    Raises:
        InputError: A file cannot be read, or lacks a column.
    """
    tables = {name: _table(folder / "localize" / f"{name}.parquet", names) for name, names in _COLUMNS.items()}
    documents = (_document(folder / "localize" / f"{name}.json") for name in ("towers", "settings", "beside"))
    return Localized(tables["units"], tables["layers"], tables["towers"], *documents)


def _document(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}", got=shorten(str(error), 40), expected="JSON", hint=_AGAIN) from error


def _table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame | None:
    if not path.is_file():
        return None
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}", got=shorten(str(error)), expected="Parquet", hint=_AGAIN) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{path}", got=f"columns {table.columns}", expected=f"also {missing}", hint=_AGAIN)
    return table


def top_units(units: pl.DataFrame, shown: int = UNITS_SHOWN) -> list[Unit]:
    """Return the units of f with the largest UnitMem, so many of each tower.

    Args:
        units: The table `units`.
        shown: How many of each tower at most. Ties are ordered by seed, layer, kind and unit.
    """
    alive = units.filter((pl.col("side") == "f") & pl.col("unitmem").is_finite() & pl.col("uid").is_not_null())
    ordered = alive.sort("unitmem", "seed", "layer", "kind", "unit", descending=[True, False, False, False, False])
    return [
        Unit(
            tower=tower,
            place=f"layer {row['layer']}, {KIND_NAMES.get(row['kind'], row['kind'])}, unit {row['unit']}",
            seed=row["seed"],
            uid=row["uid"],
            unitmem=row["unitmem"],
            classmem=row["classmem"],
            mu_max=row["mu_max"],
            mu_rest=row["mu_rest"],
        )
        for tower in TOWERS
        for row in ordered.filter(pl.col("tower") == tower).head(shown).iter_rows(named=True)
    ]


def unit_owners(folder: Path) -> list[str]:
    """Name the pairs whose pictures the table of units shows, each once."""
    units = _table(folder / "localize" / "units.parquet", _COLUMNS["units"])
    return [] if units is None else list(dict.fromkeys(unit.uid for unit in top_units(units)))


def is_reliable(found: Localized) -> bool:
    """Say whether the tower shares can be read; False where nothing says so."""
    if "reliable" in found.document:
        return bool(found.document["reliable"])
    return found.towers is not None and found.towers.height > 0 and bool(found.towers["reliable"].all())


def tower_rows(found: Localized, roles: list[str]) -> list[dict[str, Any]]:
    """Return, for each role, its name and the entries clipmem, image_share and text_share (mean, low, high).

    The means are those of `towers.json`; without that file they are taken over the table, and have no interval.
    """
    rows: list[dict[str, Any]] = []
    for role in roles:
        names = ("clipmem", "image_share", "text_share")
        known = found.document.get("roles", {}).get(role)
        if known:
            rows.append({"role": role, "n": known["n"], **{name: known[name] for name in names}})
        elif found.towers is not None:
            own = found.towers.filter(pl.col("role") == role)
            means = {name: {"mean": own[name].mean(), "low": None, "high": None} for name in names}
            rows += [{"role": role, "n": own.height, **means}] if own.height else []
    return rows


def tower_sentences(found: Localized, rows: list[dict[str, Any]], confidence: float) -> list[str]:
    """Say which tower holds the candidates' score, or that the shares cannot be read, and why.

    Args:
        found: What `localize` wrote.
        rows: The rows of `tower_rows`.
        confidence: Level of the intervals.
    """
    skipped = left_out(found)
    if skipped:
        return [skipped]
    if not is_reliable(found):
        reason = found.document.get("reason") or "the fit that they rest on is poor"
        return [
            f"The shares of the towers cannot be read in this run: {reason}. The numbers below are shown only so that "
            "nothing is hidden. Do not quote them."
        ]
    candidate = next((row for row in rows if row["role"] == "candidate"), None)
    if candidate is None:
        return []
    score, image, text = (candidate[name] for name in ("clipmem", "image_share", "text_share"))
    sentences = [
        f"Of the candidates' mean score of {_with_interval(score)}, the image tower holds {_with_interval(image)} and "
        f"the text tower {_with_interval(text)} ({level(confidence)} intervals)."
    ]
    fraction = found.document.get("roles", {}).get("candidate", {}).get("text_fraction")
    if fraction is not None:
        sentences.append(f"The text tower's part is {percent(fraction, 0)} %.")
    elif not excludes_zero(score):
        sentences.append("The score itself is not shown to differ from 0, so no part of it is named.")
    return sentences


def left_out(found: Localized) -> str:
    """Say that the text tower, and with it the tower swap, was left out, and why; "" where it was not."""
    reason = found.settings.get("untrained_text")
    return f"The text tower and the tower swap are left out: {reason}." if reason else ""


def layer_sentences(layers: pl.DataFrame) -> list[str]:
    """Judge, for each tower, the last layer's LayerMem of the candidates beside that of the control.

    Args:
        layers: The table `layers`. Blocks are judged; where there are none, the kind that comes first.
    """
    kinds = layers["kind"].unique().to_list()
    main = "block" if "block" in kinds else min(kinds, default="")
    sentences: list[str] = []
    for tower in TOWERS:
        own = layers.filter((pl.col("tower") == tower) & (pl.col("kind") == main))
        if not own.height:  # a tower that was left out
            continue
        last = own.filter(pl.col("layer") == own["layer"].max())
        by_role = {row["role"]: {**row, "mean": row["layermem"]} for row in last.iter_rows(named=True)}
        candidate, control = by_role.get("candidate"), by_role.get("external")
        if candidate is None or control is None or None in (candidate["low"], control["low"]):
            continue
        verdict = "their intervals overlap, so this is no sign of memorization"
        if candidate["low"] > control["high"]:
            verdict = "the candidates lie above the control"
        elif candidate["high"] < control["low"]:
            verdict = "the candidates lie below the control, which memorization does not explain"
        sentences.append(
            f"In the last layer of the {tower} tower: candidates {_with_interval(candidate)}, control "
            f"{_with_interval(control)}; {verdict}."
        )
    return sentences


def control_sentence(layers: pl.DataFrame, below: float = 0.05) -> str:
    """Say where the candidates' LayerMem differs from the control's when all places are tested at once.

    Args:
        layers: The table `layers`; one of an earlier version, without these tests, gives no sentence.
        below: Adjusted p-values below this count; all others do not.
    """
    if "control_p_holm" not in layers.columns:
        return ""
    tested = layers.filter(pl.col("control_p_holm").is_not_null())
    if tested.is_empty():
        return ""
    found = tested.filter(pl.col("control_p_holm") < below)
    places = [
        f"{row['tower']} tower, {KIND_NAMES.get(row['kind'], row['kind'])}"
        + ("" if row["kind"] == "embedding" else f" of layer {row['layer']}")
        + f" ({signed(row['control_difference'])}, p {p_value(row['control_p_holm'])})"
        for row in found.sort("control_p_holm").head(4).iter_rows(named=True)
    ]
    first = "; the clearest: " + ", ".join(places) if places else ""
    return (
        f"Candidates against control at every place of both towers ({tested.height} tests by Welch over pairs, one "
        f"family): {found.height} differ with p below {below:g} after Holm's correction{first}."
    )


def fits(found: Localized) -> list[tuple[str, str]]:
    """Say by what the shares are judged: names and values, from `towers.json`."""
    facts: list[tuple[str, str]] = []
    for tower in TOWERS:
        entries = found.document.get(f"{tower}_r2") or []
        if entries:
            shared = ", ".join(plain(entry["shared"], 2) for entry in entries)
            facts.append(
                (f"R² of the {tower} map", f"{shared} on held-out shared pairs, one number a seed; at least 0.5")
            )
    biases = {"shared": found.document.get("shared_bias"), "external": found.document.get("external_bias")}
    known = [f"{plain(value, 2)} on {role} pairs" for role, value in biases.items() if value is not None]
    if known:
        facts.append(
            ("image less text, where it must be 0", ", ".join(known) + "; at most 0.25 of the candidates' mean")
        )
    return facts


def _with_interval(entry: Mapping[str, Any]) -> str:
    write: Callable[[float | None], str] = signed
    return f"{write(entry['mean'])} {interval(entry, sign=True)}"
