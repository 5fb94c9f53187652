"""Mitigations by captions: several of a pair, variants that are made of them, and masked tokens.

Several captions: each time a pair is seen, the model gets one of them, drawn uniformly. With K captions, pair i shows
caption floor(K u(seed, e, i)) in epoch e, u uniform in [0, 1). The number of samples seen is that of one caption (Wang
et al. 2025, section 5). `train.captions` and `mitigate.captions.count` both use this rule.

Variants: after a caption of the pair is drawn as usual, one of its m variants replaces it with probability p, each with
p / m; a caption without variants is kept. Variants are made once, before training, and written to
`mitigate/caption_variants.parquet`, so f, g and all seeds share them.

Masking: a token t (except the start and end tokens) is kept if u(seed, step, pair, position of t) >= p; if none is
kept, the one with the largest u is. The kept tokens move up, because CLIP's vocabulary has no mask token. A caption of
L tokens keeps L (1 - p) on average, slightly more if it is short.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int
from torch.utils.data import Dataset

from clipmem.base.errors import require
from clipmem.base.mitigations import CaptionVariantsSection
from clipmem.base.random import derive_seed, generator, uniform
from clipmem.base.recipes import Recipe
from clipmem.data.views import Keys
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Preparation, Training
from clipmem.models.hub import library
from clipmem.models.protocol import Tokens
from clipmem.train.batches import draw_captions
from clipmem.train.hooks import Moment

T = TypeVar("T")
Rewrite = Callable[[str, int, int], str]  # makes a variant of a caption by its number and a seed


def sample_captions(captions: Sequence[Sequence[T]], keys: Keys, *, epoch: int, seed: int = 0) -> list[T]:
    """Choose one caption of each pair for an epoch.

    Args:
        captions: The captions of each pair, at least one.
        keys: A 64-bit number per pair that determines its draws, shape (n,).
        epoch: The epoch.
        seed: Seed of the draws.

    Raises:
        InputError: A pair has no caption.

    Example:
        >>> sample_captions([["a cat"], ["a dog", "the dog"]], np.array([5, 6], dtype=np.uint64), epoch=3)[0]
        'a cat'
    """
    counts = np.array([len(texts) for texts in captions], dtype=np.int64)
    if len(counts):
        bare = f"captions of pair {int(counts.argmin())}"
        require(counts.all(), bare, "none", "one or more", "Leave the pair out.")
    return [texts[k] for texts, k in zip(captions, draw_captions(keys, counts, seed=seed, epoch=epoch), strict=True)]


@runtime_checkable
class _Pairs(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class CaptionSampling(Dataset[tuple[Any, T]]):
    """A map-style dataset of (image, one of its captions), for `torch.utils.data.DataLoader`.

    Call `set_epoch` before each epoch, as with torch's `DistributedSampler`. With persistent workers, which have copies
    of the dataset, create a new loader instead.

    Args:
        pairs: A dataset of (image, captions), captions being a sequence of texts or of token tensors.
        seed: Seed of the draws.
        keys: A 64-bit number per item; by default its index.

    Example:
        >>> data = CaptionSampling([("image 0", ["a cat", "the cat"])], seed=1)
        >>> data.set_epoch(2)
        >>> data[0] in {("image 0", "a cat"), ("image 0", "the cat")}
        True
    """

    def __init__(self, pairs: _Pairs, *, seed: int = 0, keys: Keys | None = None) -> None:
        self._pairs, self._seed, self._epoch = pairs, seed, 0
        self._keys = np.arange(len(pairs), dtype=np.uint64) if keys is None else keys

    def set_epoch(self, epoch: int) -> None:
        """Draw the captions of this epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Any, T]:
        image, captions = self._pairs[index]
        [caption] = sample_captions([captions], self._keys[index : index + 1], epoch=self._epoch, seed=self._seed)
        return image, caption


@MITIGATIONS.register("captions")
class Captions(Mitigation):
    """`[mitigate.captions]`: increases the number of captions from which the training loop draws."""

    summary = "Draw from several captions of a pair in training."

    @classmethod
    def captions_of_pair(cls, recipe: Recipe) -> int:
        return cls.section_of(recipe).count

    @classmethod
    def check(cls, recipe: Recipe, pairs: pl.DataFrame) -> None:
        count = cls.section_of(recipe).count
        several = count < 2 or (pairs["captions"].list.len() > 1).any()
        got, expected = f"{count} with {pairs.height:,} pairs of one caption each", "pairs with several captions"
        hint = "Use data with several captions per image, or [mitigate.caption_variants], which generates them."
        require(several, "[mitigate.captions] count", got, expected, hint)


TABLE = "mitigate/caption_variants"


def variants_of(captions: Sequence[str], section: CaptionVariantsSection) -> dict[str, list[tuple[str, str]]]:
    """Return the (kind, variant) list of each caption."""
    kinds = {name: rewrite(name, section) for name in section.kinds}
    return {
        caption: make_variants(caption, kinds, count=section.count, seed=section.seed)
        for caption in dict.fromkeys(captions)
    }


