"""Pictures in one folder a class, as ImageNet and torchvision's ImageFolder have them: `ROOT/CLASS/NAME.jpg`.

The label of a picture is its folder, and so is its caption, with spaces for `-` and `_`: fit for zero-shot
classification and linear probes, not for training on pairs or for retrieval. A label such as `n01440764` is no name;
`[evaluate] classnames` gives it one. Sub-folders of a class belong to it; hidden files are passed over, and files that
are no pictures by their ending counted.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.data.sources.base import SOURCES, RecordSource
from clipmem.data.sources.look import PICTURES, Look
from clipmem.data.sources.records import Part, Record, examine_file

LOOSE = "image in no class folder"


@SOURCES.register("classfolder")
class ClassFolderSource(RecordSource):
    """A folder of classes, each a folder of pictures."""

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._root = Path(section.path)
        folders = sorted(one for one in self._root.iterdir() if one.is_dir()) if self._root.is_dir() else []
        # a class may be a link to a folder that lies elsewhere
        self._classes = {one.name: Look(str(one)) for one in folders if not one.name.startswith(".")}
        if not section.path or not any(one.with_suffix(*PICTURES) for one in self._classes.values()):
            raise InputError(
                "[data] path",
                got=f"{section.path!r}, where there is no folder of pictures in a folder",
                expected="a folder with one folder of pictures a class",
                hint="Set data.path to the folder that holds the classes.",
            )

    def records(self) -> Iterator[Record]:
        """Yield one record a picture."""
        seen: dict[bytes, str] = {}
        for label, look in self._classes.items():
            files = list(look.all_files())
            names = [name for name in files if name.lower().endswith(PICTURES)]
            for reference in (f"{label}/{name}" for name in names):
                self.ledger.read += 1
                picture = examine_file(self._root / reference)
                if not isinstance(picture, str) and seen.setdefault(picture.digest(), label) != label:
                    raise InputError(
                        f"{self.section.path}, {reference}",
                        got=f"the same picture in the classes {seen[picture.digest()]!r} and {label!r}",
                        expected="every picture in one class",
                        hint="Remove one of them.",
                    )
                yield Record(reference, reference, reference, picture, [Part(reference, [_name(label)])], label=label)
            look.count_others(self.ledger, files, set(names))
        for file in sorted(self._root.iterdir()):
            if file.name[0] != "." and file.name.lower().endswith(PICTURES) and file.is_file():
                self.ledger.note(file.name, file.name, LOOSE)

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
                    hint="Put it back.",
                ) from error
        return found


def _name(label: str) -> str:
    return label.replace("-", " ").replace("_", " ").strip() or label
