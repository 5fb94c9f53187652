"""Types of the arguments of commands. Each checks its value before the command starts, and without torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token, validators

from clipmem import study
from clipmem.base.machine import check_device
from clipmem.base.paths import check_new_table, check_readable, checked_path, recipe_file
from clipmem.curation.aim import Aim
from clipmem.models import names


@dataclass(frozen=True)
class Check:
    """Checks a value, or each of several: takes the option's name and the value, returns what the command gets."""

    call: Callable[[str, Any], Any]


def _text(_: Any, tokens: Sequence[Token]) -> str:
    return tokens[0].value


def _model(_: str, name: str) -> str:
    if name:
        names.parse(name)
    return name


def _run_folder(_: str, path: Path) -> Path:
    recipe_file(checked_path(path, "run folder"))
    from clipmem.base.folder import RunFolder  # imports polars

    RunFolder(path).recipe()
    return path


def check_data(path: str) -> str:
    """Check the path of data before what reads them is imported, which takes most of a second."""
    from clipmem.base.sections import DataSection, shipped  # imports pydantic, which --help does not need

    if not shipped(path):
        DataSection.model_validate({"path": path}).check_paths()
    return path


def _data(_: str, path: str) -> Any:
    return study.opening.open_data(check_data(path))


def _run_or_data(option: str, path: str) -> Any:
    if path and (Path(path) / "recipe.toml").is_file():
        return _run_folder(option, Path(path))
    return _data(option, path)


def _device(_: str, name: str) -> str:
    check_device(name)
    return name


def _aim(option: str, text: str) -> str:
    if text:
        Aim.parse(text, option)
    return text


def _readable(option: str, path: Path) -> Path:
    check_readable(path, option)
    return path


def _new_table(option: str, path: Path) -> Path:
    check_new_table(path, option)
    return path


_LIST = Parameter(consume_multiple=True, negative="", show_default=False)
Flag = Annotated[bool, Parameter(negative="")]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Number0 = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Budget = Annotated[float, Parameter(validator=validators.Number(gt=0, lt=float("inf")))]
Settings = Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)]
Device = Annotated[Literal["auto", "cpu", "cuda"], Check(_device)]
ModelName = Annotated[str, Check(_model)]  # empty = no model
ModelNames = Annotated[tuple[str, ...], _LIST, Check(_model)]
SuspectsAim = Annotated[str, Check(_aim)]
RunDir = Annotated[Path, Check(_run_folder)]
ReadableFile = Annotated[Path, Check(_readable)]
NewTable = Annotated[Path, Check(_new_table)]
_TEXT = Parameter(converter=_text)
DataPath = Annotated[Any, _TEXT, Check(_data)]  # opened: a `Source`
ShardsPath = Annotated[Any, _TEXT, Check(lambda _, path: study.opening.open_data(check_data(path), shard=""))]
DataOrUids = Annotated[str, Check(lambda _, path: check_data(path))]  # a path; lists of uids are files, too
RunOrData = Annotated[Any, _TEXT, Check(_run_or_data)]  # the path of a run folder, or a `Source`
