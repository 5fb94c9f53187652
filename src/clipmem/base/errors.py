"""One-line errors with four parts (what, got, expected, hint), checks that raise them, and suggestions for names."""

import difflib
import math
from collections.abc import Iterable
from numbers import Real


class ClipmemError(Exception):
    """Base class of clipmem's errors."""

    exit_code = 1


class InputError(ClipmemError, ValueError):
    """The input is wrong: a recipe, a path, a table, an argument.

    Args:
        what: The setting, file or argument that is wrong (`"[split] candidate"`).
        got: The value found.
        expected: What is valid.
        hint: How to fix it: an instruction, in a full sentence.

    Example:
        >>> str(InputError("[train] epochs", got="0", expected="1 or more", hint="Set train.epochs."))
        '[train] epochs: got 0, expected 1 or more. Set train.epochs.'
    """

    exit_code = 2

    def __init__(self, what: str, *, got: str = "", expected: str = "", hint: str = "") -> None:
        self.what, self.got, self.expected, self.hint = what, got, expected, hint
        parts = [f"{name} {text}" for name, text in (("got", got), ("expected", expected)) if text]
        text = f"{what}: {', '.join(parts)}" if parts else what
        super().__init__(f"{text.rstrip('.')}. {hint}" if hint else text)


class RunError(ClipmemError, RuntimeError):
    """The run failed although its input was valid: a full disk, a NaN loss, a broken run folder."""


class Unfinished(ClipmemError):  # noqa: N818  no error
    """A share of the parts of some work is done, and it was told to do no more: no failure.

    Args:
        share: Which share, such as "3/16".
        remaining: Number of parts that are not done yet, of all shares.
        total: Number of all parts.
    """

    exit_code = 0

    def __init__(self, share: str, remaining: int, total: int) -> None:
        self.share, self.remaining, self.total = share, remaining, total
        text = f"{remaining} of {total} parts are left to the other shares" if remaining else "all parts are done"
        hint = "When all shares are done, run the same command without --part."
        super().__init__(f"share {share} is done, {text}. {hint}")


class ClipmemWarning(UserWarning):
    """A possible problem that clipmem cannot verify; the command line prints it as one line."""


def shorten(value: object, limit: int = 80) -> str:
    """Return the repr of `value`, cut in the middle if longer than `limit` characters."""
    try:
        return shorten_text(repr(value), limit)
    except ValueError:  # an integer of more digits than Python writes
        return f"<{type(value).__name__} too long to show>"


def shorten_text(text: str, limit: int = 80) -> str:
    """Cut a text in the middle if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


_LONGEST = 200  # characters of a name to compare: the cost is quadratic
_SHOWN = 40  # names in a list


def near_names(name: str, choices: Iterable[str]) -> list[str]:
    """Return up to two similar known names, most similar first, ignoring case.

    Example:
        >>> near_names("vit-b-32", ["ViT-B-32", "RN50"])
        ['ViT-B-32']
    """
    if len(name) > _LONGEST:
        return []
    by_lower = {choice.lower(): choice for choice in sorted(choices) if len(choice) <= _LONGEST}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.6)]


def did_you_mean(name: str, choices: Iterable[str], *, kind: str = "name", otherwise: str = "") -> str:
    """Suggest the most similar known names; if none is similar, say `otherwise`, by default a list of all."""
    names = sorted(choices)
    near = near_names(name, names)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    if otherwise:
        return otherwise
    examples = [shorten_text(choice) for choice in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"Known {kind}s: {', '.join(examples)}{more}."


Number = int | float  # the run-time type checks of the tests do not accept an int for a float


def require(condition: object, subject: str, got: str, expected: str, hint: str = "") -> None:
    """Raise an `InputError` unless the condition holds.

    Example:
        >>> require(3 > 0, "[train] epochs", "3", "1 or more", "Set train.epochs.")
    """
    if not condition:
        raise InputError(subject, got=got, expected=expected, hint=hint)


def require_one_of(subject: str, value: object, choices: Iterable[str], hint: str = "") -> None:
    """Raise an `InputError` unless a value is one of the choices; the default hint suggests similar ones.

    Example:
        >>> require_one_of("--device", "cpu", ("auto", "cpu", "cuda"))
    """
    names = list(choices)
    hint = hint or did_you_mean(str(value), names, otherwise="Use one of these.")
    require(value in names, subject, shorten(value), ", ".join(names), hint)


def require_range(
    subject: str, value: Number, low: Number | None = None, high: Number | None = None, hint: str = ""
) -> None:
    """Raise an `InputError` unless low <= value <= high; None is no bound. Only finite numbers are in range.

    Example:
        >>> require_range("confidence", 0.95, 0, 1)
    """
    number = isinstance(value, Real) and math.isfinite(value)
    if not number or (low is not None and value < low) or (high is not None and value > high):
        expected = f"{low} or more" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        raise InputError(subject, got=shorten(value), expected=expected, hint=hint)


def require_columns(subject: str, columns: Iterable[str], needed: Iterable[str], hint: str = "") -> None:
    """Raise an `InputError` unless a table has the needed columns.

    Example:
        >>> require_columns("scores.parquet", ["uid", "clipmem"], ["uid"])
    """
    present = list(columns)
    missing = [name for name in needed if name not in present]
    got, hint = f"the columns {', '.join(map(shorten_text, present[:40])) or 'none'}", hint or "Check the file."
    require(not missing, subject, got, f"also {', '.join(missing)}", hint)
