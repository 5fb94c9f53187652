"""Output of `clipmem models show`: the parts of a model and what of them is trained."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("model")
class Model(Section):
    """Parts of a model, with the number of their parameters."""

    page, screen = "", "model"

    def data(self, subject: Mapping[str, Any]) -> dict[str, Any]:
        parts = subject["parts"]
        return {"total": {key: sum(part[key] for part in parts) for key in ("parameters", "trained")}}
