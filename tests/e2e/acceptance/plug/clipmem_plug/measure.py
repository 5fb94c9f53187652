"""The measure `caption-norms`: how long the embeddings of captions are."""

import numpy as np

from clipmem.measure.base import Measure


class CaptionNorms(Measure):
    """Mean length of the embeddings of a pair's captions, before they are normalized."""

    summary = "How long the embeddings of captions are."
    words = {"caption_norm_loss": "length of captions"}

    def values(self, embeddings):
        counts = np.bincount(embeddings.text_pair, minlength=len(embeddings.image))
        return {"caption_norm_loss": np.bincount(embeddings.text_pair, embeddings.text.norm(dim=1)) / counts}
