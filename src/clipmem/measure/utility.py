"""Utility of a set of models on one set of test pairs: classification, linear probes, retrieval, geometry.

When not to trust it: results depend on the test pairs. With 200 of them, an accuracy has an interval of about ±7
points. Pairs of another domain than the training pairs measure the shift between domains. See docs/metrics.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from clipmem.base.errors import require, require_one_of
from clipmem.base.random import derive_seed
from clipmem.base.sections import EvaluateSection
from clipmem.measure import hypersphere, retrieval
from clipmem.measure.base import MEASURES
from clipmem.measure.linear_probe import Probe, linear_probe
from clipmem.measure.over_seeds import Metrics, Statistics, classification_entries
from clipmem.measure.retrieval import Identity, RetrievalMetrics
from clipmem.measure.zero_shot import Prompts, chance, class_embeddings, zero_shot_ranks
from clipmem.models.passes import Embeddings, chosen
from clipmem.models.protocol import Rows

FORMAT = 1
_SHIPPED = (hypersphere,)  # importing it registers it
FEATURES = "unit length, then mean 0 and standard deviation 1 of each coordinate over the fitted pairs"
# prefix of the metrics → the classes
ZERO_SHOT = {"zero_shot": "label", "zero_shot_concept": "concept"}
PROBES = {"linear_probe": "label", "linear_probe_sublabel": "sublabel"}


class Classes(NamedTuple):
    """Classes of pairs: their names, the class number of each pair (-1 for none), and prompts for zero-shot."""

    names: list[str]
    labels: Int[np.ndarray, " n"]
    prompts: Prompts | None = None


class Task(NamedTuple):
    """A classification: its classes, the pairs it is tested on, and the pairs to train a probe on; None by prompts."""

    classes: Classes
    test: Bool[np.ndarray, " n"]
    train: Bool[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class TestPairs:
    """Test pairs of models and training pairs of probes, in the order of the embeddings.

    `classes` are those of the labels (`label`), the finer labels (`sublabel`, absent if the data have none) and the
    concepts (`concept`); `same` is the identity of the test pairs' images and captions, `wordings` that with all their
    captions, if they have more. `why` has the tasks that are not measured, with the reason.
    """

    __test__ = False  # not a test for pytest

    groups: Int[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]
    train: Bool[np.ndarray, " n"]
    classes: Mapping[str, Classes]
    same: Identity
    why: dict[str, str]
    wordings: Identity | None = None

    @property
    def tasks(self) -> dict[str, Task]:
        """The classifications that are measured: those by prompts, then the probes."""
        tasks: dict[str, Task] = {}
        for name, kind in {**ZERO_SHOT, **PROBES}.items():
            if kind in self.classes and name not in self.why:
                classes = self.classes[kind]
                tested, trained = (pairs & (classes.labels >= 0) for pairs in (self.test, self.train))
                if name in PROBES or classes.prompts:
                    tasks[name] = Task(classes, tested & ~trained, trained) if name in PROBES else Task(classes, tested)
        return tasks

    @property
    def texts(self) -> list[str]:
        """The prompts that each model embeds."""
        asked = [task.classes.prompts for task in self.tasks.values() if task.train is None]
        return [text for prompts in asked if prompts for text in prompts.texts]


@dataclass
class Measured:
    """Measurements of one model: ranks of the true class by task, and probes; no embeddings of training pairs."""

    seed: int
    samples_seen: int | None
    test: Embeddings
    images: str = ""  # hash of all image embeddings: models with the same frozen image tower share their probes
    ranks: dict[str, Float[np.ndarray, " n"]] = field(default_factory=dict[str, np.ndarray])
    probes: dict[str, Probe] = field(default_factory=dict[str, Probe])


@dataclass
class Utility:
    """Measures models one by one, then summarizes them; `against` is the side that the others' changes are from."""

    pairs: TestPairs
    settings: EvaluateSection
    statistics: Statistics
    against: str = ""
    models: dict[str, list[Measured]] = field(default_factory=dict[str, list[Measured]])

    def add(
        self, side: str, seed: int, embeddings: Embeddings, prompts: Rows | None, *, samples_seen: int | None = None
    ) -> None:
        """Measure one model; `prompts` are the embeddings of `pairs.texts`, None if there is none."""
        pairs, count = self.pairs, 0 if prompts is None else len(prompts)
        expected = f"those of the {len(pairs.texts)} prompts"
        require(count == len(pairs.texts), "prompts", f"{count} embeddings", expected, "Embed `pairs.texts`.")
        image, start = embeddings.image[:, 0].contiguous(), 0
        digest = sha256(image.numpy().data).hexdigest() if PROBES.keys() & pairs.tasks.keys() else ""
        model = Measured(seed, samples_seen, only(embeddings, pairs.test), digest)
        same = (other.probes for models in self.models.values() for other in models if other.images == model.images)
        probes = next(same, {})
        for name, task in pairs.tasks.items():
            labels, test, asked = task.classes.labels, image[torch.from_numpy(task.test)], task.classes.prompts
            if task.train is None and asked and prompts is not None:
                of_class = torch.tensor(asked.prompt_class)
                classes = class_embeddings(prompts[start : start + len(of_class)], of_class, len(task.classes.names))
                model.ranks[name] = zero_shot_ranks(test, classes, labels[task.test])
                start += len(of_class)
            elif task.train is not None:
                model.probes[name] = probes.get(name) or linear_probe(
                    (image[torch.from_numpy(task.train)].numpy(), labels[task.train]),
                    pairs.groups[task.train],
                    (test.numpy(), labels[task.test]),
                    grid=self.settings.probe_c,
                    share=self.settings.probe_validation,
                    seed=derive_seed(self.statistics.seed, "probe"),
                )
                model.ranks[name] = model.probes[name].ranks
        self.models.setdefault(side, []).append(model)

    @property
    def _tested(self) -> dict[str, list[Embeddings]]:
        return {side: [model.test for model in models] for side, models in self.models.items()}

    def retrieval(self) -> RetrievalMetrics:
        """Summarize retrieval among the test pairs (see `retrieval.measure` and `measure_wordings`)."""
        pairs, groups = self.pairs, self.pairs.groups[self.pairs.test]
        statistics = self.statistics._replace(seed=derive_seed(self.statistics.seed, "retrieval"))
        summary = retrieval.measure(self._tested, pairs.same, groups, statistics, against=self.against)
        if self.settings.wordings > 1:
            same, how = pairs.wordings or pairs.same, (self.settings.wordings, statistics.confidence)
            by_chance, over = retrieval.measure_wordings(self._tested, same, groups, *how, against=self.against)
            summary.chance.update(by_chance)
            for side, metrics in over.items():
                summary.metrics[side].update(metrics)
        return summary

    def document(self, retrieval: RetrievalMetrics | None) -> dict[str, object]:
        """Return the content of `evaluate/utility.json`, with what `retrieval` returned; None if skipped."""
        pairs, confidence, tasks = self.pairs, self.statistics.confidence, self.pairs.tasks
        metrics: Metrics = {side: {} for side in self.models}
        by_chance, words = dict[str, float](), dict[str, str]()
        for name, task in tasks.items():
            count, labels, groups = len(task.classes.names), task.classes.labels[task.test], pairs.groups[task.test]
            by_chance |= {f"{name}_{metric}": value for metric, value in chance(count).items()}
            ranks = {side: np.stack([model.ranks[name] for model in models]) for side, models in self.models.items()}
            for side, values in ranks.items():
                base = None if self.against in ("", side) else ranks[self.against]
                entries = classification_entries(values, labels, groups, count, confidence, base)
                metrics[side] |= {f"{name}_{metric}": entry for metric, entry in entries.items()}
        if retrieval:
            groups = pairs.groups[pairs.test]
            metrics = {side: {**entries, **retrieval.metrics[side]} for side, entries in metrics.items()}
            for measure in map(MEASURES.__getitem__, MEASURES):
                measured = measure().measure(self._tested, pairs.same, groups, confidence, against=self.against)
                metrics = {side: {**entries, **measured[side]} for side, entries in metrics.items()}
                words |= measure.words
            by_chance |= retrieval.chance
        none = Classes([], np.full(len(pairs.test), -1))
        label, concept, finer = (pairs.classes.get(kind, none) for kind in ("label", "concept", "sublabel"))
        tested, trained = pairs.test & (label.labels >= 0), pairs.train & (label.labels >= 0)
        prompts = label.prompts or concept.prompts
        return {
            "format": FORMAT,
            "confidence": confidence,
            "draws": self.statistics.draws,
            "seeds": {side: [model.seed for model in models] for side, models in self.models.items()},
            "samples_seen": {side: [model.samples_seen for model in models] for side, models in self.models.items()},
            "n": {
                "test": int(pairs.test.sum()),
                "labeled": int(tested.sum()),
                "captions": retrieval.captions if retrieval else None,
                "probe_train": int(trained.sum()),
                "probe_test": int((tested & ~trained).sum()),
                "classes": len(label.names),
                "classes_in_test": len(np.unique(label.labels[tested])),
                "concepts": len(concept.names),
                "with_concept": int((pairs.test & (concept.labels >= 0)).sum()),
                "sublabels": len(finer.names),
            },
            "metrics": metrics,
            "chance": by_chance,
            "skipped": pairs.why,
            "classes": label.names,
            "templates": prompts.templates if prompts else [],
            "prompts": len(pairs.texts),
            "probe": self._probe("linear_probe"),
            "probe_sublabel": self._probe("linear_probe_sublabel"),
            **({"words": words} if words else {}),
        }

    def _probe(self, name: str) -> dict[str, object] | None:
        """Describe the fits of a probe; None if it is not measured."""
        task = self.pairs.tasks.get(name)
        if task is None or task.train is None:
            return None
        train, test = task.classes.labels[task.train], task.classes.labels[task.test]
        probes = {side: [model.probes[name] for model in models] for side, models in self.models.items()}
        return {
            "features": FEATURES,
            "grid": [*self.settings.probe_c],
            "validation": self.settings.probe_validation,
            "c": {side: [probe.c for probe in fits] for side, fits in probes.items()},
            "converged": all(probe.converged for fits in probes.values() for probe in fits),
            "test_of_unseen_classes": int((~np.isin(test, train)).sum()),
            "commonest_class_acc1": float((test == np.bincount(train).argmax()).mean()),
        }


