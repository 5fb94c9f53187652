"""`clipmem models`: look into a model."""

from typing import Annotated

from cyclopts import App, Parameter

from clipmem.cli.tables import prints_tables

models = App(name="models", help="Show a model's parts, and what a fine-tuning of it would train.")


@models.command
@prints_tables
def show(
    model: str,
    /,
    *,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    names: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show the towers, blocks and parameters of a model, by the names that train.freeze takes.

    Args:
        model: An architecture, or the address of a model (docs/models.md).
        set_: A setting whose effect to show: --set train.freeze=[image]. Can be repeated.
        names: List the name of every parameter.
    """
    from rich.console import Console

    from clipmem.base.recipes import load_recipe
    from clipmem.models.names import architectures

    known = model in architectures() or model.endswith(".json")
    recipe = load_recipe("", [f"model.{'name' if known else 'pretrained'}={model}", *set_], origin="--set")
    from clipmem.models.start import Start, freeze, table_of_parts  # imports torch
    from clipmem.report.terminal import print_screen

    encoder = Start(recipe.model, recipe.train).outline()
    freeze(encoder, recipe.train)
    document = {
        "model": model,
        "image_size": encoder.image_size,
        "context": encoder.context,
        "freeze": recipe.train.freeze,
        "adapter": recipe.train.adapter,
        "parts": table_of_parts(encoder),
    }
    print_screen("model", {**document, "listed": names}, Console())
