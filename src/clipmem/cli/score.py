"""`clipmem score`: score pairs with existing models."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from clipmem import report, study
from clipmem.base.errors import require
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import (
    DataOrUids,
    DataPath,
    Embedding,
    ModelName,
    ModelNames,
    NewTable,
    Number0,
    ReadableFile,
    RunDir,
)
from clipmem.cli.shell import Screen, command


@Parameter(name="*")
@dataclass(frozen=True)
class Scoring(Embedding):
    """How pairs are scored.

    Attributes:
        bank_size: Without --bank, hold out this many random pairs of the data.
        alignment: Alignment score: clip (CLIPMem), cmc, sslmem-image, sslmem-text or confidence.
        weight: Weight of the similarity to the held-out pairs.
        caption_edits: Random edits of the caption of single-caption pairs, for sslmem-text.
    """

    bank_size: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 200
    alignment: str = "clip"
    weight: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 1.0
    caption_edits: Number0 = 0


@command
def score(
    folder: RunDir | None = None,
    /,
    *,
    data: DataPath = None,
    target: ModelNames = (),
    reference: ModelNames = (),
    model: ModelName = "",
    trajectory: ReadableFile | None = None,
    bank: DataOrUids | None = None,
    out: NewTable = Path("scores.parquet"),
    embeddings: Path | None = None,
    trace: str = "",
    scoring: Scoring = Scoring(),
    reporter: Reporter,
) -> Screen:
    """Score pairs by how much existing models memorized them.

    With --target and --reference, the score of a pair is its alignment under the target minus that under the reference.
    With --model alone, or no model, the scores are a ranking by one model, pixels and words, which agrees less with
    CLIPMem. Nothing is trained. Run the same command again to resume after a stop.

    With a run and --trace, effects.parquet has what each training pair did to the similarity of a held-out pair.

    Args:
        folder: With --trace: a finished run folder of protocol halves, with 4 or more shadow models.
        data: Pairs: a file or folder, or emoji for the shipped ones. Not needed with folders of embeddings.
        target: Models whose memorization is measured, or folders of their embeddings.
        reference: Models to compare with: one for each target, in the same order.
        model: The model that trained on the data, if there is no reference.
        trajectory: With --model: what its training recorded, a file of AlignmentRecorder, by uid.
        bank: Held-out pairs that no model trained on: a data set, or a file of uids of the data.
        out: Output table of scores (.parquet); a sidecar .json records how it was made.
        embeddings: Store the embeddings in this folder (clip-retrieval's layout); without --target, read them from it.
        trace: uid of a held-out pair of the run; or UID:UID, for the image of the first and the caption of the second.
    """
    got, expected = ("no run", "one") if folder is None else ("no --trace", "--trace UID")
    require(bool(trace) == bool(folder), "--trace", got, expected, "For example: clipmem score RUN --trace UID.")
    if folder is not None:
        others = (data, target, reference, model, trajectory, bank, embeddings, scoring != Scoring())
        unused = all(value in (None, (), "", False) for value in others)
        require(unused, "--trace", "other options", "--out alone", "Omit them: the run has pairs and models.")
        out = Path("effects.parquet") if out == Path("scores.parquet") else out
        return Screen("traced", study.estimating.trace(folder, trace, out, reporter), f"Effects: {out}")
    models = list(target) or None, list(reference) or None
    inputs = study.api.Inputs(*models, data, bank, model, trajectory, embeddings)
    scored = study.api.score_into(out, inputs, reporter, **asdict(scoring))
    steps = report.templating.next_steps("pairs", scores=out)
    return Screen("estimated" if "estimator" in scored.about else "scored", scored, f"Scores: {out}", steps)
