"""The section on utility and forgetting: numbers, verdicts, and only what was measured."""

import io
import json
from copy import deepcopy

import pytest
from rich.console import Console

from clipmem.base.summary import Interval, Utility
from clipmem.report.comparison import compare_runs
from clipmem.report.page import write_report
from clipmem.report.run import read_finished, read_run
from clipmem.report.sections.utility import Retained, measured, verdict
from clipmem.report.templating import environment
from clipmem.report.terminal import print_screen
from tests.compared import build as build_finished
from tests.screens import screen_text
from tests.unit.report.documents import NO_UTILITY, RETAINED, UTILITY, UTILITY_SIDE, value
from tests.unit.report.other_runs import build_finetuned, build_subsample
from tests.unit.report.outline import outline, report_text

COLUMNS = {"f": "f", "g": "g"}


def with_utility(build, found):
    built = build(seeds=(0, 1), planted=8)
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "utility": found}), encoding="utf-8")
    return built


def printed(built, width=100):
    return report_text(built.folder, width)


def test_the_page_shows_it(build):
    built = with_utility(build, UTILITY)
    page = outline(write_report(built.folder, built.images))
    words = page.words().replace("\N{NO-BREAK SPACE}", " ")
    assert "zero-shot accuracy45.8 [38.8, 52.2]42.0 no interval11.1" in words
    assert "linear probe recall by class51.7 [44.9, 58.7]51.7 [44.9, 58.7]11.1" in words
    ids = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert ids.index("utility") == ids.index("retrieval") - 1
    assert ("a", "#utility") in [(tag, attrs.get("href")) for tag, attrs in page.tags]


def test_the_same_bytes_twice(build):
    built = with_utility(build, UTILITY)
    first = write_report(built.folder, built.images).read_bytes()
    assert write_report(built.folder, built.images).read_bytes() == first


def test_the_terminal_shows_it(build):
    text = printed(with_utility(build, UTILITY))
    lines = {line.strip()[:40].split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["zero-shot accuracy"][2:] == ["45.8", "[38.8,", "52.2]", "42.0", "no", "interval", "11.1"]
    assert max(len(line) for line in text.splitlines() if not line.startswith("Report:")) <= 100
    printed(with_utility(build, UTILITY), width=60)


def test_what_was_not_measured_has_a_reason_and_no_row(build):
    built = with_utility(build, NO_UTILITY)
    text = " ".join(printed(built).split())
    assert "no external pair has a ␛[31mlabel." in text
    assert "linear probe accuracy" not in text
    assert [key for key, _ in measured(Utility.model_validate(NO_UTILITY), COLUMNS)["rows"]] == [
        "image_retrieval_recall@5",
        "text_retrieval_recall@5",
    ]


def test_without_it_there_is_no_section(two_seeds):
    page = outline(write_report(two_seeds.folder, two_seeds.images))
    assert "utility" not in [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert "Utility" not in printed(two_seeds)


@pytest.mark.parametrize("names", [("models/a", "models/b\x1b[0m"), ("transformers:" + "x" * 80,)])
def test_any_names_of_models_can_be_columns(tmp_path, names):
    document = {**UTILITY, "confidence": 0.95, "probe": {"commonest_class_acc1": 0.2}}
    document["metrics"] = dict.fromkeys(names, UTILITY_SIDE)
    console = Console(width=100, record=True, file=io.StringIO())
    print_screen("evaluated", document, console, f"Written: {tmp_path / 'u.json'}")
    text = console.export_text()
    assert "\x1b" not in text
    assert "Utility on 200 pairs" in text
    assert f"Written: {tmp_path / 'u.json'}" in text


@pytest.mark.parametrize(("changes", "heads"), [({}, ["f", "g"]), ({"protocol": "given"}, ["target", "reference"])])
def test_the_models_of_a_run_have_the_names_of_its_protocol(changes, heads):
    console = Console(width=100, record=True, file=io.StringIO())
    print_screen("evaluated", {**UTILITY, "confidence": 0.95, "probe": {}, **changes}, console)
    row = next(line for line in console.export_text().splitlines() if line.strip().startswith("measure"))
    assert row.split() == ["measure", *heads, "chance"]


def test_many_templates_are_not_all_shown():
    found = Utility.model_validate({**UTILITY, "templates": [f"{k} {{}}" for k in range(80)]})
    text = environment().get_template("sentences.jinja").module.utility(found, [])
    assert "“0 {}”, “1 {}”, “2 {}”, “3 {}” and 76 more." in text


def test_what_is_not_above_chance_is_named():
    low = ["R@5, image-to-text"]
    assert measured(Utility.model_validate(UTILITY), COLUMNS)["not_above"] == [("f", low), ("g", low)]
    good = {name: value(0.5, 0.4, 0.6) for name in UTILITY_SIDE}
    assert measured(Utility.model_validate({**UTILITY, "metrics": {"f": good, "g": good}}), COLUMNS)["not_above"] == []


SIZES = {"shared": 6, "candidate": 12, "independent": 6, "external": 8}


def with_retained(built, document=RETAINED):
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "retained": document}), encoding="utf-8")
    return built


