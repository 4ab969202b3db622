"""Neighbours under divergences, as scikit-learn's estimators take them.

A matrix for ``metric="precomputed"`` is `fastinfo.pairwise`; for SciPy's hierarchy,
``fastinfo.pairwise(x, condensed=True)``.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

import fastinfo
from fastinfo import checks
from fastinfo.catalogue import MEASURES
from fastinfo.elsewhere import ELSEWHERE
from fastinfo.matrices import check_options

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise ImportError(
        'fastinfo.sklearn needs scikit-learn of 1.6 or newer: pip install "fastinfo[sklearn]"'
    ) from None

__all__ = ["DivergenceNeighbors"]

MODES = ("distance", "connectivity")


class DivergenceNeighbors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The sparse graph of the nearest rows under a measure, as `KNeighborsTransformer` gives it.

    Parameters
    ----------
    n_neighbors : int
        Neighbours of each row. With mode "distance" there is one more, as in scikit-learn: a row
        that was fitted counts as its own.
    mode : {"distance", "connectivity"}
        Whether the graph holds values of the measure, or ones.
    measure : str
        Name of a measure, see `fastinfo.measures`; its first argument is the row transformed.
    base : float, optional
        Base of the logarithm, where the measure has one.
    normalize : bool
        Whether to divide rows by their sums first.
    alpha : float, optional
        Order of "renyi_divergence".
    weights : pair of floats, optional
        Of "js_divergence".

    Attributes
    ----------
    n_features_in_ : int
        Number of bins.
    feature_names_in_ : array
        Names of the bins, if they had some.
    n_samples_fit_ : int
        Number of rows fitted.

    Raises
    ------
    ValueError, TypeError
        As `fastinfo.nearest`; if there are fewer rows than neighbours.

    Notes
    -----
    Rows are distributions or counts, dense or CSR; exact, and without the matrix of all pairs. A
    row of zeros is no distribution: it is near to none and none to it, so that its row of the graph
    is empty, and where too few others are fitted rows have fewer entries than asked for. UMAP takes
    the graph of rows with themselves if it is symmetrical: ``graph.maximum(graph.T)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastinfo.sklearn import DivergenceNeighbors
    >>> rows = np.array([[8.0, 1, 1], [9, 1, 0], [0, 1, 9], [1, 1, 8]])
    >>> graph = DivergenceNeighbors(n_neighbors=1).fit_transform(rows)
    >>> graph.shape, graph.indices.reshape(4, 2).tolist()
    ((4, 4), [[0, 1], [1, 0], [2, 3], [3, 2]])
    """

    def __init__(
        self, n_neighbors: int = 5, *, mode: str = "distance", measure: str = "js_divergence",
        base: float | None = None, normalize: bool = True, alpha: float | None = None,
        weights: Any = None,
    ) -> None:  # fmt: skip
        self.n_neighbors = n_neighbors
        self.mode = mode
        self.measure = measure
        self.base = base
        self.normalize = normalize
        self.alpha = alpha
        self.weights = weights

    def fit(self, X: Any, y: Any = None) -> DivergenceNeighbors:
        """Keep the rows that neighbours are looked for among.

        Parameters
        ----------
        X : array or CSR matrix (n, K)
            Rows of at least 0, float32 or float64; others are converted.
        y
            Not used.

        Returns
        -------
        DivergenceNeighbors
            Itself.

        Raises
        ------
        TypeError, ValueError
            If a parameter breaks its rule, or `X` holds a negative number, NaN or infinity.
        """
        self._check()
        self._fit_X = self._rows(X, reset=True)
        self.n_samples_fit_ = self._n_features_out = self._fit_X.shape[0]
        return self

    def transform(self, X: Any) -> Any:
        """Return the graph of the rows of X and their neighbours among those fitted.

        Parameters
        ----------
        X : array or CSR matrix (m, K)
            Rows as `fit` takes them, with as many bins.

        Returns
        -------
        scipy.sparse.csr_matrix (m, n)
            Distances, in the unit of the measure, or ones; the entries of a row nearest first.

        Raises
        ------
        TypeError, ValueError
            As `fit`; if there are fewer rows fitted than neighbours asked for.
        """
        check_is_fitted(self)
        self._check()
        rows = self._rows(X, reset=False)
        k = self.n_neighbors + (self.mode == "distance")
        if k > self.n_samples_fit_:
            raise ValueError(
                f"n_neighbors must be, with a row itself, at most the number of rows fitted, "
                f"n_samples = {self.n_samples_fit_}, got n_neighbors = {self.n_neighbors}"
            )
        distances, indices = fastinfo.nearest(
            rows, self._fit_X, k, self.measure, base=self.base, normalize=self.normalize,
            **self._parameters(),
        )  # fmt: skip
        return self._graph(distances, indices)

    def _parameters(self) -> dict[str, Any]:
        given = {"alpha": self.alpha, "weights": self.weights}
        return {name: value for name, value in given.items() if value is not None}

    def _check(self) -> None:
        """Raise for parameters that are wrong whatever the rows."""
        checks.one_of("mode", self.mode, MODES)
        checks.one_of("measure", self.measure, MEASURES, ELSEWHERE)
        check_options(self.measure, self.base, self._parameters())
        whole = isinstance(self.n_neighbors, Integral) and not isinstance(self.n_neighbors, bool)
        if not whole or self.n_neighbors < 1:
            raise (ValueError if whole else TypeError)(
                f"n_neighbors must be an integer of at least 1, got {self.n_neighbors!r}"
            )

    def _graph(self, distances: np.ndarray, indices: np.ndarray) -> Any:
        from scipy.sparse import csr_matrix  # scikit-learn's own graphs are matrices

        values = distances if self.mode == "distance" else np.ones_like(distances)
        there = (indices >= 0) & ~np.isnan(distances)
        starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        shape = len(indices), self.n_samples_fit_
        return csr_matrix((values[there], indices[there], starts), shape=shape)

    def _rows(self, X: Any, reset: bool) -> Any:
        return validate_data(
            self, X, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32],
            ensure_non_negative=True,
        )  # fmt: skip

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
