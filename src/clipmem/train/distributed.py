"""Data-parallel training of one model: each process has its rows of every batch, and all have the same weights.

Batches, views and captions are functions of the pair, so every process computes the whole order and takes its slice. An
objective returns its process's *share* of the loss; the shares add up to the loss of the whole batch, even if it does
not divide evenly. Embeddings are gathered with their gradients, so captions are contrasted with the images of all
processes.

Sums are taken in another order than in one process: losses agree to rounding (1e-4 in fp32), not bitwise. Models with
batch norm are refused: their averages would be over a process's own rows.
"""

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clipmem.base.errors import require
from clipmem.models.protocol import Scalar

Part = Float[Tensor, "own d"]  # embeddings in this process
# a process may wait for another's whole data stage; the launcher ends all processes when one dies
_TIMEOUT = timedelta(days=30)


@dataclass(frozen=True)
class World:
    """The processes that train one model together; `ALONE` is a single process."""

    rank: int = 0
    size: int = 1

    def share(self, batch: Int[np.ndarray, " size"]) -> Int[np.ndarray, " own"]:
        """Return this process's rows of a batch: consecutive, with sizes that differ by at most one.

        Example:
            >>> [World(rank, 3).share(np.arange(7)).tolist() for rank in range(3)]
            [[0, 1, 2], [3, 4], [5, 6]]
        """
        return batch if self.size == 1 else np.array_split(batch, self.size)[self.rank]

    def counts(self, rows: int, device: torch.device) -> list[int]:
        """Return each process's number of rows of a batch; `rows` is that of this process."""
        if self.size == 1:
            return [rows]
        mine = torch.tensor([rows], device=device)
        every = [torch.zeros_like(mine) for _ in range(self.size)]
        dist.all_gather(every, mine)
        return [int(count) for count in every]

    def gather(self, rows: Part, counts: Sequence[int]) -> Float[Tensor, "n d"]:
        """Return the rows of all processes in the order of their ranks, with gradients."""
        return rows if self.size == 1 else _Gather.apply(rows, tuple(counts), self.rank)  # pyright: ignore[reportReturnType]

    def all(self, flag: bool) -> bool:
        """Return whether the flag is true in every process; all must call it."""
        if self.size == 1:
            return flag
        least = torch.tensor(int(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(least, dist.ReduceOp.MIN)
        return bool(least)

    def loss_function(
        self, objective: Callable[..., Tensor], trained: Sequence[tuple[str, nn.Parameter]]
    ) -> Callable[..., Tensor]:
        """Wrap the objective so that its backward pass gives the gradients of the whole batch."""
        return objective if self.size == 1 else DistributedDataParallel(_Shares(objective, trained, self.size))

    def mean(self, loss: Scalar) -> Scalar:
        """Return the loss of the whole batch from the value of `loss_function` in each process."""
        if self.size == 1:
            return loss
        total = loss.clone()
        dist.all_reduce(total)
        return total / self.size


ALONE = World()


def joined() -> World:
    """Return the processes of torch's default group, as another library's trainer started it."""
    active = dist.is_available() and dist.is_initialized()
    return World(dist.get_rank(), dist.get_world_size()) if active else ALONE


class _Gather(torch.autograd.Function):
    """Gather the rows of all processes; the backward pass sums the gradients for a process's own rows."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        ctx.start, ctx.count = sum(counts[:rank]), len(part)
        # the collective needs equal sizes
        padded = F.pad(part.detach(), (0, 0, 0, max(counts) - len(part))).contiguous()
        every = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(every, padded)
        return torch.cat([rows[:count] for rows, count in zip(every, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.count], None, None


class _Shares(nn.Module):
    """An objective as a module for DDP, whose parameters are exactly those that the objective trains."""

    def __init__(self, objective: Callable[..., Tensor], params: Sequence[tuple[str, nn.Parameter]], size: int) -> None:
        super().__init__()
        self._objective, self._size = [objective], size  # in a list, to hide its other parameters from DDP
        for name, parameter in params:
            # no objective uses a model's own bias, and DDP would wait for its gradient
            if name != "logit_bias":
                self.register_parameter(name.replace(".", "/"), parameter)

    def forward(self, *batch: Any) -> Tensor:
        """Return the share times the number of processes, because DDP averages and shares must be added."""
        return self._objective[0](*batch) * self._size


def contrastive_share(
    image: Part, text: Part, scale: Scalar, world: World, weights: Float[Tensor, " own"] | None = None
) -> Scalar:
    """Return this process's share of CLIP's loss.

    With u, v all n rows of all processes, w their weights (by default 1) and R this process's rows:
    Σ_{i in R} w_i (CE(s u_i·v_j over j, i) + CE(s v_i·u_j over j, i)) / 2 Σ w; summed over processes it is the loss of
    Radford et al. 2021, figure 3.
    """
    counts = world.counts(len(image), image.device)
    images, texts = world.gather(image, counts), world.gather(text, counts)
    targets = _own_rows(image, counts, world)
    if weights is not None:
        sides = ((image, texts), (text, images))
        by_image, by_text = (F.cross_entropy(scale * a @ b.T, targets, reduction="none") @ weights for a, b in sides)
        return (by_image + by_text) / (2 * world.gather(weights[:, None], counts).sum())
    by_image = F.cross_entropy(scale * image @ texts.T, targets, reduction="sum")
    by_text = F.cross_entropy(scale * text @ images.T, targets, reduction="sum")
    return (by_image + by_text) / (2 * len(images))


def sigmoid_share(image: Part, text: Part, scale: Scalar, bias: Scalar, world: World) -> Scalar:
    """Return this process's share of SigLIP's loss.

    With v all n captions of all processes and R this process's rows: -1/n Σ_{i in R} Σ_j log sigmoid(z_ij (s u_i·v_j +
    b)); summed over processes it is equation 1 of Zhai et al. 2023.
    """
    counts = world.counts(len(image), image.device)
    texts = world.gather(text, counts)
    logits = scale * image @ texts.T + bias
    signs = -torch.ones_like(logits)
    signs[torch.arange(len(image), device=image.device), _own_rows(image, counts, world)] = 1
    return -F.logsigmoid(signs * logits).sum() / len(texts)


def nt_xent_share(first: Part, second: Part, temperature: float, world: World) -> Scalar:
    """Return this process's share of NT-Xent (see `clipmem.train.objectives.image_only.nt_xent`)."""
    counts = world.counts(len(first), first.device)
    z = torch.cat([world.gather(first, counts), world.gather(second, counts)])
    n, index = sum(counts), _own_rows(first, counts, world)
    rows = torch.cat([index, index + n])
    logits = torch.cat([first, second]) @ z.T / temperature
    logits = logits.scatter(1, rows[:, None], -torch.inf)  # exclude each view itself
    return F.cross_entropy(logits, (rows + n) % (2 * n), reduction="sum") / (2 * n)


