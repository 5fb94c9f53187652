"""Write the report: one HTML file that opens offline, loads nothing, runs nothing, and prints.

The page shows what the run folder's files say and computes nothing but orders and roundings. Made twice from
the same files it has the same bytes. Everything from the data goes through `visible` and the engine's
autoescape, both set for the whole environment: a template cannot forget them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, wraps
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from clipmem.report import beside, dejavu, localized, numbers, utility, wording
from clipmem.report.beside_figure import beside_figure
from clipmem.report.dejavu_figure import gaps_figure
from clipmem.report.escape import CAPTION_LIMIT, visible
from clipmem.report.figures import curves_figure, roc_figure, roles_figure
from clipmem.report.gallery import (
    Card,
    captions_by_uid,
    captions_sources,
    make_cards,
    pick,
    picture_uri,
    ranked_candidates,
    trained_captions,
)
from clipmem.report.given_models import given_models
from clipmem.report.in_and_out import SHOWN, in_and_out, model_counts
from clipmem.report.layer_figures import layermem_figure, unitmem_figure
from clipmem.report.read import ROLES, RunFiles, TrainingLog, read_run
from clipmem.report.words import CURVE_NAMES, GIVEN, SUBSAMPLE, curve_group, measure_of, words_of
from clipmem.store.atomic import atomic_write

_TEST_MEANINGS = {
    "Difference": "Mean of the first role minus mean of the second, with its interval.",
    "Welch": "Are the two means equal? The test lets the variances differ; a small p says they are not.",
    "Mann-Whitney": "Does one role tend to score higher? By ranks, so a few extreme pairs do not decide it.",
    "p (Holm)": "Adjusted for the number of comparisons in this table, each test by itself: read it as if there were "
    "one. The p of each comparison alone are in summary.json.",
    "Hedges g": "The difference in pooled sd, corrected for small samples. 0.2 is small, 0.8 large.",
    "Superiority": "How often a pair of the first role scores above one of the second; 0.5 is no difference.",
}
_CURVE_ROWS = 24
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
    words, measure = words_of(run.summary), measure_of(run.summary)
    in_halves = words is SUBSAMPLE
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
            paired=wording.paired(run.summary),
            verdict=wording.planted_verdict(run.summary["planted"], words, measure) if run.summary["planted"] else "",
            meanings=_TEST_MEANINGS,
            words=words,
            measure=measure,
            in_halves=in_halves,
            more_style=Markup(template_text("more.css")) if in_halves or run.localized else "",  # noqa: S704
            extra_sections=_extra_sections(run, in_halves),
            facts=_facts(run),
            **_curve_table(run),
            **_retrieval(run.summary),
            seconds=_stages(run.summary.get("seconds") or {}),
            recipe_lines=run.recipe_text.splitlines(),
            folder=run.folder.name,
            **_figures(run),
            **_gallery(run, images, credit_lines),
            **_localized(run, images),
            **dejavu.section(run.summary),
            **utility.section(run.summary),
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
    if "two_model" in (dejavu.measured(run.summary) or {}):
        drawn["dejavu_figure"] = [gaps_figure(run.summary, size) for size in sizes]
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
    words = words_of(run.summary)
    how = (ranked, run.pairs, run.splits, images, used, words.no_error)
    shown = {*most["uid"], *least["uid"]}
    named = {credit for uid, credit in run.pairs.select("uid", "credit").iter_rows() if uid in shown and credit}
    return {
        "most": make_cards(most, *how),
        "least": make_cards(least, *how),
        "gallery_intro": wording.gallery_intro(run.summary, ranked.height),
        **_in_and_out(run, make_cards(most.head(SHOWN), *how)),
        "credits": list(dict.fromkeys([*credit_lines, *sorted(named)])),
    }


def _in_and_out(run: RunFiles, cards: list[Card]) -> dict[str, Any]:
    """Show the models behind the largest scores, where the protocol has models with and without a pair."""
    if run.seed_scores is None:
        return {}
    shown = in_and_out(cards, run.seed_scores, _axis_name(run))
    return {
        "shown_in_and_out": [replace(one, svg=Markup(one.svg)) for one in shown],  # noqa: S704
        "counts": model_counts(run.seed_scores, run.scores),
    }


def _axis_name(run: RunFiles) -> str:
    return measure_of(run.summary).axis


def _extra_sections(run: RunFiles, in_halves: bool) -> list[tuple[str, str]]:
    """Name the sections that only some runs have, for the navigation."""
    found = run.localized
    some = [("in-and-out", "In and out")] if in_halves else []
    some += [("units", "Units")] if found.units is not None or found.layers is not None else []
    some += [("beside", "Beside")] if found.beside else []
    some += [("layers", "Layers")] if found.layers is not None else []
    some += [("towers", "Towers")] if found.towers is not None else []
    return some + ([("dejavu", "Déjà Vu")] if dejavu.measured(run.summary) else [])


def _localized(run: RunFiles, images: Mapping[str, bytes]) -> dict[str, Any]:
    """Draw and tabulate what `localize` found, where it was run."""
    found = run.localized
    if not found:
        return {"localized": False}
    drawn: dict[str, list[Markup]] = {"unitmem_figure": [], "layermem_figure": []}
    pairs = 0
    if found.layers is not None:
        for size in ("wide", "narrow"):
            drawn["unitmem_figure"].append(Markup(unitmem_figure(found.layers, size)))  # noqa: S704
            drawn["layermem_figure"].append(Markup(layermem_figure(found.layers, "candidate", size)))  # noqa: S704
        pairs = int(found.layers.filter(pl.col("role") == "candidate")["n"].max() or 0)  # pyright: ignore[reportArgumentType]
    present = [role for role in ROLES if role in run.summary["roles"]]
    towers = localized.tower_rows(found, present) if found.towers is not None else []
    return {
        "localized": True,
        "left_out": localized.left_out(found),
        **_beside(found.beside),
        **drawn,
        "layer_pairs": pairs,
        "layer_sentences": [] if found.layers is None else localized.layer_sentences(found.layers),
        "control_sentence": "" if found.layers is None else localized.control_sentence(found.layers),
        "top_units": [] if found.units is None else _units(run, found.units, images),
        "several_seeds": found.units is not None and found.units["seed"].n_unique() > 1,
        "tower_rows": towers,
        "tower_sentences": localized.tower_sentences(found, towers, run.summary["confidence"]),
        "towers_reliable": localized.is_reliable(found),
        "tower_fits": localized.fits(found),
    }


def _beside(document: Mapping[str, Any]) -> dict[str, Any]:
    """Draw and say what the runs beside this one show, where there are any."""
    if not document:
        return {"beside_figure": []}
    return {
        "beside_figure": [Markup(beside_figure(document, size)) for size in ("wide", "narrow")],  # noqa: S704
        "beside_answers": [*beside.answer_sentences(document), *beside.trained_sentences(document)],
        "beside_notes": beside.note_sentences(document),
        "beside_rows": beside.difference_rows(document),
    }


def _units(run: RunFiles, units: pl.DataFrame, images: Mapping[str, bytes]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Give the units with the largest UnitMem, by tower, the picture and caption of the pair each responds to."""
    captions, sources = captions_by_uid(run.pairs), captions_sources(run.splits)
    planted = set(run.splits.filter(pl.col("planted"))["uid"])
    rows: dict[str, list[dict[str, Any]]] = {}
    for unit in localized.top_units(units):
        trained = trained_captions(unit.uid, captions, sources)
        rows.setdefault(unit.tower, []).append(
            {
                **asdict(unit),
                "picture": picture_uri(images.get(unit.uid)),
                "caption": visible(trained[0], CAPTION_LIMIT) if trained else "",
                "planted": unit.uid in planted,
            }
        )
    return list(rows.items())


