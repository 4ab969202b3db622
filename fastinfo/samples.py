"""Paired samples, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastinfo.arrays import FLOATS, Source, from_sequence, give, narrow, read, same_device

# Integers are counted in place of being sorted if they span no more than this times their number.
SPAN = 4
# ... or no more than this.
LEAST = 1 << 16
# Samples counted at a time.
BLOCK = 1 << 16


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
    i, j = _coded(first), _coded(second)
    if i.labels.size * j.labels.size > max(SPAN * len(i.values), LEAST):
        i, j = i.without_gaps(), j.without_gaps()
    table = _counted(i, j)
    rows, columns = table.any(1), table.any(0)
    return Contingency(
        give(table[rows][:, columns], first),
        _give(i.labels[rows], first),
        _give(j.labels[columns], second),
    )


def _labels(name: str, x: Any) -> Source:
    """Return labels as a `Source`, which those that are no numbers become too."""
    if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray | np.generic):
        source = read(name, x)
    else:
        data = from_sequence(name, x)
        numbers = data.dtype.name in (*FLOATS, "bool") or data.dtype.kind in "iu"
        if numbers or isinstance(x, np.ma.MaskedArray):
            source = read(name, x)
        else:
            source = Source(name, data, data.dtype.name, "numpy", data.dtype)
    if source.data.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {source.shape}")
    return source


@dataclass(frozen=True)
class Codes:
    """Samples as integers: `labels[k - low]` is the label that k stands for."""

    labels: np.ndarray
    values: np.ndarray
    low: int

    def block(self, begin: int, end: int) -> np.ndarray:
        """Return the indices of the labels of some samples."""
        return np.subtract(self.values[begin:end], self.low, dtype=np.intp, casting="unsafe")

    def without_gaps(self) -> Codes:
        """Return codes of labels all of which occur."""
        index = self.block(0, len(self.values))
        present = np.zeros(self.labels.size, bool)
        present[index] = True
        return Codes(self.labels[present], (np.cumsum(present) - 1)[index], 0)


def _coded(source: Source) -> Codes:
    values = source.values()
    if source.data.dtype.kind in "biu" and not source.is_float and values.size:
        low, high = int(values.min()), int(values.max())
        if high < 1 << 63 and high - low < max(SPAN * values.size, LEAST):
            labels = (np.arange(high - low + 1) + low).astype(values.dtype.newbyteorder("="))
            return Codes(labels, values, low)
    try:
        labels, index = np.unique(values, return_inverse=True)
    except TypeError as error:
        raise TypeError(f"{source.name} must hold labels that can be sorted: {error}") from None
    return Codes(labels, index.reshape(-1), 0)


def _counted(i: Codes, j: Codes) -> np.ndarray:
    """Count pairs, a block of samples at a time: new memory takes ten times as long to come by."""
    shape, size = (i.labels.size, j.labels.size), len(i.values)
    table = np.zeros(shape, np.int64)
    step = max(BLOCK, table.size)
    for begin in range(0, size, step):
        cells = i.block(begin, begin + step)
        cells *= shape[1]
        cells += j.block(begin, begin + step)
        table.reshape(-1)[:] += np.bincount(cells, minlength=table.size)
    return table


def _give(labels: np.ndarray, like: Source) -> Any:
    if like.dtype == "bfloat16":
        return give(narrow(labels, like.dtype), like, like.dtype)
    return give(labels, like)
