"""Training processes: started, handed tasks, listened to, ended; and kept for the next study where one follows.

A separate interpreter, not a fork: thread pools of torch do not survive a fork, and a script that calls
`clipmem.run` without a `__main__` guard must not start itself again. Importing torch takes a new interpreter seconds,
more than a tiny study's training: whoever makes many studies makes them inside `kept()`.
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
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

_PATIENCE = 300.0  # seconds that a worker may take for its last step and its checkpoint
# processes without a task, while `kept` is open; None while it is not
_idle: "list[Worker] | None" = None


@dataclass(frozen=True)
class Task:
    """One model to train."""

    side: str
    seed: int


class Worker:
    """A running worker: it asks for tasks, its messages go to a queue, its complaints to a file.

    Attributes:
        task: The task that it has.
        done: Steps of it that were told.
        asking: Whether it has asked for a task and got none yet.
        began: When it was taken for the study at hand.
        threads: Threads that it was started with.
    """

    def __init__(self, threads: int) -> None:
        self.task: Task | None = None
        self.done, self.began, self.asking, self.threads = 0, time.monotonic(), False, threads
        self._lock, self._ended = threading.Lock(), False
        self._messages: queue.Queue[tuple[Worker, Any]] | None = None
        self.complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "clipmem.study.child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            env=environment,
            text=True,
        )

    def begin(self, messages: "queue.Queue[tuple[Worker, Any]]") -> None:
        """Send what it says to `messages` from now on; what it has asked already is asked there again."""
        self.task, self.done, self.began = None, 0, time.monotonic()
        with self._lock:
            first, self._messages = self._messages is None, messages
            if self._ended:
                messages.put((self, None))
            elif self.asking:
                messages.put((self, {"ready": True}))
        if first:
            threading.Thread(target=self._listen, daemon=True).start()

    def give(self, folder: Path, task: Task, ahead: int) -> None:
        """Hand it a model of a run folder to train, with the number of batches to make ahead."""
        self.task, self.done, self.asking = task, 0, False
        stream = self.process.stdin
        if stream:
            # a worker that has just died is met when its output ends
            with contextlib.suppress(BrokenPipeError):
                # a kept process may have been started elsewhere, and a recipe may hold relative paths
                where = {"directory": str(Path.cwd()), "folder": str(folder)}
                stream.write(json.dumps({**where, **asdict(task), "ahead": ahead}) + "\n")
                stream.flush()

    def dismiss(self) -> None:
        """Tell it that there is no further task: it ends by itself."""
        self.task, self.asking = None, False
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def _listen(self) -> None:
        stream = self.process.stdout
        for line in stream or ():
            # a library may print a line of its own
            if line.startswith("{"):
                self._tell(json.loads(line))
        self._tell(None)

    def _tell(self, message: Any) -> None:
        # not while the process is taken for another study: a message goes to one of the two, and to one only
        with self._lock:
            self._ended = message is None
            self.asking = message is not None and (self.asking or "ready" in message)
            if self._messages is not None:
                self._messages.put((self, message))

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


Messages = queue.Queue[tuple[Worker, Any]]


def take(count: int, threads: int, messages: Messages) -> list[Worker]:
    """Return `count` processes of so many threads, kept ones first; they ask for tasks in `messages`."""
    idle = _idle if _idle is not None else []
    for dead in [worker for worker in idle if worker.process.poll() is not None]:
        idle.remove(dead)
        dead.stop()
    found = [worker for worker in idle if worker.threads == threads][:count]
    for worker in found:
        idle.remove(worker)
    found += [Worker(threads) for _ in range(count - len(found))]
    for worker in found:
        worker.begin(messages)
    return found


def give_back(worker: Worker) -> bool:
    """Keep a process that asks for a task and gets none; tell whether it is kept."""
    if _idle is None:
        return False
    worker.task = None
    _idle.append(worker)
    return True


@contextlib.contextmanager
def kept() -> Generator[None]:
    """Keep the training processes of the studies in this block from one study to the next, and end them after it."""
    global _idle  # noqa: PLW0603
    if _idle is not None:  # the outer block ends them
        yield
        return
    _idle = []
    try:
        yield
    finally:
        ended, _idle = _idle, None
        for worker in ended:
            worker.dismiss()
        for worker in ended:
            # they end by themselves: asked to stop on its way out, a process would report that it was interrupted
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=_PATIENCE)
            worker.stop()
