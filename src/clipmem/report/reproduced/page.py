"""The page of a reproduction: verdicts, effects and figures, from `findings.json` alone. Opens offline."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from clipmem.report.figures import SIZES
from clipmem.report.numbers import duration, interval, signed
from clipmem.report.page import environment, template_text
from clipmem.report.reproduced.figure import drawable, finding_figure

ANSWERS = ("yes", "no", "inconclusive")


def render(document: Mapping[str, Any]) -> str:
    """Render the page of `findings.json` as text."""
    return (
        environment()
        .get_template("reproduce.html")
        .render(
            style=Markup(template_text("page.css")),  # noqa: S704  our own file
            document=document,
            headline="Do the published findings hold?",
            lede=summary_sentence(document),
            findings=[_finding(one) for one in document["findings"]],
        )
    )


def summary_sentence(document: Mapping[str, Any]) -> str:
    """Say how many findings hold, do not, and are not decided, over how many seeds.

    Example:
        >>> found = [{"title": "a", "holds": "yes"}, {"title": "b", "holds": "no"}, {"title": "c", "holds": "yes"}]
        >>> summary_sentence({"findings": found, "seeds": [0, 1], "scale": "tiny"})
        'Of 3 findings, at scale tiny over 2 seeds: 2 hold (a, c), 1 does not (b).'
    """
    verbs = {
        "yes": ("holds", "hold"),
        "no": ("does not", "do not"),
        "inconclusive": ("is not decided", "are not decided"),
    }
    parts: list[str] = []
    for answer in ANSWERS:
        titles = [one["title"] for one in document["findings"] if one["holds"] == answer]
        if titles:
            parts.append(f"{len(titles)} {verbs[answer][len(titles) > 1]} ({', '.join(titles)})")
    seeds = len(document["seeds"])
    return (
        f"Of {len(document['findings'])} finding{'s' * (len(document['findings']) != 1)}, at scale {document['scale']} "
        f"over {seeds} seed{'s' * (seeds != 1)}: {', '.join(parts)}."
    )


def tally(effects: list[Mapping[str, Any]]) -> str:
    """Count the verdicts of the effects that count.

    Example:
        >>> tally([{"holds": "yes", "counts": True}, {"holds": "no", "counts": False}])
        '1 yes'
    """
    count = Counter(one["holds"] for one in effects if one["counts"])
    return ", ".join(f"{count[answer]} {answer}" for answer in ANSWERS if count[answer]) or "none"


def effect_cells(effect: Mapping[str, Any]) -> dict[str, Any]:
    """Write an effect for a table.

    Example:
        >>> row = {"measure": "m", "estimate": 0.5, "low": 0.25, "high": 0.75, "claim": "above 0", "holds": "yes"}
        >>> effect_cells(row | {"counts": True})["interval"]
        '[+0.250, +0.750]'
    """
    return {
        "measure": effect["measure"],
        "estimate": signed(effect["estimate"]),
        "interval": interval(effect, sign=True),
        "claim": effect["claim"],
        "holds": effect["holds"],
        "counts": effect["counts"],
    }


def _finding(document: Mapping[str, Any]) -> dict[str, Any]:
    drawn = [finding_figure(document, size) for size in SIZES] if drawable(document["panels"]) else []
    return {
        **document,
        "rows": [effect_cells(effect) for effect in document["effects"]],
        "tally": tally(document["effects"]),
        "time": duration(document["seconds"]),
        "figure": [Markup(svg) for svg in drawn],  # noqa: S704  matplotlib escapes its text
    }
