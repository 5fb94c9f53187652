"""Audits of runs compared: differences, their intervals, and the advantage of the most exposed pairs."""

from math import sqrt

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.summary import Attack, Audit, Rate, Risk
from clipmem.report.comparison import PAIRS, compare_audits
from clipmem.report.run import Run


def audited(name: str, auc: float, share: float | None = 0.5, confidence: float = 0.95, n: int = 200) -> Run:
    """Return an audit whose risks are .5 and false alarms .1."""
    entry = Rate(mean=auc, low=auc - 0.03, high=auc + 0.04)
    attack = Attack(auc=entry, tpr=[entry, Rate(mean=auc / 10, low=None, high=None)])
    pairs = pl.DataFrame({"uid": [f"{k}" for k in range(n)], "risk": [0.5] * n, "false_alarm": [0.1] * n})
    risk = Risk(attack="lira", share=share, pairs=2)
    run = Run(name)
    run.tables[PAIRS] = pairs
    shape = {"format": 1, "models": 8, "pairs": n, "seen": [4, 4], "nonmembers": n // 2, "roc": {}}
    about = {"confidence": confidence, "attacks": {"lira": attack}, "risk": risk}
    vars(run)["audit"] = Audit.model_validate(shape | about)
    return run


def test_differences_and_their_intervals() -> None:
    found = {row["measure"]: row for row in compare_audits([audited("a", 0.8), audited("b", 0.7, 0.25)])["audits"]}
    auc = found["auc lira"]
    assert auc["difference"] == pytest.approx(-0.1)
    assert (auc["low"], auc["high"]) == pytest.approx((-0.1 - sqrt(0.03**2 + 0.04**2), -0.1 + sqrt(0.03**2 + 0.04**2)))
    assert found["tpr lira"]["difference"] == pytest.approx(-0.01)
    assert found["tpr lira"]["low"] is None
    # half of the advantage .4 x 200 is on 2 pairs: 20 each, more than a share can be; the formula is linear
    assert found["exposed"]["baseline"]["mean"] == pytest.approx(0.5 * 0.4 * 200 / 2)
    assert found["exposed"]["difference"] == pytest.approx(-0.25 * 0.4 * 200 / 2)


def test_no_exposed_pairs_where_nothing_is_at_risk() -> None:
    rows = compare_audits([audited("a", 0.5, None), audited("b", 0.5)])["audits"]
    assert "exposed" not in {row["measure"] for row in rows}


@pytest.mark.parametrize("other", [audited("b", 0.7, n=199), audited("b", 0.7, confidence=0.9)])
def test_other_pairs_or_levels_are_refused(other: Run) -> None:
    with pytest.raises(InputError) as error:
        compare_audits([audited("a", 0.8), other])
    assert error.value.what == "audit of b"
