"""PLAN.md: what was decided before the runs of a finding, and how a reproduction differs from it."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from clipmem.base.folder import Job
from clipmem.base.paths import write_json
from clipmem.base.recipes import Overrides, as_settings
from clipmem_reproduce.scales import Scale

PLANS = "plans.json"
_NEEDED = "data.path="  # of a regime whose data are not shipped


def plan_hash(finding: str, *more: str) -> str:
    """Return the SHA-256 of what PLAN.md says about a finding; "" without a section.

    These are the rules for all findings, and the sections of the finding and of `more`: its regime, its scale.
    """
    text = (Path(__file__).parent / "PLAN.md").read_text(encoding="utf-8")
    rules, *sections = re.split(r"^## ", text.partition("\n## ")[2], flags=re.MULTILINE)
    by_name = {name: section for section in sections for name in re.findall(r"^.*\(`([\w-]+)`\)\n", section)}
    text = rules + "".join(by_name.get(name, "") for name in (finding, *more))
    return hashlib.sha256(text.encode()).hexdigest() if finding in by_name else ""


def plan_changes(out: Path, findings: Sequence[str], *more: str) -> list[str]:
    """Note the plans of findings before their first run, and return in words which of them changed since."""
    first = Job(out).read_json(PLANS) if (out / PLANS).is_file() else {}
    now = {name: plan_hash(name, *more) for name in findings}
    write_json(out / PLANS, {**now, **first})
    return [
        f"the plan of {name} was changed after its first run" for name in now if first.get(name, now[name]) != now[name]
    ]


def deviations(scale: Scale, seeds: int | None, settings: Overrides) -> list[str]:
    """Return in words how a reproduction differs from its plan."""
    other_seeds = [f"{seeds} seeds instead of {scale.seeds}"] if seeds not in (None, scale.seeds) else []
    changes = [change for change in as_settings(settings) if not change.startswith(_NEEDED)]
    return other_seeds + [f"set by the user: {change}" for change in changes]
