"""`clipmem audit`: membership inference."""

from dataclasses import asdict
from pathlib import Path

from clipmem import study
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import DataPath, ModelName, RunDir, Work
from clipmem.cli.shell import Screen, command


@command
def audit(
    folder: RunDir | None = None,
    /,
    *,
    model: ModelName = "",
    members: DataPath = None,
    nonmembers: DataPath = None,
    out: Path = Path("audit.json"),
    work: Work = Work(),
    reporter: Reporter,
) -> Screen:
    """Measure how well an attacker can tell which pairs a model trained on.

    With a run of protocol subsample or halves, each of its models (shadow models) is attacked with the others as
    references. Writes audit/audit.json and the risk of each pair, audit/pairs.parquet, into the run folder, and updates
    the report. With --model, attacks one model; sets that can be told apart without the model are refused. --device,
    --engine and --part are for it. Run the same command again to resume after a stop.

    Args:
        folder: A finished run folder of protocol subsample or halves.
        model: A model to attack instead of a run.
        members: With --model: pairs that it trained on, a file or folder.
        nonmembers: With --model: pairs from the same source that it did not train on.
        out: With --model: output file.
    """
    sets = {"members": members, "nonmembers": nonmembers}
    document = study.api.audit(folder, model=model, out=out, **sets, **asdict(work), reporter=reporter)
    return Screen("audited", document, f"Written: {out}") if folder is None else Screen("audit", folder)
