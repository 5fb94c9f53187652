"""Utility of a set of models on one set of test pairs: zero-shot classification, linear probe, retrieval.

When not to trust it: results depend on the test pairs. With 200 of them, an accuracy has an interval of about ±7
points. Pairs of another domain than the training pairs measure the shift between domains. See docs/utility.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.random import derive_seed
from clipmem.base.require import require_one_of
from clipmem.base.sections import EvaluateSection
from clipmem.embed.passes import Embeddings, chosen
from clipmem.evaluate import linear_probe, retrieval, wordings, zero_shot
from clipmem.evaluate.classification import chance
from clipmem.evaluate.linear_probe import Probe
from clipmem.evaluate.over_seeds import Statistics, classification_entries
from clipmem.evaluate.prompts import Prompts

FORMAT = 1
FEATURES = "unit length, then mean 0 and standard deviation 1 of each coordinate over the fitted pairs"


@dataclass(frozen=True)
class TestPairs:
    """Test pairs of models and training pairs of the probe, in the order of the embeddings."""

    __test__ = False  # not a test for pytest

    labels: Int[np.ndarray, "n"]
    groups: Int[np.ndarray, "n"]
    test: Bool[np.ndarray, "n"]
    train: Bool[np.ndarray, "n"]
    prompts: Prompts | None
    why: dict[str, str]

    @property
    def tested(self) -> Bool[np.ndarray, "n"]:
        """The labeled test pairs."""
        return self.test & (self.labels >= 0)

    @property
    def probed(self) -> Bool[np.ndarray, "n"]:
        """The test pairs of the probe."""
        return self.tested & ~self.train

    @property
    def trained(self) -> Bool[np.ndarray, "n"]:
        """The labeled training pairs of the probe."""
        return self.train & (self.labels >= 0)


@dataclass
class Measured:
    """Measurements of one model; it holds no embeddings of training pairs."""

    seed: int
    presentations: int | None
    test: Embeddings
    zero_shot: Float[np.ndarray, "n"] | None = None
    probe: Probe | None = None


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
        """Measure one model."""
        pairs = self.pairs
        found = Measured(seed, presentations, only(embeddings, pairs.test))
        image = embeddings.image[:, 0]
        if prompts is not None and pairs.prompts is not None:
            names = pairs.prompts
            classes = zero_shot.class_embeddings(prompts, torch.tensor(names.prompt_class), len(names.classes))
            rows = torch.from_numpy(pairs.tested)
            found.zero_shot = zero_shot.zero_shot_ranks(image[rows], classes, pairs.labels[pairs.tested])
        if "linear_probe" not in pairs.why:
            found.probe = linear_probe.linear_probe(
                image[torch.from_numpy(pairs.trained)].numpy(),
                pairs.labels[pairs.trained],
                pairs.groups[pairs.trained],
                image[torch.from_numpy(pairs.probed)].numpy(),
                pairs.labels[pairs.probed],
                grid=self.settings.probe_c,
                share=self.settings.probe_validation,
                seed=derive_seed(self.statistics.seed, "probe"),
            )
        self.models.setdefault(side, []).append(found)

    def retrieval(self) -> dict[str, Any]:
        """Summarize retrieval among the test pairs (see `retrieval.measure` and `wordings.measure`)."""
        found = retrieval.measure(
            {side: {k: one.test for k, one in enumerate(models)} for side, models in self.models.items()},
            np.ones(int(self.pairs.test.sum()), dtype=np.bool_),
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
        return wordings.measure(models, groups, self.settings.wordings, level, against=self.against)

    def document(self, found: dict[str, Any] | None) -> dict[str, Any]:
        """Return the content of `evaluate/utility.json`."""
        pairs = self.pairs
        metrics: dict[str, dict[str, Any]] = {}
        for side, models in self.models.items():
            base = None if self.against in ("", side) else self.models[self.against][0].zero_shot
            metrics[side] = {
                **self._classification("zero_shot", [one.zero_shot for one in models], pairs.tested, base),
                **self._classification(
                    "linear_probe", [one.probe.ranks if one.probe else None for one in models], pairs.probed
                ),
                **(found[side] if found else {}),
            }
        classes = pairs.prompts.classes if pairs.prompts else []
        by_chance: dict[str, float] = {}
        for measure in (zero_shot.MEASURE, linear_probe.MEASURE):
            if measure.name not in pairs.why:
                by_chance |= {f"{measure.name}_{name}": value for name, value in chance(len(classes)).items()}
        if found:
            by_chance |= {name: value for name, value in found["chance"].items() if "_" in name}
        return {
            "format": FORMAT,
            "confidence": self.statistics.confidence,
            "draws": self.statistics.draws,
            "seeds": {side: [one.seed for one in models] for side, models in self.models.items()},
            "presentations": {side: [one.presentations for one in models] for side, models in self.models.items()},
            "n": {
                "test": int(pairs.test.sum()),
                "labeled": int(pairs.tested.sum()),
                "captions": found["captions"] if found else None,
                "probe_train": int(pairs.trained.sum()),
                "probe_test": int(pairs.probed.sum()),
                "classes": len(classes),
                "classes_in_test": len(np.unique(pairs.labels[pairs.tested])),
            },
            "metrics": metrics,
            "chance": by_chance,
            "skipped": pairs.why,
            "classes": classes,
            "templates": pairs.prompts.templates if pairs.prompts else [],
            "prompts": len(pairs.prompts.texts) if pairs.prompts else 0,
            "probe": None if "linear_probe" in pairs.why else self._probe(),
        }

    def _classification(
        self,
        task: str,
        ranks: Sequence[Any],
        where: Bool[np.ndarray, "n"],
        base: Float[np.ndarray, "n"] | None = None,
    ) -> dict[str, Any]:
        known = [one for one in ranks if one is not None]
        if task in self.pairs.why or not known or self.pairs.prompts is None:
            return {}
        found = classification_entries(
            np.stack(known),
            self.pairs.labels[where],
            self.pairs.groups[where],
            len(self.pairs.prompts.classes),
            self.statistics.confidence,
            None if base is None else base[None],
        )
        return {f"{task}_{name}": value for name, value in found.items()}

    def _probe(self) -> dict[str, Any]:
        pairs = self.pairs
        train, test = pairs.labels[pairs.trained], pairs.labels[pairs.probed]
        commonest = int(np.bincount(train).argmax())
        probes = {side: [one.probe for one in models if one.probe] for side, models in self.models.items()}
        return {
            "features": FEATURES,
            "grid": [*self.settings.probe_c],
            "validation": self.settings.probe_validation,
            "c": {side: [probe.c for probe in own] for side, own in probes.items()},
            "converged": all(probe.converged for own in probes.values() for probe in own),
            "test_of_unseen_classes": int((~np.isin(test, train)).sum()),
            "commonest_class_acc1": float((test == commonest).mean()),
        }


def only(embeddings: Embeddings, kept: Bool[np.ndarray, "n"]) -> Embeddings:
    """Return copies of the embeddings of some pairs, with the first view of each image and without caption edits."""
    found = chosen(embeddings, torch.from_numpy(np.flatnonzero(kept)))
    return found._replace(image=found.image[:, :1].clone(), text_edits=None, text_edits_pair=None)


def why_not(
    labels: Int[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"],
    test: Bool[np.ndarray, "n"],
    train: Bool[np.ndarray, "n"],
    classes: int,
    *,
    unlabeled: str,
    text: str = "",
) -> dict[str, str]:
    """Return the tasks that cannot be measured, with the reason."""
    reason = ""
    if not (test & (labels >= 0)).any():
        reason = unlabeled
    elif classes < 2:
        reason = "there is only one class"
    known = train & (labels >= 0)
    trained, n = len(np.unique(labels[known])), int(known.sum())
    of_probe = (
        (trained < 2, f"{n} pairs to train on have fewer than 2 classes"),
        # labels that identify pairs, or too few pairs
        (2 * trained > n, f"{n} pairs to train on have {trained} classes, fewer than two pairs a class"),
        (len(np.unique(groups[known])) < 2, "the pairs to train on are one group, and choosing C needs a second one"),
        (not (test & ~train & (labels >= 0)).any(), "no labeled pair is left to test on"),
    )
    probe = reason or next((text for applies, text in of_probe if applies), "")
    why = {"zero_shot": reason or text, "linear_probe": probe, "retrieval": text}
    return {task: reason for task, reason in why.items() if reason}


def tested_pairs(
    names: Sequence[str],
    prompts: Prompts | None,
    groups: Int[np.ndarray, "n"],
    test: Bool[np.ndarray, "n"],
    train: Bool[np.ndarray, "n"],
    **reasons: str,
) -> TestPairs:
    """Return test pairs with numbered labels ("" for none) and the reasons of `why_not`."""
    classes = prompts.classes if prompts else []
    labels = class_numbers(names if prompts else [""] * len(names), classes)
    return TestPairs(
        labels, groups, test, train, prompts, why_not(labels, groups, test, train, len(classes), **reasons)
    )


def class_numbers(labels: Sequence[str], classes: Sequence[str]) -> Int[np.ndarray, "n"]:
    """Return the index of each label in `classes`; -1 for empty labels."""
    place = {name: k for k, name in enumerate(classes)}
    for label in set(labels) - {"", *place}:
        require_one_of("labels", label, classes)
    return np.array([place[label] if label else -1 for label in labels], dtype=np.int64)
