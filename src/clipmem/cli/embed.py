"""`clipmem embed`: embeddings of pairs in clip-retrieval's layout."""

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
    """Embed pairs with one model, for `clipmem score` or other tools.

    Writes img_emb, text_emb and metadata in parts, in clip-retrieval's layout: one row per pair, the mean of the unit
    embeddings of its views, or captions. Run the same command again to resume after a stop.

    Args:
        model: Model folder or other address (docs/models.md).
        data: Pairs: a file or folder, or emoji for the shipped ones.
        out: Output folder.
        views: Random views per image; 0 = the unchanged image.
        captions: Maximum number of captions per pair; by default all.
        precision: fp32, or bf16 = autocast.
        batch_size: Images or captions per forward pass.
        device: Device to compute on.
    """
    from rich.console import Console

    from clipmem.base.atomic import check_place
    from clipmem.study import early

    early.check_device(device)
    early.check_models([model])
    early.check_data(data)
    check_place(out)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.formats import count
    from clipmem.study.score_inputs import Settings
    from clipmem.study.scoring import embed_pairs

    settings = Settings.of(views=views, captions=captions, precision=precision, batch_size=batch_size, device=device)
    with TerminalReporter(Console(stderr=True)) as reporter:
        pairs, problems = embed_pairs(model, data, out, settings, reporter=reporter)
    listed = f"; {count(len(problems), 'problem')} listed in {out / 'quarantine.parquet'}" if problems else ""
    sys.stdout.write(f"embedded {pairs:,} pairs into {out}{listed}\n")
