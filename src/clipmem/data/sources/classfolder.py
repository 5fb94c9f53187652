"""Images in one folder per class, as in ImageNet and torchvision's ImageFolder: `ROOT/CLASS/NAME.jpg`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from clipmem.base.errors import require
from clipmem.base.sections import DataSection
from clipmem.data.sources.base import SOURCES, Source, require_data
from clipmem.data.sources.files import read_files
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PathProbe
from clipmem.data.sources.records import Part, Record, examine_file

LOOSE = "image outside of class folders"


@SOURCES.register("classfolder")
class ClassFolderSource(Source):
    """A folder of classes, each a folder of images."""

    summary = "Images in one folder per class, for evaluation."

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._root = Path(section.path)
        folders = sorted(folder for folder in self._root.iterdir() if folder.is_dir()) if self._root.is_dir() else []
        # classes may be links to folders
        self._classes = {folder.name: PathProbe(str(folder)) for folder in folders if not folder.name.startswith(".")}
        has_images = any(probe.with_suffix(*IMAGE_ENDINGS) for probe in self._classes.values())
        require_data(has_images, section, "a folder with one folder of images per class")

    def records(self) -> Iterator[Record]:
        """Yield one record per image."""
        seen: dict[bytes, str] = {}
        for label, probe in self._classes.items():
            name_of_class = label.replace("-", " ").replace("_", " ").strip() or label
            files = list(probe.all_files())
            names = [name for name in files if name.lower().endswith(IMAGE_ENDINGS)]
            for reference in (f"{label}/{name}" for name in names):
                self.ledger.read += 1
                image = examine_file(self._root / reference)
                other = label if isinstance(image, str) else seen.setdefault(image.digest(), label)
                subject = f"{self.section.path}, {reference}"
                got = f"the same image in the classes {other!r} and {label!r}"
                require(other == label, subject, got, "every image in one class", "Remove one of them.")
                yield Record(reference, reference, reference, image, [Part(reference, [name_of_class])], label=label)
            probe.count_others(self.ledger, files, set(names))
        for file in sorted(self._root.iterdir()):
            if file.name[0] != "." and file.name.lower().endswith(IMAGE_ENDINGS) and file.is_file():
                self.ledger.note(file.name, file.name, LOOSE)

    def read(self, references: Sequence[str]) -> list[bytes]:
        return read_files(self._root, references)
