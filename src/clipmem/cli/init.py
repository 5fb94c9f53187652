"""`clipmem init`: a recipe to start from."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from clipmem.base.errors import InputError


def init(
    path: Annotated[Path, Parameter(allow_leading_hyphen=True)] = Path("recipe.toml"),
    /,
    *,
    data: str = "",
    protocol: str = "four-way",
    source: str = "",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    preset: Literal["", "demo", "quick"] = "",
    force: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a recipe with every key, its value and its meaning.

    With --data it is written for your data: their format, roles and a training that fit the number of pairs.

    Args:
        path: The file to write; - prints it instead.
        data: A file, a folder, or shards with your pairs.
        protocol: How the models to compare come about: four-way measures some pairs with one f and one g a seed,
            subsample every pair with many models, leave-one-out a few pairs with one model each; or that of another
            package (`clipmem doctor --declared` lists all).
        source: The data source; by default it is found out.
        set_: Change a value: --set train.epochs=1. May be given several times.
        preset: Start from a shipped recipe instead: demo or quick.
        force: Overwrite an existing file.
    """
    from clipmem.report.escape import visible
    from clipmem.store.atomic import atomic_write
    from clipmem.study import starting

    shown = str(path) == "-"
    if path.exists() and not force and not shown:
        raise InputError(
            f"{path}", got="a file that exists", expected="a new name", hint="Choose another one, or add --force."
        )
    if preset and (data or source or protocol != "four-way"):
        got, hint = "--data, --source or --protocol with it", "Omit --preset to start from your data."
        raise InputError(f"--preset {preset}", got=got, expected="a preset alone", hint=hint)
    if data:
        begun = starting.start(data, protocol=protocol, source=source, settings=set_)
    else:
        begun = starting.preset(preset, set_) if preset else starting.bare(protocol, source=source, settings=set_)
    command = f"clipmem run {'FILE' if shown else shlex.quote(str(path))}"
    text = begun.text(f"A clipmem study. Run it with: {command}")
    if shown:
        sys.stdout.write(text)
        return
    atomic_write(path, text.encode())
    lines = [*map(visible, begun.notes), f"Wrote {path}. Edit it if you like, then: {command}"]
    sys.stdout.write("\n".join(lines) + "\n")
