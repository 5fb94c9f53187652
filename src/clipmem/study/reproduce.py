"""`clipmem reproduce`: train the runs of the published experiments, test the findings, write `findings.json`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipmem._version import __version__
from clipmem.base.atomic import is_free, write_json
from clipmem.base.errors import InputError
from clipmem.base.folder import SIDES, RunFolder
from clipmem.base.job import Job, refuse_other
from clipmem.base.machine import cores
from clipmem.base.manifest import recipe_hash
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Overrides, Recipe
from clipmem.base.require import require, require_one_of
from clipmem.data.cache import open_cache
from clipmem.measure import towers
from clipmem.models import passes
from clipmem.report.effects import FINDINGS, Context, Results, judge
from clipmem.report.findings import ORDER
from clipmem.report.formats import duration
from clipmem.report.page import write_page
from clipmem.report.read import is_finished, read_finished
from clipmem.report.run_specs import RunSpec
from clipmem.report.runs import FinishedRun
from clipmem.report.scales import REGIMES, SCALES, Scale
from clipmem.scoring.protocols import protocol_of
from clipmem.study import api, pool
from clipmem.study.early import check_device, check_source
from clipmem.study.plan import CACHE

DOCUMENT, PAGE, RUNS, INDEX = "findings.json", "index.html", "runs", "runs.json"
_PROBE = ("train.epochs=2", "train.seeds=[0]")
_ROW = ("measure", "estimate", "low", "high", "holds", "primary", "confidence", "seeds")
_SIDE = 16  # pixels of an image's side for comparing images


def find_scale(scale: str, regime: str) -> Scale:
    """Return a scale of a regime."""
    require_one_of("--regime", regime, REGIMES, "Start with redundant.")
    known = [name for one, name in SCALES if one == regime]
    require_one_of(f"--scale, with --regime {regime}", scale, known, f"Use --scale {known[0]}.")
    return SCALES[regime, scale]


def base_recipe(scale: str, regime: str, seeds: int | None = None, settings: Overrides = ()) -> Recipe:
    """Return the base recipe of a scale, with the user's seeds and settings."""
    chosen = find_scale(scale, regime)
    return chosen.base(api.find_recipe(chosen.recipe), seeds, settings)


def findings_of(scale: Scale) -> list[str]:
    """Return the names of the findings that a scale tests, in order."""
    return [name for name in (*ORDER, *(name for name in FINDINGS if name not in ORDER)) if name not in scale.without]


