"""Gaussians in closed form, against mpmath with 50 digits and against integrals."""

import re

import mpmath
import numpy as np
import pytest
from accuracy import assert_same_bits, result_dtype
from cases import FLOATS
from hypothesis import given
from hypothesis import strategies as st

import fastinfo
from fastinfo import gaussian

PAIRS = ("cross_entropy", "kl_divergence")
NEAR = [0.0, 1e-1, 1e-2, 1e-4, 1e-8, 1e-12, 1e-15]


def number(x):
    return mpmath.mpf(float(x))


def exact(name, mp, vp, mq, vq):
    """Return the measure of two Gaussians as float64, by the definition in 50 digits."""
    with mpmath.workdps(50):
        mp, vp, mq, vq = map(number, (mp, vp, mq, vq))
        cross = (mpmath.log(2 * mpmath.pi * vq) + (vp + (mp - mq) ** 2) / vq) / 2
        entropy = (mpmath.log(2 * mpmath.pi * vp) + 1) / 2
        value = {"entropy": entropy, "cross_entropy": cross, "kl_divergence": cross - entropy}
        return float(value[name])


def exact_many(name, mp, cp, mq, cq):
    """Return the measure of two Gaussian vectors as float64, in 50 digits."""
    with mpmath.workdps(50):
        p, q = (mpmath.matrix([[number(v) for v in row] for row in c]) for c in (cp, cq))
        delta = mpmath.matrix([number(a) - number(b) for a, b in zip(mp, mq, strict=True)])
        inverse, size = q**-1, len(mp)
        product = inverse * p
        trace = mpmath.fsum(product[i, i] for i in range(size))
        length = (delta.T * inverse * delta)[0]
        of_p, of_q = (size * mpmath.log(2 * mpmath.pi) + mpmath.log(mpmath.det(c)) for c in (p, q))
        cross, entropy = (of_q + trace + length) / 2, (of_p + size) / 2
        value = {"entropy": entropy, "cross_entropy": cross, "kl_divergence": cross - entropy}
        return float(value[name])


def covariance(rng, size, spread=1.0):
    """Return a positive definite matrix."""
    a = rng.standard_normal((size, 2 * size)) * np.exp(spread * rng.standard_normal((size, 1)))
    return a @ a.T / (2 * size)


# One variable ---------------------------------------------------------------------------------


