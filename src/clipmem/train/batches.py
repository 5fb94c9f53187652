"""What a training shows the model: texts as tokens, seeded views and captions of every batch, made ahead in a thread.

Frozen towers embed once before training instead of in every step. The image tower then embeds the unchanged image: a
random crop would need a new pass in every epoch. The text tower embeds every caption that training draws from. Both are
in evaluation mode, in the precision of the training.
"""

import sys
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from clipmem.base import slices
from clipmem.base.random import derive_seed, uniform
from clipmem.base.sections import TrainSection
from clipmem.data.views import Crops, Keys, as_float, distort, draw_crops, normalize_pixels, pair_keys, render, send
from clipmem.models.protocol import TrainableEncoder
from clipmem.train.hooks import Kind, Moment
from clipmem.train.objectives import Towers
from clipmem.train.objectives.base import Images, Texts
from clipmem.train.paired import TrainingSet

Pixels = UInt8[np.ndarray, "rows size size 3"]  # decoded images
T = TypeVar("T")
_END = object()
_ALL_STEPS = range(sys.maxsize)
_BATCH = 128  # of frozen towers


@dataclass(frozen=True)
class TrainingData:
    """Images and captions of a training set, by slot.

    Attributes:
        pixels: Decoded images, memory-mapped, shape (rows, size, size, 3).
        rows: Row of `pixels` of each slot, shape (n,).
        captions: Training captions of each slot.
        labels: Class index of each slot, from 0, shape (n,); only for some objectives.
        classes: Number of classes, the same for f and g; 0 = the largest label + 1.
    """

    pixels: Pixels
    rows: Int[np.ndarray, " n"]
    captions: Sequence[Sequence[str]]
    labels: Int[np.ndarray, " n"] | None = None
    classes: int = 0


class TextTokens(NamedTuple):
    """All texts of a training set as tokens; the captions of slot k are the counts[k] rows from offsets[k]."""

    tokens: Int[Tensor, "m length"]
    offsets: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " n"]


class Batch(NamedTuple):
    """This process's part of a step: views of each image, one caption each, and class labels if any."""

    moment: Moment
    pairs: int  # of all processes
    views: list[Images]
    tokens: Texts
    labels: Int[Tensor, " n"] | None


def tokenize(
    encoder: TrainableEncoder, captions: Sequence[Sequence[str]], texts: Sequence[Sequence[str]] | None = None
) -> TextTokens:
    """Tokenize the `texts` of each pair, which start with its captions (default: the captions)."""
    texts = captions if texts is None else texts
    counts, every = (np.array([len(pair) for pair in kind], dtype=np.int64) for kind in (captions, texts))
    offsets = np.concatenate([[0], np.cumsum(every)[:-1]]).astype(np.int64)
    return TextTokens(encoder.tokenize([text for pair in texts for text in pair]), offsets, counts)


