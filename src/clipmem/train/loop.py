"""The training loop, the same for f and g: any objective, AdamW, seeded views and captions."""

import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8, UInt64
from torch import Tensor, nn

from clipmem import _version
from clipmem.base.errors import RunError, require
from clipmem.base.hashing import json_sha256
from clipmem.base.random import derive_seed, uniform
from clipmem.base.sections import TrainSection
from clipmem.data.views import Crops, distort, draw_crops, normalize_pixels, pair_keys, render, send
from clipmem.models.numerics import check_compiler, multiplying
from clipmem.models.parts import rate_factors
from clipmem.models.protocol import TrainableEncoder
from clipmem.models.start import freeze, parts_of
from clipmem.train.ahead import made_ahead
from clipmem.train.checkpoint import Checkpoints, State, TrainingStopped
from clipmem.train.distributed import ALONE, World, check_world
from clipmem.train.frozen import embed_frozen
from clipmem.train.hooks import NO_HOOKS, Hooks, Kind, Moment
from clipmem.train.objectives import Objective, Towers, create_objective
from clipmem.train.objectives.base import Images, Texts
from clipmem.train.paired import TrainingSet
from clipmem.train.record import describe, write
from clipmem.train.recorder import Recorder
from clipmem.train.schedule import learning_rate

_ALL_STEPS = range(sys.maxsize)
_SETTLE = 16  # steps between readings of the losses, which synchronize with the accelerator


@dataclass(frozen=True)
class TrainingData:
    """Images and captions of a training set, by slot.

    Attributes:
        pixels: Decoded images, memory-mapped, shape (rows, size, size, 3).
        rows: Row of `pixels` of each slot, shape (n,).
        captions: Training captions of each slot.
        labels: Class index of each slot, from 0, shape (n,); only for some objectives.
        classes: Number of classes, the same for f and g; 0 = the largest label + 1.
    """

    pixels: UInt8[np.ndarray, "rows size size 3"]
    rows: Int[np.ndarray, " n"]
    captions: Sequence[Sequence[str]]
    labels: Int[np.ndarray, " n"] | None = None
    classes: int = 0


@dataclass
class Timing:
    """Seconds that a training spent on data and on computation; updated during training."""

    data: float = 0.0
    compute: float = 0.0
    pairs: int = 0

    @property
    def rate(self) -> float:
        """Pairs per second."""
        return self.pairs / max(self.data + self.compute, 1e-9)

    @property
    def data_share(self) -> float:
        """Share of the time spent on data, from 0 to 1."""
        return self.data / max(self.data + self.compute, 1e-9)


@dataclass
class _Progress:
    """Report (step, steps, loss, pairs per second) every half second."""

    call: Callable[[int, int, float, float], object]
    pairs: int = 0
    since: float = field(default_factory=time.monotonic)

    def __call__(self, step: int, steps: int, loss: Tensor, pairs: int) -> None:
        self.pairs += pairs
        now = time.monotonic()
        if now - self.since >= 0.5 or step == steps:
            self.call(step, steps, float(loss), self.pairs / max(now - self.since, 1e-9))
            self.pairs, self.since = 0, now


