"""Pictures in one folder a class, as ImageNet and torchvision's ImageFolder have them: `ROOT/CLASS/NAME.jpg`.

The label of a picture is its folder, and so is its caption, with spaces for `-` and `_`: fit for zero-shot
classification and linear probes, not for training on pairs or for retrieval. A label such as `n01440764` is no name;
`[evaluate] classnames` gives it one. Sub-folders of a class belong to it; hidden files, and files that are no pictures
by their ending, are passed over.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.data.sources.base import SOURCES, Source
from clipmem.store.hashing import pair_uid

ENDINGS = frozenset({".webp", ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff"})


@SOURCES.register("classfolder")
class ClassFolderSource(Source):
    """A folder of classes, each a folder of pictures."""

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._root = Path(section.path)
        classes = sorted(one for one in self._root.iterdir() if one.is_dir()) if self._root.is_dir() else []
        self._pictures: dict[str, list[str]] = defaultdict(list)
        for folder in (one for one in classes if not one.name.startswith(".")):
            for file in sorted(folder.rglob("*")):
                if file.suffix.lower() in ENDINGS and not file.name.startswith(".") and file.is_file():
                    self._pictures[folder.name].append(file.relative_to(self._root).as_posix())
        if not section.path or not self._pictures:
            raise InputError(
                "[data] path",
                got=f"{section.path!r}, where there is no folder of pictures in a folder",
                expected="a folder with one folder of pictures a class",
                todo="Set data.path to the folder that holds the classes.",
            )

    def pairs(self) -> pl.DataFrame:
        """Return one pair a picture; the same picture twice in a class is one pair.

        Raises:
            InputError: A picture cannot be read, or stands in two classes.
        """
        rows: dict[str, tuple[str, str]] = {}
        seen: dict[str, str] = {}
        for label, references in self._pictures.items():
            for reference in references:
                [data] = self.read([reference])
                uid, picture = pair_uid(data, [_name(label)]), pair_uid(data, [])
                if seen.setdefault(picture, label) != label:
                    raise InputError(
                        f"{self.section.path}, {reference}",
                        got=f"the same picture in the classes {seen[picture]!r} and {label!r}",
                        expected="every picture in one class",
                        todo="Remove one of them.",
                    )
                rows.setdefault(uid, (reference, label))
        references, labels = [row[0] for row in rows.values()], [row[1] for row in rows.values()]
        uids = pl.Series("uid", list(rows))
        return pl.DataFrame(
            {
                "uid": uids,
                "key": references,
                "image": references,
                "captions": [[_name(label)] for label in labels],
                "variants": pl.Series([[]] * len(rows), dtype=pl.List(pl.String)),
                "group": uids,
                "label": labels,
                "sublabel": pl.Series([""] * len(rows)),
                "credit": pl.Series([""] * len(rows)),
                "objects": pl.Series([[]] * len(rows), dtype=pl.List(pl.String)),
            }
        ).sort("uid")

    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the bytes of these files."""
        found: list[bytes] = []
        for reference in references:
            try:
                found.append((self._root / reference).read_bytes())
            except OSError as error:
                raise InputError(
                    f"picture {reference!r}",
                    got=str(error.strerror),
                    expected=f"a file in {self.section.path}",
                    todo="Put it back.",
                ) from error
        return found


def _name(label: str) -> str:
    return label.replace("-", " ").replace("_", " ").strip() or label
