"""The section on Déjà Vu memorization: sentences and rows, from the entry `dejavu` of `summary.json`.

Nothing is computed here. A run folder without the entry has no section; one in which it is not defined says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from clipmem.report.numbers import excludes_zero, interval, percent, plain, signed

GAPS = {"precision_gap": "population precision gap", "recall_gap": "population recall gap", "auc_gap": "AUC gap"}
EXPECTED = {
    "candidate": "above 0: only f saw them",
    "candidate, not planted": "the same, without the planted wrong captions",
    "independent": "below 0, their mirror: only g saw them",
    "shared": "about 0: both saw them",
}
_FEW = 10
_TITLE = "Déjà Vu memorization"


def measured(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the entry `dejavu` of a summary, None where there is none."""
    return summary.get("dejavu")


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """Say what Déjà Vu found among the candidates, or why it was not measured.

    Args:
        summary: The content of a `summary.json` that has the entry `dejavu`.
    """
    found = summary["dejavu"]
    if "skipped" in found:
        return [f"{_TITLE} was not measured: {found['skipped']}."]
    own = found["two_model"]["roles"]["candidate"]
    gaps = ", ".join(f"{name} {with_interval(own[key])}" for key, name in GAPS.items())
    said = [
        f"{_TITLE} of {own['n']:,} candidates ({found['public']:,} public pictures, k = {found['neighbours']}): {gaps}."
    ]
    clear = [name for key, name in GAPS.items() if excludes_zero(own[key]) and own[key]["mean"] > 0]
    if clear:
        said.append(f"f tells more objects than g by the {' and the '.join(clear)}.")
    else:
        said.append("No gap lies clearly above 0.")
    rest = found["two_model"]["roles"].get("candidate, not planted")
    if rest:
        said.append(f"Without the planted pairs the AUC gap is {with_interval(rest['auc_gap'])}.")
    return [*said, *_agreement(found["two_model"])]


def _agreement(test: Mapping[str, Any]) -> list[str]:
    said: list[str] = []
    ranks, planted = test["clipmem"], test["planted"]
    if ranks and ranks["spearman"] is not None:
        said.append(
            f"Rank correlation of a candidate's extra objects with CLIPMem: {plain(ranks['spearman'])} "
            f"{interval(ranks)}."
        )
    if planted:
        said.append(
            f"It finds the {planted['n']:,} planted pairs with AUROC {plain(planted['auroc'])} {interval(planted)}."
        )
    return said


def section(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template `dejavu.html` shows; `dejavu` is None where there is no section.

    Args:
        summary: The content of `summary.json`.
    """
    found = measured(summary)
    if found is None:
        return {"dejavu": None}
    shown: dict[str, Any] = {"sentences": sentences(summary), "skipped": "skipped" in found}
    if "skipped" in found:
        return {"dejavu": shown}
    two, one = found["two_model"]["roles"], found["one_model"]["roles"]
    return {
        "dejavu": {
            **shown,
            "found": found,
            "reading": _reading(found),
            "roles": list(two),
            "expected": EXPECTED,
            "two": two,
            "one": one,
            "tops": _tops(found),
            "lonely": found["one_model"]["without_neighbour"],
            "reference": found["one_model"]["reference"]["name"],
        }
    }


def _reading(found: Mapping[str, Any]) -> list[str]:
    """Say how far these numbers can be trusted."""
    pairs = found["two_model"]["roles"]["candidate"]["n"]
    said = [
        f"A prediction can only name what the {found['public']:,} public pictures have: "
        f"{percent(found['objects']['in_public'], 0)} % of the candidates' objects are in any of them. The published "
        "tests search millions."
    ]
    few = [top for top in found["two_model"]["roles"]["candidate"]["top"] if top["pairs"] < _FEW]
    if few:
        shares = ", ".join(f"{_share(top['fraction'])} is {_pairs(top['pairs'])}" for top in few)
        said.append(f"With {pairs:,} candidates {shares}: an interval over so few says little.")
    return said


def _share(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _pairs(count: int) -> str:
    return "one pair" if count == 1 else f"{count:,} pairs"


def _tops(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put the candidates' gaps at the top beside those of g against another g."""
    floor: Sequence[Any] = (found["floor"] or {}).get("top", [])
    tops = found["two_model"]["roles"]["candidate"]["top"]
    return [
        {**top, "share": _share(top["fraction"]), "floor": floor[index] if index < len(floor) else None}
        for index, top in enumerate(tops)
    ]


def with_interval(entry: Mapping[str, Any]) -> str:
    """Write a gap with its sign and interval."""
    return f"{signed(entry['mean'])} {interval(entry, sign=True)}"
