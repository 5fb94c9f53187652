"""A callback for Lightning that monitors memorization, and how to reweight suspect pairs.

    trainer = Trainer(callbacks=[MemorizationCallback(embed=lambda module, batch: module.embed(batch))])

To reweight, make `loss_of = clipmem.mitigate.Reweighting(images, captions, share)` once, have the
data set return indices, and return `loss_of(index, image, text, scale, self.current_epoch)` from `training_step`.
Precision is the Trainer's. Of several processes each measures the same pairs; sharded weights were not tried.
"""

from typing import Any

from clipmem.integrations.monitor import Monitor, base_class

__all__ = ["MemorizationCallback"]

_Callback = base_class("Callback", "lightning.pytorch", "pytorch_lightning")


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
