"""The findings, one file each; importing this package registers them. `ORDER` is their display order."""

from clipmem.report.findings import (
    captions,
    data_size,
    distributions,
    encoders,
    layers,
    memorized,
    model_size,
    one_pass,
    paradigms,
    planted,
    redundancy,
    removal,
    text_noise,
    tradeoff,
)

__all__ = ["ORDER"]
_MODULES = (
    *(distributions, memorized, planted, redundancy, layers, encoders, captions),
    *(text_noise, removal, tradeoff, paradigms, model_size, one_pass, data_size),
)
ORDER = tuple(module.__name__.rpartition(".")[2].replace("_", "-") for module in _MODULES)
