"""What `clipmem run --budget` buys, and what more would buy."""

import math
from typing import Any

from clipmem.report.sections import SECTIONS, Section, Shown


@SECTIONS.register("budget")
class Budget(Section):
    """The estimator and half-models chosen for a budget, and better ones that cost more."""

    page, screen = "", "budget"

    def data(self, subject: Any) -> Shown:
        rows = [("this budget", subject.chosen), *(("better", one) for one in subject.better)]
        # rounded up, so that a budget of what is printed buys it
        prices = [math.ceil(100 * one.cost - 1e-6) / 100 for _, one in rows]
        return {
            "plan": subject,
            "rows": list(zip(rows, prices, strict=True)),
            "measured": list(subject.chosen.agreement),
        }
