"""Functions for a user's own ``@njit`` code: rows of logits, pairs of distributions, exp and log.

They run in the interpreter too. Rows are one-dimensional contiguous arrays of float32 or float64,
``x[i]`` of a matrix (of ``for row in x`` Numba does not know that they are contiguous).
Results are float64 but those of `exp` and `log`, which have the type of what they are given; errors
are those of `fastinfo`'s functions of the same rows. In a loop over an array `exp` and `log` become
vectors, which `math.exp` does not.

Examples
--------
>>> import numpy as np
>>> from numba import njit
>>> from fastinfo.numba import cross_entropy
>>> @njit
... def mean_loss(logits, targets):
...     total = 0.0
...     for i in range(len(targets)):
...         total += cross_entropy(logits[i], targets[i])
...     return total / len(targets)
>>> print(round(mean_loss(np.zeros((2, 4)), np.array([0, 3])), 4))
1.3863
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from fastinfo.catalogue import MEASURES
from fastinfo.cpu import row_kernels, vmath
from fastinfo.cpu import row_state_kernels as rows
from fastinfo.cpu.bin_kernels import bin_value, total_of
from fastinfo.cpu.simd import fused, where
from fastinfo.engine import helper

__all__ = ["cross_entropy", "exp", "js_divergence", "kl_divergence", "log", "logsumexp"]

FLOATS = (types.float32, types.float64)


def __dir__() -> list[str]:
    return __all__


_LOG2_E, _LOG2_E_REST, _LN2 = 1.0 / math.log(2.0), 2.0355273740931033e-17, math.log(2.0)


# --- numbers -------------------------------------------------------------------------------------


def exp(x: Any) -> Any:
    """Return exp(x), to 2 units in the last place; a loop over it is compiled to vectors.

    Parameters
    ----------
    x : number
        A float32 or float64; integers are read as float64.

    Returns
    -------
    number
        Of the type of `x`; inf beyond its range, subnormal or 0 below.

    Notes
    -----
    NaN of NaN. A power of two, times 2^t by a polynomial, t from -1/2 to 1/2.

    References
    ----------
    .. [1] J.-M. Muller, "Elementary Functions", 3rd ed., Birkhäuser 2016.

    Examples
    --------
    >>> from fastinfo.numba import exp
    >>> exp(0.0)
    1.0
    """
    return _in_python(math.exp, x, math.inf)


def log(x: Any) -> Any:
    """Return the natural logarithm, to 3 units in the last place; a loop is compiled to vectors.

    Parameters
    ----------
    x : number
        A float32 or float64; integers are read as float64.

    Returns
    -------
    number
        Of the type of `x`; -inf of 0, NaN below.

    Notes
    -----
    inf of inf, NaN of NaN; subnormal numbers keep their digits. The mantissa's by a series of the
    inverse hyperbolic tangent.

    References
    ----------
    .. [1] J.-M. Muller, "Elementary Functions", 3rd ed., Birkhäuser 2016.

    Examples
    --------
    >>> from fastinfo.numba import log
    >>> log(1.0), log(0.0)
    (0.0, -inf)
    """
    if x <= 0:
        return _type(x)(-math.inf if x == 0 else math.nan)
    return _in_python(math.log, x, math.inf)


def _type(x: Any) -> Any:
    return np.float32 if isinstance(x, np.float32) else float


def _in_python(function: Callable[[float], float], x: Any, beyond: float) -> Any:
    try:
        return _type(x)(function(float(x)))
    except OverflowError:
        return _type(x)(beyond)


_exp2 = vmath.double.exp2


@helper
def _exp_of_double(x):  # type: ignore[no-untyped-def]
    """exp(x), far out a power of two apart, so that subnormal results keep their digits."""
    t = x * _LOG2_E
    lost = fused(x, _LOG2_E, -t) + x * _LOG2_E_REST
    lost = where(abs(x) < 2000.0, lost, 0.0)
    t = where(t > 1100.0, 1100.0, where(t < -1100.0, -1100.0, t))
    apart = where(t > 1000.0, 128.0, where(t < -1000.0, -128.0, 0.0))
    back = where(t > 1000.0, 2.0**128, where(t < -1000.0, 2.0**-128, 1.0))
    e = _exp2(t - apart)
    return where(x == x, (e + e * (lost * _LN2)) * back, x)


@helper
def _exp_of_single(x):  # type: ignore[no-untyped-def]
    return np.float32(_exp_of_double(np.float64(x)))


@overload(exp)
def _exp(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _exp_of_single(x)
    if isinstance(x, types.Integer | types.Float):
        return lambda x: _exp_of_double(np.float64(x))
    return None


_log_of_double = vmath.lanewise.log


@helper
def _log_of_single(x):  # type: ignore[no-untyped-def]
    return np.float32(_log_of_double(np.float64(x)))


@overload(log)
def _log(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _log_of_single(x)
    if isinstance(x, types.Integer | types.Float):
        return lambda x: _log_of_double(np.float64(x))
    return None


# --- rows of logits ------------------------------------------------------------------------------


def logsumexp(x: np.ndarray) -> float:
    """Return log Σ exp(x) of a row, without overflow.

    Parameters
    ----------
    x : array (V,)
        Logits, contiguous float32 or float64.

    Returns
    -------
    float
        -inf of a row of -inf only, NaN of one that holds NaN.

    Notes
    -----
    +inf of a row that holds it. As exact as `fastinfo.logsumexp`: 2e-6 of float32 rows, 1e-12 of
    float64 ones.

    References
    ----------
    .. [1] P. Blanchard, D. Higham and N. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> from fastinfo.numba import logsumexp
    >>> print(round(logsumexp(np.array([1000.0, 1000.0])), 4))
    1000.6931
    """
    return _compiled(logsumexp)(x)


def cross_entropy(x: np.ndarray, target: int) -> float:
    """Return -log softmax(x)[target] of a row.

    Parameters
    ----------
    x : array (V,)
        Logits, contiguous float32 or float64.
    target : int
        A class of the row.

    Returns
    -------
    float
        In nats; NaN of a row that holds NaN or +inf, or only -inf.

    Raises
    ------
    IndexError
        If `target` is no class of the row.

    Notes
    -----
    inf of a target at -inf. As exact as `fastinfo.softmax_cross_entropy`, near 0 too: 2e-6 of
    float32 rows, 1e-12 of float64 ones.

    References
    ----------
    .. [1] P. Blanchard, D. Higham and N. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> from fastinfo.numba import cross_entropy
    >>> print(round(cross_entropy(np.array([0.0, 0.0, -np.inf]), 1), 4))
    0.6931
    """
    return _compiled(cross_entropy)(x, target)


@cache
def _state_of(storage: str) -> Any:
    """Return read(x, target): the state of a row as `row_state_kernels` has it."""
    read = rows.piece_reader(storage, "", "none", storage, False)

    def state_of(x, target):  # type: ignore[no-untyped-def]
        state, option = np.empty(rows.STATE), np.zeros(rows.OPTIONS)
        option[rows.ALPHA], option[rows.LOG2_SCALE] = 1.0, _LOG2_E
        option[rows.INVERSE_TEMPERATURE], option[rows.SLOPE] = 1.0, 1.0
        read(x, x[:0], option[:0], 0, target, np.nan, -np.inf, 0, option, state)
        return state

    return _njit(state_of)


@overload(logsumexp)
def _logsumexp(x):  # type: ignore[no-untyped-def]
    state_of = _state_of(_storage("logsumexp", x))

    def value(x):  # type: ignore[no-untyped-def]
        state = state_of(x, -1)
        top, rest = state[rows.MAX], state[rows.REST]
        return top + np.log1p(rest) if abs(top) < np.inf else top

    return value


@overload(cross_entropy)
def _cross_entropy(x, target):  # type: ignore[no-untyped-def]
    state_of, finish = _state_of(_storage("cross_entropy", x)), row_kernels.loss_of("")

    def value(x, target):  # type: ignore[no-untyped-def]
        if target < 0 or target >= x.size:
            raise IndexError("target must be a class of the row")
        option = np.zeros(rows.OPTIONS)
        option[rows.ALPHA], option[rows.INVERSE_TEMPERATURE] = 1.0, 1.0
        return finish(state_of(x, target), target, 1.0, option[:0], option)

    return value


# --- distributions -------------------------------------------------------------------------------


def kl_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence Σ p log(p / q) of two rows divided by their sums.

    Parameters
    ----------
    p, q : array (K,)
        Distributions or counts, at least 0, contiguous float32 or float64.

    Returns
    -------
    float
        In nats; inf where p > 0 and q = 0; NaN of rows that hold NaN, inf or a negative number, or
        whose sum is 0 or beyond float64.

    Raises
    ------
    ValueError
        If the rows are not of one length.

    Notes
    -----
    The numbers of `fastinfo.kl_divergence` before they are rounded to float32: 0 of equal rows,
    never negative, all digits near 0.

    References
    ----------
    .. [1] S. Kullback and R. Leibler, "On information and sufficiency", Ann. Math. Stat. 22 (1951).

    Examples
    --------
    >>> import numpy as np
    >>> from fastinfo.numba import kl_divergence
    >>> print(round(kl_divergence(np.array([1.0, 0.0]), np.array([1.0, 1.0])), 4))
    0.6931
    """
    return _compiled(kl_divergence)(p, q)


