"""Zero-shot classification by prompts with class names.

As in CLIP (Radford et al. 2021, section 3.1.4): a class is the normalized mean of the unit embeddings of its prompts,
and an image is assigned to the class with the largest cosine.

When not to trust it: it depends on the prompts as well as on the model. Names or templates unlike the training captions
lower the accuracy. Compare models only under the same prompts.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from clipmem.base.require import require, require_range
from clipmem.measure.base import Measure
from clipmem.measure.classification import check_labels, class_ranks
from clipmem.stats.similarity import normalize

MEASURE = Measure("zero_shot", "Zero-shot classification by the names of the classes.")


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
    image: Float[Tensor, "n d"], classes: Float[Tensor, "c d"], labels: Int[np.ndarray, " n"], *, block: int = 1024
) -> Float64[np.ndarray, " n"]:
    """Rank the true class of each image among all classes by cosine, `block` images at a time (see `class_ranks`)."""
    got = f"images {tuple(image.shape)}, classes {tuple(classes.shape)}, {len(labels)} labels"
    fits = image.shape[1] == classes.shape[1] and len(image) == len(labels)
    require(fits, "embeddings", got, "one width, and one label per image", "Take both from the same model.")
    require_range("block", block, 1, hint="Use 1024.")
    check_labels(labels, len(classes))
    image = normalize(image.double(), name="image embeddings")
    columns = normalize(classes.double(), name="class embeddings").T
    parts = [slice(start, start + block) for start in range(0, len(image), block)]
    ranks = [class_ranks((image[part] @ columns).cpu().numpy(), labels[part]) for part in parts]
    return np.concatenate([np.empty(0), *ranks])
