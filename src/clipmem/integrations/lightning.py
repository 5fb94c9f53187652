"""Callbacks for Lightning: monitor memorization, and reweight suspect pairs.

    trainer = Trainer(callbacks=[MemorizationCallback(embed=lambda module, batch: module.embed(batch))])

Precision is the Trainer's. Of several processes each measures the same pairs; sharded weights were not tried.
"""

from typing import Any

from torch import Tensor

from clipmem.base.errors import require
from clipmem.integrations.monitor import Monitor, base_class
from clipmem.mitigate.reweight import Reweighting

__all__ = ["MemorizationCallback", "ReweightCallback"]

_Callback = base_class("lightning.pytorch:Callback", "pytorch_lightning:Callback")


class MemorizationCallback(_Callback):
    """Measure memorization after each epoch, and log it by the module's `log_dict`, so to the Trainer's loggers.

    The arguments are those of `clipmem.integrations.monitor.Monitor`. By default `embed` is `module(batch)`.
    """

    def __init__(self, held_out: Any = None, *, embed: Any = None, **settings: Any) -> None:
        super().__init__()
        self._embed, self.monitor = embed, Monitor(held_out, **settings)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def embed(module: Any, batch: Any) -> Any:
            with trainer.precision_plugin.forward_context():
                batch = trainer.strategy.batch_to_device(batch, module.device)
                return self._embed(module, batch) if self._embed else module(batch)

        train, held_out = trainer.train_dataloader, trainer.val_dataloaders
        held_out = held_out[0] if isinstance(held_out, list) else held_out
        self.monitor.begin(pl_module, embed, train, held_out, collate=getattr(train, "collate_fn", None))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.monitor.measure(trainer.current_epoch + 1, pl_module, pl_module.log_dict)
        trainer.should_stop = trainer.should_stop or self.monitor.stop


class ReweightCallback(_Callback):
    """Reweight by `clipmem.mitigate.Reweighting`, of which these are the arguments: return `loss` of a training step.

        def training_step(self, batch, _):
            index, pixels, tokens = batch  # the data set returns the index of each pair
            return self.reweight.loss(index, *self.embed(pixels, tokens), self.scale.exp())

    Pass it to the Trainer as well. Each process contrasts its rows, with the weights of all pairs.

    Raises:
        InputError: When training starts: an argument is not valid. In a step: the Trainer has not got it.
    """

    def __init__(self, images: Any, captions: Any, share: float, ids: Any = None) -> None:
        super().__init__()
        self._arguments, self._epoch = (images, captions, share, ids), 0
        self.reweighting: Any = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.reweighting = Reweighting(*self._arguments)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._epoch = int(trainer.current_epoch)

    def loss(self, index: Tensor, image: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
        """Return the loss of a batch from normalized embeddings (see `clipmem.mitigate.Reweighting`)."""
        hint = "Pass it to the Trainer, too: Trainer(callbacks=[reweight])."
        require(self.reweighting, "ReweightCallback", "a loss before training starts", "a Trainer with it", hint)
        return self.reweighting(index, image, text, scale, self._epoch)
