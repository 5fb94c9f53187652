"""Small seeded studies of every protocol, alignment, objective and mitigation, and of every data format."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

import clipmem
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from clipmem.models import openclip
from clipmem.report.comparison import write_compared
from clipmem.study import pool
from clipmem.study.localizing import localize_run
from tests.golden.digest import Digest, of_folder, of_table
from tests.tiny import tiny_recipe, write_parquet
from tests.unit.data.sources.formats import FORMATS, some_pairs

_ALWAYS = ("train.precision=fp32",)
_TEXT_NOISE = ("mitigate.text_noise.std=0.1", "mitigate.text_noise.start=0.0")
_ONE = ("train.seeds=[0]",)
_SUPERVISED = "train.objective=supervised"
_PRETRAINED = "model.pretrained={}/models/f/seed-0"
_SIMCLR = ("train.objective=simclr", "score.alignment=sslmem-image", "embed.views=3")

STUDIES: dict[str, tuple[str, ...]] = {
    "four-way": (),
    "subsample": ("protocol=subsample", "subsample.models=6"),
    "leave-one-out": ("protocol=leave-one-out", "leave_one_out.pairs=3"),
    "f-only": ("protocol=f-only", *_ONE),
    "alignment cmc": ("score.alignment=cmc", *_ONE),
    "alignment sslmem-image": ("score.alignment=sslmem-image", "embed.views=3", *_ONE),
    "alignment sslmem-text": ("score.alignment=sslmem-text", "train.captions=3", *_ONE),
    "alignment confidence": ("score.alignment=confidence", _SUPERVISED, *_ONE),
    "objective siglip": ("train.objective=siglip", *_ONE),
    "objective supervised": (_SUPERVISED, "score.alignment=sslmem-image", "embed.views=3", *_ONE),
    "objective simclr": (*_SIMCLR, *_ONE),
    "subsample, confidence": ("protocol=subsample", "subsample.models=6", _SUPERVISED, "score.alignment=confidence"),
    "augmented": ("train.flip=0.5", "train.color=0.5", "train.grayscale=0.2", "train.crop_scale=[0.5,1.0]", *_ONE),
    "several captions, views": ("train.captions=3", "embed.views=2", *_ONE),
    "text noise, post": (*_TEXT_NOISE, *_ONE),
    "text noise, pre": (*_TEXT_NOISE, "mitigate.text_noise.place=pre", *_ONE),
    "text noise, post-scaled": (*_TEXT_NOISE, "mitigate.text_noise.place=post-scaled", *_ONE),
    "image noise": ("mitigate.image_noise.std=0.1", "mitigate.image_noise.start=0.0", *_ONE),
    "captions": ("mitigate.captions.count=3",),
    "caption variants": ('mitigate.caption_variants.kinds=["dropout", "reorder", "templates"]', *_ONE),
    "image variants": ("mitigate.image_variants.probability=0.5", *_ONE),
    "image variants, augmented": (
        "mitigate.image_variants.probability=0.5", "mitigate.image_variants.source=augment", *_ONE,
    ),
    "text masking": ("mitigate.text_masking.probability=0.2",),
    "weight decay": ("mitigate.weight_decay.factor=2.0", *_ONE),
    "average": ("mitigate.average.decay=0.5", *_ONE),
    "early stopping": ("mitigate.early_stopping.share=0.7", *_ONE),
    "removal, random": ("mitigate.remove.count=5", "mitigate.remove.by=random", *_ONE),
}  # fmt: skip
# these read a parent's folder: its place stands for {}
CHILDREN: dict[str, tuple[str, ...]] = {
    **{
        f"removal, {by}": ("mitigate.remove.count=5", f"mitigate.remove.by={by}", "mitigate.remove.scores={}")
        for by in ("clipmem", "similarity", "g-alignment")
    },
    "fine-tuned": (_PRETRAINED, "train.freeze=[image]", "train.layer_decay=0.8", "evaluate.retained=emoji", *_ONE),
    "interpolated": (_PRETRAINED, "mitigate.interpolate.alpha=0.5", *_ONE),
    "regrouping": ("mitigate.regroup.share=0.4", "mitigate.regroup.scores={}"),
    "given": (
        "protocol=given",
        'given.target=["{}/models/f/seed-0", "{}/models/f/seed-1"]',
        'given.reference=["{}/models/g/seed-0", "{}/models/g/seed-1"]',
        "given.roles={}/splits.parquet",
    ),
}
# the base model stands for {}; every pair of the pool is scored, which takes 200 of them
_BASE, _POOL = "model.pretrained={}", ("split.shared=160", "split.candidate=40", "split.independent=40")
FINE_TUNED: dict[str, tuple[str, ...]] = {
    "four-way": (_BASE, *_ONE),
    "f-only": (_BASE, "protocol=f-only", *_ONE),
    "subsample": (_BASE, "protocol=subsample", "subsample.models=4", "subsample.fraction=0.5"),
    "leave-one-out": (_BASE, "protocol=leave-one-out", "leave_one_out.pairs=2", *_ONE),
    "halves": (_BASE, "protocol=halves", "train.epochs=1", *_POOL),
    "halves, none": (
        *(_BASE, "protocol=halves", "train.epochs=1", *_POOL),
        *("halves.pairs=0", "halves.estimator=closed-form"),
    ),
}


def fine_tuned(folder: Path, names: Sequence[str] = tuple(FINE_TUNED)) -> dict[str, Digest]:
    """Fine-tune the same base model under protocols; return the digest of each study."""
    base = folder / "base"
    openclip.create("clipmem-micro", seed=1).save(base)
    found: dict[str, Digest] = {}
    for name in names:
        settings = [one.replace("{}", str(base)) for one in (*_ALWAYS, *FINE_TUNED[name])]
        found[f"fine-tuned, {name}"] = of_folder(clipmem.run(tiny_recipe(*settings), folder / name).path)
    return found


def compute(folder: Path, told: Callable[[str], object] = lambda _: None) -> dict[str, Digest]:
    """Make all of them below a folder and return the digest of each."""
    found: dict[str, Digest] = {}
    parent = folder / "four-way"
    children = {name: tuple(one.replace("{}", str(parent)) for one in settings) for name, settings in CHILDREN.items()}
    with pool.reused():
        for name, settings in (STUDIES | children).items():
            told(name)
            run = clipmem.run(tiny_recipe(*_ALWAYS, *settings), folder / name)
            found[name] = of_folder(run.path)
        told("fine-tuned")
        found |= fine_tuned(folder / "fine-tuning")
        told("localized")
        localize_run(parent, views=3, pairs=12)
        found["localized"] = of_folder(parent)
    told("compared")
    write_compared([parent, folder / "captions", folder / "text masking"], folder / "compared")
    differences = pl.read_parquet(folder / "compared" / "compare.parquet").filter(pl.col("kind") != "cost")
    found["compared"] = {**_NOTHING, "tables": {"differences": of_table(differences)}}
    told("scored, formats")
    return found | {"scored": scored(folder), "formats": formats(folder / "formats")}


_NOTHING: Digest = {"tables": {}, "numbers": [], "weights": {}}


def scored(folder: Path) -> Digest:
    """Score pairs with two checkpoints."""
    for seed in (1, 2):
        openclip.create("clipmem-micro", seed=seed).save(folder / f"model-{seed}")
    pairs = write_parquet(folder / "pairs.parquet", 120)
    table = clipmem.score(folder / "model-1", folder / "model-2", pairs, bank_size=30)
    return {**_NOTHING, "tables": {"scores": of_table(table)}}


def formats(folder: Path) -> Digest:
    """Read the same pairs from every format."""
    found: dict[str, Digest] = {}
    for name, (source, write) in FORMATS.items():
        path = write(folder / name, some_pairs(12))
        section = DataSection.model_validate({"source": source, "path": str(path)})
        found[name] = of_table(open_source(section).pairs().select("uid", "captions"))
    return {**_NOTHING, "tables": found}
