"""A model family: two linear maps, of an image's pixels and of a caption's letters, in one file."""

import torch
from safetensors.torch import load_file, save_file

from clipmem.base.errors import require
from clipmem.models.family import ModelFamily


class Linear(torch.nn.Module):
    """The two maps; `DualEncoder` says what each attribute is."""

    image_size, resize_mode, interpolation, mean, std = 8, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3
    module = property(lambda self: self)

    def __init__(self, weights):
        super().__init__()
        self.image, self.text = (torch.nn.Parameter(weights[tower]) for tower in ("image", "text"))

    def tokenize(self, captions):
        return torch.tensor([list(text.encode()[:32].ljust(32)) for text in captions])

    def encode_image(self, pixels):
        return pixels.flatten(1) @ self.image

    def encode_text(self, tokens):
        return self.text[tokens].mean(dim=1)

    def logit_scale(self):
        return torch.tensor(10.0)

    def save(self, folder):
        save_file(self.state_dict(), folder / "maps.safetensors")
        return [folder / "maps.safetensors"]


class LinearMaps(ModelFamily):
    """Linear maps of pixels and letters."""

    @classmethod
    def files(cls, path):
        require(path.is_file(), f"model {path}", "no such file", "a safetensors file", "Check the path.")
        return [path]

    @classmethod
    def load(cls, path):
        return Linear(load_file(path)).eval()
