"""How an image becomes the square that a model takes: size, what becomes of the longer side, and scaling."""

from typing import Literal, NamedTuple

ResizeMode = Literal["shortest", "squash", "longest"]
Interpolation = Literal["bicubic", "bilinear"]


class Geometry(NamedTuple):
    """One way to make squares, in open_clip's words.

    Attributes:
        size: Side of the square, in pixels.
        resize_mode: `shortest` scales the shorter side to `size` and crops the center; `squash` scales both sides to
            `size`; `longest` scales the longer side to `size` and fills up with black.
        interpolation: How pixels are weighed in scaling.
    """

    size: int
    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"

    @property
    def name(self) -> str:
        """A short name, fit for a file: what is usual is left out."""
        parts = [str(self.size)]
        parts += [self.resize_mode] if self.resize_mode != "shortest" else []
        parts += [self.interpolation] if self.interpolation != "bicubic" else []
        return "-".join(parts)
