"""The training loop, the same for f and g: any objective, AdamW, seeded views and captions."""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clipmem import _version
from clipmem.base.errors import RunError, require
from clipmem.base.hashing import json_sha256
from clipmem.base.random import derive_seed
from clipmem.base.sections import TrainSection
from clipmem.models.numerics import check_compiler, multiplying
from clipmem.models.parts import rate_factors
from clipmem.models.protocol import TrainableEncoder
from clipmem.models.start import freeze, parts_of
from clipmem.train.batches import Batch, Batches, TextTokens, TrainingData, embed_frozen, made_ahead, tokenize
from clipmem.train.checkpoint import Checkpoints, State, TrainingStopped
from clipmem.train.distributed import check_world
from clipmem.train.hooks import Hooks, Recorder
from clipmem.train.objectives import Objective, Towers, create_objective
from clipmem.train.paired import TrainingSet
from clipmem.train.record import describe, write

_SETTLE = 16  # steps between readings of the losses, which synchronize with the accelerator


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


@dataclass(frozen=True)
class Session:
    """What a process does besides computing a training; nothing here changes the result.

    Attributes:
        progress: Called with step, steps, loss and pairs per second.
        checkpoints: Where and when to save the state; None: never.
        timing: Seconds spent, updated during training.
        ahead: Batches that a thread makes in advance.
    """

    progress: Callable[[int, int, float, float], object] = lambda step, steps, loss, rate: None  # noqa: ARG005
    checkpoints: Checkpoints | None = None
    timing: Timing = field(default_factory=Timing)
    ahead: int = 0


def train(
    towers: Towers,
    data: TrainingData,
    plan: TrainingSet,
    settings: TrainSection,
    folder: Path,
    session: Session | None = None,
) -> list[Path]:
    """Train one model and write it to `folder`."""
    encoder, device, world, hooks = towers.encoder, towers.device, towers.world, towers.hooks
    session = session or Session()
    settings, checkpoints = hooks.through(lambda hook, train: hook.settings(train), settings), session.checkpoints
    if settings.record or any(hook.follows for hook in hooks.all):
        recorder = Recorder(plan.uids, settings.epochs, world, keep=settings.record)
        hooks.each(lambda hook: hook.follow(recorder.record))
        # first, so that noise on unit vectors is not in the record
        hooks = Hooks((recorder, *hooks.all))
    towers = replace(towers, hooks=hooks, frozen=frozenset(settings.freeze))
    with torch.random.fork_rng(devices=[]), multiplying(towers.precision, device):
        # random layers, such as patch dropout, must not depend on earlier draws of the process
        torch.manual_seed(derive_seed(plan.seed, "layers"))
        batches_per_epoch = plan.batch_count(settings.batch_size)
        smallest, steps = len(plan.uids) // batches_per_epoch, settings.epochs * batches_per_epoch
        got = f"{settings.batch_size} for {len(plan.uids)} pairs: a batch of one pair has nothing to contrast"
        require(smallest > 1, "[train] batch_size", got, "", "Use more pairs or another batch size.")
        last = hooks.last_step(steps)
        n, seed = len(plan.uids), derive_seed(plan.seed, "objective")
        objective = create_objective(encoder, settings, labels=data.labels, classes=data.classes, n=n, seed=seed)
        smallest -= bool(plan.left_out)
        check_world(world, encoder.module, objective=settings.objective, shares=objective.shares, smallest=smallest)
        # before `prepare`: the initial weights of one seed have the same hash for every objective
        record = describe(towers, objective, plan, settings, last)
        hooks.each(lambda hook: hook.begin(encoder.module))
        encoder.module.to(device).train()
        freeze(encoder, settings)
        objective.prepare(encoder)
        texts = tokenize(encoder, data.captions, hooks.captions(data.captions, plan.uids))
        compact = encoder.compact_vocabulary(texts.tokens) if objective.uses_text else ""
        objective.to(device)
        fixed = embed_frozen(towers, data.pixels, data.rows, texts.tokens)
        report = _Progress(session.progress)
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
            batches = Batches(towers, objective.views, data, texts, plan, settings, fixed)
            steps_left = batches.of_steps(range(state.step, last))
            for batch in _timed(made_ahead(steps_left, depth=session.ahead), session.timing):
                rate = learning_rate(state.step, steps, peak=settings.lr, warmup=settings.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                loss = compute(replace(towers, moment=batch.moment), batch.views, batch.tokens, batch.labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if settings.grad_clip:
                    nn.utils.clip_grad_norm_([p for _, p in trained], settings.grad_clip)
                optimizer.step()
                scale: nn.Parameter = encoder.module.logit_scale  # pyright: ignore[reportAssignmentType]
                if objective.uses_text and scale.requires_grad:
                    with torch.no_grad():
                        # as open_clip: a scale above 100 makes training unstable
                        scale.clamp_(0, math.log(100))
                loss = world.mean(loss.detach())
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


def learning_rate(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Rise linearly over the first `warmup * steps` steps, then fall along a half cosine to 0."""
    rise = round(warmup * steps)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _check_loss(state: State, plan: TrainingSet, steps: int) -> None:
    bad = state.log.settle()
    if bad:
        told = f"training {plan.side}, seed {plan.seed}: the loss is {bad['loss']} at step {bad['step']} of {steps}"
        raise RunError(f"{told}. Try a smaller train.lr, a longer train.warmup, or train.precision = 'fp32'.")


def _keep(state: State, checkpoints: Checkpoints, plan: TrainingSet, steps: int) -> None:
    """Write a checkpoint if it is due or the training must stop, except after the last step."""
    stop = checkpoints.stop()
    due = time.monotonic() - checkpoints.last >= checkpoints.every
    if state.step < steps and (stop or due):
        _check_loss(state, plan, steps)
        state.save(checkpoints.file)
        checkpoints.last = time.monotonic()
        if stop:
            raise TrainingStopped


def _timed(batches: Iterator[Batch], timing: Timing) -> Iterator[Batch]:
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
    record: Mapping[str, object], data: TrainingData, plan: TrainingSet, texts: TextTokens, hooks: Hooks
) -> str:
    """Hash everything that determines a training bitwise, so that checkpoints of other trainings are ignored."""
    numbers = [data.rows, texts.tokens.numpy(), texts.counts, *([] if data.labels is None else [data.labels])]
    described = [hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() for values in numbers]
    software = [_version.__version__, torch.__version__, torch.get_num_threads()]
    hooked = [hooks.facts(), hooks.content()]
    return json_sha256([record, list(plan.uids), plan.left_out, list(data.pixels.shape), described, software, hooked])


def _trained(encoder: TrainableEncoder, objective: Objective) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters to train, by name: those of the towers that the objective uses, and its own."""
    ours = [
        (name, p)
        for name, p in encoder.module.named_parameters()
        if p.requires_grad and (objective.uses_text or encoder.is_image_parameter(name))
    ]
    return [*ours, *objective.named_parameters(prefix="objective")]


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
    rated = [
        {"params": parameters, "weight_decay": settings.weight_decay * decayed, "factor": factor}
        for (decayed, factor), parameters in sorted(groups.items())
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(rated, lr=settings.lr, betas=betas, eps=settings.eps, fused=True)
