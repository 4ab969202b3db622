"""The oracles themselves, against mpmath with 60 digits on the hardest rows."""

import cases
import mpmath
import numpy as np
import oracles
import pytest

V = 12


def exact(row):
    return [mpmath.mpf(float(value)) for value in row]


def close(value, truth):
    """Relative 1e-9 where float64 asks for 1e-12 of √(1e-7·|value|), and 1e-15 elsewhere."""
    if mpmath.isnan(truth):
        return np.isnan(value)
    if mpmath.isinf(truth):
        return bool(np.isposinf(value))
    found = mpmath.mpf(np.format_float_scientific(value, precision=25))
    rtol = 1e-15 if truth > 1e-5 else 1e-9
    return abs(found - truth) <= rtol * abs(truth) + mpmath.mpf(10) ** -33


@pytest.mark.parametrize("case", cases.finite_logits(V))
def test_loss_and_gradient(case):
    logits = cases.finite_logits(V)[case]
    finite = [k for k in range(V) if np.isfinite(logits[k])]
    target = finite[0]
    with mpmath.workdps(60):
        z = {k: mpmath.mpf(float(logits[k])) for k in finite}
        total = mpmath.fsum(mpmath.exp(value) for value in z.values())
        loss = oracles.softmax_cross_entropy(logits[None], [target])
        assert close(loss.rows[0], mpmath.log(total) - z[target])
        for k in finite:
            p = mpmath.exp(z[k]) / total
            assert abs(mpmath.mpf(repr(float(loss.grad[0, k]))) - (p - (k == target))) < 1e-15
        entropy = mpmath.fsum(mpmath.exp(a) / total * (mpmath.log(total) - a) for a in z.values())
        assert close(oracles.softmax_statistics(logits[None])["entropy"][0], entropy)


@pytest.mark.parametrize("case", cases.distribution_pairs(np.random.default_rng(0), V))
def test_measures(case):
    p, q = cases.distribution_pairs(np.random.default_rng(0), V)[case]
    with mpmath.workdps(60):
        a, b = exact(p), exact(q)
        a, b = [x / mpmath.fsum(a) for x in a], [x / mpmath.fsum(b) for x in b]
        m = [(x + y) / 2 for x, y in zip(a, b, strict=True)]

        def kl(left, right):
            pairs = [(x, y) for x, y in zip(left, right, strict=True) if x > 0]
            if any(y == 0 for _, y in pairs):
                return mpmath.inf
            return mpmath.fsum(x * mpmath.log(x / y) for x, y in pairs)

        entropy = -mpmath.fsum(x * mpmath.log(x) for x in a if x > 0)
        js = (kl(a, m) + kl(b, m)) / 2
        roots = [(mpmath.sqrt(x) - mpmath.sqrt(y)) ** 2 for x, y in zip(a, b, strict=True)]
        variation = mpmath.fsum(abs(x - y) for x, y in zip(a, b, strict=True)) / 2
        assert close(oracles.entropy(p), entropy)
        assert close(oracles.cross_entropy(p, q), entropy + kl(a, b))
        assert close(oracles.kl_divergence(p, q), kl(a, b))
        assert close(oracles.js_divergence(p, q), js)
        assert close(oracles.js_distance(p, q, base=2), mpmath.sqrt(js / mpmath.log(2)))
        assert close(oracles.total_variation(p, q), variation)
        assert close(oracles.hellinger_distance(p, q), mpmath.sqrt(mpmath.fsum(roots) / 2))


def test_formulas_as_they_stand():
    p, q = np.array([2.0, 0.0, 1.0]), np.array([1.0, 5.0, 0.5])
    assert np.isclose(float(oracles.kl_divergence(p, q, normalize=False)), 3 * np.log(2))
    assert np.isclose(float(oracles.entropy(p, normalize=False, base=2)), -2)
    assert float(oracles.total_variation(p, q, normalize=False)) == 3.25
