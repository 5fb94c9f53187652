"""Made-up documents of a reproduction, and of curves of three objectives."""

from typing import Any

from clipmem_reproduce.curves import TITLES


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
        "crossed": False,
        "deviations": ["2 seeds instead of 8"],
        "runs": {"base": "base-0"},
        "findings": [
            finding("captions", "Number of captions", holds, some, [panel, there], looks=2),
            finding("model-size", "Model size", "inconclusive", [], []),
        ],
    }


def curves(answers: dict[str, list[str]]) -> dict[str, Any]:
    """Curves of two layers under three objectives, compared, with given answers for each kind of unit."""
    sites = [{"kind": kind, "layer": layer, "layers": 2} for kind in answers for layer in (1, 2)]
    curve = {"mean": 0.5, "low": 0.4, "high": 0.6, "seeds": 5}
    test = {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.001, "p_holm": 0.01, "seeds": 5}
    runs, words = TITLES.values(), [answer.split() for kind in answers for answer in answers[kind]]
    return {
        "confidence": 0.95,
        "curves": [{**site, "run": run, "side": side, **curve} for run in runs for side in "fg" for site in sites],
        "trained": [{**site, "run": run, **test} for run in runs for site in sites],
        "between": [
            {**site, "answer": answer, "side": "".join(side)}
            for site, (answer, *side) in zip(sites, words, strict=True)
        ],
    }
