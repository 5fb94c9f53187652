"""What `clipmem evaluate` prints: the utility of a model or a run."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.sections import SECTIONS, Section
from clipmem.report.sections.utility import measured
from clipmem.report.templating import words_of

_COLUMN = 22


@SECTIONS.register("evaluated")
class Evaluated(Section):
    """Retrieval, zero-shot, linear probes and distances of a model."""

    page, screen = "", "evaluated"

    def data(self, subject: Mapping[str, Any]) -> dict[str, Any]:
        # the end of a path identifies a model
        short = {side: side if len(side) <= _COLUMN else f"…{side[1 - _COLUMN :]}" for side in subject["metrics"]}
        names = words_of(subject)["columns"] if "protocol" in subject else {}
        return measured(subject, {side: names.get(side, name) for side, name in short.items()})
