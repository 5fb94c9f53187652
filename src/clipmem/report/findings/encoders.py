"""Finding 5: the text encoder contributes more to memorization than the image encoder."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.effects import ABOVE, BELOW, FINDINGS, Context, Effect, Finding, Panel, Results, Series, mitigated
from clipmem.report.findings.captions import drawn, label
from clipmem.report.findings.distributions import BASE
from clipmem.report.findings.text_noise import BEST, level
from clipmem.report.run_specs import PRETRAINED, RunSpec

# COCO, from a table: CLIPMem and probe in per cent; std 0.8 to 1.0
PUBLISHED = {
    "1 image, 1 caption": (0.438, 0.6311),
    "5 images, 1 caption": (0.424, 0.6460),
    "1 image, 5 captions": (0.423, 0.6488),
    "5 images, 5 captions": (0.417, 0.6479),
}
_IMAGES = ("mitigate.image_variants.probability=0.8",)  # the pair's own image in one presentation of five
TOWERS = ("image", "text")


def variants(images: bool, captions: int) -> RunSpec:
    """Return the base study with several images per pair, several captions, or both."""
    if not images:
        return drawn(captions)
    own = (*_IMAGES, "mitigate.image_variants.count=4")
    return RunSpec(own if captions == 1 else (*own, f"mitigate.captions.count={captions}"))


def frozen(context: Context, tower: str) -> RunSpec:
    """Return the base study from a common warm start with one tower frozen; "" for none.

    The warm start is one model that trained on other artists' drawings, of the same things: on most of the captions.
    """
    start = RunSpec((*context.scale.warmed, "train.seeds=[0]"))
    own = (f"train.freeze=[{tower}]",) if tower else ()
    return context.fewer(RunSpec(own, parent=start, uses=PRETRAINED))


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
        "The verdict is based on freezing: each tower alone is trained from a common warm start, which has read most "
        "of the study's captions and seen none of its images. That favors the claim. Most weights of the text tower "
        "are its token table. Image variants are other artists' drawings. A tower's share needs a map between f and g."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        most = context.scale.captions[-1]
        return {
            "1 image, 1 caption": BASE,
            f"1 image, {most} captions": variants(False, most),
            "several images, 1 caption": variants(True, 1),
            f"several images, {most} captions": variants(True, most),
            "text noise": level(context, "post-scaled", BEST),
            "image noise": level(context, "post-scaled", BEST, tower="image"),
            "warm start": frozen(context, ""),
            **{f"{tower} tower frozen": frozen(context, tower) for tower in TOWERS},
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Freezing, then noise, augmentation and the towers' shares, all as differences; then each change."""
        runs = list(self.runs(context).values())
        base, texts, images, both, text_noise, image_noise, warm, no_image, no_text = runs
        of, shares = results.memorization, results[BASE].table("tower_shares").sort("seed")
        tests = (
            ("CLIPMem with the image tower frozen minus with the text tower frozen", of(no_image), of(no_text), ABOVE),
            ("CLIPMem with captions augmented minus that with images augmented", of(texts), of(images), BELOW),
            (f"CLIPMem with noise {BEST} on text minus that on images", of(text_noise), of(image_noise), BELOW),
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
        for tower, run in zip(TOWERS, (no_image, no_text), strict=True):
            found += mitigated(results, warm, run, f"{tower} tower frozen")
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        runs = list(self.runs(context).values())
        order = [runs[0], runs[2], runs[1], runs[3]]
        ticks, x = ["1+1", "several+1", "1+5", "several+5"], range(4)
        how: dict[str, Any] = {"ticks": ticks, "joined": False}
        words = "images + captions"
        memory = results.series("", x, [results.memorization(run) for run in order])
        panels = [Panel("memorization", words, "CLIPMem", [memory], **how)]
        utility = results.series("", x, [results.utility(run, context.scale.utility) for run in order])
        if utility.x:
            panels.append(Panel("utility", words, label(context.scale.utility), [utility], **how))
        for k, name in enumerate(("CLIPMem, normalized", "linear probe, ImageNet")):
            values = [own[k] for own in PUBLISHED.values()]
            curves = [Series("COCO", [float(at) for at in x], values)]
            published: dict[str, Any] = {**how, "ticks": ["1+1", "5+1", "1+5", "5+5"]}
            panels.append(Panel("published", words, name, curves, published=True, **published))
        return panels
