"""What all commands share: checked arguments, progress on stderr, a screen on stdout, --json and --verbose."""

import contextlib
import dataclasses
import inspect
import os
import shlex
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import Parameter
from rich.console import Console

from clipmem import report
from clipmem.base.errors import RunError
from clipmem.base.paths import checked_path
from clipmem.base.progress import Quiet
from clipmem.cli.arguments import Check
from clipmem.study.engines import is_first

_HELP = {"json": "Print JSON instead of tables.", "verbose": "Print all details."}
_KINDS = {name: Annotated[bool, Parameter(negative="", help=text)] for name, text in _HELP.items()}
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_FLAGS = {name: inspect.Parameter(name, _KEYWORD, default=False, annotation=kind) for name, kind in _KINDS.items()}


@dataclasses.dataclass(frozen=True)
class Screen:
    """A screen of `clipmem.report`: its name, what it shows (a path is a run folder), a last line, and next steps.

    `then` is called after it is printed.
    """

    name: str
    subject: Any
    where: str = ""
    steps: "Sequence[report.templating.Words]" = ()
    then: Callable[[], None] | None = None


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Make a function a command.

    Its arguments are checked by their types (`clipmem.cli.arguments`). If it takes a `reporter`, it gets one. It
    returns the screen to print, and then has the flags --json and --verbose; or a text; or None.
    """
    signature = inspect.signature(function)
    reports, tables = "reporter" in signature.parameters, signature.return_annotation not in {str, None}
    parameters = {name: each for name, each in signature.parameters.items() if name != "reporter"}

    @wraps(function)
    def run(*args: Any, json: bool = False, verbose: bool = False, **options: Any) -> None:
        bound = signature.bind_partial(*args, **options)
        for name, value in bound.arguments.items():
            parameter = parameters[name]
            option = name if parameter.kind is not inspect.Parameter.KEYWORD_ONLY else option_of(name)
            bound.arguments[name] = checked(option, value, parameter.annotation)
        if reports and not is_first():  # only the first process under torchrun prints
            function(*bound.args, **bound.kwargs, reporter=Quiet())
            return
        with printing(json=json, verbose=verbose):
            if not reports:
                show(function(*bound.args, **bound.kwargs))
                return
            with progress() as reporter:
                printed = function(*bound.args, **bound.kwargs, reporter=reporter)
            show(printed)

    if tables:
        parameters |= _FLAGS
    run.__dict__["__signature__"] = signature.replace(parameters=list(parameters.values()))
    run.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    return run


def progress() -> "report.progress.TerminalReporter":
    """Return a reporter of progress on stderr, to use in `with`."""
    return report.progress.TerminalReporter(Console(stderr=True))


def option_of(name: str) -> str:
    """Return the option of a parameter.

    Example:
        >>> option_of("set_")
        '--set'
    """
    return f"--{name.strip('_').replace('_', '-')}"


def checked(option: str, value: Any, annotation: Any) -> Any:
    """Check what was typed: paths that no file system has, then what the type of the argument asks for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        types = {field.name: field.type for field in dataclasses.fields(value)}
        return dataclasses.replace(
            value, **{name: checked(option_of(name), getattr(value, name), kind) for name, kind in types.items()}
        )
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(checked(option, part, annotation) for part in value)
    # texts may be data or names of models, which can be longer than a path
    if isinstance(value, Path) or (isinstance(value, str) and "\0" in value):
        checked_path(value, option)
    for check in _checks(annotation):
        result = check.call(value, option)
        value = result if check.opens else value
    return value


def _checks(annotation: Any) -> Iterable[Check]:
    for part in get_args(annotation):
        if isinstance(part, Check):
            yield part
        elif hasattr(part, "__metadata__"):  # X | None
            yield from _checks(part)


def show(printed: Screen | tuple[Screen, ...] | str | None) -> None:
    """Print what a command returned; nothing but in the first process under torchrun."""
    if printed is None or not is_first():
        return
    if isinstance(printed, str):
        Console().print(printed, markup=False, highlight=False, soft_wrap=True)
        return
    for screen in printed if isinstance(printed, tuple) else (printed,):
        if isinstance(screen.subject, Path):
            report.terminal.print_run(screen.name, screen.subject, Console())
        else:
            report.terminal.print_screen(screen.name, screen.subject, Console(), screen.where, screen.steps)
        if screen.then is not None:
            screen.then()


def checked_share(screen: Screen, share: float, most: float | None, subject: str) -> Screen | None:
    """Return a screen to print; where `most` is set, print it here, and fail if the share of the pairs is larger.

    Under GitHub Actions the screen is also in the summary of the job.

    Raises:
        RunError: The share is above `most`.
    """
    if most is None or not is_first():
        return screen
    show(screen)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write("```text\n")
            report.terminal.print_screen(screen.name, screen.subject, Console(file=stream, width=80), screen.where)
            stream.write("```\n")
    if share > most:
        message = f"--fail-above {most:g}: got {share:.4g} of the pairs ({subject}), expected at most {most:g}."
        raise RunError(message)
    return None


@contextlib.contextmanager
def printing(*, json: bool, verbose: bool) -> Generator[None]:
    """Print screens as JSON, or with all details, in the block."""
    tokens = (report.terminal.AS_JSON.set(json), report.terminal.VERBOSE.set(verbose)) if json or verbose else ()
    try:
        yield
    finally:
        for token in tokens:
            token.var.reset(token)


def command_line(name: str, *words: object, settings: Iterable[str] = (), **options: object) -> str:
    """Return a command line as a manifest records it; options that are None, empty or False are left out."""
    parts = ["clipmem", name, *map(str, words), *(part for text in settings for part in ("--set", text))]
    for option, value in options.items():
        if value is True:
            parts.append(option_of(option))
        elif value:
            parts += [option_of(option), str(value)]
    return shlex.join(parts)
