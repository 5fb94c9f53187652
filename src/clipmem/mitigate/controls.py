"""Controls: what lowers memorization in any model, and is no idea about captions: weight decay and early stopping.

They have sections of their own beside `train.weight_decay` and `train.epochs`, so that everything a mitigation changes
stands under `[mitigate]`. Early stopping ends the training at a step; the learning rate is that of the whole one, as
when somebody watches a training and ends it. It then shows fewer pairs than others: `record.json` says how many.
"""

from typing import Any

from clipmem.base.recipes import TrainSection
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Training


@MITIGATIONS.register("weight_decay")
class WeightDecay(Mitigation):
    """`[mitigate.weight_decay]`: decay = factor · train.weight_decay."""

    name = "weight_decay"

    def __init__(self, factor: float) -> None:
        self._factor = factor

    @classmethod
    def create(cls, training: Training) -> "WeightDecay":
        """Make it for a training."""
        return cls(training.recipe.mitigate.weight_decay.factor)

    def facts(self) -> dict[str, Any]:
        """Return the factor."""
        return {"factor": self._factor}

    def settings(self, train: TrainSection) -> TrainSection:
        """Multiply the weight decay."""
        return train.model_copy(update={"weight_decay": train.weight_decay * self._factor})


@MITIGATIONS.register("early_stopping")
class EarlyStopping(Mitigation):
    """`[mitigate.early_stopping]`: round(share · steps) steps, at least one."""

    name = "early_stopping"

    def __init__(self, share: float) -> None:
        self._share = share

    @classmethod
    def create(cls, training: Training) -> "EarlyStopping":
        """Make it for a training."""
        return cls(training.recipe.mitigate.early_stopping.share)

    def facts(self) -> dict[str, Any]:
        """Return the share."""
        return {"share": self._share}

    def last_step(self, steps: int) -> int:
        """End the training early."""
        return max(1, round(self._share * steps))
