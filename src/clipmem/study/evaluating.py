"""`clipmem evaluate`, and forgetting: utility of models on a study's external pairs or on any labeled source.

When not to trust it: training pairs are left out by uid (same image bytes, same captions). The same image re-encoded,
or with other captions, is not recognized.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from clipmem.base.errors import InputError, require
from clipmem.base.hashing import data_fingerprint
from clipmem.base.paths import write_json
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.random import derive_seed
from clipmem.base.recipes import Recipe
from clipmem.base.sections import DataSection, EvaluateSection
from clipmem.data.cache import build_cache, open_cache
from clipmem.data.decoding import Geometry
from clipmem.data.duplicates import duplicate_groups
from clipmem.data.sources import open_source
from clipmem.data.sources.base import Source
from clipmem.measure.linear_probe import validation_part
from clipmem.measure.over_seeds import Statistics
from clipmem.measure.retrieval import identity_of
from clipmem.measure.utility import PROBES, TestPairs, Utility, why_not
from clipmem.measure.zero_shot import Prompts, read_templates
from clipmem.mitigate import interpolate_weights
from clipmem.models import given, passes
from clipmem.models.embeddings import Model
from clipmem.models.numerics import threads
from clipmem.models.protocol import DualEncoder, geometry_of
from clipmem.report.run import Run
from clipmem.study import execution, utility
from clipmem.study.models import BASE, open_models
from clipmem.study.opening import evaluation_section
from clipmem.study.plan import PlannedStudy
from clipmem.train.paired import TrainingSet

_TRAIN_SHARE = 0.6
_RESERVED = ("utility", "retrieval", "dejavu", "retained")
RETAINED = "evaluate/retained.json"
_SKIPPED = dict.fromkeys(PROBES, "it measures what a new classifier finds, not what the model retained")


class Evaluated(NamedTuple):
    """The result, and the file it was written to."""

    document: Mapping[str, Any]
    file: Path


@dataclass(frozen=True)
class TestedModel:
    """A model to evaluate."""

    __test__ = False  # not a test for pytest

    side: str
    seed: int
    load: Callable[[], DualEncoder]
    samples_seen: int | None = None


def settings_with(
    section: EvaluateSection, *, labels: str = "", classnames: Path | None = None, templates: Path | None = None
) -> EvaluateSection:
    """Apply a command's options to an `[evaluate]` section."""
    changes: dict[str, str | tuple[str, ...]] = {"labels": labels} if labels else {}
    if classnames:
        changes["classnames"] = str(classnames)
    if templates:
        changes["templates"] = tuple(read_templates(templates))
    return section.model_copy(update=changes)


def evaluate_run(
    path: Path | str,
    *,
    data: DataSection | None = None,
    name: str = "",
    reporter: Reporter | None = None,
    **changes: Any,
) -> Evaluated:
    """Evaluate the models of a finished run and write `evaluate/NAME.json` (for `changes`, see `settings_with`)."""
    run = Run(path)
    folder, recipe = run.folder, run.recipe
    _ = run.summary  # raises if the run is not finished
    section = recipe.evaluate
    if data:  # not the classes of the study's pairs
        section = section.model_copy(update={"classnames": "", "labels": "label"})
    settings = settings_with(section, **changes)
    name = name or (Path(data.path).stem or data.source if data else "external")
    usable = name and name not in _RESERVED and not any(c in name for c in "/\\\0") and not name.startswith(".")
    expected = f"a file name that is not one of {', '.join(_RESERVED)}"
    require(usable, "--name", repr(name), expected, "Give another --name.")
    study = PlannedStudy(folder.path, recipe.model_copy(update={"evaluate": settings}))
    with folder.locked():
        if data is None:
            document, _ = utility.measure(study, reporter or Quiet())
        else:
            left_out = frozenset(study.splits.filter(pl.col("role") != "external")["uid"])
            tested = study.recipe.model_copy(update={"data": data})
            document = _evaluate_models(study, utility.evaluated(study), tested, left_out, reporter)
        document = {**document, "protocol": recipe.protocol}
        return Evaluated(document, folder.write_json(f"evaluate/{name}.json", document))


