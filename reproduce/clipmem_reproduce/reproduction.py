"""`clipmem reproduce`: train the runs of the published experiments, test the findings, write `findings.json`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import clipmem
from clipmem import Recipe
from clipmem.base.errors import require, require_one_of
from clipmem.base.folder import Job, RunFolder, refuse_other
from clipmem.base.machine import check_device, cores
from clipmem.base.manifest import recipe_hash
from clipmem.base.paths import is_free, write_json
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Overrides
from clipmem.data.sources import open_source
from clipmem.report.formats import duration
from clipmem.report.page import write_page
from clipmem.report.run import is_finished
from clipmem.scoring.protocols import protocol_of
from clipmem.study import pool
from clipmem.study.api import find_recipe
from clipmem.study.localizing import localize_run
from clipmem_reproduce.effects import Results
from clipmem_reproduce.finding import Context, judge
from clipmem_reproduce.findings import FINDINGS
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.page import KIND
from clipmem_reproduce.plan import deviations, plan_changes, plan_hash
from clipmem_reproduce.scales import REGIMES, SCALES, Scale
from clipmem_reproduce.spec import RunSpec

DOCUMENT, PAGE, RUNS, INDEX = "findings.json", "index.html", "runs", "runs.json"
_PROBE = RunSpec({"train.epochs": 2, "train.seeds": [0]})
_ROW = ("measure", "estimate", "low", "high", "holds", "primary", "confidence", "seeds")


def find_scale(scale: str, regime: str) -> Scale:
    """Return a scale of a regime."""
    require_one_of("--regime", regime, REGIMES, "Start with redundant.")
    names = [name for of, name in SCALES if of == regime]
    require_one_of(f"--scale, with --regime {regime}", scale, names, f"Use --scale {names[0]}.")
    return SCALES[regime, scale]


def base_recipe(scale: str, regime: str, seeds: int | None = None, settings: Overrides = ()) -> Recipe:
    """Return the base recipe of a scale, with the user's seeds and settings."""
    settings_of = find_scale(scale, regime)
    return settings_of.base(find_recipe(settings_of.recipe), seeds, settings)


