"""The training loop: contrastive loss, AdamW, seeded views and caption choices; the same code for f and for g."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from clipmem.base.errors import InputError, RunError
from clipmem.base.random import derive_seed, uniform
from clipmem.base.recipes import TrainSection
from clipmem.data.views import Crops, draw_crops, normalise_pixels, pair_keys, render
from clipmem.models.openclip import OpenClipEncoder, contrastive_loss
from clipmem.store.atomic import atomic_write
from clipmem.store.hashing import json_sha256
from clipmem.train.numerics import computing
from clipmem.train.paired import TrainingSet
from clipmem.train.schedule import epoch_batches, learning_rate


@dataclass(frozen=True)
class TrainingData:
    """Pictures and captions of one training set, row k being slot k.

    Attributes:
        pixels: Decoded pictures, memory-mapped, shape (rows, size, size, 3).
        rows: Row of `pixels` of each slot, shape (n,).
        captions: The captions of each slot, those it is trained with.
    """

    pixels: UInt8[np.ndarray, "rows size size 3"]
    rows: Int[np.ndarray, " n"]
    captions: Sequence[Sequence[str]]


@dataclass
class _Progress:
    """What is reported while training goes on: (step, steps, loss, pairs a second)."""

    call: Callable[[int, int, float, float], object]
    pairs: int = 0
    since: float = field(default_factory=time.monotonic)

    def __call__(self, step: int, steps: int, loss: float, pairs: int) -> None:
        self.pairs += pairs
        now = time.monotonic()
        if now - self.since >= 0.5 or step == steps:
            self.call(step, steps, loss, self.pairs / max(now - self.since, 1e-9))
            self.pairs, self.since = 0, now


def train(
    encoder: OpenClipEncoder,
    data: TrainingData,
    plan: TrainingSet,
    settings: TrainSection,
    *,
    folder: Path,
    precision: str,
    device: str = "cpu",
    progress: Callable[[int, int, float, float], object] = lambda step, steps, loss, rate: None,  # noqa: ARG005
) -> list[Path]:
    """Train one model and write it.

    The loss is open_clip's: for the batch's normalised embeddings u, v and scale s,
    (CE(s u vᵀ, identity) + CE(s v uᵀ, identity)) / 2.

    Args:
        encoder: A fresh model; trained in place.
        data: Its training set.
        plan: Which slot is which pair, and the seed.
        settings: The recipe's `[train]` section.
        folder: Where the model, `log.jsonl` and `record.json` go.
        precision: `fp32` or `bf16` (resolved).
        device: `cpu` or `cuda`.
        progress: Called about twice a second with step, steps, loss and pairs a second.

    Returns:
        The files written.

    Raises:
        RunError: The loss is not finite; the step and what to try are named.
    """
    n = len(plan.uids)
    batches_per_epoch = math.ceil(n / settings.batch_size)
    if n // batches_per_epoch < 2:
        raise InputError(
            "[train] batch_size",
            got=f"{settings.batch_size} for {n} pairs: a batch of one pair has nothing to contrast",
            todo="Use more pairs or another batch size.",
        )
    steps = settings.epochs * batches_per_epoch
    record = _record(encoder, plan, settings, steps=steps, precision=precision, device=device)
    texts = _tokenize(encoder, data.captions)
    encoder.compact_vocabulary(texts.tokens)
    decay = 1.0
    log: list[dict[str, Any]] = []
    report = _Progress(progress)
    try:
        encoder.module.to(device).train()
        optimizer = _optimizer(encoder.module, settings)
        for step, epoch, pixels, tokens in _batches(encoder, data, texts, plan, settings, device):
            rate = learning_rate(step, steps, peak=settings.lr, warmup=settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _step(encoder, optimizer, pixels, tokens, settings, precision, device)
            decay *= 1 - rate * settings.weight_decay
            if not math.isfinite(loss):
                raise RunError(
                    f"training {plan.side}, seed {plan.seed}: the loss is {loss} at step {step + 1} of {steps}. "
                    "Try a smaller train.lr, a longer train.warmup, or train.precision = 'fp32'."
                )
            scale = encoder.logit_scale().item()
            log.append({"step": step + 1, "epoch": epoch, "loss": loss, "lr": rate, "logit_scale": scale})
            report(step + 1, steps, loss, len(pixels))
    finally:
        encoder.expand_vocabulary(decay)
    return _write(encoder, folder, record, log)


class _Texts(NamedTuple):
    """All captions of a training set as tokens; those of slot k are the rows offsets[k] to offsets[k] + counts[k]."""

    tokens: Int[Tensor, "m length"]
    offsets: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " n"]


def _batches(
    encoder: OpenClipEncoder,
    data: TrainingData,
    texts: _Texts,
    plan: TrainingSet,
    settings: TrainSection,
    device: str,
) -> Iterator[tuple[int, int, Float[Tensor, "n 3 size size"], Int[Tensor, "n length"]]]:
    """Yield every step's number, epoch, pictures and captions."""
    keys, step = pair_keys(plan.uids), 0
    for epoch in range(settings.epochs):
        draws = _draw_epoch(keys, texts.counts, plan.seed, epoch, settings, size=data.pixels.shape[1])
        for batch in epoch_batches(len(keys), settings.batch_size, seed=plan.seed, epoch=epoch):
            rows = texts.offsets[batch] + draws.caption[batch]
            yield step, epoch, _views(data, batch, draws.crops, encoder, device), texts.tokens[rows].to(device)
            step += 1


