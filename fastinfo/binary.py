"""Cross-entropies of two classes, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinfo import checks
from fastinfo.arrays import Source, give, read, same_device
from fastinfo.dispatch import home
from fastinfo.reductions import gradient_buffer


def binary_cross_entropy_with_logits(
    logits: Any,
    y: Any,
    *,
    pos_weight: Any = 1.0,
    sample_weight: Any = None,
    reduction: str = "mean",
    return_grad: bool = False,
    out: Any = None,
) -> Any:
    r"""Binary cross-entropy, :math:`-\beta y \log \sigma(x) - (1 - y) \log(1 - \sigma(x))`.

    σ(x) = 1 / (1 + exp(-x)) is the probability of the positive class, β its weight `pos_weight`.
    One reading of the logits and targets, which writes the gradient as well.

    Parameters
    ----------
    logits : array (...)
        Log-odds x, floats of 16 to 64 bits or integers; ±inf is certainty.
    y : array (...)
        Probabilities of the positive class, of any real dtype, in the logits' shape.
    pos_weight : number or array, optional
        Finite weights of at least 0 of the positive class; broadcast to the logits' shape.
    sample_weight : number or array, optional
        Finite weights of at least 0 of the elements; broadcast to the logits' shape. Elements of
        weight 0 are ignored.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum by Σ sample_weight over the elements.
    return_grad : bool
        Whether to return the derivative of the reduced loss (of the sum for "none") as well.
    out : array (...), optional
        Buffer of the gradient, of the logits' dtype; may be `logits` itself.

    Returns
    -------
    loss : scalar, or array (...) for "none"
        In nats; float64 for float64 and integer logits, else float32.
    grad : array (...)
        Only with `return_grad`; sample_weight · ((1 - y) σ(x) - β y σ(-x)), divided for a mean; of
        the logits' dtype, float64 for integers.

    Raises
    ------
    TypeError
        If an array does not hold real numbers.
    ValueError
        If shapes do not agree, a target is outside [0, 1], or a weight or `out` breaks its rule.

    Notes
    -----
    A term that counts nothing, β y = 0 or y = 1, is 0 beside an infinite logit; a certainty that
    is wrong makes the element inf. NaN stays in its element, where that is not ignored: an
    ignored element's loss and gradient are exactly 0. The mean over nothing is NaN. Errors stay
    below 2e-5 relative (1e-9 absolute) for float32 and 16 bits, 1e-12 (1e-15) for float64, for any
    logit. With float32 and 16-bit logits weights must be finite in float32.

    References
    ----------
    .. [1] D. R. Cox, "The regression analysis of binary sequences", J. R. Stat. Soc. B 20 (1958).

    Examples
    --------
    >>> import numpy as np
    >>> import fastinfo
    >>> logits, y = np.log([4.0, 0.25]), [1.0, 1.0]
    >>> fastinfo.binary_cross_entropy_with_logits(logits, y, reduction="none").round(4)
    array([0.2231, 1.6094])
    >>> loss, grad = fastinfo.binary_cross_entropy_with_logits(logits, y, return_grad=True)
    >>> grad.round(2)
    array([-0.1, -0.4])
    """
    x = read("logits", logits)
    return _binary("logits", x, y, pos_weight, sample_weight, reduction, return_grad, out)


def binary_cross_entropy(
    p: Any,
    y: Any,
    *,
    pos_weight: Any = 1.0,
    sample_weight: Any = None,
    reduction: str = "mean",
    return_grad: bool = False,
    out: Any = None,
) -> Any:
    r"""Binary cross-entropy from probabilities, :math:`-\beta y \log p - (1 - y) \log(1 - p)`.

    From logits use `binary_cross_entropy_with_logits`, which has digits where 1 - p has none.

    Parameters
    ----------
    p : array (...)
        Probabilities of the positive class, floats of 16 to 64 bits or integers.
    y, pos_weight, sample_weight, reduction, return_grad
        As for `binary_cross_entropy_with_logits`.
    out : array (...), optional
        Buffer of the gradient, of the dtype of `p`; may be `p` itself.

    Returns
    -------
    loss : scalar, or array (...) for "none"
        In nats; float64 for float64 and integers, else float32.
    grad : array (...)
        Only with `return_grad`; sample_weight · (-β y / p + (1 - y) / (1 - p)), divided for a mean;
        of the dtype of `p`, float64 for integers.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy_with_logits`, and if a probability is outside [0, 1].

    Notes
    -----
    A term that counts nothing, β y = 0 or y = 1, is 0, its gradient too; p = 0 with y > 0 and
    p = 1 with y < 1 are inf. NaN, ignored elements and accuracy as for
    `binary_cross_entropy_with_logits`; computed in float64.

    References
    ----------
    .. [1] I. J. Good, "Rational decisions", J. R. Stat. Soc. B 14 (1952).

    Examples
    --------
    >>> import fastinfo
    >>> print(round(fastinfo.binary_cross_entropy([0.8, 0.2], [1, 1]), 4))
    0.9163
    """
    x = read("p", p)
    return _binary("probabilities", x, y, pos_weight, sample_weight, reduction, return_grad, out)


def _binary(
    inputs: str, x: Source, targets: Any, pos_weight: Any, sample_weight: Any, reduction: str,
    return_grad: bool, out: Any,
) -> Any:  # fmt: skip
    """Check the arguments, compute, and give back what is asked for."""
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    y, pos = read("y", targets), read("pos_weight", pos_weight)
    sample = read("sample_weight", 1.0 if sample_weight is None else sample_weight)
    arrays = [s for s in (x, y, pos, sample) if s.shape or s.device != "cpu"]
    same_device(x, *arrays)
    if y.shape != x.shape:
        raise ValueError(f"y must have the shape of {x.name}, {x.shape}, got {y.shape}")
    for weight in (pos, sample):
        _broadcasts(weight, x)
    module = home("binary", x.device)
    weights = module.Weights.of(pos, sample, x)
    grad = gradient_buffer(return_grad, out, x, [x, *arrays])
    problem = module.Problem(inputs, x, y, weights, reduction)
    value = give(module.losses(problem, grad, out is not None), x)
    if grad is None:
        return value
    return value, (give(grad, x, x.storage) if out is None else out)


def _broadcasts(weight: Source, x: Source) -> None:
    """ValueError if a weight does not broadcast to the shape of x."""
    try:
        fits = np.broadcast_shapes(weight.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{weight.name} must broadcast to the shape of {x.name}, {x.shape}, got {weight.shape}"
        )