def findings_of(scale: Scale) -> list[str]:
    """Return the names of the findings that a scale tests, in order."""
    return [name for name in FINDINGS if name not in scale.without]


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
        scale: `tiny`, `laptop`, `planned` or `repeated`; `published` for COCO.
        regime: `unique`, `redundant`; with data.path set `long-tail`, `photographs`, `titles`, `alt-texts` or `coco`.
        seeds: Seeds per run; None = the scale's.
        settings: Changes to the base study: `["train.epochs=20"]` or `{"train.epochs": 20}`.
        device: `auto`, `cpu` or `cuda`.
        engine: Execution engine (see `clipmem.run`).
        reporter: Progress reporter of each run's stages.
        log: Called with the estimate, and with the name of each run.
    """
    size = find_scale(scale, regime)
    names = findings_of(size)
    for name in findings:
        require_one_of(f"--finding, with --regime {regime}", name, names)
    base = base_recipe(scale, regime, seeds, settings)
    context = Context(size, base)
    tested = {name: FINDINGS[name]() for name in names if name in findings or not findings}
    needed = {
        name: unique(
            base,
            [
                (f"{name}: {run}{replicate.of_seed}", replicate)
                for run, spec in finding.runs(context).items()
                for replicate in context.replicates(spec)
            ],
        )
        for name, finding in tested.items()
    }
    runs = unique(base, [item for of_finding in needed.values() for item in of_finding.items()])
    check_device(device)
    open_source(base.data)
    _claim(out, {"regime": regime, "scale": scale, "recipe_sha256": recipe_hash(base)})
    maker = Maker(out, base, device=device, engine=engine, reporter=reporter)
    maker.write_index(runs)
    # one finding is judged as strictly as all of them, so that its row is that of the whole table
    results = Results(maker.open, base.score.confidence, len(names), context.replicates)
    rows, documents = list[dict[str, Any]](), list[dict[str, Any]]()
    document = {
        "format": 3,
        "clipmem": clipmem.__version__,
        "regime": regime,
        "scale": scale,
        "utility": size.utility,
        "recipe_sha256": recipe_hash(base),
        "confidence": base.score.confidence,
        "primaries": len(names),
        "crossed": size.crossed,
        "deviations": deviations(size, seeds, settings)
        + (plan_changes(out, list(tested), regime, scale) if size.crossed else []),
        "seeds": list(base.train.seeds),
        "runs": {name: spec.key(base) for name, spec in runs.items()},
        "rows": rows,
        "findings": documents,
    }
    with pool.reused():
        log(maker.estimate(list(runs.values())))
        for name, finding in tested.items():
            maker.make_all(needed[name], log)
            seconds = round(sum(maker.seconds(spec) for spec in needed[name].values()), 1)
            documents.append(
                {
                    **judge(finding, context, results),
                    "plan_sha256": plan_hash(name, regime, scale) if size.crossed else "",
                    "seconds": seconds,
                }
            )
            rows += [
                {"finding": name, **{key: row[key] for key in _ROW}, "seconds": seconds}
                for row in documents[-1]["effects"]
            ]
            write_json(out / DOCUMENT, document)
            write_page(out / PAGE, KIND, document)
    return document


def _claim(out: Path, settings: dict[str, str]) -> None:
    job, hint = Job(out), "Choose another --out DIR."
    if (out / "reproduce.json").is_file():
        refuse_other(f"folder {out}", job.read_json("reproduce.json"), settings, hint)
        return
    require(is_free(out), f"--out {out}", "a folder with other files", "a new folder, or an earlier reproduction", hint)
    job.write_json("reproduce.json", settings)


class Maker:
    """Trains and reads the runs of a reproduction."""

    def __init__(
        self, out: Path, base: Recipe, *, device: str = "auto", engine: str = "local", reporter: Reporter | None = None
    ) -> None:
        self._out, self._base = out, base
        self._device, self._engine, self._reporter = device, engine, reporter or Quiet()
        self._opened: dict[str, Measured] = {}

    def folder(self, spec: RunSpec) -> Path:
        """Return the folder of a run."""
        return self._out / RUNS / spec.key(self._base)

    def is_made(self, spec: RunSpec) -> bool:
        """Return whether a run is finished, and localized if required."""
        localized = not spec.localize or RunFolder(self.folder(spec)).is_done("localize")
        return localized and self._is_trained(spec)

    def _is_trained(self, spec: RunSpec) -> bool:
        return is_finished(RunFolder(self.folder(spec)), spec.recipe(self._base).protocol)

    def make_all(self, runs: Mapping[str, RunSpec], log: Callable[[str], object]) -> None:
        """Run or resume all missing runs."""
        for number, (name, spec) in enumerate(runs.items(), start=1):
            done = self.is_made(spec)
            log(f"run {number} of {len(runs)}: {name}{': already done' if done else ''}")
            if done:
                continue
            if not self._is_trained(spec):
                self._run(spec, self.folder(spec), self._reporter)
            if spec.localize:
                localize_run(self.folder(spec), reporter=self._reporter)

    def _run(self, spec: RunSpec, folder: Path, reporter: Reporter) -> None:
        clipmem.run(
            spec.recipe(self._base, self.folder),
            folder,
            device=self._device,
            engine=self._engine,
            reporter=reporter,
            command="clipmem reproduce",
            allow_long=True,  # `reproduce` has shown its own estimate
        )

    def open(self, spec: RunSpec) -> Measured:
        """Read a finished run (cached)."""
        key = spec.key(self._base)
        if key not in self._opened:
            self._opened[key] = Measured(self.folder(spec))
        return self._opened[key]

    def seconds(self, spec: RunSpec) -> float:
        """Return the total seconds of a finished run."""
        seconds = RunFolder(self.folder(spec)).seconds()
        return sum(spent for stage, spent in seconds.items() if "-seed-" not in stage)

    def write_index(self, runs: Mapping[str, RunSpec]) -> None:
        """Write the names and settings of the run folders, beside those of earlier calls."""
        index = Job(self._out).read_json(INDEX) if (self._out / INDEX).is_file() else {}
        for name, spec in runs.items():
            index[spec.key(self._base)] = {"name": name, "settings": spec.recorded}
        write_json(self._out / INDEX, index)

    def estimate(self, runs: Sequence[RunSpec]) -> str:
        """Tell the time of the missing runs, estimated from one short run, which is trained if necessary."""
        missing = [spec for spec in runs if not self.is_made(spec)]
        if not missing:
            return f"all {len(runs)} runs are finished"
        folder = RunFolder(self._out / "probe")
        if not folder.is_done("report"):
            self._run(_PROBE, folder.path, Quiet())
        markers = [folder.read_json(f"stages/train-{side}-seed-0.json") for side in "fg"]
        rate, spent = min(float(marker["pairs_per_second"]) for marker in markers), folder.seconds()
        # startup, embedding and evaluation are proportional to the number of models
        startup = max(0.0, spent["train"] - self._samples_seen(_PROBE) / rate)
        per_model = (startup + (spent["embed"] + spent["evaluate"]) / 2) / 2
        counts = [protocol_of(spec.recipe(self._base)).count for spec in missing]
        overhead = sum(spent[stage] for stage in ("decode", "plan", "score", "report"))
        overhead += per_model * sum(counts) / len(missing)
        samples_seen = sum(self._samples_seen(spec) * spec.cost * n for spec, n in zip(missing, counts, strict=True))
        return (
            f"{len(missing)} of {len(runs)} runs to train, {sum(counts)} models: "
            f"about {duration(overhead * len(missing) + samples_seen / rate / cores())}, estimated from a short run "
            f"({rate:,.0f} pairs/s per model, {overhead:.0f} s overhead per run)"
        )

    def _samples_seen(self, spec: RunSpec) -> int:
        recipe = spec.recipe(self._base)
        return recipe.train.epochs * (recipe.split.shared + recipe.split.candidate)


def unique(base: Recipe, specs: Iterable[tuple[str, RunSpec]]) -> dict[str, RunSpec]:
    """Return the unique runs in order, each after its parent, and localized if any duplicate is."""
    by_key: dict[str, tuple[str, RunSpec]] = {}
    for name, spec in specs:
        parents = [(f"parent of {name}", spec.parent)] if spec.parent else []
        for title, run in [*parents, (name, spec)]:
            first, before = by_key.setdefault(run.key(base), (title, run))
            if run.localize and not before.localize:
                by_key[run.key(base)] = (first, run)
    runs: dict[str, RunSpec] = {}
    for name, spec in by_key.values():
        if name in runs:
            raise clipmem.InputError(
                f"run {name!r}", got="two runs", hint="This is a bug in clipmem; please report it."
            )
        runs[name] = spec
    return runs
