"""Membership inference and Déjà Vu: what can be told of the pairs that a model trained on."""

from typing import Any

from clipmem.base.summary import AUDIT_FILE
from clipmem.report.figures import DASHED, INK, LINE, ROLE_COLORS, SOFT, STYLES, Figure, Panel
from clipmem.report.formats import interval, level, side_of, signed
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Document, Figures, ScreenSection, Section, Shown
from clipmem.report.templating import names

ATTACKS, GAPS = names("attacks"), names("gaps")
_TOP = 10  # pairs of highest risk
_FEW = 10  # pairs over which an interval says nothing


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
        """Draw the mean ROC curve of each attack on logarithmic axes, down to one false positive."""
        if (audit := subject.audit) is None:
            return {}
        styles = {name: style._replace(mark="") for name, style in zip(audit.attacks, STYLES, strict=False)}
        least = 1 / audit.nonmembers

        def draw(axes: Any) -> None:
            fpr = audit.roc["fpr"]
            axes.plot([least, 1], [least, 1], color=SOFT, linewidth=1, linestyle=DASHED)
            for name, style in styles.items():
                axes.plot(fpr, audit.roc[name], color=style.color, linestyle=style.dashes, linewidth=1.8)
            axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1))

        panels = [Panel("", "false positive rate", "true positive rate", draw=draw)]
        parts = ", ".join(f"{ATTACKS[name]} {attack.tpr[1].mean:.3f}" for name, attack in audit.attacks.items())
        title = f"ROC curves of the attacks, both axes logarithmic. True positive rates at 1% false positives: {parts}."
        legend = {ATTACKS[name]: style for name, style in styles.items()}
        return {"roc": Figure(title, panels, height=380, legend=legend)}


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


@SECTIONS.register("dejavu")
class Dejavu(Section):
    """Déjà Vu memorization: objects that f recovers and the caption does not mention."""

    nav, order, screen, entry, detail = "Déjà Vu", 110, "report", "dejavu", True

    def data(self, subject: Run) -> Shown:
        return gaps(subject.summary.dejavu or {})

    def figures(self, subject: Run) -> Figures:
        """Draw the three gaps of every role with their intervals."""
        dejavu = subject.summary.dejavu or {}
        if "skipped" in dejavu:
            return {}
        entries = dejavu["two_model"]["roles"]
        roles = [role for role in entries if role in ROLE_COLORS]

        def draw(axes: Any) -> None:
            axes.axvline(0, color=INK, linewidth=1, linestyle=DASHED)
            axes.grid(axis="y", visible=False)
            axes.grid(axis="x", color=LINE, linewidth=1)
            ticks: list[tuple[float, str]] = []
            row = 0.0
            for key, name in reversed(GAPS.items()):
                for role in reversed(roles):
                    entry, color = entries[role][key], ROLE_COLORS[role]
                    if entry["low"] is not None and entry["high"] is not None:
                        axes.plot([entry["low"], entry["high"]], [row, row], color=color, linewidth=2.4)
                    axes.plot([entry["mean"]], [row], "o", color=color, markersize=6)
                    ticks.append((row, role))
                    row += 1
                label = name.removeprefix("population ")
                axes.text(1, row - 0.36, label, transform=axes.get_yaxis_transform(), ha="right", color=SOFT, size=12)
                row += 0.5
            axes.set_ylim(-0.6, row - 0.1)
            axes.set_yticks([position for position, _ in ticks], [role for _, role in ticks])

        candidate = entries["candidate"]
        values = ", ".join(
            f"{GAPS[key]} {signed(candidate[key]['mean'])} {interval(candidate[key], sign=True)}" for key in GAPS
        )
        title = f"Déjà Vu gaps by role, {level(subject.summary.confidence)} intervals. Candidates: {values}."
        height = 34 * len(GAPS) * len(roles) + 90
        return {"dejavu": Figure(title, [Panel("", "f minus g", "", margin=112, draw=draw)], height=height)}


def gaps(entry: Document) -> Shown:
    """Return what the templates show, from the entry `dejavu` of a summary."""
    if "skipped" in entry:
        return {"found": entry, "skipped": entry["skipped"]}
    two = entry["two_model"]
    candidate = two["roles"]["candidate"]
    floor = (entry["floor"] or {}).get("top", [])
    return {
        "found": entry,
        "skipped": "",
        "names": GAPS,
        "candidate": candidate,
        "clear": [name for key, name in GAPS.items() if side_of(candidate[key]) == "above"],
        "rest": two["roles"].get("candidate, not mismatched"),
        "two": two["roles"],
        "few": [top for top in candidate["top"] if top["pairs"] < _FEW],
        "tops": [{**top, "floor": floor[k] if k < len(floor) else None} for k, top in enumerate(candidate["top"])],
    }
