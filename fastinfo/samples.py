"""Samples: labels or codes of the same things, counted together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastinfo import checks
from fastinfo.arrays import FLOATS, Source, empty, from_sequence, give, narrow, read, same_device
from fastinfo.dispatch import home
from fastinfo.matrices import reporter
from fastinfo.tables import AVERAGES

# Integers are counted in place of being sorted if they span no more than this times their number.
SPAN = 4
# ... or no more than this.
LEAST = 1 << 16
# Samples counted at a time.
BLOCK = 1 << 16


class Contingency(NamedTuple):
    """How often each pair of labels occurs: table[i, j] of x_labels[i] with y_labels[j].

    Attributes
    ----------
    table : array (labels of x, labels of y)
        Counts, int64.
    x_labels, y_labels : array
        The labels, sorted, each in its own dtype.
    """

    table: Any
    x_labels: Any
    y_labels: Any


def contingency(x: Any, y: Any) -> Contingency:
    r"""Contingency table of two samples, :math:`n_{ij} = |\{k : x_k = a_i, y_k = b_j\}|`.

    Parameters
    ----------
    x, y : array
        Labels of the same things, of shape (n,), of any dtype that can be sorted: integers,
        booleans, floats, strings, dates. Lists are made arrays by NumPy first, so that
        ``[1, "a"]`` holds the strings "1" and "a".

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
    checks.on_processor("contingency", source)
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
        labels, index = _sorted(values)
    except (TypeError, ValueError) as error:  # ValueError: of objects that are arrays
        raise TypeError(f"{source.name} must hold labels that can be sorted: {error}") from None
    return Codes(labels, index.reshape(-1), 0)


def _sorted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels in order, and which of them each value is.

    NumPy makes NaNs one label, the last, but of objects, which have no order with one among them.
    """
    if values.dtype != object:
        labels, index = np.unique(values, return_inverse=True)
        return labels, index
    is_nan = np.fromiter((bool(v != v) for v in values), bool, len(values))
    labels, known = np.unique(values[~is_nan], return_inverse=True)
    index = np.full(len(values), len(labels))
    index[~is_nan] = known
    return np.concatenate([labels, values[is_nan][:1]]), index


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


# --- all pairs of columns ------------------------------------------------------------------------


def mutual_information_matrix(
    x: Any,
    y: Any = None,
    *,
    base: float | None = None,
    normalized: bool = False,
    average: str = "arithmetic",
    progress: bool | Callable[[int, int], object] = False,
) -> Any:
    r"""Mutual information of all pairs of columns of codes.

    .. math:: I_{ij} = \sum_{a, b} \frac{n_{ab}}{n} \log \frac{n \, n_{ab}}{n_a n_b},

    where a code a of column i occurs in :math:`n_a` of n samples, with code b of column j in
    :math:`n_{ab}` of them.

    Parameters
    ----------
    x : array (n, F)
        A row for each sample, a column for each variable: codes of at least 0, integers of any
        width or booleans. They need not be consecutive, nor small.
    y : array (n, G), optional
        As `x`, of the same samples; `x` itself if left out, and then a pair is computed once.
    base : float, optional
        Base of the logarithm, positive and not 1; e if left out.
    normalized : bool
        Whether to divide by a mean of the entropies of both columns.
    average : {"arithmetic", "geometric", "min", "max"}
        Which mean.
    progress : bool or callable
        A bar on a terminal, or a function of (rows done, rows).

    Returns
    -------
    float64 array (F, F), or (F, G) with `y`
        At least 0, in nats or units of `base`; normalized from 0 to 1, without unit.

    Raises
    ------
    TypeError, ValueError
        If an array holds no integers or a negative one, or has not two dimensions, the numbers of
        samples differ, `average` is unknown, or `base` is given with ``normalized=True``.

    Notes
    -----
    The plug-in estimate, as scikit-learn's ``mutual_info_score`` and
    ``normalized_mutual_info_score``; without correction for chance. Without `y` the diagonal is the
    entropy of each column. Columns that are exactly independent in the samples
    (:math:`n \, n_{ab} = n_a n_b` everywhere) give exactly 0; relative errors stay below 1e-12 all
    the way there. Normalized, columns that differ by the names of their codes give exactly 1, two
    constant columns 1, one constant column 0. No samples give NaN.

    Columns are renumbered first, so that memory does not depend on the values of the codes. Columns
    of few codes are compared as sets of samples, by the bits they have in common; with many codes
    samples are counted one by one.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., section 2.3.
    .. [2] N. Vinh, J. Epps and J. Bailey, "Information theoretic measures for clusterings
       comparison", JMLR 11 (2010).

    Examples
    --------
    >>> import fastinfo
    >>> x = [[0, 0, 7], [0, 1, 7], [1, 0, 9], [1, 1, 9]]
    >>> fastinfo.mutual_information_matrix(x, base=2)
    array([[1., 0., 1.],
           [0., 1., 0.],
           [1., 0., 1.]])
    """
    unit = checks.logarithm_of(base)
    checks.one_of("average", average, AVERAGES)
    if normalized and base is not None:
        raise ValueError(
            f"base must be left out with normalized=True, whose result has no unit, got {base!r}"
        )
    sources = [_codes("x", x)] if y is None else [_codes("x", x), _codes("y", y)]
    same_device(*sources)
    if sources[0].shape[0] != sources[-1].shape[0]:
        shapes = " and ".join(str(s.shape) for s in sources)
        raise ValueError(f"x and y must have the same number of samples, got shapes {shapes}")
    module = home("contingency", sources[0].device)
    sides = [module.Columns.of(source) for source in sources]
    target = empty((sides[0].count, sides[-1].count), "float64")
    with reporter(progress, sides[0].count) as report:
        for done in module.bands(sides[0], sides[-1], target):
            report(done)
    if normalized:
        module.normalize(target, sides[0], sides[-1], average)
    elif base is not None:
        target /= unit
    return give(target, sources[0])


def _codes(name: str, x: Any) -> Source:
    """Read a table of codes."""
    source = read(name, x)
    checks.on_processor("mutual_information_matrix", source)
    if len(source.shape) != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {source.shape}")
    if source.is_float and source.data.size:
        raise TypeError(f"{name} must hold integer codes, got {source.native}")
    return source
