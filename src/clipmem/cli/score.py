"""`clipmem score`: pairs scored with models that exist already."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

_POSITIVE = validators.Number(gte=1)
_LIST = Parameter(consume_multiple=True, negative="", show_default=False)


def score(
    *,
    out: Path,
    target: Annotated[tuple[str, ...], _LIST] = (),
    reference: Annotated[tuple[str, ...], _LIST] = (),
    data: str | None = None,
    bank: str | None = None,
    bank_size: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 200,
    alignment: str = "clip",
    weight: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 1.0,
    views: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    caption_edits: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    captions: Annotated[int | None, Parameter(validator=_POSITIVE)] = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    batch_size: Annotated[int, Parameter(validator=_POSITIVE)] = 256,
    embeddings: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Score pairs with a target and a reference model that you already have.

    The score of a pair is how much better the target aligns it than the reference. Works in blocks: run the same
    command again after a stop.

    Args:
        out: The table of scores to write (.parquet); a .json beside it says with what it was made.
        target: The model whose memorization is measured, or a folder of embeddings of it; or several.
        reference: The model to compare with: one for each target, in the same order.
        data: The pairs: a file or folder, or emoji for the shipped ones. Not needed with folders of embeddings.
        bank: Held-out pairs, which no model trained on: a data set, or a file of uids of the data.
        bank_size: Without --bank, draw this many pairs of the data as the bank.
        alignment: What is compared: clip (CLIPMem), cmc, sslmem-image, sslmem-text or confidence.
        weight: How much the similarity to the bank counts.
        views: Random views of each image; 0 = the image as it is.
        caption_edits: Seeded edits of the caption of a pair that has one, for sslmem-text.
        captions: Use this many captions of each pair; by default all.
        precision: fp32, or bf16 autocast.
        batch_size: Images or captions in a forward pass.
        embeddings: Keep the embeddings in this folder (clip-retrieval's layout); without --target, read them from it.
        device: Where to compute.
    """
    from rich.console import Console

    from clipmem.study import early

    early.check_scores(out)
    early.check_device(device)
    early.check_models([*target, *reference])
    if data is not None:
        early.check_data(data)
    if bank is not None:
        early.check_there(bank)
    if embeddings is not None and not target:
        early.check_file(embeddings, "--embeddings")
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.sections.scored import Scored
    from clipmem.report.terminal import print_screen
    from clipmem.study.score_inputs import Settings, compare
    from clipmem.study.scoring import finish, keep_embeddings

    settings = Settings(
        alignment, views, caption_edits, captions, precision, batch_size, bank_size, weight=weight, device=device
    ).checked()
    with TerminalReporter(Console(stderr=True)) as reporter:
        addresses = {"target": target, "reference": reference}
        keep = partial(keep_embeddings, settings, reporter)
        comparison = compare(addresses, data, bank, settings, embeddings=embeddings, keep=keep)
        done = finish(comparison, settings, out, reporter)
    found = Scored(done.scores, done.about, done.captions, done.quarantine)
    print_screen("scored", found, Console(), f"Scores: {out}")
