"""Controls: what lowers memorization in any model, and is no idea about captions: weight decay and early stopping."""

from clipmem.base.sections import TrainSection
from clipmem.mitigate.base import MITIGATIONS, Mitigation


@MITIGATIONS.register("weight_decay")
class WeightDecay(Mitigation):
    """`[mitigate.weight_decay]`: decay = factor · train.weight_decay."""

    summary = "A control: more weight decay."

    def settings(self, train: TrainSection) -> TrainSection:
        return train.model_copy(update={"weight_decay": train.weight_decay * self.section.factor})


@MITIGATIONS.register("early_stopping")
class EarlyStopping(Mitigation):
    """`[mitigate.early_stopping]`: round(share · steps) steps, at least one."""

    summary = "A control: the same training, ended early."

    def last_step(self, steps: int) -> int:
        return max(1, round(self.section.share * steps))
