"""A process that ends with the one that started it; `python -m clipmem.study.child PARENT` is a training process.

A process that is killed cannot end its children, and a child at work may not notice for minutes: a write to a broken
pipe fails, but a long step, or the import of torch, writes nothing. A thread watches instead. It starts before anything
heavy is imported: this module imports neither torch nor anything else that takes time.
"""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL = 0.25
_GRACE = 3.0  # seconds for the step at hand and its checkpoint


def watch(parent: int) -> None:
    """End this process once `parent`, the process that started it, is gone.

    First as on SIGTERM: a training ends after its step, with a checkpoint. After 3 s at the latest it ends at once.

    Args:
        parent: The process id, as the parent knows it: asked for here, it would be another's if it has died already.
    """
    if sys.platform == "linux":
        # at once, and without the interpreter's lock, which the import of torch holds for seconds on a busy machine
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_wait_for_the_end, args=(parent,), daemon=True).start()


def _wait_for_the_end(parent: int) -> None:
    # polled: a pipe's end would come late if another process had inherited it
    while os.getppid() == parent:
        time.sleep(_POLL)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
    from clipmem.study.worker import main

    code = main([])
    # nothing is left to be written, and taking torch apart takes seconds in which the thread no longer watches
    os._exit(code)
