"""One-line errors with four parts: what, got, expected, hint."""


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
        middle = ", ".join(
            part for part in (f"got {got}" if got else "", f"expected {expected}" if expected else "") if part
        )
        text = f"{what}: {middle}" if middle else what
        super().__init__(f"{text.rstrip('.')}. {hint}" if hint else text)


class RunError(ClipmemError, RuntimeError):
    """The run failed although its input was valid: a full disk, a NaN loss, a broken run folder."""


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
