"""Finding 1: candidates score clearly above 0, independent pairs are their mirror, shared and external lie about 0."""

from collections.abc import Mapping, Sequence

import numpy as np

from clipmem.functional.comparisons import superiority
from clipmem.functional.verdict import Claim
from clipmem.report.compare.run import ComparedRun
from clipmem.study.reproduce.finding import ABOVE, BELOW, FINDINGS, Context, Effect, Finding, Panel, Results, Series
from clipmem.study.reproduce.wanted import Wanted

BASE = Wanted()
ROLES = ("candidate", "independent", "shared", "external")
ABOUT = 0.2  # "about 0" and "mirror": within a fifth of the candidates' mean
# read off the published histograms, COCO, normalised scale; ±0.0005
PUBLISHED = {"candidate": 0.438}


def separation(run: ComparedRun) -> list[float]:
    """Return by seed how often a candidate scores above an external pair: 0.5 is no difference."""
    scores = run.seed_scores.with_columns(score=run.seed_scores["f"] - run.seed_scores["g"])
    found: list[float] = []
    for seed in run.seeds:
        own = dict(scores.filter(scores["seed"] == seed).select("uid", "score").iter_rows())
        a, b = (np.array([own[uid] for uid in sorted(run.uids(role))]) for role in ("candidate", "external"))
        found.append(superiority(a, b))
    return found


def about_zero(candidates: Sequence[float]) -> tuple[Claim, str]:
    """Return the claim "about 0", in units of the candidates' CLIPMem by seed, and its words."""
    claim = Claim("zero", ABOUT * abs(float(np.mean(candidates))) or 1e-9)
    return claim, f"within ±{claim.size:.3f}"


@FINDINGS.register("distributions")
class Distributions(Finding):
    """Where the four roles lie."""

    title = "Score distributions"
    claim = (
        "Candidates score clearly above 0, independent pairs are their mirror, shared and external pairs lie about 0; "
        "SSLMem of one encoder is a weaker signal."
    )
    published = "COCO: mean over the candidates 0.438 on the normalised scale, the most memorized above 0.89 (±0.0005)."
    limits = f"“About 0” and “mirror” mean: within {ABOUT:.0%} of the candidates' mean; the margin is ours."

    def runs(self, context: Context) -> Mapping[str, Wanted]:
        """The base study, and the same training scored by SSLMem of the image tower."""
        alone = ("score.alignment=sslmem-image", f"embed.views={context.scale.views}")
        return {"base": BASE, "sslmem-image": Wanted(alone)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The four means, the mirror, and the separation by CLIPMem less that by SSLMem."""
        run, wanted = results[BASE], self.runs(context)
        means = {role: run.memorization(run.uids(role)) for role in ROLES}
        margin, about = about_zero(means["candidate"])
        mirror = np.add(means["candidate"], means["independent"])
        plain, alone = (separation(results[wanted[name]]) for name in ("base", "sslmem-image"))
        return [
            results.effect("CLIPMem of candidates", means["candidate"], None, ABOVE, "above 0"),
            results.effect("CLIPMem of independent pairs", means["independent"], None, BELOW, "below 0"),
            results.effect("candidates plus independent pairs", mirror.tolist(), None, margin, about),
            results.effect("CLIPMem of shared pairs", means["shared"], None, margin, about),
            results.effect("CLIPMem of external pairs", means["external"], None, margin, about),
            results.effect("separation by CLIPMem less that by SSLMem (image)", plain, alone, ABOVE, "above 0"),
        ]

    def panels(self, context: Context, results: Results) -> list[Panel]:  # noqa: ARG002
        """Mean of each role."""
        run = results[BASE]
        ours = results.series("mean", range(len(ROLES)), [run.memorization(run.uids(role)) for role in ROLES])
        there = Series("candidates, normalised", [0.0], [PUBLISHED["candidate"]])
        return [
            Panel("here", "role", "CLIPMem", [ours], ticks=list(ROLES), joined=False),
            Panel("published", "role", "CLIPMem, normalised", [there], published=True, ticks=list(ROLES), joined=False),
        ]
