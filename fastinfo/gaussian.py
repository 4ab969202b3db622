"""Gaussians in closed form, in nats: entropy, cross-entropy, divergence; one or many variables.

Called as ``fastinfo.gaussian.entropy(...)``. Arguments broadcast, and are computed with in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo import checks, formulas
from fastinfo.arrays import Source, as_result, computed_in, give, promote, read, same_device
from fastinfo.dispatch import home

__all__ = [
    "cross_entropy",
    "entropy",
    "kl_divergence",
    "kl_to_standard_normal",
    "multivariate_cross_entropy",
    "multivariate_entropy",
    "multivariate_kl_divergence",
]

# How far apart the two halves of a covariance may be, as a share of the standard deviations: the
# root of the rounding of its dtype.
ASYMMETRY = {"float64": 2.0**-26, "float32": 2.0**-12, "float16": 2.0**-5, "bfloat16": 2.0**-4}


# --- one variable --------------------------------------------------------------------------------


def entropy(variance: Any) -> Any:
    r"""Differential entropy of a Gaussian, :math:`\frac12 \log(2 \pi e \sigma^2)`.

    Parameters
    ----------
    variance : array
        Positive and finite: floats of 16 to 64 bits, integers or booleans.

    Returns
    -------
    array
        Of the shape of `variance`, in nats, of either sign; float64 for float64 and integers, else
        float32.

    Raises
    ------
    TypeError, ValueError
        If `variance` holds no real numbers, or one that is not positive and finite.

    Notes
    -----
    NaN gives NaN. Errors are below 1e-15 relative or absolute before the result is rounded.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., example 8.1.2.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.gaussian.entropy(1.0).round(4))
    1.4189
    """
    given = Given.read(variance=variance)
    given.positive("variance")
    return given.give(given.each(formulas.gaussian_entropy))


def cross_entropy(mean_p: Any, variance_p: Any, mean_q: Any, variance_q: Any) -> Any:
    r"""Cross-entropy, :math:`\frac12 \log(2\pi\sigma_q^2) + (\sigma_p^2 + \delta^2)/(2\sigma_q^2)`.

    δ is the difference of the means; the expectation under p of -log q.

    Parameters
    ----------
    mean_p, mean_q : array
        Means, which broadcast with the variances.
    variance_p, variance_q : array
        Positive and finite.

    Returns
    -------
    array
        Of the shape all broadcast to, in nats; float64 if any array is float64 or integer, else
        float32. Python numbers beside arrays do not count.

    Raises
    ------
    TypeError, ValueError
        As `entropy`; if the arguments do not broadcast or live on different devices.

    Notes
    -----
    NaN, and accuracy, as for `entropy`, relative to the larger term where the two cancel.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., chapter 8.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.gaussian.cross_entropy(0.0, 1.0, 1.0, 2.0).round(4))
    1.7655
    """
    given = Given.two(mean_p, variance_p, mean_q, variance_q)
    given.positive("variance_p", "variance_q")
    return given.give(given.each(formulas.gaussian_cross_entropy))


def kl_divergence(mean_p: Any, variance_p: Any, mean_q: Any, variance_q: Any) -> Any:
    r"""Divergence, :math:`\frac12 (u - \log(1 + u) + \delta^2/\sigma_q^2)`.

    δ is the difference of the means, :math:`u = \sigma_p^2/\sigma_q^2 - 1`: KL(P‖Q).

    Parameters
    ----------
    mean_p, variance_p, mean_q, variance_q
        As for `cross_entropy`.

    Returns
    -------
    array
        At least 0, in nats; shape and dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Notes
    -----
    NaN gives NaN. Errors are below 1e-14 relative, all the way to 0, before the result is rounded;
    equal Gaussians give exactly 0.

    References
    ----------
    .. [1] S. Kullback and R. Leibler, "On information and sufficiency", Ann. Math. Stat. 22 (1951).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.gaussian.kl_divergence(0.0, 1.0, 1.0, 2.0).round(4))
    0.3466
    """
    given = Given.two(mean_p, variance_p, mean_q, variance_q)
    given.positive("variance_p", "variance_q")
    return given.give(given.each(formulas.gaussian_kl))


def kl_to_standard_normal(mean: Any, log_variance: Any) -> Any:
    r"""Divergence from the standard normal, :math:`\frac12 \sum_k (\mu_k^2 + e^{v_k} - 1 - v_k)`.

    The term of a variational autoencoder: v is the logarithm of the variance.

    Parameters
    ----------
    mean, log_variance : array
        Which broadcast; the sum is over the last axis.

    Returns
    -------
    array
        Without the last axis, at least 0, in nats; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        If an argument holds no real numbers; if they do not broadcast, have no axis, or nothing
        along it.

    Notes
    -----
    NaN gives NaN, a log-variance of ±inf gives inf. Errors are below 1e-14 relative, all the way to
    0, before the result is rounded.

    References
    ----------
    .. [1] D. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.gaussian.kl_to_standard_normal([0.0, 1.0], [0.0, 0.0]))
    0.5
    """
    given = Given.read(mean=mean, log_variance=log_variance)
    shape = given.shape()
    checks.axis_of(-1, len(shape), "mean and log_variance")
    checks.some("mean and log_variance", shape, len(shape) - 1, "variable")
    return given.give(given.each(formulas.standard_normal_kl).sum(-1))


# --- several variables ---------------------------------------------------------------------------


def multivariate_entropy(covariance: Any) -> Any:
    r"""Differential entropy of a Gaussian vector, :math:`\frac12 \log \det(2 \pi e \Sigma)`.

    Parameters
    ----------
    covariance : array
        Symmetric and positive definite, of shape (..., D, D): floats of 16 to 64 bits, integers or
        booleans.

    Returns
    -------
    array
        Of shape (...), in nats, of either sign; float64 for float64 and integers, else float32.

    Raises
    ------
    TypeError, ValueError
        If `covariance` holds no real numbers or an infinite one; if a matrix is not square, not
        symmetric (to the root of the rounding of its dtype), or not positive definite.

    Notes
    -----
    A matrix with NaN gives NaN. A matrix that is singular to working precision is an error. Errors
    are below 1e-15 times the condition number.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., theorem 8.4.1.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.gaussian.multivariate_entropy([[2.0, 1.0], [1.0, 2.0]]).round(4))
    3.3872
    """
    given = Given.read(covariance=covariance)
    root = Root.of(given.sources[0])
    size = root.lower.shape[-1]
    return given.give(root.marked(0.5 * (size * (1.0 + formulas.LOG_2PI) + root.log_determinant())))


def multivariate_cross_entropy(
    mean_p: Any, covariance_p: Any, mean_q: Any, covariance_q: Any
) -> Any:
    r"""Cross-entropy, ½ (log det(2π Σ_q) + tr(Σ_q⁻¹ Σ_p) + δᵀ Σ_q⁻¹ δ).

    δ is the difference of the means; the expectation under p of -log q.

    Parameters
    ----------
    mean_p, mean_q : array
        Means, of shape (..., D).
    covariance_p, covariance_q : array
        Symmetric and positive definite, of shape (..., D, D); all leading axes broadcast.

    Returns
    -------
    array
        Of shape (...), in nats; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `multivariate_entropy`; if the arguments differ in D, do not broadcast, or live on
        different devices.

    Notes
    -----
    NaN, and accuracy, as for `multivariate_entropy`.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., chapter 8.

    Examples
    --------
    >>> import fastinfo
    >>> unit = [[1.0, 0.0], [0.0, 1.0]]
    >>> shifted = fastinfo.gaussian.multivariate_cross_entropy([1.0, 0.0], unit, [0.0, 0.0], unit)
    >>> print(shifted.round(4))
    3.3379
    """
    given, delta, p, q = _pair(mean_p, covariance_p, mean_q, covariance_q)
    size = delta.shape[-1]
    with np.errstate(over="ignore", invalid="ignore"):
        spread = (_solved(q.lower, p.lower) ** 2).sum((-2, -1))
        value = size * formulas.LOG_2PI + q.log_determinant() + spread + q.squared_length(delta)
    return given.give(q.marked(p.marked(0.5 * value)))


def multivariate_kl_divergence(
    mean_p: Any, covariance_p: Any, mean_q: Any, covariance_q: Any
) -> Any:
    r"""Divergence, ½ (tr(Σ_q⁻¹ Σ_p) - D - log det(Σ_q⁻¹ Σ_p) + δᵀ Σ_q⁻¹ δ).

    δ is the difference of the means: KL(P‖Q).

    Parameters
    ----------
    mean_p, covariance_p, mean_q, covariance_q
        As for `multivariate_cross_entropy`.

    Returns
    -------
    array
        Of shape (...), at least 0, in nats; dtype as for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `multivariate_cross_entropy`.

    Notes
    -----
    NaN as for `multivariate_entropy`. Errors are below 1e-15 times the condition number, relative
    all the way to 0: nearly equal covariances are compared by the eigenvalues of
    :math:`\Sigma_q^{-1/2} (\Sigma_p - \Sigma_q) \Sigma_q^{-1/2}`. Equal Gaussians give exactly 0.

    References
    ----------
    .. [1] J. Duchi, "Derivations for linear algebra and optimization", 2007.

    Examples
    --------
    >>> import fastinfo
    >>> unit, wide = [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]
    >>> there = fastinfo.gaussian.multivariate_kl_divergence([0.0, 0.0], unit, [1.0, 0.0], wide)
    >>> print(there.round(4))
    0.4431
    """
    given, delta, p, q = _pair(mean_p, covariance_p, mean_q, covariance_q)
    with np.errstate(all="ignore"):
        value = _determinant_gap(p, q) + q.squared_length(delta)
    return given.give(q.marked(p.marked(0.5 * value)))


def _determinant_gap(p: Root, q: Root) -> np.ndarray:
    """tr(M) - log det(I + M) of M = Σ_q⁻¹ Σ_p - I."""
    half = _solved(q.lower, p.matrix - q.matrix)
    m = _solved(q.lower, np.swapaxes(half, -1, -2))
    finite = np.isfinite(m).all((-2, -1))
    u = np.linalg.eigvalsh(np.where(finite[..., None, None], m, 0.0))
    near = finite & (u.min(-1) > -0.5)  # below, 1 + u has lost digits
    logs = 2.0 * np.log(p.diagonal() / q.diagonal())  # of roots: normal numbers
    far = np.trace(m, axis1=-2, axis2=-1) - logs.sum(-1)
    return np.where(near, home("elements", "cpu").values(formulas.log_gap, u).sum(-1), far)


def _pair(
    mean_p: Any, covariance_p: Any, mean_q: Any, covariance_q: Any
) -> tuple[Given, np.ndarray, Root, Root]:
    """Return the arguments, the difference of the means, and the two covariances."""
    names = ("mean_p", "covariance_p", "mean_q", "covariance_q")
    arguments = (mean_p, covariance_p, mean_q, covariance_q)
    given = Given.read(**dict(zip(names, arguments, strict=True)))
    mp, cp, mq, cq = given.sources
    p, q = Root.of(cp), Root.of(cq)
    size = cp.shape[-1]
    for mean in (mp, mq):
        if mean.data.ndim == 0:
            raise ValueError(f"{mean.name} must have at least one axis, got a scalar")
    if {mp.shape[-1], mq.shape[-1], cq.shape[-1]} != {size}:
        raise ValueError(f"means and covariances must be of one dimension, got {given.shapes()}")
    try:
        np.broadcast_shapes(mp.shape[:-1], mq.shape[:-1], cp.shape[:-2], cq.shape[:-2])
    except ValueError:
        raise ValueError(f"{given.names()} must broadcast, got {given.shapes()}") from None
    with np.errstate(invalid="ignore", over="ignore"):
        delta = _double(mp) - _double(mq)
    return given, delta, p, q


@dataclass(frozen=True)
class Root:
    """Covariances and their lower triangular roots; which hold NaN, and are the identity here."""

    matrix: np.ndarray
    lower: np.ndarray
    missing: np.ndarray

    @classmethod
    def of(cls, source: Source) -> Root:
        """Check covariances and take their roots."""
        name, shape = source.name, source.shape
        if len(shape) < 2 or shape[-1] != shape[-2] or not shape[-1]:
            raise ValueError(f"{name} must be square matrices (..., D, D), got shape {shape}")
        matrix = _double(source)
        checks.refuse(name, "finite", matrix, np.isinf(matrix), ValueError, "position")
        missing = np.isnan(matrix).any((-2, -1))
        matrix = np.where(missing[..., None, None], np.eye(shape[-1]), matrix)
        variances = np.diagonal(matrix, axis1=-2, axis2=-1)
        _positive_definite(name, matrix, variances <= 0)
        _symmetric(source, matrix, np.sqrt(variances))
        matrix = 0.5 * matrix + 0.5 * np.swapaxes(matrix, -1, -2)
        lower = _cholesky(matrix)
        pivots = np.diagonal(lower, axis1=-2, axis2=-1) ** 2
        least = shape[-1] * np.finfo(np.float64).eps * variances
        _positive_definite(name, matrix, ~(pivots > least))
        return cls(matrix, lower, missing)

    def log_determinant(self) -> np.ndarray:
        """Return log det Σ."""
        return 2.0 * np.log(self.diagonal()).sum(-1)

    def diagonal(self) -> np.ndarray:
        """Return the diagonal of the root."""
        return np.diagonal(self.lower, axis1=-2, axis2=-1)

    def squared_length(self, x: np.ndarray) -> np.ndarray:
        """xᵀ Σ⁻¹ x."""
        return (_solved(self.lower, x[..., None]) ** 2).sum((-2, -1))

    def marked(self, values: np.ndarray) -> np.ndarray:
        """Return values, NaN where the covariance held NaN."""
        return np.where(self.missing, np.nan, values)


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    """Return lower triangular roots, NaN for what has none."""
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        roots = np.full_like(matrix, np.nan)
        for index in np.ndindex(matrix.shape[:-2]):
            try:
                roots[index] = np.linalg.cholesky(matrix[index])
            except np.linalg.LinAlgError:
                continue
        return roots


def _solved(lower: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solve lower x = b row by row: however the variables are scaled, none disturbs another."""
    shape = np.broadcast_shapes(lower.shape[:-2], b.shape[:-2])
    x = np.empty((*shape, *b.shape[-2:]))
    for i in range(lower.shape[-1]):
        known = lower[..., i : i + 1, :i] @ x[..., :i, :]
        x[..., i, :] = (b[..., i, :] - known[..., 0, :]) / lower[..., i, i, None]
    return x


