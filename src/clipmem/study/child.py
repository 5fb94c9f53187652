"""Processes of the pool: they end with their parent, stop on request, and report progress through files.

A thread watches the parent, since a killed process cannot end its children. It starts before heavy imports, and so this
module imports no torch.
"""

import atexit
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

BOARDS = ".progress-"  # prefix of boards in a run folder
STOP = "stop"  # a file of this name on the board stops all tasks
_PR_SET_PDEATHSIG = 1
_POLL = 0.25
_GRACE = 3.0  # seconds for the current step and its checkpoint
_stop = threading.Event()
_LOOK, _looked = 0.5, -1.0  # seconds between two looks for the stop file, and when it was looked for


def watch(parent: int) -> None:
    """End this process when its parent process ends: SIGTERM (a checkpoint after the current step), exit after 3 s."""
    if sys.platform == "linux":
        # does not need the interpreter's lock, which importing torch holds for seconds
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_wait_for_parent, args=(parent,), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    # polled, since other processes can inherit a pipe and keep it open
    while os.getppid() == parent:
        time.sleep(_POLL)
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def begin(parent: int) -> None:
    """Set up a process of the pool."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: _stop.set())
    watch(parent)
    # finalizing torch takes seconds
    atexit.register(os._exit, 0)


class Board:
    """A folder in which tasks write their progress; a restarted task starts at 0."""

    def __init__(self, path: Path) -> None:
        self.path, self._reported = path, 0

    def put(self, name: str, done: int, note: str = "") -> None:
        """Write the progress of a task."""
        temporary = self.path / f"{name}.tmp"
        temporary.write_text(json.dumps([done, note]))
        temporary.replace(self.path / f"{name}.json")

    def report(self, progress: Callable[[int, str], object]) -> None:
        """Report the progress since the last call, with the newest note."""
        files = sorted(self.path.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        rows = [json.loads(file.read_text()) for file in files]
        done = sum(row[0] for row in rows)
        if done > self._reported:
            progress(done - self._reported, rows[-1][1])
            self._reported = done


def running_file(board: Path, name: str) -> Path:
    """Return the file that exists on the board while a task is running."""
    return board / f"{name}.running"


def stop_requested(board: Path) -> bool:
    """Return whether this process, or all tasks of the board, should stop; the file is looked for twice a second."""
    global _looked  # noqa: PLW0603
    now = time.monotonic()
    if not _stop.is_set() and now - _looked < _LOOK:
        return False
    _looked = now
    return _stop.is_set() or (board / STOP).exists()


def call(task: Callable[..., None], name: str, stderr: str, *, board: str, directory: str) -> None:
    """Run a task with stdout and stderr redirected to a file."""
    running = running_file(Path(board), name)
    running.touch()
    with Path(stderr).open("ab") as stream:
        sys.stdout.flush()
        before = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in before:
                os.dup2(stream.fileno(), number)
            task(board=Path(board), directory=directory)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in before:
                os.dup2(old, number)
                os.close(old)
    running.unlink()
