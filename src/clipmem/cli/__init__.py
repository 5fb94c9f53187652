"""The command line: one file a subcommand. `main` is what the `clipmem` script calls."""

import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the run failed, 2 the input is wrong.

    Args:
        arguments: What follows the program's name; by default `sys.argv[1:]`.
    """
    from clipmem.base.errors import ClipmemError, ClipmemWarning
    from clipmem.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        # captions hold any character; a terminal that lacks one must not end a run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show = warnings.showwarning

    def show_ours(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, ClipmemWarning):  # as a line to read, without a place in the code
            print(f"clipmem: warning: {message}", file=sys.stderr)  # noqa: T201
        else:
            show(message, category, *place)

    warnings.showwarning = show_ours
    try:
        app(sys.argv[1:] if arguments is None else list(arguments))
    except ClipmemError as error:
        from clipmem.report.escape import visible

        # a message may quote the data: names of files, keys, captions
        print(f"clipmem: {visible(str(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `clipmem … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("clipmem: stopped. Run the same command again: it goes on where it stopped.", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    finally:
        warnings.showwarning = show
