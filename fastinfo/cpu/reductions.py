"""What losses share on the processor: classes and weights of rows, sums and means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastinfo import checks
from fastinfo.arrays import Source, read, same_device


def targets_of(source: Source, classes: int, ignore_index: int) -> np.ndarray:
    """Return integer targets as int64 (n,), ignored ones -1; perhaps in the memory given."""
    values = source.data
    if values.size and values.dtype.kind in "iu" and not source.is_float:
        # as what has no sign, negative numbers are above all classes
        highest = values.view(values.dtype.str.replace("i", "u")).max()
        if highest < classes and not 0 <= ignore_index < classes:
            return np.require(values, np.int64, ["A", "C"]).ravel()
    ignored = values == ignore_index
    bad = ~ignored & ((values < 0) | (values >= classes))
    checks.refuse(
        source.name,
        f"in [0, {classes}) or equal ignore_index={ignore_index}",
        values,
        bad,
        IndexError,
    )
    return np.where(ignored, -1, values.astype(np.int64)).ravel()


def weights_of(
    name: str, value: Any, shape: tuple[int, ...], what: str, like: Source
) -> np.ndarray | None:
    """Return finite weights of at least 0 as float64 of this shape, None for None."""
    if value is None:
        return None
    source = read(name, value)
    same_device(like, source)
    if source.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {source.shape}")
    weights = np.array(source.values(), np.float64)
    checks.refuse(
        name,
        "finite and at least 0",
        weights,
        ~(np.isfinite(weights) & (weights >= 0)),
        ValueError,
        what,
    )
    return weights


def row_weights(
    sample_weight: Any,
    shape: tuple[int, ...],
    classes: np.ndarray | None,
    class_weight: np.ndarray | None,
    reduction: str,
    like: Source,
) -> tuple[np.ndarray, float]:
    """Weight of each row in the reduced loss, 0 for ignored ones, and what a mean divides by.

    Equal weights are one number, repeated: half of the time of losses of two classes went to new
    memory of 8 bytes a row.
    """
    given, count = weights_of("sample_weight", sample_weight, shape, "row", like), math.prod(shape)
    ignored = classes < 0 if classes is not None and classes.min(initial=0) < 0 else None
    if given is None and ignored is None and (classes is None or class_weight is None):
        total = float(count) if reduction == "mean" else 1.0
        return np.broadcast_to(np.float64(1.0 / total if total else 1.0), count), total
    weights = np.ones(count) if given is None else given.ravel()
    if ignored is not None:
        weights = np.where(ignored, 0.0, weights)
    if reduction != "mean":
        return weights, 1.0
    with np.errstate(over="ignore"):
        if classes is not None and class_weight is not None:
            counted = weights * class_weight[classes]
        else:
            counted = weights
        total = float(np.sum(counted))
    checks.finite_sum(total)
    shares = weights / total if total else np.where(weights > 0.0, np.nan, 0.0)
    return shares, total


def reduced(values: np.ndarray, shape: tuple[int, ...], reduction: str, total: float) -> np.ndarray:
    """Return rows in their shape, or their sum, divided before for a mean; NaN over nothing."""
    if reduction == "none":
        return values.reshape(shape)
    with np.errstate(over="ignore"):
        return np.asarray(np.sum(values) if total else np.nan)


def exponential(value: np.ndarray) -> np.ndarray:
    """Return exp of a reduced value, inf beyond the range of its type."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(value))
