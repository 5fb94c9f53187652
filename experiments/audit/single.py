"""Attacks on one model, without references, on known members: `single.py RUN [TARGETS]` (RESULTS.md).

RUN is a finished `subsample` run without swapped captions, in which near-duplicates are members independently. Each of
its first models is the target of `clipmem audit --model`, with the pairs that it trained on as members and the others
of the pool as non-members. Prints for each attack
the mean over targets of the AUC, of its difference from that of the similarity, and of the true positive rate at 1%
false positives, with 95% t intervals.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import clipmem
from clipmem.data.sources import open_source
from clipmem.data.sources.base import Wrapped
from clipmem.report.formats import interval
from clipmem.report.frontier import mean_over_seeds
from clipmem.study.plan import PlannedStudy


class Some(Wrapped):
    """The pairs of a source with some uids."""

    def __init__(self, source, uids):
        super().__init__(source, source.section)
        self._uids = set(uids)

    def records(self):
        """Yield the records of these pairs."""
        for record in self.source.records():
            if record.uid() in self._uids:
                yield record
            else:
                self.ledger.read -= len(record.parts)


def main(path: str, targets: int) -> None:
    """Audit each target, and print the means."""
    study, documents, started = PlannedStudy(path), [], time.monotonic()
    pool = study.role == "candidate"
    uids = np.array(study.pair_uids)
    with tempfile.TemporaryDirectory() as scratch:
        for k, model in enumerate(study.models[:targets]):
            sets = [uids[pool & (study.design.sign[k] == sign)] for sign in (1, -1)]
            members, nonmembers = (Some(open_source(study.recipe.data), of_set) for of_set in sets)
            folder = study.folder.model_dir(model.side, model.seed)
            out = Path(scratch, f"{k}.json")
            documents.append(clipmem.audit(model=str(folder), members=members, nonmembers=nonmembers, out=out))
    areas = {
        name: np.array([document["attacks"][name]["auc"]["mean"] for document in documents])
        for name in documents[0]["attacks"]
    }
    for name, area in areas.items():
        rates = [100 * document["attacks"][name]["tpr"][0]["mean"] for document in documents]
        columns = (area, area - areas["cosine"], rates)
        means = [mean_over_seeds(list(map(float, values)), 0.95) for values in columns]
        cells = [f"{mean['mean']:+.3f} {interval(mean, sign=True)}" for mean in means]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"{time.monotonic() - started:.0f} s, {sum(pool)} pairs a target")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6)
