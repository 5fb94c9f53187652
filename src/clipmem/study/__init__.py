# pyright: reportUnusedImport=false
"""The stages of a study, and what the commands do. Most modules import torch, so they are imported when first used.

from clipmem import study

study.auditing.audit_run("runs/mine")  # imports clipmem.study.auditing here
"""

from typing import TYPE_CHECKING

from clipmem.base import lazy

if TYPE_CHECKING:  # what is used as an attribute of this package
    from clipmem.study import (
        api,
        auditing,
        budget,
        curating,
        data_commands,
        evaluating,
        finished,
        localizing,
        opening,
        plan,
        probing,
        score_inputs,
        scoring,
        single_model,
        stages,
        starting,
        validating,
    )

__getattr__ = lazy(__name__)