def only(embeddings: Embeddings, mask: Bool[np.ndarray, " n"]) -> Embeddings:
    """Return copies of the embeddings of some pairs, with the first view of each image and without caption edits."""
    part = chosen(embeddings, torch.from_numpy(np.flatnonzero(mask)))
    return part._replace(image=part.image[:, :1].clone(), text_edits=None, text_edits_pair=None)


def why_not(
    classes: Mapping[str, Classes],
    groups: Int[np.ndarray, " n"],
    test: Bool[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
    *,
    unlabeled: str,
    text: str = "",
) -> dict[str, str]:
    """Return the tasks that cannot be measured, with the reason; `text` is the reason why captions cannot be used."""
    tested = {kind: int((test & (labeling.labels >= 0)).sum()) for kind, labeling in classes.items()}
    few = {kind: "there is only one class" if len(labeling.names) < 2 else "" for kind, labeling in classes.items()}
    label = few["label"] if tested["label"] else unlabeled
    n, shared = int(test.sum()), tested["concept"]
    concept = f"{shared} of {n} test pairs have the first caption of another pair, fewer than half"
    why = {
        "zero_shot": label or text,
        "zero_shot_concept": text or (concept if 2 * shared < n else few["concept"]),
        "linear_probe": label or _why_no_probe(classes["label"].labels, groups, test, train),
        "retrieval": text,
    }
    if "sublabel" in classes:
        why["linear_probe_sublabel"] = _why_no_probe(classes["sublabel"].labels, groups, test, train)
    return {task: reason for task, reason in why.items() if reason}


def _why_no_probe(labels: Any, groups: Any, test: Any, train: Any) -> str:
    usable = train & (labels >= 0)
    trained, n = len(np.unique(labels[usable])), int(usable.sum())
    reasons = (
        (trained < 2, f"{n} pairs to train on have fewer than 2 classes"),
        # labels that identify pairs, or too few pairs
        (2 * trained > n, f"{n} pairs to train on have {trained} classes, fewer than two pairs a class"),
        (len(np.unique(groups[usable])) < 2, "the pairs to train on are one group, and choosing C needs a second one"),
        (not (test & ~train & (labels >= 0)).any(), "no labeled pair is left to test on"),
    )
    return next((reason for applies, reason in reasons if applies), "")


def class_numbers(labels: Sequence[str], classes: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Return the index of each label in `classes`; -1 for empty labels."""
    number = {name: k for k, name in enumerate(classes)}
    for label in set(labels) - {"", *number}:
        require_one_of("labels", label, classes)
    return np.array([number[label] if label else -1 for label in labels], dtype=np.int64)
