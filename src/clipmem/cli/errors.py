"""Messages for a wrong command line and for unexpected errors."""

import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import TracebackType
from typing import get_args

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError, UnknownOptionError, ValidationError

from clipmem.base.errors import InputError, did_you_mean, shorten, shorten_text

TRACEBACK = "CLIPMEM_TRACEBACK"


def wrong_command_line(error: CycloptsError, app: App) -> InputError:
    """Convert cyclopts's error into an `InputError`."""
    chain = list(error.command_chain or ())
    hint = f"`{' '.join(['clipmem', *chain])} --help` shows the options."
    argument, token = error.argument, getattr(error, "token", None)
    name = argument.name if argument else ""
    # the names of positional arguments are shown as in --help
    name = name if name.startswith("-") else name.upper()
    match error:
        case UnknownOptionError():
            option = error.token.keyword or error.token.value
            flags = [flag for argument in error.argument_collection for flag in argument.names if flag.startswith("--")]
            subject, hint = " ".join([*chain, shorten_text(option)]), did_you_mean(option, flags, otherwise=hint)
            return InputError(subject, got="an unknown option", expected="an option of this command", hint=hint)
        case MissingArgumentError():
            typed = getattr(error, "keyword", None)
            expected = "a value" if typed else "a value: it is required"
            return InputError(" ".join([*chain, typed or name]), got="no value", expected=expected, hint=hint)
        case CoercionError() if argument and token:
            choices = [str(choice) for choice in get_args(error.target_type) if choice != ""]
            expected = ", ".join(choices) or _TYPES.get(error.target_type, "another value")
            subject, hint = " ".join([*chain, name]), did_you_mean(token.value, choices, otherwise=hint)
            return InputError(subject, got=shorten(token.value), expected=expected, hint=hint)
        case ValidationError() if argument:
            bounds = str(error.exception_message).removeprefix("Must be ").rstrip(".")
            value = argument.tokens[0].value if argument.tokens else argument.value
            return InputError(" ".join([*chain, name]), got=shorten(value), expected=f"a value {bounds}", hint=hint)
        case _ if error.target is None and error.unused_tokens:
            for parent in chain:
                app = app[parent]
            commands = [command for command in app if not command.startswith("-")]
            name, expected = error.unused_tokens[0], f"one of {', '.join(commands)}"
            subject, hint = " ".join([*chain, shorten_text(name)]), did_you_mean(name, commands, otherwise=hint)
            return InputError(subject, got="an unknown command", expected=expected, hint=hint)
        case _:
            got = shorten_text(str(error).rstrip("."), 200)
            return InputError(" ".join(["clipmem", *chain]), got=got, expected="a command line as in --help", hint=hint)


_TYPES: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false"}


def report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an unexpected error in one line, with the place of its traceback (a `sys.excepthook`)."""
    from clipmem.report.formats import visible

    lines = "".join(traceback.format_exception(kind, error, trace))
    if os.environ.get(TRACEBACK):
        sys.stderr.write(lines)
        location = "above"
    else:
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", errors="backslashreplace", prefix="clipmem-", suffix=".txt", delete=False
            ) as stream:
                stream.write(lines)
            location = f"in {Path(stream.name)}"
        except OSError:
            location = f"shown with {TRACEBACK}=1"
    message = visible(shorten_text(" ".join(f"{kind.__name__}: {error}".split()), 300))
    print(  # noqa: T201
        f"clipmem: This is a bug in clipmem; please report it. {message} (the traceback is {location})", file=sys.stderr
    )
