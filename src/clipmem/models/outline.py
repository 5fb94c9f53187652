"""What a model costs, counted without computing anything."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from clipmem.models.start import Start


@dataclass(frozen=True)
class Outline:
    """Operations of a pair's forward pass with a full-length caption, and parameters."""

    operations: float
    parameters: int


def outline_of(start: Start) -> Outline:
    """Count what a model needs, without computing anything."""
    encoder, side = start.outline(), start.geometry.size
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        encoder.encode_image(torch.zeros(1, 3, side, side))
        encoder.encode_text(torch.zeros(1, encoder.context, dtype=torch.long))
    parameters = sum(weight.numel() for weight in encoder.module.parameters())
    return Outline(float(counter.get_total_flops()), parameters)
