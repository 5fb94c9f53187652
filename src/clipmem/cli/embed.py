"""`clipmem embed`: the embeddings of pairs under one model, in clip-retrieval's layout."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

_POSITIVE = validators.Number(gte=1)


def embed(
    *,
    model: str,
    data: str,
    out: Path,
    views: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    captions: Annotated[int | None, Parameter(validator=_POSITIVE)] = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    batch_size: Annotated[int, Parameter(validator=_POSITIVE)] = 256,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Embed pairs with one model, for `clipmem score` or for other tools.

    Writes img_emb, text_emb and metadata in parts, as clip-retrieval does: a row a pair, the mean of the unit
    embeddings of its views, or captions. Run the same command again after a stop.

    Args:
        model: The model.
        data: The pairs: a file or folder, or emoji for the shipped ones.
        out: The folder to write.
        views: Random views of each image; 0 = the image as it is.
        captions: Use this many captions of each pair; by default all.
        precision: fp32, or bf16 autocast.
        batch_size: Images or captions in a forward pass.
        device: Where to compute.
    """
    from rich.console import Console

    from clipmem.store.atomic import check_place
    from clipmem.study import early

    early.check_device(device)
    early.check_models([model])
    early.check_data(data)
    check_place(out)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.study.score_inputs import Settings
    from clipmem.study.scoring import embed_pairs

    settings = Settings(
        views=views, captions=captions, precision=precision, batch_size=batch_size, device=device
    ).checked()
    with TerminalReporter(Console(stderr=True)) as reporter:
        pairs, problems = embed_pairs(model, data, out, settings, reporter=reporter)
    left = f"; {len(problems):,} records left out, listed in {out / 'quarantine.parquet'}" if problems else ""
    sys.stdout.write(f"embedded {pairs:,} pairs into {out}{left}\n")