def choose_variant(
    u: Float64[np.ndarray, " n"], counts: Int[np.ndarray, " n"], probability: float
) -> Int[np.ndarray, " n"]:
    """Choose between a caption and its m variants: itself if u >= p or m = 0, else variant floor(m u / p)."""
    number = np.minimum(np.floor(counts * u / probability).astype(np.int64), counts - 1)
    return np.where(u < probability, number, -1)


@MITIGATIONS.register("caption_variants")
class CaptionVariants(Mitigation):
    """`[mitigate.caption_variants]`."""

    summary = "Show variants of a caption in some samples."

    def __init__(self, section: CaptionVariantsSection, seed: int, variants: dict[tuple[str, str], list[str]]) -> None:
        super().__init__(section, seed)
        self._variants = variants

    @classmethod
    def prepare(cls, preparation: Preparation) -> list[Path]:
        external = set(preparation.splits.filter(pl.col("role") == "external")["uid"])
        captions = {uid: dict.fromkeys(texts) for uid, texts in preparation.captions().items() if uid not in external}
        section = cls.section_of(preparation.recipe)
        variants = variants_of([text for texts in captions.values() for text in texts], section)
        rows = [(uid, text, *row) for uid, texts in captions.items() for text in texts for row in variants[text]]
        table = pl.DataFrame(rows, schema=["uid", "caption", "kind", "variant"], orient="row")
        return [preparation.folder.write(TABLE, table)]

    @classmethod
    def hook(cls, training: Training) -> "CaptionVariants":
        variants: dict[tuple[str, str], list[str]] = {}
        for uid, caption, _, text in training.folder.read(TABLE).iter_rows():
            variants.setdefault((uid, caption), []).append(text)
        return cls(cls.section_of(training.recipe), training.plan.seed, variants)

    def captions(self, captions: Sequence[Sequence[str]], uids: Sequence[str], first: Sequence[int]) -> list[list[str]]:
        variants = [
            [self._variants.get((uid, text), []) for text in texts] for uid, texts in zip(uids, captions, strict=True)
        ]
        counts = [[len(texts) for texts in pair] for pair in variants]
        # index of a caption's first variant among the pair's texts, for the captions of all pairs
        self._starts = np.concatenate(
            [start + np.cumsum([0, *pair[:-1]]) for start, pair in zip(first, counts, strict=True)]
        ).astype(np.int64)
        self._counts = np.array([count for pair in counts for count in pair], dtype=np.int64)
        self._row = np.cumsum([0, *(len(pair) for pair in counts[:-1])])
        return [[text for texts in pair for text in texts] for pair in variants]

    def choose(self, choice: Int[np.ndarray, " n"], moment: Moment) -> Int[np.ndarray, " n"]:
        row = self._row[moment.slots] + choice
        u = uniform(moment.keys, derive_seed(self.seed, "caption variant", moment.epoch), 1)[:, 0]
        number = choose_variant(u, self._counts[row], self.section.probability)
        return np.where(number < 0, choice, self._starts[row] + number)


def drop_tokens(tokens: Tokens, keys: Keys, *, probability: float, seed: int, step: int) -> Tokens:
    """Drop random tokens.

    Args:
        tokens: Token ids: a start token, the caption, an end token, then padding with 0; shape (n, length).
        keys: A 64-bit number per row that determines its draws, shape (n,).
        probability: p, from 0 to below 1.
        seed: Seed of the draws.
        step: Number of the sample.

    Returns:
        Token ids padded with 0, shape (n, length).

    Raises:
        InputError: The probability is not in [0, 1).

    Example:
        >>> tokens = torch.tensor([[90, 5, 6, 7, 91, 0]])
        >>> short = drop_tokens(tokens, np.array([3], dtype=np.uint64), probability=0.5, seed=0, step=0)
        >>> short[0, 0].item(), 91 in short, short.shape
        (90, True, torch.Size([1, 6]))
    """
    require(0 <= probability < 1, "probability", f"{probability}", "0 to below 1", "Set probability below 1.")
    if probability == 0 or tokens.numel() == 0:
        return tokens
    values = tokens.cpu().numpy()
    length = values.shape[1]
    position = np.arange(length)
    # the last nonzero token, because 0 can also be the id of a word
    end = length - 1 - (values[:, ::-1] != 0).argmax(axis=1)
    draws = uniform(keys, derive_seed(seed, "text mask", step), length)
    word = (position > 0) & (position < end[:, None])
    stays = ~word | (draws >= probability)
    none_left = ~(word & stays).any(axis=1) & word.any(axis=1)
    best = np.where(word, draws, -1.0).argmax(axis=1)
    stays[none_left, best[none_left]] = True
    stays &= position <= end[:, None]
    order = np.argsort(~stays, axis=1, kind="stable")
    moved = np.where(position < stays.sum(axis=1)[:, None], np.take_along_axis(values, order, axis=1), 0)
    return torch.from_numpy(moved).to(tokens.device)


