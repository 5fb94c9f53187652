"""The one reader of a run folder: its recipe, manifest, summary, tables and documents, each read on first use and kept.

Nothing is computed here but means that several readers need. Free of torch: `study.plan` adds models and embeddings.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipmem.base import manifest
from clipmem.base.declared import declared
from clipmem.base.errors import InputError, require, require_one_of, shorten
from clipmem.base.folder import RunFolder
from clipmem.base.hashing import is_image_of
from clipmem.base.paths import reading
from clipmem.base.recipes import Recipe
from clipmem.base.summary import AUDIT_FILE, AUDIT_FORMAT, FILE, FORMAT, Audit, Kind, Summary, read_entry
from clipmem.data.skipped import left_out_sentence
from clipmem.data.sources import open_source
from clipmem.data.sources.base import Source
from clipmem.report import explorer
from clipmem.report.templating import Words, measure_of, names, words_of

ROLES = ("candidate", "independent", "shared", "external")
STAGES = ("decode", "plan", "train", "embed", "score", "evaluate", "report")
UTILITIES = names("utilities")  # those that reports and findings name
# verdicts rest on the first of these that all runs have
PRIMARY = ("retrieval_wordings_recall@5", "retrieval_recall@5", "linear_probe_acc1")
LOWER_IS_BETTER = ("median_rank", "_loss")
_UTILITY = {"evaluate/utility.json": "", "evaluate/retained.json": "retained_"}  # with the prefix of metrics
_AGAIN = "Run the study again in this folder: finished stages are not repeated."
Document = Mapping[str, Any]  # JSON


class TrainingLog(NamedTuple):
    """The log of one model, one entry per step; `side` is the name of its folder under `models`."""

    side: str
    seed: int
    step: NDArray[np.float64]
    epoch: NDArray[np.float64]
    loss: NDArray[np.float64]


class Run:
    """A run folder.

    Args:
        path: The run folder.
        recipe: Its recipe with other settings of a later stage; by default that of the folder.
        source: Its data source; by default opened when images are read.
        gallery: Encoded images of the pairs that its page shows, by uid (`report.gallery.gallery_uids`).
        credits: Credits of its data source.
    """

    def __init__(
        self,
        path: Path | str,
        recipe: Recipe | None = None,
        *,
        source: Source | None = None,
        gallery: Mapping[str, bytes] | None = None,
        credits: Sequence[str] = (),  # noqa: A002  of a page
    ) -> None:
        self.folder = RunFolder(path)
        self.path = self.folder.path
        self.gallery: Mapping[str, bytes] = gallery or {}
        self.credits = credits
        self._recipe, self._source = recipe, source
        self.tables: dict[str, pl.DataFrame] = {}  # those read so far
        self._documents: dict[str, Document] = {}

    def view(self) -> "explorer.widget.NotebookView":
        """Look at its pairs in a notebook, and mark them (see `clipmem.view`)."""
        return explorer.widget.view(self)

    # ---- documents

    @cached_property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe it was made with."""
        return self._recipe or self.folder.recipe()

    @cached_property
    def recipe_text(self) -> str:
        """The text of `recipe.toml`."""
        return self.folder.recipe_text()

    @cached_property
    def manifest(self) -> Document:
        """Versions, machine, hashes."""
        return manifest.read(self.folder)

    @cached_property
    def summary(self) -> Summary:
        """`summary.json`: what the scores show.

        Raises:
            InputError: The run is not finished, or another version of clipmem made it.
        """
        return self._typed(Summary, FILE, FORMAT)

    def document(self, name: str) -> Document:
        """Return a JSON file of the folder; {} if there is none."""
        if name not in self._documents:
            self._documents[name] = self.folder.read_json(name) if (self.path / name).is_file() else {}
        return self._documents[name]

    @cached_property
    def audit(self) -> Audit | None:
        """`audit/audit.json`; None without an audit."""
        return self._typed(Audit, AUDIT_FILE, AUDIT_FORMAT) if (self.path / AUDIT_FILE).is_file() else None

    def _typed(self, kind: type[Kind], name: str, newest: int) -> Kind:
        document, subject = self.folder.read_json(name), f"{self.path / name}"
        manifest.check_format(document, subject, newest, made_by=self.manifest.get("clipmem"))
        return read_entry(kind, document, subject)

    @property
    def words(self) -> Words:
        """The words of its protocol."""
        return words_of(self.summary.protocol, self.summary.words)

    @property
    def measure(self) -> Words:
        """The words of its alignment."""
        return measure_of(self.summary.alignment, self.summary.measure)

    @property
    def roles(self) -> list[str]:
        """The roles in the summary, in display order."""
        return [role for role in ROLES if role in self.summary.roles]

    @property
    def left_out(self) -> str:
        """The number of unusable records and why, as a sentence; "" if there is none."""
        return left_out_sentence(self.summary.records) if self.summary.records else ""

    # ---- tables

    def table(self, name: str) -> pl.DataFrame:
        """Return a table by its name, such as `scores` or `localize/units` (see `clipmem.base.tables`)."""
        if name not in self.tables:
            self.tables[name] = self.folder.read(name)
        return self.tables[name]

    def has(self, name: str) -> bool:
        """Return whether there is a table of that name."""
        return name in self.tables or self.folder.table_path(name).is_file()

    @property
    def pairs(self) -> pl.DataFrame:
        """All pairs of the data: uid, captions, labels, group, credit."""
        return self.table("pairs")

    @property
    def splits(self) -> pl.DataFrame:
        """Role, group and swapped captions of each used pair."""
        return self.table("splits")

    @property
    def scores(self) -> pl.DataFrame:
        """One row per pair: clipmem with its interval, and the alignment parts of f and g."""
        return self.table("scores")

    @property
    def seed_scores(self) -> pl.DataFrame:
        """One row per pair and seed: alignment under f and g."""
        return self.table("seed_scores")

    def uids(self, role: str) -> set[str]:
        """Return the pairs of a role."""
        return set(self.splits.filter(pl.col("role") == role)["uid"])

    @cached_property
    def planted(self) -> set[str]:
        """The pairs that trained with another pair's captions."""
        return set(self.splits.filter("planted")["uid"])

    @cached_property
    def own_captions(self) -> dict[str, list[str]]:
        """Every pair's own captions, by uid."""
        return {uid: captions or [] for uid, captions in self.pairs.select("uid", "captions").iter_rows()}

    def trained_captions(self, uid: str) -> list[str]:
        """Return the captions that a pair was trained with: another pair's if planted."""
        source = self._sources.get(uid, uid)
        hint = "Run the study again in a new folder: the tables of this one do not match."
        expected = "the uid of a pair in pairs.parquet"
        require(source in self.own_captions, "splits.parquet column captions_from", shorten(source), expected, hint)
        return self.own_captions[source]

    @cached_property
    def _sources(self) -> dict[str, str]:
        return dict(self.splits.select("uid", "captions_from").iter_rows())

    @cached_property
    def source(self) -> Source:
        """Its data source; nothing is downloaded for a folder that somebody else may have written."""
        return self._source or open_source(self.recipe.data.offline())

    def images(self, uids: list[str]) -> dict[str, bytes]:
        """Return the encoded images of pairs; refuse one without the hash in its uid: a folder could name any file."""
        got, several = shorten(uids) if len(uids) else "none", not isinstance(uids, str) and len(uids)
        require(several, "uids", got, "a list of one or more uids", "Use uids from run.scores.")
        reference = dict(zip(self.pairs["uid"], self.pairs["image"], strict=True))
        unknown = [uid for uid in uids if uid not in reference]
        subject, hint = f"uid {', '.join(map(shorten, unknown[:1]))}", "Use uids from run.scores."
        require(not unknown, subject, "no such pair in this run", "a uid of run.pairs", hint)
        images = dict(zip(uids, self.source.read([reference[uid] for uid in uids]), strict=True))
        for uid, image in images.items():
            subject, hint = f"image of pair {shorten(uid)}", "Use the data of the study, unchanged."
            got, expected = "another image than was scored", "the image with the uid's hash"
            require(is_image_of(uid, image), subject, got, expected, hint)
        return images

    # ---- training

    @cached_property
    def _model_folders(self) -> list[tuple[str, int, Path]]:
        """Side, seed and folder of each model in `models`, in order."""
        folders = [(folder, re.fullmatch(r"seed-(\d+)", folder.name)) for folder in self.path.glob("models/*/seed-*")]
        return sorted((folder.parent.name, int(seed[1]), folder) for folder, seed in folders if seed)

    @cached_property
    def logs(self) -> tuple[TrainingLog, ...]:
        """Every `models/SIDE/seed-K/log.jsonl`, by side and seed."""
        logs: list[TrainingLog] = []
        for side, seed, file in ((side, seed, folder / "log.jsonl") for side, seed, folder in self._model_folders):
            if file.is_file():
                with reading(f"{file}", expected="a file written by clipmem", hint=_AGAIN):
                    lines = file.read_text(encoding="utf-8").splitlines()
                steps = [_numbers(line, f"{file} line {number}") for number, line in enumerate(lines, start=1)]
                logs.append(TrainingLog(side, seed, *np.array(steps, dtype=np.float64).reshape(-1, 3).T))
        return tuple(log for log in logs if log.step.size)

    @cached_property
    def records(self) -> dict[tuple[str, int], Document]:
        """`record.json` of each model, by side and seed: what it was trained on."""
        return {(side, seed): self.folder.record(side, seed) for side, seed in self._trainings}

    @cached_property
    def markers(self) -> dict[tuple[str, int], Document]:
        """Time and memory of each training, by side and seed."""
        read = self.folder.read_json
        return {(side, seed): read(f"stages/train-{side}-seed-{seed}.json") for side, seed in self._trainings}

    @property
    def _trainings(self) -> list[tuple[str, int]]:
        sides = dict.fromkeys(side for side, *_ in self._model_folders)
        return [(side, seed) for side in sides or ("f", "g") for seed in self.recipe.train.seeds]

    @property
    def seeds(self) -> list[int]:
        """The seeds, sorted."""
        return sorted(self.recipe.train.seeds)

    @property
    def costs(self) -> dict[str, list[float]]:
        """What each model cost to train, sides and seeds sorted; without what was not recorded for all of them."""
        models = sorted(self.markers)
        rates: list[float] = [self.markers[key].get("pairs_per_second") or 0.0 for key in models]
        pairs: list[int] = [self.records[key]["samples_seen"] for key in models]
        costs = {
            # the whole training at its rate, which is right for resumed trainings too
            "training seconds a model": [n / rate if rate else 0.0 for n, rate in zip(pairs, rates, strict=True)],
            "pairs/s a model": rates,
            "peak memory, MiB": [(self.markers[key].get("peak_memory_bytes") or 0.0) / 2**20 for key in models],
        }
        return {name: values for name, values in costs.items() if all(values)}

    @property
    def was_trained(self) -> bool:
        """Whether its models were trained in it, and not made from those of another run."""
        return not any("made_from" in marker for marker in self.markers.values())

    @property
    def samples_seen(self) -> int:
        """Number of samples seen by a model over the whole training."""
        return int(next(iter(self.records.values()))["samples_seen"])

    @property
    def trained_pairs(self) -> int:
        """Number of pairs that a model trains on."""
        return int(next(iter(self.records.values()))["pairs"])

    @property
    def passes(self) -> float:
        """Average number of times a model saw each pair."""
        return self.samples_seen / self.trained_pairs

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds of each finished stage, in order; of a resumed stage only those of its last part."""
        seconds = self.folder.seconds()
        return {stage: seconds[stage] for stage in STAGES if stage in seconds}

    @property
    def seconds(self) -> float:
        """Seconds of all stages before the report."""
        return sum(seconds for stage, seconds in self.stage_seconds.items() if stage != "report")

    # ---- measures by seed

    @property
    def is_scored(self) -> bool:
        """Whether its protocol scores pairs."""
        return bool(declared("protocols", self.recipe.protocol).scored)

    @property
    def normalizer(self) -> float:
        """What clipmem is divided by for clipmem_norm: the range of the candidates; NaN without scores."""
        return self.summary.normalizer if self.is_scored else math.nan

    def memorization(self, uids: set[str], *, wordings: bool = False) -> list[float]:
        """Return the mean of A(f) - A(g) over these pairs for each of `seeds`; [] without pairs or scores.

        With `wordings`, A is taken over all captions; [] if it was not, for any of these pairs.
        """
        if not self.is_scored:
            return []
        f, g = ("f_wordings", "g_wordings") if wordings else ("f", "g")
        rows = self.seed_scores.filter(pl.col("uid").is_in(list(uids))).sort("seed", "uid")
        if rows.is_empty() or rows[f].null_count() or rows[g].null_count():
            return []
        means = dict(rows.group_by("seed").agg((pl.col(f) - pl.col(g)).mean().alias("mean")).iter_rows())
        return [float(means[seed]) for seed in self.seeds]

    def halved(self, candidates: set[str], independent: set[str], measure: str = "clipmem") -> list[float]:
        """Return the mean CLIPMem by seed as the half-difference: (mean over C - mean over I) / 2.

        The two roles are exchangeable, so it estimates the mean over C, and what makes f better or worse than g
        cancels out (`functional.half_difference`). Without independent pairs it is the mean over C.

        Args:
            candidates: Pairs C that f alone trained on.
            independent: Pairs I that g alone trained on.
            measure: `clipmem`; `clipmem_wordings`, over all captions ([] if not measured); or `clipmem_norm`, which is
                clipmem divided by `normalizer`.
        """
        wordings, scale = measure == "clipmem_wordings", self.normalizer if measure == "clipmem_norm" else 1.0
        over_candidates = self.memorization(candidates, wordings=wordings)
        if not independent:
            return [value / scale for value in over_candidates]
        mirror = self.memorization(independent, wordings=wordings)
        if not (over_candidates and mirror):
            return []
        return [(a - b) / 2 / scale for a, b in zip(over_candidates, mirror, strict=True)]

    def differences(self, seed: int) -> dict[str, float]:
        """Return A(f) - A(g) of every pair under a seed, by uid."""
        rows = self.seed_scores.filter(pl.col("seed") == seed)
        return dict(rows.select("uid", pl.col("f") - pl.col("g")).iter_rows())

    @cached_property
    def utility(self) -> dict[str, list[float]]:
        """Metrics of f by seed; those of other data are called `retained_NAME`."""
        return self._by_seed("metrics")

    @cached_property
    def validation(self) -> dict[str, list[float]]:
        """Metrics of f by seed on other held-out pairs, for choosing settings."""
        return self._by_seed("validation")

    @cached_property
    def chance(self) -> dict[str, float]:
        """What a random order or guess reaches in each metric."""
        chances = {prefix: self.document(file).get("chance", {}) for file, prefix in _UTILITY.items()}
        return {f"{prefix}{name}": value for prefix, metrics in chances.items() for name, value in metrics.items()}

    def _by_seed(self, key: str) -> dict[str, list[float]]:
        """Return f's metrics by prefixed name; none of a document in which a seed was not measured."""
        values: dict[str, list[float]] = {}
        for file, prefix in _UTILITY.items():
            document = self.document(file)
            measured = document.get("seeds", {}).get("f", [])
            if not set(self.seeds) <= set(measured):  # at most eight seeds are measured
                continue
            columns = [measured.index(seed) for seed in self.seeds]
            for name, entry in document.get(key, {}).get("f", {}).items():
                if entry.get("by_seed") is not None:
                    values[f"{prefix}{name}"] = [float(entry["by_seed"][column]) for column in columns]
        return values


