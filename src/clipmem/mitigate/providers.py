"""Providers: models from outside that write captions or draw pictures; a new one is one class and one registry line."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from clipmem.base.errors import InputError, shorten
from clipmem.base.registry import Registry


class Provider(ABC):
    """A rewriter of captions from outside, such as a language model; its variants are kept, by content."""

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def content(self) -> str:
        """Return a hash of all that decides what it writes, beside caption, count and seed."""

    @abstractmethod
    def rewrite(self, caption: str, *, count: int, seed: int) -> Sequence[str]:
        """Write up to `count` variants of a caption; from caption, count and seed alone."""


PROVIDERS: Registry[Provider] = Registry("caption provider", Provider)  # pyright: ignore[reportAbstractUsage]


@PROVIDERS.register("transformers")
class TransformersProvider(Provider):
    """A local language model (see `clipmem.models.language`)."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        from clipmem.models.language import LanguageModel  # needs an extra

        self._model = LanguageModel(Path(address))

    def content(self) -> str:
        """Hash the model's files."""
        return self._model.content()

    def rewrite(self, caption: str, *, count: int, seed: int) -> Sequence[str]:
        """Sample from the model."""
        return self._model.rewrite(caption, count=count, seed=seed)


def open_provider(name: str, setting: str) -> Provider:
    """Open the provider that a setting names as KIND:ADDRESS."""
    kind, address = _parted(name, setting, "transformers:models/my-model")
    return PROVIDERS[kind](address)


class ImageProvider(ABC):
    """What draws pictures of captions; its pictures are kept, by content."""

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def content(self) -> str:
        """Return a hash of all that decides what it draws, beside caption, number and seed."""

    @abstractmethod
    def draw(self, caption: str, number: int, *, seed: int) -> bytes:
        """Draw picture `number` of a caption, encoded; from caption, number and seed alone."""


IMAGE_PROVIDERS: Registry[ImageProvider] = Registry("image provider", ImageProvider)  # pyright: ignore[reportAbstractUsage]


@IMAGE_PROVIDERS.register("diffusers")
class DiffusersProvider(ImageProvider):
    """A local diffusion pipeline (see `clipmem.models.diffusion`)."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        from clipmem.models.diffusion import DiffusionModel  # needs a package that is not a dependency

        self._model = DiffusionModel(Path(address))

    def content(self) -> str:
        """Hash the pipeline's files."""
        return self._model.content()

    def draw(self, caption: str, number: int, *, seed: int) -> bytes:
        """Run the pipeline."""
        return self._model.draw(caption, number, seed=seed)


def open_image_provider(name: str, setting: str) -> ImageProvider:
    """Open the provider of pictures that a setting names as KIND:ADDRESS; see `open_provider` for the errors."""
    kind, address = _parted(name, setting, "diffusers:models/my-pipeline")
    return IMAGE_PROVIDERS[kind](address)


def _parted(name: str, setting: str, example: str) -> tuple[str, str]:
    kind, colon, address = name.partition(":")
    if not colon or not address:
        raise InputError(setting, got=shorten(name), expected="KIND:ADDRESS", hint=f"For example: {example}.")
    return kind, address
