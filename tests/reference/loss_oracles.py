"""Losses as plain loops over rows and columns: slow, and with nothing to get wrong."""

from __future__ import annotations

import math

import numpy as np


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def unit(row):
    return np.asarray(row) / math.sqrt(dot(row, row))


def softmax(values):
    top = max(values)
    shares = [math.exp(v - top) for v in values]
    return [s / sum(shares) for s in shares]


def cross_entropy(target, predicted):
    return -sum(t * math.log(p) for t, p in zip(target, predicted, strict=True) if t > 0)


def relation(queries, keys, queue, student_temp, teacher_temp):
    """ReSSL: mean cross-entropy of similarity distributions over the queue."""
    losses = []
    for q, k in zip(queries, keys, strict=True):
        target = softmax([dot(k, row) / teacher_temp for row in queue])
        losses.append(cross_entropy(target, softmax([dot(q, row) / student_temp for row in queue])))
    return sum(losses) / len(losses)


def similarity(queries, keys, queue, student_temp, teacher_temp):
    """ISD: mean KL divergence of the same."""
    losses = []
    for q, k in zip(queries, keys, strict=True):
        target = softmax([dot(k, row) / teacher_temp for row in queue])
        predicted = softmax([dot(q, row) / student_temp for row in queue])
        losses.append(cross_entropy(target, predicted) - cross_entropy(target, target))
    return sum(losses) / len(losses)


def infonce(queries, keys, queue, temp):
    losses = []
    for q, k in zip(queries, keys, strict=True):
        shares = softmax([dot(q, k) / temp, *(dot(q, row) / temp for row in queue)])
        losses.append(-math.log(shares[0]))
    return sum(losses) / len(losses)


def nt_xent(first, second, temp):
    views = [unit(row) for row in [*first, *second]]
    count, losses = len(first), []
    for a, anchor in enumerate(views):
        others = [j for j in range(2 * count) if j != a]
        shares = softmax([dot(anchor, views[j]) / temp for j in others])
        losses.append(-math.log(shares[others.index((a + count) % (2 * count))]))
    return sum(losses) / len(losses)


def neighbour(neighbours, predictions, temp):
    losses = []
    for i, anchor in enumerate(neighbours):
        shares = softmax([dot(unit(anchor), unit(p)) / temp for p in predictions])
        losses.append(-math.log(shares[i]))
    return sum(losses) / len(losses)


def cross_view(student, teacher, centre, student_temp, teacher_temp):
    """DINO: student (V, B, C), teacher (G, B, C)."""
    losses = []
    for g, targets in enumerate(teacher):
        for v, outputs in enumerate(student):
            if v == g:
                continue
            for t, s in zip(targets, outputs, strict=True):
                target = softmax([(x - c) / teacher_temp for x, c in zip(t, centre, strict=True)])
                losses.append(cross_entropy(target, softmax([x / student_temp for x in s])))
    return sum(losses) / len(losses)


def relic_pair(online, target, negatives, temp):
    """ReLICv2: contrastive and invariance term of each row."""
    contrasts, invariances = [], []
    for i, chosen in enumerate(negatives):
        candidates = [i, *chosen]
        o, t = unit(online[i]), unit(target[i])
        p = softmax([dot(o, unit(target[c])) / temp for c in candidates])
        q = softmax([dot(t, unit(online[c])) / temp for c in candidates])
        contrasts.append(-math.log(p[0]))
        invariances.append(cross_entropy(p, q) - cross_entropy(p, p))
    return contrasts, invariances


def sinkhorn(scores, epsilon, iterations):
    q = np.exp(np.asarray(scores) / epsilon).T
    q = q / q.sum()
    clusters, batch = q.shape
    for _ in range(iterations):
        for k in range(clusters):
            q[k] = q[k] / q[k].sum() / clusters
        for b in range(batch):
            q[:, b] = q[:, b] / q[:, b].sum() / batch
    return (q * batch).T


def lars(parameter, gradients, rates, *, decay, momentum, eta, adapts):
    """Parameter after each step: the norm of the sum, the rate outside the buffer."""
    p, buffer, after = parameter.copy(), np.zeros_like(parameter), []
    for g, lr in zip(gradients, rates, strict=True):
        u = g + decay * p if adapts else g
        size, change = np.sqrt((p * p).sum()), np.sqrt((u * u).sum())
        trust = eta * size / change if adapts and size > 0 and change > 0 else 1.0
        buffer = momentum * buffer + trust * u
        p = p - lr * buffer
        after.append(p)
    return after


def pair_probabilities(ids, similarities, window, temp):
    """AdaSim: id -> probability over the union of a window (W, K) of one image."""
    sums: dict[int, float] = {}
    for row_ids, row_values in zip(ids, similarities, strict=True):
        for j, s in zip(row_ids, row_values, strict=True):
            sums[int(j)] = sums.get(int(j), 0.0) + float(s)
    names = list(sums)
    shares = softmax([sums[j] / window / temp for j in names])
    return dict(zip(names, shares, strict=True))
