"""What every process of the pool has: it ends with the process that started it, and stops when it is asked to.

A process that is killed cannot end its children, and a child at work may not notice for minutes. A thread watches
instead; it starts before anything heavy is imported: this module imports neither torch nor anything else that takes
time.
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
from typing import Any

BOARDS = ".progress-"  # how the names of boards in a run folder begin
STOP = "stop"  # a file of this name on the board asks all tasks to stop
_PR_SET_PDEATHSIG = 1
_POLL = 0.25
_GRACE = 3.0  # seconds for the step at hand and its checkpoint
_asked = threading.Event()


def watch(parent: int) -> None:
    """End this process once `parent`, the process that started it, is gone.

    First as on SIGTERM: a training ends after its step, with a checkpoint. After 3 s at the latest it ends at once.
    """
    if sys.platform == "linux":
        # at once, and without the interpreter's lock, which the import of torch holds for seconds on a busy machine
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_wait_for_the_end, args=(parent,), daemon=True).start()


def _wait_for_the_end(parent: int) -> None:
    # polled: a pipe's end would come late if another process had inherited it
    while os.getppid() == parent:
        time.sleep(_POLL)
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def _ask(*_: object) -> None:
    _asked.set()


def begin(parent: int) -> None:
    """Set up a process of the pool."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask)
    watch(parent)
    # nothing is left to be written, and taking torch apart takes seconds
    atexit.register(os._exit, 0)


class Board:
    """A folder in which tasks write how far they are; a task that is started again begins anew."""

    def __init__(self, path: Path) -> None:
        self.path, self._told = path, 0

    def put(self, name: str, done: int, note: str = "") -> None:
        """Write how far a task is."""
        temporary = self.path / f"{name}.tmp"
        temporary.write_text(json.dumps([done, note]))
        temporary.replace(self.path / f"{name}.json")

    def tell(self, progress: Callable[[int, str], object]) -> None:
        """Report what has been done since the last call, with the newest note."""
        files = sorted(self.path.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        rows = [json.loads(file.read_text()) for file in files]
        done = sum(row[0] for row in rows)
        if done > self._told:
            progress(done - self._told, rows[-1][1])
            self._told = done


def begun(board: Path, side: str, seed: int) -> Path:
    """Return the file that stands on the board while a task is at work."""
    return board / f"{side}-{seed}.begun"


def stop_asked(board: Path) -> bool:
    """Tell whether this process, or all tasks of the board, were asked to stop."""
    return _asked.is_set() or (board / STOP).exists()


def call(task: Callable[..., dict[str, Any]], stderr: str, *, board: str, side: str, seed: int, **options: Any) -> Any:
    """Run a task, with what it writes to stdout and stderr in a file, and its mark on the board."""
    mark = begun(Path(board), side, seed)
    mark.touch()
    with Path(stderr).open("ab") as stream:
        sys.stdout.flush()
        before = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in before:
                os.dup2(stream.fileno(), number)
            found = task(board=Path(board), side=side, seed=seed, **options)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in before:
                os.dup2(old, number)
                os.close(old)
    mark.unlink()
    return found
