"""A JSON file that holds a whole data set: read, and refused in one line when it is something else."""

import json
from pathlib import Path

from clipmem.base.errors import InputError, shorten


def load_json(path: Path) -> object:
    """Parse a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}", got=f"not readable as JSON ({shorten(str(error))})", hint="Check that it was copied whole."
        ) from error


def wrong_json(path: Path, expected: str) -> InputError:
    """Make the error for a JSON file of another kind."""
    return InputError(
        f"{path}", got="JSON of another form", expected=expected, hint="Set data.source to auto: it tells what it is."
    )


def as_objects(value: object, path: Path) -> list[dict[str, object]]:
    """Return a list of JSON objects."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong_json(path, "lists of objects")
    return value
