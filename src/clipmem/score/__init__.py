"""Scores: alignments, protocols and their execution. `clipmem.score(...)` calls `study.scoring.score`."""

from clipmem.base.callable_package import make_callable

make_callable(__name__, "clipmem.study.scoring")
