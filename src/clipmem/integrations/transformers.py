"""Callbacks for transformers' `Trainer`: monitor memorization, and reweight suspect pairs.

    trainer.add_callback(MemorizationCallback(trainer, held_out))
    trainer.add_callback(ReweightCallback(images, captions, share=0.4))

The model is a `CLIPModel`, or another whose output has `image_embeds` and `text_embeds`. Mixed precision and gradient
accumulation are the Trainer's. Of several processes each measures the same pairs; sharded weights were not tried.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from clipmem.base.errors import require
from clipmem.integrations.monitor import Monitor, base_class
from clipmem.mitigate.reweight import Reweighting

__all__ = ["MemorizationCallback", "ReweightCallback"]

_Callback = base_class("TrainerCallback", "transformers")


def _embeddings(prepare: Callable[[Any], Any], model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Return the embeddings of a batch, without what the model does not take, such as ids, and without a loss."""
    names = inspect.signature(getattr(model, "get_base_model", lambda: model)().forward).parameters.keys()
    output = model(**prepare({key: batch[key] for key in batch if key in names - {"labels", "return_loss"}}))
    return output.image_embeds, output.text_embeds


class MemorizationCallback(_Callback):
    """Measure memorization after each epoch, and log it by `Trainer.log`, so wherever `report_to` says.

    The arguments are the Trainer and those of `clipmem.integrations.monitor.Monitor`; pairs are as in its data sets.
    """

    def __init__(self, trainer: Any, held_out: Any = None, **settings: Any) -> None:
        super().__init__()
        self._trainer, self.monitor = trainer, Monitor(held_out, **settings)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        trainer = self._trainer  # its loaders have its collator, and drop the columns that it drops
        embed = partial(_embeddings, trainer._prepare_inputs)
        data = trainer.train_dataset, trainer.eval_dataset
        self.monitor.begin(model, embed, *data, load=trainer.get_eval_dataloader)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        epoch = math.ceil(state.epoch - 1e-3)  # it is rounded
        self.monitor.measure(epoch, model, self._trainer.log)
        control.should_training_stop = control.should_training_stop or self.monitor.stop


class ReweightCallback(_Callback):
    """Replace the loss of a CLIP model in training by `clipmem.mitigate.Reweighting`, with the same arguments.

    The data set returns the index of each pair as `key`, which the model does not get, and the Trainer's arguments have
    `remove_unused_columns=False`. With a share of 0, the loss stays, and `loss.recorder` records.

    Attributes:
        loss: The `Reweighting`, with the current weights.

    Raises:
        InputError: An argument is not valid, or in the first step: a batch has no index, a process has several GPUs, or
            the model has SigLIP's loss, which has no weights.
    """

    def __init__(self, images: Any, captions: Any, share: float, ids: Any = None, key: str = "index") -> None:
        super().__init__()
        self.loss, self._key = Reweighting(images, captions, share, ids), key
        self._epoch, self._hooks = -1, list[Any]()
        self._index: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        subject, hint = "ReweightCallback", "Start a process for each GPU: torchrun --nproc-per-node=N."
        require(args.n_gpu < 2, subject, f"{args.n_gpu} GPUs of one process", "one GPU a process", hint)
        siglip = hasattr(model, "logit_bias")
        require(not siglip, subject, "a model with logit_bias (SigLIP)", "CLIP's loss", "Train a CLIPModel.")
        before = model.register_forward_pre_hook(self._before, with_kwargs=True)
        self._hooks = [before, model.register_forward_hook(self._after)]

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._epoch = max(self._epoch + 1, int(state.epoch + 1e-3))  # without a length of the data, it counts slowly

    def on_train_end(self, *_: Any, **__: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, model: Any, arguments: Any, named: Any) -> tuple[Any, Any]:
        self._index = named.pop(self._key, None)
        return arguments, named

    def _after(self, model: Any, arguments: Any, output: Any) -> Any:
        if model.training:
            hint = f"Return it from the data set as {self._key!r}, and set remove_unused_columns=False."
            embedded, scale = (output.image_embeds, output.text_embeds), model.logit_scale.exp()
            loss = self.loss.of_batch(self._index, embedded, scale, self._epoch, hint)
            output["loss"] = loss if self.loss.share else output["loss"]
        return output
