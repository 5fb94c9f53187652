"""Which tower memorizes: a 2x2 swap of the towers of f and g, and SSLMem per tower.

**Swap.** With the image tower of one model and the text tower of the other there are four alignments of a pair,
A(f_img, f_txt), A(f_img, g_txt), A(g_img, f_txt), A(g_img, g_txt). The embeddings of g are first turned into f's space
by an orthogonal map, one a tower, fitted on the shared pairs, which both models saw (Schönemann 1966):
R = argmin || G R - F ||, R = U Vᵀ with U S Vᵀ = Gᵀ F. A(g, g) is taken in g's own space. The Shapley split of this
game gives each tower its share,

    image = ½ [A(f_img, f_txt) - A(g_img, f_txt) + A(f_img, g_txt) - A(g_img, g_txt)]
    text  = ½ [A(f_img, f_txt) - A(f_img, g_txt) + A(g_img, f_txt) - A(g_img, g_txt)]

which sum to A(f, f) - A(g, g), the pair's CLIPMem, exactly.

Do not trust the split where the map is poor: what it misses lowers both mixed alignments, and only the part that is the
same in both cancels (image - text = A(f_img, g_txt) - A(g_img, f_txt)). `reliability` says so, by pairs that were not
used in the fit: shared pairs, each mapped by the half of the shared pairs that it is not in (both models saw them, so
that their split is 0 but for the map), and external pairs (neither model saw them). The R² of external pairs is
reported too, but does not decide: f and g differ on unseen pairs for reasons that are no fault of the map. The split
also calls "text" what a text tower learned in order to fit an image tower: towers that train together adapt to each
other, and their shares are no causes. And a tower of g that is turned against g's other tower (as in models that never
trained together) breaks A(g, g), while the maps undo the turn in the mixed alignments: the split then blames both
towers. That shows as a gap between A(g, g) and the alignment of both towers of g in f's space, and is judged too.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from clipmem.base.errors import require
from clipmem.models.passes import Embeddings
from clipmem.stats.alignment import alignment, alignment_parts
from clipmem.stats.intervals import crossed_mean
from clipmem.stats.similarity import pair_means

R2_LEAST, BIAS_MOST = 0.5, 0.25


class Means(NamedTuple):
    """Mean unit embeddings of every pair under one model, float64, each of shape (n, d)."""

    image: Float[Tensor, "n d"]
    text: Float[Tensor, "n d"]


class Fit(NamedTuple):
    """R² of a tower's map on pairs that it was not fitted on: shared pairs (by halves), and external pairs."""

    shared: float
    external: float


class Swap(NamedTuple):
    """The four alignments of every pair, image tower first, one row a seed, and the fit of both maps under each seed.

    `turned_gg` is that of both towers of g in f's space. The shares of the towers sum to `clipmem`.

    Example:
        >>> one, zero, fit = np.ones((1, 1)), np.zeros((1, 1)), [Fit(1.0, 1.0)]
        >>> text_alone = Swap(ff=one, fg=zero, gf=one, gg=zero, turned_gg=zero, image_fit=fit, text_fit=fit)
        >>> text_alone.image.item(), text_alone.text.item(), text_alone.clipmem.item()
        (0.0, 1.0, 1.0)
    """

    ff: Float64[np.ndarray, "seed n"]
    fg: Float64[np.ndarray, "seed n"]
    gf: Float64[np.ndarray, "seed n"]
    gg: Float64[np.ndarray, "seed n"]
    turned_gg: Float64[np.ndarray, "seed n"]
    image_fit: list[Fit]
    text_fit: list[Fit]

    @property
    def clipmem(self) -> Float64[np.ndarray, "seed n"]:
        """The score of every pair."""
        return self.ff - self.gg

    @property
    def image(self) -> Float64[np.ndarray, "seed n"]:
        """The share of the image tower."""
        return (self.ff - self.gf + self.fg - self.gg) / 2

    @property
    def text(self) -> Float64[np.ndarray, "seed n"]:
        """The share of the text tower."""
        return (self.ff - self.fg + self.gf - self.gg) / 2


