"""Forgetting: zero-shot and retrieval of the base model, f and g on the data of `evaluate.retained`.

When not to trust it: it says what was lost on these data only. Labels are read from a column `label`, or from folders.
"""

from pathlib import Path

from clipmem.base.errors import InputError
from clipmem.base.progress import Reporter
from clipmem.base.recipes import Recipe
from clipmem.study import utility
from clipmem.study.evaluating import data_section, evaluate_source, models_of, tested_source
from clipmem.study.models import BASE
from clipmem.study.plan import PlannedStudy

DOCUMENT = "evaluate/retained.json"
_SKIPPED = {"linear_probe": "it measures what a new classifier finds, not what the model retained"}


def check(recipe: Recipe, trained: frozenset[str]) -> None:
    """Check before training that the data can be read, and have pairs that no model trains on."""
    if recipe.evaluate.retained:
        _recipe_of(recipe, trained)


def _recipe_of(recipe: Recipe, trained: frozenset[str]) -> Recipe:
    """Return the recipe with the retained pairs as its data, and without the classes of the study's pairs."""
    name, what = recipe.evaluate.retained, f"[evaluate] retained = {recipe.evaluate.retained!r}"
    shipped = name == "emoji" and not Path(name).exists()
    options = (None, "emoji") if shipped else (Path(name), "")
    evaluate = recipe.evaluate.model_copy(update={"classnames": "", "labels": "label"})
    try:
        data = data_section(*options, label=None, caption=None, image=None)
        own = recipe.model_copy(update={"data": data, "evaluate": evaluate})
        try:
            pairs = tested_source(own, trained, what)[1]
        except InputError:  # no column `label`
            own = own.model_copy(update={"data": own.data.model_copy(update={"label_column": ""})})
            pairs = tested_source(own, trained, what)[1]
        utility.prompts_of(pairs, own)
    except InputError as error:
        hint = "Check the data with `clipmem data inspect`."
        raise InputError(what, got=error.got, expected=error.expected, hint=hint) from error
    return own


def evaluate(study: PlannedStudy, reporter: Reporter) -> list[Path]:
    """Measure base model, f and g, and the changes of f and g from the base model; return the file written, if any.

    Pairs that a model of the study trained on are left out.
    """
    if not study.recipe.evaluate.retained:
        return []
    trained = frozenset[str]().union(*(model.uids for model in study.models))
    document = evaluate_source(
        models_of(study, [*study.embedded[-1:], *study.models]),  # the base model first
        _recipe_of(study.recipe, trained),
        left_out=trained,
        device=study.execution.device,
        count=study.execution.threads * study.execution.workers,
        reporter=reporter,
        untrained=utility.untrained_text(study.recipe),
        against=BASE,
        skipped=_SKIPPED,
    )
    return [study.folder.write_json(DOCUMENT, document)]