def test_entropy(rng):
    variance = np.concatenate([10.0 ** rng.uniform(-300, 300, 50), [1 / (2 * np.pi * np.e), 1]])
    truth = [exact("entropy", 0, v, 0, 1) for v in variance]
    np.testing.assert_allclose(gaussian.entropy(variance), truth, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(rng, name):
    mean_p, mean_q = rng.standard_normal((2, 200)) * 3
    variance_p, variance_q = 10.0 ** rng.uniform(-6, 6, (2, 200))
    four = mean_p, variance_p, mean_q, variance_q
    truth = [exact(name, *values) for values in zip(*four, strict=True)]
    np.testing.assert_allclose(getattr(gaussian, name)(*four), truth, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("noise", NEAR)
def test_nearly_equal_gaussians(rng, noise):
    """Relative all the way to zero, and zero where they are equal."""
    mean, scale = rng.standard_normal(100), 10.0 ** rng.uniform(-200, 200, 100)
    mean *= np.sqrt(scale)
    variance = scale * (1 + noise * rng.uniform(-1, 1, 100))
    moved = mean + noise * rng.uniform(-1, 1, 100) * np.sqrt(scale)
    for four in ((mean, variance, mean, scale), (moved, scale, mean, variance)):
        truth = np.array([exact("kl_divergence", *values) for values in zip(*four, strict=True)])
        np.testing.assert_allclose(gaussian.kl_divergence(*four), truth, rtol=2e-15, atol=0)
        assert ((truth == 0) == (gaussian.kl_divergence(*four) == 0)).all()


def test_divergences_on_both_sides_of_the_series(rng):
    ratio = np.concatenate([np.linspace(0.5, 2, 301), 1 + np.array([-0.25, 0.25])])
    truth = [exact("kl_divergence", 0, r, 0, 1) for r in ratio]
    np.testing.assert_allclose(gaussian.kl_divergence(0, ratio, 0, 1), truth, rtol=3e-15)
    small = 1e-300 * ratio
    truth = [exact("kl_divergence", 0, r, 0, 1e-300) for r in small]
    np.testing.assert_allclose(gaussian.kl_divergence(0, small, 0, 1e-300), truth, rtol=3e-15)


def test_variances_far_apart():
    for four in ((0, 1e-300, 0, 1e300), (1e200, 1e300, -1e200, 1e300), (0, 5e-324, 1e-170, 5e-324)):
        for name in PAIRS:
            actual = getattr(gaussian, name)(*four)
            assert actual == pytest.approx(exact(name, *four), rel=1e-14)
    assert gaussian.kl_divergence(0, 1e300, 0, 1e-300) == np.inf


@given(*[st.floats(-1e3, 1e3), st.floats(1e-3, 1e3)] * 2)
def test_divergence_is_what_cross_entropy_has_above_entropy(mp, vp, mq, vq):
    above = gaussian.cross_entropy(mp, vp, mq, vq) - gaussian.entropy(vp)
    divergence = gaussian.kl_divergence(mp, vp, mq, vq)
    assert divergence >= 0
    assert divergence == pytest.approx(above, rel=1e-12, abs=1e-12)
    assert gaussian.kl_divergence(mp, vp, mp, vp) == 0


@pytest.mark.parametrize("four", [(0, 1, 0, 1), (1, 0.5, -1, 2), (0.3, 2, 0, 0.7)])
def test_integrals(four):
    """The expectations by their definition as integrals."""
    mp, vp, mq, vq = map(mpmath.mpf, four)

    def log_density(x, m, v):
        return -((x - m) ** 2) / (2 * v) - mpmath.log(2 * mpmath.pi * v) / 2

    def expected(value):
        points = [-mpmath.inf, mp - 3, mp, mp + 3, mpmath.inf]
        return float(mpmath.quad(lambda x: mpmath.exp(log_density(x, mp, vp)) * value(x), points))

    cross = expected(lambda x: -log_density(x, mq, vq))
    divergence = expected(lambda x: log_density(x, mp, vp) - log_density(x, mq, vq))
    assert gaussian.cross_entropy(*four) == pytest.approx(cross, rel=1e-9)
    assert gaussian.kl_divergence(*four) == pytest.approx(divergence, rel=1e-9)


# The standard normal --------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [*NEAR[1:], 0.5, 1.0, 30.0, 1e-100])
def test_kl_to_standard_normal(rng, noise):
    mean, log_variance = noise * rng.uniform(-1, 1, (2, 20, 7))
    log_variance[0] = noise * np.array([-1, 1, 0.5, -0.5, 0, 0.25, 0])
    truth = []
    for m, v in zip(mean, log_variance, strict=True):
        with mpmath.workdps(250):
            terms = (number(a) ** 2 + mpmath.expm1(number(b)) - number(b)
                     for a, b in zip(m, v, strict=True))  # fmt: skip
            truth.append(float(mpmath.fsum(terms) / 2))
    np.testing.assert_allclose(
        gaussian.kl_to_standard_normal(mean, log_variance), truth, rtol=2e-15, atol=0
    )
    assert_same_bits(gaussian.kl_to_standard_normal(0 * mean, 0 * mean), np.zeros(20))


def test_kl_to_standard_normal_at_the_edges():
    infinite = gaussian.kl_to_standard_normal(
        [[0.0], [0.0], [np.inf], [0.0], [np.nan], [0.0]],
        [[np.inf], [-np.inf], [0.0], [800.0], [0.0], [np.nan]],
    )
    np.testing.assert_array_equal(infinite, [np.inf] * 4 + [np.nan] * 2)
    assert gaussian.kl_to_standard_normal(np.ones((2, 1, 3)), np.ones(3)).shape == (2, 1)
    with pytest.raises(ValueError, match="mean and log_variance must have at least one axis"):
        gaussian.kl_to_standard_normal(1.0, 1.0)
    with pytest.raises(ValueError, match="mean and log_variance must have at least one variable"):
        gaussian.kl_to_standard_normal(np.ones((2, 0)), np.ones((2, 0)))
    with pytest.raises(ValueError, match=r"log_variance must broadcast, got shapes \(2,\)"):
        gaussian.kl_to_standard_normal([1.0, 2], [1.0, 2, 3])


# Several variables ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 8, 20])
def test_vectors(rng, size):
    cp, cq = covariance(rng, size), covariance(rng, size)
    mp, mq = rng.standard_normal((2, size))
    rtol = 1e-15 * (np.linalg.cond(cp) + np.linalg.cond(cq)) + 1e-14
    for name in PAIRS:
        truth = exact_many(name, mp, cp, mq, cq)
        actual = getattr(gaussian, f"multivariate_{name}")(mp, cp, mq, cq)
        assert actual == pytest.approx(truth, rel=rtol)
    truth = exact_many("entropy", mp, cp, mq, cq)
    assert gaussian.multivariate_entropy(cp) == pytest.approx(truth, rel=rtol, abs=1e-14)


@pytest.mark.parametrize("size", [1, 2, 5, 12])
@pytest.mark.parametrize("noise", NEAR)
def test_nearly_equal_vectors(rng, size, noise):
    cq, mean = covariance(rng, size), rng.standard_normal(size)
    change = covariance(rng, size) * rng.choice([-1, 1])
    cp = cq + noise * change * np.linalg.eigvalsh(cq)[0] / np.linalg.norm(change)
    cp = (cp + cp.T) / 2
    moved = mean + noise * rng.standard_normal(size)
    condition = np.linalg.cond(cq)
    for means in ((mean, mean), (moved, mean)):
        truth = exact_many("kl_divergence", means[0], cp, means[1], cq)
        actual = gaussian.multivariate_kl_divergence(means[0], cp, means[1], cq)
        assert actual == pytest.approx(truth, rel=1e-14 + 1e-15 * condition, abs=0)
        assert (actual == 0) == (truth == 0)


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e40, 1e300])
def test_vectors_of_any_scale(rng, scale):
    p, q = rng.uniform(1, 3, (2, 3))
    truth = sum(exact("kl_divergence", 0, a, 0, b) for a, b in zip(p, q, strict=True))
    value = gaussian.multivariate_kl_divergence(
        np.zeros(3), np.diag(scale * p), np.zeros(3), np.diag(scale * q)
    )
    assert value == pytest.approx(float(truth), rel=1e-14)


