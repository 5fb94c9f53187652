"""Draw docs/images/audit-roc.svg from curves.json: `python experiments/audit/figure.py`.

`curves.json` has the rates of the first table of RESULTS.md, and the mean ROC curves to six digits, of the same
`audit.json`.
"""

import json
from dataclasses import replace
from pathlib import Path

from clipmem.base.summary import Attack, Audit
from clipmem.report.figures import standalone
from clipmem.report.run import Run
from clipmem.report.sections.audit import Audit as Section

HERE = Path(__file__).parent
IMAGE = HERE.parents[1] / "docs" / "images" / "audit-roc.svg"
WIDTH = 720  # of a page of the docs, in CSS pixels


def figure() -> str:
    """Return the figure of the audit's report, with the width of a page of the docs."""
    document = json.loads((HERE / "curves.json").read_text(encoding="utf-8"))
    attacks = {name: Attack.model_validate(rates) for name, rates in document["attacks"].items()}
    run = Run(HERE)
    run.audit = Audit.model_construct(attacks=attacks, roc=document["roc"])
    return standalone(replace(Section().figures(run)["roc"], width=WIDTH).svg("roc", "wide"))


if __name__ == "__main__":
    IMAGE.write_text(figure(), encoding="utf-8")
