"""Utility of a set of models on one set of test pairs: classification, linear probes, retrieval, geometry.

When not to trust it: results depend on the test pairs. With 200 of them, an accuracy has an interval of about ±7
points. Pairs of another domain than the training pairs measure the shift between domains. See docs/utility.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.errors import require, require_one_of
from clipmem.base.random import derive_seed
from clipmem.base.sections import EvaluateSection
from clipmem.measure import hypersphere, linear_probe, retrieval, zero_shot
from clipmem.measure.linear_probe import Probe
from clipmem.measure.over_seeds import Statistics, classification_entries
from clipmem.measure.retrieval import Identity
from clipmem.measure.zero_shot import Prompts, chance
from clipmem.models.passes import Embeddings, chosen

FORMAT = 1
FEATURES = "unit length, then mean 0 and standard deviation 1 of each coordinate over the fitted pairs"
# prefix of the metrics → the classes
ZERO_SHOT = {zero_shot.MEASURE.name: "label", f"{zero_shot.MEASURE.name}_concept": "concept"}
PROBES = {linear_probe.MEASURE.name: "label", f"{linear_probe.MEASURE.name}_sublabel": "sublabel"}


class Classes(NamedTuple):
    """Classes of pairs: their names, the class number of each pair (-1 for none), and prompts for zero-shot."""

    names: list[str]
    labels: Int[np.ndarray, " n"]
    prompts: Prompts | None = None


@dataclass(frozen=True)
class TestPairs:
    """Test pairs of models and training pairs of probes, in the order of the embeddings.

    `classes` are those of the labels (`label`), the finer labels (`sublabel`, absent if the data have none) and the
    concepts (`concept`); `same` is the identity of the test pairs' images and captions, `wordings` that with all their
    wordings, if they have more.
    """

    __test__ = False  # not a test for pytest

    groups: Int[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]
    train: Bool[np.ndarray, " n"]
    classes: Mapping[str, Classes]
    same: Identity
    why: dict[str, str]
    wordings: Identity | None = None

    def tasks(self, of: Mapping[str, str]) -> dict[str, Classes]:
        """Return the classes of each of these tasks that is measured."""
        return {task: self.classes[kind] for task, kind in of.items() if kind in self.classes and task not in self.why}

    def tested(self, classes: Classes) -> Bool[np.ndarray, " n"]:
        """Return the test pairs with a class."""
        return self.test & (classes.labels >= 0)

    def probed(self, classes: Classes) -> Bool[np.ndarray, " n"]:
        """Return the test pairs of a probe."""
        return self.tested(classes) & ~self.train

    def trained(self, classes: Classes) -> Bool[np.ndarray, " n"]:
        """Return the training pairs of a probe."""
        return self.train & (classes.labels >= 0)

    @property
    def texts(self) -> list[str]:
        """The prompts that each model embeds."""
        return [text for own in self.tasks(ZERO_SHOT).values() if own.prompts for text in own.prompts.texts]


@dataclass
class Measured:
    """Measurements of one model; it holds no embeddings of training pairs."""

    seed: int
    presentations: int | None
    test: Embeddings
    zero_shot: dict[str, Float[np.ndarray, " n"]] = field(default_factory=dict[str, Any])
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
        self,
        side: str,
        seed: int,
        embeddings: Embeddings,
        prompts: Float[Tensor, "m d"] | None,
        *,
        presentations: int | None = None,
    ) -> None:
        """Measure one model; `prompts` are the embeddings of `pairs.texts`, None if there is none."""
        pairs = self.pairs
        got = f"{0 if prompts is None else len(prompts)} embeddings"
        expected = f"those of the {len(pairs.texts)} prompts"
        right = len(pairs.texts) == (0 if prompts is None else len(prompts))
        require(right, "prompts", got, expected, "Embed `pairs.texts`.")
        found = Measured(seed, presentations, only(embeddings, pairs.test))
        image, start = embeddings.image[:, 0], 0
        for task, own in pairs.tasks(ZERO_SHOT).items():
            if prompts is None or own.prompts is None:
                continue
            end = start + len(own.prompts.texts)
            of_prompt = torch.tensor(own.prompts.prompt_class)
            classes, rows = zero_shot.class_embeddings(prompts[start:end], of_prompt, len(own.names)), pairs.tested(own)
            found.zero_shot[task] = zero_shot.zero_shot_ranks(image[torch.from_numpy(rows)], classes, own.labels[rows])
            start = end
        for task, own in pairs.tasks(PROBES).items():
            train, test = pairs.trained(own), pairs.probed(own)
            found.probes[task] = linear_probe.linear_probe(
                image[torch.from_numpy(train)].numpy(),
                own.labels[train],
                pairs.groups[train],
                image[torch.from_numpy(test)].numpy(),
                own.labels[test],
                grid=self.settings.probe_c,
                share=self.settings.probe_validation,
                seed=derive_seed(self.statistics.seed, "probe"),
            )
        self.models.setdefault(side, []).append(found)

    def retrieval(self) -> dict[str, Any]:
        """Summarize retrieval among the test pairs (see `retrieval.measure` and `measure_wordings`)."""
        found = retrieval.measure(
            {side: [one.test for one in models] for side, models in self.models.items()},
            self.pairs.same,
            self.pairs.groups[self.pairs.test],
            self.statistics._replace(seed=derive_seed(self.statistics.seed, "retrieval")),
            against=self.against,
        )
        for name, more in self._over_wordings().items():
            found[name] |= more
        return found

    def _over_wordings(self) -> dict[str, Any]:
        if self.settings.wordings < 2:
            return {}
        models = {side: [one.test for one in own] for side, own in self.models.items()}
        groups, level = self.pairs.groups[self.pairs.test], self.statistics.confidence
        same = self.pairs.wordings or self.pairs.same
        return retrieval.measure_wordings(models, same, groups, self.settings.wordings, level, against=self.against)

    def document(self, found: dict[str, Any] | None) -> dict[str, Any]:
        """Return the content of `evaluate/utility.json`; `found` is what `retrieval` returned; None if skipped."""
        pairs = self.pairs
        zero_shots, probes = pairs.tasks(ZERO_SHOT), pairs.tasks(PROBES)
        metrics: dict[str, dict[str, Any]] = {side: {} for side in self.models}
        for side, models in self.models.items():
            for task, own in zero_shots.items():
                base = None if self.against in ("", side) else self.models[self.against][0].zero_shot[task]
                ranks = [one.zero_shot[task] for one in models]
                metrics[side] |= self._classification(task, ranks, own, pairs.tested(own), base)
            for task, own in probes.items():
                ranks = [one.probes[task].ranks for one in models]
                metrics[side] |= self._classification(task, ranks, own, pairs.probed(own))
        by_chance = {
            f"{task}_{name}": value
            for task, own in {**zero_shots, **probes}.items()
            for name, value in chance(len(own.names)).items()
        }
        if found:
            geometry = hypersphere.measure(
                {side: [one.test for one in models] for side, models in self.models.items()},
                pairs.same,
                pairs.groups[pairs.test],
                self.statistics.confidence,
                against=self.against,
            )
            metrics = {side: {**own, **found[side], **geometry[side]} for side, own in metrics.items()}
            by_chance |= found["chance"]
        label, concept, finer = (pairs.classes.get(kind) for kind in ("label", "concept", "sublabel"))
        prompts = next((own.prompts for own in (label, concept) if own and own.prompts), None)
        return {
            "format": FORMAT,
            "confidence": self.statistics.confidence,
            "draws": self.statistics.draws,
            "seeds": {side: [one.seed for one in models] for side, models in self.models.items()},
            "presentations": {side: [one.presentations for one in models] for side, models in self.models.items()},
            "n": {
                "test": int(pairs.test.sum()),
                "labeled": int(pairs.tested(label).sum()) if label else 0,
                "captions": found["captions"] if found else None,
                "probe_train": int(pairs.trained(label).sum()) if label else 0,
                "probe_test": int(pairs.probed(label).sum()) if label else 0,
                "classes": len(label.names) if label else 0,
                "classes_in_test": len(np.unique(label.labels[pairs.tested(label)])) if label else 0,
                "concepts": len(concept.names) if concept else 0,
                "with_concept": int(pairs.tested(concept).sum()) if concept else 0,
                "sublabels": len(finer.names) if finer else 0,
            },
            "metrics": metrics,
            "chance": by_chance,
            "skipped": pairs.why,
            "classes": label.names if label else [],
            "templates": prompts.templates if prompts else [],
            "prompts": len(pairs.texts),
            **{key: self._probe(task, probes) for key, task in zip(("probe", "probe_sublabel"), PROBES, strict=True)},
        }

    def _classification(
        self,
        task: str,
        ranks: Sequence[Any],
        classes: Classes,
        where: Bool[np.ndarray, " n"],
        base: Float[np.ndarray, " n"] | None = None,
    ) -> dict[str, Any]:
        found = classification_entries(
            np.stack(ranks),
            classes.labels[where],
            self.pairs.groups[where],
            len(classes.names),
            self.statistics.confidence,
            None if base is None else base[None],
        )
        return {f"{task}_{name}": value for name, value in found.items()}

    def _probe(self, task: str, measured: Mapping[str, Classes]) -> dict[str, Any] | None:
        if task not in measured:
            return None
        own = measured[task]
        train, test = own.labels[self.pairs.trained(own)], own.labels[self.pairs.probed(own)]
        commonest = int(np.bincount(train).argmax())
        probes = {side: [one.probes[task] for one in models] for side, models in self.models.items()}
        return {
            "features": FEATURES,
            "grid": [*self.settings.probe_c],
            "validation": self.settings.probe_validation,
            "c": {side: [probe.c for probe in own] for side, own in probes.items()},
            "converged": all(probe.converged for own in probes.values() for probe in own),
            "test_of_unseen_classes": int((~np.isin(test, train)).sum()),
            "commonest_class_acc1": float((test == commonest).mean()),
        }


def only(embeddings: Embeddings, kept: Bool[np.ndarray, " n"]) -> Embeddings:
    """Return copies of the embeddings of some pairs, with the first view of each image and without caption edits."""
    found = chosen(embeddings, torch.from_numpy(np.flatnonzero(kept)))
    return found._replace(image=found.image[:, :1].clone(), text_edits=None, text_edits_pair=None)


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
    tested = {kind: int((test & (own.labels >= 0)).sum()) for kind, own in classes.items()}
    few = {kind: "there is only one class" if len(own.names) < 2 else "" for kind, own in classes.items()}
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
    known = train & (labels >= 0)
    trained, n = len(np.unique(labels[known])), int(known.sum())
    reasons = (
        (trained < 2, f"{n} pairs to train on have fewer than 2 classes"),
        # labels that identify pairs, or too few pairs
        (2 * trained > n, f"{n} pairs to train on have {trained} classes, fewer than two pairs a class"),
        (len(np.unique(groups[known])) < 2, "the pairs to train on are one group, and choosing C needs a second one"),
        (not (test & ~train & (labels >= 0)).any(), "no labeled pair is left to test on"),
    )
    return next((reason for applies, reason in reasons if applies), "")


def class_numbers(labels: Sequence[str], classes: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Return the index of each label in `classes`; -1 for empty labels."""
    place = {name: k for k, name in enumerate(classes)}
    for label in set(labels) - {"", *place}:
        require_one_of("labels", label, classes)
    return np.array([place[label] if label else -1 for label in labels], dtype=np.int64)
