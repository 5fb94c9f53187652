"""Keep what users read as text, one file a page or screen: python -m tests.screens [--write].

Makes every page and terminal screen from small made-up runs and documents, and compares it with
`tests/unit/report/screens/NAME.txt`: exit code 0 when nothing differs. With --write the files are written anew; read
the difference before you commit it. Other tests check numbers, verdicts and structure, and no sentences.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.recipes import load_recipe
from clipmem.base.summary import Rate
from clipmem.data.export import Written
from clipmem.report.comparison import compare_audits, compare_runs
from clipmem.report.page import render
from clipmem.report.run import Run, read_run
from clipmem.report.sections.commands import Scored
from clipmem.report.templating import HEADING, VERBATIM
from clipmem.report.terminal import VERBOSE, document_of, screen_lines
from clipmem.study.budget import plan
from clipmem.study.curating import Curated
from tests.compared import build as build_finished
from tests.unit.report.documents import (
    AUDIT,
    DEJAVU,
    MODEL_AUDIT,
    NO_UTILITY,
    RETAINED,
    TRACED,
    UTILITY,
    WORDINGS,
    inspection,
    model_parts,
)
from tests.unit.report.other_runs import (
    add_audit,
    add_localize,
    build_finetuned,
    build_given,
    build_leave_one_out,
    build_subsample,
)
from tests.unit.report.outline import Outline
from tests.unit.report.run_folder import Built, build_run

SCREENS = Path(__file__).parent / "unit" / "report" / "screens"


def page_text(kind: str, subject: Any) -> str:
    """Return what a reader of a page sees, a line a block."""
    page = Outline()
    page.feed(render(kind, subject))
    page.close()
    return page.lines() + "\n"


def screen_text(screen: str, subject: Any) -> str:
    """Return a terminal screen of 100 columns, then that of --verbose; headings, which are bold, start with "# "."""
    json.dumps(document_of(screen, subject), default=str)  # what --json prints
    texts: list[str] = []
    for verbose in (False, True):
        token = VERBOSE.set(verbose)
        lines = screen_lines(screen, subject, 100)
        VERBOSE.reset(token)
        texts.append("\n".join(line.replace(HEADING, "# ").replace(VERBATIM, "") for line in lines) + "\n")
    return texts[0] if texts[0] == texts[1] else "\n--verbose:\n\n".join(texts)


def _with(built: Built, **entries: Any) -> Built:
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}), encoding="utf-8")
    return built


def _shifted(built: Built) -> Built:
    found = {**built.summary["centered"], "shift": -0.22, "low": -0.24, "high": -0.2, "verdict": "worse"}
    return _with(built, centered=found)


def _audited(folder: Path) -> Built:
    built = build_subsample(folder)
    add_audit(built, AUDIT)
    return built


def _localized(folder: Path) -> Built:
    built = build_run(folder, planted=2, sizes=SMALL)
    add_localize(built)
    return built


SMALL = {"shared": 6, "candidate": 12, "independent": 6, "external": 8}
COPIES = [[f"a thing of kind {i % 12}"] for i in range(32)]
RUNS: dict[str, Callable[[Path], Built]] = {
    "two-seeds": lambda folder: build_run(folder, planted=4, sizes=SMALL),
    "one-seed": lambda folder: build_run(folder, seeds=(3,), planted=0, sizes=SMALL),
    "shifted": lambda folder: _shifted(build_run(folder, planted=0, sizes=SMALL, captions=COPIES)),
    "subsample": lambda folder: build_subsample(folder),
    "audited": _audited,
    "leave-one-out": lambda folder: build_leave_one_out(folder),
    "given": lambda folder: build_given(folder),
    "finetuned": lambda folder: _with(build_finetuned(folder, planted=4, sizes=SMALL), retained=RETAINED),
    "localized": _localized,
    "utility-dejavu": lambda folder: _with(build_run(folder, planted=2, sizes=SMALL), utility=UTILITY, dejavu=DEJAVU),
    "wordings": lambda folder: _with(build_run(folder, planted=2, sizes=SMALL), **WORDINGS),
    "nothing-measured": lambda folder: _with(
        build_run(folder, seeds=(0,), planted=2, sizes=SMALL), utility=NO_UTILITY, dejavu={"skipped": "no objects"}
    ),
    "sslmem": lambda folder: _with(build_run(folder, planted=2, sizes=SMALL), alignment="sslmem-image"),
}


def compared(folder: Path) -> dict[str, Any]:
    """Compare three runs, one with fewer pairs, one with other captions and weights."""
    build_finished(folder / "plain")
    build_finished(folder / "noisy", "mitigate.text_noise.std=0.15", effect=0.5, noise=2, utility=0.05, rate=500.0)
    gone = ("c06", "c07", "i06", "i07")
    build_finished(folder / "fewer", "mitigate.remove.count=2", "mitigate.remove.by=random", without=gone)
    build_finished(folder / "other", "train.captions=2", start="elsewhere", metrics=None)
    return compare_runs([folder / name for name in ("plain", "noisy", "fewer", "other")])


def interpolated(folder: Path) -> dict[str, Any]:
    """Compare a fine-tuned run with two that interpolate its models."""
    metrics = {"linear_probe_acc1": 0.5, "zero_shot_acc1": 0.4, "retained_zero_shot_acc1": 0.6}
    tuned = "model.pretrained=base"
    build_finished(folder / "tuned", tuned, metrics=metrics)
    for k, alpha in enumerate((0.0, 0.5)):
        place = folder / f"alpha-{alpha:g}"
        setting = f"mitigate.interpolate.alpha={alpha}"
        build_finished(place, tuned, setting, effect=0.6 * alpha, noise=k + 2, utility=0.02 * k, metrics=metrics)
        for marker in place.glob("stages/train-?-*.json"):
            marker.write_text(json.dumps({**json.loads(marker.read_text(encoding="utf-8")), "made_from": "tuned"}))
    folders = [folder / name for name in ("tuned", "alpha-0", "alpha-0.5")]
    return compare_runs(folders, along="mitigate.interpolate.alpha")


def lengths(folder: Path) -> dict[str, Any]:
    """Compare a mitigation with the baseline at two lengths of training; at one it is near chance."""
    metrics, chance = {"retrieval_recall@5": 0.4}, {"retrieval_recall@5": 0.1}
    folders: list[Path] = []
    for k, (epochs, utility) in enumerate(((4, 0.0), (8, 0.1))):
        common = {"epochs": epochs, "metrics": metrics, "chance": chance}
        folders.append(build_finished(folder / f"plain-{epochs}", utility=utility, noise=k, wordings=0.5, **common))
        noise = {"effect": 0.2, "noise": k + 5, "utility": 4 * utility - 0.2, "wordings": 0.1}
        folders.append(build_finished(folder / f"noisy-{epochs}", "mitigate.text_noise.std=0.15", **noise, **common))
    return compare_runs(folders, along="train.epochs")


def scored(folder: Path) -> Scored:
    """Return scores of given models."""
    scores = build_run(folder).scores
    first = scores.filter(role="candidate").sort("clipmem", descending=True)["uid"].head(3)
    bank = {"drawn": True, "name": "", "pairs": 20}
    compared = "similarity of image and captions, minus similarity to the bank"
    about = {"alignment": "clip", "compared": compared, "range": [-6.0, 6.0], "pairs": 104}
    centered = {"shift": 0.013, "low": 0.002, "high": 0.024, "over": "pairs", "margin": 0.001, "verdict": "better"}
    about |= {"bank": bank, "problems": 2, "control": 0.0123, "centered": {**centered, "roles": {}}}
    return Scored(scores, about, {uid: [f"caption of {k}"] for k, uid in enumerate(first)}, Path("skipped.parquet"))


def estimated() -> Scored:
    """Return estimates from one model."""
    uids = [f"{k:032x}" for k in range(3)]
    scores = pl.DataFrame({"uid": uids, "estimator": ["transferred"] * 3, "score": [0.5, 0.2, -0.1]})
    about = {"estimator": "transferred", "pairs": 1234, "model": "f", "problems": 1}
    about["new_data"] = {"mean": 0.734, "low": 0.453, "high": 1.0}
    return Scored(scores, about, {uid: [f"caption of {uid[-1]}"] for uid in uids}, Path("skipped.parquet"))


def curated(*, found: bool) -> Any:
    """Return suspects, with mismatched captions or none beyond chance, and with and without cleaned data."""
    share = {
        "share": 0.12 * found,
        "low": 0.08 * found,
        "high": 0.16,
        "found": found,
        "clear": True,
        "confidence": 0.95,
    }
    about = {"pairs": 1000, "problems": 2, "model": None, "run": found, "seconds_in_all": 4.21, "suspects": 90 * found}
    about |= {"expected": {**share, "clear": True, "pairs": [120 * found, 80 * found, 160]}, "by_rule": 15 * found}
    about |= {"not_judged": 57, "reused": True, "marks_of_others": 4} if found else {}
    rates = {"precision": 0.82, "low": 0.71, "high": 0.9, "recall": 0.6}
    about |= {"aim": "precision=0.8" if found else "", "expectation": [rates] if found else []}
    lengths = {10: (0.97, 0.9, 0.99, 0.02), 1000: (0.12, 0.09, 0.15, 0.99)} if found else {}
    names = "precision", "low", "high", "recall"
    about |= {"curve": [{"length": k, **dict(zip(names, x, strict=True))} for k, x in lengths.items()]}
    about |= {"written": {"marked": 2, "planted": 3} if found else {"marked": 0, "planted": 0}}
    marks = {"wrong": 12, "fine": 10, "used": True, "learned": 0.93, "list": 0.81}
    suspect = {"uid": "ab" * 16, "probability": 0.96, "caption": "a caption of another pair", "reason": "left-out"}
    suspect |= {"second_reason": "image-neighbors", "suggested_caption": None}
    first = [
        suspect | {"suggested_caption": "a better caption"},
        suspect | {"suggested_caption": None, "reason": "new"},
    ]
    written = Written(Path("clean/pairs.csv"), "csv", True, 1000, 910, 30, 60, 3, 1213, 70)
    if found:
        return Curated(Path("suspects"), about | {"marks": marks}, first, written)
    parquet = written._replace(format="parquet", same_format=False, kept=1000, corrected=0, removed=0)
    return Curated(Path("suspects"), about, [], parquet)


def audits(folder: Path) -> dict[str, Any]:
    """Compare the audits of two runs, of which the second leaks less."""
    first = Run(_audited(folder / "plain" / "study").folder)
    second = Run(_audited(folder / "noisy" / "study").folder)
    assert second.audit is not None
    for attack in second.audit.attacks.values():
        auc = attack.auc
        attack.auc = Rate(mean=auc.mean - 0.1, low=(auc.low or 0) - 0.1, high=(auc.high or 0) - 0.1)
    for run, name in ((first, "plain"), (second, "noisy")):
        vars(run)["name"] = name
    return compare_audits([first, second])


def make(folder: Path) -> dict[str, str]:
    """Make every page and screen."""
    found: dict[str, str] = {}
    for name, build in RUNS.items():
        run = read_run(build(folder / name / "study").folder)
        found[f"study-{name}"] = page_text("study", run)
        found[f"report-{name}"] = screen_text("report", run)
        if run.has("localize/units"):
            found[f"localize-{name}"] = screen_text("localize", run)
        if run.audit:
            found[f"audit-{name}"] = screen_text("audit", run)
    comparison = compared(folder / "compared")
    found["comparison"] = page_text("comparison", comparison)
    found["comparison-terminal"] = screen_text("comparison", comparison)
    between = interpolated(folder / "interpolated")
    found["curve"], found["curve-terminal"] = page_text("comparison", between), screen_text("comparison", between)
    along = lengths(folder / "lengths")
    found["frontier"], found["frontier-terminal"] = page_text("comparison", along), screen_text("comparison", along)
    found["scored"] = screen_text("scored", scored(folder / "scored" / "study"))
    found["estimated"] = screen_text("estimated", estimated())
    found["traced"] = screen_text("traced", TRACED)
    found["budget"] = screen_text("budget", plan(load_recipe("", ["model.name=clipmem-tiny"]), 0.3))
    found["inspected"] = screen_text("inspected", inspection())
    evaluated = {**UTILITY, "confidence": 0.95, "probe": {"commonest_class_acc1": 0.2}}
    found["audits"] = screen_text("audits", audits(folder))
    found["audited-model"] = screen_text("audited", MODEL_AUDIT)
    found["model"] = screen_text("model", model_parts())
    found["curated"] = screen_text("curated", curated(found=True))
    found["curated-none"] = screen_text("curated", curated(found=False))
    found["evaluated"] = screen_text("evaluated", evaluated)
    return found


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder))
    if write:
        SCREENS.mkdir(exist_ok=True)
        for file in SCREENS.glob("*.txt"):
            file.unlink()
        for name, text in made.items():
            (SCREENS / f"{name}.txt").write_text(text, encoding="utf-8")
        return 0
    kept = {file.stem: file.read_text(encoding="utf-8") for file in SCREENS.glob("*.txt")}
    other = sorted(name for name in {**kept, **made} if kept.get(name) != made.get(name))
    print("\n".join(f"differs: {name}" for name in other) or f"{len(made)} screens: nothing differs")
    return bool(other)


if __name__ == "__main__":
    sys.exit(main())
