"""What fine-tuning taught about pairs: alignment under the base model, and under models that trained on other pairs.

With m_0 the base model that f and g start from, a_base = A(m_0) and learned = mean of A(g) - A(m_0): what training on
the other pairs taught about a pair. clipmem = mean of A(f) - mean of A(g) is what only seeing it taught.

When not to trust it: A(g) is in both learned and clipmem, with opposite signs, so its noise makes their rank
correlation too low. In four-way studies g trained on the shared and the independent pairs, so their `learned` includes
seeing them: read that of candidates and external pairs. The base model may have seen any pair in pre-training.
"""

from collections.abc import Mapping

import polars as pl

from clipmem.base.summary import Correlation, Interval, Learned, LearnedRole, Role
from clipmem.scoring.summary import Scored
from clipmem.stats.intervals import crossed_mean
from clipmem.stats.ranking import spearman


def learned(scored: Scored, a_base: pl.Series, roles: Mapping[str, Role], *, confidence: float) -> Learned | None:
    """Return the means of each role, and the rank correlation of learned and clipmem over candidates.

    Args:
        scored: The score tables.
        a_base: The column of the table `scores`, shape (n,).
        roles: The entry `roles` of the summary, with the means of clipmem.
        confidence: Level of the intervals. That of learned is over pairs, and over seeds with three or more; where
            models have no twins, over pairs alone, for these models.

    Returns:
        `roles` → role → `a_base`, `learned` and `clipmem`, each a mean with its interval, and `spearman`; None without
        a base model, or if the alignment is not defined under it.
    """
    if a_base.null_count():
        return None
    base, means = a_base.to_numpy(), dict[str, LearnedRole]()
    taught = scored.unseen_mean - base
    by_seed = scored.g - base if scored.twins else taught[None]
    for role, entry in roles.items():
        where = scored.of(role)
        before, gain = (
            Interval(**crossed_mean(values[:, where], scored.group[where], confidence=confidence)._asdict())
            for values in (base[None], by_seed)
        )
        clipmem = Interval(mean=entry.mean, low=entry.low, high=entry.high, over=entry.over)
        means[role] = LearnedRole(n=entry.n, a_base=before, learned=gain, clipmem=clipmem)
    where = scored.of("candidate")
    rank = spearman(taught[where], scored.clipmem[where], confidence)
    return Learned(roles=means, spearman=Correlation(**rank._asdict()))
