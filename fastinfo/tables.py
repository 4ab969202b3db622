"""Measures of joint tables: over the last two axes, rows are values of X, columns of Y."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastinfo import checks
from fastinfo.arrays import Rows, Source, as_result, computed_in, give, promote, read, same_device
from fastinfo.dispatch import home

AVERAGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "arithmetic": lambda x, y: 0.5 * (x + y),
    "geometric": lambda x, y: np.sqrt(x) * np.sqrt(y),
    "min": np.minimum,
    "max": np.maximum,
}


def joint_entropy(pxy: Any, *, base: float | None = None, normalize: bool = True) -> Any:
    r"""Entropy of a joint table, :math:`H(X, Y) = -\sum_{xy} p_{xy} \log p_{xy}`.

    Parameters
    ----------
    pxy : array
        Probabilities or counts, at least 0, of shape (..., X, Y): floats of 16 to 64 bits, integers
        or booleans.
    base : float, optional
        Base of the logarithm, positive and not 1; e if left out.
    normalize : bool
        Whether to divide each table by its sum first.

    Returns
    -------
    array
        Of shape (...), in nats, or units of `base`; float64 for float64 and integers, else float32.

    Raises
    ------
    TypeError, ValueError
        If `pxy` holds no real numbers, a negative one, or no cells, has fewer than two axes, or
        `base` breaks its rule.

    Notes
    -----
    0 log 0 = 0. A table that sums to 0, or holds inf or NaN, gives NaN. Computed in float64: errors
    are below 1e-12 relative before the result is rounded.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., section 2.2.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.joint_entropy([[1, 1], [1, 1]], base=2))
    2.0
    """
    table = _table("pxy", pxy)
    unit = checks.logarithm_of(base)
    module, tables = _added_up(table)
    values = module.joint_entropies(tables)
    return _give(_as_it_stands(values, tables, 1, normalize) / unit, table)


def conditional_entropy(pxy: Any, *, base: float | None = None, normalize: bool = True) -> Any:
    r"""Conditional entropy of the columns, :math:`H(Y|X) = \sum_{xy} p_{xy} \log(p_x / p_{xy})`.

    Parameters
    ----------
    pxy, base, normalize
        As for `joint_entropy`.

    Returns
    -------
    array
        Of shape (...), at least 0 in nats, or in units of `base`; dtype as for `joint_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `joint_entropy`.

    Notes
    -----
    Exactly 0 where Y is a function of X. NaN, and accuracy, as for `joint_entropy`. H(X|Y) is that
    of the table turned around, ``conditional_entropy(pxy.T)``.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., section 2.2.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.conditional_entropy([[1, 1], [0, 2]], base=2))
    0.5
    """
    table = _table("pxy", pxy)
    unit = checks.logarithm_of(base)
    module, tables = _added_up(table)
    values = module.conditional_entropies(tables)
    return _give(_as_it_stands(values, tables, 0, normalize) / unit, table)


def mutual_information(pxy: Any, *, base: float | None = None, normalize: bool = True) -> Any:
    r"""Mutual information, :math:`I(X; Y) = \sum_{xy} p_{xy} \log(p_{xy} / (p_x p_y))`.

    Parameters
    ----------
    pxy, base, normalize
        As for `joint_entropy`.

    Returns
    -------
    array
        Of shape (...), in nats, or units of `base`; dtype as for `joint_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `joint_entropy`.

    Notes
    -----
    Of normalised tables never negative, and exactly 0 for counts that are exactly independent.
    Computed in float64 as a sum of terms of one sign, with twice the digits where they cancel:
    errors are below 1e-12 relative, all the way to 0, before the result is rounded. NaN as for
    `joint_entropy`. With ``normalize=False`` the formula as it stands, of whatever sign.

    References
    ----------
    .. [1] T. Cover and J. Thomas, "Elements of Information Theory", 2nd ed., section 2.3.

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.mutual_information([[1, 0], [0, 1]], base=2))
    1.0
    >>> print(fastinfo.mutual_information([[2, 6], [3, 9]]))
    0.0
    """
    table = _table("pxy", pxy)
    unit = checks.logarithm_of(base)
    module, tables = _added_up(table)
    return _give(_as_it_stands(module.information(tables), tables, 1, normalize) / unit, table)


def normalized_mutual_information(
    pxy: Any, average: str = "arithmetic", *, normalize: bool = True
) -> Any:
    r"""Mutual information over an average of the entropies, :math:`I(X; Y) / M(H(X), H(Y))`.

    Parameters
    ----------
    pxy, normalize
        As for `joint_entropy`.
    average : {"arithmetic", "geometric", "min", "max"}
        What to divide by.

    Returns
    -------
    array
        Of shape (...), from 0 to 1, without unit; dtype as for `joint_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `joint_entropy`; if `average` is none of these.

    Notes
    -----
    As in scikit-learn, two constants give 1, and a constant beside what is none gives 0. NaN, and
    accuracy, as for `mutual_information`. It depends on no base.

    References
    ----------
    .. [1] N. Vinh, J. Epps and J. Bailey, "Information theoretic measures for clusterings
       comparison", J. Mach. Learn. Res. 11 (2010).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.normalized_mutual_information([[2, 0], [0, 3]]))
    1.0
    """
    table = _table("pxy", pxy)
    mean = AVERAGES[checks.one_of("average", average, AVERAGES)]
    module, tables = _added_up(table)
    shared = _as_it_stands(module.information(tables), tables, 1, normalize)
    of_rows, of_columns = (
        _as_it_stands(h, tables, 1, normalize) for h in module.marginal_entropies(tables)
    )
    return _give(_normalized(shared, of_rows, of_columns, mean, normalize), table)


@np.errstate(all="ignore")
def _normalized(
    shared: np.ndarray,
    of_rows: np.ndarray,
    of_columns: np.ndarray,
    mean: Callable[[np.ndarray, np.ndarray], np.ndarray],
    normalize: bool,
) -> np.ndarray:
    """Return `shared` over the mean of two entropies; 0 / 0 is 1 of two constants, else 0."""
    both = (of_rows == 0) & (of_columns == 0)
    ratio = np.where(shared == 0, np.where(both, 1.0, 0.0), shared / mean(of_rows, of_columns))
    # equal labels give sums that differ in their last digits
    return np.minimum(ratio, 1.0) if normalize else ratio


def pointwise_mutual_information(
    pxy: Any, *, base: float | None = None, normalize: bool = True
) -> Any:
    r"""Pointwise mutual information of each cell, :math:`\log(p_{xy} / (p_x p_y))`.

    Parameters
    ----------
    pxy, base, normalize
        As for `joint_entropy`.

    Returns
    -------
    array
        Of the shape of `pxy`, in nats, or units of `base`; dtype as for `joint_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `joint_entropy`.

    Notes
    -----
    An empty cell is -inf, in an empty row or column too. A table that sums to 0, or holds inf or
    NaN, gives NaN; with ``normalize=False`` only the rows and columns that hold inf or NaN do.
    Errors are below 1e-12 relative before the result is rounded, also near 0.

    References
    ----------
    .. [1] K. Church and P. Hanks, "Word association norms, mutual information, and lexicography",
       Comput. Linguist. 16 (1990).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.pointwise_mutual_information([[1, 0], [0, 1]], base=2))
    [[  1. -inf]
     [-inf   1.]]
    """
    table = _table("pxy", pxy)
    unit = checks.logarithm_of(base)
    module, tables = _added_up(table)
    values = module.pointwise(tables, bool(normalize), unit, table.result)
    return give(values.reshape(table.shape), table)


def information_gain(parent: Any, children: Any, *, base: float | None = None) -> Any:
    r"""What a split tells of the class, :math:`H(parent) - \sum_s \frac{N_s}{N} H(child_s)`.

    Parameters
    ----------
    parent : array or None
        Counts of the classes before the split, of shape (..., C); None for the sum of `children`.
    children : array
        Counts of the classes in each part, at least 0, of shape (..., S, C); leading axes
        broadcast.
    base : float, optional
        Base of the logarithm, positive and not 1; e if left out.

    Returns
    -------
    array
        Of shape (...), at least 0 in nats, or in units of `base`; float64 if either is float64 or
        integer, else float32.

    Raises
    ------
    TypeError, ValueError
        As `joint_entropy`; if the children of a class do not add up to the parent's: exactly for
        integers, up to what the rounding of floats can make.

    Notes
    -----
    The mutual information of part and class, with the accuracy of `mutual_information`: exactly 0
    where all parts have the same shares of the classes. An empty child counts 0; without any
    counts, or with inf or NaN among them, the result is NaN.

    References
    ----------
    .. [1] J. Quinlan, "Induction of decision trees", Mach. Learn. 1 (1986).

    Examples
    --------
    >>> import fastinfo
    >>> print(fastinfo.information_gain([4, 4], [[4, 0], [0, 4]], base=2))
    1.0
    >>> print(fastinfo.information_gain(None, [[1, 3], [2, 6]]))
    0.0
    """
    first = None if parent is None else read("parent", parent)
    table = _table("children", children)
    same_device(first, table)
    unit = checks.logarithm_of(base)
    module, tables = _added_up(table)
    values = (module.information(tables) / unit).reshape(table.shape[:-2])
    if first is None:
        return give(as_result(values, table.result), table)
    values = values + _without_digits(first, table)
    real = computed_in(promote(first, table))
    return give(as_result(values, real), first)


def _without_digits(parent: Source, children: Source) -> np.ndarray:
    """Return 0 for each parent, NaN for what is no number; ValueError if classes do not add up."""
    if parent.data.ndim == 0 or parent.shape[-1] != children.shape[-1]:
        raise ValueError(
            f"parent must have the classes of children along its last axis, got shapes "
            f"{parent.shape} and {children.shape}"
        )
    values, parts = parent.values(), children.values()
    checks.refuse("parent", "at least 0", values, values < 0, ValueError, "position")
    whole = not (parent.is_float or children.is_float)
    dtype = np.uint64 if whole else np.float64  # counts are at least 0, or refused later
    with np.errstate(invalid="ignore", over="ignore"):
        sums = parts.sum(axis=-2, dtype=dtype)
        try:
            values, sums = np.broadcast_arrays(values, sums)
        except ValueError:
            raise ValueError(
                f"parent and children must broadcast, got shapes {parent.shape} and "
                f"{children.shape}"
            ) from None
        wide = values.astype(dtype)
        apart = wide != sums if whole else abs(wide - sums) > _slack(parent, children) * wide
    for index in np.argwhere(apart)[:1]:
        at = tuple(index)
        raise ValueError(
            f"parent must be the sum of children in each class, got {values[at]} where the "
            f"children add up to {sums[at]}{checks.where(at, 'position')}"
        )
    finite = np.isfinite(wide.astype(np.float64)).all(-1)
    return np.where(finite, 0.0, np.nan)


def _slack(parent: Source, children: Source) -> float:
    """How far off sums of floats may be, relatively: what adding them one by one can lose."""
    floats = [s.dtype for s in (parent, children) if s.is_float]
    bits = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
    return max(1e-9, (children.shape[-2] + 1) * 2.0 ** -min(bits[d] for d in floats))


# --- shared --------------------------------------------------------------------------------------


def _table(name: str, x: Any) -> Source:
    """Return an argument with at least two axes and a cell."""
    source = read(name, x)
    checks.on_processor("a measure of joint tables", source)
    if source.data.ndim < 2:
        raise ValueError(f"{name} must have at least two axes, got shape {source.shape}")
    if 0 in source.shape[-2:]:
        raise ValueError(
            f"{name} must have at least one row and one column, got shape {source.shape}"
        )
    return source


def _added_up(source: Source) -> tuple[Any, Any]:
    """Return the module that computes with tables, and them with their sums."""
    module = home("tables", source.device)
    tables = module.tables(Rows.of(source), source.shape[-2])
    checks.no_negative(source, tables.lowest)
    return module, tables


@np.errstate(all="ignore")
def _as_it_stands(values: np.ndarray, tables: Any, power: int, normalize: bool) -> np.ndarray:
    """Return Σ p f of tables that are not divided by their sums S.

    Under the logarithm, S has this power less: S (Σ (p / S) f - power log S).
    """
    if normalize:
        return values
    total, rest = tables.total.rounded, tables.total.rest
    log_sum = np.log(total) + rest / total - np.log(tables.scale)
    raw = total / tables.scale * (values - power * log_sum)
    return np.where(total == 0, 0.0, raw)


def _give(values: np.ndarray, table: Source) -> Any:
    return give(as_result(values.reshape(table.shape[:-2]), table.result), table)
