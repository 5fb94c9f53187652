"""The end of `clipmem demo`: the commands to try next."""

from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("next-steps")
class NextSteps(Section):
    """The commands to try next."""

    page, screen = "", "next"