def test_variables_of_very_different_scales(rng):
    """However the variables are scaled, none disturbs another."""
    scale = 10.0 ** rng.integers(-140, 140, 6)
    cp, cq = covariance(rng, 6, 0), covariance(rng, 6, 0)
    mp, mq = rng.standard_normal((2, 6))
    plain = gaussian.multivariate_kl_divergence(mp, cp, mq, cq)
    grid = np.multiply.outer(scale, scale)
    scaled = gaussian.multivariate_kl_divergence(mp * scale, cp * grid, mq * scale, cq * grid)
    assert scaled == pytest.approx(plain, rel=1e-12)


def test_a_vector_of_independent_variables(rng):
    mp, mq = rng.standard_normal((2, 4, 3))
    vp, vq = rng.uniform(0.5, 2, (2, 4, 3))
    cp, cq = (v[..., None] * np.eye(3) for v in (vp, vq))
    for name in PAIRS:
        actual = getattr(gaussian, f"multivariate_{name}")(mp, cp, mq, cq)
        each = getattr(gaussian, name)(mp, vp, mq, vq)
        np.testing.assert_allclose(actual, each.sum(-1), rtol=1e-13)
    np.testing.assert_allclose(
        gaussian.multivariate_entropy(cp), gaussian.entropy(vp).sum(-1), rtol=1e-13
    )
    standard = gaussian.multivariate_kl_divergence(mp, cp, np.zeros(3), np.eye(3))
    np.testing.assert_allclose(standard, gaussian.kl_to_standard_normal(mp, np.log(vp)), rtol=1e-13)


def test_broadcasting_of_vectors(rng):
    covariances = np.stack([covariance(rng, 3) for _ in range(4)])
    means = rng.standard_normal((5, 1, 3))
    for name in PAIRS:
        function = getattr(gaussian, f"multivariate_{name}")
        actual = function(means, covariances, np.zeros(3), covariances[0])
        assert actual.shape == (5, 4)
        one = function(means[2, 0], covariances[3], np.zeros(3), covariances[0])
        assert actual[2, 3] == pytest.approx(one, rel=1e-14)
        assert isinstance(one, np.float64)
        assert function(means[:0], covariances, np.zeros(3), np.eye(3)).shape == (0, 4)
    same = gaussian.multivariate_kl_divergence(means, covariances, means, covariances)
    assert_same_bits(same, np.zeros((5, 4)))
    assert gaussian.multivariate_entropy(covariances[:0]).shape == (0,)


# NaN, dtypes, kinds ---------------------------------------------------------------------------


