"""The accuracy the contract promises, one function a rule; a failure prints the worst position."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, DTypeLike, NDArray

RTOL = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-5}
FLOOR = {np.dtype(np.float64): 1e-15, np.dtype(np.float32): 1e-9}

ROOTS = ("js_distance", "hellinger_distance", "total_variation")


def result_dtype(dtype: DTypeLike) -> np.dtype:
    """Return the dtype of a result: float32 for float32 and 16 bits, else float64."""
    dtype = np.dtype(dtype)
    wide = dtype.kind in "biu" or dtype.itemsize == 8
    return np.dtype(np.float64 if wide else np.float32)


def gradient_dtype(dtype: DTypeLike) -> np.dtype:
    """Return the dtype of a gradient: that of the data, in native order, float64 for integers."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float64) if dtype.kind in "biu" else dtype.newbyteorder("=")


def assert_within(actual: ArrayLike, exact: ArrayLike, allowed: ArrayLike, dtype: Any) -> None:
    """Assert the dtype, the shape, equal NaN and infinities, and |actual - exact| <= allowed."""
    found = np.asarray(actual)
    assert found.dtype == dtype, f"dtype {found.dtype}, expected {dtype}"
    truth = np.asarray(exact, np.longdouble)
    assert found.shape == truth.shape, f"shape {found.shape}, expected {truth.shape}"
    value = found.astype(np.float64).astype(np.longdouble)
    same = (value == truth) | (np.isnan(value) & np.isnan(truth))
    with np.errstate(all="ignore"):
        error = np.where(same, 0, abs(value - truth))
        limit = np.broadcast_to(np.asarray(allowed, np.longdouble), error.shape)
        wrong = ~same & ~(error <= limit)
        excess = np.where(np.isfinite(error), error / limit, np.inf)
    if wrong.any():
        at = np.unravel_index(np.where(wrong, excess, -1).argmax(), error.shape)
        where = tuple(int(i) for i in at)
        pytest.fail(
            f"{int(wrong.sum())} of {wrong.size} entries off; the worst at {where}: "
            f"got {value[at]!s}, exact {truth[at]!s}, error {error[at]:.3g}, "
            f"allowed {limit[at]:.3g} ({excess[at]:.3g} times as much)"
        )


def smallest(dtype: Any) -> float:
    """Return the spacing of the subnormal numbers, below which no dtype is relative."""
    return float(np.finfo(dtype).smallest_subnormal)


def assert_close_loss(
    actual: ArrayLike, exact: ArrayLike, dtype: DTypeLike, slack: ArrayLike = 0
) -> None:
    """Losses and entropies: rtol·|value|, or the floor; and what errors of the logits make."""
    kind = result_dtype(dtype)
    allowed = np.maximum(RTOL[kind] * abs(np.asarray(exact)), FLOOR[kind])
    assert_within(actual, exact, allowed + np.asarray(slack), kind)


def assert_close_measure(name: str, actual: ArrayLike, exact: ArrayLike, dtype: DTypeLike) -> None:
    """Entropies as losses; divergences relative to zero, proportional rows nearly zero.

    In float64 a normalised row is conditioned to rtol·√(1e-7·v) for values v below 1e-7.
    """
    if name.endswith("entropy"):
        return assert_close_loss(actual, exact, dtype)
    kind = result_dtype(dtype)
    size = abs(np.asarray(exact, np.longdouble))
    zero = 1e-15 if name in ROOTS else 1e-30
    allowed = size
    if kind == np.float64:
        allowed = np.maximum(size, np.sqrt(1e-7 * size))
    allowed = np.maximum(RTOL[kind] * allowed, smallest(kind))
    assert_within(actual, exact, np.where(size < zero / 100, zero, allowed), kind)


def assert_close_log(
    actual: ArrayLike, exact: ArrayLike, dtype: DTypeLike, slack: ArrayLike = 0
) -> None:
    """logsumexp and log_softmax: rtol·max(1, |value|)."""
    kind = result_dtype(dtype)
    allowed = RTOL[kind] * np.maximum(1, abs(np.asarray(exact)))
    assert_within(actual, exact, allowed + np.asarray(slack), kind)


def assert_close_softmax(actual: ArrayLike, exact: ArrayLike, dtype: DTypeLike) -> None:
    """Softmax: relative down to the smallest normal number, which then is the absolute error."""
    kind = result_dtype(dtype)
    allowed = RTOL[kind] * np.asarray(exact)
    tiny = float(np.finfo(kind).tiny)
    assert_within(actual, exact, np.where(np.asarray(exact) < tiny, tiny, allowed), kind)


def assert_close_gradient(
    actual: ArrayLike,
    exact: ArrayLike,
    terms: ArrayLike,
    dtype: DTypeLike,
    product: DTypeLike | None = None,
    slack: ArrayLike = 0,
) -> None:
    """Gradient: rtol times the sum of the terms' absolute values; narrower ones rounded once.

    A probability below the normal numbers, times a weight, is as far off as that allows. `product`
    is the dtype it is computed in, if another, and `slack` what errors of the logits make.
    """
    kind, own = result_dtype(dtype if product is None else product), gradient_dtype(dtype)
    truth, size = np.asarray(exact, np.longdouble), np.asarray(terms, np.longdouble)
    factor = np.maximum(1, size.max(-1, keepdims=True, initial=0))
    allowed = np.maximum(RTOL[kind] * size, float(np.finfo(kind).tiny) * factor)
    allowed = allowed + np.asarray(slack)
    if own.itemsize >= kind.itemsize:
        assert_within(actual, truth, allowed, own)
        return
    found = np.asarray(actual)
    assert found.dtype == own, f"dtype {found.dtype}, expected {own}"
    low, high = rounded(truth - allowed, own), rounded(truth + allowed, own)
    value = rounded(found, own)
    outside = ~((low <= value) & (value <= high)) & ~(np.isnan(value) & np.isnan(low))
    if outside.any():
        at = tuple(int(i[0]) for i in np.nonzero(outside))
        pytest.fail(f"{int(outside.sum())} roundings wrong; at {at}: {value[at]}, not {truth[at]}")


def rounded(x: NDArray[Any], dtype: np.dtype) -> NDArray[np.float64]:
    """Return float32 `x` rounded to nearest even in `dtype`, as float64."""
    with np.errstate(over="ignore"):
        return x.astype(np.float64).astype(np.float32).astype(dtype).astype(np.float64)


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Assert equal shape, dtype and bytes, through tuples; None is equal to None."""
    if isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same_bits(one, other)
        return
    assert (actual is None) == (expected is None)
    if expected is None:
        return
    one, other = np.asarray(actual), np.asarray(expected)
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    if one.tobytes() != other.tobytes():
        at = np.nonzero(np.atleast_1d(~((one == other) | ((one != one) & (other != other)))))
        first = tuple(int(i[0]) for i in at if i.size)
        pytest.fail(f"bits differ in {at[0].size if at else 1} entries, first at {first}")


def peak(call: Callable[[], Any]) -> int:
    """Return the most bytes allocated at one time during a call, its kernels made before."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