def train(
    encoder: TrainableEncoder,
    data: TrainingData,
    plan: TrainingSet,
    settings: TrainSection,
    *,
    folder: Path,
    precision: str,
    device: str = "cpu",
    progress: Callable[[int, int, float, float], object] = lambda step, steps, loss, rate: None,  # noqa: ARG005
    checkpoints: Checkpoints | None = None,
    timing: Timing | None = None,
    world: World = ALONE,
    ahead: int = 0,
    hooks: Hooks = NO_HOOKS,
) -> list[Path]:
    """Train one model and write it to `folder`."""
    settings, timing = hooks.through(lambda hook, train: hook.settings(train), settings), timing or Timing()
    if settings.record or any(hook.follows for hook in hooks.all):
        recorder = Recorder(plan.uids, settings.epochs, world, keep=settings.record)
        hooks.each(lambda hook: hook.follow(recorder.record))
        # first, so that noise on unit vectors is not in the record
        hooks = Hooks((recorder, *hooks.all))
    towers = Towers(encoder, precision, device, world, hooks, frozen=frozenset(settings.freeze))
    with torch.random.fork_rng(devices=[]), multiplying(precision, device):
        # random layers, such as patch dropout, must not depend on earlier draws of the process
        torch.manual_seed(derive_seed(plan.seed, "layers"))
        steps = _count_steps(plan, settings)
        last = hooks.last_step(steps)
        objective = create_objective(
            encoder,
            settings,
            labels=data.labels,
            classes=data.classes,
            n=len(plan.uids),
            seed=derive_seed(plan.seed, "objective"),
        )
        smallest = _smallest(plan, settings) - bool(plan.left_out)
        check_world(world, encoder.module, objective=settings.objective, shares=objective.shares, smallest=smallest)
        # before `prepare`: the initial weights of one seed have the same hash for every objective
        record = describe(towers, objective, plan, settings, last)
        hooks.each(lambda hook: hook.begin(encoder.module))
        encoder.module.to(device).train()
        freeze(encoder, settings)
        objective.prepare(encoder)
        texts = _tokenize(encoder, data.captions, hooks.captions(data.captions, plan.uids))
        compact = encoder.compact_vocabulary(texts.tokens) if objective.uses_text else ""
        objective.to(device)
        fixed = embed_frozen(towers, data.pixels, data.rows, texts.tokens)
        report = _Progress(progress)
        if settings.compile == "on":
            check_compiler(settings.compile, device)
            encoder.compile()
        trained = _trained(encoder, objective)
        factors = rate_factors(parts_of(encoder), settings.layer_decay)
        optimizer = _optimizer(trained, factors, settings)
        # the unused rows of the vocabulary change by weight decay only
        unused = settings.weight_decay * factors[compact] if compact in dict(trained) else 0.0
        state = State(encoder.module, objective, optimizer, trained, _identity(record, data, plan, texts, hooks), hooks)
        try:
            if checkpoints:
                state.load(checkpoints.file)
            # after loading the state: DDP broadcasts that of the first process
            compute = world.loss_function(objective, trained)
            steps_left = range(state.step, last)
            batches = _batches(towers, objective.views, data, texts, plan, settings, steps_left, fixed)
            for batch in _timed(made_ahead(batches, depth=ahead), timing):
                rate = learning_rate(state.step, steps, peak=settings.lr, warmup=settings.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                now = replace(towers, moment=batch.moment)
                loss = _step(objective, compute, now, optimizer, trained, batch, settings)
                state.decay *= 1 - rate * unused
                state.step += 1
                state.stepped()
                state.log.add(loss, encoder.logit_scale(), step=state.step, epoch=batch.moment.epoch, lr=rate)
                if state.step % _SETTLE == 0 or state.step == last:
                    _check_loss(state, plan, last)
                report(state.step, last, loss, batch.pairs)
                # all processes have the same state, so one saves it and all load it
                if checkpoints and world.rank == 0:
                    _keep(state, checkpoints, plan, last)
            state.decay = hooks.through(lambda hook, decay: hook.end(state.weights, decay), state.decay)
        finally:
            encoder.expand_vocabulary(state.decay)
        objective.finish(encoder)
        hooks.each(lambda hook: hook.after(encoder.module))
        if world.rank > 0:
            return []
        files = [file for hook in hooks.all for file in hook.write(folder)]
        return [*files, *write(encoder, objective, folder, record, state.log.entries)]


def _check_loss(state: State, plan: TrainingSet, steps: int) -> None:
    bad = state.log.settle()
    if bad:
        raise RunError(
            f"training {plan.side}, seed {plan.seed}: the loss is {bad['loss']} at step {bad['step']} of {steps}. "
            "Try a smaller train.lr, a longer train.warmup, or train.precision = 'fp32'."
        )


def _keep(state: State, checkpoints: Checkpoints, plan: TrainingSet, steps: int) -> None:
    """Write a checkpoint if it is due or the training must stop, except after the last step."""
    stop = checkpoints.stop()
    if state.step < steps and (stop or checkpoints.due()):
        _check_loss(state, plan, steps)
        state.save(checkpoints.file)
        checkpoints.written()
        if stop:
            raise TrainingStopped


def _timed(batches: Iterator["_Batch"], timing: Timing) -> Iterator["_Batch"]:
    while True:
        started = time.monotonic()
        batch = next(batches, None)
        ready = time.monotonic()
        timing.data += ready - started
        if batch is None:
            return
        yield batch
        timing.compute += time.monotonic() - ready
        timing.pairs += batch.pairs


def _identity(
    record: dict[str, Any], data: TrainingData, plan: TrainingSet, texts: "_Texts", hooks: Hooks = NO_HOOKS
) -> str:
    """Hash everything that determines a training bitwise, so that checkpoints of other trainings are ignored."""
    numbers = [data.rows, texts.tokens.numpy(), texts.counts, *([] if data.labels is None else [data.labels])]
    described = [hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() for values in numbers]
    software = [_version.__version__, torch.__version__, torch.get_num_threads()]
    hooked = [hooks.facts(), hooks.content()]
    return json_sha256([record, list(plan.uids), plan.left_out, list(data.pixels.shape), described, software, hooked])


def _smallest(plan: TrainingSet, settings: TrainSection) -> int:
    return len(plan.uids) // plan.batch_count(settings.batch_size)


def _count_steps(plan: TrainingSet, settings: TrainSection) -> int:
    got = f"{settings.batch_size} for {len(plan.uids)} pairs: a batch of one pair has nothing to contrast"
    require(_smallest(plan, settings) > 1, "[train] batch_size", got, "", "Use more pairs or another batch size.")
    return settings.epochs * plan.batch_count(settings.batch_size)


class _Texts(NamedTuple):
    """All texts of a training set as tokens; the captions of slot k are the counts[k] rows from offsets[k]."""

    tokens: Int[Tensor, "m length"]
    offsets: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " n"]


