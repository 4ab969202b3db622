"""Losses and statistics of softmax distributions given by logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastinfo import checks
from fastinfo.arrays import Rows, Source, as_result, empty, give, output, read, same_device
from fastinfo.dispatch import home
from fastinfo.reductions import (
    classes_last,
    exponential,
    gradient_buffer,
    reduced,
    row_weights,
    targets_of,
    weights_of,
    with_gradient,
)


class SoftmaxStatistics(NamedTuple):
    """Figures of softmax distributions, arrays with one entry a row; see `softmax_statistics`.

    Attributes
    ----------
    max, log_sum, logsumexp, entropy, target_log_prob : array
        In nats, float64 for float64 logits, else float32; log_sum is logsumexp - max.
    argmax, target_rank : array
        Classes, and how many come before the target, int64; -1 where there is none.
    """

    max: Any
    log_sum: Any
    logsumexp: Any
    entropy: Any
    argmax: Any
    target_log_prob: Any
    target_rank: Any


def softmax_cross_entropy(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    reduction: str = "mean",
    return_grad: bool = False,
    out: Any = None,
) -> Any:
    r"""Cross-entropy of softmax distributions and targets, :math:`-\sum_k y_k w_k \log p_k`.

    One streaming reading of the logits; with the gradient a second one, from cache.
    With z = logits / temperature (or softcap · tanh(logits / (temperature · softcap))), y the
    targets smoothed to (1 - label_smoothing) y + label_smoothing / V and w the class weights, a row
    is sample_weight · (-Σ_k y_k w_k log softmax(z)_k + z_loss · logsumexp(z)²).

    Parameters
    ----------
    logits : array (..., V)
        Unnormalised log-probabilities, floats of 16 to 64 bits or integers; -inf is a class of
        probability 0.
    targets : integer array (...) or array (..., V)
        Classes, or with the logits' shape probabilities, whose rows need not sum to 1.
    axis : int
        Axis of the classes.
    class_weight : array (V,), optional
        Finite weights of at least 0.
    sample_weight : array (...), optional
        Finite weights of at least 0; rows of weight 0 are ignored.
    ignore_index : int
        Integer target of rows that are not read; their gradient is exactly 0.
    label_smoothing : float
        In [0, 1].
    z_loss : float
        Factor of logsumexp², finite and at least 0.
    temperature : float
        From 2**-100 to 2**100.
    softcap : float, optional
        Bound of the logits, in the same range.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum by Σ sample_weight · class_weight[target] over rows not ignored
        (integers), or by Σ sample_weight (probabilities).
    return_grad : bool
        Whether to return the derivative of the reduced loss (of the sum for "none") as well.
    out : array (..., V), optional
        Buffer of the gradient, of the logits' dtype; may be `logits` itself.

    Returns
    -------
    loss : scalar, or array (...) for "none"
        In nats; float64 for float64 and integer logits, else float32.
    grad : array (..., V)
        Only with `return_grad`; of the logits' dtype, float64 for integers.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or integer targets are floats.
    IndexError
        If a target is out of range.
    ValueError
        If shapes do not agree, or a parameter or `out` breaks its rule.

    Notes
    -----
    A row that holds NaN or +inf, or only -inf, is NaN. A masked class that carries weight makes the
    loss inf. The mean over no rows is NaN. Errors stay below 2e-5 relative (1e-9 absolute) for
    float32 and 16 bits, 1e-12 (1e-15) for float64, whatever constant is added to the logits.

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016 (smoothing).
    .. [2] A. Chowdhery et al., "PaLM", JMLR 24 (2023), section 5 (z-loss).

    Examples
    --------
    >>> import numpy as np
    >>> import fastinfo
    >>> logits = np.log([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]])
    >>> print(round(fastinfo.softmax_cross_entropy(logits, [0, 1]), 4))
    0.4338
    >>> loss, grad = fastinfo.softmax_cross_entropy(logits, [0, 1], return_grad=True)
    >>> grad.round(2)
    array([[-0.15,  0.1 ,  0.05],
           [ 0.15, -0.2 ,  0.05]])
    """
    result, shape, total, grad, x = _cross_entropy(
        logits, targets, axis, class_weight, sample_weight, ignore_index, label_smoothing, z_loss,
        temperature, softcap, reduction, return_grad, out,
    )  # fmt: skip
    return with_gradient(result, shape, reduction, total, x, grad, x, out)


def _cross_entropy(
    logits: Any, targets: Any, axis: int, class_weight: Any, sample_weight: Any, ignore_index: int,
    label_smoothing: float, z_loss: float, temperature: float, softcap: float | None,
    reduction: str, return_grad: bool, out: Any,
) -> tuple[np.ndarray, tuple[int, ...], float, np.ndarray | None, Source]:  # fmt: skip
    """Losses of the rows in float64, their shape, what a mean divides by, the gradient."""
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    smoothing = checks.number("label_smoothing", label_smoothing, 0.0, 1.0, "in [0, 1]")
    x, y = read("logits", logits), read("targets", targets)
    same_device(x, y)
    axis = checks.axis_of(axis, len(x.shape), "logits")
    checks.some("logits", x.shape, axis, "class")
    rows = Rows.of(x, axis)
    soft = y.shape == x.shape
    if not soft and y.shape != rows.shape:
        raise ValueError(
            f"targets must have shape {rows.shape} (integers) or {x.shape} (probabilities), "
            f"got {y.shape}"
        )
    ignored = checks.integer("ignore_index", ignore_index)
    hint = "; probabilities have the shape of the logits"
    classes = None if soft else targets_of(y, rows.width, ignored, hint)
    weight = weights_of("class_weight", class_weight, (rows.width,), "class", x)
    active, total = row_weights(sample_weight, rows.shape, classes, weight, reduction, x)
    module = home("rows", x.device)
    problem = module.Problem(
        rows,
        options_of(
            module,
            temperature,
            softcap,
            alpha=1.0 - smoothing,
            beta=smoothing / rows.width,
            z_loss=checks.number("z_loss", z_loss, 0.0, rule="finite and at least 0"),
        ),
        targets=classes,
        soft=Rows.of(y, axis) if soft else None,
        class_weight=weight,
        active=active,
    )
    given = {"class_weight": class_weight, "sample_weight": sample_weight}
    others = [read(name, value) for name, value in given.items() if value is not None]
    grad = gradient_buffer(return_grad, out, x, [x, y, *others])
    result = module.losses(problem, None if grad is None else classes_last(grad, axis))
    return result, rows.shape, total, grad, x


def perplexity(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    sample_weight: Any = None,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Any:
    """Perplexity of softmax distributions on targets, exp of the mean cross-entropy.

    Parameters
    ----------
    logits, targets, axis, sample_weight, ignore_index, temperature, softcap
        As for `softmax_cross_entropy`.

    Returns
    -------
    scalar
        At least 1, without unit: among how many classes a uniform guess would do as well.

    Raises
    ------
    TypeError, IndexError, ValueError
        As `softmax_cross_entropy`.

    Notes
    -----
    NaN if all rows are ignored, inf beyond the range of the result's dtype.

    References
    ----------
    .. [1] F. Jelinek et al., "Perplexity - a measure of the difficulty of speech recognition
       tasks", JASA 62 (1977).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.perplexity([[0.0, 0.0, 0.0, 0.0]], [2]))
    4.0
    """
    losses, shape, total, _, x = _cross_entropy(
        logits, targets, axis, None, sample_weight, ignore_index, 0.0, 0.0, temperature, softcap,
        "mean", False, None,
    )  # fmt: skip
    return give(as_result(exponential(reduced(losses, shape, "mean", total, x), x), x.result), x)


def softmax_statistics(
    logits: Any,
    targets: Any = None,
    *,
    axis: int = -1,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> SoftmaxStatistics:
    """Figures of softmax distributions from one reading, logsumexp = max + log_sum the first.

    Parameters
    ----------
    logits : array (..., V)
        Floats of 16 to 64 bits or integers.
    targets : integer array (...), optional
        Classes whose probability and rank are asked for.
    axis, ignore_index, temperature, softcap
        As for `softmax_cross_entropy`.

    Returns
    -------
    SoftmaxStatistics
        Arrays (...), of z = logits / temperature or its softcap: `max`; `log_sum`
        = log Σ exp(z - max); `logsumexp`; `entropy` in nats; `argmax`, int64, the first of equals;
        with targets `target_log_prob`, in nats, NaN where ignored, and `target_rank`, int64: how
        many logits are greater, or equal with a smaller index, -1 where ignored.

    Raises
    ------
    TypeError, IndexError, ValueError
        As `softmax_cross_entropy`.

    Notes
    -----
    ``target_rank < k`` is top-k accuracy. Rows of only -inf, or with +inf or NaN, are NaN; `max`
    and `logsumexp` follow SciPy there. Accuracy as for `softmax_cross_entropy`.

    References
    ----------
    .. [1] M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax",
       arXiv:1805.02867 (2018).

    Examples
    --------
    >>> import fastinfo
    >>> figures = fastinfo.softmax_statistics([[0.0, 2.0, 1.0]], [2])
    >>> int(figures.argmax[0]), int(figures.target_rank[0])
    (1, 1)
    """
    x = read("logits", logits)
    axis = checks.axis_of(axis, len(x.shape), "logits")
    checks.some("logits", x.shape, axis, "class")
    rows = Rows.of(x, axis)
    classes = None
    if targets is not None:
        y = read("targets", targets)
        same_device(x, y)
        if y.shape != rows.shape:
            raise ValueError(f"targets must have shape {rows.shape}, got {y.shape}")
        classes = targets_of(y, rows.width, checks.integer("ignore_index", ignore_index))
    module = home("rows", x.device)
    options = options_of(module, temperature, softcap)
    known = classes is not None
    problem = module.Problem(rows, options, targets=classes, statistics=True, ranks=known)
    figures = module.statistics(problem)
    return statistics_from(figures, rows.shape, x.result, x, known, known)


def statistics_from(
    figures: Any, shape: tuple[int, ...], real: str, like: Source, known: bool, ranked: bool
) -> SoftmaxStatistics:
    """Figures of rows as arrays in their shape; the last two only if they are known."""
    module = home("rows", like.device)

    def field(number: int, dtype: str) -> Any:
        values = figures[number].reshape(shape)
        made = isinstance(values, np.ndarray) and values.dtype == dtype
        return give(values if made else as_result(values, dtype), like)

    largest, log_sum, lse, entropy = (field(number, real) for number in module.REAL_FIGURES)
    return SoftmaxStatistics(
        largest,
        log_sum,
        lse,
        entropy,
        field(module.ARGMAX, "int64"),
        field(module.LOG_PROB, real) if known else None,
        field(module.RANK, "int64") if ranked else None,
    )


def options_of(
    module: Any, temperature: float, softcap: float | None = None, **weights: float
) -> Any:
    """Scalars of a softmax, checked."""
    degree = checks.temperature_of(temperature)
    return module.Options(degree, checks.softcap_of(softcap, degree), **weights)


def logsumexp(x: Any, *, axis: int = -1, keepdims: bool = False) -> Any:
    r"""Logarithm of a sum of exponentials, :math:`\log \sum_k e^{x_k}`.

    Parameters
    ----------
    x : array (..., V)
        Floats of 16 to 64 bits or integers.
    axis : int
        Axis summed over.
    keepdims : bool
        Whether the axis stays, with length 1.

    Returns
    -------
    array (...)
        float64 for float64 and integers, else float32.

    Raises
    ------
    TypeError, ValueError
        If `x` does not hold real numbers, or has no such axis or nothing along it.

    Notes
    -----
    As `scipy.special.logsumexp`: -inf for only -inf, inf with +inf, NaN with NaN. Errors stay below
    2e-5 (float32, 16 bits) or 1e-12 (float64) times max(1, \|value\|).

    References
    ----------
    .. [1] P. Blanchard, D. Higham and N. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import fastinfo
    >>> print(round(fastinfo.logsumexp([1000.0, 1000.0]), 4))
    1000.6931
    """
    source, axis, problem, module = _plain("x", x, axis, 1.0)
    value = module.logsumexp(problem).reshape(problem.logits.shape)
    if keepdims:
        value = np.expand_dims(value, axis)
    return give(as_result(value, source.result), source)


def softmax(x: Any, *, axis: int = -1, temperature: float = 1.0, out: Any = None) -> Any:
    r"""Softmax, :math:`e^{x_k / T} / \sum_j e^{x_j / T}`.

    Parameters
    ----------
    x : array (..., V)
        Floats of 16 to 64 bits or integers.
    axis : int
        Axis normalised over.
    temperature : float
        From 2**-100 to 2**100.
    out : array (..., V), optional
        Buffer of the result, float64 for float64 and integers, else float32.

    Returns
    -------
    array (..., V)
        Probabilities, in the dtype of `out`.

    Raises
    ------
    TypeError, ValueError
        If `x` does not hold real numbers, or an argument breaks its rule.

    Notes
    -----
    -inf gives exactly 0; a row of only -inf, or with +inf or NaN, gives NaN. Relative errors stay
    below 2e-5 (float32, 16 bits) or 1e-12 (float64) down to the smallest normal number.

    References
    ----------
    .. [1] P. Blanchard, D. Higham and N. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import fastinfo
    >>> fastinfo.softmax([2.0, 1.0, 0.1]).round(3)
    array([0.659, 0.242, 0.099])
    """
    return _write("softmax", x, axis, temperature, out)


def log_softmax(x: Any, *, axis: int = -1, temperature: float = 1.0, out: Any = None) -> Any:
    r"""Logarithm of the softmax, :math:`x_k / T - \log \sum_j e^{x_j / T}`.

    Parameters
    ----------
    x, axis, temperature, out
        As for `softmax`.

    Returns
    -------
    array (..., V)
        Log-probabilities in nats, float64 for float64 and integers, else float32.

    Raises
    ------
    TypeError, ValueError
        As `softmax`.

    Notes
    -----
    -inf stays -inf; a row of only -inf, or with +inf or NaN, gives NaN. Errors stay below 2e-5
    (float32, 16 bits) or 1e-12 (float64) times max(1, \|value\|).

    References
    ----------
    .. [1] P. Blanchard, D. Higham and N. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import fastinfo
    >>> fastinfo.log_softmax([2.0, 1.0, 0.1]).round(3)
    array([-0.417, -1.417, -2.317])
    """
    return _write("log_softmax", x, axis, temperature, out)


def _plain(name: str, x: Any, axis: int, temperature: float) -> tuple[Source, int, Any, Any]:
    source = read(name, x)
    axis = checks.axis_of(axis, len(source.shape), name)
    checks.some(name, source.shape, axis, "class")
    module = home("rows", source.device)
    problem = module.Problem(Rows.of(source, axis), options_of(module, temperature))
    return source, axis, problem, module


def _write(function: str, x: Any, axis: int, temperature: float, out: Any) -> Any:
    source, axis, problem, module = _plain("x", x, axis, temperature)
    if out is None:
        target = empty(source.shape, source.result, source)
    else:
        target = output("out", out, source.shape, source.result, [source], alias=None)
    getattr(module, function)(problem, classes_last(target, axis))
    return give(target, source) if out is None else out


def negative_log_likelihood(
    q: Any,
    targets: Any,
    *,
    axis: int = -1,
    base: float | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """Negative log-likelihood of targets under given probabilities, -log q[target].

    From logits use `softmax_cross_entropy`.

    Parameters
    ----------
    q : array (..., V)
        Probabilities, floats of 16 to 64 bits or integers.
    targets : integer array (...)
        Classes.
    axis : int
        Axis of the classes.
    base : float, optional
        Base of the logarithm, e by default.
    ignore_index : int
        Target of rows that are left out, whatever they hold.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum by the number of rows not ignored.

    Returns
    -------
    scalar, or array (...) for "none"
        In nats, or units of `base`; float64 for float64 and integers, else float32.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or targets are floats.
    IndexError
        If a target is out of range.
    ValueError
        If a probability of a row not ignored is outside [0, 1], shapes do not agree, or a parameter
        breaks its rule.

    Notes
    -----
    A probability of 0 gives inf. A row that holds NaN is NaN. Rows need not sum to 1. The mean over
    no rows is NaN. Errors stay below 2e-5 relative (1e-9 absolute) for float32 and 16 bits, 1e-12
    (1e-15) for float64.

    References
    ----------
    .. [1] I. J. Good, "Rational decisions", J. R. Stat. Soc. B 14 (1952).

    Examples
    --------
    >>> import fastinfo
    >>> q = [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]
    >>> print(fastinfo.negative_log_likelihood(q, [0, 2], base=2))
    2.0
    """
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    unit = checks.logarithm_of(base)
    source, y = read("q", q), read("targets", targets)
    same_device(source, y)
    checks.on_processor("negative_log_likelihood", source)
    axis = checks.axis_of(axis, len(source.shape), "q")
    checks.some("q", source.shape, axis, "class")
    rows = Rows.of(source, axis)
    if y.shape != rows.shape:
        raise ValueError(f"targets must have shape {rows.shape}, got {y.shape}")
    classes = targets_of(y, rows.width, checks.integer("ignore_index", ignore_index))
    module = home("extents", source.device)
    figures = module.extents(rows)
    kept = classes >= 0
    outside = (figures[module.LOWEST] < 0.0) | (figures[module.HIGHEST] > 1.0)
    if (outside & kept).any():
        _refuse_improbable(source, np.expand_dims(kept.reshape(rows.shape), axis))
    with np.errstate(divide="ignore"):
        losses = (0.0 - np.log(rows.pick(classes))) / unit  # at q = 1 a zero without a sign
    losses = np.where(np.isnan(figures[module.SUM]), np.nan, losses)
    values = np.where(kept, losses, 0.0)
    count = int(kept.sum())
    if reduction == "mean" and count:
        values /= count
    total = 1.0 if reduction == "sum" else count
    result = reduced(values, rows.shape, reduction, total, source)
    return give(as_result(result, source.result), source)


def _refuse_improbable(q: Source, kept: np.ndarray) -> None:
    """ValueError for the first value outside [0, 1] in a row that is kept."""
    values = q.values()
    rule = "in [0, 1] (logits go to softmax_cross_entropy; of log-probabilities pass np.exp(q))"
    outside = ((values < 0) | (values > 1)) & kept
    checks.refuse(q.name, rule, values, outside, ValueError, "position")
