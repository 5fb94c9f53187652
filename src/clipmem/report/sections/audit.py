"""Membership inference: how well attacks tell the pairs that a model trained on, and which pairs are at risk."""

from typing import Any

from clipmem.base.summary import AUDIT_FILE
from clipmem.base.summary import Audit as Attacks
from clipmem.report.figures import DASHED, SOFT, STYLES, Figure, Panel, Style
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Document, Figures, ScreenSection, Section, Shown
from clipmem.report.sections.dejavu import gaps
from clipmem.report.templating import names

NAMES = names("attacks")
_TOP = 10  # pairs of highest risk


@SECTIONS.register("audit")
class Audit(Section):
    """The audit of a run: attacks, curves, and the pairs of highest risk."""

    nav, order, screen = "Audit", 115, "audit"

    def applies(self, subject: Run) -> bool:
        return subject.audit is not None

    def data(self, subject: Run) -> Shown:
        dejavu, top = subject.summary.dejavu, subject.table("audit/pairs").head(_TOP).to_dicts()
        return {
            "audit": subject.audit,
            "top": top,
            "captions": {row["uid"]: subject.trained_captions(row["uid"])[:1] for row in top},
            "dejavu": gaps(dejavu) if dejavu else None,
        }

    def document(self, subject: Run) -> Document:
        return subject.document(AUDIT_FILE) | {"top": subject.table("audit/pairs").head(_TOP).to_dicts()}

    def figures(self, subject: Run) -> Figures:
        audit = subject.audit
        return {"roc": roc_figure(audit)} if audit else {}


@SECTIONS.register("audited")
class Audited(ScreenSection):
    """What `clipmem audit` prints of one model."""


@SECTIONS.register("audits")
class Audits(ScreenSection):
    """What attacks tell of each run, and its difference from the baseline."""

    def data(self, subject: Document) -> Shown:
        runs = [run["run"] for run in subject["runs"][1:]]
        rows = [(run, [row for row in subject["audits"] if row["run"] == run]) for run in runs]
        return {"rows": rows}


def roc_figure(audit: Attacks) -> Figure:
    """Draw the mean ROC curve of each attack on logarithmic axes, down to one false positive."""
    styles = {name: Style(style.color, style.dashes, "") for name, style in zip(audit.attacks, STYLES, strict=False)}
    least = 1 / audit.nonmembers

    def draw(axes: Any) -> None:
        fpr = audit.roc["fpr"]
        axes.plot([least, 1], [least, 1], color=SOFT, linewidth=1, linestyle=DASHED)
        for name, style in styles.items():
            axes.plot(fpr, audit.roc[name], color=style.color, linestyle=style.dashes, linewidth=1.8)
        axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1))

    panels = [Panel("", "false positive rate", "true positive rate", draw=draw)]
    parts = ", ".join(f"{NAMES[name]} {attack.tpr[1].mean:.3f}" for name, attack in audit.attacks.items())
    title = f"ROC curves of the attacks, both axes logarithmic. True positive rates at 1% false positives: {parts}."
    legend = {NAMES[name]: style for name, style in styles.items()}
    return Figure(title, panels, height=380, legend=legend)