class _Batch(NamedTuple):
    """This process's part of a step: views of each image, one caption each, and class labels if any."""

    moment: Moment
    pairs: int  # of all processes
    views: list[Images]
    tokens: Texts
    labels: Int[Tensor, " n"] | None


def _batches(
    towers: Towers,
    views: int,
    data: TrainingData,
    texts: _Texts,
    plan: TrainingSet,
    settings: TrainSection,
    steps: range = _ALL_STEPS,
    fixed: Mapping[Kind, Tensor] = MappingProxyType({}),
) -> Iterator[_Batch]:
    hooks, device = towers.hooks, towers.device
    keys = pair_keys(plan.uids)
    labels = None if data.labels is None else torch.from_numpy(data.labels.astype(np.int64))
    per_epoch = plan.batch_count(settings.batch_size)
    for epoch in range(steps.start // per_epoch, min(settings.epochs, -(-steps.stop // per_epoch))):
        draws = _draw_epoch(keys, texts.counts, plan.seed, epoch, settings, size=data.pixels.shape[1], views=views)
        arranged = hooks.batches(plan.batches(settings.batch_size, epoch), epoch)
        for step, whole in enumerate(arranged, start=epoch * per_epoch):
            if step not in steps:
                continue
            batch = towers.world.share(whole)
            moment = Moment(plan.seed, epoch, step, batch, keys[batch])
            choice = hooks.through(lambda hook, choice: hook.choose(choice, moment), draws.caption[batch])  # noqa: B023
            places = texts.offsets[batch] + choice
            if "text" in fixed:
                tokens = fixed["text"][places]
            else:
                tokens = hooks.through(lambda hook, tokens: hook.tokens(tokens, moment), texts.tokens[places])  # noqa: B023
                tokens = towers.encoder.trim(tokens)
            if "image" in fixed:
                images = [send(fixed["image"][batch], device)]
            else:
                images = [_view(data, draws.crops[view], view, towers, moment, settings) for view in range(views)]
            classes = None if labels is None else send(labels[batch], device)
            yield _Batch(moment, len(whole), images, send(tokens, device), classes)


@dataclass(frozen=True)
class _EpochDraws:
    crops: list[Crops]
    caption: Int[np.ndarray, " n"]


def _draw_epoch(
    keys: np.ndarray, counts: np.ndarray, seed: int, epoch: int, settings: TrainSection, *, size: int, views: int = 1
) -> _EpochDraws:
    """Draw every slot's crops by (seed, epoch, pair, view) and caption by (seed, epoch, pair)."""
    crops = [
        draw_crops(
            keys,
            # the first view is the same for every objective
            seed=derive_seed(seed, "view", epoch, *([view] if view else [])),
            size=size,
            scale=settings.crop_scale,
            ratio=settings.crop_ratio,
            flip=settings.flip,
        )
        for view in range(views)
    ]
    return _EpochDraws(crops, draw_captions(keys, counts, seed=seed, epoch=epoch))


def draw_captions(
    keys: UInt64[np.ndarray, " n"], counts: Int[np.ndarray, " n"], *, seed: int, epoch: int
) -> Int[np.ndarray, " n"]:
    """Draw one of the `counts` captions of each pair for an epoch, uniformly, by (seed, epoch, pair)."""
    return np.floor(uniform(keys, derive_seed(seed, "caption", epoch), 1)[:, 0] * counts).astype(np.int64)


def _view(
    data: TrainingData, draws: Crops, view: int, towers: Towers, moment: Moment, settings: TrainSection
) -> Float[Tensor, "n 3 size size"]:
    encoder = towers.encoder
    pixels = send(torch.from_numpy(data.pixels[data.rows[moment.slots]]), towers.device)
    crops = Crops(*(values[moment.slots] for values in draws))
    values = render(pixels, crops, size=encoder.image_size)
    values = towers.hooks.through(lambda hook, images: hook.images(images, pixels, crops, moment, view), values)
    how = {"strength": settings.color, "gray": settings.grayscale, "blur": settings.blur}
    seed = derive_seed(moment.seed, "colour", moment.epoch, view)
    values = distort(values, moment.keys, seed=seed, **how)
    return normalize_pixels(values, encoder.mean, encoder.std, in_place=True)


def _trained(encoder: TrainableEncoder, objective: Objective) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters to train, by name: those of the towers that the objective uses, and its own."""
    ours = [
        (name, p)
        for name, p in encoder.module.named_parameters()
        if p.requires_grad and (objective.uses_text or encoder.is_image_parameter(name))
    ]
    return [*ours, *objective.named_parameters(prefix="objective")]


def _step(
    objective: Objective,
    compute: Callable[..., Tensor],
    towers: Towers,
    optimizer: torch.optim.Optimizer,
    trained: Sequence[tuple[str, nn.Parameter]],
    batch: _Batch,
    settings: TrainSection,
) -> Tensor:
    loss = compute(towers, batch.views, batch.tokens, batch.labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if settings.grad_clip:
        nn.utils.clip_grad_norm_([p for _, p in trained], settings.grad_clip)
    optimizer.step()
    scale: nn.Parameter = towers.encoder.module.logit_scale  # pyright: ignore[reportAssignmentType]
    if objective.uses_text and scale.requires_grad:
        with torch.no_grad():
            # as open_clip: a scale above 100 makes training unstable
            scale.clamp_(0, math.log(100))
    return towers.world.mean(loss.detach())


def _optimizer(
    named: Iterable[tuple[str, nn.Parameter]], factors: Mapping[str, float], settings: TrainSection
) -> torch.optim.Optimizer:
    """Return AdamW without weight decay for gains, biases and the logit scale, as in open_clip.

    A group for each factor on the learning rate; parameters of the objective have 1.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, p in named:
        exempt = p.ndim < 2 or "bn" in name or "ln" in name or "logit_scale" in name
        groups.setdefault((not exempt, factors.get(name, 1.0)), []).append(p)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": settings.weight_decay * decayed, "factor": factor}
            for (decayed, factor), parameters in sorted(groups.items())
        ],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


def _tokenize(
    encoder: TrainableEncoder, captions: Sequence[Sequence[str]], texts: Sequence[Sequence[str]] | None = None
) -> _Texts:
    """Tokenize the `texts` of each pair, which start with its captions (default: the captions)."""
    texts = captions if texts is None else texts
    counts, every = (np.array([len(pair) for pair in kind], dtype=np.int64) for kind in (captions, texts))
    offsets = np.concatenate([[0], np.cumsum(every)[:-1]]).astype(np.int64)
    return _Texts(encoder.tokenize([text for pair in texts for text in pair]), offsets, counts)
