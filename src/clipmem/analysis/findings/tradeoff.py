"""Finding 9: mitigations that lower memorization also improve utility."""

from collections.abc import Mapping

import numpy as np

from clipmem.analysis.effects import ABOVE, FINDINGS, Context, Effect, Finding, Panel, Results, Series, mitigated
from clipmem.analysis.findings.captions import drawn
from clipmem.analysis.findings.distributions import BASE
from clipmem.analysis.findings.encoders import variants
from clipmem.analysis.findings.text_noise import BEST, noisy
from clipmem.analysis.run_specs import RunSpec

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
        "The verdict is based on the mean over the mitigations, whether or not each lowers memorization. “Unlike in "
        "supervised and self-supervised learning” is not tested. Each mitigation is compared with the same base run."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        most = context.scale.captions[-1]
        return {
            "none": BASE,
            f"{most} captions": drawn(most),
            "text noise, post-scaled": noisy("post-scaled", BEST),
            "5 images": variants(True, 1),
            f"5 images, {most} captions": variants(True, most),
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The mean change of the probe over the mitigations; also the changes of each."""
        found: list[Effect] = []
        runs = list(self.runs(context).items())[1:]
        plain = results.utility(BASE, "linear_probe_acc1")
        probes = [results.utility(run, "linear_probe_acc1") for _, run in runs]
        if plain and all(probes):
            mean = np.mean(probes, axis=0).tolist()
            measure = "mean over the mitigations: change of linear probe"
            found.append(results.effect(measure, mean, plain, ABOVE, primary=True))
        return found + [one for name, run in runs for one in mitigated(results, BASE, run, name)]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        panels: list[Panel] = []
        for metric, label in METRICS.items():
            series: list[Series] = []
            for name, run in self.runs(context).items():
                values, plain = results.utility(run, metric), results.utility(BASE, metric)
                if values and plain:
                    x = float(np.mean(results.memorization(run)) - np.mean(results.memorization(BASE)))
                    change = np.subtract(values, plain).tolist()
                    series.append(results.series(name, [x], [change]))
            if series:
                panels.append(Panel(label, "change of CLIPMem", f"change of {label}", series))
        return panels