@dataclass(frozen=True)
class Batches:
    """The batches of a training, in order; `fixed` are the embeddings of frozen towers, by tower."""

    towers: Towers
    views: int
    data: TrainingData
    texts: TextTokens
    plan: TrainingSet
    settings: TrainSection
    fixed: Mapping[Kind, Tensor] = field(default_factory=dict[Kind, Tensor])

    def of_steps(self, steps: range = _ALL_STEPS) -> Iterator[Batch]:
        """Make the batches of some steps."""
        towers, texts, plan, size = self.towers, self.texts, self.plan, self.settings.batch_size
        hooks, keys, labels = towers.hooks, pair_keys(plan.uids), self.data.labels
        classes = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        per_epoch = plan.batch_count(size)
        for epoch in range(steps.start // per_epoch, min(self.settings.epochs, -(-steps.stop // per_epoch))):
            crops = epoch_crops(keys, plan.seed, epoch, self.settings, self.data.pixels.shape[1], self.views)
            captions = draw_captions(keys, texts.counts, seed=plan.seed, epoch=epoch)
            arranged = hooks.batches(plan.batches(size, epoch), epoch)
            for step, whole in enumerate(arranged, start=epoch * per_epoch):
                if step not in steps:
                    continue
                slots = towers.world.share(whole)
                moment = Moment(plan.seed, epoch, step, slots, keys[slots])
                choice = hooks.through(lambda hook, choice: hook.choose(choice, moment), captions[slots])  # noqa: B023
                rows = texts.offsets[slots] + choice
                if "text" in self.fixed:
                    tokens = self.fixed["text"][rows]
                else:
                    tokens = hooks.through(lambda hook, tokens: hook.tokens(tokens, moment), texts.tokens[rows])  # noqa: B023
                    tokens = towers.encoder.trim(tokens)
                if "image" in self.fixed:
                    images = [send(self.fixed["image"][slots], towers.device)]
                else:
                    images = [self._view(crops[view], view, moment) for view in range(self.views)]
                labeled = None if classes is None else send(classes[slots], towers.device)
                yield Batch(moment, len(whole), images, send(tokens, towers.device), labeled)

    def _view(self, of_epoch: Crops, view: int, moment: Moment) -> Float[Tensor, "n 3 size size"]:
        encoder, hooks, settings = self.towers.encoder, self.towers.hooks, self.settings
        pixels = send(torch.from_numpy(self.data.pixels[self.data.rows[moment.slots]]), self.towers.device)
        crops = Crops(*(values[moment.slots] for values in of_epoch))
        values = render(pixels, crops, size=encoder.image_size)
        values = hooks.through(lambda hook, images: hook.images(images, pixels, crops, moment, view), values)
        how = {"strength": settings.color, "gray": settings.grayscale, "blur": settings.blur}
        seed = derive_seed(moment.seed, "colour", moment.epoch, view)
        values = distort(values, moment.keys, seed=seed, **how)
        return normalize_pixels(values, encoder.mean, encoder.std, in_place=True)


def epoch_crops(keys: Keys, seed: int, epoch: int, settings: TrainSection, size: int, views: int = 1) -> list[Crops]:
    """Draw every slot's crops for an epoch by (seed, epoch, pair, view); `size` is that of the images."""
    scale, ratio, flip = settings.crop_scale, settings.crop_ratio, settings.flip
    # the first view is the same for every objective
    seeds = [derive_seed(seed, "view", epoch, *([view] if view else [])) for view in range(views)]
    return [draw_crops(keys, seed=of_view, size=size, scale=scale, ratio=ratio, flip=flip) for of_view in seeds]


def draw_captions(keys: Keys, counts: Int[np.ndarray, " n"], *, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """Draw one of the `counts` captions of each pair for an epoch, uniformly, by (seed, epoch, pair)."""
    return np.floor(uniform(keys, derive_seed(seed, "caption", epoch), 1)[:, 0] * counts).astype(np.int64)


def embed_frozen(
    towers: Towers, pixels: Pixels, rows: Int[np.ndarray, " n"], tokens: Int[Tensor, "m length"]
) -> dict[Kind, Float[Tensor, "k d"]]:
    """Return the embeddings of the frozen towers: those of the images at `rows`, and of all texts; not normalized."""
    encoder, device = towers.encoder, towers.device
    live = Towers(encoder, towers.precision, device)

    def image(part: slice) -> Tensor:
        values = as_float(send(torch.from_numpy(pixels[rows[part]]), device))
        return live.encode_image(normalize_pixels(values, encoder.mean, encoder.std, in_place=True))

    def text(part: slice) -> Tensor:
        return live.encode_text(send(encoder.trim(tokens[part]), device))

    modes, embeddings = [(module, module.training) for module in encoder.module.modules()], dict[Kind, Tensor]()
    encoder.module.eval()
    with torch.no_grad():
        if "image" in towers.frozen:
            embeddings["image"] = torch.cat([image(part).cpu() for part in slices(len(rows), _BATCH)])
        if "text" in towers.frozen:
            embeddings["text"] = torch.cat([text(part).cpu() for part in slices(len(tokens), _BATCH)])
    for module, training in modes:
        module.training = training
    return embeddings


def made_ahead(items: Iterator[T], *, depth: int) -> Generator[T]:
    """Yield the items of an iterator; a thread makes up to `depth` of them in advance."""
    if not depth:
        yield from items
        return
    # whether this thread flushes denormal numbers to 0, which torch can set but not report
    flush = not bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0).gt(0))
    settings = (flush, torch.cuda.current_device() if torch.cuda.is_initialized() else None)
    maker = ThreadPoolExecutor(1, "clipmem batches", initializer=_compute_alike, initargs=settings)
    try:
        futures = deque(maker.submit(next, items, _END) for _ in range(depth + 1))
        while (item := futures.popleft().result()) is not _END:
            futures.append(maker.submit(next, items, _END))
            yield item  # pyright: ignore[reportReturnType]
            del item  # do not hold a further batch while the thread makes the next
    finally:
        maker.shutdown(cancel_futures=True)


def _compute_alike(flush: bool, device: int | None) -> None:
    # both settings are per thread
    torch.set_flush_denormal(flush)
    if device is not None:
        torch.cuda.set_device(device)
