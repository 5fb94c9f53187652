"""Training beside another program: threads that sleep while they wait (OMP_WAIT_POLICY), against the default."""

from pathlib import Path

from timing import Row, in_turn, output, script

from clipmem.base.machine import cores
from suites.training import one_process, rates

_OTHER = "import torch\nx = torch.randn(1500, 1500)\nwhile True: x @ x"


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Train the demo's model in one process with all cores, alone and while another program uses all of them, too."""
    words = one_process(folder, device, smallest=smallest, epochs=(2, 12))

    def rate(beside: bool, **variables: str) -> float:
        other = script("-c", _OTHER) if beside else None
        try:
            return rates([output(script(*words, threads=cores(), **variables))])
        finally:
            if other:
                other.process.kill()
                other.process.wait()
                other.printed.close()

    cases = {"alone": False, "beside a program on all cores": True}
    return [
        in_turn(
            "shared",
            f"demo recipe, one process, {name}",
            "default",
            lambda beside=beside: rate(beside, OMP_WAIT_POLICY="PASSIVE"),
            lambda beside=beside: rate(beside),
            unit="pairs/s",
            rounds=rounds,
            more_is_better=True,
        )
        for name, beside in cases.items()
    ]
