"""Not published: is a pair memorized less when there are more training pairs?"""

import numpy as np

from clipmem_reproduce.effects import BELOW, Effect, Results
from clipmem_reproduce.finding import Context, Sweep
from clipmem_reproduce.spec import RunSpec

WAYS = ("equal epochs", "equal steps")
OF_DATA = "data.emoji_nested.shared"  # the number of shared pairs where the data draw the roles


class DataSize(Sweep):
    name = "data-size"
    title = "Data size"
    claim = "The more pairs there are to train on, the less a pair is memorized."
    limits = (
        "Not published: the claim is a common expectation. At equal epochs more pairs also mean more steps, at equal "
        "steps fewer repeats of each pair; both are shown, and the verdict is based on equal epochs. Unless planned, "
        "each size draws its own candidates: a seed shares the initial weights, but no pairs."
    )
    negligible = 0.1
    levels, names, xlabel = "sizes", WAYS, "pairs that f trains on"

    def run(self, context: Context, curve: str, level: int) -> tuple[str, RunSpec]:
        """At equal steps a pair is shown more or less often than in the middle size.

        Where the data draw the roles, all sizes of a seed have the same candidates.
        """
        study = RunSpec(study=context.scale.sized)
        base, sizes = study.recipe(context.base), context.scale.sizes
        epochs = base.train.epochs
        if curve == "equal steps":
            epochs = max(1, round(epochs * sizes[len(sizes) // 2] / level))
        shared = {"split.shared": level - base.split.candidate}
        of_data = dict.fromkeys({OF_DATA} & study.study.keys(), level - base.split.candidate)
        run = study.with_settings({**shared, "train.epochs": epochs}, of_data)
        decides = context.scale.crossed and curve == WAYS[0]
        return f"{level} pairs, {curve}", run if decides else context.fewer(run)

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The most pairs against the fewest; in a planned reproduction first the slope over all sizes."""
        if context.scale.crossed:
            return self._slopes(context, results)
        few, *_, many = context.scale.sizes
        effects: list[Effect] = []
        for way, runs in self.curves(context).items():
            name = f"{way}: CLIPMem with {many:,} pairs minus that with {few:,}"
            effects += results.contrast(name, runs[-1], runs[0], BELOW, primary=way == WAYS[0])
        return effects

    def _slopes(self, context: Context, results: Results) -> list[Effect]:
        """Return the slope of log CLIPMem over the log of the number of pairs that f trains on; none if CLIPMem is ≤ 0.

        With T samples seen of N pairs, CLIPMem in proportion to T / N has the slope 0 at equal epochs and -1 at equal
        steps.
        """
        effects: list[Effect] = []
        x = np.log(context.scale.sizes)
        x -= x.mean()
        for way, runs in self.curves(context).items():
            values = [results.values(run) for run in runs]
            if not all(values) or np.min(values) <= 0:
                continue
            slopes = x @ np.log(values) / (x @ x)
            name = f"{way}: slope of log CLIPMem over the log of the number of pairs"
            effects.append(results.effect(name, slopes.tolist(), None, BELOW, primary=way == WAYS[0]))
            for level, run in zip(context.scale.sizes[1:], runs[1:], strict=True):
                name = f"{way}: CLIPMem with {level:,} pairs minus that with {context.scale.sizes[0]:,}"
                effects += results.contrast(name, run, runs[0], BELOW)
        return effects
