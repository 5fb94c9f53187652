"""Training objectives for the same image encoder, to compare paradigms on the same data."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from clipmem.train.objectives import contrastive, image_only
from clipmem.train.objectives.base import OBJECTIVE_FILE, OBJECTIVES, Objective, Towers, create_objective

__all__ = ["OBJECTIVES", "Objective", "Towers", "class_head", "contrastive", "create_objective", "image_only"]


def class_head(folder: Path) -> Callable[[Tensor], Tensor] | None:
    """Return a model's head from image embeddings to class scores, if it was trained with one."""
    file = folder / OBJECTIVE_FILE
    state = load_file(file) if file.is_file() else {}
    heads = (OBJECTIVES[name].head_of(state) for name in OBJECTIVES)
    return next((head for head in heads if head), None) if state else None