def _symmetric(source: Source, matrix: np.ndarray, deviations: np.ndarray) -> None:
    """ValueError with the position of the first pair of entries that differ."""
    scale = deviations[..., :, None] * deviations[..., None, :]
    apart = abs(matrix - np.swapaxes(matrix, -1, -2)) > ASYMMETRY[source.storage] * scale
    for index in np.argwhere(apart)[:1]:
        *batch, i, j = (int(k) for k in index)
        a, b = matrix[(*batch, i, j)], matrix[(*batch, j, i)]
        raise ValueError(
            f"{source.name} must be symmetric, got {a} at row {i}, column {j} and {b} at row {j}, "
            f"column {i}{_of_matrix(batch)}"
        )


def _positive_definite(name: str, matrix: np.ndarray, bad: np.ndarray) -> None:
    """ValueError with the smallest eigenvalue of the first matrix with a bad pivot."""
    for index in np.argwhere(bad.any(-1))[:1]:
        smallest = np.linalg.eigvalsh(matrix[tuple(index)])[0]
        raise ValueError(
            f"{name} must be positive definite, got smallest eigenvalue {smallest}"
            f"{_of_matrix(index)}"
        )


def _of_matrix(index: Sequence[int] | np.ndarray) -> str:
    return checks.where(tuple(index), "matrix")


