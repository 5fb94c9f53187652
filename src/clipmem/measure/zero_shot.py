"""Zero-shot classification by prompts with class names: the prompts, ranks of the true class, and metrics from ranks.

As in CLIP (Radford et al. 2021, section 3.1.4): a class is the normalized mean of the unit embeddings of its prompts,
and an image is assigned to the class with the largest cosine. By default a class is named by its label, with spaces for
`-` and `_`. For labels such as `n01440764`, give a file of class names.

When not to trust it: it depends on the prompts as well as on the model. Names or templates unlike the training captions
lower the accuracy. Compare models only under the same prompts. Accuracy is dominated by frequent classes: with 90% of
the images in one class, always predicting that class has accuracy 0.9; its mean per-class recall is 1 / classes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import InputError, did_you_mean, require, require_range, shorten
from clipmem.base.paths import reading
from clipmem.data.user_tables import read_table
from clipmem.stats.checks import Codes, check_not_empty, check_same_length
from clipmem.stats.similarity import normalize


def class_embeddings(
    text: Float[Tensor, "m d"], prompt_class: Int[Tensor, " m"], classes: int
) -> Float64[Tensor, "c d"]:
    """Return the normalized mean of each class's prompts.

    w_c = z_c / ||z_c||, z_c = mean over the prompts p of class c of t_p / ||t_p|| (Radford et al. 2021, section 3.1.4).
    """
    got = f"{len(text)} embeddings and {len(prompt_class)} classes"
    require(len(text) == len(prompt_class), "prompts", got, "one class per prompt", "Give the class of each prompt.")
    check_labels(prompt_class.cpu().numpy(), classes)
    empty = torch.nonzero(torch.bincount(prompt_class.long(), minlength=classes) == 0).flatten().tolist()
    got = f"none for classes {empty[:5]} of {classes}"
    require(not empty, "prompts", got, "at least one per class", "Name each class.")
    unit = normalize(text.double(), name="prompt embeddings")
    total = torch.zeros(classes, text.shape[1], dtype=torch.float64, device=text.device)
    return normalize(total.index_add_(0, prompt_class.long(), unit), name="class embeddings")


def zero_shot_ranks(
    image: Float[Tensor, "n d"], classes: Float[Tensor, "c d"], labels: Codes, *, block: int = 1024
) -> Float64[np.ndarray, " n"]:
    """Rank the true class of each image among all classes by cosine, `block` images at a time (see `class_ranks`)."""
    got = f"images {tuple(image.shape)}, classes {tuple(classes.shape)}, {len(labels)} labels"
    fits = image.shape[1] == classes.shape[1] and len(image) == len(labels)
    require(fits, "embeddings", got, "one width, and one label per image", "Take both from the same model.")
    require_range("block", block, 1, hint="Use 1024.")
    check_labels(labels, len(classes))
    image = normalize(image.double(), name="image embeddings")
    columns = normalize(classes.double(), name="class embeddings").T
    ranks = [class_ranks((image[part] @ columns).cpu().numpy(), labels[part]) for part in slices(len(image), block)]
    return np.concatenate([np.empty(0), *ranks])


TOP = (1, 5)

# equal scores may differ by rounding
_TIE = 1e-12


def class_ranks(scores: Float[np.ndarray, "n c"], labels: Codes) -> Float64[np.ndarray, " n"]:
    """Rank the true class of each image by its score.

    rank = 1 + #{classes that score higher} + ½ #{other classes that score the same}.
    """
    check_same_length("scores", len(scores), "labels", len(labels))
    check_labels(labels, scores.shape[1], lowest=-1)
    if scores.shape[1] == 0:
        return np.full(len(labels), np.inf)
    lead = scores - np.take_along_axis(scores, np.maximum(labels, 0)[:, None], axis=1)
    better, level = (lead > _TIE).sum(axis=1), (np.abs(lead) <= _TIE).sum(axis=1)
    return np.where(labels < 0, np.inf, 1 + better + (level - 1) / 2)


def check_labels(labels: Codes, classes: int, *, lowest: int = 0) -> None:
    """Raise an `InputError` unless every label is in [lowest, classes)."""
    outside = np.flatnonzero((labels < lowest) | (labels >= classes))
    got = f"{labels[outside[:1]].tolist()} in row {outside[:1].tolist()}"
    expected = f"class numbers from 0 to {classes - 1}"
    require(not len(outside), "labels", got, expected, "Number the classes from 0.")


def classification_metrics(ranks: Float[np.ndarray, " n"], labels: Codes, classes: int) -> dict[str, float]:
    """Compute the metrics of CLIP_benchmark from ranks.

    acc_k = share of images whose true class has a rank of at most k (for at least k classes).
    mean_per_class_recall = mean over classes with images of acc1 within the class.
    """
    check_not_empty("ranks", np.asarray(ranks, dtype=np.float64))
    check_same_length("ranks", len(ranks), "labels", len(labels))
    check_labels(labels, classes)
    hits = (ranks <= 1).astype(np.float64)
    images = np.bincount(labels, minlength=classes)
    correct = np.bincount(labels, weights=hits, minlength=classes)
    accuracies: dict[str, float] = {f"acc{k}": float((ranks <= k).mean()) for k in TOP if k <= classes}
    return {**accuracies, "mean_per_class_recall": float((correct[images > 0] / images[images > 0]).mean())}


def chance(classes: int) -> dict[str, float]:
    """Return the metrics expected of random predictions: k / classes, and 1 / classes for the mean recall."""
    accuracies = {f"acc{k}": k / classes for k in TOP if k <= classes}
    return {**accuracies, "mean_per_class_recall": 1 / classes}


# the plain name comes first: few captions of a small study are sentences about photos
TEMPLATES = ("{}", "a photo of a {}.", "a picture of a {}.")
_HOLES = ("{}", "{c}")
_NAMES = "class names"
_EXAMPLE = "a photo of a {}."


class Prompts(NamedTuple):
    """Prompts of all classes."""

    classes: list[str]
    texts: list[str]
    prompt_class: list[int]
    templates: list[str]


def make_prompts(labels: Sequence[str], names: Mapping[str, Sequence[str]] | None, templates: Sequence[str]) -> Prompts:
    """Insert the names of each class into each template."""
    distinct = sorted(set(labels) - {""})
    if names is None:
        names = {label: [label.replace("-", " ").replace("_", " ")] for label in distinct}
    missing = [label for label in distinct if label not in names]
    for label in missing:
        got = f"none for label {shorten(label)} ({len(missing):,} of {len(distinct):,} labels have none)"
        hint = did_you_mean(label, names, kind="label")
        raise InputError(_NAMES, got=got, expected="a name for every label of the data", hint=hint)
    got = "no template" if names else "no class"
    require(names and templates, "prompts", got, "at least one", f"Give labels, or a template such as {_EXAMPLE!r}.")
    classes = sorted(names)
    prompts = [
        (k, template.replace("{c}", name).replace("{}", name))  # not str.format: templates are user input with braces
        for k, label in enumerate(classes)
        for name in names[label]
        for template in templates
    ]
    return Prompts(classes, [text for _, text in prompts], [k for k, _ in prompts], [*templates])


def read_templates(path: Path) -> list[str]:
    """Read templates from a JSON list, or from the lines of any other file; each has a placeholder for the name."""
    where = f"templates {path}"
    templates = _read(path, where, "one template per line, or a JSON list")
    if path.suffix != ".json":
        templates = [line for line in templates.splitlines() if line.strip()]
    require(isinstance(templates, list), where, shorten(templates), "a list of texts", f"As in [{_EXAMPLE!r}].")
    require(templates, where, "no template", "at least one", f"For example: {_EXAMPLE}")
    for template in templates:
        usable = isinstance(template, str) and any(hole in template for hole in _HOLES)
        expected = "sentences with {} or {c} for the class name"
        require(usable, where, shorten(template), expected, f"For example: {_EXAMPLE}")
    return templates


def read_classnames(path: Path) -> dict[str, list[str]]:
    """Read class names by label, from JSON or CSV."""
    where = f"{_NAMES} {path}"
    if path.suffix.lower() == ".csv":
        names: Any = {}
        for label, name in read_table(path, _NAMES, ("label", "name")).fill_null("").iter_rows():
            names.setdefault(label, []).append(name)
    else:
        names = _read(path, where, "a JSON object, or CSV with the columns label and name", is_json=True)
    usable = isinstance(names, dict) and bool(names)
    hint = 'As in {"n01440764": "tench"}.'
    require(usable, where, shorten(names), "an object: label -> name, or names", hint)
    lists = {label: [name] if isinstance(name, str) else name for label, name in names.items()}
    for label, several in lists.items():
        named = isinstance(several, list) and all(isinstance(name, str) and name.strip() for name in several)
        got = f"{shorten(several)} for label {shorten(label)}"
        require(several and named, where, got, "a name, or a list of names", "Name every class.")
    return lists


def _read(path: Path, where: str, expected: str, *, is_json: bool = False) -> Any:
    """Read a text, or a JSON document if it must be one or has that extension."""
    with reading(where, expected=expected):
        text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text) if is_json or path.suffix == ".json" else text
    except ValueError as error:
        raise InputError(where, got=f"text that is not JSON ({error})", hint="Correct the file.") from error
