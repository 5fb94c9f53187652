"""Audit some pairs of a run alone (RESULTS.md).

null.py RUN               the external pairs, on which no model trained, by placebo members
null.py RUN mismatched    the pairs with swapped captions, as canaries
"""

import sys

import numpy as np

from clipmem.base.progress import Quiet
from clipmem.study.auditing import audit
from clipmem.study.plan import PlannedStudy


def main(path: str, pairs: str = "external") -> None:
    """Print the AUC of every attack with its interval, and the lower bound of ε."""
    study = PlannedStudy(path)
    planted = study.splits["planted"].to_numpy() & (study.role == "candidate")
    document, _ = audit(study, np.flatnonzero(planted if pairs == "mismatched" else study.role == pairs), Quiet())
    for name, attack in document["attacks"].items():
        print(f"{name:12} {attack['auc']['mean']:.3f} [{attack['auc']['low']:.3f}, {attack['auc']['high']:.3f}]")
    print(document["epsilon"])


if __name__ == "__main__":
    main(*sys.argv[1:])
