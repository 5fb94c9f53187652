"""Not published: is a pair memorized less when there are more training pairs?"""

from clipmem_reproduce.effects import BELOW, Effect, Results
from clipmem_reproduce.finding import Context, Sweep
from clipmem_reproduce.spec import RunSpec

WAYS = ("equal epochs", "equal steps")


class DataSize(Sweep):
    name = "data-size"
    title = "Data size"
    claim = "The more pairs there are to train on, the less a pair is memorized."
    limits = (
        "Not published: the claim is a common expectation. At equal epochs more pairs also mean more steps, at equal "
        "steps fewer repeats of each pair; both are shown, and the verdict is based on equal epochs. Each size draws "
        "its own candidates: a seed shares the initial weights, but no pairs."
    )
    levels, names, xlabel = "sizes", WAYS, "pairs that f trains on"

    def run(self, context: Context, curve: str, level: int) -> tuple[str, RunSpec]:
        """At equal steps a pair is shown more or less often than in the middle size."""
        study = RunSpec(study=context.scale.sized)
        base, sizes = study.recipe(context.base), context.scale.sizes
        epochs = base.train.epochs
        if curve == "equal steps":
            epochs = max(1, round(epochs * sizes[len(sizes) // 2] / level))
        settings = {"split.shared": level - base.split.candidate, "train.epochs": epochs}
        return f"{level} pairs, {curve}", context.fewer(study.with_settings(settings))

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The most pairs against the fewest."""
        few, *_, many = context.scale.sizes
        effects: list[Effect] = []
        for way, runs in self.curves(context).items():
            name = f"{way}: CLIPMem with {many:,} pairs minus that with {few:,}"
            effects += results.contrast(name, runs[-1], runs[0], BELOW, primary=way == WAYS[0])
        return effects
