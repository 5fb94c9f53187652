"""Déjà Vu of a finished study for several numbers of neighbors.

    python experiments/dejavu/compare.py clipmem-demo

Reads the embeddings of the run folder and prints one line per setting.
"""

import sys

from clipmem.study.plan import PlannedStudy
from clipmem.study.utility import measure_dejavu

ROLES = ("candidate", "candidate, not mismatched", "independent", "shared")


def shown(entry: dict[str, float], value: str = "mean", form: str = "+.3f") -> str:
    return f"{entry[value]:{form}} [{entry['low']:{form}}, {entry['high']:{form}}]"


def main() -> None:
    recipe = PlannedStudy(sys.argv[1]).recipe
    print(
        "k: AUC gap of candidates | without swapped captions | g-only pairs | shared pairs | Spearman with CLIPMem"
        " | swapped captions, AUROC"
    )
    for neighbors in (1, 5, 10, 20, 50):
        section = recipe.dejavu.model_copy(update={"neighbors": neighbors})
        study = PlannedStudy(sys.argv[1], recipe.model_copy(update={"dejavu": section}))
        measured = measure_dejavu(study)[0]["two_model"]
        cells = [shown(measured["roles"][role]["auc_gap"]) for role in ROLES if role in measured["roles"]]
        cells.append(shown(measured["clipmem"], "spearman"))
        cells += [shown(measured["planted"], "auroc", ".3f")] if measured["planted"] else []
        print(f"{neighbors}: {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
