"""`clipmem run`: run a study."""

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
    """Run the study of a recipe: split, train f and g, embed, score, evaluate, report.

    Run the same command again to resume after a stop: finished stages are not repeated. A folder that was made with
    another recipe or other data is refused.

    Args:
        recipe: A TOML file (see `clipmem init`), or a shipped recipe: demo, quick, and for GPU machines
            finetune-vit-b-32, finetune-lit, finetune-lora, finetune-siglip, coco-vit-b-32, coco-vit-b-16,
            cc3m-vit-b-32, cc3m-vit-b-16.
        out: Run folder; by default runs/ and the name of the recipe.
        set_: Change a value: --set train.lr=1e-4. Can be repeated.
        device: Device to compute on.
        engine: Execution engine: local, ray (this machine or the cluster of RAY_ADDRESS), or ray://HEAD:PORT. All
            give the same bytes.
        strict: Stop at the first unusable record. By default such records are left out, counted, and listed in
            quarantine.parquet.
        yes: Start even if the study would take more than a day, or more memory or disk space than available. Resuming
            does not need it.
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
