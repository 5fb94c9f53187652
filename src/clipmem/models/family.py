"""Model families: the models of a library, found by `NAME:PATH` and loaded. A class each.

Other packages add families by the entry-point group `clipmem.models`. open_clip's models have no prefix, since they are
also named by architecture, tag or repository (`clipmem.models.address`).
"""

from pathlib import Path
from typing import ClassVar

from clipmem.base.registry import Registry
from clipmem.models.protocol import DualEncoder


class ModelFamily:
    """The models of a library, in folders or files.

    Class attributes:
        name: Prefix of their names, `NAME:PATH`.
        summary: What they are, in one line.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """Return the files that determine a model; raise an `InputError` if some are missing."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path) -> DualEncoder:
        """Load a model in float32, in evaluation mode."""
        raise NotImplementedError

    @classmethod
    def is_saved(cls, folder: Path) -> bool:  # noqa: ARG003
        """Return whether a folder has a model that a study trained, as `DualEncoder.save` wrote it."""
        return False


FAMILIES: Registry[ModelFamily] = Registry("model family", ModelFamily, group="models")
