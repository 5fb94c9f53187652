"""What was left out of a study and why: one `Problem` a record that could not be used."""

from typing import NamedTuple


class Problem(NamedTuple):
    """A record of the data that takes no part.

    Attributes:
        source: File or shard in which it lies.
        key: Which record of it: a row, a member, a path, or the uid.
        reason: What is wrong with it, in a few words that are the same for all records with that problem.
    """

    source: str
    key: str
    reason: str
