"""Déjà Vu of a finished study for several numbers of neighbors and of predicted objects.

    python experiments/dejavu/compare.py clipmem-demo

Reads the embeddings of the run folder and prints one line per setting.
"""

import sys

from clipmem.base.folder import RunFolder
from clipmem.study.dejavu import couples, measure_run
from clipmem.study.plan import PlannedStudy

SETTINGS = ((1, 0), (5, 0), (10, 0), (20, 0), (50, 0), (10, 5), (10, 10), (10, 20), (50, 10))


def shown(entry: dict[str, float], value: str = "mean", form: str = "+.3f") -> str:
    return f"{entry[value]:{form}} [{entry['low']:{form}}, {entry['high']:{form}}]"


def main() -> None:
    folder = RunFolder(sys.argv[1])
    recipe = folder.recipe()
    seeds = couples([(side, seed) for side in ("f", "g") for seed in recipe.train.seeds])
    column = PlannedStudy(folder.path).pairs["objects"].to_list()
    objects = [list(column[row] or []) for row in PlannedStudy(folder.path).rows]
    print("k, top: AUC gap of candidates | not planted | independent | shared | Spearman with CLIPMem | planted, AUROC")
    for neighbors, top in SETTINGS:
        section = recipe.dejavu.model_copy(update={"neighbors": neighbors, "top": top})
        study = PlannedStudy(folder.path, recipe.model_copy(update={"dejavu": section}))
        found = measure_run(study, seeds, objects).document["two_model"]
        roles = found["roles"]
        names = [name for name in ("candidate", "candidate, not planted", "independent", "shared") if name in roles]
        cells = [shown(roles[name]["auc_gap"]) for name in names]
        cells.append(shown(found["clipmem"], "spearman"))
        cells += [shown(found["planted"], "auroc", ".3f")] if found["planted"] else []
        print(f"{neighbors}, {top or 'all'}: {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
