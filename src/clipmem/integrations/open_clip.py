"""Wrappers of `train_one_epoch` of open_clip's trainer, or of a copy of it: monitor memorization, reweight pairs.

    import open_clip_train.main as trainer
    trainer.train_one_epoch = MemorizationCallback()(trainer.train_one_epoch)
    trainer.main(["--train-data", "train.csv", "--val-data", "val.csv", ...])

Precision and accumulation are the trainer's. Of several processes each measures the same pairs.
"""

import functools
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor

from clipmem.base.errors import require
from clipmem.integrations.monitor import Monitor
from clipmem.mitigate.reweight import Reweighting

__all__ = ["MemorizationCallback", "ReweightCallback"]


def _embeddings(args: Any, model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Return the features of a batch in the trainer's precision."""
    device = torch.device(args.device)
    with import_module("open_clip_train.precision").get_autocast(args.precision, device_type=device.type)():
        output = model(batch[0].to(device, open_clip.get_input_dtype(args.precision)), batch[1].to(device))
    return output["image_features"], output["text_features"]


class MemorizationCallback:
    """Measure memorization after each epoch, and log it as the trainer does: its log, TensorBoard and W&B.

    Training cannot be ended from there: once `stop_when` has come true, the remaining epochs do nothing.

    Args:
        held_out: A loader of pairs that are not trained on; by default that of `--val-data`.
        results: Gets the values of each epoch, by the number of finished epochs.
        **settings: The other arguments of `clipmem.integrations.monitor.Monitor`.
    """

    def __init__(self, held_out: Any = None, *, results: dict[int, Any] | None = None, **settings: Any) -> None:
        self.monitor, self._results, self._begun = Monitor(held_out, **settings), results, False

    def __call__(self, train_one_epoch: Callable[..., Any]) -> Callable[..., Any]:
        """Return a `train_one_epoch` that measures at its end."""

        @functools.wraps(train_one_epoch)
        def wrapped(model: Any, data: Any, loss: Any, epoch: int, *others: Any, tb_writer: Any = None) -> None:
            args, plain, train = others[-1], getattr(model, "module", model), data["train"].dataloader

            def log(values: dict[str, float]) -> None:
                if self._results is not None:
                    self._results[epoch + 1] = values
                if args.rank == 0:
                    text = " ".join(f"{name}: {value:.4f}" for name, value in values.items())
                    logging.info(f"Train Epoch: {epoch} {text}")
                    for name, value in values.items() if tb_writer else ():
                        tb_writer.add_scalar(name, value, epoch + 1)
                    if args.wandb:
                        step = train.num_batches // args.accum_freq * (epoch + 1)
                        import_module("wandb").log(values, step=step)

            if not self._begun:
                self._begun, held_out = True, data["val"].dataloader if "val" in data else None
                self.monitor.begin(plain, functools.partial(_embeddings, args), train, held_out)
            if not self.monitor.stop:
                train_one_epoch(model, data, loss, epoch, *others, tb_writer=tb_writer)
                self.monitor.measure(epoch + 1, plain, log)

        return wrapped


class _Ordered:
    """A sampler that notes its order, whatever the number of the loader's workers."""

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.order = sampler, deque[int]()

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        for index in self.sampler:
            self.order.append(index)
            yield index


class ReweightCallback:
    """Replace the trainer's loss by `clipmem.mitigate.Reweighting`, with the same arguments.

    By default images and captions are those of the rows of `--train-data`, with `--dataset-type csv`. With a share of
    0, the loss stays, and `loss.recorder` records.

    `loss` is the `Reweighting`, None before training. The first epoch raises `InputError` if the data have no order of
    pairs, if the model has SigLIP's loss, which has no weights, or if there are several processes, over whose batches
    open_clip's loss is.
    """

    def __init__(self, share: float, images: Any = None, captions: Any = None, ids: Any = None) -> None:
        self.loss: Any = None
        self._share, self._images, self._captions, self._ids = share, images, captions, ids

    def __call__(self, train_one_epoch: Callable[..., Any]) -> Callable[..., Any]:
        """Return a `train_one_epoch` that reweights."""

        @functools.wraps(train_one_epoch)
        def wrapped(model: Any, data: Any, loss: Any, epoch: int, *others: Any, tb_writer: Any = None) -> None:
            args, loader = others[-1], data["train"].dataloader
            batches: Any = getattr(loader, "batch_sampler", None)
            subject, got = "ReweightCallback", f"a {type(loader).__name__} without pair ids"
            require(hasattr(batches, "sampler"), subject, got, "rows of a table", "Use --dataset-type csv.")
            hint = "Train in one process, or curate the data before: clipmem curate."
            require(args.world_size == 1, subject, f"{args.world_size} processes", "one process", hint)
            if self.loss is None:
                images, captions, rows = self._images, self._captions, loader.dataset
                images = map(Image.open, map(str, rows.images)) if images is None else images
                captions = list(map(str, rows.captions)) if captions is None else captions
                self.loss = Reweighting(images, captions, self._share, self._ids)
            ordered, calls = _Ordered(batches.sampler), itertools.count(1)

            def reweighted(image_features: Tensor, text_features: Tensor, logit_scale: Tensor, **named: Any) -> Any:
                hint = "Train a model with CLIP's loss."
                require("logit_bias" not in named, subject, "a model with logit_bias", "CLIP's loss", hint)
                index = torch.tensor(list(itertools.islice(ordered.order, len(image_features))))
                if next(calls) % args.accum_freq == 0:  # with accumulation it is called several times with the same
                    for _ in index:
                        ordered.order.popleft()
                value = self.loss(index, image_features, text_features, logit_scale, epoch)
                if self._share == 0:
                    return loss(image_features, text_features, logit_scale, **named)
                return {"contrastive_loss": value} if named.get("output_dict") else value

            batches.sampler = ordered
            try:
                train_one_epoch(model, data, reweighted, epoch, *others, tb_writer=tb_writer)
            finally:
                batches.sampler = ordered.sampler

        return wrapped
