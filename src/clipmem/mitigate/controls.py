"""Controls: weight decay and early stopping, which lower memorization in any model."""

from clipmem.base.sections import TrainSection
from clipmem.mitigate.base import MITIGATIONS, Mitigation


@MITIGATIONS.register("weight_decay")
class WeightDecay(Mitigation):
    """`[mitigate.weight_decay]`: decay = factor · train.weight_decay."""

    summary = "Control: more weight decay."

    def settings(self, train: TrainSection) -> TrainSection:
        return train.model_copy(update={"weight_decay": train.weight_decay * self.section.factor})


@MITIGATIONS.register("early_stopping")
class EarlyStopping(Mitigation):
    """`[mitigate.early_stopping]`: round(share · steps) steps, at least one."""

    summary = "Control: the same training, stopped early."

    def last_step(self, steps: int) -> int:
        return max(1, round(self.section.share * steps))
