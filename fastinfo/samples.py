"""Information measures of samples: codes observed together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastinfo import checks
from fastinfo.arrays import Source, empty, give, read, same_device
from fastinfo.dispatch import home
from fastinfo.matrices import _reporter

AVERAGES = ("arithmetic", "geometric", "min", "max")


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
    with _reporter(progress, sides[0].count) as report:
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
    if len(source.shape) != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {source.shape}")
    if source.is_float and source.data.size:
        raise TypeError(f"{name} must hold integer codes, got {source.native}")
    return source
