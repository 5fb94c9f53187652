"""Who trains a study's models and embeds its pairs. The engine changes no result, so it is not in the recipe.

- `local`: processes on this machine, one a model, as many at a time as there are cores. The default.
- `ray` or `ray://HEAD:PORT`: Ray tasks, on this machine or on a cluster; the same bytes as `local`.
- under `torchrun`: all processes train one model together, the models one after another; equal to rounding.

Imports neither torch nor Ray: an engine's module is imported when it is opened.
"""

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from clipmem.base.errors import InputError
from clipmem.base.suggest import did_you_mean
from clipmem.study import child

if TYPE_CHECKING:
    from clipmem.store.folder import RunFolder
    from clipmem.study.engine import Spent
    from clipmem.study.execution import Execution
    from clipmem.study.workers import Task

NAMES = ("local", "ray")


@runtime_checkable
class Engine(Protocol):
    """Trains models and embeds pairs of a planned run folder."""

    def fit(self, how: "Execution") -> "Execution":
        """Return what was resolved for this machine, changed to what this engine does; goes into the manifest."""
        ...

    def train(
        self,
        folder: "RunFolder",
        tasks: "Sequence[Task]",
        how: "Execution",
        *,
        progress: Callable[[int, str], object],
    ) -> "Spent":
        """Train the models of `tasks`; write each, and then its marker.

        Args:
            folder: The run folder, planned.
            tasks: The models that are missing.
            how: How they are computed.
            progress: Called with the number of steps done since the last call, and a note.

        Returns:
            Where the time went.

        Raises:
            InputError: The input of a training is wrong.
            RunError: A training failed. Finished models stay.
        """
        ...

    def embed(
        self, folder: "RunFolder", tasks: "Sequence[Task]", how: "Execution", *, progress: Callable[[int], object]
    ) -> list[Path]:
        """Embed all pairs with every model and return the files written.

        Args:
            folder: The run folder, trained.
            tasks: The models.
            how: How they are computed.
            progress: Called with the number of pairs done since the last call.
        """
        ...


def check_name(name: str) -> None:
    """Check the name of an engine before anything heavy is imported.

    Raises:
        InputError: There is no such engine, or it cannot be used under torchrun.
    """
    if name not in NAMES and not name.startswith("ray://"):
        raise InputError(
            f"--engine {name}",
            got="no engine of that name",
            expected="local, ray or ray://HEAD:PORT",
            hint=did_you_mean(name, NAMES, kind="engine"),
        )
    if launched() and name != "local":
        raise InputError(
            f"--engine {name} under torchrun",
            got="two ways to share the work",
            expected="one of them",
            hint="Leave --engine away to train one model on many processes, or start without torchrun.",
        )


@contextlib.contextmanager
def open_engine(name: str) -> Generator[Engine]:
    """Open an engine for the length of the block.

    Args:
        name: `local`, `ray` or `ray://HEAD:PORT`. Under torchrun, `local` means its processes.

    Raises:
        InputError: There is no such engine, or what it needs is not installed.
    """
    check_name(name)
    if launched():
        from clipmem.study.engines.together import opened

        with opened() as engine:
            yield engine
    elif name == "local":
        from clipmem.study.engines.local import LocalEngine

        yield LocalEngine()
    else:
        from clipmem.study.engines.cluster import connect

        with connect(name) as engine:
            yield engine


# ---- torchrun's environment


def launched() -> bool:
    """Tell whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def watch_launcher() -> None:
    """Under torchrun, end this process once torchrun is gone: killed, it cannot end its processes itself."""
    if launched():
        child.watch(os.getppid())


def is_first() -> bool:
    """Tell whether this process makes the study; the others under torchrun help it to train (see `together.follow`)."""
    return not launched() or os.environ["RANK"] == "0"
