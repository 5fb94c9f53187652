"""The alignment `plain`: the similarity of a pair, without a bank."""

from pydantic import Field

from clipmem.base.sections import Positive, Section
from clipmem.scoring.alignments import Alignment


class Plain(Alignment):
    """ū·v̄; the bank takes no part."""

    summary = "plain similarity of image and captions, without a bank"
    range, model_range, sign = (-2.0, 2.0), (-1.0, 1.0), 1
    needs = ("captions",)
    equation = "A = ū·v̄; A(f) - A(g)"
    source = "the acceptance test"
    finds_wrong_captions = False
    words = {"score": "Plain memorization", "banked": False, "axis": "similarity"}

    class Settings(Section):
        """`[score.plain]`."""

        scale: Positive = Field(1.0, description="The similarity is multiplied by it.")

    def positive(self, pairs):
        return self.settings.scale * (pairs.image.double() * pairs.text.double()).sum(dim=-1)