def evaluate_given(
    addresses: Sequence[str],
    data: DataSection,
    out: Path,
    *,
    alphas: Sequence[float] = (),
    reporter: Reporter | None = None,
    **changes: Any,
) -> Evaluated:
    """Evaluate models, or with `alphas` those between two models, on a source and write a JSON file."""
    given_models = [given.find(address) for address in addresses]
    unique = len(set(addresses)) == len(addresses)
    require(unique, "--model", "a duplicate", "each model once", "Name each model once.")
    settings = settings_with(EvaluateSection(), **changes)
    recipe = Recipe(data=data, evaluate=settings)  # pyright: ignore[reportCallIssue]
    resources = replace(execution.resolve(recipe, 1), precision="fp32")  # as in `given` studies
    plain = [TestedModel(model.name, 0, partial(given.load, model)) for model in given_models]
    models = _between(given_models, alphas) if alphas else plain
    document = evaluate_source(models, recipe, left_out=frozenset(), resources=resources, reporter=reporter)
    return Evaluated(document, write_json(out, document))


def _between(ends: Sequence[given.GivenModel], alphas: Sequence[float]) -> list[TestedModel]:
    """Return the models between a model and its fine-tuned version; each replaces the one loaded before."""
    base, tuned = (given.load(model) for model in ends)
    end = {name: weight.clone() for name, weight in tuned.module.state_dict().items()}

    def load(alpha: float) -> DualEncoder:
        tuned.module.load_state_dict(interpolate_weights(base.module, end, alpha))
        return tuned

    load(0.0)  # raises, before the source is read
    return [TestedModel(f"alpha {alpha:g}", 0, partial(load, alpha)) for alpha in alphas]


def _evaluate_models(
    study: PlannedStudy,
    models: Sequence[TrainingSet],
    recipe: Recipe,
    left_out: frozenset[str],
    reporter: Reporter | None,
    against: str = "",
) -> dict[str, Any]:
    opened = open_models(study.recipe, study.folder)  # checks given models
    exposures = partial(utility.samples_seen, study.folder)
    tested = [
        TestedModel(study.side(model), model.seed, partial(opened.load, model.side, model.seed), exposures(model))
        for model in models
    ]
    resources = replace(study.execution, precision=study.precision)
    return evaluate_source(tested, recipe, left_out=left_out, resources=resources, reporter=reporter, against=against)


def tested_source(recipe: Recipe, left_out: frozenset[str], subject: str) -> tuple[Source, pl.DataFrame, int]:
    """Open the source `recipe.data`; return it, its pairs without `left_out`, and how many these are."""
    try:
        source = open_source(recipe.data)
        every = source.pairs()
    except InputError:
        if recipe.data.label_column != "label":
            raise
        source = open_source(recipe.data.model_copy(update={"label_column": ""}))  # no column `label`
        every = source.pairs()
    pairs = every.filter(~pl.col("uid").is_in(sorted(left_out)))
    got = f"{pairs.height} pairs that no model trained on, of {every.height}"
    require(pairs.height > 1, subject, got, "at least 2", "Evaluate on other pairs.")
    return source, pairs, every.height - pairs.height


def evaluate_source(
    models: Sequence[TestedModel],
    recipe: Recipe,
    *,
    left_out: frozenset[str],
    resources: execution.Execution,
    reporter: Reporter | None = None,
    against: str = "",
) -> dict[str, Any]:
    """Evaluate models on the source `recipe.data`.

    With changes from the side `against` no classifier is trained, as it measures what it finds, not what was retained.
    Models embed in the precision of the study's own embeddings; each text is embedded once.
    """
    reporter, name = reporter or Quiet(), recipe.data.path or recipe.data.source
    source, table, count_left_out = tested_source(recipe, left_out, f"--data {name}")
    prompts = utility.prompts_of(table, recipe)
    statistics = Statistics(recipe.score.confidence, recipe.score.draws, recipe.split.seed)
    captions = [text for texts in table["captions"] for text in texts]
    text_pair = torch.from_numpy(np.repeat(np.arange(table.height), table["captions"].list.len().to_numpy()))
    require(models, "models", "none", "at least one", "Name a model.")
    settings = recipe.embed.model_copy(update={"views": 0, "caption_edits": 0})
    with tempfile.TemporaryDirectory() as scratch, threads(resources.threads * resources.workers):

        @cache
        def pixels(geometry: Geometry) -> np.ndarray:
            """Decode the source's images once per geometry."""
            file = Path(scratch) / f"{geometry.name}.npy"
            build_cache(file, dict(enumerate(table["image"])), source.read, geometry)
            return open_cache(file)

        test = _test_pairs(table, prompts, pixels(geometry_of(models[0].load())), recipe)
        test.why.update(_SKIPPED if against else {})
        utilities = Utility(test, recipe.evaluate, statistics, against)
        index = {text: k for k, text in enumerate(dict.fromkeys(captions + test.texts))}
        reporter.begin("evaluate", table.height * len(models), "pairs")
        for tested in models:
            model = Model(tested.side, tested.load, settings, recipe.train, resources.device, resources.precision)
            rows, uids = np.arange(table.height), table["uid"].to_list()
            inputs = passes.Inputs(pixels(model.geometry), rows, [list(index)], uids)
            embedded = model.embed(inputs, progress=reporter.advance)
            text = embedded.text[[index[caption] for caption in captions]]
            prompted = embedded.text[[index[prompt] for prompt in test.texts]] if test.texts else None
            single = passes.Embeddings(embedded.image, text, text_pair)
            utilities.add(tested.side, tested.seed, single, prompted, samples_seen=tested.samples_seen)
    reporter.begin("evaluate")
    retrieval = None if "retrieval" in utilities.pairs.why else utilities.retrieval()
    return {
        **utilities.document(retrieval),
        "pairs": name,
        "labels": recipe.evaluate.labels,
        "probe_pairs": f"{100 * _TRAIN_SHARE:.0f} % of these pairs, by groups",
        "data": {**source.section.model_dump(), "fingerprint": data_fingerprint(table["uid"])},
        "left_out": count_left_out,
    }