def _numbers(line: str, subject: str) -> list[float]:
    try:
        entry = json.loads(line)
        return [float(entry[key]) for key in ("step", "epoch", "loss")]
    except (ValueError, KeyError, TypeError) as error:
        expected = "a JSON object with the numbers step, epoch and loss"
        raise InputError(subject, got=shorten(line, 40), expected=expected, hint=_AGAIN) from error


def read_run(path: Path, gallery: Mapping[str, bytes] | None = None, credit_lines: Sequence[str] = ()) -> Run:
    """Open a run for its report: its summary has candidates."""
    run = Run(path, gallery=gallery, credits=credit_lines)
    subject, got = f"{path / FILE}", f"roles {sorted(run.summary.roles)}"
    hint = "Score a study whose split has candidates."
    require("candidate" in run.summary.roles, subject, got, "the role 'candidate' among them", hint)
    return run


def is_finished(folder: RunFolder, protocol: str) -> bool:
    """Return whether the last stage of a run whose models are paired by seed is done."""
    return folder.is_done("report" if declared("protocols", protocol).scored else "evaluate")


def read_finished(path: Path) -> Run:
    """Open a run for a comparison: finished, with models paired by seed."""
    run, subject = Run(path), f"run folder {path}"
    hint = "Compare runs of the protocol four-way, which trains one f and one g for each seed, or audited runs."
    protocol = run.recipe.protocol
    paired = declared("protocols", protocol).paired
    require(paired, subject, f"protocol {protocol!r}", "one whose models are paired by seed", hint)
    resume = f"Run `clipmem run RECIPE.toml --out {path}` again: it resumes where it stopped."
    finished = is_finished(run.folder, protocol)
    require(finished, subject, "a run that is not finished", "a run whose stages are done", resume)
    return run


Runs = Sequence[Run]


def common_utilities(runs: Runs) -> list[str]:
    """Return the metrics that all runs have."""
    return [name for name in runs[0].utility if all(name in run.utility for run in runs)]


def primary_utility(runs: Runs, name: str = "") -> str:
    """Return the metric that verdicts rest on: `name`, or the first of `PRIMARY` that all runs have.

    Without any of those it is the first metric that all runs have and that is better when higher; "" without one.
    """
    metrics = [metric for metric in common_utilities(runs) if not metric.endswith(LOWER_IS_BETTER)]
    if name:
        require_one_of("--utility", name, metrics)
    return name or next((metric for metric in (*PRIMARY, *metrics) if metric in metrics), "")
