"""`clipmem inspect`: look at data or at a model before a study."""

from pathlib import Path
from typing import Literal

from clipmem import study
from clipmem.base.errors import InputError, require
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Flag, ModelOrData, Settings, Share, check_data
from clipmem.cli.shell import Screen, checked_share, command, show
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
    against: ModelOrData = "",
    out: Path | None = None,
    fail_above: Share | None = None,
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
        against: A model (docs/models.md): also find the pairs that it already aligns like members. Or other data, such
            as the training data: find the pairs whose images these have, too.
        out: With other data: write the pairs that they have, too, here (.csv, .parquet, .txt, .npy; .png draws them).
        fail_above: With other data: exit with 1 if a larger share of the pairs has its image there; for tests.
        names: Of a model: list the name of every parameter.
    """
    leaks = bool(against) and not isinstance(against, str)
    for option, value in (("--out", out), ("--fail-above", fail_above)):
        require(value is None or leaks, option, "no other data", "--against DATA", f"Add --against, or omit {option}.")
    if not source and names_model(path):
        return Screen("model", study.probing.parts_of(path, set_, names=names))
    if not (source or set_):
        check_data(path)
    require(not names, "--names", f"data {path}", "a model", "Omit --names, or name a model.")
    document = study.data_commands.inspect(
        path,
        lambda: study.opening.open_data(path, {"source": source}, settings=set_),
        study.data_commands.Inspecting(full, time, architecture or study.data_commands.MODEL, preset, against, out),
        reporter=reporter,
    )
    if document["usable"]:
        share = document.get("leaks", {}).get("share", 0.0)
        return checked_share(Screen("inspected", document), share, fail_above, "pairs with a leak")
    show(Screen("inspected", document))
    got = f"no decodable image (of {document['problems']['decoded']:,})"
    raise InputError(f"{path}", got=got, expected="images", hint="See the reasons above.")
