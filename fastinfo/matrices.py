"""Matrices of a measure between all pairs of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastinfo import checks
from fastinfo.arrays import (
    Rows,
    Source,
    computed_in,
    empty,
    give,
    output,
    promote,
    read,
    same_device,
)
from fastinfo.catalogue import MEASURES, Measure
from fastinfo.dispatch import home
from fastinfo.elsewhere import ELSEWHERE


def pairwise(
    x: Any,
    y: Any = None,
    measure: str = "js_divergence",
    *,
    base: float | None = None,
    normalize: bool = True,
    out: Any = None,
    condensed: bool = False,
    progress: bool | Callable[[int, int], object] = False,
    **parameters: Any,
) -> Any:
    r"""Matrix of a measure between rows, :math:`D_{ij} = \text{measure}(x_i, y_j)`.

    Parameters
    ----------
    x : array (n, K)
        Distributions or counts, at least 0: floats of 16 to 64 bits, integers or booleans; or a
        CSR array of scipy.sparse.
    y : array (m, K), optional
        As `x`; `x` itself if left out, and then a symmetric measure is computed once a pair.
    measure : str
        Name of a measure, see `measures`.
    base : float, optional
        Base of the logarithm, where the measure has one.
    normalize : bool
        Whether to divide rows by their sums first.
    out : array (n, m), optional
        Buffer of the result, also a `numpy.memmap`.
    condensed : bool
        Whether to return what is above the diagonal as a vector, as SciPy's ``pdist``.
    progress : bool or callable
        A bar on a terminal, or a function of (rows done, rows).
    **parameters
        Of the measure: ``weights`` of "js_divergence", ``alpha`` of "renyi_divergence".

    Returns
    -------
    array (n, m), or (n (n - 1) / 2,) if condensed
        In nats or units of `base`; float64 if either is float64 or integer, else float32.

    Raises
    ------
    TypeError, ValueError
        If an array holds no real numbers or a negative one, shapes do not agree, the measure or a
        parameter is unknown, or `condensed` is asked of what is not symmetric.

    Notes
    -----
    Without `y` the diagonal of a divergence is exactly 0, that of "cross_entropy" the entropy. A
    row that holds NaN or inf, or sums to 0, gives NaN in its pairs. Separable measures are matrix
    products, the others one logarithm a bin, both measured from the mean row; pairs that come out
    small beside their error bound are computed again in float64, so that relative errors stay below
    2e-5 (float32, 16 bits) or 1e-12 (float64) all the way to zero.

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37
       (1991).

    Examples
    --------
    >>> import fastinfo
    >>> fastinfo.pairwise([[1, 0], [0, 1], [1, 1]], base=2).round(4)
    array([[0.    , 1.    , 0.3113],
           [1.    , 0.    , 0.3113],
           [0.3113, 0.3113, 0.    ]])
    """
    job, sources = job_of(x, y, measure, base, normalize, parameters)
    module, real = home("pairs", sources[0].device), job.real
    if condensed and not job.symmetric:
        given = "".join(f", {name}={value!r}" for name, value in parameters.items())
        got = "an array as y" if y is not None else f"measure={measure!r}{given}"
        raise ValueError(
            f"condensed must be False unless y is left out and the measure is symmetric with its "
            f"parameters, got {got}"
        )
    n, m = job.x.count, job.y.count
    shape = (n * (n - 1) // 2,) if condensed else (n, m)
    target = (
        empty(shape, real, sources[0])
        if out is None
        else output("out", out, shape, real, sources, None)
    )
    with reporter(progress, n) as report:
        for lo, band in module.bands(job, None if condensed else target):
            _place(target, lo, band, condensed)
            report(lo + band.shape[0])
    if job.symmetric and not condensed:
        module.mirror(target)
    return give(target, sources[0]) if out is None else out


def job_of(
    x: Any,
    y: Any,
    measure: str,
    base: float | None,
    normalize: bool,
    parameters: dict[str, Any],
    half: bool = True,
) -> tuple[Any, Sequence[Source]]:
    """Return all pairs of rows as the kernels take them, and the arrays they came from."""
    row = MEASURES[checks.one_of("measure", measure, MEASURES, ELSEWHERE)]
    parameter = _parameter(row, parameters)
    row, unit = row.at(parameter, normalize), _unit(row, base)
    if isinstance(y, str):
        raise TypeError(
            f"y must be an array, got the string {y!r}; name a measure as measure={y!r}"
        )
    given = {"x": x} if y is None else {"x": x, "y": y}
    if any(is_sparse(array) for array in given.values()):
        sources, sides = zip(
            *(sparse_side(*pair, normalize) for pair in given.items()), strict=True
        )
    else:
        sources = tuple(read(*pair) for pair in given.items())
        same_device(*sources)
        sides = _sides(home("pairs", sources[0].device), sources, normalize)
    _same_width(sides, given)
    real = computed_in(promote(*sources))
    module = home("pairs", sources[0].device)
    job = module.Job(row, sides[0], sides[-1], y is None, real, parameter, unit, normalize, half)
    return job, sources


def check_options(measure: str, base: float | None, parameters: dict[str, Any]) -> None:
    """Raise for parameters that a measure has not, or has and that are wrong or missing."""
    row = MEASURES[measure]
    _parameter(row, parameters)
    _unit(row, base)


def _parameter(row: Measure, given: dict[str, Any]) -> float:
    """Return the number a measure's term takes; TypeError for a parameter it has not."""
    for name in given:
        if name not in row.parameters:
            known = ", ".join(row.parameters) or "none"
            raise TypeError(f"{row.name} has no parameter {name!r}; its parameters are: {known}")
    if "weights" in given:
        return checks.share_of_first(given["weights"])
    if "alpha" in given:
        return checks.order_of(given["alpha"])
    if "alpha" in row.parameters:
        raise TypeError(f"{row.name} needs the parameter 'alpha'")
    return 0.5


