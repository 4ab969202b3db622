"""The transformer in scikit-learn's own checks, and before its estimators."""

import numpy as np
import pytest

import fastinfo

pytest.importorskip("sklearn", "1.6")
pytest.importorskip("scipy")
from scipy import sparse
from scipy.cluster import hierarchy
from sklearn.base import clone
from sklearn.cluster import DBSCAN, AgglomerativeClustering
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastinfo.sklearn import DivergenceNeighbors


@parametrize_with_checks(
    [DivergenceNeighbors(), DivergenceNeighbors(3, mode="connectivity", measure="kl_divergence")]
)
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture
def groups(rng):
    """Rows of three kinds, and their kinds."""
    kinds = np.repeat([0, 1, 2], 30)
    centres = rng.dirichlet(np.full(8, 0.3), 3)
    return rng.dirichlet(np.ones(8), 90) * 0.2 + centres[kinds] * 0.8, kinds


@pytest.mark.parametrize("measure", ["js_divergence", "kl_divergence", "hellinger_distance"])
def test_the_graph_is_that_of_nearest(groups, measure):
    x, _ = groups
    fitted, queries = x[:60], x[60:]
    graph = DivergenceNeighbors(4, measure=measure).fit(fitted).transform(queries)
    expected = fastinfo.nearest(queries, fitted, 5, measure)
    assert sparse.issparse(graph) and graph.shape == (30, 60)
    np.testing.assert_array_equal(graph.indices.reshape(30, 5), expected.indices)
    np.testing.assert_array_equal(graph.data.reshape(30, 5), expected.distances)


def test_parameters_of_measures(groups):
    x, _ = groups
    given = {"measure": "renyi_divergence", "alpha": 0.5, "base": 2, "normalize": False}
    graph = DivergenceNeighbors(2, **given).fit_transform(x)
    np.testing.assert_array_equal(
        graph.data.reshape(90, 3), fastinfo.nearest(x, x, 3, **given).distances
    )
    assert (DivergenceNeighbors(2).fit_transform(x).diagonal() == 0).all()
    assert clone(DivergenceNeighbors(2, **given)).get_params()["alpha"] == 0.5


def test_sparse_rows(groups):
    x, _ = groups
    x = np.where(x < 0.05, 0, x)
    dense = DivergenceNeighbors(3).fit_transform(x)
    graph = DivergenceNeighbors(3).fit_transform(sparse.csr_array(x))
    np.testing.assert_allclose(graph.toarray(), dense.toarray(), rtol=1e-9)


def test_connectivity(groups):
    graph = DivergenceNeighbors(4, mode="connectivity").fit_transform(groups[0])
    assert (graph.data == 1).all() and (np.diff(graph.indptr) == 4).all()


def test_before_a_classifier(groups):
    x, kinds = groups
    model = make_pipeline(
        DivergenceNeighbors(7), KNeighborsClassifier(n_neighbors=5, metric="precomputed")
    )
    assert model.fit(x[::2], kinds[::2]).score(x[1::2], kinds[1::2]) > 0.9


def test_before_tsne(groups):
    graph = DivergenceNeighbors(40).fit_transform(groups[0])
    made = TSNE(metric="precomputed", perplexity=8, init="random", random_state=0, max_iter=250)
    assert np.isfinite(made.fit_transform(graph)).all()


def test_matrices_for_precomputed_metrics(groups):
    x, kinds = groups
    matrix = fastinfo.pairwise(x, measure="js_distance")
    for model in (
        AgglomerativeClustering(3, metric="precomputed", linkage="average"),
        DBSCAN(0.25, metric="precomputed"),
    ):
        found = model.fit_predict(matrix)
        # in each group one label prevails, and a different one
        prevailing = [np.bincount(found[kinds == k] + 1).argmax() for k in range(3)]
        assert len(set(prevailing)) == 3
    tree = hierarchy.linkage(fastinfo.pairwise(x, measure="js_distance", condensed=True), "average")
    assert tree.shape == (89, 4)


def test_errors(groups):
    x, _ = groups
    with pytest.raises(ValueError, match="n_samples = 90, got n_neighbors = 90"):
        DivergenceNeighbors(90).fit_transform(x)
    with pytest.raises(
        ValueError, match="mode must be one of 'distance', 'connectivity', got 'near'"
    ):
        DivergenceNeighbors(mode="near").fit_transform(x)
    with pytest.raises(ValueError, match="measure must be one of"):
        DivergenceNeighbors(measure="euclid").fit_transform(x)
    with pytest.raises(ValueError, match="Negative values"):
        DivergenceNeighbors().fit(-x)
    for options, error, message in (
        ({"measure": "renyi_divergence"}, TypeError, "needs the parameter 'alpha'"),
        ({"measure": "kl_divergence", "alpha": 2.0}, TypeError, "has no parameter 'alpha'"),
        ({"measure": "hellinger_distance", "base": 2.0}, TypeError, "has no parameter 'base'"),
        ({"weights": (0, 1)}, ValueError, "weights must be positive"),
    ):
        with pytest.raises(error, match=message):
            DivergenceNeighbors(**options).fit(x)
    for wrong, error in ((0, ValueError), (2.5, TypeError), ("3", TypeError), (True, TypeError)):
        with pytest.raises(error, match="n_neighbors must be an integer of at least 1, got"):
            DivergenceNeighbors(wrong).fit(x)


def test_a_row_of_zeros_is_near_to_none(groups):
    x, _ = groups
    x[7] = 0
    graph = DivergenceNeighbors(3).fit_transform(x)
    assert graph[7].nnz == 0 and graph[:, 7].nnz == 0 and graph.nnz == 89 * 4
    x[1:] = 0
    for mode in ("connectivity", "distance"):
        graph = DivergenceNeighbors(3, mode=mode).fit(x).transform(x[:2] + 1)
        assert graph.toarray()[:, 1:].any() == 0 and graph.nnz == 2
