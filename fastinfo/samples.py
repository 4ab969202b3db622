"""Paired samples, counted."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastinfo.arrays import Source, give, narrow, read, same_device

# Integers are counted in place of being sorted if they span no more than this times their number.
SPAN = 4
# ... or no more than this.
LEAST = 1 << 16


class Contingency(NamedTuple):
    """How often each pair of labels occurs: table[i, j] of x_labels[i] with y_labels[j]."""

    table: Any
    x_labels: Any
    y_labels: Any


def contingency(x: Any, y: Any) -> Contingency:
    r"""Contingency table of two samples, :math:`n_{ij} = |\{k : x_k = a_i, y_k = b_j\}|`.

    Parameters
    ----------
    x, y : array
        Labels of the same things, of shape (n,), of any dtype that can be sorted: integers,
        booleans, floats, strings, dates.

    Returns
    -------
    Contingency
        ``table``, int64 counts of shape (labels of x, labels of y), and the labels as ``x_labels``
        and ``y_labels``, sorted, each in its own dtype.

    Raises
    ------
    TypeError, ValueError
        If labels cannot be sorted, are not one-dimensional, or are not as many in `x` as in `y`.

    Notes
    -----
    NaN is one label, the last, as in ``numpy.unique``. No samples give a table of shape (0, 0).

    References
    ----------
    .. [1] K. Pearson, "On the theory of contingency and its relation to association and normal
       correlation", Drapers' Company Research Memoirs, Biometric Series I (1904).

    Examples
    --------
    >>> import fastinfo
    >>> found = fastinfo.contingency(["a", "b", "a", "a"], [1, 0, 1, 0])
    >>> print(found.table)
    [[1 2]
     [1 0]]
    >>> print(found.x_labels, found.y_labels)
    ['a' 'b'] [0 1]
    >>> print(fastinfo.mutual_information(found.table, base=2).round(4))
    0.3113
    """
    first, second = _labels("x", x), _labels("y", y)
    same_device(first, second)
    if len(first.data) != len(second.data):
        raise ValueError(
            f"x and y must have the same length, got {len(first.data)} and {len(second.data)}"
        )
    (x_labels, i), (y_labels, j) = _coded(first), _coded(second)
    shape = x_labels.size, y_labels.size
    counts = np.bincount(i * shape[1] + j, minlength=shape[0] * shape[1])
    table = counts.astype(np.int64, copy=False).reshape(shape)
    return Contingency(give(table, first), _give(x_labels, first), _give(y_labels, second))


def _labels(name: str, x: Any) -> Source:
    """Return labels as a `Source`, which those that are no numbers become too."""
    if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray | np.generic):
        source = read(name, x)
    else:
        data = np.asarray(x)
        numbers = data.dtype.kind in "biuf" and data.dtype.itemsize <= 8
        if numbers or isinstance(x, np.ma.MaskedArray):
            source = read(name, x)
        else:
            source = Source(name, data, data.dtype.name, "numpy", data.dtype)
    if source.data.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {source.shape}")
    return source


def _coded(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted labels, and the index of each sample's label among them."""
    values = source.values()
    if source.data.dtype.kind in "biu" and not source.is_float and values.size:
        low, high = int(values.min()), int(values.max())
        if high < 1 << 63 and high - low < max(SPAN * values.size, LEAST):
            return _counted(values, low, high)
    try:
        labels, index = np.unique(values, return_inverse=True)
    except TypeError as error:
        raise TypeError(f"{source.name} must hold labels that can be sorted: {error}") from None
    return labels, index.reshape(-1).astype(np.intp, copy=False)


def _counted(values: np.ndarray, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what `_coded` does for integers in [low, high], without sorting them."""
    index = np.subtract(values, low, dtype=np.intp, casting="unsafe")
    present = np.zeros(high - low + 1, bool)
    present[index] = True
    found = np.flatnonzero(present)
    if found.size < present.size:
        index = (np.cumsum(present) - 1)[index]
    return (found + low).astype(values.dtype.newbyteorder("=")), index


def _give(labels: np.ndarray, like: Source) -> Any:
    if like.dtype == "bfloat16":
        return give(narrow(labels, like.dtype), like, like.dtype)
    return give(labels, like)