# --- arguments -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """Arguments of one call; `like` is what the result is like, `real` its dtype."""

    sources: list[Source]
    like: Source
    real: str

    @classmethod
    def read(cls, **arguments: Any) -> Given:
        """Read arguments by their names; Python numbers do not decide what the result is."""
        sources = [read(name, value) for name, value in arguments.items()]
        same_device(*sources)
        checks.on_processor("a measure of Gaussians", *sources)
        numbers = [type(value) in (int, float, bool) for value in arguments.values()]
        arrays = [s for s, number in zip(sources, numbers, strict=True) if not number] or sources
        real = computed_in(promote(*arrays))
        return cls(sources, arrays[0], real)

    @classmethod
    def two(cls, mean_p: Any, variance_p: Any, mean_q: Any, variance_q: Any) -> Given:
        """Read two Gaussians."""
        return cls.read(mean_p=mean_p, variance_p=variance_p, mean_q=mean_q, variance_q=variance_q)

    def positive(self, *names: str) -> None:
        """ValueError with the position of the first variance that is not positive and finite."""
        for source in self.sources:
            if source.name in names:
                values = source.values()
                bad = (values <= 0) | np.isinf(values)
                rule = "positive and finite"
                checks.refuse(source.name, rule, values, bad, ValueError, "position")

    def names(self) -> str:
        """Return the names of the arguments."""
        *others, last = (s.name for s in self.sources)
        return f"{', '.join(others)} and {last}"

    def shapes(self) -> str:
        """Return the shapes of the arguments."""
        return "shapes " + ", ".join(str(s.shape) for s in self.sources)

    def shape(self) -> tuple[int, ...]:
        """Return the shape that the arguments broadcast to."""
        try:
            return np.broadcast_shapes(*(source.shape for source in self.sources))
        except ValueError:
            raise ValueError(f"{self.names()} must broadcast, got {self.shapes()}") from None

    def each(self, term: Callable[..., Any]) -> np.ndarray:
        """Return a formula of the arguments, element by element, in float64."""
        self.shape()
        return home("elements", "cpu").values(term, *(source.values() for source in self.sources))

    def give(self, values: np.ndarray) -> Any:
        """Return a result as the kind of array that was given."""
        return give(as_result(np.asarray(values), self.real), self.like)


def _double(source: Source) -> np.ndarray:
    return source.values().astype(np.float64)
