"""SciPy, scikit-learn and PyTorch as second oracles, where they are installed."""

import cases
import numpy as np
import pytest
from accuracy import assert_same_bits

import fastinfo


def torch_loss(x, targets, **options):
    """Return F.cross_entropy of NumPy arrays, as a NumPy array."""
    torch = pytest.importorskip("torch")
    weight = options.pop("weight", None)
    return torch.nn.functional.cross_entropy(
        torch.from_numpy(x),
        torch.from_numpy(targets),
        weight=None if weight is None else torch.from_numpy(weight),
        **options,
    ).numpy()


# SciPy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scipy_softmax_functions(rng, dtype):
    special = pytest.importorskip("scipy.special")
    x = cases.normal_logits(rng, (5, 7, 40), dtype)
    x[0, 0, ::3] = -np.inf
    tolerance = {"rtol": 1e-12 if dtype == np.float64 else 2e-5, "atol": 1e-14}
    for axis in (0, 1, 2):
        for name in ("logsumexp", "softmax", "log_softmax"):
            with np.errstate(all="ignore"):
                expected = getattr(special, name)(x.astype(np.float64), axis=axis)
            actual = getattr(fastinfo, name)(x, axis=axis)
            np.testing.assert_allclose(actual, expected, **tolerance)
    kept = special.logsumexp(x, axis=1, keepdims=True)
    assert fastinfo.logsumexp(x, axis=1, keepdims=True).shape == kept.shape


def test_scipy_logsumexp_of_rows_without_a_finite_maximum():
    special = pytest.importorskip("scipy.special")
    x = np.stack(list(cases.invalid_logits(9).values()))
    with np.errstate(all="ignore"):
        expected = special.logsumexp(x, axis=-1)
    np.testing.assert_array_equal(fastinfo.logsumexp(x), expected)
    np.testing.assert_array_equal(fastinfo.softmax_statistics(x).logsumexp, expected)
    np.testing.assert_array_equal(fastinfo.softmax_statistics(x).max, x.max(-1))


@pytest.mark.parametrize("base", [None, 2])
def test_scipy_entropies_and_distances(rng, base):
    stats = pytest.importorskip("scipy.stats")
    distance = pytest.importorskip("scipy.spatial.distance")
    p, q = rng.random((2, 6, 30))
    p[:, ::5] = 0
    np.testing.assert_allclose(fastinfo.entropy(p, base=base), stats.entropy(p, axis=1, base=base))
    np.testing.assert_allclose(
        fastinfo.kl_divergence(p, q, base=base), stats.entropy(p, q, axis=1, base=base), rtol=1e-12
    )
    np.testing.assert_allclose(
        fastinfo.js_distance(p, q, base=base),
        distance.jensenshannon(p, q, axis=1, base=base),
        rtol=1e-12,
    )
    assert (
        np.isinf(fastinfo.kl_divergence(q, p)).all() == np.isinf(stats.entropy(q, p, axis=1)).all()
    )


