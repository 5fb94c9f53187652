"""Checkpoints in the middle of a training: after a kill it resumes where it was, and ends with the same bytes.

One file holds what a step changes: weights and buffers, AdamW's moments, the objective's parameters, torch's random
state, and (as the file's metadata, JSON) the step and the decay of the token rows that are not in use. The step log has
its own file, to which every checkpoint appends: the header of a safetensors file holds no more than 100 MB. Batches
and views are addressed by step, epoch and pair, so that nothing of them need be kept. The file is written whole or not
at all, is no pickle, and names the training it belongs to: one that is torn, or of another training, is not used.
"""

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from clipmem.store.atomic import atomic_write, explain_write_errors, make_folder

CHECKPOINT_FILE, LOG_FILE = "checkpoint.safetensors", "checkpoint.log.jsonl"
EVERY = 60.0
_FORMAT = 2


class TrainingStopped(Exception):  # noqa: N818
    """A training was asked to stop, and wrote its checkpoint."""


@dataclass
class Checkpoints:
    """Where and when a training keeps its state. None of it changes a result."""

    file: Path
    every: float = EVERY
    stop: Callable[[], bool] = lambda: False
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Tell whether it is time for the next checkpoint."""
        return time.monotonic() - self._last >= self.every

    def written(self) -> None:
        """Count from now on: a checkpoint has just been written."""
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the checkpoint of a finished training."""
        for name in (CHECKPOINT_FILE, LOG_FILE):
            self.file.with_name(name).unlink(missing_ok=True)


@dataclass
class StepLog:
    """One entry a step. Numbers stay on the device until `settle`: reading one makes the processor wait for it."""

    entries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _waiting: list[tuple[dict[str, Any], Tensor, Tensor]] = field(
        default_factory=list[tuple[dict[str, Any], Tensor, Tensor]]
    )
    _saved: int = 0

    def add(self, loss: Tensor, scale: Tensor, **known: Any) -> None:
        """Log a step."""
        self._waiting.append((known, loss, scale.detach().clone()))

    def settle(self) -> dict[str, Any] | None:
        """Read what is waiting; return the first of these entries whose loss is not finite."""
        start = len(self.entries)
        for known, loss, scale in self._waiting:
            entry = {"step": known["step"], "epoch": known["epoch"], "loss": float(loss)}
            self.entries.append({**entry, "lr": known["lr"], "logit_scale": float(scale)})
        self._waiting.clear()
        return next((entry for entry in self.entries[start:] if not math.isfinite(entry["loss"])), None)

    def save(self, file: Path) -> None:
        """Append the entries that the file does not hold yet."""
        with explain_write_errors(file), file.open("a" if self._saved else "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(entry) + "\n" for entry in self.entries[self._saved :])
            stream.flush()
            os.fsync(stream.fileno())
        self._saved = len(self.entries)

    def load(self, file: Path, steps: int) -> bool:
        """Read the entries of the first steps, and forget later ones; return False when one is missing."""
        try:
            with file.open(encoding="utf-8") as stream:
                entries = [json.loads(line) for line in itertools.islice(stream, steps)]
        except (OSError, ValueError):
            entries = []
        if len(entries) < steps:
            return False
        self.entries, self._saved = entries, 0  # the next checkpoint writes the file anew
        return True


@dataclass
class State:
    """What a training is at between two steps."""

    module: nn.Module
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    trained: Sequence[tuple[str, nn.Parameter]]
    identity: str
    step: int = 0
    decay: float = 1.0
    log: StepLog = field(default_factory=StepLog)

    def save(self, file: Path) -> None:
        """Write the state atomically."""
        tensors = {f"{kind}/{name}": tensor for kind, name, tensor in self._current()}
        for name, p in self.trained:
            tensors |= {f"optimizer/{name}/{key}": value for key, value in self.optimizer.state[p].items()}
        tensors["random"] = torch.get_rng_state()
        told = {"format": _FORMAT, "identity": self.identity, "step": self.step, "decay": self.decay}
        data = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        make_folder(file.parent)
        self.log.save(file.with_name(LOG_FILE))
        atomic_write(file, save_safetensors(data, {"state": json.dumps(told)}))

    def load(self, file: Path) -> bool:
        """Take the state from a checkpoint; return False, and change nothing, when there is none of this training."""
        found = _read(file, self.identity)
        if found is None:
            return False
        told, tensors = found
        moments: list[tuple[nn.Parameter, dict[str, Tensor]]] = []
        try:
            held = [(tensor, tensors[f"{kind}/{name}"]) for kind, name, tensor in self._current()]
            for name, p in self.trained:
                start = f"optimizer/{name}/"
                own = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
                moments.append((p, own))
            random = tensors["random"]
        except KeyError:
            return False
        if any(a.shape != b.shape or a.dtype != b.dtype for a, b in held):
            return False
        if not self.log.load(file.with_name(LOG_FILE), told["step"]):
            return False
        with torch.no_grad():
            for tensor, value in held:
                tensor.copy_(value)
        for p, own in moments:
            # fused AdamW counts its steps where the parameter lies
            self.optimizer.state[p] = {key: value.clone().to(p.device) for key, value in own.items()}
        torch.set_rng_state(random)
        self.step, self.decay = told["step"], told["decay"]
        return True

    def _current(self) -> list[tuple[str, str, Tensor]]:
        return [
            *(("model", name, tensor) for name, tensor in self.module.state_dict().items()),
            *(("objective", name, tensor) for name, tensor in self.objective.state_dict().items()),
        ]


def _read(file: Path, identity: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Read a checkpoint; None when it is not there, torn, or of another training."""
    try:
        with safe_open(file, framework="pt") as opened:
            told = json.loads((opened.metadata() or {})["state"])
            if told["format"] != _FORMAT or told["identity"] != identity:
                return None
            return told, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def sweep(folder: Path) -> None:
    """Remove the checkpoints below a folder whose models are all finished, half-written ones included."""
    for pattern in (CHECKPOINT_FILE, LOG_FILE, f".{CHECKPOINT_FILE}.*.tmp"):
        for file in folder.rglob(pattern):
            file.unlink(missing_ok=True)
