"""Finding 9: what lowers memorization here improves utility as well."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from clipmem.study.reproduce.finding import FINDINGS, Context, Effect, Finding, Panel, Results, Series, mitigated
from clipmem.study.reproduce.findings.captions import drawn
from clipmem.study.reproduce.findings.distributions import BASE
from clipmem.study.reproduce.findings.encoders import variants
from clipmem.study.reproduce.findings.text_noise import BEST, noisy
from clipmem.study.reproduce.wanted import Wanted

METRICS = {"linear_probe_acc1": "linear probe", "image_retrieval_recall@5": "image recall@5"}


@FINDINGS.register("tradeoff")
class Tradeoff(Finding):
    """Memorization against utility."""

    title = "Memorization against utility"
    claim = "Mitigations that lower memorization improve utility: there is no price."
    published = (
        "5 captions: CLIPMem -3.7 %, probe +1.8 points; noise 0.15: -4.8 %, +2.2 points (from findings 6 and 7)."
    )
    limits = (
        "Only mitigations that are shown to lower memorization count, so that the finding is open where none is. "
        "“Unlike in supervised and self-supervised learning” is not tested. Each mitigation is held against the same "
        "base run, so that their verdicts are not independent."
    )

    def runs(self, context: Context) -> Mapping[str, Wanted]:
        """The mitigations of findings 5 to 7."""
        most = context.scale.captions[-1]
        return {
            "none": BASE,
            f"{most} captions": drawn(most),
            "text noise, post-scaled": noisy("post-scaled", BEST),
            "5 images": variants(True, 1),
            f"5 images, {most} captions": variants(True, most),
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Change of CLIPMem and of utility; the probe counts where memorization is shown to be lower."""
        found: list[Effect] = []
        for name, run in list(self.runs(context).items())[1:]:
            memory, *utilities = mitigated(results, BASE, run, name)
            found.append(replace(memory, counts=False))
            found += [replace(one, counts=one.counts and memory.holds == "yes") for one in utilities]
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        """One point a mitigation: change of memorization across, change of utility up."""
        panels: list[Panel] = []
        for metric, words in METRICS.items():
            series: list[Series] = []
            for name, run in self.runs(context).items():
                values, plain = results.utility(run, metric), results.utility(BASE, metric)
                if values and plain:
                    x = float(np.mean(results.memorization(run)) - np.mean(results.memorization(BASE)))
                    change = np.subtract(values, plain).tolist()
                    series.append(results.series(name, [x], [change]))
            if series:
                panels.append(Panel(words, "change of CLIPMem", f"change of {words}", series))
        return panels