def test_nan_touches_its_own_result_only(rng):
    variance = np.array([1.0, np.nan, 2.0])
    assert np.isnan(gaussian.entropy(variance)).tolist() == [False, True, False]
    for name in PAIRS:
        function = getattr(gaussian, name)
        for place in range(4):
            four = [np.zeros(3), np.ones(3), np.ones(3), np.ones(3)]
            four[place] = variance
            assert np.isnan(function(*four)).tolist() == [False, True, False]
    covariances = np.stack([covariance(rng, 3) for _ in range(3)])
    means = rng.standard_normal((3, 3))
    hurt, moved = covariances.copy(), means.copy()
    hurt[1, 2, 0], moved[1, 1] = np.nan, np.nan
    assert np.isnan(gaussian.multivariate_entropy(hurt)).tolist() == [False, True, False]
    for name in PAIRS:
        function = getattr(gaussian, f"multivariate_{name}")
        whole = function(means, covariances, 0 * means, covariances[::-1])
        for four in ((means, hurt, 0 * means, covariances[::-1]),
                     (moved, covariances, 0 * means, covariances[::-1])):  # fmt: skip
            actual = function(*four)
            assert np.isnan(actual[1])
            assert_same_bits(actual[::2], whole[::2])


@pytest.mark.parametrize("dtype", [*FLOATS, np.dtype(np.int32), np.dtype(bool)], ids=str)
def test_dtypes(dtype):
    one, kind = np.ones(3, dtype), result_dtype(dtype)
    eye = np.eye(3).astype(dtype)
    results = [
        gaussian.entropy(one),
        gaussian.cross_entropy(one, one, one, one),
        gaussian.kl_divergence(one, one, 0.5, 2),  # Python numbers do not widen
        gaussian.kl_to_standard_normal(one, one),
        gaussian.multivariate_entropy(eye),
        gaussian.multivariate_cross_entropy(one, eye, one, eye),
        gaussian.multivariate_kl_divergence(one, eye, 0 * one, eye),
    ]
    assert [r.dtype for r in results] == [kind] * 7
    np.testing.assert_allclose(results[0], np.full(3, 1.4189385332046727), rtol=1e-7)
    np.testing.assert_allclose(results[2], np.full(3, exact("kl_divergence", 1, 1, 0.5, 2)), 1e-7)
    assert results[6] == 1.5
    wide = gaussian.kl_divergence(one, one.astype(np.float64), one, one)
    assert wide.dtype == np.float64
    assert_same_bits(wide, np.zeros(3))


def test_torch(rng):
    torch = pytest.importorskip("torch")
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        one, eye = torch.ones(3, dtype=dtype), torch.eye(3, dtype=dtype)
        results = [
            gaussian.entropy(one),
            gaussian.kl_divergence(0.0, one, 1.0, 2.0),
            gaussian.kl_to_standard_normal(one, one),
            gaussian.multivariate_entropy(eye),
            gaussian.multivariate_kl_divergence(one, eye, one, eye),
        ]
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        assert [r.dtype for r in results] == [kind] * 5
        assert results[4].item() == 0
    assert isinstance(gaussian.cross_entropy(np.ones(3), one, one, one), np.ndarray)
    p, q = torch.distributions.Normal(0.5, 1.5), torch.distributions.Normal(-1.0, 0.5)
    theirs = torch.distributions.kl_divergence(p, q).item()
    assert gaussian.kl_divergence(0.5, 1.5**2, -1.0, 0.25) == pytest.approx(theirs, rel=1e-6)


def test_scipy(rng):
    stats = pytest.importorskip("scipy.stats")
    c = covariance(rng, 5)
    theirs = stats.multivariate_normal(cov=c).entropy()
    assert gaussian.multivariate_entropy(c) == pytest.approx(theirs, rel=1e-12)
    assert gaussian.entropy(2.5) == pytest.approx(stats.norm(scale=2.5**0.5).entropy(), rel=1e-14)


def test_inputs_are_never_changed(rng):
    c, mean = covariance(rng, 3), rng.standard_normal(3)
    c.flags.writeable = mean.flags.writeable = False
    before = c.copy(), mean.copy()
    gaussian.multivariate_kl_divergence(mean, np.asfortranarray(c), mean[::-1], c.T)
    gaussian.kl_to_standard_normal(mean, mean)
    assert_same_bits((c, mean), before)


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0.0, -1.5, np.inf])
def test_variances_out_of_range(bad):
    rule = f"must be positive and finite, got {bad} at position"
    with pytest.raises(ValueError, match=f"variance {rule} 1"):
        gaussian.entropy([1.0, bad])
    with pytest.raises(ValueError, match=f"variance must be positive and finite, got {bad}$"):
        gaussian.entropy(bad)
    for name in PAIRS:
        with pytest.raises(ValueError, match=rf"variance_p {rule} \(0, 1\)"):
            getattr(gaussian, name)(0, [[1, bad]], [1, 2], 1)
        with pytest.raises(ValueError, match=f"variance_q {rule} 0"):
            getattr(gaussian, name)([[0.0], [1.0]], 1, 1, [bad, 1])


