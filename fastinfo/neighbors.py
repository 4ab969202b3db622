"""The nearest rows of each row, and the rows within a radius, under a measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fastinfo import checks
from fastinfo.arrays import give
from fastinfo.dispatch import home
from fastinfo.matrices import job_of, reporter


class Neighbors(NamedTuple):
    """Distances and indices of the nearest rows, nearest first; see `nearest`.

    Attributes
    ----------
    distances : array (n, k)
        Values of the measure, in its unit, of the dtype of `pairwise`; NaN last.
    indices : array (n, k)
        Numbers of the rows of y, int64; -1 where there is none.
    """

    distances: Any
    indices: Any


def nearest(
    x: Any,
    y: Any = None,
    k: int = 1,
    measure: str = "js_divergence",
    *,
    base: float | None = None,
    normalize: bool = True,
    include_self: bool = False,
    progress: bool | Callable[[int, int], object] = False,
    **parameters: Any,
) -> Neighbors:
    r"""For each row of x the k rows of y with the smallest :math:`\text{measure}(x_i, y_j)`.

    Parameters
    ----------
    x : array (n, K)
        Distributions or counts, as for `pairwise`; also a sparse CSR array.
    y : array (m, K), optional
        As `x`; `x` itself if left out, and then a row is not its own neighbour.
    k : int
        How many, from 1 to m, or m - 1 if rows are left out.
    measure, base, normalize, **parameters
        As for `pairwise`; the first argument of the measure is the row of `x`.
    include_self : bool
        Whether a row may be its own neighbour where `y` is left out.
    progress : bool or callable
        As for `pairwise`.

    Returns
    -------
    Neighbors
        ``distances`` (n, k), in the units and the dtype of `pairwise`, and ``indices`` (n, k),
        int64, nearest first; of equal distances the smaller index comes first.

    Raises
    ------
    TypeError, ValueError
        As `pairwise`; if there are fewer than `k` rows to choose from.

    Notes
    -----
    Exact: what a matrix and a stable sort would give, without the matrix. Rows of `y` that are no
    distributions (NaN, inf, a sum of 0) come last, with a distance of NaN; a row of `x` that is
    none has NaN and -1 throughout. Under "js_divergence" and "js_distance" a matrix product of
    square roots bounds all pairs, ln 2 · h² ≤ JS ≤ h², and only those that can be among the nearest
    are computed.

    References
    ----------
    .. [1] F. Topsøe, "Some inequalities for information divergence and related measures of
       discrimination", IEEE Trans. Inf. Theory 46 (2000).

    Examples
    --------
    >>> import fastinfo
    >>> rows = [[1, 0, 0], [8, 1, 1], [0, 1, 1], [0, 4, 5]]
    >>> found = fastinfo.nearest(rows)
    >>> found.indices.ravel()
    array([1, 0, 3, 2])
    >>> found.distances.ravel().round(4)
    array([0.0749, 0.0749, 0.0015, 0.0015])
    """
    job, sources = job_of(x, y, measure, base, normalize, parameters, half=False)
    leave_out = y is None and not include_self
    k, candidates = checks.integer("k", k), job.y.count - leave_out
    if not 1 <= k <= max(candidates, 0) and (job.x.count or k < 1):
        what = "other rows" if leave_out else "rows of y"
        if candidates < 1:
            raise ValueError(f"k must be at most the number of {what}, 0, got {k}")
        raise ValueError(f"k must be in [1, {candidates}], the number of {what}, got {k}")
    module = home("neighbors", sources[0].device)
    with reporter(progress, job.x.count) as report:
        distances, indices = module.nearest(job, k, leave_out, report)
    return Neighbors(give(distances, sources[0]), give(indices, sources[0]))


def within(
    x: Any,
    y: Any = None,
    radius: float | None = None,
    measure: str = "js_divergence",
    *,
    base: float | None = None,
    normalize: bool = True,
    include_self: bool = False,
    progress: bool | Callable[[int, int], object] = False,
    **parameters: Any,
) -> Any:
    r"""Pairs of rows with :math:`\text{measure}(x_i, y_j)` of at most a radius.

    Parameters
    ----------
    x, y, measure, base, normalize, include_self, progress, **parameters
        As for `nearest`.
    radius : float
        In units of the measure, at least 0; may be inf.

    Returns
    -------
    scipy.sparse.csr_array (n, m)
        The values of the pairs within the radius, zeros too; columns in order.

    Raises
    ------
    TypeError, ValueError
        As `pairwise`; if the radius is negative or NaN.
    ImportError
        If SciPy is not installed.

    Notes
    -----
    Exact, and without the matrix, as `nearest`. Pairs whose value is NaN are not within; with
    ``normalize=False`` those whose value is below 0 are.

    References
    ----------
    .. [1] F. Topsøe, "Some inequalities for information divergence and related measures of
       discrimination", IEEE Trans. Inf. Theory 46 (2000): the bounds that leave pairs out.

    Examples
    --------
    >>> import fastinfo
    >>> rows = [[1, 0, 0], [8, 1, 1], [0, 1, 1], [0, 4, 5]]
    >>> near = fastinfo.within(rows, radius=0.05)
    >>> near.indices, near.indptr
    (array([3, 2]), array([0, 0, 0, 1, 2]))
    """
    try:
        from scipy.sparse import csr_array
    except ImportError:
        raise ImportError('within needs SciPy: pip install "fastinfo[sparse]"') from None
    if radius is None:
        raise TypeError("within needs a radius")
    limit = checks.radius_of(radius)
    job, sources = job_of(x, y, measure, base, normalize, parameters, half=False)
    checks.on_processor("within", *sources)
    module = home("neighbors", sources[0].device)
    leave_out = y is None and not include_self
    with reporter(progress, job.x.count) as report:
        values, columns, starts = module.within(job, limit, leave_out, report)
    return csr_array((values, columns, starts), shape=(job.x.count, job.y.count))
