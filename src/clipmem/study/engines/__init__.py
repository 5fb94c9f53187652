"""Execution engines, which train models and embed pairs. They do not change results and are not part of a recipe.

- `local` (default): processes on this machine, one per model, up to the number of cores.
- `ray`: Ray tasks, on this machine or the cluster of RAY_ADDRESS; the same bytes as `local`. With several processes per
  model, Ray Train joins those of each model; equal up to rounding.
- under `torchrun`: all processes train one model at a time; equal up to rounding.
"""

import contextlib
import os
import re
from typing import TYPE_CHECKING

from clipmem.base.errors import did_you_mean, require
from clipmem.study import child

if TYPE_CHECKING:
    from clipmem.study.pool import LocalEngine

NAMES = ("local", "ray")


def check_name(name: str, processes: int = 1) -> None:
    """Check the name of an engine, and the number of processes per model, before anything heavy is imported."""
    hint = did_you_mean(name, NAMES, kind="engine")
    require(name in NAMES, f"--engine {name}", "an unknown engine", "local or ray", hint)
    subject, hint = f"--engine {name} under torchrun", "Omit --engine, or start without torchrun."
    require(name == "local" or not launched(), subject, "two engines", "one of them", hint)
    fits, hint = processes == 1 or (processes > 1 and name == "ray"), "Use ray, or torchrun without --processes."
    require(fits, f"--processes {processes}", f"--engine {name}", "1, or more with ray", hint)


def open_engine(name: str, processes: int = 1) -> "contextlib.AbstractContextManager[LocalEngine]":
    """Open an engine, whose name is checked, with that many processes per model."""
    if launched():
        from clipmem.study.engines.torchrun import opened

        return opened()
    if name == "local":
        from clipmem.study.pool import LocalEngine

        return contextlib.nullcontext(LocalEngine())
    from clipmem.study.engines.ray import connect

    return connect(processes)


def share_of(part: str) -> tuple[int, int]:
    """Return the number of a share of the parts, from 1, and how many shares there are.

    Raises:
        InputError: There is no such share.

    Example:
        >>> share_of("3/16")
        (3, 16)
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", part or "1/1")
    share = (int(match[1]), int(match[2])) if match else (0, 0)
    hint = "Count from 1: --part $SLURM_ARRAY_TASK_ID/16 in an array 1-16."
    require(1 <= share[0] <= share[1], "--part", repr(part), "K/N with K from 1 to N", hint)
    return share


# ---- torchrun's environment


def launched() -> bool:
    """Return whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def watch_launcher() -> None:
    """Under torchrun, end this process when torchrun ends or is killed."""
    if launched():
        child.watch(os.getppid())


def is_first() -> bool:
    """Return whether this process runs the study; others under torchrun help to train (see `torchrun.follow`)."""
    return not launched() or os.environ["RANK"] == "0"
