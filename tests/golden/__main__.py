"""Record what must not change, or say what has: python -m tests.golden [--record].

Makes small studies of every protocol, alignment, objective, mitigation and format (see `studies`), about three minutes
on two cores, and compares them with `studies.json`. Exit code 0 when nothing differs. With --record the file is written
anew: do that only for a change of numbers that CHANGELOG lists with its reason.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.golden.digest import differences, machine
from tests.golden.studies import compute

GOLDEN = Path(__file__).with_name("studies.json")


def main() -> int:
    """Compute, then record or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    record = parser.parse_args().record
    with tempfile.TemporaryDirectory() as folder:
        made = compute(Path(folder), lambda name: print(name, flush=True))
    if record:
        lines = (f"{json.dumps(name)}: {json.dumps(one, sort_keys=True)}" for name, one in sorted(made.items()))
        head = f'{{"machine": {json.dumps(machine(), sort_keys=True)}, "studies": {{\n'
        GOLDEN.write_text(head + ",\n".join(lines) + "\n}}\n", encoding="utf-8")
        return 0
    lines = compared(made)
    print("\n".join(lines) or f"{len(made)} studies: nothing differs")
    return bool(lines)


def compared(made: dict[str, dict[str, object]]) -> list[str]:
    """List what differs from the record."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    same = golden["machine"] == machine()
    # a difference that is equal in both seeds has none of these, and another processor ranks other pairs first
    columns = () if same else ("low", "high", "p", "p_holm")
    for study in (golden["studies"], made):
        study["compared"]["tables"]["differences"] = {
            name: one for name, one in study["compared"]["tables"]["differences"].items() if name not in columns
        }
    return differences(golden["studies"], made, same_machine=same)


if __name__ == "__main__":
    sys.exit(main())
