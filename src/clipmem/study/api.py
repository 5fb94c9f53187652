"""The verbs of the Python API: what they take is open and checked before torch is imported."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmem import report, study
from clipmem.base.errors import ClipmemWarning, InputError, near_names, require
from clipmem.base.paths import check_new_table, checked_path, reading
from clipmem.base.progress import Reporter
from clipmem.base.recipes import Overrides, Recipe, as_settings, load_recipe, recipe_from
from clipmem.study.engines import check_name, is_first, open_engine, watch_launcher

if TYPE_CHECKING:  # not before the arguments are checked
    import numpy as np
    import polars as pl

    from clipmem.report.sections.commands import Scored
    from clipmem.study.score_inputs import Scorable

RecipeLike = Recipe | Mapping[str, Any] | str | Path
PUBLISHED_RECIPES = ("coco-vit-b-32", "coco-vit-b-16", "cc3m-vit-b-32", "cc3m-vit-b-16")
FINETUNE_RECIPES = ("finetune-vit-b-32", "finetune-lit", "finetune-lora", "finetune-siglip")
SHIPPED_RECIPES = ("demo", "quick", *FINETUNE_RECIPES, *PUBLISHED_RECIPES)
_MOST = 2**20  # maximum bytes of a recipe


def find_recipe(recipe: RecipeLike, settings: Overrides = ()) -> Recipe:
    """Load a recipe from a name, a path or a mapping, and apply settings."""
    if isinstance(recipe, Recipe | Mapping):
        return recipe_from(recipe.model_dump() if isinstance(recipe, Recipe) else recipe, settings)
    if isinstance(recipe, Path) and str(recipe) in SHIPPED_RECIPES and not recipe.exists():
        recipe = str(recipe)
    if recipe in SHIPPED_RECIPES:
        text = (files("clipmem") / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
        return load_recipe(text, settings, origin=f"recipe {recipe!r}")
    path = checked_path(recipe, "recipe")
    return load_recipe(_recipe_text(path), settings, origin=str(path))


def _recipe_text(path: Path) -> str:
    expected, hint = "a TOML file, 'demo' or 'quick'", "Create one with `clipmem init`."
    files = [] if path.exists() else [*SHIPPED_RECIPES, *map(str, path.parent.glob("*.toml"))]
    recipes = {Path(file).stem: file for file in files}
    near = " or ".join(repr(recipes[name]) for name in near_names(path.stem, recipes))
    with reading(f"recipe {path}", expected=expected, hint=f"Did you mean {near}?" if near else hint):
        if path.exists() and not path.is_file():  # opening a pipe would block
            raise InputError(f"recipe {path}", got="not a regular file", expected=expected, hint=hint)
        with path.open("rb") as stream:
            content = stream.read(_MOST + 1)
        if len(content) > _MOST:
            raise InputError(f"recipe {path}", got=f"more than {_MOST:,} bytes", expected=expected, hint=hint)
        text = content.decode("utf-8-sig")
    # an empty file must not start the default study
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        raise InputError(f"recipe {path}", got="a file without keys", expected=expected, hint=hint)
    return text


def plan_budget(recipe: RecipeLike, settings: Overrides, budget: float) -> tuple[list[str], "study.budget.Plan"]:
    """Choose how to estimate the scores of a recipe's pairs for a budget; return the settings for it, and the plan."""
    usable = 0 < budget < float("inf")
    require(usable, "--budget", f"{budget:g}", "a positive number of trainings", "Use 0.5.")
    common, settings = ["protocol=halves", "train.record=true"], as_settings(settings)
    plan = study.budget.plan(find_recipe(recipe, [*common, *settings]), budget)
    return [*common, *plan.settings, *settings], plan


