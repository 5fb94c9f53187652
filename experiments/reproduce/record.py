"""Store the results of a reproduction, and write the verdicts and figures of docs/findings.md from them.

    clipmem reproduce --scale laptop --out reproduced
    python experiments/reproduce/record.py reproduced            # stores it in laptop/, then writes the page
    python experiments/reproduce/record.py                       # writes the page again, without any run

`laptop/` holds `findings.json` of `clipmem reproduce`, `base.toml` (the recipe of the base study), `runs.parquet`
(settings of each run, and its measurements by seed) and `machine.json`. To repeat a run: `clipmem run laptop/base.toml
--set SETTING... --out DIR`, a removal after its parent.
"""

import html
import json
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import polars as pl

from clipmem.analysis.runs import FinishedRun
from clipmem.base.recipes import dump_recipe
from clipmem.report.figures import standalone
from clipmem.report.formats import duration, interval, level, signed
from clipmem.report.read import read_finished
from clipmem.report.sections.findings import drawable, finding_figure, tally
from clipmem.report.templating import environment
from clipmem.store.folder import SIDES, RunFolder
from clipmem.study.reproduce import INDEX, RUNS, base_recipe

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
PAGE, IMAGES = DOCS / "findings.md", DOCS / "images"
_BLOCK = re.compile(r"(<!-- finding: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ROLES = ("candidate", "independent", "shared", "external")
_PACKAGES = ("clipmem", "torch", "open_clip_torch", "numpy", "scipy", "scikit-learn")


def keep(folder: Path) -> Path:
    """Store verdicts, tables and versions of a reproduction in the repository."""
    document = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    place = HERE / document["scale"]
    place.mkdir(exist_ok=True)
    (place / "findings.json").write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    made = [key for key in index if RunFolder(folder / RUNS / key).is_done("report")]
    rows = [row for key in made for row in measured(key, index[key], read_finished(folder / RUNS / key))]
    pl.DataFrame(rows).write_parquet(place / "runs.parquet")
    base = base_recipe(document["scale"], len(document["seeds"]))
    (place / "base.toml").write_text(dump_recipe(base), encoding="utf-8")
    manifest = RunFolder(folder / RUNS / made[0]).read_json("manifest.json")
    machine = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "processor": _processor(),
        **{key: manifest[key] for key in ("device", "precision", "threads", "workers")},
    }
    (place / "machine.json").write_text(json.dumps(machine, indent=1) + "\n", encoding="utf-8")
    return place


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else platform.processor()


def measured(key: str, entry: dict[str, object], run: FinishedRun) -> list[dict[str, object]]:
    """Return the measurements of a run, one row per measure and seed."""
    values = {f"clipmem {role}": run.memorization(run.uids(role)) for role in _ROLES}
    if run.planted:
        values["clipmem planted"] = run.memorization(run.planted)
    values |= run.utility
    for side in SIDES:
        values[f"pairs/s of {side}"] = [float(run.markers[side, seed]["pairs_per_second"]) for seed in run.seeds]
    settings = " ".join(entry["settings"])
    return [
        {"run": key, "name": entry["name"], "settings": settings, "measure": measure, "seed": seed, "value": value}
        for measure, own in values.items()
        for seed, value in zip(run.seeds, own, strict=True)
    ]


def section(one: dict[str, object], scale: str) -> str:
    """Return the section of a finding: verdict, figure, effects, command."""
    macros = environment(screen=True).get_template("sentences.jinja").module
    lines = [f"**{macros.VERDICTS[one['holds']].capitalize()}.** {one['claim']}", ""]
    if drawable(one["panels"]):
        lines += [f"![{one['title']}](images/finding-{one['finding']}.svg)", ""]
    lines += ["| effect | estimate | interval | claimed | holds |", "| --- | --- | --- | --- | --- |"]
    for effect in one["effects"]:
        primary = f" (primary, {level(effect['confidence'])})" if effect["primary"] else ""
        found = f"{signed(effect['estimate'])} | {interval(effect, sign=True)}"
        claimed = html.unescape(str(macros.claimed(effect["claim"]))).strip()
        lines.append(f"| {effect['measure']} | {found} | {claimed} | {effect['holds']}{primary} |")
    lines += [
        "",
        f"`clipmem reproduce --scale {scale} --figure {one['finding']}`; its runs took {duration(one['seconds'])}.",
    ]
    return "\n".join(lines)


def write_page(place: Path) -> None:
    """Insert verdicts and figures between the marks of docs/findings.md."""
    document = json.loads((place / "findings.json").read_text(encoding="utf-8"))
    sections = {one["finding"]: section(one, document["scale"]) for one in document["findings"]}
    macros = environment(screen=True).get_template("sentences.jinja").module
    sections["summary"] = html.unescape(str(macros.tallied(document, tally(document)))).strip()
    text = PAGE.read_text(encoding="utf-8")
    marks = {found[2] for found in _BLOCK.finditer(text)}
    if missing := set(sections) - marks:
        sys.exit(f"{PAGE}: no place for {sorted(missing)}, expected a mark <!-- finding: NAME --> for each.")
    text = _BLOCK.sub(
        lambda found: f"{found[1]}{sections.get(found[2], 'Not run yet.')}\n{found[3]}",
        text,
    )
    PAGE.write_text(text, encoding="utf-8")
    for one in document["findings"]:
        if drawable(one["panels"]):
            image = standalone(finding_figure(one, "wide"))
            (IMAGES / f"finding-{one['finding']}.svg").write_text(image, encoding="utf-8")


if __name__ == "__main__":
    write_page(keep(Path(sys.argv[1])) if len(sys.argv) > 1 else HERE / "laptop")
