"""`clipmem score`: score pairs with existing models."""

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
    """Score pairs with an existing target and reference model.

    The score of a pair is its alignment under the target minus that under the reference. Run the same command again
    to resume after a stop.

    Args:
        out: Output table of scores (.parquet); a sidecar .json records how it was made.
        target: Models whose memorization is measured, or folders of their embeddings.
        reference: Models to compare with: one for each target, in the same order.
        data: Pairs: a file or folder, or emoji for the shipped ones. Not needed with folders of embeddings.
        bank: Held-out pairs that no model trained on: a data set, or a file of uids of the data.
        bank_size: Without --bank, sample this many pairs of the data as the bank.
        alignment: Alignment score: clip (CLIPMem), cmc, sslmem-image, sslmem-text or confidence.
        weight: Weight of the similarity to the bank.
        views: Random views per image; 0 = the unchanged image.
        caption_edits: Random edits of the caption of single-caption pairs, for sslmem-text.
        captions: Maximum number of captions per pair; by default all.
        precision: fp32, or bf16 = autocast.
        batch_size: Images or captions per forward pass.
        embeddings: Store the embeddings in this folder (clip-retrieval's layout); without --target, read them from it.
        device: Device to compute on.
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
    from clipmem.report.sections.commands import Scored
    from clipmem.report.terminal import print_screen
    from clipmem.study.score_inputs import Settings, compare
    from clipmem.study.scoring import finish

    settings = Settings.of(
        alignment=alignment,
        views=views,
        caption_edits=caption_edits,
        captions=captions,
        precision=precision,
        batch_size=batch_size,
        bank_size=bank_size,
        weight=weight,
        device=device,
    )
    with TerminalReporter(Console(stderr=True)) as reporter:
        comparison = compare(target, reference, data, bank, settings, embeddings=embeddings)
        done = finish(comparison, out, embeddings=embeddings, reporter=reporter)
    found = Scored(done.scores, done.about, done.captions, done.quarantine)
    print_screen("scored", found, Console(), f"Scores: {out}")
