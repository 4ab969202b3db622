"""Measures of distributions, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastinfo import checks, formulas
from fastinfo.arrays import (
    Rows,
    Source,
    as_result,
    computed_in,
    empty,
    give,
    promote,
    read,
    same_device,
)
from fastinfo.catalogue import MEASURES, Sum
from fastinfo.dispatch import home


def entropy(
    p: Any,
    *,
    base: float | None = None,
    axis: int = -1,
    keepdims: bool = False,
    normalize: bool = True,
) -> Any:
    r"""Shannon entropy, :math:`-\sum_k p_k \log p_k`.

    Parameters
    ----------
    p : array
        Probabilities or counts, at least 0: floats of 16 to 64 bits, integers or booleans.
    base : float, optional
        Base of the logarithm, positive and not 1; e if left out.
    axis : int
        Axis of the bins.
    keepdims : bool
        Whether the axis stays, with length 1.
    normalize : bool
        Whether to divide by the sums first.

    Returns
    -------
    array
        In nats, or units of `base`; float64 for float64 and integers, else float32.

    Raises
    ------
    TypeError, ValueError
        If `p` holds no real numbers, a negative one, or no bins, or an argument breaks its rule.

    Notes
    -----
    0 log 0 = 0. A row that sums to 0, or holds inf or NaN, gives NaN. Computed in float64: errors
    are below 1e-12 relative or 1e-15 absolute before the result is rounded.

    References
    ----------
    .. [1] C. Shannon, "A mathematical theory of communication", Bell Syst. Tech. J. 27 (1948).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.entropy([1, 1, 2], base=2))
    1.5
    """
    x = read("p", p)
    total = Sum(formulas.entropy_term)
    return _measure(total, formulas.same, [x], base, axis, keepdims, normalize)


def cross_entropy(
    p: Any,
    q: Any,
    *,
    base: float | None = None,
    axis: int = -1,
    keepdims: bool = False,
    normalize: bool = True,
) -> Any:
    r"""Cross-entropy, :math:`-\sum_k p_k \log q_k`.

    Parameters
    ----------
    p, q : array
        Probabilities or counts, at least 0, which broadcast: floats of 16 to 64 bits, integers or
        booleans.
    base, axis, keepdims, normalize
        As for `entropy`.

    Returns
    -------
    array
        In nats, or units of `base`; float64 if either is float64 or integer, else float32.

    Raises
    ------
    TypeError, ValueError
        As `entropy`; if `p` and `q` do not broadcast or live on different devices.

    Notes
    -----
    0 log q = 0; p > 0 with q = 0 gives inf. NaN, and accuracy, as for `entropy`.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., section 5.4.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.cross_entropy([0.5, 0.5], [0.25, 0.75], base=4).round(4))
    0.6038
    """
    return _two("cross_entropy", p, q, base, axis, keepdims, normalize)


def kl_divergence(
    p: Any,
    q: Any,
    *,
    base: float | None = None,
    axis: int = -1,
    keepdims: bool = False,
    normalize: bool = True,
) -> Any:
    r"""Kullback-Leibler divergence, :math:`\sum_k p_k \log(p_k / q_k)`.

    Parameters
    ----------
    p, q, base, axis, keepdims, normalize
        As for `cross_entropy`.

    Returns
    -------
    array
        At least 0 for normalised rows, in nats or units of `base`; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Notes
    -----
    p = 0 adds nothing; p > 0 with q = 0 gives inf. Relative errors stay below 1e-12 down to 1e-7,
    and fall with the root below; equal rows give exactly 0.

    References
    ----------
    .. [1] S. Kullback and R. Leibler, "On information and sufficiency", Ann. Math. Stat. 22 (1951).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.kl_divergence([0.5, 0.5], [0.25, 0.75], base=2).round(4))
    0.2075
    """
    return _two("kl_divergence", p, q, base, axis, keepdims, normalize)


def js_divergence(
    p: Any,
    q: Any,
    weights: Sequence[float] = (0.5, 0.5),
    *,
    base: float | None = None,
    axis: int = -1,
    keepdims: bool = False,
    normalize: bool = True,
) -> Any:
    r"""Jensen-Shannon divergence, :math:`w_1 KL(p, m) + w_2 KL(q, m)`, :math:`m = w_1 p + w_2 q`.

    Parameters
    ----------
    p, q : array
        As for `cross_entropy`.
    weights : pair of float
        Positive; scaled to sum 1.
    base, axis, keepdims, normalize
        As for `entropy`.

    Returns
    -------
    array
        From 0 to log 2, in nats or units of `base`; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; if a weight is not positive.

    Notes
    -----
    Always finite for distributions. Accuracy as for `kl_divergence`, unless the second weight is
    less than 1e-4 of the first: it is taken as 1 less the first's share. `js_distance` is its root,
    what SciPy calls ``jensenshannon``.

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37
       (1991).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.js_divergence([1.0, 0.0], [0.0, 1.0], base=2))
    1.0
    """
    share = checks.share_of_first(weights)
    return _two("js_divergence", p, q, base, axis, keepdims, normalize, share)


def js_distance(
    p: Any,
    q: Any,
    *,
    base: float | None = None,
    axis: int = -1,
    keepdims: bool = False,
    normalize: bool = True,
) -> Any:
    r"""Jensen-Shannon distance, :math:`\sqrt{JS(p, q)}`, a metric.

    Parameters
    ----------
    p, q, base, axis, keepdims, normalize
        As for `cross_entropy`; `base` is applied before the root, as in SciPy.

    Returns
    -------
    array
        From 0 to √log 2, in roots of nats or of units of `base`; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Notes
    -----
    Never NaN for distributions, however near. Accuracy as for `kl_divergence`.

    References
    ----------
    .. [1] D. Endres and J. Schindelin, "A new metric for probability distributions", IEEE Trans.
       Inf. Theory 49 (2003).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.js_distance([1.0, 0.0], [0.0, 1.0], base=2))
    1.0
    """
    return _two("js_distance", p, q, base, axis, keepdims, normalize)


def jeffreys_divergence(
    p: Any,
    q: Any,
    *,
    base: float | None = None,
    axis: int = -1,
    keepdims: bool = False,
    normalize: bool = True,
) -> Any:
    r"""Jeffreys divergence, :math:`\sum_k (p_k - q_k) \log(p_k / q_k)`, KL both ways, summed.

    Parameters
    ----------
    p, q, base, axis, keepdims, normalize
        As for `cross_entropy`.

    Returns
    -------
    array
        At least 0, in nats or units of `base`; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Notes
    -----
    A bin that is empty in one of both gives inf. Accuracy as for `kl_divergence`.

    References
    ----------
    .. [1] H. Jeffreys, "An invariant form for the prior probability in estimation problems", Proc.
       R. Soc. A 186 (1946).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.jeffreys_divergence([0.5, 0.5], [0.25, 0.75], base=2).round(4))
    0.3962
    """
    return _two("jeffreys_divergence", p, q, base, axis, keepdims, normalize)


def renyi_divergence(
    p: Any,
    q: Any,
    alpha: float,
    *,
    base: float | None = None,
    axis: int = -1,
    keepdims: bool = False,
    normalize: bool = True,
) -> Any:
    r"""Rényi divergence, :math:`\frac{1}{\alpha - 1} \log \sum_k p_k^\alpha q_k^{1 - \alpha}`.

    Parameters
    ----------
    p, q : array
        As for `cross_entropy`.
    alpha : float
        Order, at least 0. At 1 it is the KL divergence, at 0 -log Σ q over the bins where p > 0, at
        infinity the largest log(p / q).
    base, axis, keepdims, normalize
        As for `entropy`.

    Returns
    -------
    array
        At least 0 for normalised rows, in nats or units of `base`; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; if `alpha` is negative or NaN.

    Notes
    -----
    p > 0 with q = 0 gives inf for `alpha` of 1 and more; below, only disjoint supports do. Powers
    that overflow are measured from the largest ratio, so that every order gives a finite number
    where there is one. Accuracy as for `kl_divergence`; without normalisation near 1 the rounding
    of the sum counts, 1e-16 / abs(alpha - 1) (in `pairwise` of float32 1e-6 / abs(alpha - 1)).

    References
    ----------
    .. [1] T. van Erven and P. Harremoës, "Rényi divergence and Kullback-Leibler divergence", IEEE
       Trans. Inf. Theory 60 (2014).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.renyi_divergence([0.5, 0.5], [0.25, 0.75], 2, base=2).round(4))
    0.415
    """
    order = checks.order_of(alpha)
    return _two("renyi_divergence", p, q, base, axis, keepdims, normalize, order)


def bhattacharyya_distance(
    p: Any,
    q: Any,
    *,
    base: float | None = None,
    axis: int = -1,
    keepdims: bool = False,
    normalize: bool = True,
) -> Any:
    r"""Bhattacharyya distance, :math:`-\log \sum_k \sqrt{p_k q_k}`.

    Parameters
    ----------
    p, q, base, axis, keepdims, normalize
        As for `cross_entropy`.

    Returns
    -------
    array
        At least 0 for normalised rows, in nats or units of `base`; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Notes
    -----
    Disjoint supports give inf. Half the Rényi divergence of order ½; no metric. Accuracy as for
    `kl_divergence`; without normalisation the rounding of the sum counts, 1e-16.

    References
    ----------
    .. [1] A. Bhattacharyya, "On a measure of divergence between two statistical populations defined
       by their probability distributions", Bull. Calcutta Math. Soc. 35 (1943).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.bhattacharyya_distance([1, 1], [1, 3], base=2).round(4))
    0.05
    """
    return _two("bhattacharyya_distance", p, q, base, axis, keepdims, normalize)


def hellinger_distance(
    p: Any, q: Any, *, axis: int = -1, keepdims: bool = False, normalize: bool = True
) -> Any:
    r"""Hellinger distance, :math:`\sqrt{\frac12 \sum_k (\sqrt{p_k} - \sqrt{q_k})^2}`, a metric.

    Parameters
    ----------
    p, q, axis, keepdims, normalize
        As for `cross_entropy`.

    Returns
    -------
    array
        From 0 to 1, without unit; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Notes
    -----
    Accuracy as for `kl_divergence`.

    References
    ----------
    .. [1] E. Hellinger, J. reine angew. Math. 136 (1909).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.hellinger_distance([1, 0], [0, 1]))
    1.0
    """
    return _two("hellinger_distance", p, q, None, axis, keepdims, normalize)


def total_variation(
    p: Any, q: Any, *, axis: int = -1, keepdims: bool = False, normalize: bool = True
) -> Any:
    r"""Total variation distance, :math:`\frac12 \sum_k |p_k - q_k|`, a metric.

    Parameters
    ----------
    p, q, axis, keepdims, normalize
        As for `cross_entropy`.

    Returns
    -------
    array
        From 0 to 1, without unit; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Notes
    -----
    Accuracy as for `kl_divergence`.

    References
    ----------
    .. [1] D. Levin and Y. Peres, "Markov Chains and Mixing Times", 2nd ed., chapter 4.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.total_variation([1, 1], [1, 3]))
    0.25
    """
    return _two("total_variation", p, q, None, axis, keepdims, normalize)


def surprisal(p: Any, *, base: float | None = None) -> Any:
    r"""Surprisal of each probability, :math:`-\log p`.

    Parameters
    ----------
    p : array
        Probabilities, at least 0, taken as they are: floats of 16 to 64 bits, integers or booleans.
    base : float, optional
        Base of the logarithm, positive and not 1; e if left out.

    Returns
    -------
    array
        Of the shape of `p`, in nats, or units of `base`; float64 for float64 and integers, else
        float32.

    Raises
    ------
    TypeError, ValueError
        If `p` holds no real numbers or a negative one, or `base` breaks its rule.

    Notes
    -----
    p = 0 gives inf, inf gives NaN, and p > 1 a negative number. Errors are below 1e-15 relative
    before the result is rounded.

    References
    ----------
    .. [1] M. Tribus, "Thermostatics and Thermodynamics", 1961.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.surprisal([1.0, 0.5, 0.25, 0.0], base=2))
    [ 0.  1.  2. inf]
    """
    x = read("p", p)
    checks.on_processor("surprisal", x)
    unit = checks.logarithm_of(base)
    result = empty(x.shape, x.result)
    if x.data.size:
        rows = Rows.along(np.atleast_1d(x.data), x.dtype, x.storage)
        target = Rows.along(result.reshape(rows.data.shape), x.result, x.result)
        lowest = home("tables", x.device).surprisals(rows, unit, target)
        checks.no_negative(x, np.array(lowest))
    return give(result, x)


def _two(
    name: str,
    p: Any,
    q: Any,
    base: float | None,
    axis: int,
    keepdims: bool,
    normalize: bool,
    parameter: float = 0.5,
) -> Any:
    sources = [read("p", p), read("q", q)]
    same_device(*sources)
    row = MEASURES[name].at(parameter)
    total = row.total_for(normalize)
    return _measure(total, row.finish, sources, base, axis, keepdims, normalize, parameter)


def _measure(
    total: Sum,
    finish: Any,
    sources: list[Source],
    base: float | None,
    axis: int,
    keepdims: bool,
    normalize: bool,
    parameter: float = 0.5,
) -> Any:
    """What the bins of each row, or pair of rows, add up to, divided by log(base) and finished."""
    unit = checks.logarithm_of(base)
    first, last = sources[0], sources[-1]
    try:
        arrays = _broadcast(sources)
    except ValueError:
        shapes = " and ".join(str(s.shape) for s in sources)
        raise ValueError(f"p and q must broadcast, got shapes {shapes}") from None
    names = " and ".join(s.name for s in sources)
    axis = checks.axis_of(axis, arrays[0].ndim, names)
    checks.some(names, arrays[0].shape, axis, "bin")
    module = home("bins", first.device)
    rows, divisors = [], []
    for source, data in zip(sources, arrays, strict=True):
        row, divisor = module.with_divisors(source, _rows(source, data, axis), bool(normalize))
        rows.append(row)
        divisors.append(divisor)
    pairs = module.Pairs(rows[0], divisors[0], rows[-1], divisors[-1])
    shape = list(rows[0].shape)
    if keepdims:
        shape.insert(axis, 1)
    result = module.values(total, finish, pairs, parameter, unit).reshape(tuple(shape))
    real = computed_in(promote(first, last))
    return give(as_result(result, real), first)


def _broadcast(sources: list[Source]) -> Any:
    """Return the arrays in their common shape, as views."""
    if sources[0].device == "cpu":
        return np.broadcast_arrays(*(s.data for s in sources))
    shape = np.broadcast_shapes(*(s.shape for s in sources))
    return [s.data.broadcast(shape) for s in sources]


def _rows(source: Source, data: Any, axis: int) -> Any:
    """Return the rows of an array of the device of `source` along `axis`."""
    if source.device == "cpu":
        last = data if axis == data.ndim - 1 else np.moveaxis(data, axis, -1)
        return Rows.along(last, source.dtype, source.storage)
    return home("arrays", source.device).Rows.along(data.moved(axis), source)
