"""Emoji as planned studies need them: in two parts, with vague captions of which no two are equal, and with roles.

The two parts are those of a study, and those of a warm start that has read and seen nothing of it.
"""

import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import ClassVar, Literal

from pydantic import Field

from clipmem.base.errors import require
from clipmem.base.hashing import ImageHash, same_words
from clipmem.base.random import generator
from clipmem.base.sections import DataSection, Listed, Section, Seed, Size
from clipmem.data.sources.base import ClassPrompts
from clipmem.data.sources.emoji import EmojiArtistsSource, emoji_table
from clipmem.data.sources.records import Record

_OF_START, _PARTS = 2, 5  # parts of all concepts for the warm start


def for_start(concept: str) -> bool:
    """Return whether the emoji of a concept belong to the warm start."""
    return zlib.crc32(concept.encode()) % _PARTS < _OF_START


class _EmojiPart(EmojiArtistsSource):
    Settings = None  # those of emoji-artists
    starts: ClassVar[bool]

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        drawings = list(emoji_table().select("id", "concept", "captions").iter_rows())
        read = {
            caption
            for _, concept, captions in drawings
            if not for_start(concept)
            for caption in map(same_words, captions)
        }
        self._part = {
            drawing
            for drawing, concept, captions in drawings
            if for_start(concept) == self.starts and not (self.starts and read & {*map(same_words, captions)})
        }

    def records(self) -> Iterator[Record]:
        """Yield the records of this part; the others do not count as read."""
        for record in super().records():
            if record.key in self._part:
                yield record
            else:
                self.ledger.read -= 1


class EmojiOfStudy(_EmojiPart):
    """Drawings of three fifths of the concepts: a study on pairs that a warm start on `emoji-start` has not read."""

    name = "emoji-study"
    summary = "Three fifths of the emoji drawings, for studies from a warm start that has read none of their captions."
    starts = False


class EmojiOfStart(_EmojiPart):
    """Drawings of the other concepts, but those with a caption, however capitalized, that the first part has, too."""

    name = "emoji-start"
    summary = "Emoji drawings of other concepts than emoji-study, without any caption in common with it."
    starts = True


UNIQUE_VAGUE = "unique vague"
_VAGUE = tuple(
    words.split(", ")
    for words in (
        ", just, only, here is, this is, perhaps",
        "a simple, a single, a plain, a certain, a small, a common, a typical, a nice, a usual, a normal, an odd, some",
        "thing, object, item, figure, shape, design, motif, form, graphic, subject, element, detail",
        "on white, on a white background, in the middle, without a background, in front of nothing, "
        "on its own, by itself, seen from here, shown once, of some kind",
    )
)


@cache
def vague_captions() -> dict[str, str]:
    """Return a vague caption for each drawing by its id, all different: "only a plain thing on white"."""
    captions = [" ".join(words).strip() for words in product(*_VAGUE)]
    order = generator(0, UNIQUE_VAGUE).permutation(len(captions))
    return {drawing: captions[k] for drawing, k in zip(sorted(emoji_table()["id"]), order, strict=False)}


class VagueSection(Section):
    """`[data.emoji_vague]`: how many captions are vague."""

    share: float = Field(0.0, ge=0, le=1, description="Share of drawings with a vague caption that no other one has.")


class EmojiVague(EmojiArtistsSource):
    """Drawings, a share of which has a vague caption of its own, chosen by the image as those of `[data.flaws]` are.

    The hash of an image gives it a number in [0, 1). Flaws have the lowest numbers, these captions the highest.
    """

    name = "emoji-vague"
    summary = "Emoji drawings, some of them with a vague caption that no other drawing has."
    Settings = VagueSection

    def records(self) -> Iterator[Record]:
        """Yield the records; the key of one with a vague caption says so."""
        for record in super().records():
            if isinstance(record.image, ImageHash) and self._number(record.image) >= 1 - self.settings.share:
                parts = [part._replace(captions=[vague_captions()[record.reference]]) for part in record.parts]
                yield replace(record, key=f"{record.key} ({UNIQUE_VAGUE})", parts=parts)
            else:
                yield record

    @staticmethod
    def _number(image: ImageHash) -> float:
        return int.from_bytes(image.digest()[16:24], "little") / 2**64


class EmojiSubgroups(EmojiArtistsSource):
    """Drawings whose class is the Unicode subgroup, for supervised training."""

    name = "emoji-subgroups"
    summary = "Emoji drawings whose class is one of 98 Unicode subgroups."
    Settings = None

    @classmethod
    def class_prompts(cls, labels: str, section: DataSection) -> ClassPrompts:  # noqa: ARG003
        """Return the names of the subgroups, and prompts for icons."""
        return super().class_prompts("sublabel", section)

    def records(self) -> Iterator[Record]:
        """Yield the records with the finer label as the label."""
        for record in super().records():
            yield replace(record, label=record.sublabel)


