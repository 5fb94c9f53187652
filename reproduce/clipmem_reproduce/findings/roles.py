"""Finding 1: candidates score clearly above 0, g-only pairs mirror them, shared and external ones are about 0."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from clipmem.functional import Claim, superiority
from clipmem_reproduce.effects import ABOVE, BELOW, Effect, Panel, Results
from clipmem_reproduce.finding import BASE, Context, Finding
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.spec import RunSpec

ROLES = ("candidate", "independent", "shared", "external")
ABOUT = 0.2  # "about 0" and "mirror": within a fifth of the candidates' mean


def separation(run: Measured) -> list[float]:
    """Return by seed the probability that a candidate scores above an external pair; 0.5 means no difference."""
    uids = [sorted(run.uids(role)) for role in ("candidate", "external")]
    by_seed = (run.scores(seed) for seed in run.seeds)
    return [superiority(*(np.array([scores[uid] for uid in role]) for role in uids)) for scores in by_seed]


def by_role(results: Results, spec: RunSpec = BASE) -> dict[str, list[float]]:
    """Return the mean CLIPMem of each role of a run, by default of the base study, by seed."""

    def mean(run: Measured, role: str) -> list[float]:
        return run.memorization(run.uids(role))

    return {role: results.by_seed(spec, partial(mean, role=role)) for role in ROLES}


def about_zero(candidates: Sequence[float]) -> Claim:
    """Return the claim "about 0", in units of the candidates' CLIPMem by seed."""
    return Claim("zero", ABOUT * abs(float(np.mean(candidates))) or 1e-9)


def all_roles(results: Results, means: Mapping[str, Sequence[float]]) -> Effect:
    """Return the weakest of the claims about the roles, as a share of the candidates' mean and claimed above 0.

    These are the candidates' mean, and the distance to both ends of the margin for the mirror, shared and held-out
    pairs.
    """
    candidates = np.asarray(means["candidate"], dtype=np.float64)
    scale = abs(float(candidates.mean())) or 1.0
    about = [candidates + means["independent"], np.asarray(means["shared"]), np.asarray(means["external"])]
    distances = [ABOUT + sign * values / scale for values in about for sign in (1, -1)]
    pairs = [(values.tolist(), [0.0] * len(values)) for values in (candidates / scale, *distances)]
    name = (
        "the smallest, as a share of the candidates' mean: that mean, and how far mirror, shared and held-out pairs "
        f"are inside ±{ABOUT:.0%}"
    )
    return results.weakest(name, pairs, ABOVE, primary=True)


class Roles(Finding):
    name = "roles"
    title = "Scores by role"
    claim = (
        "Candidates score clearly above 0, g-only pairs are their mirror, shared and held-out pairs lie about 0; "
        "SSLMem of one encoder is a weaker signal."
    )
    published = "COCO: mean over the candidates 0.438 on the normalized scale, the most memorized above 0.89 (±0.0005)."
    limits = f"“About 0” and “mirror” mean within {ABOUT:.0%} of the candidates' mean. This margin is not published."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        study = {"embed.views": context.scale.views, "evaluate.wordings": 1}
        alone = RunSpec({"score.alignment": "sslmem-image"}, study)
        return {"base": BASE, "sslmem-image": context.fewer(alone) if context.scale.crossed else alone}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The four means, the mirror, and the separation by CLIPMem minus that by SSLMem.

        The candidates' mean decides, in a planned reproduction the weakest of all that is claimed about the roles.
        """
        means, planned = by_role(results), context.scale.crossed
        about = about_zero(means["candidate"])
        mirror = np.add(means["candidate"], means["independent"])
        plain, alone = (results.by_seed(spec, separation) for spec in self.runs(context).values())
        return [
            *([all_roles(results, means)] if planned else []),
            results.effect("CLIPMem of candidates", means["candidate"], None, ABOVE, primary=not planned),
            results.effect("CLIPMem of g-only pairs", means["independent"], None, BELOW),
            results.effect("candidates plus g-only pairs", mirror.tolist(), None, about),
            results.effect("CLIPMem of shared pairs", means["shared"], None, about),
            results.effect("CLIPMem of held-out pairs", means["external"], None, about),
            results.effect("separation by CLIPMem minus that by SSLMem (image)", plain, alone, ABOVE),
        ]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        """The four means; the published one is on a scale of its own, and alone."""
        means = results.series("", range(len(ROLES)), list(by_role(results).values()))
        return [Panel("mean over seeds, with its interval", "CLIPMem", "", [means], ticks=list(ROLES), joined=False)]