def test_shapes_that_do_not_fit():
    message = (
        "mean_p, variance_p, mean_q and variance_q must broadcast, got shapes (2,), (3,), (), ()"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        gaussian.kl_divergence([1, 2], [1, 2, 3], 0, 1)
    eye = np.eye(2)
    for name in PAIRS:
        function = getattr(gaussian, f"multivariate_{name}")
        with pytest.raises(ValueError, match="means and covariances must be of one dimension"):
            function([0, 0, 0], eye, [0, 0], eye)
        with pytest.raises(ValueError, match="means and covariances must be of one dimension"):
            function([0, 0], eye, [0, 0], np.eye(3))
        with pytest.raises(ValueError, match="mean_q must have at least one axis, got a scalar"):
            function([0, 0], eye, 0, eye)
        with pytest.raises(ValueError, match="covariance_q must broadcast, got shapes"):
            function(np.zeros((3, 2)), eye, np.zeros((4, 2)), eye)
    for shape in ((2,), (2, 3), (0, 0), ()):
        with pytest.raises(ValueError, match="covariance must be square matrices"):
            gaussian.multivariate_entropy(np.ones(shape))


def test_matrices_that_are_no_covariances():
    many = np.tile(np.eye(3), (2, 4, 1, 1))

    def with_matrix(matrix):
        changed = many.copy()
        changed[1, 2] = matrix
        return changed

    indefinite = with_matrix([[1, 2, 0], [2, 1, 0], [0, 0, 1]])
    refused = r"covariance must be positive definite, got smallest eigenvalue -\d\S* at matrix \(1"
    with pytest.raises(ValueError, match=refused):
        gaussian.multivariate_entropy(indefinite)
    with pytest.raises(ValueError, match=r"covariance_p must be positive .* at matrix \(1, 2\)"):
        gaussian.multivariate_kl_divergence(np.zeros(3), indefinite, np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match=r"covariance_q must be positive .* at matrix \(1, 2\)"):
        gaussian.multivariate_cross_entropy(
            np.zeros(3), np.eye(3), np.zeros(3), with_matrix(np.diag([1, 0, 1]))
        )
    for singular in (np.full((3, 3), 0.1), [[1, 1], [1, 1 + 2e-16]]):
        with pytest.raises(ValueError, match=r"positive definite, got smallest eigenvalue -?\d"):
            gaussian.multivariate_entropy(singular)
    with pytest.raises(ValueError, match=r"positive definite, got smallest eigenvalue -2\.0$"):
        gaussian.multivariate_entropy([[-2.0]])
    message = (
        "covariance must be symmetric, got 0.25 at row 0, column 1 and 0.5 at row 1, column 0 "
        "at matrix (1, 2)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        gaussian.multivariate_entropy(with_matrix([[1, 0.25, 0], [0.5, 1, 0], [0, 0, 1]]))
    with pytest.raises(ValueError, match=r"must be finite, got inf at position \(1, 2, 0, 0\)"):
        gaussian.multivariate_entropy(with_matrix(np.diag([np.inf, 1, 1])))


def test_symmetry_up_to_rounding(rng):
    for dtype in (np.float64, np.float32):
        c = covariance(rng, 4).astype(dtype)
        c[0, 1] = np.nextafter(c[0, 1], dtype(9))
        assert np.isfinite(gaussian.multivariate_entropy(c))


def test_no_numbers():
    for call in (gaussian.entropy, gaussian.multivariate_entropy):
        with pytest.raises(TypeError, match=r"(variance|covariance) must hold real numbers"):
            call(np.ones((2, 2), complex))


def test_it_is_reached_as_an_attribute():
    assert fastinfo.gaussian is gaussian
    assert "gaussian" in dir(fastinfo)
    with pytest.raises(AttributeError, match="did you mean 'gaussian'"):
        _ = fastinfo.gausian
    assert sorted(gaussian.__all__) == gaussian.__all__
