"""`clipmem run`: a study of one's own."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def run(
    recipe: Path,
    /,
    *,
    out: Path | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: str = "local",
    strict: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make the study of a recipe: split, train f and g, embed, score, evaluate, report.

    Finished stages are not repeated: run the same command again after a stop. A folder that was made with another
    recipe or other data is refused.

    Args:
        recipe: A TOML file (`clipmem init` writes one), or a shipped one: demo, quick, and for GPU machines
            coco-vit-b-32, coco-vit-b-16, cc3m-vit-b-32, cc3m-vit-b-16.
        out: The run folder; by default runs/NAME, NAME being the recipe's.
        set_: Change a value: --set train.lr=1e-4. May be given several times.
        device: Where to compute.
        engine: Who computes: local, ray (tasks on this machine or on the cluster of RAY_ADDRESS), or ray://HEAD:PORT.
            The results have the same bytes.
        strict: Stop at the first record that cannot be used. By default such records are left out, counted, and listed
            in quarantine.parquet.
        yes: Begin also a study that would take more than a day, or more memory or disk space than there is. One that
            was begun resumes without it.
    """
    from clipmem.cli.terminal import run_and_show
    from clipmem.study.api import SHIPPED_RECIPES

    out = out or Path("runs") / recipe.stem
    command = " ".join(
        [
            "clipmem run",
            shlex.quote(str(recipe)),
            *(f"--set {shlex.quote(item)}" for item in set_),
            f"--out {shlex.quote(str(out))}",
            *([] if engine == "local" else [f"--engine {engine}"]),
            *(["--strict"] if strict else []),
            *(["--yes"] if yes else []),
        ]
    )
    shipped = str(recipe) if str(recipe) in SHIPPED_RECIPES and not recipe.exists() else recipe
    run_and_show(
        shipped, out, settings=set_, command=command, device=device, engine=engine, strict=strict, allow_long=yes
    )
