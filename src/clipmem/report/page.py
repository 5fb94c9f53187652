"""Write the report: one HTML file that opens offline, loads nothing, runs nothing, and prints.

The page shows what the run folder's files say and computes nothing but orders and roundings. Made twice from
the same files it has the same bytes. Everything from the data goes through `visible` and the engine's
autoescape, both set for the whole environment: a template cannot forget them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from clipmem.report import numbers, wording
from clipmem.report.escape import visible
from clipmem.report.figures import curves_figure, roc_figure, roles_figure
from clipmem.report.gallery import make_cards, pick, ranked_candidates
from clipmem.report.read import ROLES, RunFiles, TrainingLog, read_run
from clipmem.store.atomic import atomic_write

_TEST_MEANINGS = {
    "Difference": "Mean of the first role minus mean of the second, with its interval.",
    "Welch": "Are the two means equal? The test lets the variances differ; a small p says they are not.",
    "Mann-Whitney": "Does one role tend to score higher? By ranks, so a few extreme pairs do not decide it.",
    "Hedges g": "The difference in pooled sd, corrected for small samples. 0.2 is small, 0.8 large.",
    "Superiority": "How often a pair of the first role scores above one of the second; 0.5 is no difference.",
}
_SAID_ELSEWHERE = ("seeds", "epochs", "precision")
_MACHINE = ("device", "processor", "platform")


def write_report(
    run_dir: Path,
    images: Mapping[str, bytes],
    *,
    credits: Sequence[str] = (),  # noqa: A002  the name of the public argument
) -> Path:
    """Write `report/index.html` of a run folder, atomically.

    Args:
        run_dir: A run folder whose summary is finished.
        images: Encoded pictures (PNG, JPEG or WebP) by uid, at least those of `gallery_uids`. They are
            embedded as they are: give thumbnails. A pair without one, or with another format, is shown
            without a picture.
        credits: Who made the pictures and captions, one line each, beside the credits of the pairs shown.

    Returns:
        The path of the page.

    Raises:
        InputError: The folder lacks a file, a file cannot be read, or the page cannot be written.
        RunError: The disk is full.
    """
    path = run_dir / "report" / "index.html"
    atomic_write(path, render(read_run(run_dir), images, credits).encode())
    return path


def render(run: RunFiles, images: Mapping[str, bytes], credit_lines: Sequence[str] = ()) -> str:
    """Render the page of a run as text (see `write_report`)."""
    return (
        environment()
        .get_template("page.html")
        .render(
            style=Markup(template_text("page.css")),  # noqa: S704  our own file
            summary=run.summary,
            manifest=run.manifest,
            headline=wording.headline(run.summary),
            found=wording.what_was_found(run.summary),
            trust=wording.trust(run.summary),
            roles=[role for role in ROLES if role in run.summary["roles"]],
            floor=wording.noise_floor(run.summary),
            stability=wording.stability(run.summary),
            verdict=wording.planted_verdict(run.summary["planted"]) if run.summary["planted"] else "",
            meanings=_TEST_MEANINGS,
            expected=wording.EXPECTED,
            trained_by=wording.TRAINED_BY,
            facts=_facts(run),
            curves=[_curve(log) for log in run.logs],
            seconds=_stages(run.summary.get("seconds") or {}),
            recipe_lines=run.recipe_text.splitlines(),
            folder=run.folder.name,
            **_figures(run),
            **_gallery(run, images, credit_lines),
        )
    )


def _figures(run: RunFiles) -> dict[str, list[Markup]]:
    """Draw every figure in both sizes; matplotlib escapes its text, so the SVG is markup as it is."""
    sizes = ("wide", "narrow")
    drawn = {
        "roles_figure": [roles_figure(run.scores, run.summary, size) for size in sizes],
        "roc_figure": [],
        "curves_figure": [],
    }
    if run.summary["planted"]:
        drawn["roc_figure"] = [roc_figure(run.scores, run.summary, size) for size in sizes]
    if run.logs:
        drawn["curves_figure"] = [curves_figure(run.logs, size) for size in sizes]
    return {name: [Markup(svg) for svg in svgs] for name, svgs in drawn.items()}  # noqa: S704


def _gallery(run: RunFiles, images: Mapping[str, bytes], credit_lines: Sequence[str]) -> dict[str, Any]:
    """Make the cards, and the credits of the pictures that are shown."""
    ranked = ranked_candidates(run.scores)
    most, least = pick(ranked)
    used = run.recipe.get("train", {}).get("captions")
    shown = {*most["uid"], *least["uid"]}
    named = {credit for uid, credit in run.pairs.select("uid", "credit").iter_rows() if uid in shown and credit}
    return {
        "most": make_cards(most, ranked, run.pairs, run.splits, images, used),
        "least": make_cards(least, ranked, run.pairs, run.splits, images, used),
        "ranked": ranked.height,
        "credits": list(dict.fromkeys([*credit_lines, *sorted(named)])),
    }


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    """List what was run: names and values for the second section."""
    summary, manifest = run.summary, run.manifest
    facts = [("protocol", str(summary["protocol"])), ("seeds", wording.seeds_in_words(summary["seeds"]))]
    model = dict(run.recipe.get("model", {}))
    facts += [("model", ", ".join(part for part in (str(model.pop("name", "")), _flat(model)) if part))]
    if run.logs:
        epochs = sorted({int(log.epoch.max()) + 1 for log in run.logs})
        steps = sorted({log.step.size for log in run.logs})
        facts += [("epochs", _numbers(epochs)), ("steps a model", _numbers(steps))]
    training = {k: v for k, v in run.recipe.get("train", {}).items() if k not in _SAID_ELSEWHERE}
    facts += [("training", _flat(training))] if training else []
    facts += [("precision", str(manifest["precision"]))] if manifest.get("precision") else []
    machine = [str(manifest[name]) for name in _MACHINE if manifest.get(name)]
    machine += [f"{manifest['cores']} cores"] if manifest.get("cores") else []
    facts += [("machine", ", ".join(machine))] if machine else []
    facts += [("bank weight w", f"{float(summary['weight']):g}")]
    seconds = summary.get("seconds") or {}
    return [*facts, ("duration", numbers.duration(sum(seconds.values())))] if seconds else facts


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)


def _flat(value: object) -> str:
    """Write a recipe value on one line: `batch_size 128, crop_scale [0.9, 1]`."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} ({_flat(v)})" if isinstance(v, Mapping) else f"{key} {_flat(v)}" for key, v in value.items()
        )
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "[" + ", ".join(_flat(entry) for entry in value) + "]"
    return str(value)