def run(
    recipe: RecipeLike,
    out: str | Path,
    *,
    data: "study.opening.Data | None" = None,
    budget: float | None = None,
    settings: Overrides = (),
    device: str = "auto",
    engine: str = "local",
    processes: int = 1,
    reporter: Reporter | None = None,
    command: str = "",
    strict: bool = False,
    allow_long: bool = False,
) -> "study.finished.FinishedRun":
    """Run a study, or resume it, and return the finished run.

    Args:
        recipe: A recipe, a mapping, a TOML file, or a shipped recipe: `"demo"`, `"quick"`.
        out: Run folder. A folder with the same study, unfinished, is resumed.
        data: The pairs, instead of those of the recipe: a path, keys of `[data]`, a table, or what `load_pairs` gives.
        budget: Estimate the memorization of every pair for the cost of f and `budget` further trainings of it (see
            `clipmem.study.budget`): sets the protocol `halves` and its settings.
        settings: Changes to the recipe: `["train.lr=1e-4"]` or `{"train.lr": 1e-4}`.
        device: `auto`, `cpu` or `cuda`.
        engine: Execution engine: `local` or `ray` (see `clipmem.study.engines`).
        processes: With Ray: number of processes that train each model together, each on a GPU of its own.
        reporter: Progress reporter; by default a bar or lines in a notebook, nothing elsewhere.
        command: Command recorded in the manifest; by default this call.
        strict: Stop at the first unusable record; by default such records are left out, counted, and listed in
            `skipped.parquet`.
        allow_long: Start even if the study would take more than a day, or more memory or disk space than available
            (see `clipmem.study.forecast`). Resuming does not need it.

    Raises:
        InputError: The recipe is invalid or does not fit the data, the study takes too long and `allow_long` is not
            set, or the folder has another study.
        RunError: The study failed: a full disk, a non-finite loss, a worker that died.
    """
    watch_launcher()
    if not is_first():  # under torchrun the first process runs the study
        from clipmem.study.engines.torchrun import follow  # imports torch

        follow()
        return load_run(out)
    check_name(engine, processes)
    resolved = find_recipe(recipe, settings)
    if budget is not None:
        settings = plan_budget(recipe, settings, budget)[0]
        resolved = find_recipe(recipe, settings)
    if data is not None:
        section = study.opening.section_of(data, Path(out))
        resolved = recipe_from(resolved.model_dump() | {"data": section.model_dump()})
    resolved.data.check_paths()  # before polars is imported, which takes a third of a second
    # torch takes seconds to import: only after everything that the recipe names is open
    folder, source = study.opening.open_study(resolved, checked_path(out, "--out"), device=device)
    origin = recipe if isinstance(recipe, str | Path) else "recipe"
    with open_engine(engine, processes) as workers:
        study.stages.Study(
            resolved,
            folder,
            source,
            reporter=reporter or report.progress.reporter_here(),
            command=command or f"clipmem.run({str(origin)!r}, {str(out)!r})",
            user_set=as_settings(settings),
            device=device,
            engine=workers,
            strict=strict,
            allow_long=allow_long,
        ).run()
    return load_run(folder.path)


def load_run(path: str | Path) -> "study.finished.FinishedRun":
    """Open a finished run folder, without importing torch.

    Raises:
        InputError: The run is not finished, or was made by a newer version of clipmem.
    """
    return study.finished.FinishedRun(path)


def load_pairs(data: Any, **keys: Any) -> "study.opening.Source":
    """Open pairs of images and captions: what every verb takes as `data`, `members`, `bank` and so on.

    Args:
        data: A file, folder or shards, or a shipped source; or a table in memory: a polars or pandas DataFrame, or a
            `datasets.Dataset`, with a column of images (bytes, or paths) and one of captions (a text or a list of
            texts). A table is written to a temporary Parquet file, which is removed with the returned object.
        keys: Keys of `[data]` (see `clipmem init -`): `image_column`, `caption_column`, `label_column`, ...

    Returns:
        The open source: `pairs()` reads the usable pairs; unusable records are counted and listed in `problems`.

    Raises:
        InputError: There are no such data, or the table has no such columns.

    Example:
        >>> load_pairs("emoji").pairs().height
        1914
    """
    return study.opening.open_data(data, keys)


def _folder(run: "str | Path | study.finished.FinishedRun") -> Path:
    return Path(run) if isinstance(run, str | Path) else run.path


