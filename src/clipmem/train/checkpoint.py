"""Checkpoints during training: a killed training resumes and ends with the same bytes.

A safetensors file, written atomically, holds what a step changes: weights and buffers, AdamW's moments, the objective's
parameters, the state of hooks, torch's random state, and in its metadata the step and the decay of unused token rows.
Every checkpoint appends to the step log, a file of its own. Batches and views are functions of step, epoch and pair,
and need no state. The file names its training; damaged files and those of another training are ignored.
"""

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from clipmem.base.paths import atomic_write, explain_write_errors, make_folder
from clipmem.train.hooks import NO_HOOKS, Hooks, Weights

CHECKPOINT_FILE, LOG_FILE = "checkpoint.safetensors", "checkpoint.log.jsonl"
EVERY = 60.0
_FORMAT = 2


class TrainingStopped(Exception):  # noqa: N818
    """A training was asked to stop and has written its checkpoint."""


@dataclass
class Checkpoints:
    """Where and when to save checkpoints; this does not change results."""

    file: Path
    every: float = EVERY
    stop: Callable[[], bool] = lambda: False
    last: float = field(default_factory=time.monotonic)  # when the last was written

    def remove(self) -> None:
        """Delete the checkpoint and its log."""
        for name in (CHECKPOINT_FILE, LOG_FILE):
            self.file.with_name(name).unlink(missing_ok=True)


class Step(TypedDict):
    """A line of `log.jsonl`."""

    step: int
    epoch: int
    loss: float
    lr: float
    logit_scale: float


@dataclass
class StepLog:
    """One entry per step. Values stay on the device until `settle`, because reading them synchronizes."""

    entries: list[Step] = field(default_factory=list[Step])
    _waiting: list[tuple[Step, Tensor, Tensor]] = field(default_factory=list[tuple[Step, Tensor, Tensor]])
    _saved: int = 0

    def add(self, loss: Tensor, scale: Tensor, *, step: int, epoch: int, lr: float) -> None:
        """Add a step."""
        entry = Step(step=step, epoch=epoch, loss=0.0, lr=lr, logit_scale=0.0)
        self._waiting.append((entry, loss, scale.detach().clone()))

    def settle(self) -> Step | None:
        """Read pending entries; return the first of them with a loss that is not finite."""
        start = len(self.entries)
        for entry, loss, scale in self._waiting:
            entry["loss"], entry["logit_scale"] = float(loss), float(scale)
            self.entries.append(entry)
        self._waiting.clear()
        return next((entry for entry in self.entries[start:] if not math.isfinite(entry["loss"])), None)

    def save(self, file: Path) -> None:
        """Append new entries to the file."""
        with explain_write_errors(file), file.open("a" if self._saved else "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(entry) + "\n" for entry in self.entries[self._saved :])
            stream.flush()
            os.fsync(stream.fileno())
        self._saved = len(self.entries)

    def load(self, file: Path, steps: int) -> bool:
        """Read the entries of the first `steps` steps; return False if one is missing."""
        try:
            with file.open(encoding="utf-8") as stream:
                entries = [json.loads(line) for line in itertools.islice(stream, steps)]
        except (OSError, ValueError):
            entries = []
        if len(entries) < steps:
            return False
        self.entries, self._saved = entries, steps
        atomic_write(file, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        return True


@dataclass
class State:
    """The state of a training between two steps."""

    module: nn.Module
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    trained: Sequence[tuple[str, nn.Parameter]]
    identity: str
    hooks: Hooks = NO_HOOKS
    step: int = 0
    decay: float = 1.0
    log: StepLog = field(default_factory=StepLog)

    def __post_init__(self) -> None:
        """Let the hooks start their state at the initial weights."""
        buffers = [entry for entry in self.module.named_buffers() if entry[0].endswith(("running_mean", "running_var"))]
        self.weights: Weights = [*self.trained, *buffers]
        self.stepped()

    def stepped(self) -> None:
        """Let the hooks read the weights."""
        self.hooks.each(lambda hook: hook.step(self.weights, self.decay))

    def save(self, file: Path) -> None:
        """Write the state atomically."""
        tensors = {f"{kind}/{name}": tensor for kind, name, tensor in self._current()}
        for name, p in self.trained:
            tensors |= {f"optimizer/{name}/{key}": value for key, value in self.optimizer.state[p].items()}
        tensors["random"] = torch.get_rng_state()
        if torch.cuda.is_initialized():  # dropout draws on the GPU
            tensors["random-cuda"] = torch.cuda.get_rng_state()
        header = {"format": _FORMAT, "identity": self.identity, "step": self.step, "decay": self.decay}
        data = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        make_folder(file.parent)
        self.log.save(file.with_name(LOG_FILE))
        atomic_write(file, save_safetensors(data, {"state": json.dumps(header)}))

    def load(self, file: Path) -> bool:
        """Load a checkpoint; return False, without changes, if there is none of this training."""
        content = _read(file, self.identity)
        if content is None:
            return False
        header, tensors = content
        moments: list[tuple[nn.Parameter, dict[str, Tensor]]] = []
        try:
            held = [(tensor, tensors[f"{kind}/{name}"]) for kind, name, tensor in self._current()]
            for name, p in self.trained:
                start = f"optimizer/{name}/"
                moment = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
                moments.append((p, moment))
            random = tensors["random"]
        except KeyError:
            return False
        if any(a.shape != b.shape or a.dtype != b.dtype for a, b in held):
            return False
        if not self.log.load(file.with_name(LOG_FILE), header["step"]):
            return False
        with torch.no_grad():
            for tensor, value in held:
                tensor.copy_(value)
        for p, moment in moments:
            # fused AdamW keeps its step count on the device of the parameter
            self.optimizer.state[p] = {key: value.clone().to(p.device) for key, value in moment.items()}
        torch.set_rng_state(random)
        if "random-cuda" in tensors and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(tensors["random-cuda"])
        self.step, self.decay = header["step"], header["decay"]
        return True

    def _current(self) -> list[tuple[str, str, Tensor]]:
        return [
            *(("model", name, tensor) for name, tensor in self.module.state_dict().items()),
            *(("objective", name, tensor) for name, tensor in self.objective.state_dict().items()),
            *(("hook", name, tensor) for name, tensor in self.hooks.tensors()),
        ]


def _read(file: Path, identity: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    try:
        with safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})["state"])
            if header["format"] != _FORMAT or header["identity"] != identity:
                return None
            return header, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def sweep(folder: Path) -> None:
    """Remove all checkpoints below a folder, including incomplete ones."""
    for pattern in (CHECKPOINT_FILE, LOG_FILE, f".{CHECKPOINT_FILE}.*.tmp"):
        for file in folder.rglob(pattern):
            file.unlink(missing_ok=True)
