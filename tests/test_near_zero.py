"""Measures of rows that hardly differ, in float64, against exact rational arithmetic."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from accuracy import assert_close_measure

import fastinfo


def exact(name, p, q):
    """Return the measure of two rows of floats by its definition, in 80 digits."""
    p, q = ([Fraction(float(v)) for v in row] for row in (p, q))
    p, q = ([v / sum(row) for v in row] for row in (p, q))
    with mpmath.workdps(80):
        p, q = ([mpmath.mpf(v.numerator) / v.denominator for v in row] for row in (p, q))
        m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]

        def kl(a, b):
            return mpmath.fsum(x * mpmath.log(x / y) for x, y in zip(a, b, strict=True) if x)

        roots = [[mpmath.sqrt(v) for v in row] for row in (p, q)]
        js = (kl(p, m) + kl(q, m)) / 2
        value = {
            "kl_divergence": lambda: kl(p, q),
            "js_divergence": lambda: js,
            "js_distance": lambda: mpmath.sqrt(abs(js)),
            "total_variation": lambda: mpmath.fsum(
                abs(a - b) for a, b in zip(p, q, strict=True)
            ) / 2,
            "hellinger_distance": lambda: mpmath.sqrt(
                mpmath.fsum((a - b) ** 2 for a, b in zip(*roots, strict=True)) / 2
            ),
        }[name]()  # fmt: skip
        return float(value)


MEASURES = [
    "kl_divergence",
    "js_divergence",
    "js_distance",
    "total_variation",
    "hellinger_distance",
]


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("k", [2, 7, 64])
def test_small_differences_keep_their_digits(rng, name, k):
    steps = 10.0 ** -np.arange(2, 15)
    p = rng.dirichlet(np.ones(k)) * 3.7
    q = p * (1.0 + steps[:, None] * rng.standard_normal((steps.size, k))) * 1.3
    expected = [exact(name, p, row) for row in q]
    p = np.tile(p, (steps.size, 1))
    assert_close_measure(name, getattr(fastinfo, name)(p, q), expected, np.float64)
    matrix = fastinfo.pairwise(p[:1], q, name)
    assert_close_measure(name, matrix[0], expected, np.float64)


def test_counts_that_differ_by_one_in_a_billion():
    p, q = [1e9, 1.0], [1e9, 1.0 + 1e-7]
    value = fastinfo.total_variation(p, q)
    assert_close_measure("total_variation", value, exact("total_variation", p, q), np.float64)
