"""The section on the audit: on the page, in the terminal, and only where there is one."""

import pytest

from clipmem.base.errors import InputError
from clipmem.report.page import write_report
from clipmem.report.run import read_run
from clipmem.report.sections.audit import ATTACKS, Audit
from clipmem.report.templating import VERBATIM
from clipmem.report.terminal import screen_lines
from tests.unit.report.documents import AUDIT, MODEL_AUDIT, attack
from tests.unit.report.other_runs import add_audit, build_subsample
from tests.unit.report.outline import outline


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    built = build_subsample(tmp_path_factory.mktemp("run") / "study")
    add_audit(built, AUDIT)
    return built


def words(found):
    return " ".join(" ".join(found).split()).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.slow
def test_the_page_shows_it(built):
    page = outline(write_report(built.folder, built.images))
    text = page.words().replace("\N{NO-BREAK SPACE}", " ")
    for part in ("0.720 [0.700, 0.740]", "14.0 [12.0, 16.0]", "21.0%"):
        assert part in text, part
    assert "audit" in [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    first = write_report(built.folder, built.images).read_bytes()
    assert write_report(built.folder, built.images).read_bytes() == first


def test_only_attacks_above_chance_are_named_as_such(built):
    text = words(screen_lines("audit", read_run(built.folder), 100))
    assert "Above chance, by AUC, corrected for 4 attacks: similarity, LiRA." in text
    weak = {**MODEL_AUDIT, "attacks": {"cosine": attack(0.5, 0.01), "gradient": attack(0.48, 0.01)}}
    text = words(screen_lines("audited", weak, 100))
    assert "above chance (AUC 0.5)" in text
    assert "Above chance" not in text


def test_pairs_are_at_risk_only_if_the_attack_is_above_chance_beside_the_others(tmp_path):
    """Alone, LiRA would be: an audit of an earlier version has no verdict beside the others."""
    for above, shown in ((True, True), (False, False), (None, True)):
        built = build_subsample(tmp_path / f"study-{above}")
        alone = AUDIT["attacks"] | {"lira": attack(0.53, 0.02) | {"above": above}}
        add_audit(built, AUDIT | {"attacks": alone})
        text = words(screen_lines("audit", read_run(built.folder), 100))
        assert ("No pairs are shown to be at risk." in text) != shown
        assert ("LiRA. The attack" in text) == shown


@pytest.mark.parametrize("above", [True, False])
def test_a_share_that_is_not_measured_is_said_to_be_so(tmp_path, above):
    attacks = AUDIT["attacks"] | {"lira": AUDIT["attacks"]["lira"] | {"above": above}}
    built = build_subsample(tmp_path / "study")
    add_audit(built, AUDIT | {"attacks": attacks, "risk": AUDIT["risk"] | {"share": None}})
    text = words(screen_lines("audit", read_run(built.folder), 100))
    assert ("carry is not measured: that takes 10 models, or 6 couples of shadow models" in text) == above
    assert ("No pairs are shown to be at risk." in text) != above


@pytest.mark.parametrize("width", [80, 100])
def test_tables_are_whole_at_usual_widths(built, width):
    for screen, subject in (("audit", read_run(built.folder)), ("audited", MODEL_AUDIT)):
        lines = screen_lines(screen, subject, width)
        assert max(len(line) for line in lines if line.startswith(VERBATIM)) <= width + 1
        for name, one in (AUDIT if screen == "audit" else MODEL_AUDIT)["attacks"].items():
            row = next(line for line in lines if line.lstrip(VERBATIM + " ").startswith(ATTACKS[name]))
            assert row.count("]") == 3, row
            assert f"{one['auc']['high']:.3f}" in row


def test_offline_attacks_are_shown_by_their_number_of_references(built):
    subject = read_run(built.folder)
    table = " ".join("\n".join(screen_lines("audit", subject, 100)).partition("references ")[2].split())
    for name, auc in (("LiRA (margin)", ("0.600", "0.620", "0.640")), ("RMIA (softmax)", ("0.590", "0.610", "0.630"))):
        position = [table.index(f" {count} {value} [") for count, value in enumerate(auc, 1)]
        assert position == sorted(position)
        assert table.index(name) < position[0]
    figure = Audit().figures(subject)["references"]
    assert [line.x for panel in figure.panels for line in panel.lines] == [[1, 2, 3]] * 4
    assert [*figure.panels[0].lines[0].y] == [0.6, 0.62, 0.64]


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [
        ({}, "Lower bound of ε with 95% confidence: 0.42."),
        ({}, "Of its 13 surest guesses among 130 couples, 11 to 13 are correct in each model."),
        ({"reason": "few", "couples": 99, "bound": None}, "They make 99 couples of a member and a non-member"),
        ({"reason": "draw", "bound": None}, "No lower bound of ε: it is not known how this protocol samples"),
    ],
)
def test_the_bound_of_epsilon_or_the_reason_for_none_is_shown(tmp_path, epsilon, text):
    built = build_subsample(tmp_path / "study")
    add_audit(built, {**AUDIT, "epsilon": {**AUDIT["epsilon"], **epsilon}})
    assert text in words(screen_lines("audit", read_run(built.folder), 100))


def test_an_audit_without_offline_attacks_is_shown_without_them(tmp_path):
    built = build_subsample(tmp_path / "study")
    add_audit(built, {name: value for name, value in AUDIT.items() if name not in ("offline", "epsilon")})
    subject = read_run(built.folder)
    assert "Offline" not in words(screen_lines("audit", subject, 100))
    assert "ε" not in words(screen_lines("audit", subject, 100))
    assert set(Audit().figures(subject)) == {"roc"}


def test_no_audit_no_section(tmp_path):
    plain = build_subsample(tmp_path / "study")
    assert screen_lines("audit", read_run(plain.folder), 100) == []
    (plain.folder / "audit").mkdir()
    (plain.folder / "audit" / "audit.json").write_text("{")
    with pytest.raises(InputError):
        screen_lines("audit", read_run(plain.folder), 100)