def _retrieval(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Find the models that retrieval was measured on, in the order of the table's columns."""
    found = summary["retrieval"]
    sides = [side for side in words_of(summary).columns if side in found]
    return {
        "sides": sides,
        "has_median_rank": all(f"{way}_retrieval_median_rank" in found[s] for s in sides for way in ("image", "text")),
    }


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    """List what was run: names and values for the second section."""
    summary, manifest = run.summary, run.manifest
    given = words_of(summary) is GIVEN
    who = given_models(manifest) if given else wording.who_trained(summary, run.recipe)
    facts = [("protocol", str(summary["protocol"])), *who]
    if summary.get("alignment", "clip") != "clip":
        facts.append(("alignment", str(summary["alignment"])))
    if not given:
        model = dict(run.recipe.get("model", {}))
        facts += [("model", ", ".join(part for part in (str(model.pop("name", "")), _flat(model)) if part))]
    if run.logs:
        epochs = sorted({int(log.epoch.max()) + 1 for log in run.logs})
        steps = sorted({log.step.size for log in run.logs})
        facts += [("epochs", _numbers(epochs)), ("steps a model", _numbers(steps))]
    training = {k: v for k, v in run.recipe.get("train", {}).items() if k not in _SAID_ELSEWHERE}
    if not given:  # of [train], given models leave only the captions and the crops of views in use
        facts += [("training", _flat(training))] if training else []
        facts += [("precision", str(manifest["precision"]))] if manifest.get("precision") else []
    machine = [str(manifest[name]) for name in _MACHINE if manifest.get(name)]
    machine += [f"{manifest['cores']} cores"] if manifest.get("cores") else []
    facts += [("machine", ", ".join(machine))] if machine else []
    facts += [("bank weight w", f"{float(summary['weight']):g}")] if measure_of(summary).banked else []
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


def _curve_table(run: RunFiles) -> dict[str, Any]:
    """Tabulate the losses: a row a model, or with many models, as other protocols have, a row a kind of model."""
    curves = [_curve(log) for log in run.logs]
    if len(curves) <= _CURVE_ROWS or run.summary["protocol"] == "four-way":
        return {"curves": curves, "grouped": False}
    groups: dict[str, list[TrainingLog]] = {}
    for log in run.logs:
        groups.setdefault(curve_group(log.side), []).append(log)
    rows: list[dict[str, str]] = []
    for group, logs in groups.items():
        ends = {
            name: sorted(float(log.loss[log.epoch == getattr(log.epoch, end)()].mean()) for log in logs)
            for name, end in (("first", "min"), ("last", "max"))
        }
        spans = {name: f"{numbers.plain(some[0])} to {numbers.plain(some[-1])}" for name, some in ends.items()}
        steps = _numbers(sorted({log.loss.size for log in logs}))
        rows.append({"side": CURVE_NAMES[group], "seed": f"{len(logs):,}", "steps": steps, **spans})
    return {"curves": rows, "grouped": True}


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
