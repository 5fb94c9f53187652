"""Seeded caption edits: text views for a pair that has one caption.

An edit drops words or swaps two neighboring words; a caption of one word loses a letter or has two neighboring
letters swapped. An edit can change what a caption says: it is a view in the sense of a small disturbance, as a crop is
for an image, not a paraphrase. Where a pair has other captions, those are better views.
"""

from collections.abc import Sequence

import numpy as np

from clipmem.base.random import derive_seed, uniform
from clipmem.data.views import pair_keys

_TRIES = 16
_DRAWS = 3  # kind of edit, place, and which unit stays when all would go


def caption_edits(caption: str, uid: str, *, count: int, dropout: float = 0.2, seed: int = 0) -> list[str]:
    """Make up to `count` different edits of a caption; fewer when it is too short for more."""
    words = caption.split()
    seen, edits = {_folded(words)}, list[str]()
    key = pair_keys([uid])
    for view in range(count):
        for attempt in range(2 * _TRIES):
            stream = derive_seed(seed, "caption edit", view, attempt)
            # after half of the tries there may be no new edit of words left
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
    """Return the edited words; empty when there is nothing to edit."""
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
    """Swap two neighbors."""
    index = int(where * (len(parts) - 1))
    return [*parts[:index], parts[index + 1], parts[index], *parts[index + 2 :]]


def _dropped(words: list[str], drawn: np.ndarray, dropout: float) -> list[str]:
    """Drop each word with probability `dropout`; one goes and one stays in any case."""
    goes = drawn[_DRAWS:] < dropout
    if not goes.any():
        goes[int(drawn[1] * len(words))] = True
    if goes.all():
        goes[int(drawn[2] * len(words))] = False
    return [word for word, gone in zip(words, goes, strict=True) if not gone]


def edits_of_single(
    captions: Sequence[Sequence[str]], uids: Sequence[str], *, count: int, dropout: float = 0.2, seed: int = 0
) -> tuple[list[str], list[int]]:
    """Edit the caption of every pair that has one only; return the edits, and the index of each one's pair."""
    made = [
        (edit, index)
        for index, (own, uid) in enumerate(zip(captions, uids, strict=True))
        if len(own) == 1
        for edit in caption_edits(own[0], uid, count=count, dropout=dropout, seed=seed)
    ]
    return [edit for edit, _ in made], [index for _, index in made]


def text_views(
    captions: Sequence[str], uid: str, *, count: int, dropout: float = 0.2, seed: int = 0
) -> tuple[str, list[str]]:
    """Return a pair's first caption, and up to `count` views: other captions that differ, else edits of the first."""
    clean = captions[0]
    others = [text for text in dict.fromkeys(captions) if text != clean][:count]
    return clean, others or caption_edits(clean, uid, count=count, dropout=dropout, seed=seed)
