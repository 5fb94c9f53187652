"""Not published: is anything memorized when each pair is seen once?"""

import numpy as np

from clipmem_reproduce.effects import ABOVE, Effect, Results
from clipmem_reproduce.finding import Context, Sweep
from clipmem_reproduce.findings.roles import by_role
from clipmem_reproduce.spec import RunSpec

_BATCH = 16  # small, so that one pass has enough steps to learn from


def beyond_shared(results: Results, run: RunSpec) -> Effect:
    """Return the weakest of the claims about the roles, in units of the half-difference and claimed above 0.

    All are relative to shared pairs: candidates lie above them, g-only pairs below, and held-out pairs nearer than the
    half-difference. After one pass any difference between f and g shifts all pairs by more than memorization does.
    """
    candidate, independent, shared, external = (
        np.array(by_role(results, run)[role]) for role in ("candidate", "independent", "shared", "external")
    )
    half = abs(float((candidate - independent).mean())) / 2 or 1.0
    shares = [candidate - shared, shared - independent, half + shared - external, half - shared + external]
    name = (
        "after 1 pass, the smallest as a share of the half-difference: candidates minus shared pairs, these minus "
        "g-only pairs, and how far held-out pairs are inside one half-difference of shared pairs"
    )
    pairs = [((values / half).tolist(), [0.0] * len(values)) for values in shares]
    return results.weakest(name, pairs, ABOVE, primary=True)


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
        """The candidates' CLIPMem after one pass; also after each other number of passes.

        In a planned reproduction every role decides (`beyond_shared`).
        """
        effects, planned, runs = list[Effect](), context.scale.crossed, list(self.runs(context).values())
        if planned:
            effects.append(beyond_shared(results, runs[0]))
        for passes, run in zip(context.scale.epochs, runs, strict=True):
            name = f"CLIPMem after {passes} pass{'es' * (passes > 1)}"
            primary = passes == 1 and not planned
            effects.append(results.effect(name, results.values(run), None, ABOVE, primary=primary))
        return effects
