"""The local engine: trains a study's models in processes of their own, several at a time.

A separate interpreter, not a fork: thread pools of torch do not survive a fork, and a script that calls
`clipmem.run` without a `__main__` guard must not start itself again.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clipmem.base.errors import InputError, RunError
from clipmem.study.execution import Execution


@dataclass(frozen=True)
class Task:
    """One model to train."""

    side: str
    seed: int


class _Process:
    """A running worker: its messages go to the queue, its complaints to a file."""

    def __init__(self, folder: Path, task: Task, how: Execution, messages: "queue.Queue[tuple[_Process, Any]]") -> None:
        self.task, self.done = task, 0
        self.complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, "OMP_NUM_THREADS": str(how.threads), "MKL_NUM_THREADS": str(how.threads)}
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "clipmem.study.worker", str(folder), task.side, str(task.seed)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            env=environment,
            text=True,
        )
        threading.Thread(target=self._listen, args=(messages,), daemon=True).start()

    def _listen(self, messages: "queue.Queue[tuple[_Process, Any]]") -> None:
        stream = self.process.stdout
        for line in stream or ():
            # a library may print a line of its own
            if line.startswith("{"):
                messages.put((self, json.loads(line)))
        messages.put((self, None))

    def stop(self) -> None:
        """End the process if it still runs, and let go of its files."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
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
) -> None:
    """Train the models of `tasks`, `how.workers` at a time.

    Args:
        folder: A planned run folder.
        tasks: The models that are missing.
        how: What was resolved for this machine.
        progress: Called with the number of steps done since the last call, and a note.

    Raises:
        InputError: A worker found its input wrong.
        RunError: A worker failed; the others are ended. Finished models stay.
    """
    waiting, running = list(tasks), list[_Process]()
    messages: queue.Queue[tuple[_Process, Any]] = queue.Queue()
    failure: dict[str, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < how.workers:
                running.append(_Process(folder, waiting.pop(0), how, messages))
            worker, message = messages.get()
            if message is None:
                running.remove(worker)
                code, tail = worker.process.wait(), worker.tail()
                worker.stop()
                if code:
                    _fail(worker.task, code, tail, failure)
            elif "error" in message:
                failure = message
            else:
                progress(message["step"] - worker.done, f"loss {message['loss']:.2f}")
                worker.done = message["step"]
    finally:
        for worker in running:
            worker.stop()


def _fail(task: Task, code: int, tail: str, failure: dict[str, Any]) -> None:
    if failure.get("exit_code") == InputError.exit_code:
        raise InputError(failure["error"])
    if failure:
        raise RunError(failure["error"])
    reason = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise RunError(
        f"training {task.side}, seed {task.seed}, ended with {reason}{': ' + tail if tail else ''}. "
        "Run the same command again: finished models are not trained again."
    )
