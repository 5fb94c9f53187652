"""`clipmem.score`: scores from Python, and `embed_pairs`, which the command `clipmem embed` calls."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.progress import Reporter
from clipmem.data.quarantine import Problem
from clipmem.store.hashing import data_fingerprint
from clipmem.study.scoring.arrays import compare_arrays
from clipmem.study.scoring.comparison import DECODED, compare
from clipmem.study.scoring.embedding import embed_into
from clipmem.study.scoring.files import finish
from clipmem.study.scoring.job import Scorer
from clipmem.study.scoring.pairs import Data, read_pairs
from clipmem.study.scoring.parts import PartsFolder
from clipmem.study.scoring.settings import Settings
from clipmem.study.scoring.sides import ModelSide

Arrays = tuple[Any, Any] | tuple[Any, Any, Any]
Model = str | Path | Arrays


def score(
    target: Model | Sequence[Model],
    reference: Model | Sequence[Model],
    pairs: Data | Sequence[str] | None = None,
    bank: Data | Sequence[Any] | np.ndarray | None = None,
    *,
    out: str | Path | None = None,
    embeddings: str | Path | None = None,
    views: int = 0,
    captions: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    batch_size: int = 256,
    bank_size: int = 200,
    seed: int = 0,
    weight: float = 1.0,
    confidence: float = 0.95,
    block: int | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> pl.DataFrame:
    """Score pairs with models that exist already: how much better the target aligns each than the reference.

    CLIPMem = mean over targets of A(target) - mean over references of A(reference), A = ū·v̄ - w (ū·t̄ + ī·v̄) (design,
    section 2). Range: -6 to 6 for w = 1. It is CLIPMem only where the models differ in their training pairs alone.

    Args:
        target: The model whose memorization is measured: its address (see `docs/given.md`), a folder of embeddings,
            or the pairs' embeddings themselves, numpy or torch: (image, text) of shapes (n, d) or (n, view, d), and
            (n, d); with several captions (image, text, pair), text (m, d) and the pair of each caption (m,). A list
            for several models.
        reference: The model to compare with; of a list, each is compared with the target in its place.
        pairs: The data: a path, `"emoji"`, a `[data]` section or a source. With folders of embeddings it may be left
            out; with arrays it is the uids of their rows, "0", "1", ... if left out.
        bank: Held-out pairs that no model trained on: a data set, or uids of pairs of the data (a list, or a file of
            them); with arrays also row numbers, or a mask. None: `bank_size` pairs are drawn from the data.
        out: Write the scores there too, block by block, so that a call that was stopped goes on.
        embeddings: Keep the embeddings in this folder, or read them from it.
        views: Random image views of a pair; 0 = the picture as it is.
        captions: Captions used of each pair; None = all.
        precision: `fp32`, or `bf16` autocast.
        batch_size: Pictures or captions in a forward pass.
        bank_size: How many pairs are drawn as the bank where none is given, 2 or more.
        seed: Seed of that draw.
        weight: w of the alignment, >= 0.
        confidence: Level of the intervals over several pairs of models.
        block: Pairs in a block; None = 1,024 where pictures are decoded, 8,192 where not.
        device: `auto`, `cpu` or `cuda`.
        reporter: Who is told of the progress.

    Returns:
        The columns of a study's `scores`, a row for each pair, sorted by uid. `role` is external for pairs of the bank,
        which are scored against the others of it, and candidate for all others. `planted` is false. `clipmem_norm` is
        null without two candidates that differ; stderr, low and high are null with one pair of models.

    Raises:
        InputError: A model, the data or a setting is wrong, or `out` was made with something else.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> image, text, other = (rng.normal(size=(5, 8)) for _ in range(3))
        >>> table = score((image, text), (other, text), bank=[0, 1])
        >>> table["role"].to_list()
        ['external', 'external', 'candidate', 'candidate', 'candidate']
    """
    chosen = Settings(
        views, captions, precision, batch_size, bank_size, seed, weight, confidence, block, device
    ).checked()
    lists = {"target": _several(target), "reference": _several(reference)}
    if any(isinstance(one, tuple) for models in lists.values() for one in models):
        comparison = compare_arrays(lists, pairs, bank, chosen)
    else:
        addresses = {kind: [_address(kind, one) for one in models] for kind, models in lists.items()}
        comparison = compare(addresses, pairs, bank, chosen, embeddings=embeddings, reporter=reporter)  # pyright: ignore[reportArgumentType]
    if out is not None:
        return finish(comparison, chosen, Path(out), reporter).scores
    with tempfile.TemporaryDirectory() as folder:
        return Scorer(comparison, PartsFolder(Path(folder)), reporter).run().scores


def _several(models: Any) -> list[Any]:
    return list(models) if isinstance(models, list) else [models]


def _address(kind: str, model: Any) -> str:
    if not isinstance(model, str | Path):
        raise InputError(
            kind,
            got=shorten(model),
            expected="an address, (image, text) or (image, text, pair), or a list of such",
            hint="Put the arrays of one model into a tuple.",
        )
    return str(model)


def embed_pairs(
    model: str, data: Data, out: str | Path, settings: Settings, *, reporter: Reporter | None = None
) -> tuple[int, list[Problem]]:
    """Embed pairs with one model into a folder of clip-retrieval's layout.

    Args:
        model: Its address.
        data: The pairs.
        out: The folder; one that holds the same unfinished is gone on with.
        settings: The settings, checked.
        reporter: Who is told of the progress.

    Returns:
        How many pairs were embedded, and the records that were left out.

    Raises:
        InputError: The model or the data is wrong, or the folder holds something else.
    """
    pairs = read_pairs(data, settings.captions, "--data")
    side = settings.side(model)
    if not isinstance(side, ModelSide):
        raise InputError(f"--model {model}", got="a folder of embeddings", expected="a model", hint="Name a model.")
    card = {**settings.made_with(), "data": data_fingerprint(pairs.table["uid"])}
    block = settings.block or DECODED
    problems = embed_into([side], [Path(out)], pairs, card, block=block, reporter=reporter)
    # the source's own problems are of records that are no pairs
    return len(pairs) - (len(problems) - len(pairs.problems)), problems
