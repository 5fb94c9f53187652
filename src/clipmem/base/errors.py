"""Errors that say what, got, expected and what to do, in one line."""


class ClipmemError(Exception):
    """Base of every error that clipmem raises on purpose."""

    exit_code = 1


class InputError(ClipmemError, ValueError):
    """The input is wrong: a recipe, a path, a table, an argument.

    Args:
        what: What is wrong, naming the thing (`"[split] candidate"`).
        got: The value that was found, as text.
        expected: What would have been right.
        hint: An instruction: what the user can do about it, a full sentence.

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
    """The run failed although its input was right: a full disk, a NaN loss, a broken run folder."""


class ClipmemWarning(UserWarning):
    """Something may be other than the user thinks, and cannot be known: the command line prints it as one line."""


def shorten(value: object, limit: int = 80) -> str:
    """Render `value` for an error message: its repr, cut in the middle when longer than `limit` characters."""
    try:
        return shorten_text(repr(value), limit)
    except ValueError:  # an integer of more digits than Python writes
        return f"<{type(value).__name__} that is too long to show>"


def shorten_text(text: str, limit: int = 80) -> str:
    """Cut a text in the middle when it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
