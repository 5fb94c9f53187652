"""Finding 1: candidates score clearly above 0, independent pairs mirror them, shared and external ones are about 0."""

from collections.abc import Mapping, Sequence

import numpy as np

from clipmem.report.effects import ABOVE, BELOW, FINDINGS, Context, Effect, Finding, Panel, Results, Series
from clipmem.report.run_specs import RunSpec
from clipmem.report.runs import FinishedRun
from clipmem.stats.comparisons import superiority
from clipmem.stats.verdict import Claim

BASE = RunSpec()
ROLES = ("candidate", "independent", "shared", "external")
ABOUT = 0.2  # "about 0" and "mirror": within a fifth of the candidates' mean
# read off the published histograms, COCO, normalized scale; ±0.0005
PUBLISHED = {"candidate": 0.438}


def separation(run: FinishedRun) -> list[float]:
    """Return by seed the probability that a candidate scores above an external pair; 0.5 means no difference."""
    found: list[float] = []
    for seed in run.seeds:
        own = run.scores(seed)
        a, b = (np.array([own[uid] for uid in sorted(run.uids(role))]) for role in ("candidate", "external"))
        found.append(superiority(a, b))
    return found


def about_zero(candidates: Sequence[float]) -> Claim:
    """Return the claim "about 0", in units of the candidates' CLIPMem by seed."""
    return Claim("zero", ABOUT * abs(float(np.mean(candidates))) or 1e-9)


@FINDINGS.register("distributions")
class Distributions(Finding):
    """Scores of the four roles."""

    title = "Score distributions"
    claim = (
        "Candidates score clearly above 0, independent pairs are their mirror, shared and external pairs lie about 0; "
        "SSLMem of one encoder is a weaker signal."
    )
    published = "COCO: mean over the candidates 0.438 on the normalized scale, the most memorized above 0.89 (±0.0005)."
    limits = f"“About 0” and “mirror” mean: within {ABOUT:.0%} of the candidates' mean; the margin is ours."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        alone = ("score.alignment=sslmem-image", f"embed.views={context.scale.views}", "evaluate.wordings=1")
        return {"base": BASE, "sslmem-image": RunSpec(alone)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The four means, the mirror, and the separation by CLIPMem minus that by SSLMem."""
        run, specs = results[BASE], self.runs(context)
        means = {role: run.memorization(run.uids(role)) for role in ROLES}
        about = about_zero(means["candidate"])
        mirror = np.add(means["candidate"], means["independent"])
        plain, alone = (separation(results[specs[name]]) for name in ("base", "sslmem-image"))
        return [
            results.effect("CLIPMem of candidates", means["candidate"], None, ABOVE, primary=True),
            results.effect("CLIPMem of independent pairs", means["independent"], None, BELOW),
            results.effect("candidates plus independent pairs", mirror.tolist(), None, about),
            results.effect("CLIPMem of shared pairs", means["shared"], None, about),
            results.effect("CLIPMem of external pairs", means["external"], None, about),
            results.effect("separation by CLIPMem minus that by SSLMem (image)", plain, alone, ABOVE),
        ]

    def panels(self, context: Context, results: Results) -> list[Panel]:  # noqa: ARG002
        run = results[BASE]
        ours = results.series("mean", range(len(ROLES)), [run.memorization(run.uids(role)) for role in ROLES])
        published = Series("candidates, normalized", [0.0], [PUBLISHED["candidate"]])
        return [
            Panel("here", "role", "CLIPMem", [ours], ticks=list(ROLES), joined=False),
            Panel(
                "published", "role", "CLIPMem, normalized", [published], published=True, ticks=list(ROLES), joined=False
            ),
        ]