def evaluate(
    run: "str | Path | study.finished.FinishedRun | None" = None,
    *,
    model: str | Sequence[str] = (),
    data: "study.opening.Data | None" = None,
    interpolate: Sequence[float] = (),
    name: str = "",
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    **prompts: Any,
) -> "study.evaluating.Evaluated":
    """Measure the utility of models: zero-shot classification, linear probe, retrieval.

    Args:
        run: A finished run, or its folder: its models are evaluated, by default on its external pairs.
        model: Models instead of a run; they need `data`.
        data: Pairs to evaluate on: a path, keys of `[data]` (`label_column`), a table, or what `load_pairs` gives.
        interpolate: Weights of the fine-tuned model from 0 to 1: evaluate the models between a pretrained model and its
            fine-tuned version, those of a run, or with `model=(BASE, TUNED)` those between two models.
        name: Name of the output; by default external, or the name of the data.
        out: Output file of `model`, by default NAME.json in the working directory; or with `interpolate` of a run,
            folder of the comparison.
        reporter: Progress reporter.
        prompts: `labels` (label or sublabel), `classnames` and `templates` (files), as in `clipmem evaluate`.

    Returns:
        `document`, what was measured, and `file`, where it was written.

    Raises:
        InputError: Neither or both of a run and models are named, or a run is not finished.
    """
    models = [model] if isinstance(model, str) else list(model)
    got = "neither a run folder nor --model" if run is None else "a run folder and --model"
    hint = "For example: clipmem evaluate runs/mine, or clipmem evaluate --model FOLDER --data PATH."
    require((run is None) == bool(models), "clipmem evaluate", got, "one of them", hint)
    require(data is not None or run is not None, "--model", "no --data", "pairs to evaluate on", "Add --data PATH.")
    pairs = study.opening.open_data(data) if isinstance(data, study.opening.InMemory) else data  # keeps its file
    if run is not None:
        folder = _folder(run)
        if interpolate:
            require(data is None, "--interpolate", "a run and --data", "a run alone", "Omit --data.")
            page, write = Path(out or folder / "interpolate" / "compared"), report.comparison.write_compared
            runs = [folder, *study.stages.interpolate_run(folder, interpolate, reporter=reporter)]
            document = write(runs, page, along="mitigate.interpolate.alpha")
            return study.evaluating.Evaluated(document, page / report.comparison.PAGE)
        section = None if pairs is None else study.opening.evaluation_section(pairs)
        return study.evaluating.evaluate_run(folder, data=section, name=name, reporter=reporter, **prompts)
    section = study.opening.evaluation_section({} if pairs is None else pairs)
    if interpolate:
        got, hint = f"{len(models)} models", "Give --model BASE TUNED."
        require(len(models) == 2, "--interpolate", got, "two models, or a run", hint)
        interpolate = study.stages.check_alphas(interpolate, runs=False)
    file = Path(out or f"{name or ('interpolate' if interpolate else 'utility')}.json")
    return study.evaluating.evaluate_given(models, section, file, alphas=interpolate, reporter=reporter, **prompts)


