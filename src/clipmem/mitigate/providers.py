"""Providers: external models that rewrite captions or generate images; a new one is one registered class."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from clipmem.base.errors import shorten
from clipmem.base.registry import Registry
from clipmem.base.require import require


class Provider(ABC):
    """An external model, whose output is cached; `address` is the part of its name after the colon."""

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def content(self) -> str:
        """Return a hash of everything that determines its output, except caption, number and seed."""


class CaptionProvider(Provider):
    """A model that rewrites captions, such as a language model."""

    @abstractmethod
    def rewrite(self, caption: str, *, count: int, seed: int) -> Sequence[str]:
        """Return up to `count` variants of a caption, as a function of the arguments."""


class ImageProvider(Provider):
    """A model that generates images from captions, such as a diffusion model."""

    @abstractmethod
    def draw(self, caption: str, number: int, *, seed: int) -> bytes:
        """Generate image `number` of a caption, encoded, as a function of the arguments."""


P = TypeVar("P", bound=Provider)
CAPTION_PROVIDERS: Registry[CaptionProvider] = Registry("caption provider", CaptionProvider)  # pyright: ignore[reportAbstractUsage]
IMAGE_PROVIDERS: Registry[ImageProvider] = Registry("image provider", ImageProvider)  # pyright: ignore[reportAbstractUsage]


@CAPTION_PROVIDERS.register("transformers")
class TransformersProvider(CaptionProvider):
    """A local language model (see `clipmem.models.generators`)."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        from clipmem.models.generators import LanguageModel  # needs an extra

        self._model = LanguageModel(Path(address))

    def content(self) -> str:
        return self._model.content()

    def rewrite(self, caption: str, *, count: int, seed: int) -> Sequence[str]:
        return self._model.rewrite(caption, count=count, seed=seed)


@IMAGE_PROVIDERS.register("diffusers")
class DiffusersProvider(ImageProvider):
    """A local diffusion pipeline (see `clipmem.models.generators`)."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        from clipmem.models.generators import DiffusionModel  # diffusers is not a dependency

        self._model = DiffusionModel(Path(address))

    def content(self) -> str:
        return self._model.content()

    def draw(self, caption: str, number: int, *, seed: int) -> bytes:
        return self._model.draw(caption, number, seed=seed)


def open_provider(providers: Registry[P], name: str, setting: str, example: str) -> P:
    """Open the provider KIND:ADDRESS of a setting."""
    kind, _, address = name.partition(":")
    require(address, setting, shorten(name), "KIND:ADDRESS", f"For example: {example}.")
    return providers[kind](address)
