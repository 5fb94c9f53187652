"""`clipmem init`: write a recipe."""

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
    data: str | None = None,
    protocol: str = "four-way",
    source: str = "",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    preset: Literal["", "demo", "quick", "finetune-vit-b-32", "finetune-lit", "finetune-lora", "finetune-siglip"] = "",
    force: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a recipe with every key, its value and its description.

    With --data, the recipe fits your data: source, role sizes and training for the number of pairs.

    Args:
        path: Output file; - prints the recipe instead.
        data: A file, folder or shards with your pairs.
        protocol: How f and g are obtained: four-way measures some pairs with one f and one g per seed, subsample
            measures every pair with many models, leave-one-out a few pairs with one model each; `clipmem doctor
            --declared` lists all, including those of other packages.
        source: Data source; by default detected.
        set_: Change a value: --set train.epochs=1. Can be repeated.
        preset: Start from a shipped recipe instead: demo or quick, or one that fine-tunes a pretrained model on --data.
        force: Overwrite an existing file.
    """
    from clipmem.base.atomic import atomic_write
    from clipmem.report.escape import visible
    from clipmem.study import starting

    shown = str(path) == "-"
    if path.exists() and not force and not shown:
        raise InputError(
            f"{path}", got="an existing file", expected="a new file", hint="Choose another name, or add --force."
        )
    if preset in {"demo", "quick"} and (data is not None or source or protocol != "four-way"):
        got, hint = "--data, --source or --protocol with it", "Omit --preset to start from your data."
        raise InputError(f"--preset {preset}", got=got, expected="--preset alone", hint=hint)
    if data is not None:
        start = starting.start(data, protocol=protocol, source=source, settings=set_, preset=preset)
    else:
        start = starting.preset(preset, set_) if preset else starting.bare(protocol, source=source, settings=set_)
    command = f"clipmem run {'FILE' if shown else shlex.quote(str(path))}"
    text = start.text(f"A clipmem study. Run it with: {command}")
    if shown:
        sys.stdout.write(text)
        return
    atomic_write(path, text.encode())
    lines = [*map(visible, start.notes), f"Wrote {path}. Edit it if needed, then run: {command}"]
    sys.stdout.write("\n".join(lines) + "\n")
