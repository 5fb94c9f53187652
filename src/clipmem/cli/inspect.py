"""`clipmem inspect`: look at data or at a model before a study."""

from typing import Literal

from clipmem import study
from clipmem.base.errors import InputError, require
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Flag, ModelName, Settings, check_data
from clipmem.cli.shell import Screen, command, show
from clipmem.models.names import names_model


@command
def inspect(
    path: str,
    /,
    *,
    source: str = "",
    set_: Settings = (),
    full: Flag = False,
    time: Flag = False,
    architecture: str = "",
    preset: Literal["", "finetune-vit-b-32", "finetune-lit", "finetune-lora", "finetune-siglip"] = "",
    against: ModelName = "",
    names: Flag = False,
    reporter: Reporter,
) -> Screen | None:
    """Inspect data: format, counts, captions, sizes, duplicates, problems; or a model: towers, blocks, parameters.

    Every record of the data is read once; sizes, decoding and near-duplicates are checked on a sample. Exits with 2 if
    the data cannot be used. The parts of a model have the names that train.freeze takes.

    Args:
        path: Data: a file, folder or shards, as in data.path of a recipe. Or a model: an architecture, or a folder or
            other name of docs/models.md, but for hf-hub: names, which are data.
        source: Data source; by default detected.
        set_: Change a setting: --set data.image_column=png, or of a model --set train.freeze=[image]. Can be repeated.
        full: Decode every image instead of a sample.
        time: Also train some batches on this machine and estimate the cost of a study.
        architecture: With --time: architecture of that study, by default clipmem-tiny.
        preset: Estimate the cost of a fine-tuning with this shipped recipe.
        against: A model (docs/models.md): also find the pairs that it already aligns like members.
        names: Of a model: list the name of every parameter.
    """
    if not source and names_model(path):
        return Screen("model", study.probing.parts_of(path, set_, names=names))
    if not (source or set_):
        check_data(path)
    require(not names, "--names", f"data {path}", "a model", "Omit --names, or name a model.")
    document = study.data_commands.inspect(
        path,
        lambda: study.opening.open_data(path, {"source": source}, settings=set_),
        study.data_commands.Inspecting(full, time, architecture or study.data_commands.MODEL, preset, against),
        reporter=reporter,
    )
    if document["usable"]:
        return Screen("inspected", document)
    show(Screen("inspected", document))
    got = f"no decodable image (of {document['problems']['decoded']:,})"
    raise InputError(f"{path}", got=got, expected="images", hint="See the reasons above.")