def _test_pairs(pairs: pl.DataFrame, prompts: Prompts | None, decoded: np.ndarray, recipe: Recipe) -> TestPairs:
    """Divide a source: all pairs are test pairs; the probe is trained on some groups and tested on the others."""
    names = duplicate_groups(decoded, keys=pairs["group"].to_list())
    groups = np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)
    test = np.ones(pairs.height, dtype=np.bool_)
    seed = derive_seed(recipe.split.seed, "probe training")
    train = validation_part(groups, _TRAIN_SHARE, seed=seed) if len(np.unique(groups)) > 1 else ~test
    captions = pairs["captions"].to_list()
    classes = utility.classes_of(pairs, recipe, prompts, np.arange(pairs.height), captions, test)
    unlabeled = "the source has no labels: set a label column"
    why = why_not(classes, groups, test, train, unlabeled=unlabeled, text=utility.untrained_text(recipe))
    labels = len(set(classes["label"].labels.tolist()) - {-1})
    if labels and len({tuple(texts) for texts in captions}) <= min(labels, pairs.height - 1):
        for task in ("retrieval", "zero_shot_concept"):
            why.setdefault(task, "captions are labels, shared by several images")
    same = identity_of(pairs["uid"].to_list(), captions)
    return TestPairs(groups, test, train, classes, same, why, same)


# ---- forgetting


def retained_recipe(recipe: Recipe, trained: frozenset[str]) -> Recipe | None:
    """Return the recipe with the data of `evaluate.retained`, without the classes of the study's pairs; None without.

    Raises:
        InputError: There are fewer than two pairs that no model trains on.
    """
    if not recipe.evaluate.retained:
        return None
    name, subject = recipe.evaluate.retained, f"[evaluate] retained = {recipe.evaluate.retained!r}"
    evaluate = recipe.evaluate.model_copy(update={"classnames": "", "labels": "label"})
    try:
        retained = recipe.model_copy(update={"data": evaluation_section(name), "evaluate": evaluate})
        utility.prompts_of(tested_source(retained, trained, subject)[1], retained)
    except InputError as error:
        hint = "Check the data with `clipmem inspect`."
        raise InputError(subject, got=error.got, expected=error.expected, hint=hint) from error
    return retained


def evaluate_retained(study: PlannedStudy, reporter: Reporter) -> list[Path]:
    """Measure forgetting: base model, f and g on the data of `evaluate.retained`; return the file written, if any.

    Pairs that a model of the study trained on are left out. When not to trust it: it says what was lost on these data
    only.
    """
    trained = frozenset[str]().union(*(model.uids for model in study.models))
    recipe = retained_recipe(study.recipe, trained)
    if recipe is None:
        return []
    models = [*study.embedded[-1:], *utility.evaluated(study)]  # the base model first
    document = _evaluate_models(study, models, recipe, trained, reporter, BASE)
    return [study.folder.write_json(RETAINED, document)]
