"""What losses share: weights of rows, sums and means, the buffer of a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinfo.arrays import Source, as_result, empty, give, output
from fastinfo.dispatch import home


def targets_of(source: Source, classes: int, ignore_index: int, or_soft: str = "") -> Any:
    """Return integer targets as int64 (n,), ignored ones -1; `or_soft` says what else may be."""
    if source.is_float and 0 not in source.shape:
        raise TypeError(
            f"targets of shape {source.shape} must be integers, got {source.dtype}{or_soft}"
        )
    return home("reductions", source.device).targets_of(source, classes, ignore_index)


def weights_of(name: str, value: Any, shape: tuple[int, ...], what: str, like: Source) -> Any:
    """Return finite weights of at least 0 of this shape, on the device of `like`."""
    return home("reductions", like.device).weights_of(name, value, shape, what, like)


def row_weights(
    sample_weight: Any, shape: tuple[int, ...], classes: Any, class_weight: Any, reduction: str,
    like: Source,
) -> tuple[Any, Any]:  # fmt: skip
    """Weight of each row in the reduced loss, 0 for ignored ones, and what a mean divides by."""
    return home("reductions", like.device).row_weights(
        sample_weight, shape, classes, class_weight, reduction, like
    )


def reduced(values: Any, shape: tuple[int, ...], reduction: str, total: Any, like: Source) -> Any:
    """Rows in their shape, or their sum, which is already divided for a mean; NaN over nothing."""
    return home("reductions", like.device).reduced(values, shape, reduction, total)


def exponential(value: Any, like: Source) -> Any:
    """Return exp of a reduced value, inf beyond the range of its type."""
    return home("reductions", like.device).exponential(value)


def classes_last(x: Any, axis: int) -> Any:
    """Return a view with `axis` last."""
    if axis == x.ndim - 1:
        return x
    return np.moveaxis(x, axis, -1) if isinstance(x, np.ndarray) else x.moved(axis)


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
        return empty(x.shape, x.storage, x)
    return output("out", out, x.shape, x.storage, inputs, alias=x)


def with_gradient(
    values: np.ndarray, shape: tuple[int, ...], reduction: str, total: float, like: Source,
    grad: np.ndarray | None, of: Source, out: Any,
) -> Any:  # fmt: skip
    """Reduced values as the kind of `like`, with the gradient by `of` if there is one."""
    value = give(as_result(reduced(values, shape, reduction, total, like), like.result), like)
    if grad is None:
        return value
    return value, (give(grad, of, of.storage) if out is None else out)
