"""The command line, one file per command. The `clipmem` script calls `main`."""

import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from cyclopts import CycloptsError

from clipmem.base.errors import ClipmemError, ClipmemWarning, RunError
from clipmem.base.paths import as_os_error
from clipmem.cli.app import app, load_all
from clipmem.cli.errors import TRACEBACK, report_bug, wrong_command_line
from clipmem.report.formats import visible


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the run failed, 2 the input is wrong.

    Args:
        arguments: Command-line arguments; by default `sys.argv[1:]`.
    """
    try:
        _main(arguments)
    except KeyboardInterrupt:
        print("clipmem: stopped. Run the same command again: finished parts are used.", file=sys.stderr)  # noqa: T201
        sys.exit(130)


def _main(arguments: Sequence[str] | None) -> None:
    for stream in (sys.stdout, sys.stderr):
        # a character that the terminal cannot show must not end a run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show = warnings.showwarning

    def show_ours(message: Warning | str, category: type[Warning], *location: Any) -> None:
        if issubclass(category, ClipmemWarning):  # one line, without the position in the code
            print(f"clipmem: warning: {message}", file=sys.stderr)  # noqa: T201
        else:
            show(message, category, *location)

    warnings.showwarning = show_ours
    if arguments is None:  # programs that call this handle unexpected errors themselves
        sys.excepthook = report_bug
    try:
        _run(sys.argv[1:] if arguments is None else list(arguments))
    except CycloptsError as error:
        _end(wrong_command_line(error, app))
    except ClipmemError as error:
        _end(error)
    except OSError as error:
        if error.filename is None:
            _check_output()
        # with a file name: a wrong path or a failing machine; otherwise a bug
        if error.filename is None or os.environ.get(TRACEBACK):
            raise
        _end(as_os_error(error))
    finally:
        warnings.showwarning = show


def _run(arguments: list[str]) -> None:
    """Parse a command line, and run the command."""
    if not arguments or arguments[0].startswith("-"):
        load_all()  # the list of commands has a line of each
        app.help_format = "plaintext"  # the parser of Markdown, for the pages of commands, takes a fifth of its time
    command, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    command(*bound.args, **bound.kwargs)
    if sys.stdout:  # None if it is closed
        sys.stdout.flush()


def _check_output() -> None:
    """End the command if standard output cannot be written: silently if nobody reads it (`clipmem … | head`)."""
    try:
        print(flush=True)  # noqa: T201
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        _end(RunError(f"could not write to standard output: {error.strerror}."))


def _end(error: ClipmemError) -> NoReturn:
    # messages may quote the data
    print(f"clipmem: {visible(str(error))}", file=sys.stderr)  # noqa: T201
    sys.exit(error.exit_code)
