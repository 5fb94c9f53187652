"""A made-up document of a reproduction."""

from typing import Any


def finding(
    name: str, title: str, holds: str, effects: list[dict[str, Any]], panels: list[Any], looks: int = 1
) -> dict[str, Any]:
    words = {"title": title, "claim": "Less is memorized.", "published": "", "limits": "Few seeds & <few> pairs."}
    return {
        "finding": name,
        **words,
        "looks": looks,
        "holds": holds,
        "seconds": 61.0,
        "effects": effects,
        "panels": panels,
    }


def effect(holds: str = "yes", *, primary: bool = False, side: str = "below", size: float = 0.0) -> dict[str, Any]:
    low, high = {"yes": (-0.3, -0.1), "no": (0.1, 0.3), "inconclusive": (-0.1, 0.3)}[holds]
    return {
        "measure": "5 captions: relative change of CLIPMem",
        "estimate": (low + high) / 2,
        "low": low,
        "high": high,
        "claim": {"side": side, "size": size},
        "seeds": 5,
        "confidence": 0.975 if primary else 0.95,
        "primary": primary,
        "holds": holds,
    }


def findings(holds: str = "yes") -> dict[str, Any]:
    """A `findings.json` of two findings, one with a figure, one with nothing measured."""
    line = {"name": "a $x$", "x": [1.0, 2.0], "mean": [0.5, -0.25], "low": [0.25, None], "high": [0.75, None]}
    panel = {
        "title": "here",
        "xlabel": "captions",
        "ylabel": "CLIPMem",
        "series": [line],
        "published": False,
        "joined": True,
        "optimum": "lowest",
        "ticks": [],
    }
    there = {**panel, "title": "published", "published": True, "series": [{**line, "low": [], "high": []}]}
    some = [effect(holds, primary=True, size=0.037), effect("no", side="zero", size=0.5)]
    return {
        "format": 2,
        "regime": "redundant",
        "scale": "tiny",
        "clipmem": "0",
        "confidence": 0.95,
        "primaries": 2,
        "seeds": [0, 1],
        "recipe_sha256": "a" * 64,
        "runs": {"base": "base-0"},
        "findings": [
            finding("captions", "Number of captions", holds, some, [panel, there], looks=2),
            finding("model-size", "Model size", "inconclusive", [], []),
        ],
    }
