"""`clipmem init`: write a recipe."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from clipmem import study
from clipmem.base.errors import require
from clipmem.base.paths import atomic_write
from clipmem.cli.arguments import Flag, Settings
from clipmem.cli.shell import command
from clipmem.report.formats import visible


@command
def init(
    path: Annotated[Path, Parameter(allow_leading_hyphen=True)] = Path("recipe.toml"),
    /,
    *,
    data: str | None = None,
    protocol: str = "four-way",
    source: str = "",
    set_: Settings = (),
    preset: Literal["", "demo", "quick", "finetune-vit-b-32", "finetune-lit", "finetune-lora", "finetune-siglip"] = "",
    force: Flag = False,
) -> str:
    """Write a recipe for your data: every setting, its value and its description.

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
    printed = str(path) == "-"
    free, hint = force or printed or not path.exists(), "Choose another name, or add --force."
    require(free, f"{path}", "an existing file", "a new file", hint)
    if preset in {"demo", "quick"}:
        alone, hint = data is None and not source and protocol == "four-way", "Omit --preset to start from your data."
        require(alone, f"--preset {preset}", "--data, --source or --protocol with it", "--preset alone", hint)
    start = study.starting.start(data, protocol=protocol, source=source, settings=set_, preset=preset)
    run = f"clipmem run {'FILE' if printed else shlex.quote(str(path))}"
    text = start.text(f"A clipmem study. Run it with: {run}")
    if printed:
        return text.rstrip("\n")
    atomic_write(path, text.encode())
    return "\n".join([*map(visible, start.notes), f"Wrote {path}. Edit it if needed, then run: {run}"])
