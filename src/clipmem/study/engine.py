"""The local engine: trains a study's models in processes of their own, several at a time.

A separate interpreter, not a fork: thread pools of torch do not survive a fork, and a script that calls
`clipmem.run` without a `__main__` guard must not start itself again.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from clipmem.base.errors import InputError, RunError
from clipmem.study.execution import Execution, batches_ahead

_PATIENCE = 300.0  # seconds that a worker may take for its last step and its checkpoint


@dataclass(frozen=True)
class Task:
    """One model to train."""

    side: str
    seed: int


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


class _Process:
    """A running worker: it asks for tasks, its messages go to the queue, its complaints to a file."""

    def __init__(self, folder: Path, how: Execution, messages: "queue.Queue[tuple[_Process, Any]]") -> None:
        self.task: Task | None = None
        self.done, self.began = 0, time.monotonic()
        self.complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, "OMP_NUM_THREADS": str(how.threads), "MKL_NUM_THREADS": str(how.threads)}
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "clipmem.study.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            env=environment,
            text=True,
        )
        threading.Thread(target=self._listen, args=(messages,), daemon=True).start()

    def give(self, task: Task | None, ahead: int) -> None:
        """Hand the next task over, with the number of batches to make ahead; None = there is none: the worker ends."""
        self.task, self.done = task, 0
        stream = self.process.stdin
        if stream:
            # a worker that has just died is met when its output ends
            with contextlib.suppress(BrokenPipeError):
                if task:
                    stream.write(json.dumps({**asdict(task), "ahead": ahead}) + "\n")
                    stream.flush()
                else:
                    stream.close()

    def _listen(self, messages: "queue.Queue[tuple[_Process, Any]]") -> None:
        stream = self.process.stdout
        for line in stream or ():
            # a library may print a line of its own
            if line.startswith("{"):
                messages.put((self, json.loads(line)))
        messages.put((self, None))

    def ask_to_stop(self) -> None:
        """Ask the process to end after its step; it keeps a checkpoint."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """End the process if it still runs, and let go of its files."""
        self.ask_to_stop()
        try:
            self.process.wait(timeout=_PATIENCE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            # a second Ctrl-C: the last checkpoint must do
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.complaints.close()

    def tail(self) -> str:
        """Return the last lines that the process wrote to stderr."""
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])[-600:]


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
    waiting, running, spent = list(tasks), list[_Process](), Spent()
    messages: queue.Queue[tuple[_Process, Any]] = queue.Queue()
    failure: dict[str, Any] = {}
    processes = min(how.workers, len(tasks))
    ahead = batches_ahead(how, processes)
    try:
        running += [_Process(folder, how, messages) for _ in range(processes)]
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
            elif "ready" in message:
                worker.give(waiting.pop(0) if waiting else None, ahead)
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
