"""`clipmem data inspect`: detect the format, look through the data, and estimate what a study of them would cost.

The costs are products of rates that this machine shows in a few seconds and of counts; they tell minutes from days and
no more. Other work on the machine makes them too large.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection, load_recipe
from clipmem.data.inspection import Looked, inspect_source, usable
from clipmem.data.sources import detect
from clipmem.models.names import model_config
from clipmem.study import early

FORMAT = 1
MODEL = "clipmem-tiny"
SHIPPED = "emoji"


def data_section(path: str, *, source: str = "", settings: Sequence[str] = ()) -> DataSection:
    """Return the `[data]` section of a command line: path, source, and settings such as `data.image_column=png`.

    Raises:
        InputError: A setting is not one of `[data]`, or has a wrong value.
    """
    for setting in settings:
        if not setting.startswith("data."):
            raise InputError(
                f"--set {setting}", got="a setting of another section", expected="data.KEY=VALUE",
                hint="`clipmem init -` shows the keys of [data].",
            )  # fmt: skip
    section = load_recipe("", settings, origin="--set").data
    for key, asked, given in (("path", section.path, path), ("source", section.source, source or section.source)):
        if asked not in {"", "auto", given}:
            raise InputError(
                f"--set data.{key}", got=f"{asked!r} beside {given!r}", expected="one of them",
                hint=f"Remove --set data.{key}.",
            )  # fmt: skip
    source = source or section.source
    if path == SHIPPED and source in {"", "auto", SHIPPED} and not Path(path).exists():
        path, source = "", SHIPPED
    return section.model_copy(update={"path": path, "source": source or "auto"})


def find_data(path: str, *, source: str = "", settings: Sequence[str] = ()) -> tuple[DataSection, str]:
    """Return the `[data]` section of a command line with the source that was found, and why it is that one.

    Raises:
        InputError: The path holds nothing that is known, or a setting is wrong.
    """
    section = data_section(path, source=source, settings=settings)
    if section.source != "auto":
        return section, "named by you" if section.source != SHIPPED else "the pairs in the package"
    with early.opening(section):
        found = detect(path, section)
    return section.model_copy(update={"source": found.format, "path": found.path}), found.reason


def inspect(
    path: str,
    *,
    source: str = "",
    settings: Sequence[str] = (),
    full: bool = False,
    cost: bool = True,
    model: str = MODEL,
    progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> dict[str, Any]:
    """Say what lies at a path, as plain data.

    Args:
        path: What a recipe's `data.path` would be; `emoji` for the shipped pairs.
        source: The data source; found out when empty.
        settings: Changes to `[data]`, for example `data.image_column=png`.
        full: Decode every picture, not a sample.
        cost: Measure this machine and estimate what a study would cost.
        model: The architecture of that study.
        progress: Called with the number of pictures looked at, and of how many.

    Returns:
        The document that `--json` prints; its key `usable` says whether a study could use the data.

    Raises:
        InputError: The path holds nothing that can be used.
    """
    if cost:
        model_config(model)  # before the data are read
    section, reason = find_data(path, source=source, settings=settings)
    opened = early.check_source(section)
    started = time.monotonic()
    with early.opening(section):
        facts, looked = inspect_source(opened, full=full, progress=progress)
    seconds = time.monotonic() - started
    document: dict[str, Any] = {
        "format": FORMAT,
        "path": path,
        "source": section.source,
        "opened": section.path,
        "why": reason,
        "usable": usable(facts),
        **facts,
        "seconds": round(seconds, 3),
    }
    if cost and document["usable"]:
        document["cost"] = estimate(facts, looked, model)
    return document


def estimate(facts: dict[str, Any], looked: Looked, model: str) -> dict[str, Any]:
    """Estimate the four-way study that `clipmem init --data` writes for these pairs: decoding, cache and training.

    decoding = pairs / (pictures decoded a second); cache = pairs * side² * 3 bytes;
    training = models * epochs * (pairs of each) / (pairs trained a second), one model after the other.

    Args:
        facts: What `inspect_source` found.
        looked: What it saw of the pictures.
        model: The architecture.
    """
    from clipmem.study import execution, speed, starting  # imports torch

    recipe = load_recipe("")
    size = model_config(model)["vision_cfg"]["image_size"]
    side = size if isinstance(size, int) else size[0]
    how = execution.resolve(recipe, 1)
    pairs = round(facts["pairs"] * (1 - facts["problems"]["undecodable"] / facts["problems"]["decoded"]))
    sizes = starting.sizes_of(pairs)
    each = sizes["shared"] + sizes["candidate"]
    epochs = starting.training_of(each)[1]
    models = 2 * len(recipe.train.seeds)
    decoded = len(looked.decoded) / max(looked.seconds, 1e-9)
    trained = speed.training_rate(model, how)
    return {
        "model": model,
        "device": how.device,
        "decoded_per_second": round(decoded, 1),
        "trained_per_second": round(trained, 1),
        "cache_bytes": pairs * side * side * 3,
        "decode_seconds": round(pairs / decoded, 1),
        "train_seconds": round(models * epochs * each / trained, 1),
        "assumed": (
            f"{pairs:,} pairs; a four-way study of {len(recipe.train.seeds)} seeds ({models} models) and {epochs} "
            f"epochs of {each:,} pairs, as `clipmem init --data` writes it; {model} at {side} pixels, one model after "
            f"the other on this machine's {how.device}, in {how.precision}"
        ),
    }
