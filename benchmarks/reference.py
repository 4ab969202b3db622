"""Float64 references, written for clarity, on the part of a shape that is cheap to check."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from benchmarks import shapes

CHECKED_LOGITS = 1 << 21
CHECKED_PAIRS = (64, 256)


def checked_rows(shape: tuple[int, int]) -> int:
    """How many of the first rows of logits are compared."""
    return min(shape[0], max(1, CHECKED_LOGITS // shape[1]))


@functools.cache
def softmax_rows(shape: tuple[int, int], dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss, softmax and log-sum-exp of the checked rows of the logits."""
    n = checked_rows(shape)
    x = shapes.logits(shape, dtype)[:n].astype(np.float64)
    shift = x.max(axis=1, keepdims=True)
    terms = np.exp(x - shift)
    sums = terms.sum(axis=1, keepdims=True)
    target = np.take_along_axis(x, shapes.targets(shape)[:n, None], axis=1)
    loss = np.log(sums) - (target - shift)
    return loss[:, 0], terms / sums, (np.log(sums) + shift)[:, 0]


def loss_error(losses: np.ndarray, shape: tuple[int, int], dtype: str) -> float:
    """Largest error of the losses of the checked rows, relative to their value or to a floor.

    The floor is where the promised relative and absolute accuracies of a loss meet.
    """
    exact = softmax_rows(shape, dtype)[0]
    floor = 1e-3 if dtype == "float64" else 5e-5
    return float(np.max(np.abs(losses - exact) / np.maximum(np.abs(exact), floor)))


@functools.cache
def divergence_rows(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """KL of the checked rows of the logits from the student's, and both softmaxes."""
    n = checked_rows(shape)
    p, q = softmax_rows(shape, "float32")[1], shapes.student(shape)[:n].astype(np.float64)
    q = np.exp(q - q.max(axis=1, keepdims=True))
    q /= q.sum(axis=1, keepdims=True)
    return _kl_terms(p, q).sum(axis=1), p, q


def divergence_error(values: np.ndarray, gradient: np.ndarray, shape: tuple[int, int]) -> float:
    """Largest relative error of KL, and of the sum's gradient relative to its terms."""
    kl, p, q = divergence_rows(shape)
    error = np.abs(gradient - (q - p)) / (q + p)
    return max(relative_error(values, kl), float(np.max(error)))


def entropy_error(values: np.ndarray, gradient: np.ndarray, shape: tuple[int, int]) -> float:
    """Largest relative error of the entropy, and of the sum's gradient relative to its terms."""
    p = softmax_rows(shape, "float32")[1]
    own = -np.log(p)
    entropy = (p * own).sum(axis=1, keepdims=True)
    error = np.abs(gradient - p * (own - entropy)) / (p * (own + entropy))
    return max(relative_error(values, entropy[:, 0]), float(np.max(error)))


def logsumexp_error(values: np.ndarray, shape: tuple[int, int], dtype: str) -> float:
    """Largest error of log-sum-exp, relative to its value or to 1."""
    exact = softmax_rows(shape, dtype)[2]
    return float(np.max(np.abs(values - exact) / np.maximum(np.abs(exact), 1)))


def gradient_error(gradient: np.ndarray, shape: tuple[int, int], dtype: str) -> float:
    """Largest error of the gradient of the sum, relative to its terms: the softmax and the one."""
    _, softmax, _ = softmax_rows(shape, dtype)
    target = np.zeros_like(softmax)
    np.put_along_axis(target, shapes.targets(shape)[: len(softmax), None], 1.0, axis=1)
    error = np.abs(gradient.astype(np.float64) - (softmax - target))
    return float(np.max(error / (softmax + target)))


def relative_error(values: np.ndarray, exact: np.ndarray) -> float:
    """Largest relative error; equal infinities agree, and an exact zero asks for zero."""
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(values - exact) / np.abs(exact)
    error[values == exact] = 0.0
    return float(np.max(error))


def _kl_terms(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return p log(p/q) - p + q, whose terms are not negative and vanish with p - q."""
    with np.errstate(divide="ignore", invalid="ignore"):
        near = p * np.log1p((p - q) / q) - (p - q)
        far = p * (np.log(p) - np.log(q)) - p + q
    terms = np.where(np.abs(p - q) < 0.5 * q, near, far)
    return np.where(p == 0, q, terms)


def _js(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    m = 0.5 * (p + q)
    return 0.5 * (_kl_terms(p, m) + _kl_terms(q, m)).sum(-1)


def _cross_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p == 0, 0.0, -p * np.log(q)).sum(-1)


def _renyi(p: np.ndarray, q: np.ndarray, alpha: float) -> np.ndarray:
    return np.log((p**alpha * q ** (1.0 - alpha)).sum(-1)) / (alpha - 1.0)


MEASURES: dict[str, Callable[..., np.ndarray]] = {
    "bhattacharyya_distance": lambda p, q: -np.log(np.sqrt(p * q).sum(-1)),
    "cross_entropy": _cross_entropy,
    "hellinger_distance": lambda p, q: np.sqrt(0.5 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(-1)),
    "jeffreys_divergence": lambda p, q: (_kl_terms(p, q) + _kl_terms(q, p)).sum(-1),
    "js_divergence": _js,
    "kl_divergence": lambda p, q: _kl_terms(p, q).sum(-1),
    "renyi_divergence": _renyi,
    "total_variation": lambda p, q: 0.5 * np.abs(p - q).sum(-1),
}


@functools.cache
def pairs(
    measure: str, shape: tuple[int, int, int], kind: str, dtype: str, **parameters: float
) -> np.ndarray:
    """Return the measure between the checked rows of x and of y."""
    n, m, k = shape
    p = _normalised(shapes.distributions((n, k), kind, 1, dtype)[: CHECKED_PAIRS[0]])
    q = _normalised(shapes.distributions((m, k), kind, 2, dtype)[: CHECKED_PAIRS[1]])
    return np.stack([MEASURES[measure](row, q, **parameters) for row in p])


def _normalised(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / rows.sum(axis=1, keepdims=True)


def pairs_error(
    matrix: np.ndarray,
    measure: str,
    shape: tuple[int, int, int],
    kind: str,
    dtype: str,
    **parameters: float,
) -> float:
    """Largest relative error of the checked pairs; `matrix` may be its first rows only."""
    exact = pairs(measure, shape, kind, dtype, **parameters)[: len(matrix)]
    return relative_error(np.asarray(matrix)[: len(exact), : exact.shape[1]], exact)


def forget() -> None:
    """Let go of all references made so far."""
    softmax_rows.cache_clear()
    divergence_rows.cache_clear()
    pairs.cache_clear()
