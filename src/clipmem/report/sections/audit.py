"""Membership inference and Déjà Vu: what can be told of the pairs that a model trained on."""

from functools import partial
from typing import Any

from clipmem.base.summary import AUDIT_FILE, Offline
from clipmem.report.figures import CHANCE, DASHED, ROLE_STYLES, SOFT, STYLES, Figure, Groups, Line, Panel, draw_rows
from clipmem.report.formats import interval, level, plain, signed
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Document, Figures, ScreenSection, Section, Shown
from clipmem.report.templating import names

ATTACKS, GAPS = names("attacks"), names("gaps")
_TOP = 10  # pairs of highest risk


@SECTIONS.register("audit")
class Audit(Section):
    """The audit of a run: attacks, curves, and the pairs of highest risk."""

    nav, order, screen = "Audit", 115, "audit"

    def applies(self, subject: Run) -> bool:
        return subject.audit is not None

    def data(self, subject: Run) -> Shown:
        top = subject.table("audit/pairs").head(_TOP).to_dicts()
        return {"top": top, "captions": {row["uid"]: subject.trained_captions(row["uid"])[:1] for row in top}}

    def document(self, subject: Run) -> Document:
        return {**subject.document(AUDIT_FILE), "top": subject.table("audit/pairs").head(_TOP).to_dicts()}

    def figures(self, subject: Run) -> Figures:
        """Draw the mean ROC curve of each attack on logarithmic axes, and its true positive rates at few false ones."""
        if (audit := subject.audit) is None:
            return {}
        styles, lines = dict(zip(audit.attacks, STYLES, strict=False)), [Line([1e-3, 1], [1e-3, 1], CHANCE)]
        groups: Groups = {"at 1% false positives": [], "at 0.1% false positives": []}
        for name, style in styles.items():
            rates = audit.attacks[name].tpr
            lines.append(Line(audit.roc["fpr"], audit.roc[name], style._replace(mark="")))
            lines.append(Line([1e-3, 1e-2], [rate.mean for rate in rates], style, joined=False))
            for rows, rate in zip(groups.values(), reversed(rates), strict=True):
                rows.append((ATTACKS[name], style, rate.mean, rate, f"{plain(rate.mean)} {interval(rate)}"))

        def draw(axes: Any) -> None:
            axes.axvline(1e-2, color=SOFT, linewidth=1, linestyle=DASHED)
            ticks = ["0.001", "0.01", "0.1", "1"]
            scale = {"scale": "log", "lim": (8e-4, 1.1), "ticks": [float(tick) for tick in ticks], "ticklabels": ticks}
            axes.set(**{axis + name: value for axis in "xy" for name, value in scale.items()})

        few = Panel("few false positives", "true positive rate", "", draw=partial(draw_rows, groups), margin=104)
        panels = [Panel("ROC curves", "false positive rate", "true positive rate", lines, draw=draw), few]
        parts = ", ".join(f"{ATTACKS[name]} {attack.tpr[1].mean:.3f}" for name, attack in audit.attacks.items())
        title = f"ROC curves of the attacks, both axes logarithmic. True positive rates at 1% false positives: {parts}."
        legend = {ATTACKS[name]: style for name, style in styles.items()}
        roc = Figure(title, panels, columns=2, height=220 + 30 * len(styles), legend=legend)
        return {"roc": roc, **(_offline(audit.offline) if audit.offline else {})}


def _offline(offline: Offline) -> Figures:
    """Draw AUC and true positive rate of the offline attacks over their number of references."""
    counts, styles = offline.references, dict(zip(offline.attacks, STYLES, strict=False))
    panels = [Panel("AUC", "references", "", whole=True), Panel("TPR at 1% FPR", "references", "", whole=True)]
    for name, style in styles.items():
        attacks = offline.attacks[name]
        for panel, rates in zip(panels, ([a.auc for a in attacks], [a.tpr[1] for a in attacks]), strict=True):
            low, mean, high = zip(*((rate.low, rate.mean, rate.high) for rate in rates), strict=True)
            panel.lines.append(Line(counts, mean, style, low, high))
    last = ", ".join(f"{ATTACKS[name]} {offline.attacks[name][-1].auc.mean:.3f}" for name in styles)
    title = f"Success of offline attacks by their number of references. AUC with {counts[-1]}: {last}."
    legend = {ATTACKS[name]: style for name, style in styles.items()}
    return {"references": Figure(title, panels, columns=2, height=260, legend=legend)}


@SECTIONS.register("audited")
class Audited(ScreenSection):
    """What `clipmem audit` prints of one model."""


@SECTIONS.register("audits")
class Audits(ScreenSection):
    """What attacks tell of each run, and its difference from the baseline."""


@SECTIONS.register("dejavu")
class Dejavu(Section):
    """Déjà Vu memorization: objects that f recovers and the caption does not mention."""

    nav, order, screen, entry, detail = "Déjà Vu", 110, "report", "dejavu", True

    def figures(self, subject: Run) -> Figures:
        """Draw the three gaps of every role with their intervals."""
        dejavu = subject.summary.dejavu or {}
        if "skipped" in dejavu:
            return {}
        entries = dejavu["two_model"]["roles"]
        roles = [role for role in entries if role in ROLE_STYLES]

        groups = {
            name.removeprefix("population "): [
                (role, ROLE_STYLES[role], gap["mean"], gap, "") for role in roles for gap in (entries[role][key],)
            ]
            for key, name in GAPS.items()
        }
        candidate = entries["candidate"]
        values = ", ".join(
            f"{GAPS[key]} {signed(candidate[key]['mean'])} {interval(candidate[key], sign=True)}" for key in GAPS
        )
        title = f"Déjà Vu gaps by role, {level(subject.summary.confidence)} intervals. Candidates: {values}."
        panel = Panel("", "f minus g", "", margin=112, draw=partial(draw_rows, groups))
        return {"dejavu": Figure(title, [panel], height=34 * len(GAPS) * len(roles) + 90)}
