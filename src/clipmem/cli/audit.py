"""`clipmem audit`: membership inference."""

from pathlib import Path

from clipmem import study
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import DataPath, Device, ModelName, RunDir
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
    device: Device = "auto",
    engine: str = "local",
    part: str = "",
    reporter: Reporter,
) -> Screen:
    """Measure how well an attacker can tell which pairs a model trained on.

    With a run of protocol subsample or halves, each of its models (shadow models) is attacked with the others as
    references. Writes audit/audit.json and the risk of each pair, audit/pairs.parquet, into the run folder, and updates
    the report. With --model, attacks one model; sets that can be told apart without the model are refused. Run the same
    command again to resume after a stop.

    Args:
        folder: A finished run folder of protocol subsample or halves.
        model: A model to attack instead of a run.
        members: With --model: pairs that it trained on, a file or folder.
        nonmembers: With --model: pairs from the same source that it did not train on.
        out: With --model: output file.
        device: With --model: device to compute on.
        engine: With --model: who attacks the pairs: local, ray (here, or at RAY_ADDRESS), or ray://HEAD:PORT.
        part: With --model: attack only share K of N of the pairs, as K/N; then run without it.
    """
    how = {"members": members, "nonmembers": nonmembers, "device": device, "engine": engine, "part": part}
    document = study.api.audit(folder, model=model, out=out, **how, reporter=reporter)
    return Screen("audited", document, f"Written: {out}") if folder is None else Screen("audit", folder)
