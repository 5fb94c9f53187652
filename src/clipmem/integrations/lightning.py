"""Callbacks for Lightning: monitor memorization, and reweight suspect pairs.

    embed = lambda module, batch: module.embed(batch)
    Trainer(callbacks=[MemorizationCallback(embed=embed), ReweightCallback(images, captions, share=0.4, embed=embed)])

Precision is the Trainer's. Of several processes each measures the same pairs; sharded weights were not tried.
"""

from collections.abc import Mapping
from typing import Any

from clipmem.base.errors import require
from clipmem.integrations.monitor import Monitor, base_class
from clipmem.mitigate.reweight import Reweighting

__all__ = ["MemorizationCallback", "ReweightCallback"]

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


class ReweightCallback(_Callback):
    """Replace `training_step` by `clipmem.mitigate.Reweighting`, with the same first arguments.

    The loss is logged as `clipmem/loss`; what `training_step` logs is not. With a share of 0 it is called as ever, and
    `loss.recorder` records. `loss` is the `Reweighting`, with the current weights.

    Args:
        images: As of `Reweighting`, and so are `captions`, `share` and `ids`.
        embed: Returns image and text embeddings, each of shape (n, d), of (module, batch); by default `module(batch)`.
        scale: Returns the factor of similarities of the module; by default `module.logit_scale.exp()`.
        key: Where a batch has the index of each pair in the data set: a name, or 0 for the first of a tuple.

    Raises:
        InputError: An argument is not valid, the module optimizes by itself or has SigLIP's loss, which has no weights,
            or in the first step: a batch has no index.
    """

    def __init__(
        self, images: Any, captions: Any, share: float, ids: Any = None,
        *, embed: Any = None, scale: Any = None, key: Any = "index",
    ) -> None:  # fmt: skip
        super().__init__()
        self.loss, self._key = Reweighting(images, captions, share, ids), key
        self._embed, self._scale = embed, scale

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        subject, hint = "ReweightCallback", "Call clipmem.mitigate.Reweighting in its training_step."
        got, automatic = "a module with automatic_optimization=False", pl_module.automatic_optimization
        require(automatic, subject, got, "automatic optimization", hint)
        siglip = hasattr(pl_module, "logit_bias")
        require(not siglip, subject, "a module with logit_bias (SigLIP)", "CLIP's loss", "Train it with CLIP's loss.")
        self.on_train_end(trainer, pl_module)  # of an interrupted training
        training_step = pl_module.training_step

        def step(batch: Any, *arguments: Any, **options: Any) -> Any:
            if pl_module.trainer is not trainer:  # this training was interrupted
                return training_step(batch, *arguments, **options)
            has_index = self._key in batch if isinstance(batch, Mapping) else isinstance(self._key, int)
            hint = "Return it from the data set, and name its key, or its place in a tuple: ReweightCallback(key=0)."
            embedded = self._embed(pl_module, batch) if self._embed else pl_module(batch)
            scale = self._scale(pl_module) if self._scale else pl_module.logit_scale.exp()
            index = batch[self._key] if has_index else None
            loss = self.loss.of_batch(index, embedded, scale, trainer.current_epoch, hint)
            pl_module.log("clipmem/loss", loss, prog_bar=True)
            return loss if self.loss.share else training_step(batch, *arguments, **options)

        pl_module.training_step = step

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        vars(pl_module).pop("training_step", None)  # that of its class is there again
