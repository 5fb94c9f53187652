"""`duplicates`: near-duplicate images whose captions share no word."""

import numpy as np

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals


@DETECTORS.register("duplicates")
class Duplicates(Detector):
    """Of the other pairs of its group of near-duplicates, the share whose captions have no word in common with its own.

    Of two such pairs it cannot tell which caption is wrong; of three, the odd one out ranks first.
    """

    summary = "Near-duplicate images whose captions share no word; captions and groups alone"
    weight = 0.5
    kind = "duplicate"

    def score(self, signals: Signals) -> Scores:
        found = np.zeros(len(signals.group))
        order = np.argsort(signals.group, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(signals.group[order])) + 1):
            words = [{word for text in signals.captions[int(row)] for word in text.casefold().split()} for row in rows]
            for place, row in enumerate(rows if len(rows) > 1 else ()):
                apart = sum(words[place].isdisjoint(other) for other in words)
                found[row] = apart / (len(rows) - 1)
        return found
