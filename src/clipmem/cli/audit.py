"""`clipmem audit`: membership inference."""

from pathlib import Path
from typing import Literal

from clipmem.base.require import require


def audit(
    folder: Path | None = None,
    /,
    *,
    model: str = "",
    members: str = "",
    nonmembers: str = "",
    out: Path = Path("audit.json"),
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Measure how well an attacker can tell which pairs a model trained on.

    With a run of protocol subsample or halves, each of its models (half-models) is attacked with the others as
    references. Writes audit/audit.json and the risk of each pair, audit/pairs.parquet, into the run folder, and updates
    the report. With --model, attacks one model; sets that can be told apart without the model are refused.

    Args:
        folder: A finished run folder of protocol subsample or halves.
        model: A model to attack instead of a run.
        members: With --model: pairs that it trained on, a file or folder.
        nonmembers: With --model: pairs from the same source that it did not train on.
        out: With --model: output file.
        device: With --model: device to compute on.
    """
    from rich.console import Console

    from clipmem.study import early

    got = f"{'no' if folder is None else 'a'} run folder, and {'a' if model else 'no'} --model"
    hint = "For example: clipmem audit runs/mine, or clipmem audit --model FOLDER --members PATH --nonmembers PATH."
    require((folder is None) == bool(model), "clipmem audit", got, "one of them", hint)
    for name, data in (("--members", members), ("--nonmembers", nonmembers)):
        require(bool(data) == bool(model), name, data or "no data", "pairs with --model, none with a run", hint)
        if data:
            early.check_data(data)
    if folder is not None:
        early.check_run(folder)
    else:
        early.check_models([model])
        early.check_device(device)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_run, print_screen
    from clipmem.study.auditing import audit_model, audit_run

    with TerminalReporter(Console(stderr=True)) as reporter:
        if folder is not None:
            audit_run(folder, reporter=reporter)
        else:
            found = audit_model(model, members, nonmembers, out, device=device, reporter=reporter)
            print_screen("audited", found, Console(), f"Written: {out}")
    if folder is not None:
        print_run("audit", folder, Console())