@MITIGATIONS.register("text_masking")
class TextMasking(Mitigation):
    """`[mitigate.text_masking]`."""

    summary = "Drop random tokens of captions each time."

    def tokens(self, tokens: Tokens, moment: Moment) -> Tokens:
        # an odd caption may end like this, most do not
        padded = 2 * ((tokens[:, -1] != 0) & (tokens[:, -1] == tokens[:, -2])).sum() > len(tokens)
        plain = bool((tokens >= 0).all() and (tokens[:, 0] == tokens[0, 0]).all()) and not padded
        got, expected = "a model with other tokens", "start token, words, end token, then padding with 0, as in CLIP"
        require(plain, "[mitigate.text_masking]", got, expected, "Use text_noise or other_captions with this model.")
        return drop_tokens(tokens, moment.keys, probability=self.section.probability, seed=self.seed, step=moment.step)


_SEPARATORS = (",", ";", "|")


def rewrite(kind: str, section: CaptionVariantsSection) -> Rewrite:
    """Return what makes variant `number` of a caption with a seed; "" or the caption itself if there is none."""
    plain = {"dropout": _dropout, "reorder": _reorder, "templates": _templates}
    return partial(plain[kind], section) if kind in plain else _Synonyms().variant


def _dropout(section: CaptionVariantsSection, caption: str, number: int, seed: int) -> str:
    """Drop each word with probability `dropout`, at least one but not all."""
    words, stream = caption.split(), generator(seed, "dropout", number, caption)
    if len(words) < 2:
        return ""
    goes = stream.random(len(words)) < section.dropout
    if not goes.any():
        goes[stream.integers(len(words))] = True
    if goes.all():
        goes[stream.integers(len(words))] = False
    return " ".join(word for word, gone in zip(words, goes, strict=True) if not gone)


def _reorder(section: CaptionVariantsSection, caption: str, number: int, seed: int) -> str:  # noqa: ARG001
    """Shuffle the tags of a caption, separated by commas, semicolons or bars; sentences have no variant."""
    mark = next((mark for mark in _SEPARATORS if mark in caption), "")
    tags = [tag.strip() for tag in caption.split(mark)] if mark else []
    tags = [tag for tag in tags if tag]
    if len(tags) < 2:
        return ""
    order = generator(seed, "reorder", number, caption).permutation(len(tags))
    glue = f" {mark} " if mark == "|" else f"{mark} "
    return glue.join(tags[k] for k in order)


def _templates(section: CaptionVariantsSection, caption: str, number: int, seed: int) -> str:
    """Insert the caption into a template, using each template once in random order."""
    templates = section.templates
    order = generator(seed, "templates", caption).permutation(len(templates))
    return templates[order[number % len(templates)]].replace("{}", caption)


class _Synonyms:
    """Replace a word by another from one of its WordNet synsets, all replacements being equally likely.

    Only single words in their base form are replaced, in any sense of the word.
    """

    def __init__(self) -> None:
        subject = "[mitigate.caption_variants] kinds: synonyms"
        wn = library("wn", subject, extra="wordnet")  # slow to import
        lexicons = list(wn.lexicons(lang="en"))
        got = f"no English lexicon in {wn.config.data_directory}"
        hint = "Download it once: python -m wn download oewn:2024"
        require(lexicons, subject, got, "one, such as the Open English WordNet", hint)
        self._lexicon = wn.Wordnet(lexicon=lexicons[0].specifier(), expand="")
        self._known: dict[str, list[str]] = {}

    def variant(self, caption: str, number: int, seed: int) -> str:
        words = caption.split()
        choices = [(k, other) for k, word in enumerate(words) for other in self._others(word)]
        if not choices:
            return ""
        index, other = choices[generator(seed, "synonyms", number, caption).integers(len(choices))]
        return " ".join([*words[:index], other, *words[index + 1 :]])

    def _others(self, word: str) -> list[str]:
        """Return the sorted synonyms of a word; words with punctuation have none."""
        key = word.lower()
        if key not in self._known:
            lemmas = {lemma.lower() for synset in self._lexicon.synsets(key) for lemma in synset.lemmas()}
            self._known[key] = sorted(lemma for lemma in lemmas if lemma != key and lemma.isalpha())
        return self._known[key]


def make_variants(caption: str, kinds: Mapping[str, Rewrite], *, count: int, seed: int) -> list[tuple[str, str]]:
    """Return up to `count` distinct variants of a caption, alternating between the kinds."""
    seen, variants = {_folded(caption)}, list[tuple[str, str]]()
    tried, turns = dict.fromkeys(kinds, 0), list(kinds)
    while turns and len(variants) < count:
        name = turns.pop(0)
        for _ in range(8):
            text = kinds[name](caption, tried[name], seed)
            tried[name] += 1
            if text and _folded(text) not in seen:
                seen.add(_folded(text))
                variants.append((name, text))
                turns.append(name)
                break
    return variants


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
