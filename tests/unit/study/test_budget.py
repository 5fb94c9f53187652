"""What a budget buys: the best option within it, what more would buy, and the shipped frontier."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.models import openclip
from clipmem.models.names import PROXIES
from clipmem.study.budget import STEPS, plan
from tests.scripts import load_script

ROOT = Path(__file__).parents[3]


def recipe(*changes: str, model: str = "clipmem-tiny"):
    return load_recipe("", [f"model.name={model}", *changes])


@pytest.mark.slow
@settings(max_examples=15)
@given(st.floats(1e-3, 30), st.sampled_from(["", "clipmem-tiny-32"]))
def test_the_best_option_within_the_budget(budget: float, proxy: str) -> None:
    """Nothing that fits is better, and each next step costs more and agrees more."""
    found = plan(recipe(f"halves.proxy={proxy}"), budget)
    assert found.chosen.cost <= budget + 1e-6
    assert found.chosen.proxy in ("", proxy or "clipmem-tiny-32")
    assert len(found.better) <= STEPS
    steps = [found.chosen, *found.better]
    assert all(a.level < b.level for a, b in pairwise(steps))
    assert all(a.cost < b.cost for a, b in pairwise(found.better))
    kind = proxy or ("clipmem-tiny-32" if budget < 1 else "")
    assert not [one for one in found.better if one.cost <= budget and one.proxy == kind]
    made = load_recipe("", ["protocol=halves", *found.settings]).halves
    assert (made.estimator, made.pairs, made.proxy) == found.chosen[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "budget", "chosen"),
    [
        ("clipmem-tiny", 0.05, ("transferred", 0, "")),
        ("clipmem-tiny", 0.3, ("distilled", 3, "clipmem-tiny-32")),
        ("clipmem-tiny", 1.0, ("distilled", 1, "")),
        ("clipmem-tiny", 3.5, ("distilled", 3, "")),
        ("clipmem-micro", 0.9, ("transferred", 0, "")),
        ("ViT-B-32", 0.4, ("distilled", 1, "ViT-S-32")),
    ],
)
def test_options_of_some_budgets(model: str, budget: float, chosen: tuple[str, int, str]) -> None:
    """Without a known proxy a budget below 1 trains none; from 1 on shadow models are of f's size."""
    assert plan(recipe(model=model), budget).chosen[:3] == chosen


def test_known_proxies_see_the_images_of_their_model() -> None:
    for name, proxy in PROXIES.items():
        assert openclip.geometry_of_config(name) == openclip.geometry_of_config(proxy)


def test_a_larger_proxy_is_refused() -> None:
    with pytest.raises(InputError) as error:
        plan(recipe("halves.proxy=clipmem-tiny", model="clipmem-tiny-32"), 3.0)
    assert error.value.what == "[halves] proxy clipmem-tiny"


def test_the_shipped_frontier_is_that_of_the_stored_validations() -> None:
    folder = ROOT / "experiments" / "estimators"
    record = load_script(folder / "record.py")
    assert record.frontier({name: record.stored(name) for name in record.REGIMES}) == json.loads(
        record.FRONTIER.read_text()
    )
