"""Slow references of `clipmem.functional.reliability`, written from its equations."""

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
    own = [variance([effect[j, i] for j in range(k)]) for i in range(n)]
    return variance(means), sum(own) / n / k


def midranks(values: np.ndarray) -> list[float]:
    """Rank from 1; equal values share the mean of their ranks."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def agreement(effect: np.ndarray, predicted: np.ndarray, own: float) -> float:
    """Return the expected rank correlation of p + w (D - p) with the truth."""
    k, n = effect.shape
    ones = [1.0] * n
    ranks = [midranks(row) for row in effect]
    pairs = [correlation(ranks[a], ranks[b], ones) for a in range(k) for b in range(a)]
    c = sum(pairs) / len(pairs)
    reliability = k * c / (1 + (k - 1) * c)
    if own == 1:
        return math.sqrt(reliability)
    mean = effect.sum(axis=0) / k
    rank = correlation(midranks(predicted), midranks(mean), ones) / math.sqrt(reliability)
    total, rest = noise(effect)
    real, score = total - rest, [p + own * (d - p) for p, d in zip(predicted, mean, strict=True)]
    shared = correlation(list(predicted), list(mean), ones) * math.sqrt(
        variance(list(predicted)) * variance(list(mean))
    )

    def pearson(weight: float, values: list[float]) -> float:
        return (shared * (1 - weight) + weight * real) / math.sqrt(variance(values) * real)

    return rank * pearson(own, score) / pearson(0.0, list(predicted))