@dataclass(frozen=True)
class _EpochDraws:
    crops: Crops
    caption: Int[np.ndarray, " n"]


def _draw_epoch(
    keys: np.ndarray, counts: np.ndarray, seed: int, epoch: int, settings: TrainSection, *, size: int
) -> _EpochDraws:
    """Draw every slot's crop and caption for one epoch; both depend on (seed, epoch, pair) only."""
    crops = draw_crops(
        keys,
        seed=derive_seed(seed, "view", epoch),
        size=size,
        scale=settings.crop_scale,
        ratio=settings.crop_ratio,
        flip=settings.flip,
    )
    caption = np.floor(uniform(keys, derive_seed(seed, "caption", epoch), 1)[:, 0] * counts).astype(np.int64)
    return _EpochDraws(crops, caption)


def _views(
    data: TrainingData, batch: np.ndarray, crops: Crops, encoder: OpenClipEncoder, device: str
) -> Float[Tensor, "n 3 size size"]:
    pixels = torch.from_numpy(data.pixels[data.rows[batch]]).to(device)
    chosen = Crops(*(values[batch] for values in crops))
    return normalise_pixels(render(pixels, chosen, size=encoder.image_size), encoder.mean, encoder.std)


def _step(
    encoder: OpenClipEncoder,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    texts: Tensor,
    settings: TrainSection,
    precision: str,
    device: str,
) -> float:
    with computing(precision, device, tokens=encoder.tokens):
        image, text = encoder.encode_image(pixels), encoder.encode_text(texts)
    # the loss in float32: bf16 has 3 digits, too few for a softmax over similarities
    loss = contrastive_loss(
        F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1), encoder.logit_scale()
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if settings.grad_clip:
        nn.utils.clip_grad_norm_(encoder.module.parameters(), settings.grad_clip)
    optimizer.step()
    with torch.no_grad():
        # as open_clip: a scale above 100 makes training unstable
        encoder.module.logit_scale.clamp_(0, math.log(100))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return float(loss.detach())


def _optimizer(module: nn.Module, settings: TrainSection) -> torch.optim.Optimizer:
    """AdamW; as in open_clip, gains, biases and the logit scale are not decayed."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if p.ndim < 2 or "bn" in name or "ln" in name or "logit_scale" in name]
    decayed = [p for name, p in named if not (p.ndim < 2 or "bn" in name or "ln" in name or "logit_scale" in name)]
    groups: list[dict[str, Any]] = [
        {"params": plain, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": settings.weight_decay},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True
    )


def _tokenize(encoder: OpenClipEncoder, captions: Sequence[Sequence[str]]) -> _Texts:
    counts = np.array([len(own) for own in captions], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return _Texts(encoder.tokenize([text for own in captions for text in own]), offsets, counts)


def state_hash(module: nn.Module) -> str:
    """Hash a model's parameters and buffers, names and bytes."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _record(
    encoder: OpenClipEncoder,
    plan: TrainingSet,
    settings: TrainSection,
    *,
    steps: int,
    precision: str,
    device: str,
) -> dict[str, Any]:
    """Describe the training so that f's and g's can be compared (see `paired.check_paired`)."""
    n, order = len(plan.uids), hashlib.sha256()
    for epoch in range(settings.epochs):
        for batch in epoch_batches(n, settings.batch_size, seed=plan.seed, epoch=epoch):
            order.update(";".join(plan.uids[slot] if slot < plan.shared else "own" for slot in batch).encode() + b"\n")
    return {
        "side": plan.side,
        "seed": plan.seed,
        "pairs": n,
        "steps": steps,
        "presentations": n * settings.epochs,
        "init_sha256": state_hash(encoder.module),
        "shared_order_sha256": order.hexdigest(),
        "settings_sha256": json_sha256([settings.model_dump(mode="json"), precision, device]),
        "precision": precision,
        "device": device,
    }


def _write(encoder: OpenClipEncoder, folder: Path, record: dict[str, Any], log: list[dict[str, Any]]) -> list[Path]:
    encoder.module.to("cpu")
    record = {**record, "final_sha256": state_hash(encoder.module)}
    files = encoder.save(folder)
    lines = "".join(json.dumps(entry) + "\n" for entry in log)
    atomic_write(folder / "log.jsonl", lines.encode())
    atomic_write(folder / "record.json", (json.dumps(record, indent=1) + "\n").encode())
    return [*files, folder / "log.jsonl", folder / "record.json"]
