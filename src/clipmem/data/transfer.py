"""From the processor's memory to a device's, without waiting.

A GPU copies from page-locked ("pinned") memory by itself while the processor goes on; from other memory the processor
waits until all that was asked of the GPU before is done. torch keeps pinned blocks for the next use, and gives one out
again only when the copy from it is finished.
"""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return `tensor` on a device; on the processor it is the same one."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
