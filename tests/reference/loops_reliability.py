"""Slow references of `clipmem.stats.reliability`, written from its equations."""

import math

import numpy as np


def variance(values: list[float]) -> float:
    """Return the variance with n - 1."""
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def correlation(a: list[float], b: list[float], times: list[float]) -> float:
    """Return the correlation of values of which each occurs so many times."""
    rows = [(x, y) for x, y, n in zip(a, b, times, strict=True) for _ in range(int(n))]
    mean_a, mean_b = (sum(row[k] for row in rows) / len(rows) for k in (0, 1))
    cross = sum((x - mean_a) * (y - mean_b) for x, y in rows)
    squares = [sum((row[k] - mean) ** 2 for row in rows) for k, mean in enumerate((mean_a, mean_b))]
    return cross / math.sqrt(squares[0] * squares[1])


def noise(effect: np.ndarray) -> tuple[float, float]:
    """Return the variance of the mean effect over pairs, and that of its noise."""
    k, n = effect.shape
    means = [sum(effect[j, i] for j in range(k)) / k for i in range(n)]
    shift = [sum(effect[j]) / n for j in range(k)]
    own = [variance([effect[j, i] - shift[j] for j in range(k)]) for i in range(n)]
    return variance(means), sum(own) / (n - 1) / k


def covariance(a: list[float], b: list[float]) -> float:
    """Return the covariance with n - 1."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    return sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / (len(a) - 1)


def share_of_truth(effect: np.ndarray, left_out: np.ndarray) -> float:
    """Return K r / (K - 1 + r), r the covariance with the effect left out over that with the mean of the others."""
    k, n = effect.shape
    without = [[sum(effect[j, i] for j in range(k) if j != left) / (k - 1) for i in range(n)] for left in range(k)]
    apart = sum(covariance(list(left_out[j]), list(effect[j])) for j in range(k))
    fitted = sum(covariance(list(left_out[j]), without[j]) for j in range(k))
    r = max(0.0, apart / fitted) if fitted > 0 else 1.0
    return k * r / (k - 1 + r)


def midranks(values: np.ndarray) -> list[float]:
    """Rank from 1; equal values share the mean of their ranks."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def halved(effect: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Return the mean rank correlations of disjoint sets of K // 2 pairs of shadow models, and of a score with them."""
    k, n = effect.shape
    h, found, of_score = k // 2, [], []
    for a in range(2**k):
        for b in range(a):
            sets = [[j for j in range(k) if chosen >> j & 1] for chosen in (a, b)]
            if a & b == 0 and len(sets[0]) == len(sets[1]) == h:
                means = [[sum(effect[j, i] for j in members) / h for i in range(n)] for members in sets]
                found.append(correlation(midranks(means[0]), midranks(means[1]), [1.0] * n))
                of_score += [correlation(midranks(score), midranks(mean), [1.0] * n) for mean in means]
    return sum(found) / len(found), sum(of_score) / len(of_score)


def agreement(effect: np.ndarray, predicted: np.ndarray, own: float, left_out: np.ndarray | None = None) -> float:
    """Return the expected rank correlation of p + w (D - p) with the truth."""
    k = len(effect)
    c, shared_ranks = halved(effect, predicted)
    if own == 1:
        m = k / (k // 2)
        return math.sqrt(m * c / (1 + (m - 1) * c))
    mean = effect.sum(axis=0) / k
    rank = shared_ranks / math.sqrt(c)
    total, rest = noise(effect)
    real, score = total - rest, [p + own * (d - p) for p, d in zip(predicted, mean, strict=True)]
    shared = covariance(list(predicted), list(mean))
    true = 1.0 if left_out is None else share_of_truth(effect, left_out)
    if own == 0 or real <= 0 or shared <= 0:
        return rank * true
    of_score = (true * shared * (1 - own) + own * real) / math.sqrt(variance(score) * real)
    return rank * of_score / (shared / math.sqrt(variance(list(predicted)) * real))
