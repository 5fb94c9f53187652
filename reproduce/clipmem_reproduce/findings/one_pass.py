"""Not published: is anything memorized when each pair is seen once?"""

from clipmem_reproduce.effects import ABOVE, Effect, Results
from clipmem_reproduce.finding import Context, Sweep
from clipmem_reproduce.spec import RunSpec

_BATCH = 16  # small, so that one pass has enough steps to learn from


class OnePass(Sweep):
    name = "one-pass"
    title = "One pass"
    claim = "Pairs are memorized even if each is seen once."
    published = (
        "YFCC100M was trained in one pass (not certain), and memorized pairs are shown; no number can be read off."
    )
    limits = (
        "One pass over these few pairs is also a short training: the effects of few samples seen and few repeats "
        f"cannot be separated. Batches of {_BATCH} instead of the base's."
    )
    levels, xlabel = "epochs", "passes"

    def run(self, context: Context, curve: str, level: int) -> tuple[str, RunSpec]:
        """The run of one pass, which decides, has all seeds."""
        spec = RunSpec({"train.epochs": level, "train.batch_size": _BATCH}, cost=1.6)
        return f"{level} passes", spec if level == 1 else context.fewer(spec)

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The candidates' CLIPMem after one pass; also after each other number of passes."""
        effects: list[Effect] = []
        for passes, run in zip(context.scale.epochs, self.runs(context).values(), strict=True):
            name = f"CLIPMem after {passes} pass{'es' * (passes > 1)}"
            effects.append(results.effect(name, results.values(run), None, ABOVE, primary=passes == 1))
        return effects
