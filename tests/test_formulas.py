"""Formulas as plain Python, uncompiled, against their definitions in 40 digits."""

from math import inf, isnan, log, nan

import mpmath
import pytest

from fastinfo import formulas

VALUES = [1e-300, 1e-9, 0.1, 0.25, 0.250001, 0.5, 1.0, 3.0]


def mp(function, *values):
    with mpmath.workdps(40):
        return float(function(*(mpmath.mpf(v) for v in values)))


@pytest.mark.parametrize("p", VALUES)
@pytest.mark.parametrize("q", VALUES)
def test_terms_of_bins(p, q):
    d = p - q

    def kl(a, b):
        return a * mpmath.log(a / b) - a + b

    def js(a, b):
        m = (a + b) / 2
        return (kl(a, m) + kl(b, m)) / 2

    close = {"rel": 1e-14, "abs": 1e-320}
    assert formulas.kl_term(p, q, d) == pytest.approx(mp(kl, p, q), **close)
    assert formulas.js_term(p, q, d, 0.5) == pytest.approx(mp(js, p, q), **close)
    hellinger = mp(lambda a, b: (mpmath.sqrt(a) - mpmath.sqrt(b)) ** 2, p, q)
    assert formulas.hellinger_term(p, q, d, 0.5) == pytest.approx(hellinger, **close)
    assert formulas.total_variation_term(p, q, d, 0.5) == abs(d)
    plain = mp(lambda a, b: a * mpmath.log(a / b), p, q)
    assert formulas.relative_entropy_term(p, q, d, 0.5) == pytest.approx(plain, **close)


def test_edges_of_terms():
    assert formulas.kl_term(0.0, 0.3, -0.3) == 0.3
    assert formulas.kl_term(0.3, 0.0, 0.3) == inf
    assert formulas.kl_term(0.0, 0.0, 0.0) == 0.0
    assert isnan(formulas.kl_term(nan, 0.0, nan))
    assert formulas.entropy_term(0.0, 0.0, 0.0, 0.5) == 0.0
    assert formulas.cross_entropy_term(0.0, 0.0, 0.0, 0.5) == 0.0
    assert formulas.cross_entropy_term(0.5, 0.0, 0.5, 0.5) == inf
    assert isnan(formulas.cross_entropy_term(0.0, nan, nan, 0.5))
    assert formulas.js_term(0.4, 0.0, 0.4, 0.5) == pytest.approx(0.2 * log(2))
    assert formulas.hellinger_term(0.0, 0.0, 0.0, 0.5) == 0.0


@pytest.mark.parametrize("u", [-1.0, -0.999, -0.5, -1e-3, -1e-9, 1e-12, 1e-4, 0.1, 10.0])
def test_entropy_gap(u):
    expected = 1.0 if u == -1.0 else mp(lambda v: (1 + v) * mpmath.log(1 + v) - v, u)
    assert formulas.entropy_gap(u) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("y", [-0.5, -2e-3, -1e-4, -1e-9, 0.0, 1e-30, 1e-4, 9e-4, 0.3])