def _own_rows(rows: Tensor, counts: Sequence[int], world: World) -> Tensor:
    start = sum(counts[: world.rank])
    return torch.arange(start, start + len(rows), device=rows.device)


def check_world(world: World, module: nn.Module, *, objective: str, shares: bool, smallest: int) -> None:
    """Refuse settings that would not be exact on several processes."""
    if world.size == 1:
        return
    subject, alone = f"[train] objective = {objective!r} on {world.size} processes", "Train it without torchrun."
    require(shares, subject, "a loss that cannot be split into shares", "", alone)
    got, hint = f"batches of {smallest} pairs for {world.size} processes", "Use larger batches, or fewer processes."
    require(smallest >= world.size, "[train] batch_size", got, "at least one pair per process", hint)
    norm = any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for part in module.modules())
    subject, got = f"a model with batch norm on {world.size} processes", "averages over each process's own rows"
    require(not norm, subject, got, "a model without batch norm, such as a ViT", alone)


# ---- under torchrun


@contextlib.contextmanager
def connected(world: World, store: dist.Store, device: str) -> Generator[None]:  # pyright: ignore[reportPrivateImportUsage]
    """Connect the processes inside the block: gloo on CPUs, NCCL on GPUs."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", store=store, rank=world.rank, world_size=world.size, timeout=_TIMEOUT
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
