"""`clipmem init`: a recipe to start from."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clipmem.base.errors import InputError


def init(
    path: Path = Path("recipe.toml"),
    /,
    *,
    preset: str = "demo",
    force: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a recipe with every key, its value and its meaning.

    Args:
        path: The file to write; - prints it instead.
        preset: The recipe to start from: demo or quick.
        force: Overwrite an existing file.
    """
    from clipmem.base.recipes import dump_recipe
    from clipmem.store.atomic import atomic_write
    from clipmem.study.api import find_recipe

    text = (
        f"# A clipmem study. Run it with: clipmem run {path.name}\n\n{dump_recipe(find_recipe(preset), comments=True)}"
    )
    if str(path) == "-":
        sys.stdout.write(text)
        return
    if path.exists() and not force:
        raise InputError(
            f"{path}",
            got="a file that exists",
            expected="a new name",
            todo="Choose another one, or add --force.",
        )
    atomic_write(path, text.encode())
    sys.stdout.write(f"wrote {path}; edit it, then: clipmem run {path}\n")
