"""What `clipmem run --budget` buys: the estimator and shadow models that agreed best with the truth at that cost.

Agreements are those of `scoring/pair_scores/frontier.json`, measured by `clipmem validate-estimators` on the data sets
of experiments/estimators/RESULTS.md, and written by its `record.py`; costs are counted for the recipe's own models.

When not to trust it: the agreements are of 4,000 drawings or icons, models of one size and one proxy of it. On other
data their order carries over better than their size; two pairs of shadow models measure it on the data themselves.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple

from clipmem.base.errors import require
from clipmem.base.recipes import Recipe
from clipmem.models.names import PROXIES
from clipmem.models.start import Start

STEPS = 4  # of what more would buy


class Option(NamedTuple):
    """An estimator and its shadow models.

    Attributes:
        estimator: Its name.
        pairs: Number of pairs of shadow models; 0 = none.
        proxy: Their architecture; empty = f's.
        cost: What they cost together, in trainings of f.
        agreement: Rank correlation with the ground truth by data set.
    """

    estimator: str
    pairs: int
    proxy: str
    cost: float
    agreement: Mapping[str, float]

    @property
    def level(self) -> float:
        """The mean agreement over the data sets."""
        return sum(self.agreement.values()) / len(self.agreement)


class Plan(NamedTuple):
    """The option that a budget buys, and better ones, each better than all cheaper ones."""

    budget: float
    chosen: Option
    better: list[Option]

    @property
    def settings(self) -> list[str]:
        """The recipe's settings of the chosen option."""
        return [f"halves.{key}={getattr(self.chosen, key)}" for key in ("estimator", "pairs", "proxy")]


def plan(recipe: Recipe, budget: float) -> Plan:
    """Choose the option of highest mean agreement that costs at most `budget` trainings of f.

    A proxy in the recipe is used at any budget. Without one, a budget of one training or more buys shadow models of f's
    own size, whose scores have a size; a smaller one buys those of the smaller architecture that `models.names.PROXIES`
    names, if it does and f is trained from scratch. A pair of shadow models shows as many pairs as f, so that a proxy's
    costs its share of f's operations. As many pairs as the budget allows are used, also between measured numbers.

    Raises:
        InputError: The proxy needs more operations than f.
    """
    name, named = recipe.model.name, recipe.halves.proxy
    proxy = named or ("" if recipe.model.pretrained else PROXIES.get(name, ""))
    share = 1.0
    if proxy:
        starts = (Start(recipe.model.model_copy(update={"name": model}), recipe.train) for model in (proxy, name))
        small, full = (start.operations() for start in starts)
        share = small / full
        require(share <= 1, f"[halves] proxy {proxy}", f"{share:.2f} times f's operations", "a smaller model than f")
    frontier = json.loads((files("clipmem.scoring.pair_scores") / "frontier.json").read_text(encoding="utf-8"))
    options: list[Option] = []
    for row in frontier:
        if proxy or not row["proxy"]:
            kind, price = (proxy, share) if row["proxy"] else ("", 1.0)
            options.append(Option(row["estimator"], row["pairs"], kind, row["pairs"] * price, row["agreement"]))
    options.sort(key=lambda option: (option.cost, -option.level))
    used = proxy if named or budget < 1 else ""
    # 1e-9: 2 * .3 must fit a budget of .6
    fit = [option for option in options if option.cost <= budget + 1e-9 and (option.proxy == used or not option.pairs)]
    best = max(fit, key=lambda option: option.level)
    if best.pairs:
        price = best.cost / best.pairs
        pairs = int(budget / price + 1e-9)
        best = best._replace(pairs=pairs, cost=pairs * price)
    better: list[Option] = []
    for option in options:
        if option.level > max(other.level for other in (best, *better)):
            better.append(option)
    return Plan(budget, best, better[:STEPS])
