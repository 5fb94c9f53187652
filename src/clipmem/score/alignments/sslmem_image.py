"""`sslmem-image`: -L of the image tower, minus the mean distance between the views of a picture and their first."""

from clipmem.base.errors import InputError
from clipmem.functional import AlignmentParts, view_distance
from clipmem.score.alignments.base import Context, one_part


def check(views: int) -> None:
    """Refuse pictures with fewer than two views."""
    if views < 2:
        raise InputError(
            "[embed] views",
            got=f"{views} view of each picture",
            expected="2 or more for score.alignment = 'sslmem-image'",
            hint="Set embed.views, for example to 6.",
        )


def parts(context: Context) -> AlignmentParts:
    """Compute -L; the bank takes no part.

    Raises:
        InputError: Pictures have one view.
    """
    check(context.embeddings.image.shape[1])
    views = context.embeddings.image.double()
    return one_part(-view_distance(views[:, 0], views[:, 1:]))