class _EmojiWithRoles(EmojiArtistsSource):
    """Drawings of all artists with roles, drawn by a seed of the data; an image that is there twice counts once."""

    uses = EmojiArtistsSource.uses | {"role_column"}

    @abstractmethod
    def roles(self, emoji: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Return roles of drawings, and image variants of each emoji, by the ids of the drawings of each emoji."""

    def records(self) -> Iterator[Record]:
        """Yield the drawings with a role; the others do not count as read."""
        table = emoji_table().unique("image_sha1", keep="first", maintain_order=True)
        drawings = table.group_by("unicode", maintain_order=True).agg("id")
        roles, variants = self.roles(dict(drawings.iter_rows()))
        emoji = dict(table.select("id", "unicode").iter_rows())
        for record in super().records():
            if record.reference in roles:
                role, others = roles[record.reference], variants.get(emoji[record.reference], [])
                yield replace(record, role=role, variants=others)
            else:
                self.ledger.read -= 1

    def _permuted(self, ids: Sequence[str], purpose: str) -> list[str]:
        order: list[int] = generator(self.settings.seed, self.name, purpose).permutation(len(ids)).tolist()
        return [ids[k] for k in order]


def _enough(source: str, name: str, count: int, available: int) -> None:
    require(count <= available, f"[data.{source}] {name}", f"{count}", f"at most {available}", "Lower it.")


class NestedSection(Section):
    """`[data.emoji_nested]`: numbers of pairs by role."""

    seed: Seed = Field(0, description="Seed of the roles.")
    artists: Listed[str] = Field((), description="Artists whose drawings get roles.")
    shared: Size = Field(0, description="Shared pairs: the first ones of an order that does not depend on the number.")
    candidate: Size = Field(0, description="Candidates, and as many g-only pairs.")
    external: Size = Field(0, description="Held-out pairs.")
    more: Literal["none", "variants", "pairs"] = Field(
        "none", description="What further drawings of the emoji are, by other artists: image variants, or pairs."
    )
    more_shared: Size = Field(0, description="Further drawings of emoji with a shared pair.")
    more_candidate: Size = Field(0, description="Further drawings of other emoji with a candidate; for g-only as many.")


class EmojiNested(_EmojiWithRoles):
    """Studies that differ in the number of shared pairs only, or in the place of further drawings of the same emoji.

    Candidates, g-only and held-out pairs of a seed are the same whatever the number of shared pairs, and fewer shared
    pairs are among the more. Further drawings are seen by the same models whether they are variants or pairs.
    """

    name = "emoji-nested"
    summary = "Emoji drawings with roles: the same candidates for any number of shared pairs."
    Settings = NestedSection

    def roles(self, emoji: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Draw held-out pairs, candidates and g-only pairs first, then shared pairs, then further drawings."""
        settings, vendor = self.settings, dict(emoji_table().select("id", "vendor").iter_rows())
        ours = {name: [i for i in ids if vendor[i] in settings.artists] for name, ids in emoji.items()}
        sizes = {"external": settings.external, "candidate": settings.candidate, "independent": settings.candidate}
        order = self._permuted([drawing for ids in ours.values() for drawing in ids], "roles")
        _enough("emoji_nested", "shared", settings.shared, len(order) - sum(sizes.values()))
        names = [role for role, size in sizes.items() for _ in range(size)] + ["shared"] * settings.shared
        roles = dict(zip(order, names, strict=False))
        if settings.more == "none":
            return roles, {}
        further = self._further(emoji, ours, roles)
        if settings.more == "pairs":
            return roles | further, {}
        return roles, {name: [i for i in ids if i in further] for name, ids in emoji.items()}

    def _further(
        self, emoji: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]], roles: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the roles of further drawings: those in which the models that see them as variants see them too."""
        pools: dict[str, list[str]] = {"shared": [], "candidate": [], "independent": []}
        for name, ids in emoji.items():
            trained = {roles[drawing] for drawing in ours[name] if roles.get(drawing, "external") != "external"}
            role = "shared" if "shared" in trained else trained.pop() if len(trained) == 1 else ""
            if role:
                pools[role] += [drawing for drawing in ids if drawing not in ours[name]]
        further: dict[str, str] = {}
        for role, pool in pools.items():
            key = "more_shared" if role == "shared" else "more_candidate"
            size = getattr(self.settings, key)
            _enough("emoji_nested", key, size, len(pool))
            further |= dict.fromkeys(self._permuted(pool, f"further {role}")[:size], role)
        return further


class RandomizedSection(Section):
    """`[data.emoji_randomized]`: numbers of pairs by role, and of other drawings."""

    seed: Seed = Field(0, description="Seed of the roles.")
    candidate: Size = Field(0, description="Candidates, each of another emoji, and as many g-only pairs.")
    external: Size = Field(0, description="Held-out pairs, each of another emoji.")
    others: Listed[int] = Field((0,), description="Numbers of other drawings of the emoji that are shared pairs.")


class EmojiRandomized(_EmojiWithRoles):
    """Candidates and g-only pairs with a number of other drawings of the same emoji in S that a seed draws."""

    name = "emoji-randomized"
    summary = "Emoji drawings with roles: of each candidate's emoji a random number of other drawings is shared."
    Settings = RandomizedSection

    def roles(self, emoji: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Draw emoji with enough drawings for the scored pairs, in turn with each number; others are held out."""
        settings, most = self.settings, max(self.settings.others)
        order = self._permuted(list(emoji), "emoji")
        enough = [name for name in order if len(emoji[name]) > most]
        _enough("emoji_randomized", "candidate", settings.candidate, len(enough) // 2)
        scored, roles = enough[: 2 * settings.candidate], dict[str, str]()
        for k, name in enumerate(scored):
            first, *others = self._permuted(emoji[name], f"drawings of {name}")
            roles[first] = ("candidate", "independent")[k % 2]
            count = settings.others[k // 2 % len(settings.others)]
            roles |= dict.fromkeys(others[:count], "shared")
        rest = [name for name in order if name not in {*scored}]
        _enough("emoji_randomized", "external", settings.external, len(rest))
        held_out = [self._permuted(emoji[name], f"drawings of {name}")[0] for name in rest[: settings.external]]
        return roles | dict.fromkeys(held_out, "external"), {}
