"""The findings, one file each; importing this registers them all. `ORDER` is the order in which they are shown."""

from clipmem.study.reproduce.findings import (
    captions,
    data_size,
    distributions,
    encoders,
    layers,
    memorized,
    model_size,
    one_pass,
    planted,
    removal,
    text_noise,
    tradeoff,
)

ORDER = (
    "distributions",
    "memorized",
    "planted",
    "layers",
    "encoders",
    "captions",
    "text-noise",
    "removal",
    "tradeoff",
    "model-size",
    "one-pass",
    "data-size",
)

__all__ = [
    "ORDER",
    "captions",
    "data_size",
    "distributions",
    "encoders",
    "layers",
    "memorized",
    "model_size",
    "one_pass",
    "planted",
    "removal",
    "text_noise",
    "tradeoff",
]
