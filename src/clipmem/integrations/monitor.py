"""The monitor: does a training memorize its pairs? It measures a sample each epoch, for the callbacks of this package.

The sample is drawn and read once, and kept in memory as the model gets it (0.6 MB a pair at 224 px in float32), with
the transforms of its data set. Models are measured in evaluation mode.

When not to trust it: `retrieved_because_seen` is the share of training pairs that are retrieved only because they were
seen if both samples are of a random split. Recall depends on the size of the sample: compare it within a training.
Pairs with the same caption count as different, at the mean of their ranks. A resumed training starts a new history.
"""

import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clipmem.base.errors import require, require_one_of, require_range, shorten
from clipmem.base.random import generator
from clipmem.measure.over_seeds import hits_of
from clipmem.measure.retrieval import retrieve
from clipmem.stats.comparisons import paired_test, welch
from clipmem.stats.similarity import contrast
from clipmem.train.distributed import ALONE, joined

__all__ = ["Measurement", "Monitor", "verdict"]

Values = Float64[np.ndarray, "2 n"]  # margin, and the mean of recall@5 in both directions (0, 1/2 or 1), of each pair
_LOG = logging.getLogger("clipmem")
_K, _WIDTH = 5, 64  # recall@5; batch size where there is no loader
_MOST, _SHARE = 512, 20  # by default a pair in 20: two forward passes of it take 3% of an epoch
_ERROR = 0.05  # of all verdicts of a training


class Measurement(NamedTuple):
    """What is measured after an epoch; all but the epoch are logged as `clipmem/NAME`.

    Margins are those of `clipmem.stats.similarity.contrast`, and R is the mean of recall@5 in both directions
    (`clipmem.measure.retrieval`), both within the sample of n training pairs, or within that of n held-out pairs.

    Attributes:
        epoch: Number of finished epochs, 0 before training.
        margin_gap: Mean margin of training pairs minus that of held-out pairs, in [-4, 4].
        train_recall_at_5: R of the training pairs, in [0, 1].
        held_out_recall_at_5: R of the held-out pairs.
        retrieved_because_seen: R of training pairs minus R of held-out pairs, minus this difference before training.
        forgetting: R of the retained pairs before training minus that of now; by default of the held-out pairs.
        overfitting: 1 if training overfits (see `Monitor`), else 0.
    """

    epoch: int
    margin_gap: float
    train_recall_at_5: float
    held_out_recall_at_5: float
    retrieved_because_seen: float
    forgetting: float
    overfitting: float = 0.0


def overfits(best: Sequence[Values], now: Sequence[Values], confidence: float) -> bool:
    """Return whether held-out recall fell and the margin gap grew since the best epoch, both beyond chance.

    Both have the values of training pairs, then of held-out pairs. The lower limits of `paired_test` of recall and of
    `welch` of the changes of margins are above 0; without an interval, as all pairs change equally, the changes are.
    """
    grown = [after[0] - before[0] for before, after in zip(best, now, strict=True)]
    tests = paired_test(best[1][1], now[1][1], confidence), welch(grown[0], grown[1], confidence)
    return all((test.difference if test.low is None else test.low) > 0 for test in tests)


def verdict(history: Sequence[Measurement]) -> str:
    """Return one line on a training whose first measurement is from before it."""
    if len(history) < 2:
        return "no epoch measured yet"
    last, best = history[-1], max(history, key=lambda row: row.held_out_recall_at_5)  # the first of equal ones
    recall, peak, gap = (f"{x:.3f}" for x in (last.held_out_recall_at_5, best.held_out_recall_at_5, last.margin_gap))
    if last.overfitting:
        grew = f"the gap of margins grew from {best.margin_gap:.3f} to {gap}"
        return f"overfitting since epoch {best.epoch + 1}: held-out R@{_K} fell from {peak} to {recall} while {grew}"
    now = f"held-out R@{_K} {recall}, best {peak} after epoch {best.epoch}; gap of margins {gap}"
    return f"no overfitting detected by epoch {last.epoch}: {now}"