def means_of(embeddings: Embeddings) -> Means:
    """Average the unit embeddings of each pair's views and captions (see `pair_means`)."""
    return Means(*pair_means(embeddings.image.double(), embeddings.text.double(), embeddings.text_pair))


def orthogonal_map(source: Float[Tensor, "m d"], target: Float[Tensor, "m d"]) -> Float[Tensor, "d d"]:
    """Fit the orthogonal R that brings `source` nearest to `target` (Schönemann 1966).

    R = argmin_{RᵀR = 1} || source R - target ||_F = U Vᵀ with U S Vᵀ = sourceᵀ target.
    """
    # not scipy's `orthogonal_procrustes`: fits of fewer pairs than dimensions would come out otherwise
    u, _, vt = torch.linalg.svd(source.double().T @ target.double())
    return u @ vt


def explained(mapped: Float[Tensor, "m d"], target: Float[Tensor, "m d"]) -> float:
    """Return R² = 1 - || mapped - target ||² / || target - mean(target) ||²: 1 is exact, 0 no better than the mean."""
    target = target.double()
    spread = float(((target - target.mean(dim=0)) ** 2).sum())
    error = float(((mapped.double() - target) ** 2).sum())
    if spread == 0:
        return 1.0 if error == 0 else float("-inf")
    return 1 - error / spread


def aligned(means: Means, external: Bool[np.ndarray, " n"], weight: float) -> Float[Tensor, " n"]:
    """Compute every pair's alignment against the external pairs; each of them is left out of its own bank."""
    held = torch.from_numpy(np.flatnonzero(external))
    member = torch.full((len(means.image),), -1, dtype=torch.long)
    member[held] = torch.arange(len(held))
    parts = alignment_parts(means.image, means.text, means.image[held], means.text[held], member=member)
    return alignment(parts, weight=weight)


def swap(f: Mapping[int, Means], g: Mapping[int, Means], roles: Sequence[str], *, weight: float) -> Swap:
    """Swap the towers of f and g of each seed: seed → mean embeddings, whose rows follow `roles`.

    A shared pair is mapped by the half of the shared pairs that it is not in. The halves are every other pair, since
    the order of the split table is that of content hashes.
    """
    names = np.array(roles)
    shared, external = names == "shared", names == "external"
    got = f"{int(shared.sum())} shared and {int(external.sum())} external pairs"
    enough = shared.sum() >= 2 and external.sum() >= 2
    require(enough, "tower swap", got, "two or more of both: to fit the map, and to judge it", "Use a four-way run.")
    even, held = shared & (np.cumsum(shared) % 2 == 0), torch.from_numpy(external)
    alignments: list[tuple[Tensor, ...]] = []
    fits: dict[str, list[Fit]] = {"image": [], "text": []}
    for seed in sorted(f):
        target, turned = f[seed], _turned(f[seed], g[seed], shared)
        fg, gf = _mixed(target, turned, external, weight)
        r2: dict[str, list[float]] = {"image": [], "text": []}
        for half in (even, shared & ~even):
            rows, by_others = torch.from_numpy(half), _turned(target, g[seed], shared & ~half)
            half_fg, half_gf = _mixed(target, by_others, external, weight)
            fg[rows], gf[rows] = half_fg[rows], half_gf[rows]
            for tower, values in r2.items():
                values.append(explained(getattr(by_others, tower)[rows], getattr(target, tower)[rows]))
        for tower, values in r2.items():
            outside = explained(getattr(turned, tower)[held], getattr(target, tower)[held])
            fits[tower].append(Fit(sum(values) / 2, outside))
        ff, gg, turned_gg = (aligned(means, external, weight) for means in (target, g[seed], turned))
        alignments.append((ff, fg, gf, gg, turned_gg))
    ff, fg, gf, gg, turned_gg = (torch.stack(rows).numpy() for rows in zip(*alignments, strict=True))
    return Swap(ff, fg, gf, gg, turned_gg, fits["image"], fits["text"])


def _turned(f: Means, g: Means, fit: Bool[np.ndarray, " n"]) -> Means:
    """Turn all embeddings of g into f's space by the maps fitted on some pairs."""
    rows = torch.from_numpy(fit)
    return Means(*(y @ orthogonal_map(y[rows], x[rows]) for x, y in zip(f, g, strict=True)))


