"""What losses share: weights of rows, sums and means, the buffer of a gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastinfo import checks
from fastinfo.arrays import Source, as_result, empty, give, output


def row_weights(
    sample_weight: Any,
    shape: tuple[int, ...],
    classes: np.ndarray | None,
    class_weight: np.ndarray | None,
    reduction: str,
) -> tuple[np.ndarray, float]:
    """Weight of each row in the reduced loss, 0 for ignored ones, and what a mean divides by."""
    given = checks.weights_of("sample_weight", sample_weight, shape, "row")
    weights = np.ones(math.prod(shape)) if given is None else given.ravel()
    if classes is not None and (classes < 0).any():
        weights = np.where(classes >= 0, weights, 0.0)
    if reduction != "mean":
        return weights, 1.0
    counted = weights
    if classes is not None and class_weight is not None:
        counted = weights * class_weight[classes]
    total = float(np.sum(counted))
    shares = weights / total if total else np.where(weights > 0.0, np.nan, 0.0)
    return shares, total


def reduced(values: np.ndarray, shape: tuple[int, ...], reduction: str, total: float) -> np.ndarray:
    """Rows in their shape, or their sum, which is already divided for a mean; NaN over nothing."""
    if reduction == "none":
        return values.reshape(shape)
    return np.asarray(np.sum(values) if total else np.nan)


def classes_last(x: np.ndarray, axis: int) -> np.ndarray:
    """Return a view with `axis` last."""
    return x if axis == x.ndim - 1 else np.moveaxis(x, axis, -1)


def gradient_buffer(
    return_grad: bool, out: Any, x: Source, inputs: list[Source]
) -> np.ndarray | None:
    """Return the checked `out`, or new memory; None if no gradient is asked for."""
    if not return_grad:
        if out is not None:
            raise ValueError(
                "out must be left out unless return_grad=True: it is the gradient's buffer"
            )
        return None
    if out is None:
        return empty(x.shape, x.storage)
    return output("out", out, x.shape, x.storage, inputs, alias=x)


def with_gradient(
    values: np.ndarray, shape: tuple[int, ...], reduction: str, total: float, like: Source,
    grad: np.ndarray | None, of: Source, out: Any,
) -> Any:  # fmt: skip
    """Reduced values as the kind of `like`, with the gradient by `of` if there is one."""
    value = give(as_result(reduced(values, shape, reduction, total), like.result), like)
    if grad is None:
        return value
    return value, (give(grad, of, of.storage) if out is None else out)
