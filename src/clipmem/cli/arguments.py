"""Types of the arguments of commands. Each checks its value before the command starts, and without torch."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token, validators

from clipmem import study
from clipmem.base.errors import InputError
from clipmem.base.machine import check_device
from clipmem.base.paths import check_new_table, check_readable, checked_path, recipe_file
from clipmem.curation.aim import Aim
from clipmem.models import names


@dataclass(frozen=True)
class Check:
    """Checks a value, or each of several: takes it and the option's name; the command gets the result if it `opens`."""

    call: Callable[[Any, str], Any]
    opens: bool = False


def _text(_: Any, tokens: Sequence[Token]) -> str:
    return tokens[0].value


def _run_folder(path: Path, _: str = "") -> None:
    recipe_file(checked_path(path, "run folder"))
    from clipmem.base.folder import RunFolder  # imports polars

    RunFolder(path).recipe()


def check_data(path: str) -> str:
    """Check the path of data before what reads them is imported, which takes most of a second."""
    from clipmem.base.sections import DataSection, shipped  # imports pydantic, which --help does not need

    if not shipped(path):
        DataSection.model_validate({"path": path}).check_paths()
    return path


def _model_or_data(text: str, _: str) -> Any:
    """Return the name of a model, or what opens data; what is neither is refused as a model."""
    try:
        return text and names.parse(text) and text
    except InputError:
        with contextlib.suppress(InputError):
            check_data(text)
            return lambda: study.opening.open_data(text)
        raise


def _run_or_data(path: str, _: str) -> Any:
    if path and (Path(path) / "recipe.toml").is_file():
        _run_folder(Path(path))
        return Path(path)
    return study.opening.open_data(check_data(path))


_LIST = Parameter(consume_multiple=True, negative="", show_default=False)
Flag = Annotated[bool, Parameter(negative="")]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Number0 = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Share = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=1))]
Budget = Annotated[float, Parameter(validator=validators.Number(gt=0, lt=float("inf")))]
Settings = Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)]
Device = Annotated[Literal["auto", "cpu", "cuda"], Check(lambda name, _: check_device(name))]
_MODEL = Check(lambda name, _: name and names.parse(name))
ModelName = Annotated[str, _MODEL]  # empty = no model
ModelOrData = Annotated[Any, Parameter(converter=_text), Check(_model_or_data, opens=True)]
ModelNames = Annotated[tuple[str, ...], _LIST, _MODEL]
SuspectsAim = Annotated[str, Check(lambda text, option: text and Aim.parse(text, option))]
RunDir = Annotated[Path, Check(_run_folder)]
ReadableFile = Annotated[Path, Check(check_readable)]
NewTable = Annotated[Path, Check(check_new_table)]
_TEXT = Parameter(converter=_text)
_DATA = Check(lambda path, _: study.opening.open_data(check_data(path)), opens=True)
_SHARDS = Check(lambda path, _: study.opening.open_data(check_data(path), shard=""), opens=True)
DataPath = Annotated[Any, _TEXT, _DATA]  # opened: a `Source`
ShardsPath = Annotated[Any, _TEXT, _SHARDS]
DataOrUids = Annotated[str, Check(lambda path, _: check_data(path))]  # a path; lists of uids are files, too
RunOrData = Annotated[Any, _TEXT, Check(_run_or_data, opens=True)]  # the path of a run folder, or a `Source`


@Parameter(name="*")
@dataclass(frozen=True)
class Work:
    """Where the pairs are embedded or attacked, and which.

    Attributes:
        device: Device to compute on.
        engine: Who does the parts of the work: local, or ray (this machine, or the cluster of RAY_ADDRESS).
        part: Do only share K of N of the pairs, as K/N: for the array of a scheduler. Then run without it.
    """

    device: Device = "auto"
    engine: str = "local"
    part: str = ""


@Parameter(name="*")
@dataclass(frozen=True)
class Embedding(Work):
    """How pairs are embedded.

    Attributes:
        views: Random views per image; 0 = the unchanged image.
        captions: Maximum number of captions per pair; by default all.
        precision: fp32, or bf16 = autocast.
        batch_size: Images or captions per forward pass.
    """

    views: Number0 = 0
    captions: Count | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: Count = 256
