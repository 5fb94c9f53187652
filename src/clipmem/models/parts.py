"""Parts of a model by the names of its parameters: towers, embeddings, blocks, heads.

image, text                       a tower
image.embeddings, embeddings      its input layers: patches, tokens, positions; without a tower, those of both
image.blocks.3, text.blocks.0-5   blocks, counted from the input
image.head, head                  what follows the blocks: final norm and projection
logit_scale                       parameters of neither tower; any parameter by its own name
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from clipmem.base.errors import InputError, did_you_mean

TOWERS = ("image", "text")
# the first numbered list of layers in a name: open_clip's and timm's towers, transformers', ResNets' stages
_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|layers|layer|stages)\.(\d+)\.|\.layer(\d+)\.")
_INPUT = re.compile(r"embed|(?:^|\.)conv1\.|(?:^|\.)bn[123]\.|ln_pre|pre_layrnorm|(?:^|\.)stem")
_NEITHER = ("logit_scale", "logit_bias")


class Part(NamedTuple):
    """Where a parameter is: tower ("" for neither), kind, and number of its block (-1 outside of blocks)."""

    tower: str
    kind: str
    block: int = -1

    def __str__(self) -> str:
        """Return the name of the part, as in `train.freeze`."""
        number = [f"{self.block}"] if self.block >= 0 else []
        return ".".join([*([self.tower] if self.tower else []), self.kind, *number])


def part_of(name: str, *, image: bool) -> Part:
    """Return the part of a parameter; `image` tells whether it belongs to the image tower.

    Example:
        >>> str(part_of("visual.transformer.resblocks.3.ln_1.weight", image=True))
        'image.blocks.3'
    """
    if name in _NEITHER:
        return Part("", name)
    tower, block = "image" if image else "text", _BLOCK.search(name)
    if block:
        return Part(tower, "blocks", int(block[1] or block[2]))
    return Part(tower, "embeddings" if _INPUT.search(name) and "pool" not in name else "head")


def chosen(parts: Mapping[str, Part], patterns: Iterable[str], subject: str) -> set[str]:
    """Return the parameters that patterns name; raise an `InputError` for a pattern that names none."""
    names: set[str] = set()
    for pattern in patterns:
        span = re.fullmatch(r"(?:(image|text)\.)?blocks\.(\d+)-(\d+)", pattern)
        tower, first, last = (span[1], int(span[2]), int(span[3])) if span else ("", 0, -1)
        matches = set[str]()
        for name, part in parts.items():
            inside = part.kind == "blocks" and tower in {None, part.tower} and first <= part.block <= last
            combined = f"{part.tower}.{part.kind}", f"{part.kind}.{part.block}"
            if inside or pattern in {name, part.tower, part.kind, str(part), *combined}:
                matches.add(name)
        if not matches:
            part_names = list(dict.fromkeys([*TOWERS, *(str(part) for part in parts.values())]))
            hint = f"{did_you_mean(pattern, part_names, kind='part')} `clipmem inspect` lists them."
            raise InputError(subject, got=f"{pattern!r}, which names no parameter", expected="parts of it", hint=hint)
        names |= matches
    return names


def rate_factors(parts: Mapping[str, Part], decay: float) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter for a decay by layer (Clark et al. 2020, ELECTRA).

    With L blocks in a tower: decay^(L - k) for block k (from 0), decay^(L + 1) for embeddings, 1 for the rest.
    """
    depth = {tower: max((p.block for p in parts.values() if p.tower == tower), default=-1) + 1 for tower in TOWERS}
    distances = {
        name: depth[part.tower] - part.block  # the block of embeddings is -1
        for name, part in parts.items()
        if part.kind in {"blocks", "embeddings"}
    }
    return {name: decay ** distances.get(name, 0) for name in parts}


def place(part: Part) -> tuple[int, int, int]:
    """Return the place of a part from input to output, towers in order, for sorting."""
    kinds = ("embeddings", "blocks", "head")
    return (*TOWERS, "").index(part.tower), kinds.index(part.kind) if part.kind in kinds else len(kinds), part.block
