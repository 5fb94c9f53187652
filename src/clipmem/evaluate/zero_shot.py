"""Zero-shot classification: the class whose name, put into sentences, lies nearest to the picture.

As in CLIP (Radford et al. 2021, section 3.1.4): a class is the mean of the unit embeddings of its prompts, brought to
length 1 again; a picture belongs to the class with the largest cosine.

When not to trust it: it measures the prompts as well as the model. A name that the captions never use, or a template
unlike them, costs accuracy that has nothing to do with the pictures. Compare models under the same prompts only, and a
model that was trained on few captions only with itself.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.evaluate.classification import check_labels
from clipmem.functional.similarity import normalize

# Equal embeddings may differ in the last bits of their products, which depend on where in a block they stand.
_TIE = 1e-12


def class_embeddings(
    text: Float[Tensor, "m d"], prompt_class: Int[Tensor, "m"], classes: int
) -> Float64[Tensor, "c d"]:
    """Average the prompts of each class.

    w_c = z_c / ||z_c||, z_c = mean over the prompts p of class c of t_p / ||t_p|| (Radford et al. 2021, section 3.1.4).

    Example:
        >>> class_embeddings(torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 1.0]]), torch.tensor([0, 1, 1]), 2).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if len(text) != len(prompt_class):
        raise InputError(
            "prompts",
            got=f"{len(text)} embeddings and {len(prompt_class)} classes",
            expected="one class a prompt",
            hint="Give the class of each prompt.",
        )
    check_labels(prompt_class.cpu().numpy(), classes)
    number = torch.bincount(prompt_class.long(), minlength=classes)
    if bool((number == 0).any()):
        empty = int(torch.nonzero(number == 0)[0])
        raise InputError(
            "prompts",
            got=f"none for class {empty} of {classes}",
            expected="at least one a class",
            hint="Name every class.",
        )
    unit = normalize(text.double(), name="prompt embeddings")
    total = torch.zeros(classes, text.shape[1], dtype=torch.float64, device=text.device)
    return normalize(total.index_add_(0, prompt_class.long(), unit), name="class embeddings")


def zero_shot_ranks(
    image: Float[Tensor, "n d"],
    classes: Float[Tensor, "c d"],
    labels: Int[np.ndarray, "n"],
    *,
    block: int = 1024,
) -> Float64[np.ndarray, "n"]:
    """Rank the true class of each picture among all classes by cosine.

    rank = 1 + #{classes that are nearer} + ½ #{other classes that are as near}. Only a block by block piece of the
    cosines is held.

    Example:
        >>> zero_shot_ranks(torch.eye(2), torch.tensor([[1.0, 0.1], [0.0, 1.0]]), np.array([0, 0])).tolist()
        [1.0, 2.0]
    """
    if image.shape[1] != classes.shape[1] or len(image) != len(labels):
        raise InputError(
            "embeddings",
            got=f"images {tuple(image.shape)}, classes {tuple(classes.shape)}, {len(labels)} labels",
            expected="one width, and one label an image",
            hint="Take both from the same model.",
        )
    if block < 1:
        raise InputError("block", got=f"{block}", expected="a whole number >= 1", hint="Use 1024.")
    check_labels(labels, len(classes))
    image = normalize(image.double(), name="image embeddings")
    classes = normalize(classes.double(), name="class embeddings")
    true = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(image.device)
    # Twice the places lost: 2 to a nearer class, 1 to one as near. Whole numbers, so that blocks add up exactly.
    lost = torch.zeros(len(image), dtype=torch.long, device=image.device)
    for top in range(0, len(image), block):
        rows = slice(top, top + block)
        own = (image[rows] * classes[true[rows]]).sum(dim=1)[:, None]
        for left in range(0, len(classes), block):
            lead = image[rows] @ classes[left : left + block].T - own
            columns = torch.arange(left, min(left + block, len(classes)), device=image.device)
            other = columns[None, :] != true[rows][:, None]
            lost[rows] += (((lead > _TIE).to(torch.int8) + (lead >= -_TIE).to(torch.int8)) * other).sum(dim=1)
    return (1 + lost.double() / 2).cpu().numpy()
