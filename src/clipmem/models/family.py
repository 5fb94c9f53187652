"""Model families: the models of a library, found by `NAME:PATH` and loaded. A class each.

Other packages add families by the entry-point group `clipmem.models`. open_clip's models have no prefix, since they are
also named by architecture, tag or repository (`clipmem.models.names`). A family is asked about a path before torch is
imported, so the libraries are imported when a model is read.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from clipmem.base.registry import Registry

if TYPE_CHECKING:
    import clipmem.models.protocol


class ModelFamily:
    """The models of a library, in folders or files.

    Class attributes:
        name: Prefix of their names, `NAME:PATH`.
        summary: What they are, in one line.
        in_folders: Whether each is a folder, so that a path to anything else is refused at once.
        module: A module with the functions `files` and `load`, for a class that does not define these methods.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    in_folders: ClassVar[bool] = False
    module: ClassVar[str] = ""

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """Return the files that determine a model; raise an `InputError` if some are missing."""
        return import_module(cls.module).files(path)

    @classmethod
    def load(cls, path: Path) -> "clipmem.models.protocol.DualEncoder":
        """Load a model in float32, in evaluation mode."""
        return import_module(cls.module).load(path)

    @classmethod
    def is_saved(cls, folder: Path) -> bool:  # noqa: ARG003
        """Return whether a folder has a model that a study trained, as `DualEncoder.save` wrote it."""
        return False


FAMILIES: Registry[ModelFamily] = Registry("model family", ModelFamily, group="models")


@FAMILIES.register("transformers")
class Transformers(ModelFamily):
    """CLIP, SigLIP and SigLIP 2 in folders that transformers' `save_pretrained` wrote."""

    in_folders = True
    module = "clipmem.models.transformers"

    @classmethod
    def is_saved(cls, folder: Path) -> bool:
        return (folder / "config.json").is_file()
