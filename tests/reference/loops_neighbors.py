"""Slow references of leave-one-out predictions and of what neighbors say; plain loops, written from the equations."""

from math import exp, sqrt

import numpy as np


def left_out(x, y, groups, ridge, fitted=None):
    """Refit ridge regression on the fitted rows without each pair's group; their mean and λ."""
    fitted = list(range(len(x))) if fitted is None else fitted
    b, t = x - x[fitted].mean(axis=0), y - y[fitted].mean(axis=0)
    p = b.shape[1]
    penalty = ridge * sum(float(value) for value in np.linalg.eigvalsh(b[fitted].T @ b[fitted])) / p
    found = np.empty_like(t)
    for i in range(len(x)):
        others = [j for j in fitted if groups[j] != groups[i]]
        weights = np.linalg.inv(b[others].T @ b[others] + penalty * np.eye(p)) @ (b[others].T @ t[others])
        found[i] = b[i] @ weights
    return found


def left_out_kernel(x, y, ridge):
    """Refit kernel ridge regression on a centered RBF kernel without each pair."""
    n = len(x)
    squares = [[sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in x] for p in x]
    width2 = float(np.median([squares[i][j] for i in range(n) for j in range(i)]))
    kernel = np.array([[exp(-s / (2 * width2)) for s in row] for row in squares])
    center = np.eye(n) - 1 / n
    kernel, t = center @ kernel @ center, y - y.mean(axis=0)
    penalty = ridge * float(np.trace(kernel)) / n
    found = np.empty_like(t)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        dual = np.linalg.inv(kernel[np.ix_(others, others)] + penalty * np.eye(n - 1)) @ t[others]
        found[i] = kernel[i, others] @ dual
    return found


def cosine(a, b):
    lengths = sqrt(sum(x * x for x in a)) * sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths > 0 else 0.0


def softmax_agreement(query, value, groups, temperature):
    q, t = query - query.mean(axis=0), value - value.mean(axis=0)
    found = []
    for i in range(len(q)):
        others = [j for j in range(len(q)) if groups[j] != groups[i]]
        weights = [exp(cosine(q[i], q[j]) / temperature) for j in others]
        mean = sum(w * t[j] / sqrt(float(t[j] @ t[j])) for w, j in zip(weights, others, strict=True))
        found.append(cosine(mean, t[i]))
    return found


def votes(query, value, k, groups, share, step=1):
    """Each row votes; the nearest by value are among every `step`-th, and the last of these is the limit."""
    q, t = query - query.mean(axis=0), value - value.mean(axis=0)
    near, found = max(k, round(share * len(q[::step]))), []
    for i in range(len(q)):
        others = [j for j in range(len(q)) if groups[j] != groups[i]]
        by_query = sorted(others, key=lambda j: -cosine(q[i], q[j]))[:k]
        limit = sorted((cosine(t[i], t[j]) for j in others if j % step == 0), reverse=True)[:near][-1]
        found.append(sum(cosine(t[i], t[j]) > limit - 1e-12 for j in by_query) / k)
    return found


def lemon(image, text, k, groups, beta, gamma, tau):
    n = len(image)
    apart = [1 - cosine(image[i], text[i]) for i in range(n)]

    def around(by, other, i):
        others = [j for j in range(n) if groups[j] != groups[i]]
        nearest = sorted(others, key=lambda j: -cosine(by[i], by[j]))[:k]
        return sum(
            (1 - cosine(other[i], other[j])) * exp(-tau[0] * (1 - cosine(by[i], by[j]))) * exp(-tau[1] * apart[j])
            for j in nearest
        ) / k  # fmt: skip

    return [apart[i] + beta * around(image, text, i) + gamma * around(text, image, i) for i in range(n)]


def self_influence(u, v, scale):
    """Differentiate each pair's share of the contrastive loss by a matrix between unit embeddings, one entry at a time.

    Central differences: the last digits are rounding.
    """
    n, d = u.shape
    u, v = (x / np.sqrt((x * x).sum(axis=1, keepdims=True)) for x in (u, v))

    def loss(i, m):
        forward = [exp(scale * float(u[i] @ m @ v[j])) for j in range(n)]
        backward = [exp(scale * float(u[j] @ m @ v[i])) for j in range(n)]
        return -(np.log(forward[i] / sum(forward)) + np.log(backward[i] / sum(backward))) / 2

    found = []
    for i in range(n):
        total, step = 0.0, 1e-5
        for a in range(d):
            for b in range(d):
                move = np.zeros((d, d))
                move[a, b] = step
                total += ((loss(i, np.eye(d) + move) - loss(i, np.eye(d) - move)) / (2 * step)) ** 2
        found.append(total)
    return found
