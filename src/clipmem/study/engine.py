"""The local engine: trains a study's models in processes of their own, several at a time (see `workers`)."""

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipmem.base.errors import InputError, RunError
from clipmem.study import workers
from clipmem.study.execution import Execution, batches_ahead
from clipmem.study.workers import Task


@dataclass
class Spent:
    """Where the time of all training processes went, in seconds.

    Attributes:
        compute: Forward and backward passes and optimizer steps.
        data: Making batches.
        total: Lives of the processes, summed; the rest is start-up, reading and writing.
    """

    compute: float = 0.0
    data: float = 0.0
    total: float = 0.0

    def add(self, model: Mapping[str, Any]) -> None:
        """Add what one model's training spent (see `worker.train_one`)."""
        self.compute += model["compute_seconds"]
        self.data += model["data_seconds"]

    def sentence(self) -> str:
        """Say what the training was bound by."""
        other = max(0.0, self.total - self.compute - self.data)
        shares = {"computing": self.compute, "making batches": self.data, "start-up and files": other}
        whole = max(sum(shares.values()), 1e-9)
        shown = [
            f"{name} {100 * shares[name] / whole:.0f} %" for name in sorted(shares, key=lambda name: -shares[name])
        ]
        return f"bound by {shown[0]}; {shown[1]}, {shown[2]}"


def train_all(
    folder: Path,
    tasks: Sequence[Task],
    how: Execution,
    *,
    progress: Callable[[int, str], object] = lambda done, note: None,  # noqa: ARG005
) -> Spent:
    """Train the models of `tasks`, `how.workers` at a time; a worker that is done with one gets the next.

    Args:
        folder: A planned run folder.
        tasks: The models that are missing.
        how: What was resolved for this machine.
        progress: Called with the number of steps done since the last call, and a note.

    Returns:
        Where the time went.

    Raises:
        InputError: A worker found its input wrong.
        RunError: A worker failed; the others are ended. Finished models stay, unfinished ones have a checkpoint.
    """
    waiting, running, spent = list(tasks), list[workers.Worker](), Spent()
    messages: workers.Messages = queue.Queue()
    failure: dict[str, Any] = {}
    processes = min(how.workers, len(tasks))
    ahead = batches_ahead(how, processes)
    try:
        running += workers.take(processes, how.threads, messages)
        while running:
            worker, message = messages.get()
            if message is None:
                running.remove(worker)
                code, tail = worker.process.wait(), worker.tail()
                spent.total += time.monotonic() - worker.began
                worker.stop()
                if code:
                    _fail(worker.task, code, tail, failure)
            elif "error" in message:
                failure = message
            elif "ready" in message and waiting:
                worker.give(folder, waiting.pop(0), ahead)
            elif "ready" in message and workers.give_back(worker):
                running.remove(worker)
                spent.total += time.monotonic() - worker.began
            elif "ready" in message:
                worker.dismiss()
            elif "done" in message:
                spent.add(message)
            else:
                progress(message["step"] - worker.done, note(message))
                worker.done = message["step"]
    finally:
        # all are asked before the first is waited for
        for worker in running:
            worker.ask_to_stop()
        for worker in running:
            worker.stop()
    return spent


def note(message: Mapping[str, Any]) -> str:
    """Word what a worker says of its progress."""
    return f"loss {message['loss']:.2f}, {message['rate']:,.0f} pairs/s a model, data {100 * message['data']:.0f} %"


def _fail(task: Task | None, code: int, tail: str, failure: dict[str, Any]) -> None:
    if failure.get("exit_code") == InputError.exit_code:
        raise InputError(failure["error"])
    if failure:
        raise RunError(failure["error"])
    reason = f"signal {-code}" if code < 0 else f"exit code {code}"
    what = f"training {task.side}, seed {task.seed}," if task else "a training process without a model"
    raise RunError(
        f"{what} ended with {reason}{': ' + tail if tail else ''}. "
        "Run the same command again: finished models are not trained again."
    )
