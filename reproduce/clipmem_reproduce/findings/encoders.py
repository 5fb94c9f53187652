"""Finding 5: the text encoder contributes more to memorization than the image encoder."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from clipmem_reproduce.effects import ABOVE, BELOW, Effect, Panel, Results, Series
from clipmem_reproduce.finding import BASE, Context, Finding, label, mitigated
from clipmem_reproduce.findings.captions import several
from clipmem_reproduce.findings.text_noise import BEST, at_level
from clipmem_reproduce.spec import PRETRAINED, RunSpec, Settings

# COCO, from a table: CLIPMem and probe in per cent; std 0.8 to 1.0
PUBLISHED = {
    "1 image, 1 caption": (0.438, 0.6311),
    "5 images, 1 caption": (0.424, 0.6460),
    "1 image, 5 captions": (0.423, 0.6488),
    "5 images, 5 captions": (0.417, 0.6479),
}
# the pair's own image in one showing of five
SEVERAL_IMAGES: Settings = {"mitigate.image_variants.probability": 0.8, "mitigate.image_variants.count": 4}
TOWERS = ("image", "text")
TOKENS = "text.embeddings"


def frozen(context: Context, tower: str) -> RunSpec:
    """Return a study from a warm start with one part of the model frozen; "" for none.

    In a planned reproduction the warm start trained on other emoji, without a caption in common. In the first one it
    trained on other artists' drawings of the same things: on most of the captions.
    """
    start = RunSpec(study={**context.scale.warmed, "train.seeds": [0]})
    run = RunSpec({"train.freeze": [tower]} if tower else {}, context.scale.warmed_study, start, PRETRAINED)
    return run if context.scale.crossed else context.fewer(run)


def towers_compared(results: Results, warm: RunSpec, no_image: RunSpec, no_text: RunSpec) -> list[Effect]:
    """Return the smaller of two differences between the towers, and both, as shares of CLIPMem and claimed above 0.

    What the text tower memorizes alone minus what the image tower does, and the shares of both towers.
    """
    alone = [results.values(run) for run in (no_image, no_text)]
    both, whole = results.values(warm), results.values(BASE, "clipmem candidate")
    shares = [results.values(BASE, f"share of the {tower} tower") for tower in ("text", "image")]
    if not all((*alone, both, whole, *shares)):
        return []
    pairs = [
        tuple((np.array(values) / np.mean(scale)).tolist() for values in pair)
        for pair, scale in ((alone, both), (shares, whole))
    ]
    name = "the text tower's lead over the image tower, as a share of CLIPMem"
    weakest = results.weakest(f"the smaller of {name}: trained alone, and swapped", pairs, ABOVE, primary=True)
    how = ("trained alone", "swapped")
    each = [results.effect(f"{name}: {way}", text, image, ABOVE) for way, (text, image) in zip(how, pairs, strict=True)]
    return [weakest, *each]


class Encoders(Finding):
    name = "encoders"
    title = "Text and image encoder"
    claim = "The text encoder contributes more to memorization than the image encoder."
    published = (
        "CLIPMem / probe %: 1 image + 1 caption 0.438 / 63.11, 5 + 1 0.424 / 64.60, 1 + 5 0.423 / 64.88, "
        "5 + 5 0.417 / 64.79 (std of the probe 0.8 to 1.0)."
    )
    limits = (
        "The verdict is based on freezing; as planned, on the swap of towers as well. Each tower alone is trained from "
        "a common warm start. Unless planned, it has read most of the study's captions and seen none of its images, "
        "which favors the claim. Most weights of the text tower are its token table: of its 49,408 rows the planned "
        "study's training captions use at most 1,343, and the others have no effect. Image variants are other artists' "
        "drawings. A tower's share needs a map between f and g."
    )
    negligible = 0.1

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        most = context.scale.captions[-1]
        frozen_runs = {
            "warm start": frozen(context, ""),
            **{f"{tower} tower frozen": frozen(context, tower) for tower in TOWERS},
        }
        if context.scale.crossed:
            return {"1 image, 1 caption": BASE, **frozen_runs, "token table frozen": frozen(context, TOKENS)}
        return {
            "1 image, 1 caption": BASE,
            f"1 image, {most} captions": several(most),
            "several images, 1 caption": BASE.with_settings(SEVERAL_IMAGES),
            f"several images, {most} captions": several(most).with_settings(SEVERAL_IMAGES),
            "text noise": at_level(context, "post-scaled", BEST),
            "image noise": at_level(context, "post-scaled", BEST, tower="image"),
            **frozen_runs,
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Freezing, then noise, augmentation and the towers' shares, all as differences; then each change."""
        if context.scale.crossed:
            return self._planned(context, results)
        base, texts, images, both, text_noise, image_noise, warm, no_image, no_text = self.runs(context).values()
        shares = {tower: results.values(BASE, f"share of the {tower} tower") for tower in TOWERS}
        freezing = "CLIPMem with the image tower frozen minus with the text tower frozen"
        noise = f"CLIPMem with noise {BEST} on text minus that on images"
        share = "share of the text tower in CLIPMem minus that of the image tower"
        effects = [
            *results.contrast(freezing, no_image, no_text, ABOVE, primary=True),
            *results.contrast("CLIPMem with captions augmented minus that with images augmented", texts, images, BELOW),
            *results.contrast(noise, text_noise, image_noise, BELOW),
            results.effect(share, shares["text"], shares["image"], ABOVE),
        ]
        for name, run in (("captions", texts), ("images", images), ("images and captions", both)):
            effects += mitigated(results, base, run, f"{name} augmented")
        for tower, run in zip(TOWERS, (no_image, no_text), strict=True):
            effects += mitigated(results, warm, run, f"{tower} tower frozen")
        return effects

    def _planned(self, context: Context, results: Results) -> list[Effect]:
        _, warm, no_image, no_text, no_tokens = self.runs(context).values()
        effects = towers_compared(results, warm, no_image, no_text)
        for name, run in (("image tower", no_image), ("text tower", no_text), ("token table", no_tokens)):
            effects += mitigated(results, warm, run, f"{name} frozen")
        name = "CLIPMem with the token table frozen minus with the text tower frozen"
        return effects + results.contrast(name, no_tokens, no_text, ABOVE)

    def panels(self, context: Context, results: Results) -> list[Panel]:
        if context.scale.crossed:
            return self._planned_panels(context, results)
        base, texts, images, both, *_ = self.runs(context).values()
        words, x = "images + captions", range(4)
        look: dict[str, Any] = {"ticks": ["1+1", "several+1", "1+5", "several+5"], "joined": False}
        panels: list[Panel] = []
        for title, metric in (("memorization", "clipmem"), ("utility", context.scale.utility)):
            series = results.series("", x, [results.values(run, metric) for run in (base, images, texts, both)])
            if series.x:
                panels.append(Panel(title, words, label(metric), [series], **look))
        look["ticks"] = ["1+1", "5+1", "1+5", "5+5"]
        for k, name in enumerate(("CLIPMem, normalized", "linear probe, ImageNet")):
            series = Series("COCO", [float(at) for at in x], [values[k] for values in PUBLISHED.values()])
            panels.append(Panel("published", words, name, [series], published=True, **look))
        return panels

    def _planned_panels(self, context: Context, results: Results) -> list[Panel]:
        _, *runs = self.runs(context).values()
        look: dict[str, Any] = {"ticks": ["nothing", "image tower", "text tower", "token table"], "joined": False}
        return [
            Panel(title, "frozen", label(metric), [series], **look)
            for title, metric in (("memorization", "clipmem"), ("utility", context.scale.utility))
            if (series := results.series("", range(len(runs)), [results.values(run, metric) for run in runs])).x
        ]