def test_scipy_formulas_without_normalisation(rng):
    special = pytest.importorskip("scipy.special")
    p, q = rng.random((2, 6, 30))
    p[:, 3] = 0
    np.testing.assert_allclose(
        fastinfo.kl_divergence(p, q, normalize=False), special.rel_entr(p, q).sum(-1), rtol=1e-11
    )
    np.testing.assert_allclose(
        fastinfo.entropy(p, normalize=False), special.entr(p).sum(-1), rtol=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scipy_matrices(rng, dtype):
    distance = pytest.importorskip("scipy.spatial.distance")
    x, y = (rng.dirichlet(np.ones(50), n).astype(dtype) for n in (20, 15))
    wide = [a / a.sum(-1, keepdims=True) for a in (x.astype(np.float64), y.astype(np.float64))]
    rtol = 1e-11 if dtype == np.float64 else 2e-5
    expected = distance.cdist(*wide, "jensenshannon")
    np.testing.assert_allclose(fastinfo.pairwise(x, y, "js_distance"), expected, rtol=rtol)
    condensed = fastinfo.pairwise(x, measure="js_distance", condensed=True)
    np.testing.assert_allclose(condensed, distance.pdist(wide[0], "jensenshannon"), rtol=rtol)
    assert_same_bits(distance.squareform(condensed), fastinfo.pairwise(x, measure="js_distance"))
    np.testing.assert_allclose(
        fastinfo.pairwise(x, y, "total_variation"),
        distance.cdist(*wide, "cityblock") / 2,
        rtol=rtol,
    )
    roots = [np.sqrt(a) for a in wide]
    np.testing.assert_allclose(
        fastinfo.pairwise(x, y, "hellinger_distance"),
        distance.cdist(*roots, "euclidean") / np.sqrt(2),
        rtol=rtol,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scipy_sums_of_powers(rng, dtype):
    """Jeffreys by SciPy's KL both ways; Rényi by its logsumexp of the logarithms of the powers."""
    special = pytest.importorskip("scipy.special")
    x, y = (rng.dirichlet(np.ones(50), n).astype(dtype) for n in (20, 15))
    p, q = (a / a.sum(-1, keepdims=True) for a in (x.astype(np.float64), y.astype(np.float64)))
    p, q = p[:, None], q[None]
    rtol = 1e-11 if dtype == np.float64 else 2e-5
    both = (special.rel_entr(p, q) + special.rel_entr(q, p)).sum(-1)
    actual = fastinfo.pairwise(x, y, "jeffreys_divergence")
    np.testing.assert_allclose(actual, both, rtol=rtol)
    for alpha in (0.1, 0.5, 0.9, 1.5, 2.0, 30.0):
        powers = special.logsumexp(alpha * np.log(p) + (1 - alpha) * np.log(q), axis=-1)
        actual = fastinfo.pairwise(x, y, "renyi_divergence", alpha=alpha)
        np.testing.assert_allclose(actual, powers / (alpha - 1), rtol=rtol)
        if alpha == 0.5:
            actual = fastinfo.pairwise(x, y, "bhattacharyya_distance")
            np.testing.assert_allclose(actual, -powers, rtol=rtol)


# scikit-learn ---------------------------------------------------------------------------------


def test_sklearn_losses(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    logits, targets = cases.normal_logits(rng, (60, 12), np.float64), rng.integers(0, 12, 60)
    weight = rng.random(60)
    p = fastinfo.softmax(logits)
    p /= p.sum(-1, keepdims=True)
    expected = metrics.log_loss(targets, p, labels=np.arange(12), sample_weight=weight)
    actual = fastinfo.softmax_cross_entropy(logits, targets, sample_weight=weight)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_sklearn_accuracy(rng, k):
    """`target_rank < k` is the accuracy among the first k."""
    metrics = pytest.importorskip("sklearn.metrics")
    logits, targets = cases.normal_logits(rng, (300, 12), np.float32), rng.integers(0, 12, 300)
    expected = metrics.top_k_accuracy_score(targets, logits, k=k, labels=np.arange(12))
    ranks = fastinfo.softmax_statistics(logits, targets).target_rank
    assert (ranks < k).mean() == pytest.approx(expected, abs=1e-15)


# PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_torch_cross_entropy(rng, reduction, smoothing, weighted, soft):
    """On its own layout (N, V, d1, d2), with every option it has."""
    x = rng.normal(0, 3, (3, 6, 4, 5))
    targets = rng.dirichlet(np.ones(6), (3, 4, 5)).transpose(0, 3, 1, 2).copy() if soft else (
        rng.integers(0, 6, (3, 4, 5))
    )  # fmt: skip
    if not soft:
        targets[1, 2] = -100
    weight = rng.random(6) if weighted else None
    expected = torch_loss(x, targets, reduction=reduction, label_smoothing=smoothing, weight=weight)
    actual = fastinfo.softmax_cross_entropy(
        x, targets, axis=1, reduction=reduction, label_smoothing=smoothing, class_weight=weight
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


def test_torch_where_nothing_is_left():
    x, ignored = np.zeros((2, 3)), np.full(2, -100)
    for reduction in ("none", "sum", "mean"):
        np.testing.assert_array_equal(
            fastinfo.softmax_cross_entropy(x, ignored, reduction=reduction),
            torch_loss(x, ignored, reduction=reduction),
        )
    empty = np.zeros((0, 3)), np.zeros(0, int)
    assert np.isnan(fastinfo.softmax_cross_entropy(*empty)) == np.isnan(torch_loss(*empty))


@pytest.mark.parametrize("case", ["all masked", "infinite first", "NaN last", "all NaN"])
def test_torch_invalid_rows(case):
    x = cases.invalid_logits(5)[case][None]
    assert np.isnan(torch_loss(x, np.array([1])))
    assert np.isnan(fastinfo.softmax_cross_entropy(x, [1]))


def test_torch_divergences(rng):
    torch = pytest.importorskip("torch")
    p, q = (torch.from_numpy(a) for a in rng.dirichlet(np.ones(20), (2, 5)))
    left, right = (torch.distributions.Categorical(a) for a in (p, q))
    expected = torch.distributions.kl_divergence(left, right)
    torch.testing.assert_close(fastinfo.kl_divergence(p, q), expected, rtol=1e-11, atol=0.0)
    torch.testing.assert_close(fastinfo.entropy(p), left.entropy(), rtol=1e-12, atol=0.0)
    summed = torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1)
    torch.testing.assert_close(fastinfo.kl_divergence(p, q), summed, rtol=1e-11, atol=0.0)