def audit(
    run: "str | Path | study.finished.FinishedRun | None" = None,
    *,
    model: str = "",
    members: "study.opening.Data | None" = None,
    nonmembers: "study.opening.Data | None" = None,
    out: str | Path = "audit.json",
    device: str = "auto",
    engine: str = "local",
    part: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Measure how well an attacker can tell which pairs a model trained on.

    Args:
        run: A finished run of protocol `subsample` or `halves`, or its folder; its report is updated.
        model: A model to attack instead of a run.
        members: With `model`: pairs that it trained on, anything that `load_pairs` takes or returns.
        nonmembers: With `model`: pairs from the same source that it did not train on.
        out: With `model`: output file; a stopped call resumes.
        device: With `model`: `auto`, `cpu` or `cuda`.
        engine: With `model`: who attacks the pairs: `local` or `ray`.
        part: With `model`: attack only share K of N of the pairs, as K/N, and raise `Unfinished`.
        reporter: Progress reporter.

    Returns:
        The content of `audit.json`: AUC and true positive rates of each attack.

    Raises:
        InputError: Neither or both of a run and a model are named, or the sets can be told apart without the model.
    """
    hint = "For example: clipmem audit runs/mine, or clipmem audit --model FOLDER --members PATH --nonmembers PATH."
    got = f"{'no' if run is None else 'a'} run folder, and {'a' if model else 'no'} --model"
    require((run is None) == bool(model), "clipmem audit", got, "one of them", hint)
    sets = {"--members": members, "--nonmembers": nonmembers}
    for option, data in sets.items():
        got = "no data" if data is None else "data"
        require((data is not None) == bool(model), option, got, "pairs with --model, none with a run", hint)
    settings = study.score_inputs.Settings.of(device=device, engine=engine, part=part)
    settings.check_work(embeds=run is None)
    if run is not None:
        return study.auditing.audit_run(_folder(run), reporter=reporter)
    inside, outside = (study.opening.open_data(data) for data in sets.values() if data is not None)
    return study.auditing.audit_model(model, inside, outside, Path(out), settings, reporter=reporter)


def score(
    target: "Scorable | list[Scorable] | None" = None,
    reference: "Scorable | list[Scorable] | None" = None,
    data: "study.opening.Data | Sequence[str] | None" = None,
    bank: "study.opening.Data | Sequence[Any] | np.ndarray | None" = None,
    *,
    model: str = "",
    trajectory: Path | None = None,
    out: str | Path | None = None,
    embeddings: str | Path | None = None,
    reporter: Reporter | None = None,
    alignment: str = "clip",
    weight: float = 1.0,
    confidence: float = 0.95,
    bank_size: int = 200,
    seed: int = 0,
    views: int = 0,
    caption_edits: int = 0,
    captions: int | None = None,
    precision: str = "fp32",
    batch_size: int = 256,
    block: int | None = None,
    dtype: str = "float32",
    device: str = "auto",
    engine: str = "local",
    part: str = "",
) -> "pl.DataFrame":
    """Score pairs by how much existing models memorized them: alignment under the target minus under the reference.

    CLIPMem = mean over targets of A(target) - mean over references of A(reference), A = ū·v̄ - w (ū·t̄ + ī·v̄), from -6
    to 6 for w = 1. Without target and reference: a ranking by `model`, if given, pixels and words, which agrees less
    with CLIPMem. When not to trust it: any difference between the models other than training on the pairs counts.

    Args:
        target: The model whose memorization is measured: its name (see `docs/models.md`), a folder of embeddings,
            or embeddings as numpy or torch arrays: (image, text) of shapes (n, d) or (n, view, d), and (n, d); with
            several captions (image, text, pair), text (m, d) and the pair of each caption (m,). A list for several.
        reference: The model to compare with, or a list with one for each target.
        data: The pairs: what `load_pairs` takes or returns. Optional with folders of embeddings; with arrays, the uids
            of their rows, by default "0", "1", ...
        bank: Held-out pairs that no model trained on: a data set, or uids of pairs of the data (a list, or a file);
            with arrays also row numbers, or a mask. None: sample `bank_size` pairs of the data.
        model: The model that trained on the data, if there is no reference.
        trajectory: With `model`: what its training recorded, a file of `AlignmentRecorder`.
        out: Also write the scores to this file (.parquet), with a sidecar .json; a stopped call resumes.
        embeddings: Store the embeddings in this folder, or read them from it.
        reporter: Progress reporter.
        alignment: Alignment score: clip (CLIPMem), cmc, sslmem-image, sslmem-text or confidence.
        weight: w of the alignment.
        confidence: Level of intervals over models.
        bank_size: Number of pairs to sample as the bank, 2 or more.
        seed: Seed of that sample.
        views: Random views per image; 0 = the unchanged image.
        caption_edits: Random edits of the caption of single-caption pairs, for sslmem-text.
        captions: Maximum number of captions per pair; None = all.
        precision: fp32, or bf16 = autocast.
        batch_size: Images or captions per forward pass.
        block: Pairs whose decoded images, or embeddings, are in memory at a time; None = 1,024.
        dtype: Type of stored embeddings: float32 or float16.
        device: auto, cpu or cuda.
        engine: Who embeds the pairs: local or ray; the same bytes.
        part: Embed only share K of N of the pairs, as K/N, into `embeddings` or for `out`, and raise `Unfinished`.

    Returns:
        The columns of a study's `scores`, one row per usable pair, by uid. `role` is external for pairs in the bank,
        which are scored against the rest of it, and candidate for others. `planted` is false. `clipmem_norm` is null
        without two different candidates; stderr, low and high are null with one pair of models. `clipmem_centered` is
        clipmem minus the 20 % trimmed mean of the bank's pairs (of a bank that is not in the data, minus its mean). A
        ranking has uid, estimator, score and stderr.

    Raises:
        InputError: A model, the data or a setting is invalid, or `out` was made with other settings.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> image, text, other = (rng.normal(size=(5, 8)) for _ in range(3))
        >>> table = score((image, text), (other, text), bank=[0, 1])
        >>> table["role"].to_list()
        ['external', 'external', 'candidate', 'candidate', 'candidate']
    """
    scoring = {"alignment": alignment, "weight": weight, "confidence": confidence, "bank_size": bank_size, "seed": seed}
    views_of = {"views": views, "caption_edits": caption_edits, "captions": captions}
    how = {"precision": precision, "batch_size": batch_size, "block": block, "dtype": dtype, "device": device}
    inputs = Inputs(target, reference, data, bank, model, trajectory, embeddings)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(out or Path(scratch) / "scores.parquet")
        scored = score_into(file, inputs, reporter, engine=engine, part=part, **scoring, **views_of, **how)
        left_out = study.scoring.left_out(scored)
    if left_out:
        warnings.warn(ClipmemWarning(left_out), stacklevel=2)
    return scored.scores


@dataclass(frozen=True)
class Inputs:
    """What `score` compares, or ranks by one model (see there)."""

    target: Any = None
    reference: Any = None
    data: Any = None
    bank: Any = None
    model: str = ""
    trajectory: Path | None = None
    embeddings: str | Path | None = None


def score_into(out: Path, inputs: Inputs, reporter: Reporter | None = None, **settings: object) -> "Scored":
    """Score pairs into a table (see `score`); return what the screen of `clipmem score` shows."""
    check_new_table(out)
    model, data, bank, trajectory = inputs.model, inputs.data, inputs.bank, inputs.trajectory
    if inputs.target is not None or inputs.reference is not None or inputs.embeddings is not None:
        got, hint = f"--model {model} and other models", "Omit --model, or --target and --reference."
        require(not model, "--model", got, "--target and --reference, or --model", hint)
        folder = None if inputs.embeddings is None else checked_path(inputs.embeddings, "--embeddings")
        checked, compare = study.score_inputs.Settings.of(**settings), study.score_inputs.compare
        comparison = compare(inputs.target, inputs.reference, data, bank, checked, embeddings=folder)
        return study.scoring.write_scores(comparison, out, embeddings=folder, reporter=reporter)
    hint = "For example: clipmem score --model FOLDER --data PATH."
    require(trajectory is None or model, "--trajectory", "no --model", "the model whose training it is of", hint)
    used, defaults = {"captions", "device", "engine", "part"}, signature(score).parameters
    unused = [name for name, value in settings.items() if name not in used and value != defaults[name].default]
    options = ", ".join(f"--{name.replace('_', '-')}" for name in unused + ["bank"] * (bank is not None))
    hint = "Add --target MODEL --reference MODEL, or omit it."
    require(not options, options, "no --target and --reference", "two models to compare", hint)
    how = study.score_inputs.Settings.of(**{name: settings[name] for name in used & settings.keys()})
    return study.single_model.write_ranking(model, data, out, how, trajectory=trajectory, reporter=reporter)