def _mixed(f: Means, turned: Means, external: Bool[np.ndarray, " n"], weight: float) -> tuple[Tensor, Tensor]:
    """Align f's images with g's captions, and g's images with f's captions."""
    fg, gf = Means(f.image, turned.text), Means(turned.image, f.text)
    return aligned(fg, external, weight), aligned(gf, external, weight)


def reliability(shares: Swap, roles: Sequence[str], width: int) -> dict[str, object]:
    """Judge whether the swap can be read.

    It can when (1) half of the shared pairs are at least as many as the dimensions, else the map is not determined;
    (2) R² of both maps on shared pairs held out is at least 0.5 under every seed; (3) pairs that have no share to split
    show none: |mean (image - text)| over the shared pairs, and over the external pairs, is at most a quarter of the
    candidates' |mean CLIPMem|; (4) nor is the candidates' mean gap between A(g, g) in g's space and in f's. The limits
    are conventions, not results.

    Returns:
        The entries of `towers.json` that say so: `reliable`; `failures`, the checks that failed, each {"check":
        "pairs" | "fit" | "bias" | "gap", "of": tower or role, "value", "limit"}; `image_r2` and `text_r2`, the fit of
        both maps under each seed; `shared_bias`, `external_bias` and `gap`. Numbers that are not finite are None.
    """
    names = np.array(roles)
    maps = {"image": shares.image_fit, "text": shares.text_fit}
    r2 = {tower: min(fit.shared for fit in fits) for tower, fits in maps.items()}
    measured = float(np.abs(shares.clipmem[:, names == "candidate"].mean())) if "candidate" in roles else 0.0
    bias = {
        role: abs(float((shares.image - shares.text)[:, names == role].mean())) / measured if measured > 0 else np.inf
        for role in ("shared", "external")
    }
    gaps = (shares.gg - shares.turned_gg)[:, names == "candidate"]
    gap = abs(float(gaps.mean())) / measured if measured > 0 else np.inf
    half = int((names == "shared").sum()) // 2
    checks = [
        ("pairs", "shared", half, width, half < width),
        *(("fit", tower, value, R2_LEAST, value < R2_LEAST) for tower, value in r2.items()),
        *(("bias", role, size, BIAS_MOST, size > BIAS_MOST) for role, size in bias.items()),
        ("gap", "candidate", gap, BIAS_MOST, gap > BIAS_MOST),
    ]
    failures = [
        {"check": check, "of": of, "value": value if np.isfinite(value) else None, "limit": limit}
        for check, of, value, limit, failed in checks
        if failed
    ]
    sizes = {f"{role}_bias": size for role, size in bias.items()} | {"gap": gap}
    return {
        "reliable": not failures,
        "failures": failures,
        **{f"{tower}_r2": [fit._asdict() for fit in fits] for tower, fits in maps.items()},
        **{name: size if np.isfinite(size) else None for name, size in sizes.items()},
    }


def summarize(
    shares: Swap, roles: Sequence[str], groups: Sequence[str], *, confidence: float
) -> dict[str, dict[str, object]]:
    """Average the shares over the pairs of each role, with intervals over seeds and groups of pairs, as JSON."""
    names, codes = np.array(roles), np.unique(np.array(groups), return_inverse=True)[1]
    values = {
        "clipmem": shares.clipmem,
        "image_share": shares.image,
        "text_share": shares.text,
        "text_minus_image": shares.text - shares.image,
    }
    rows: dict[str, dict[str, object]] = {}
    for role in dict.fromkeys(roles):
        in_role = names == role
        means = {
            name: crossed_mean(table[:, in_role], codes[in_role], confidence=confidence)
            for name, table in values.items()
        }
        score = means["clipmem"]
        clear = score.low is not None and score.high is not None and (score.low > 0 or score.high < 0)
        rows[role] = {
            "n": int(in_role.sum()),
            **{name: interval._asdict() for name, interval in means.items()},
            "text_fraction": means["text_share"].mean / score.mean if clear else None,
        }
    return rows