def reproduce(
    out: Path,
    *,
    findings: Sequence[str] = (),
    scale: str = "tiny",
    regime: str = "redundant",
    seeds: int | None = None,
    settings: Overrides = (),
    device: str = "auto",
    engine: str = "local",
    reporter: Reporter | None = None,
    log: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Train the missing runs of the published experiments, test the findings, and return `findings.json`.

    Args:
        out: Output folder; a stopped reproduction resumes.
        findings: Findings to reproduce; empty = all of the regime.
        scale: `tiny` or `laptop`; `published` for COCO.
        regime: `unique`, `redundant`, `long-tail` (set data.path) or `coco` (set data.path).
        seeds: Seeds per run; None = the scale's.
        settings: Changes to the base study: `["train.epochs=20"]` or `{"train.epochs": 20}`.
        device: `auto`, `cpu` or `cuda`.
        engine: Execution engine (see `clipmem.run`).
        reporter: Progress reporter of each run's stages.
        log: Called with the estimate, and with the name of each run.
    """
    chosen = find_scale(scale, regime)
    known = findings_of(chosen)
    for name in findings:
        require_one_of(f"--finding, with --regime {regime}", name, known)
    names = [name for name in known if name in findings or not findings]
    base = base_recipe(scale, regime, seeds, settings)
    context = Context(chosen, base)
    tested = {name: FINDINGS[name]() for name in names}
    needed = {
        name: unique(base, [(f"{name}: {run}", spec) for run, spec in finding.runs(context).items()])
        for name, finding in tested.items()
    }
    runs = unique(base, [item for own in needed.values() for item in own.items()])
    check_device(device)
    check_source(base.data)
    _claim(out, {"regime": regime, "scale": scale, "recipe_sha256": recipe_hash(base)})
    maker = Maker(out, base, device=device, engine=engine, reporter=reporter)
    maker.write_index(runs)
    # one finding is judged as strictly as all of them, so that its row is that of the whole table
    results = Results(maker.open, base.score.confidence, len(known))
    rows, documents = list[dict[str, Any]](), list[dict[str, Any]]()
    document = {
        "format": 3,
        "clipmem": __version__,
        "regime": regime,
        "scale": scale,
        "utility": chosen.utility,
        "recipe_sha256": recipe_hash(base),
        "confidence": base.score.confidence,
        "primaries": len(known),
        "seeds": list(base.train.seeds),
        "runs": {name: spec.key(base) for name, spec in runs.items()},
        "rows": rows,
        "findings": documents,
    }
    with pool.reused():
        log(maker.estimate_sentence(runs))
        for name, finding in tested.items():
            maker.make_all(needed[name], log)
            took = round(sum(maker.seconds(spec) for spec in needed[name].values()), 1)
            documents.append({**judge(finding, context, results), "seconds": took})
            rows += [
                {"finding": name, **{key: row[key] for key in _ROW}, "seconds": took}
                for row in documents[-1]["effects"]
            ]
            write_json(out / DOCUMENT, document)
            write_page(out / PAGE, "findings", document)
    return document


def _claim(out: Path, what: dict[str, str]) -> None:
    job, hint = Job(out), "Choose another --out DIR."
    if (out / "reproduce.json").is_file():
        refuse_other(f"folder {out}", job.read_json("reproduce.json"), what, hint)
        return
    require(is_free(out), f"--out {out}", "a folder with other files", "a new folder, or an earlier reproduction", hint)
    job.write_json("reproduce.json", what)


class Estimate(NamedTuple):
    """Time of the missing runs, estimated from one short run: pairs/s per model, and overhead per run in seconds."""

    runs: int
    models: int
    seconds: float
    rate: float
    overhead: float


class Maker:
    """Trains and reads the runs of a reproduction."""

    def __init__(
        self, out: Path, base: Recipe, *, device: str = "auto", engine: str = "local", reporter: Reporter | None = None
    ) -> None:
        self._out, self._base = out, base
        self._device, self._engine, self._reporter = device, engine, reporter or Quiet()
        self._opened: dict[str, FinishedRun] = {}

    def place(self, spec: RunSpec) -> Path:
        """Return the folder of a run."""
        return self._out / RUNS / spec.key(self._base)

    def is_made(self, spec: RunSpec) -> bool:
        """Return whether a run is finished, and localized if required."""
        folder = RunFolder(self.place(spec))
        return self._is_trained(spec) and (folder.is_done("localize") or not spec.localize)

    def _is_trained(self, spec: RunSpec) -> bool:
        return is_finished(RunFolder(self.place(spec)), spec.recipe(self._base).protocol)

    def make(self, spec: RunSpec) -> None:
        """Run or resume one run."""
        folder = self.place(spec)
        if not self._is_trained(spec):
            self._run(spec.recipe(self._base, self.place), folder, self._reporter)
        if spec.localize:
            from clipmem.study.localizing import localize_run

            localize_run(folder, reporter=self._reporter)

    def _run(self, recipe: Recipe, folder: Path, reporter: Reporter) -> None:
        api.run(
            recipe,
            folder,
            device=self._device,
            engine=self._engine,
            reporter=reporter,
            command="clipmem reproduce",
            allow_long=True,  # `reproduce` has shown its own estimate
        )

    def make_all(self, runs: Mapping[str, RunSpec], log: Callable[[str], object]) -> None:
        """Run all missing runs."""
        for number, (name, spec) in enumerate(runs.items(), start=1):
            made = self.is_made(spec)
            log(f"run {number} of {len(runs)}: {name}{': already done' if made else ''}")
            if not made:
                self.make(spec)

    def open(self, spec: RunSpec) -> FinishedRun:
        """Read a finished run (cached)."""
        key = spec.key(self._base)
        if key not in self._opened:
            self._opened[key] = open_finished(self.place(spec))
        return self._opened[key]

    def seconds(self, spec: RunSpec) -> float:
        """Return the total seconds of a finished run."""
        return sum(took for stage, took in RunFolder(self.place(spec)).seconds().items() if "-seed-" not in stage)

    def write_index(self, runs: Mapping[str, RunSpec]) -> None:
        """Write the names and settings of the run folders, beside those of earlier calls."""
        file = self._out / INDEX
        index = Job(self._out).read_json(INDEX) if file.is_file() else {}
        index |= {spec.key(self._base): {"name": name, "settings": list(spec.settings)} for name, spec in runs.items()}
        write_json(file, index)

    def estimate(self, runs: Iterable[RunSpec]) -> Estimate:
        """Estimate the time of the missing runs from one short run, which is trained if necessary."""
        missing = [spec for spec in runs if not self.is_made(spec)]
        counts = [protocol_of(spec.recipe(self._base)).count for spec in missing]
        if not missing:
            return Estimate(0, 0, 0.0, 0.0, 0.0)
        folder = self._out / "probe"
        if not RunFolder(folder).is_done("report"):
            self._run(RunSpec(_PROBE).recipe(self._base), folder, Quiet())
        probe = read_finished(folder)
        rate = min(float(marker["pairs_per_second"]) for marker in probe.markers.values())
        spent = RunFolder(folder).seconds()
        trained = 2 * probe.presentations / rate
        processes = cores()
        overhead = sum(spent[stage] for stage in ("decode", "plan", "score", "report"))
        # startup, embedding and evaluation are proportional to the number of models
        each = (max(0.0, spent["train"] - trained / 2) + (spent["embed"] + spent["evaluate"]) / 2) / 2
        shown = sum(self._presentations(spec) * spec.cost * n for spec, n in zip(missing, counts, strict=True))
        models = sum(counts)
        seconds = overhead * len(missing) + each * models + shown / rate / processes
        return Estimate(len(missing), models, seconds, rate, overhead + each * models / len(missing))

    def estimate_sentence(self, runs: Mapping[str, RunSpec]) -> str:
        """Describe the estimate."""
        found = self.estimate(runs.values())
        if not found.runs:
            return f"all {len(runs)} runs are finished"
        return (
            f"{found.runs} of {len(runs)} runs to train, {found.models} models: about {duration(found.seconds)}, "
            f"estimated from a short run ({found.rate:,.0f} pairs/s per model, {found.overhead:.0f} s overhead per run)"
        )

    def _presentations(self, spec: RunSpec) -> int:
        recipe = spec.recipe(self._base)
        return recipe.train.epochs * (recipe.split.shared + recipe.split.candidate)


def open_finished(place: Path) -> FinishedRun:
    """Read a run folder for findings, with lazy access to further data."""
    run, folder = read_finished(place), RunFolder(place)
    more = {
        "pairs": lambda: folder.read("pairs"),
        "units": lambda: pl.read_parquet(place / "localize" / "units.parquet"),
        "tower_shares": lambda: _tower_shares(folder, run),
        "small_images": lambda: _small_images(folder, run),
    }
    return replace(run, more=more)


def _tower_shares(folder: RunFolder, run: FinishedRun) -> pl.DataFrame:
    """Return the share of each tower in the candidates' mean CLIPMem, one row per seed (see `localize.towers`)."""
    f, g = (
        {seed: towers.means_of(passes.load(folder.embedding_dir(side, seed))) for seed in run.seeds} for side in SIDES
    )
    found = towers.split(f, g, run.splits["role"].to_list(), weight=run.recipe.score.weight)
    where = (run.splits["role"] == "candidate").to_numpy()
    shares = {name: getattr(found, name)[:, where].mean(axis=1).tolist() for name in ("text", "image")}
    return pl.DataFrame({"seed": run.seeds, **shares})


def _small_images(folder: RunFolder, run: FinishedRun) -> pl.DataFrame:
    """Return the images of a run at about `_SIDE` pixels per side, values in [0, 1], one row per pair."""
    rows = {uid: k for k, uid in enumerate(folder.read("pairs")["uid"])}
    pixels = open_cache(folder.path / CACHE)[[rows[uid] for uid in run.splits["uid"]]].astype(np.float64) / 255
    step = max(1, pixels.shape[1] // _SIDE)
    whole = pixels[:, : step * _SIDE, : step * _SIDE]
    small = whole.reshape(len(whole), -1, step, whole.shape[2] // step, step, 3).mean(axis=(2, 4))
    return pl.DataFrame({"uid": run.splits["uid"], "pixels": small.reshape(len(small), -1).tolist()})


def unique(base: Recipe, specs: Iterable[tuple[str, RunSpec]]) -> dict[str, RunSpec]:
    """Return the unique runs in order, each after its parent, and localized if any duplicate is."""
    found: dict[str, tuple[str, RunSpec]] = {}
    for name, run in specs:
        for one_name, one in ([(f"parent of {name}", run.parent)] if run.parent else []) + [(name, run)]:
            key = one.key(base)
            if key not in found or (one.localize and not found[key][1].localize):
                found[key] = (found[key][0] if key in found else one_name, one)
    names: dict[str, RunSpec] = {}
    for name, run in found.values():
        if name in names:
            raise InputError(f"run {name!r}", got="two runs", hint="This is a bug in clipmem; please report it.")
        names[name] = run
    return names