def _unit(row: Measure, base: float | None) -> float:
    if base is not None and not row.has_base:
        raise TypeError(f"{row.name} has no parameter 'base'")
    return checks.logarithm_of(base)


def _sides(module: Any, sources: Sequence[Source], normalize: bool) -> tuple[Any, ...]:
    sides = []
    for source in sources:
        _is_matrix(source.name, source.shape)
        bins = home("bins", source.device)
        rows, divisors = bins.with_divisors(source, Rows.of(source), bool(normalize))
        sides.append(module.Side.of(rows, divisors))
    return tuple(sides)


def _is_matrix(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {shape}")
    checks.some(name, shape, 1, "bin")


def _same_width(sides: Sequence[Any], given: dict[str, Any]) -> None:
    if sides[0].width != sides[-1].width:
        shapes = " and ".join(str(np.shape(array)) for array in given.values())
        raise ValueError(f"x and y must have the same number of bins, got shapes {shapes}")


# --- sparse rows ---------------------------------------------------------------------------------


def is_sparse(x: Any) -> bool:
    """Whether x is an array or matrix of scipy.sparse."""
    return hasattr(x, "tocsr") and type(x).__module__.startswith("scipy.sparse")


def sparse_side(name: str, x: Any, normalize: bool) -> tuple[Source, Any]:
    """Return rows with their empty bins left out, and their entries as an array."""
    from scipy.sparse import csr_array

    dense = None if is_sparse(x) else read(name, x)
    if dense is not None:
        checks.on_processor("pairwise of sparse rows", dense)
    _is_matrix(name, np.shape(x) if dense is None else dense.shape)
    if dense is not None:  # SciPy knows no 16-bit floats
        x = dense.values()
        x = x.astype(np.float32) if x.dtype == np.float16 else x
    rows = csr_array(x)
    _check_format(name, rows)
    source = read(name, rows.data)
    if source.storage != rows.dtype or not rows.data.dtype.isnative:
        rows = rows.astype(source.storage)
    if not rows.has_canonical_format or (rows.data == 0).any():
        rows = rows.copy()
        rows.sum_duplicates()
        rows.eliminate_zeros()
    negative = np.flatnonzero(rows.data < 0)
    if negative.size:
        first = negative[0]
        i = int(np.searchsorted(rows.indptr, first, side="right")) - 1
        place = (i, int(rows.indices[first]))
        raise ValueError(f"{name} must be at least 0, got {rows.data[first]} at position {place}")
    module = home("sparse", source.device)
    bins, starts = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    return dense or source, module.SparseSide.of(rows.data, bins, starts, rows.shape[1], normalize)


def _check_format(name: str, rows: Any) -> None:
    """ValueError if the arrays of a CSR array contradict each other."""
    bad = np.flatnonzero((rows.indices < 0) | (rows.indices >= rows.shape[1]))
    if bad.size:
        raise ValueError(
            f"{name}.indices must be in [0, {rows.shape[1]}), got {rows.indices[bad[0]]} "
            f"at position {bad[0]}"
        )
    try:
        rows.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(f"{name} must be a valid CSR array: {error}") from error


def _place(target: Any, lo: int, band: Any, condensed: bool) -> None:
    """Put a band where it belongs, unless it was computed there."""
    if not isinstance(target, np.ndarray):
        if condensed:
            home("pairs", "cuda").condensed(band, target)
        return
    if not condensed:
        if not np.may_share_memory(target, band):
            target[lo : lo + band.shape[0]] = band
        return
    n = band.shape[1]
    for i, values in enumerate(band, lo):
        begin = i * n - i * (i + 1) // 2
        target[begin : begin + n - 1 - i] = values[i + 1 :]


@contextmanager
def reporter(
    progress: bool | Callable[[int, int], object], total: int
) -> Iterator[Callable[[int], object]]:
    """Yield a function of the rows done."""
    if callable(progress):
        yield lambda done: progress(done, total)
    elif not isinstance(progress, bool):
        raise TypeError(f"progress must be a bool or callable, got {type(progress).__name__}")
    elif progress:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise ImportError(
                'progress=True needs tqdm: pip install "fastinfo[progress]"'
            ) from None
        with tqdm(total=total, unit="row", disable=None) as bar:
            yield lambda done: bar.update(done - bar.n)
    else:
        yield lambda done: None