@pytest.fixture
def built(tmp_path):
    return with_retained(build_finetuned(tmp_path / "study", sizes=SIZES))


def test_the_page_shows_before_and_after(built):
    words = outline(write_report(built.folder, built.images)).words().replace("\N{NO-BREAK SPACE}", " ")
    row = "zero-shot accuracy60.0 [50.0, 70.0]50.0 [40.0, 60.0]-12.3 [-20.0, -4.6]"
    assert row + "50.0 [40.0, 60.0]+25.0 [10.0, 40.0]11.1" in words
    assert "photos/<old>" in words
    assert "3 pairs" in words
    assert "Fine-tuning made the model forget" in words
    assert "linear probe" not in words


def test_the_terminal_shows_what_is_retained(built):
    text = screen_text("report", read_run(built.folder))
    [row] = [line.split() for line in text.splitlines() if line.strip().startswith("zero-shot accuracy")]
    assert row[2:] == ["60.0", "50.0", "-12.3", "[-20.0,", "-4.6]", "50.0", "+25.0", "[10.0,", "40.0]"]


def test_without_retained_there_is_no_section(two_seeds):
    assert not Retained().applies(read_run(two_seeds.folder))
    assert "minus base" not in screen_text("report", read_run(two_seeds.folder))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.2, -0.1, "forgot"), (-0.019, -0.001, "forgot"), (-0.019, 0.001, "kept"), (0.1, 0.2, "kept"),
        (-0.021, 0.3, "inconclusive"), (None, None, "inconclusive"),
    ],
)  # fmt: skip
def test_verdicts(low, high, expected):
    assert verdict(Interval(mean=0.0, low=low, high=high)) == expected


def test_without_labels_retrieval_decides(tmp_path):
    document = deepcopy(RETAINED)
    for own in document["metrics"].values():
        del own["zero_shot_acc1"]
    document["skipped"]["zero_shot"] = "no \x1b labels"
    built = with_retained(build_finetuned(tmp_path / "study", sizes=SIZES), document)
    data = Retained().data(read_run(built.folder))
    assert data["verdict"] == "kept"  # -0.015 to 0.02
    assert [key for key, _ in data["rows"]] == ["image_retrieval_recall@5"]
    words = outline(write_report(built.folder, built.images)).words()
    assert "Fine-tuning kept" in words
    assert "no ␛ labels" in words


def test_nothing_measured_is_said(tmp_path):
    document = {**RETAINED, "metrics": {side: {} for side in RETAINED["metrics"]}}
    document["skipped"] = dict.fromkeys(("zero_shot", "linear_probe", "retrieval"), "no text tower")
    built = with_retained(build_finetuned(tmp_path / "study", sizes=SIZES), document)
    assert Retained().data(read_run(built.folder))["verdict"] == "not_measured"
    for text in (
        outline(write_report(built.folder, built.images)).words(),
        screen_text("report", read_run(built.folder)),
    ):
        assert "Forgetting was not measured" in text


def test_models_without_twins_are_one_column(tmp_path):
    document = deepcopy(RETAINED)
    del document["metrics"]["g"]
    built = with_retained(build_subsample(tmp_path / "study"), document)
    assert Retained().data(read_run(built.folder))["columns"] == {"f": "the models"}
    assert "the models minus base" in outline(write_report(built.folder, built.images)).words()


def test_comparisons_take_the_metrics_of_f(tmp_path):
    for name, level in (("plain", 0.5), ("other", 0.25)):
        folder = build_finished(tmp_path / name)
        by_seed = {"f": {"zero_shot_acc1": {"by_seed": [level, level + 0.01, level + 0.03]}}, "base": {}}
        document = {"seeds": {"base": [0], "f": [0, 1, 2]}, "metrics": by_seed}
        (folder / "evaluate" / "retained.json").write_text(json.dumps(document))
    run = read_finished(tmp_path / "other")
    assert run.utility["retained_zero_shot_acc1"] == [0.25, 0.26, 0.28]
    assert run.utility["zero_shot_acc1"] != run.utility["retained_zero_shot_acc1"]
    document = compare_runs([tmp_path / "plain", tmp_path / "other"])
    [row] = [row for row in document["differences"] if row["measure"] == "retained_zero_shot_acc1"]
    assert row["kind"] == "utility"
    assert row["difference"] == pytest.approx(-0.25)
    assert "retained_zero_shot_acc1" in document["pareto"]
