"""Geometry of model inputs: size, resize mode and interpolation."""

from typing import Literal, NamedTuple

ResizeMode = Literal["shortest", "squash", "longest"]
Interpolation = Literal["bicubic", "bilinear"]


class Geometry(NamedTuple):
    """Resizing to a square, with open_clip's names.

    Attributes:
        size: Side of the square, in pixels.
        resize_mode: `shortest` scales the shorter side to `size` and crops the center; `squash` scales both sides to
            `size`; `longest` scales the longer side to `size` and pads with black.
        interpolation: Resampling filter.
    """

    size: int
    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"

    @property
    def name(self) -> str:
        """A short name for files, without the defaults."""
        parts = [str(self.size)]
        parts += [self.resize_mode] if self.resize_mode != "shortest" else []
        parts += [self.interpolation] if self.interpolation != "bicubic" else []
        return "-".join(parts)