def js_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two rows divided by their sums.

    Half of KL(p, m) and of KL(q, m), m their mean.

    Parameters
    ----------
    p, q : array (K,)
        As for `kl_divergence`.

    Returns
    -------
    float
        In nats, at most log 2; NaN as for `kl_divergence`.

    Raises
    ------
    ValueError
        If the rows are not of one length.

    Notes
    -----
    The numbers of `fastinfo.js_divergence` before they are rounded to float32.

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37
       (1991).

    Examples
    --------
    >>> import numpy as np
    >>> from fastinfo.numba import js_divergence
    >>> print(round(js_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])), 4))
    0.6931
    """
    return _compiled(js_divergence)(p, q)


@cache
def _value_of(measure: str, p_storage: str, q_storage: str, parameter: float) -> Any:
    """Return value(p, q) of a measure, computed in float64."""
    value_of = bin_value(MEASURES[measure].total, p_storage, q_storage)
    add_p, add_q = total_of(p_storage), total_of(q_storage)

    def value(p, q):  # type: ignore[no-untyped-def]
        if p.size != q.size:
            raise ValueError("p and q must be of one length")
        p_total, p_rest, p_lowest = add_p(p)
        q_total, q_rest, q_lowest = add_q(q)
        if not (0.0 < p_total < np.inf and 0.0 < q_total < np.inf):
            return np.nan
        if p_lowest < 0.0 or q_lowest < 0.0:
            return np.nan
        return value_of(p, q, p_total, p_rest, q_total, q_rest, parameter)

    return value


@overload(kl_divergence)
def _kl_divergence(p, q):  # type: ignore[no-untyped-def]
    storages = _storage("kl_divergence", p), _storage("kl_divergence", q)
    return _value_of("kl_divergence", *storages, 0.0)


@overload(js_divergence)
def _js_divergence(p, q):  # type: ignore[no-untyped-def]
    storages = _storage("js_divergence", p), _storage("js_divergence", q)
    return _value_of("js_divergence", *storages, 0.5)


# --- what they share -----------------------------------------------------------------------------


def _storage(function: str, x: Any) -> str:
    """Return the dtype of a row; TypingError for what is none."""
    if isinstance(x, types.Array) and x.ndim == 1 and x.layout == "C" and x.dtype in FLOATS:
        return str(x.dtype)
    raise TypingError(
        f"fastinfo.numba.{function} takes contiguous rows of float32 or float64, got {x}"
    )


def _njit(function: Callable[..., Any]) -> Any:
    from numba import njit

    return njit(function, error_model="numpy", nogil=True)


@cache
def _compiled(function: Callable[..., Any]) -> Any:
    """Return a function that calls another in compiled code, for calls from the interpreter."""
    if function is logsumexp:
        return _njit(lambda x: function(x))
    return _njit(lambda x, y: function(x, y))
