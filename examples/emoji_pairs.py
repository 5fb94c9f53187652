"""The data of both examples: emoji shipped with clipmem, each with several captions."""

import io
from dataclasses import dataclass

from PIL import Image

from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source


@dataclass(frozen=True)
class Pair:
    """A pair: its uid (a hash of image and captions), encoded image, and captions."""

    uid: str
    image: bytes
    captions: list[str]

    def decode(self) -> Image.Image:
        """Decode the image, with transparency as white."""
        found = Image.open(io.BytesIO(self.image)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", found.size, "white"), found).convert("RGB")


def emoji(count: int, *, leave_out: frozenset[str] = frozenset()) -> list[Pair]:
    """Return the first `count` pairs whose uid is not in `leave_out`."""
    source = open_source(DataSection.model_validate({}))
    table = source.pairs()
    kept = table.filter(~table["uid"].is_in(list(leave_out))).head(count)
    images = source.read(kept["image"].to_list())
    return [
        Pair(uid, image, captions)
        for uid, image, captions in zip(kept["uid"], images, kept["captions"].to_list(), strict=True)
    ]
