"""Textbook definitions on flat arrays of pixels, slow and short: what the statistics route is held to.

Arguments: `q` 8-bit levels `(pixels,)`, `y` bool foreground `(pixels,)`. Scores are integers k of k / 255, so that bin
edges are decided in exact integer arithmetic. Errors take `(k, correct)` of `top_label` or `foreground`.
"""

from __future__ import annotations

import numpy as np
from sklearn.isotonic import IsotonicRegression


def top_label(q, y):
    """Confidence max(p, 1 − p) in 255ths, and whether the decision p >= 0.5 is right."""
    q = np.asarray(q, np.int64)
    return np.maximum(q, 255 - q), (q >= 128) == y


def foreground(q, y):
    """p in 255ths, and whether the pixel is foreground."""
    return np.asarray(q, np.int64), np.asarray(y, bool)


def right_closed_bin(k, bins):
    """⌈k · bins / 255⌉ − 1, at least 0, in integers."""
    return np.maximum(-(-np.asarray(k, np.int64) * bins // 255) - 1, 0)


def gaps(k, correct, index):
    """(pixels, mean confidence − accuracy, mean confidence, accuracy) of every occupied bin."""
    for b in np.unique(index):
        inside = index == b
        confidence, accuracy = k[inside].mean() / 255, correct[inside].mean()
        yield inside.sum(), confidence - accuracy, confidence, accuracy


def ece(k, correct, bins):
    return sum(n * abs(gap) for n, gap, _, _ in gaps(k, correct, right_closed_bin(k, bins))) / len(k)


def over(k, correct, bins):
    return sum(n * max(gap, 0) for n, gap, _, _ in gaps(k, correct, right_closed_bin(k, bins))) / len(k)


def under(k, correct, bins):
    return sum(n * max(-gap, 0) for n, gap, _, _ in gaps(k, correct, right_closed_bin(k, bins))) / len(k)


def oe(k, correct, bins):
    cells = gaps(k, correct, right_closed_bin(k, bins))
    return sum(n * conf * max(gap, 0) for n, gap, conf, _ in cells) / len(k)


def mce(k, correct, bins):
    cells = gaps(k, correct, right_closed_bin(k, bins))
    return max(abs(gap) for n, gap, _, _ in cells if n >= 1e-4 * len(k))


def rmsce(k, correct, bins):
    return np.sqrt(sum(n * gap**2 for n, gap, _, _ in gaps(k, correct, right_closed_bin(k, bins))) / len(k))


def ce2_debiased(k, correct, bins):
    cells = gaps(k, correct, right_closed_bin(k, bins))
    return sum(n * (gap**2 - acc * (1 - acc) / (n - 1)) for n, gap, _, acc in cells if n >= 2) / len(k)


def ce2_debiased_cluster(images, bins):
    """The U-statistic by its definition: Σ over pairs of different images, bin by bin. `images` are (k, correct) pairs."""
    total, value, usable = sum(len(k) for k, _ in images), 0.0, False
    for b in range(bins):
        inside = [right_closed_bin(k, bins) == b for k, _ in images]
        n = np.array([i.sum() for i in inside])
        d = np.array([(c[i] - k[i] / 255).sum() for (k, c), i in zip(images, inside, strict=True)])
        pairs = [(i, j) for i in range(len(n)) for j in range(len(n)) if i != j and n[i] and n[j]]
        if pairs:
            usable = True
            value += n.sum() / total * sum(d[i] * d[j] for i, j in pairs) / sum(n[i] * n[j] for i, j in pairs)
    return value if usable else np.nan


def _tie_means(k, correct):
    """Pixels sorted by score, each with the mean correctness of its ties: which tied pixel comes first cannot matter."""
    order = np.argsort(k)
    k, correct = k[order], correct[order]
    _, tie, size = np.unique(k, return_inverse=True, return_counts=True)
    return k / 255, (np.bincount(tie, correct) / size)[tie]


def equal_mass(k, correct, bins):
    """Mean confidence and accuracy of bins of N / bins pixels: every pixel is cut into `bins` pieces, N pieces a bin."""
    return tuple(np.repeat(a, bins).reshape(bins, len(k)).mean(1) for a in _tie_means(k, correct))


def aece(k, correct, bins):
    confidence, accuracy = equal_mass(k, correct, bins)
    return np.abs(confidence - accuracy).mean()


def aece_whole(k, correct, bins):
    """Tied pixels go whole to the bin of their mid-rank."""
    below, upto = (k[:, None] > k).sum(1), (k[:, None] >= k).sum(1)
    index = (below + upto) * bins // (2 * len(k))
    return sum(n * abs(gap) for n, gap, _, _ in gaps(k, correct, index)) / len(k)


def ece_sweep(k, correct):
    """Roelofs et al.: add bins until the accuracies fall somewhere; at most one bin a distinct score."""
    value = aece(k, correct, 1)
    for bins in range(2, len(np.unique(k)) + 1):
        if (np.diff(equal_mass(k, correct, bins)[1]) < -1e-12).any():
            break
        value = aece(k, correct, bins)
    return value


def ks(k, correct):
    return max(abs((correct - k / 255)[k <= s].sum()) for s in np.unique(k)) / len(k)


def gap(k, correct):
    return (k / 255).mean() - correct.mean()


def smece_at(k, correct, sigma, grid=2000):
    """∫ |E[K_σ(t, score)(correct − score)]| dt with a Gaussian reflected at 0 and 1, by brute force."""
    scores, tie = np.unique(k, return_inverse=True)
    residual = np.bincount(tie, correct - k / 255)
    t = (np.arange(grid) + 0.5) / grid
    images = [sign * scores / 255 + 2 * m for m in range(-4, 5) for sign in (1, -1)]
    kernel = sum(np.exp(-(((t[:, None] - image) / sigma) ** 2) / 2) for image in images)
    return np.abs(kernel @ residual).sum() / (sigma * np.sqrt(2 * np.pi)) / grid / len(k)


def smece(k, correct):
    """The smallest σ (to a ten-fold bisection) at which the smoothed error does not exceed σ."""
    high, low = 1.0, 0.0
    for _ in range(10):
        middle = (high + low) / 2
        if middle < 0.001 or middle < smece_at(k, correct, middle):
            low = middle
        else:
            high = middle
    return smece_at(k, correct, high)


def brier(q, y):
    return ((q / 255 - y) ** 2).mean()


def nll(q, y):
    p = np.clip(q / 255, 1 / 510, 509 / 510)
    return -np.log(np.where(y, p, 1 - p)).mean()


def entropy(q, y):
    p = np.stack([q / 255, 1 - q / 255])
    return -(p * np.log(np.where(p > 0, p, 1))).sum(0).mean()


def mae_raw(q, y):
    return np.abs(q / 255 - y).mean()


def accuracy(q, y):
    return ((q >= 128) == y).mean()


def auroc(q, y):
    """Every pair of a foreground and a background pixel; half a point for a tie."""
    pairs = np.sign(q[y].astype(int)[:, None] - q[~y].astype(int))
    return (pairs + 1).mean() / 2


def average_precision(q, y):
    value, previous = 0.0, 0.0
    for threshold in np.unique(q)[::-1]:
        recall, precision = (y & (q >= threshold)).sum() / y.sum(), y[q >= threshold].mean()
        value, previous = value + (recall - previous) * precision, recall
    return value


def brier_decomposition(q, y):
    """Murphy's (reliability, resolution, uncertainty) with one bin a level."""
    base, n = y.mean(), len(y)
    levels = [(np.sum(q == v), v / 255, y[q == v].mean()) for v in np.unique(q)]
    reliability = sum(m * (p - rate) ** 2 for m, p, rate in levels) / n
    resolution = sum(m * (rate - base) ** 2 for m, _, rate in levels) / n
    return reliability, resolution, base * (1 - base)


def corp(q, y):
    """(miscalibration, discrimination) by scikit-learn's isotonic regression on the pixels."""
    fitted = IsotonicRegression().fit_transform(q / 255, y.astype(float))
    recalibrated = ((fitted - y) ** 2).mean()
    return brier(q, y) - recalibrated, y.mean() * (1 - y.mean()) - recalibrated


def ece_of_probabilities(p, y, bins):
    """ECE of a map that was never rounded, float64; p off the bin edges."""
    confidence, correct = np.maximum(p, 1 - p), (p >= 0.5) == y
    index = np.ceil(confidence * bins).astype(int) - 1
    return sum(abs((confidence - correct)[index == b].sum()) for b in range(bins)) / len(p)
