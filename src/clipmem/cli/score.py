"""`clipmem score`: score pairs with existing models."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from clipmem import study
from clipmem.base.errors import require
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import (
    Count,
    DataOrUids,
    DataPath,
    Device,
    ModelName,
    ModelNames,
    NewTable,
    Number0,
    ReadableFile,
)
from clipmem.cli.shell import Screen, command, option_of

_RANKING = {"captions", "device"}  # what a ranking by one model uses


@Parameter(name="*")
@dataclass(frozen=True)
class Scoring:
    """How pairs are scored.

    Attributes:
        bank_size: Without --bank, sample this many pairs of the data as the bank.
        alignment: Alignment score: clip (CLIPMem), cmc, sslmem-image, sslmem-text or confidence.
        weight: Weight of the similarity to the bank.
        views: Random views per image; 0 = the unchanged image.
        caption_edits: Random edits of the caption of single-caption pairs, for sslmem-text.
        captions: Maximum number of captions per pair; by default all.
        precision: fp32, or bf16 = autocast.
        batch_size: Images or captions per forward pass.
        device: Device to compute on.
    """

    bank_size: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 200
    alignment: str = "clip"
    weight: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 1.0
    views: Number0 = 0
    caption_edits: Number0 = 0
    captions: Count | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: Count = 256
    device: Device = "auto"


@command
def score(
    *,
    data: DataPath = None,
    target: ModelNames = (),
    reference: ModelNames = (),
    model: ModelName = "",
    trajectory: ReadableFile | None = None,
    bank: DataOrUids | None = None,
    out: NewTable = Path("scores.parquet"),
    embeddings: Path | None = None,
    scoring: Scoring = Scoring(),
    reporter: Reporter,
) -> Screen:
    """Score pairs by how much existing models memorized them.

    With --target and --reference, the score of a pair is its alignment under the target minus that under the reference.
    With --model alone, or no model, the scores are a ranking by one model, pixels and words, which agrees less with
    CLIPMem. Nothing is trained. Run the same command again to resume after a stop.

    Args:
        data: Pairs: a file or folder, or emoji for the shipped ones. Not needed with folders of embeddings.
        target: Models whose memorization is measured, or folders of their embeddings.
        reference: Models to compare with: one for each target, in the same order.
        model: The model that trained on the data, if there is no reference.
        trajectory: With --model: what its training recorded, a file of AlignmentRecorder, by uid.
        bank: Held-out pairs that no model trained on: a data set, or a file of uids of the data.
        out: Output table of scores (.parquet); a sidecar .json records how it was made.
        embeddings: Store the embeddings in this folder (clip-retrieval's layout); without --target, read them from it.
    """
    if target or reference or embeddings is not None:
        got, hint = f"--model {model} and other models", "Omit --model, or --target and --reference."
        require(not model, "--model", got, "--target and --reference, or --model", hint)
        return _compared({"target": target, "reference": reference}, data, bank, out, embeddings, scoring, reporter)
    hint = "For example: clipmem score --model FOLDER --data PATH."
    require(data is not None, "--data", "no data", "the pairs to score", hint)
    require(trajectory is None or model, "--trajectory", "no --model", "the model whose training it is of", hint)
    unused = [field.name for field in fields(scoring) if getattr(scoring, field.name) != field.default]
    unused = [option_of(name) for name in unused if name not in _RANKING] + ["--bank"] * (bank is not None)
    hint = "Add --target MODEL --reference MODEL, or omit it."
    require(not unused, ", ".join(unused), "no --target and --reference", "two models to compare", hint)
    estimates = study.estimating_one.estimate_with(
        model,
        data,
        out,
        trajectory=trajectory,
        captions=scoring.captions,
        device=scoring.device,
        reporter=reporter,
    )
    return Screen("estimated", estimates, f"Scores: {out}")


def _compared(
    models: dict[str, tuple[str, ...]],
    data: DataPath,
    bank: DataOrUids | None,
    out: Path,
    embeddings: Path | None,
    scoring: Scoring,
    reporter: Reporter,
) -> Screen:
    settings = study.score_inputs.Settings.of(**asdict(scoring))
    comparison = study.score_inputs.compare(
        models["target"], models["reference"], data, bank, settings, embeddings=embeddings
    )
    done = study.scoring.finish(comparison, out, embeddings=embeddings, reporter=reporter)
    return Screen("scored", done, f"Scores: {out}")
