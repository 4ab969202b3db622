"""Entropy of softmax distributions, and divergences between two of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastinfo import checks
from fastinfo.arrays import Rows, promote, read, same_device
from fastinfo.dispatch import home
from fastinfo.reductions import classes_last, gradient_buffer, row_weights, with_gradient


def softmax_entropy(
    logits: Any,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    reduction: str = "none",
    return_grad: bool = False,
    out: Any = None,
) -> Any:
    r"""Entropy of softmax distributions, :math:`-\sum_k p_k \log p_k`.

    Parameters
    ----------
    logits : array (..., V)
        Floats of 16 to 64 bits or integers; -inf is a class of probability 0.
    axis : int
        Axis of the classes.
    temperature : float
        From 2**-100 to 2**100; p = softmax(logits / temperature).
    reduction : {"none", "mean", "sum"}
        Whether to return the rows, their mean or their sum.
    return_grad : bool
        Whether to return the derivative of the reduced entropy (of the sum for "none") as well.
    out : array (..., V), optional
        Buffer of the gradient, of the logits' dtype; may be `logits` itself.

    Returns
    -------
    entropy : array (...), or scalar
        In nats, between 0 and log V; float64 for float64 and integer logits, else float32.
    grad : array (..., V)
        Only with `return_grad`: -p_k (log p_k + entropy) / temperature, in the logits' dtype.

    Raises
    ------
    TypeError, ValueError
        If `logits` does not hold real numbers, or an argument breaks its rule.

    Notes
    -----
    A row that holds NaN or +inf, or only -inf, is NaN; the mean over no rows is NaN. Accuracy as
    for `softmax_cross_entropy`.

    References
    ----------
    .. [1] C. E. Shannon, "A Mathematical Theory of Communication", Bell Syst. Tech. J. 27 (1948).

    Examples
    --------
    >>> import numpy as np
    >>> import fastinfo
    >>> print(fastinfo.softmax_entropy(np.log([[0.5, 0.25, 0.25], [1.0, 1.0, 2.0]])).round(4))
    [1.0397 1.0397]
    """
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    x = read("logits", logits)
    axis = checks.axis_of(axis, len(x.shape), "logits")
    checks.some("logits", x.shape, axis, "class")
    rows = Rows.of(x, axis)
    active, total = row_weights(None, rows.shape, None, None, reduction, x)
    module = home("rows", x.device)
    options = module.Options(checks.temperature_of(temperature))
    problem = module.Problem(rows, options, active=active, way="entropy")
    grad = gradient_buffer(return_grad, out, x, [x])
    values = module.entropies(problem, None if grad is None else classes_last(grad, axis))
    return with_gradient(values, rows.shape, reduction, total, x, grad, x, out)


def softmax_kl_divergence(
    p_logits: Any,
    q_logits: Any,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    reduction: str = "mean",
    sample_weight: Any = None,
    return_grad: bool = False,
    out: Any = None,
) -> Any:
    r"""KL divergence of softmax distributions, :math:`\sum_k p_k \log(p_k / q_k)`.

    With a teacher's logits as p and a student's as q, the loss of knowledge distillation. Each
    array is read once, again for rows near 0 and for the gradient.

    Parameters
    ----------
    p_logits, q_logits : array (..., V)
        Floats of 16 to 64 bits or integers, which may differ in dtype; -inf is a class of
        probability 0.
    axis : int
        Axis of the classes.
    temperature : float
        From 2**-100 to 2**100; p = softmax(p_logits / temperature), and q alike.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum by Σ sample_weight.
    sample_weight : array (...), optional
        Finite weights of at least 0; rows of weight 0 are ignored.
    return_grad : bool
        Whether to return the derivative by `q_logits` as well.
    out : array (..., V), optional
        Buffer of the gradient, of the dtype of `q_logits`; may be `q_logits` itself.

    Returns
    -------
    divergence : scalar, or array (...) for "none"
        In nats, never negative; float64 if one of the arrays is float64 or integer, else float32.
        Not multiplied by temperature².
    grad : array (..., V)
        Only with `return_grad`: sample_weight / denominator · (q_k - p_k) / temperature.

    Raises
    ------
    TypeError, ValueError
        If arrays do not hold real numbers, shapes differ, or an argument breaks its rule.

    Notes
    -----
    Relative errors stay below 2e-5 (float32, 16 bits) or 1e-12 (float64; below 1e-7, that of
    √(1e-7 value)), all the way to 0; equal logits give exactly 0. A class that only q masks makes
    it inf, however small its p. A row where either holds NaN or +inf, or only -inf, is NaN; an
    ignored row is 0.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network",
       arXiv:1503.02531 (2015).

    Examples
    --------
    >>> import numpy as np
    >>> import fastinfo
    >>> teacher, student = np.log([[0.7, 0.2, 0.1]]), np.log([[0.5, 0.3, 0.2]])
    >>> value, grad = fastinfo.softmax_kl_divergence(teacher, student, return_grad=True)
    >>> print(value.round(4), grad.round(4))
    0.0851 [[-0.2  0.1  0.1]]
    """
    return _divergence(
        "kl", p_logits, q_logits, axis, temperature, 1.0, reduction, sample_weight, return_grad, out
    )


def softmax_js_divergence(
    p_logits: Any,
    q_logits: Any,
    *,
    beta: float = 0.5,
    axis: int = -1,
    temperature: float = 1.0,
    reduction: str = "mean",
    sample_weight: Any = None,
    return_grad: bool = False,
    out: Any = None,
) -> Any:
    r"""Jensen-Shannon divergence of softmax distributions.

    :math:`\beta KL(P | M) + (1 - \beta) KL(Q | M)` with :math:`M = \beta P + (1 - \beta) Q`. Each
    array is read twice, again for rows near 0 and for the gradient.

    Parameters
    ----------
    p_logits, q_logits : array (..., V)
        As for `softmax_kl_divergence`.
    beta : float
        Share of P in the mixture, 0 < beta < 1.
    axis, temperature, reduction, sample_weight, return_grad, out
        As for `softmax_kl_divergence`.

    Returns
    -------
    divergence : scalar, or array (...) for "none"
        In nats, between 0 and -β log β - (1 - β) log(1 - β); dtype as of `softmax_kl_divergence`.
    grad : array (..., V)
        Only with `return_grad`: sample_weight / denominator · (1 - β) q_k
        (log(q_k / m_k) - KL(Q | M)) / temperature.

    Raises
    ------
    TypeError, ValueError
        If arrays do not hold real numbers, shapes differ, or an argument breaks its rule.

    Notes
    -----
    Accuracy, NaN and ignored rows as for `softmax_kl_divergence`; masked classes leave it finite.
    Errors of an entry of the gradient are relative to (q_k + m_k) / temperature: where P and Q are
    confident of the same class, more than q_k log(q_k / m_k) itself.

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37
       (1991).
    .. [2] R. Agarwal et al., "On-Policy Distillation of Language Models", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> import fastinfo
    >>> teacher, student = np.log([[0.7, 0.2, 0.1]]), np.log([[0.5, 0.3, 0.2]])
    >>> print(fastinfo.softmax_js_divergence(teacher, student).round(4))
    0.0219
    """
    share = checks.number("beta", beta)
    if not 0.0 < share < 1.0:
        raise ValueError(
            f"beta must be in (0, 1), got {beta!r}: at its ends this is 0; its limits, divided by "
            f"beta or 1 - beta, are softmax_kl_divergence"
        )
    weight = share if share <= 0.5 else share - 1.0  # as `formulas.shares` takes it
    return _divergence(
        "js", p_logits, q_logits, axis, temperature, weight, reduction, sample_weight, return_grad,
        out,
    )  # fmt: skip


def _divergence(
    measure: str, p_logits: Any, q_logits: Any, axis: int, temperature: float, weight: float,
    reduction: str, sample_weight: Any, return_grad: bool, out: Any,
) -> Any:  # fmt: skip
    """Reduced divergences of rows of logits, with the gradient by the second."""
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    p, q = read("p_logits", p_logits), read("q_logits", q_logits)
    same_device(p, q)
    if p.shape != q.shape:
        raise ValueError(f"q_logits must have the shape of p_logits, {p.shape}, got {q.shape}")
    axis = checks.axis_of(axis, len(p.shape), "p_logits")
    checks.some("p_logits and q_logits", p.shape, axis, "class")
    rows = Rows.of(q, axis)
    like = dataclasses.replace(p, dtype=promote(p, q))
    active, total = row_weights(sample_weight, rows.shape, None, None, reduction, like)
    module = home("logit_pairs", p.device)
    pair = module.Pair(
        measure, Rows.of(p, axis), rows, checks.temperature_of(temperature), weight, active
    )
    others = [] if sample_weight is None else [read("sample_weight", sample_weight)]
    grad = gradient_buffer(return_grad, out, q, [q, p, *others])
    values = module.divergences(pair, None if grad is None else classes_last(grad, axis))
    return with_gradient(values, rows.shape, reduction, total, like, grad, q, out)
