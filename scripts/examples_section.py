"""An extension of griffe: the docstrings' section is `Example`, the parser of Google style knows `Examples`."""

import re
from typing import Any

import griffe


class ExamplesSection(griffe.Extension):
    """Renames the section when the site is built."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename it in one docstring."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^(\s*)Example:$", r"\1Examples:", obj.docstring.value)
