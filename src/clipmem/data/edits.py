"""Random caption edits: text views for pairs with one caption.

An edit drops words or swaps two neighboring words; in one-word captions, letters. It is a small perturbation, as a crop
is for an image, not a paraphrase, and can change the meaning. Other captions of a pair are better views.
"""

from collections.abc import Sequence

import numpy as np

from clipmem.base.random import derive_seed, uniform
from clipmem.data.views import pair_keys

_TRIES = 16
_DRAWS = 3  # kind of edit, place, and the word to keep if all would be dropped


def caption_edits(caption: str, uid: str, *, count: int, dropout: float = 0.2, seed: int = 0) -> list[str]:
    """Return up to `count` different edits of a caption; fewer if it is too short."""
    words = caption.split()
    seen, edits = {_folded(words)}, list[str]()
    key = pair_keys([uid])
    for view in range(count):
        for attempt in range(2 * _TRIES):
            stream = derive_seed(seed, "caption edit", view, attempt)
            # after half of the tries, edit letters: there may be no new edit of words
            letters = len(words) < 2 or attempt >= _TRIES
            edited = _edit(words, uniform(key, stream, _DRAWS + max(len(words), 1))[0], dropout, letters=letters)
            if edited and _folded(edited) not in seen:
                seen.add(_folded(edited))
                edits.append(" ".join(edited))
                break
    return edits


def _folded(words: Sequence[str]) -> str:
    return " ".join(words).lower()


def _edit(words: list[str], drawn: np.ndarray, dropout: float, *, letters: bool) -> list[str]:
    if not letters:
        return _swapped(words, drawn[1]) if drawn[0] < 0.5 else _dropped(words, drawn, dropout)
    places = [index for index, word in enumerate(words) if len(word) > 1]
    if not places:
        return []
    place = places[int(drawn[1] * len(places))]
    word = list(words[place])
    if drawn[0] < 0.5:
        word = _swapped(word, drawn[2])
    else:
        del word[int(drawn[2] * len(word))]
    return [*words[:place], "".join(word), *words[place + 1 :]]


def _swapped(parts: list[str], where: float) -> list[str]:
    index = int(where * (len(parts) - 1))
    return [*parts[:index], parts[index + 1], parts[index], *parts[index + 2 :]]


def _dropped(words: list[str], drawn: np.ndarray, dropout: float) -> list[str]:
    """Drop each word with probability `dropout`, but at least one and not all."""
    drop = drawn[_DRAWS:] < dropout
    if not drop.any():
        drop[int(drawn[1] * len(words))] = True
    if drop.all():
        drop[int(drawn[2] * len(words))] = False
    return [word for word, dropped in zip(words, drop, strict=True) if not dropped]


def edits_of_single(
    captions: Sequence[Sequence[str]], uids: Sequence[str], *, count: int, dropout: float = 0.2, seed: int = 0
) -> tuple[list[str], list[int]]:
    """Edit the captions of all pairs with one caption; return the edits and the index of each one's pair."""
    edits = [
        (edit, index)
        for index, (own, uid) in enumerate(zip(captions, uids, strict=True))
        if len(own) == 1
        for edit in caption_edits(own[0], uid, count=count, dropout=dropout, seed=seed)
    ]
    return [edit for edit, _ in edits], [index for _, index in edits]


def text_views(
    captions: Sequence[str], uid: str, *, count: int, dropout: float = 0.2, seed: int = 0
) -> tuple[str, list[str]]:
    """Return a pair's first caption and up to `count` views of it: its other captions, else edits of the first."""
    clean = captions[0]
    others = [text for text in dict.fromkeys(captions) if text != clean][:count]
    return clean, others or caption_edits(clean, uid, count=count, dropout=dropout, seed=seed)
