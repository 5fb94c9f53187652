"""The end of `clipmem demo`: the commands to go on with."""

from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("next-steps")
class NextSteps(Section):
    """The commands to go on with."""

    page, screen = "", "next"