def _stages(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(stage, numbers.duration(float(value))) for stage, value in seconds.items()]


def _curve(log: TrainingLog) -> dict[str, str]:
    """Summarise a training log: the mean loss of its first and of its last epoch."""
    first, last = (log.loss[log.epoch == epoch].mean() for epoch in (log.epoch.min(), log.epoch.max()))
    return {
        "side": log.side,
        "seed": str(log.seed),
        "steps": f"{log.loss.size:,}",
        "first": numbers.plain(float(first)),
        "last": numbers.plain(float(last)),
    }


def template_text(name: str) -> str:
    """Read a file of `report/templates`, wherever the package is installed."""
    return (resources.files("clipmem.report") / "templates" / name).read_text(encoding="utf-8")


def _finalize(value: object) -> object:
    """Make every text that a template prints visible, unless it is markup that we made ourselves."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def typeset(text: str) -> str:
    """Give the numbers of our own text a true minus, and keep an interval on one line.

    Example:
        >>> typeset("-0.5 [-0.6, -0.4]").encode("ascii", "namereplace").decode().count("MINUS SIGN")
        3
    """
    text = re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"(\[[^\[\], ]+), (?=[^\[\], ]+\])", "\\1,\N{NO-BREAK SPACE}", text)


def _typeset_filter(write: Callable[..., str]) -> Callable[..., str]:
    @wraps(write)
    def typeset_number(*args: Any, **settings: Any) -> str:
        return typeset(write(*args, **settings))

    return typeset_number


@cache
def environment() -> jinja2.Environment:
    """Return the template engine: autoescape and `visible` always on, an undefined name is an error."""
    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(template_text),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (
        numbers.plain,
        numbers.signed,
        numbers.interval,
        numbers.percent,
        numbers.percent_interval,
        numbers.p_value,
        numbers.level,
    ):
        engine.filters[write.__name__] = _typeset_filter(write)
    engine.filters["typeset"] = typeset
    return engine