def test_log_gap(y):
    expected = mp(lambda v: v - mpmath.log1p(v), y)
    assert formulas.log_gap(y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("lacking", [0.0, 1e-6, -1e-4, 1e-2])
def test_kl_of_sums(lacking):
    p, q = [0.2, 0.3, 0.5], [v * (1.0 - lacking) for v in (0.25, 0.3, 0.45)]
    excess = sum(a * log(a / b) - a + b for a, b in zip(p, q, strict=True))
    expected = sum(a * log(a / b) for a, b in zip(p, (0.25, 0.3, 0.45), strict=True))
    assert formulas.kl_of_sums(excess, lacking) == pytest.approx(expected, rel=1e-12)


def test_states_merge_to_the_state_of_the_whole():
    rows = [[0.3, -1.0], [2.0, 2.0, -4.0], [-inf], [0.5]]

    def state(z):
        m = max(z)
        if m == -inf:
            return -inf, -1.0, 0.0, 0.0, 0.0
        w = [mp(lambda v: mpmath.exp(v - m), v) for v in z]
        e = sum(a * (v - m) for a, v in zip(w, z, strict=True) if a)
        return m, sum(w) - 1.0, e, 0.0, 0.0

    merged = (-inf, -1.0, 0.0, 0.0, 0.0)
    for row in rows:
        right = state(row)
        gap = merged[0] - right[0] if merged[0] > -inf else -inf
        merged = formulas.merge(*merged, *right, gap, 1.0)
    whole = state([v for row in rows for v in row])
    assert merged == pytest.approx(whole, rel=1e-14)
    m, r, *_ = merged
    total = mp(lambda *z: mpmath.log(mpmath.fsum(mpmath.exp(v) for v in z)), 0.3, -1, 2, 2, -4, 0.5)
    assert m + formulas.log_sum(m, r) == pytest.approx(total, rel=1e-14)
    assert isnan(formulas.log_sum(-inf, -1.0)) and isnan(formulas.log_sum(inf, nan))


@pytest.mark.parametrize("q", [0.0, 1e-300, 0.2, 0.2 + 1e-12, 1.0])
@pytest.mark.parametrize("p", [0.0, 0.2, 0.9, nan])
def test_half_a_power_is_a_root(p, q):
    term, powers = (f(p, q, p - q, 0.5) for f in (formulas.half_renyi_term, formulas.renyi_term))
    assert term == pytest.approx(powers, rel=1e-13, abs=0, nan_ok=True)


@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("x", [-700.0, -3.0, -1e-9, 0.0, 0.5, 30.0])
def test_binary_losses(x, y):
    def loss(p, t, of_rest):
        return -(2 * t * mpmath.log(p) + (1 - t) * mpmath.log(of_rest))

    def of_logit(x, t):
        return loss(1 / (1 + mpmath.exp(-x)), t, 1 / (1 + mpmath.exp(x)))

    def slope(x, t):
        return (1 - t) / (1 + mpmath.exp(-x)) - 2 * t / (1 + mpmath.exp(x))

    value, gradient = formulas.binary_cross_entropy_of_logit(x, y, 1.0 - y, 2.0)
    assert value == pytest.approx(mp(of_logit, x, y), rel=1e-14)
    assert gradient == pytest.approx(mp(slope, x, y), rel=1e-14)
    p = 1.0 / (1.0 + abs(x)) if x else 1e-300
    value, gradient = formulas.binary_cross_entropy_of_probability(p, y, 1.0 - y, 2.0)
    assert value == pytest.approx(mp(lambda p, t: loss(p, t, 1 - p), p, y), rel=1e-13)
    assert gradient == pytest.approx(
        mp(lambda p, t: (1 - t) / (1 - p) - 2 * t / p, p, y), rel=1e-14
    )


OF_LOGIT = (formulas.binary_cross_entropy_of_label, formulas.binary_cross_entropy_of_logit)
OF_PROBABILITY = (
    formulas.binary_cross_entropy_of_probability_and_label,
    formulas.binary_cross_entropy_of_probability,
)
LOGITS = (-inf, -700.0, -3.0, -0.0, 0.0, 1e-9, 0.5, 30.0, inf, nan)
PROBABILITIES = (1e-300, 1e-9, 0.3, 0.5, 1.0 - 1e-12, nan)


@pytest.mark.parametrize(
    ("forms", "x"),
    [*[(OF_LOGIT, x) for x in LOGITS], *[(OF_PROBABILITY, p) for p in PROBABILITIES]],
)
def test_a_label_is_a_target(forms, x):
    of_label, of_target = forms
    for label in (False, True):
        for weight in (1.0, 0.3):
            expected = of_target(x, float(label), 1.0 - label, weight)
            assert of_label(x, label, weight) == pytest.approx(
                expected, rel=1e-15, abs=0, nan_ok=True
            )


def test_a_term_of_a_binary_loss_that_counts_nothing():
    assert formulas.binary_cross_entropy_of_logit(inf, 1.0, 0.0, 2.0) == (0.0, 0.0)
    assert formulas.binary_cross_entropy_of_logit(-inf, 0.0, 1.0, 2.0) == (0.0, 0.0)
    assert formulas.binary_cross_entropy_of_logit(inf, 0.0, 1.0, 2.0) == (inf, 1.0)
    assert all(isnan(v) for v in formulas.binary_cross_entropy_of_logit(nan, 1.0, 0.0, 0.0))
