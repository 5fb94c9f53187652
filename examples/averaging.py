"""The average of the weights over the steps of any trainer's optimizer: what `mitigate.average` does in a study."""

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def average(model, optimizer, decay):
    """Return the model with averaged weights; call it before the first step, and use its `module` after the last."""
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    averaged.update_parameters(model)  # the first call copies the initial weights
    optimizer.register_step_post_hook(lambda *_: averaged.update_parameters(model))
    return averaged


@torch.no_grad()
def distance(averaged, model):
    """Return how far the average is from the last weights, relative to them."""
    both = [torch.cat([weight.flatten() for weight in one.parameters()]) for one in (averaged.module, model)]
    return float((both[0] - both[1]).norm() / both[1].norm())