class Monitor:
    """Measure a training on a sample; the callbacks call it, and so can a training loop of your own.

    Training overfits if held-out recall@5 is below that of its best epoch and the margin gap above that of this epoch
    (`overfits`). The confidence in the k-th measured epoch is 1 - 0.1/(k²(k + 1)): one-sided errors of its k
    comparisons, of which the best epoch is one, add up to at most 0.05 over a training of any length. Then the verdict
    is logged as a warning, once. A failure is, too, and nothing is measured any more: it never ends the training.

    Args:
        held_out: Pairs that are not trained on, as a data set, a loader or an iterable of batches; by default the
            trainer's validation data, and of several the first. No pair needs an id.
        train: The training pairs; by default the trainer's. Pass a subset if the sampler never draws some of them.
        retained: Pairs that the model knew before training, for `forgetting`; by default those of `held_out`.
        embed: Returns image and text embeddings, each of shape (n, d), of (model, batch).
        pairs: Number of sampled pairs of each kind, at least 6; by default a twentieth of the training pairs, at most
            512. Set it if there are few. Of data without random access, the first pairs are taken.
        budget: Largest share of the time for measurements, in [0, 1]: an epoch is left out if its measurement would
            take more; 1 measures every epoch. Reading the sample and measuring before training are not counted.
        stop_when: "overfitting" stops the training then; None never does.
        seed: Seed of the sample.

    `history` has the measurements, the first from before training, `seconds` the time that all took, `failure` why
    nothing is measured any more, and `stop` whether the training should stop. Invalid settings raise `InputError`.

    Example:
        >>> batches = [(torch.eye(8), torch.eye(8))]  # images and captions, as the model gets them
        >>> monitor = Monitor(batches, train=batches, embed=lambda model, batch: map(model, batch), budget=1.0)
        >>> monitor.begin(model := nn.Linear(8, 4))
        >>> monitor.measure(1, model, lambda values: print(values["clipmem/margin_gap"]))
        0.0
    """

    def __init__(
        self, held_out: Any = None, *, train: Any = None, retained: Any = None, embed: Any = None,
        pairs: int | None = None, budget: float = 0.05, stop_when: str | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        require_range("pairs", _K + 1 if pairs is None else pairs, _K + 1, hint="Recall@5 among fewer is always 1.")
        require_range("budget", budget, 0, 1, "Use 0.05 for 5% of the time.")
        require_one_of("stop_when", stop_when or "overfitting", ("overfitting",), 'Use "overfitting", or None.')
        self.history, self.seconds, self.failure, self.stop = list[Measurement](), 0.0, "", False
        self._data, self._embed = (train, held_out, retained), embed
        self._pairs, self._budget, self._stops, self._seed = pairs, budget, stop_when is not None, seed
        self._world, self._over, self._samples = ALONE, False, list[list[Any]]()
        self._first = self._best = list[Values]()
        self._cost = self._end = 0.0  # of the last measurement: what it took, and when it ended

    @property
    def verdict(self) -> str:
        """One line on the training so far."""
        return f"not measured: {self.failure}" if self.failure else verdict(self.history)

    def begin(
        self, model: nn.Module, embed: Any = None, train: Any = None, held_out: Any = None,
        *, load: Callable[[Any], Any] = lambda data: data, collate: Any = None,
    ) -> None:  # fmt: skip
        """Read the sample, and measure before training.

        `embed`, `train` and `held_out` are defaults of the arguments of the class. `load` makes a loader of pairs, and
        `collate` a batch of items of pairs that are no loader.
        """
        start = time.perf_counter()
        self._world, self._embed = joined(), self._embed or embed
        held_out = next(iter(held_out.values()), None) if isinstance(held_out, Mapping) else held_out
        defaults = zip(self._data, (train, held_out, None), strict=True)
        data = [default if pairs is None else pairs for pairs, default in defaults]
        self._attempt(lambda: self._read(data, load, collate))
        self.seconds = time.perf_counter() - start
        self.measure(0, model)

    def measure(self, epoch: int, model: nn.Module, log: Callable[[dict[str, float]], object] | None = None) -> None:
        """Measure after `epoch` finished epochs, and log the values; all processes must call it."""
        start = time.perf_counter()
        if self._over or not self._world.all(self._cost <= self._budget * (start - self._end + self._cost)):
            return
        embedded = self._attempt(lambda: self._embedded(model))
        self._over = not self._world.all(embedded is not None)  # a failure in one process ends it in all
        if embedded is None or self._over:
            return
        self._attempt(lambda: self._add(epoch, embedded, log))
        self.stop = self._world.all(self._stops and bool(self.history and self.history[-1].overfitting))
        self._end = time.perf_counter()
        self._cost, self.seconds = self._end - start, self.seconds + self._end - start

    def _attempt(self, action: Callable[[], Any]) -> Any:
        """Return the result; after a failure, which is logged once, None."""
        if self.failure:
            return None
        try:
            return action()
        except Exception as error:  # noqa: BLE001  a measurement must not end a training, whatever happens in it
            self.failure = f"{type(error).__name__}: {error}"
            _LOG.warning("clipmem measures nothing more, and the training goes on: %s", self.failure)
            return None

    def _read(self, data: Sequence[Any], load: Callable[[Any], Any], collate: Any) -> None:
        hint = "Pass MemorizationCallback(held_out=...)."
        require(data[1] is not None, "held_out", "no validation data", "pairs that are not trained on", hint)
        sources, size = [load(pairs) for pairs in data if pairs is not None], _size(data[0])
        count = self._pairs or (_MOST if size is None else max(_K + 1, min(_MOST, size // _SHARE)))
        states = random.getstate(), np.random.get_state()  # transforms draw from these; training is to draw the same
        with torch.random.fork_rng(devices=[]):
            try:
                self._samples = [_batches(source, count, self._seed, collate) for source in sources]
            finally:
                random.setstate(states[0])
                np.random.set_state(states[1])

    @torch.no_grad()
    def _embedded(self, model: nn.Module) -> list[Tensor]:
        """Return the embeddings of each sample, images and texts in turn."""
        modes = [(part, part.training) for part in model.modules()]  # a frozen tower may be in evaluation mode
        model.eval()
        try:
            samples = [[tuple(self._embed(model, batch)) for batch in sample] for sample in self._samples]
        finally:
            for part, mode in modes:
                part.training = mode
        rows = [torch.cat(side).float() for parts in samples for side in zip(*parts, strict=True)]
        for image, text in zip(rows[::2], rows[1::2], strict=True):
            got, hint = f"shapes {tuple(image.shape)} and {tuple(text.shape)}", "Of several captions, embed one."
            require(image.ndim == 2 and image.shape == text.shape, "embed", got, "(n, d) of both", hint)
        count = min((len(part) for part in rows[:4]), default=0)
        require(count > _K, "sample", f"{count} pairs", f"{_K + 1} training and held-out pairs or more", "Add pairs.")
        return [part[:count].cpu() for part in rows]

    def _add(self, epoch: int, embedded: list[Tensor], log: Callable[[dict[str, float]], object] | None) -> None:
        samples = [_margin_and_recall(*pair) for pair in zip(embedded[::2], embedded[1::2], strict=True)]
        self._first = self._first or samples
        (gap, gain), before = (samples[0] - samples[1]).mean(1), (self._first[0] - self._first[1]).mean(1)[1]
        recalls, lost = [sample[1].mean() for sample in samples], (self._first[-1] - samples[-1])[1].mean()
        row = Measurement(epoch, *map(float, (gap, *recalls[:2], gain - before, lost)))
        if row.held_out_recall_at_5 > max((past.held_out_recall_at_5 for past in self.history), default=-1.0):
            self._best = samples
        else:
            k = len(self.history)
            over = overfits(self._best[:2], samples[:2], 1 - 2 * _ERROR / (k * k * (k + 1)))
            row = row._replace(overfitting=float(over))
        news = row.overfitting and not any(past.overfitting for past in self.history)
        self.history.append(row)
        if self._world.rank == 0:
            _LOG.log(logging.WARNING if news else logging.INFO, "clipmem: %s", self.verdict)
        if log is not None:
            log({f"clipmem/{name}": value for name, value in zip(row._fields[1:], row[1:], strict=True)})


def base_class(name: str, *modules: str) -> Any:
    """Return a class of the first of these modules that is installed; `object` without any, so that imports work."""
    for module in modules:
        with contextlib.suppress(ImportError):
            return getattr(import_module(module), name)
    return object


def _margin_and_recall(image: Float[Tensor, "n d"], text: Float[Tensor, "n d"]) -> Values:
    ranks = retrieve(image, text, torch.arange(len(image)), ks=(_K,))
    recall = (hits_of(ranks.image.rank, _K) + hits_of(ranks.text.rank, _K)) / 2
    return np.stack([contrast(image, text).margin.numpy(), recall])


def _size(source: Any) -> int | None:
    data = getattr(source, "dataset", source)  # random access only
    return len(data) if hasattr(data, "__getitem__") and hasattr(data, "__len__") else None


def _batches(source: Any, count: int, seed: int, collate: Any) -> list[Any]:
    """Return `count` pairs as batches: a random sample if the data have random access, else the first."""
    data, size, collate = getattr(source, "dataset", source), _size(source), getattr(source, "collate_fn", collate)
    again, hint = hasattr(data, "__getitem__"), "What is read of an iterator would be missing in training."
    again = again or (hasattr(data, "__iter__") and iter(data) is not data)
    require(again, "pairs", shorten(source), "a data set or a loader, which can be read again", hint)
    if collate is not None and (data is source or getattr(source, "batch_sampler", None) is not None):
        order = None if size is None else np.sort(generator(seed, "monitor").permutation(size)[:count]).tolist()
        source = DataLoader(data, _WIDTH, sampler=order, collate_fn=collate)
    batches, total, stream = list[Any](), 0, iter(source)
    while total < count and (batch := next(stream, None)) is not None:
        batches.append(batch)
        members = batch.values() if isinstance(batch, Mapping) else batch
        total += next(len(member) for member in members if isinstance(member, Tensor))
    return batches
