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
            known = [one for argument in error.argument_collection for one in argument.names if one.startswith("--")]
            what, hint = " ".join([*chain, shorten_text(option)]), did_you_mean(option, known, otherwise=hint)
            return InputError(what, got="an unknown option", expected="an option of this command", hint=hint)
        case MissingArgumentError():
            typed = getattr(error, "keyword", None)
            expected = "a value" if typed else "a value: it is required"
            return InputError(" ".join([*chain, typed or name]), got="no value", expected=expected, hint=hint)
        case CoercionError() if argument and token:
            choices = [str(choice) for choice in get_args(error.target_type) if choice != ""]
            expected = ", ".join(choices) or _TYPES.get(error.target_type, "another value")
            what, hint = " ".join([*chain, name]), did_you_mean(token.value, choices, otherwise=hint)
            return InputError(what, got=shorten(token.value), expected=expected, hint=hint)
        case ValidationError() if argument:
            bounds = str(error.exception_message).removeprefix("Must be ").rstrip(".")
            value = argument.tokens[0].value if argument.tokens else argument.value
            return InputError(" ".join([*chain, name]), got=shorten(value), expected=f"a value {bounds}", hint=hint)
        case _ if error.target is None and error.unused_tokens:
            for one in chain:
                app = app[one]
            known = [one for one in app if not one.startswith("-")]
            name, expected = error.unused_tokens[0], f"one of {', '.join(known)}"
            what, hint = " ".join([*chain, shorten_text(name)]), did_you_mean(name, known, otherwise=hint)
            return InputError(what, got="an unknown command", expected=expected, hint=hint)
        case _:
            got = shorten_text(str(error).rstrip("."), 200)
            return InputError(" ".join(["clipmem", *chain]), got=got, expected="a command line as in --help", hint=hint)


_TYPES: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false"}


def report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an unexpected error in one line, with the place of its traceback (a `sys.excepthook`)."""
    from clipmem.report.escape import visible

    lines = "".join(traceback.format_exception(kind, error, trace))
    if os.environ.get(TRACEBACK):
        sys.stderr.write(lines)
        place = "above"
    else:
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", errors="backslashreplace", prefix="clipmem-", suffix=".txt", delete=False
            ) as stream:
                stream.write(lines)
            place = f"in {Path(stream.name)}"
        except OSError:
            place = f"shown with {TRACEBACK}=1"
    message = visible(shorten_text(" ".join(f"{kind.__name__}: {error}".split()), 300))
    print(  # noqa: T201
        f"clipmem: This is a bug in clipmem; please report it. {message} (the traceback is {place})", file=sys.stderr
    )
