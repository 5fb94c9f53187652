"""Write pages: one HTML file each, without scripts or external resources, that opens offline and prints.

Runs and tables of pairs in notebooks are HTML with small images, and figures as matplotlib axes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from clipmem.base.errors import require, require_columns
from clipmem.base.paths import atomic_write
from clipmem.base.summary import NoiseFloor
from clipmem.report.figures import CANDIDATE, INK, SIZES, STYLES, STYLES_OF_PAGE, Line, Panel, draw
from clipmem.report.gallery import image_uri, ranked_candidates
from clipmem.report.run import Run, read_run
from clipmem.report.sections import Section, sections_of
from clipmem.report.sections.scores import roles_figure
from clipmem.report.templating import environment, notebook_html, template_text

SHOWN = 6  # pairs of a run in a notebook
COPIES = ((0, 0, "none"), (1, 2, "1 or 2"), (3, 5, "3 to 5"), (6, 2**31, "6 or more"))


def write_report(run_dir: Path, images: Mapping[str, bytes], *, credits: Sequence[str] = ()) -> Path:  # noqa: A002  the name of the public argument
    """Write `report/index.html` of a run folder whose summary is finished, atomically."""
    return write_page(run_dir / "report" / "index.html", "study", read_run(run_dir, images, credits))


def write_page(path: Path, kind: str, subject: Any) -> Path:
    """Write the page of a subject, atomically."""
    atomic_write(path, render(kind, subject).encode())
    return path


def render(kind: str, subject: Any) -> str:
    """Render the page `study` (from a run's files), `comparison`, or `PACKAGE:PAGE` (from a document) as HTML."""
    context = Section.context_of(subject)
    blocks, links = list[str](), list[tuple[str, str]]()
    for section in sections_of(subject, page=kind):
        data = section.data(subject)
        figures = {
            name: [_safe(figure.svg(f"{section.name}-{name}", size)) for size in SIZES]
            for name, figure in section.figures(subject).items()
        }
        variables = context | data | {"figures": figures, "section_id": section.name}
        blocks.append(_safe(section.template_of().render(variables)))
        links += section.links(subject)
        if section.name == kind.rpartition(":")[2]:  # the page's own section
            context |= data
    whole = {"style": _safe("".join(map(template_text, STYLES_OF_PAGE))), "links": links, "blocks": blocks}
    return environment().get_template(f"{kind}/page.html").render(context | whole)


def _safe(text: str) -> Markup:
    """Mark this package's own output as safe: its style, rendered templates, and SVG, whose text matplotlib escapes."""
    return Markup(text)  # noqa: S704


# ---- notebooks


class Html:
    """HTML that a notebook shows; `str` gives its text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    _repr_html_ = __str__


def pairs_html(
    table: pl.DataFrame,
    images: Mapping[str, bytes],
    captions: Mapping[str, Sequence[str]],
    floor: NoiseFloor | None = None,
) -> str:
    """Return the pairs of a table with `uid` and `clipmem` as small images with scores and captions; `floor` once."""
    require_columns("table", table.columns, ("uid", "clipmem"), "Use run.scores, run.top(), or a selection of them.")
    cards = [
        {
            "image": image_uri(images.get(row["uid"])),
            "score": row["clipmem"],
            "stderr": row.get("stderr"),
            "planted": row.get("planted"),
            "caption": next(iter(captions.get(row["uid"], [])), ""),
        }
        for row in table.iter_rows(named=True)
    ]
    return notebook_html("pairs", cards=cards, floor=floor)


def run_html(run: Run, pairs: str) -> str:
    """Return the roles of a run as a table, then its most memorized pairs."""
    return notebook_html("run", run=run, summary=run.summary, measure=run.measure, pairs=_safe(pairs))


class Plots:
    """Figures of a run as matplotlib axes, on `axes` or on a figure of their own: `run.plot`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def roles(self, axes: Any = None) -> Any:
        """Draw the distribution of the score in each role, with its mean and interval."""
        return draw(roles_figure(self._run).panels[0], axes)

    def top(self, k: int = 10, axes: Any = None) -> Any:
        """Draw the scores of the `k` most memorized candidates with standard errors, on the noise floor."""
        require(k >= 1, "k", str(k), "a whole number, 1 or more", "Use 10, for example.")
        run = self._run
        rows = ranked_candidates(run.scores).head(k).to_dicts()
        names = [next(iter(run.trained_captions(row["uid"])), "")[:40] for row in rows]

        def bars(axes: Any) -> None:
            errors = [row["stderr"] or 0.0 for row in rows]
            if floor := run.summary.noise_floor:
                axes.axvspan(*(floor.center + k * floor.half_width for k in (-1, 1)), color=INK, alpha=0.1)
            axes.barh(range(len(rows)), [row["clipmem"] for row in rows], xerr=errors, color=CANDIDATE, ecolor=INK)
            axes.set_yticks(range(len(rows)), names, parse_math=False)
            axes.invert_yaxis()

        return draw(Panel("", run.measure["score"], "", draw=bars), axes)

    def redundancy(self, axes: Any = None) -> Any:
        """Draw the mean score of the candidates by the number of other pairs with the same first caption.

        Bars are ± 1.96 standard errors over pairs; groups of fewer than two pairs have none.
        """
        run = self._run
        first = run.pairs.select("uid", caption=pl.col("captions").list.first().fill_null(""))
        trained = run.splits.select("uid", "captions_from").join(first, left_on="captions_from", right_on="uid")
        scored = ranked_candidates(run.scores).select("uid", "clipmem").join(trained.select("uid", "caption"), on="uid")
        scored = scored.join(first.group_by("caption").len(), on="caption").join(first, on="uid", suffix="_own")
        # its own pair is no duplicate of a planted one
        copies = pl.col("len") - (pl.col("caption") == pl.col("caption_own")).cast(pl.Int64)
        panel = Panel("", "other pairs with the same caption", run.measure["score"], zero=True)
        groups = [scored.filter(copies.is_between(least, most))["clipmem"].to_numpy() for least, most, _ in COPIES]
        panel.ticks = [f"{name}\n({values.size})" for (*_, name), values in zip(COPIES, groups, strict=True)]
        means = [float(values.mean()) if values.size else float("nan") for values in groups]
        errors = [1.96 * float(values.std(ddof=1)) / values.size**0.5 if values.size > 1 else None for values in groups]
        low, high = (
            [None if error is None else mean + sign * error for mean, error in zip(means, errors, strict=True)]
            for sign in (-1, 1)
        )
        panel.lines = [Line(range(len(groups)), means, STYLES[0], low, high, joined=False)]
        return draw(panel, axes)
