"""Finding 5: the text encoder contributes more to memorization than the image encoder."""

from collections.abc import Mapping
from typing import Any

from clipmem.analysis.effects import ABOVE, BELOW, FINDINGS, Context, Effect, Finding, Panel, Results, Series, mitigated
from clipmem.analysis.findings.captions import drawn
from clipmem.analysis.findings.distributions import BASE
from clipmem.analysis.findings.text_noise import BEST, noisy
from clipmem.analysis.run_specs import RunSpec

# COCO, from a table: CLIPMem and probe in per cent; std 0.8 to 1.0
PUBLISHED = {
    "1 image, 1 caption": (0.438, 0.6311),
    "5 images, 1 caption": (0.424, 0.6460),
    "1 image, 5 captions": (0.423, 0.6488),
    "5 images, 5 captions": (0.417, 0.6479),
}
_IMAGES = "mitigate.image_variants.probability=0.8"  # the pair's own image in one presentation of five


def variants(images: bool, captions: int) -> RunSpec:
    """Return the base study with several images per pair, several captions, or both."""
    if not images:
        return drawn(captions)
    own = (_IMAGES, "mitigate.image_variants.count=4")
    return RunSpec(own if captions == 1 else (*own, f"mitigate.captions.count={captions}"))


@FINDINGS.register("encoders")
class Encoders(Finding):
    """Which encoder memorizes."""

    title = "Text and image encoder"
    claim = "The text encoder contributes more to memorization than the image encoder."
    published = (
        "CLIPMem / probe %: 1 image + 1 caption .438 / 63.11, 5 + 1 .424 / 64.60, 1 + 5 .423 / 64.88, "
        "5 + 5 .417 / 64.79 (std of the probe 0.8 to 1.0)."
    )
    limits = (
        "Published images are generated; here they are other artists' images of the same emoji. No tower is "
        "frozen in these runs (docs/finetune.md does that). The exchange of towers is only as good as the map between "
        "them."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        most = context.scale.captions[-1]
        return {
            "1 image, 1 caption": BASE,
            f"1 image, {most} captions": variants(False, most),
            "5 images, 1 caption": variants(True, 1),
            f"5 images, {most} captions": variants(True, most),
            "text noise": noisy("post", BEST),
            "image noise": noisy("post", BEST, tower="image"),
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Augmented captions against augmented images, as published; also two direct tests, and each change."""
        runs = list(self.runs(context).values())
        base, texts, images, both, text_noise, image_noise = runs
        of, shares = results.memorization, results[BASE].table("tower_shares").sort("seed")
        tests = (
            ("CLIPMem with captions augmented minus that with images augmented", of(texts), of(images), BELOW),
            (
                f"CLIPMem with text noise {BEST} minus that with image noise {BEST}",
                of(text_noise),
                of(image_noise),
                BELOW,
            ),
            (
                "share of the text tower in CLIPMem minus that of the image tower",
                shares["text"].to_list(),
                shares["image"].to_list(),
                ABOVE,
            ),
        )
        found = [results.effect(measure, a, b, claim, primary=k == 0) for k, (measure, a, b, claim) in enumerate(tests)]
        for name, run in (("captions", texts), ("images", images), ("images and captions", both)):
            found += mitigated(results, base, run, f"{name} augmented")
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        runs = list(self.runs(context).values())
        order = [runs[0], runs[2], runs[1], runs[3]]
        ticks, x = ["1+1", "5+1", "1+5", "5+5"], range(4)
        how: dict[str, Any] = {"ticks": ticks, "joined": False}
        label = "images + captions"
        memory = results.series("", x, [results.memorization(run) for run in order])
        panels = [Panel("memorization", label, "CLIPMem", [memory], **how)]
        probe = results.series("", x, [results.utility(run, "linear_probe_acc1") for run in order])
        if probe.x:
            panels.append(Panel("linear probe", label, "linear probe", [probe], **how))
        for k, name in enumerate(("CLIPMem, normalized", "linear probe, ImageNet")):
            values = [own[k] for own in PUBLISHED.values()]
            curves = [Series("COCO", [float(at) for at in x], values)]
            panels.append(Panel("published", label, name, curves, published=True, **how))
        return panels
