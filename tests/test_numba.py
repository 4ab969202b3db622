"""The functions for a user's own compiled code, from such code and from the interpreter."""

import math
import re

import numpy as np
import pytest
from numba import njit, prange
from numba.core.errors import TypingError

import fastinfo
from fastinfo import numba as ours


@njit
def exps(x, out):
    for i in range(x.size):
        out[i] = ours.exp(x[i])


@njit
def logs(x, out):
    for i in range(x.size):
        out[i] = ours.log(x[i])


LOOPS = {"exp": (exps, np.exp), "log": (logs, np.log)}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_in_the_last_place(rng, name, dtype):
    loop, exact = LOOPS[name]
    if name == "exp":
        top = math.log(np.finfo(dtype).max)
        x = np.concatenate([rng.uniform(-top, top, 200_000), rng.normal(size=100_000) * 1e-3])
    else:
        x = np.concatenate([np.exp(rng.uniform(-80, 80, 200_000)), rng.uniform(0.9, 1.1, 100_000)])
    x = x.astype(dtype)
    out = np.empty_like(x)
    loop(x, out)
    with np.errstate(over="ignore"):
        expected = exact(x.astype(np.longdouble))
        units = np.abs(out - expected) / np.spacing(np.abs(expected).astype(dtype))
    assert float(np.nanmax(units)) < {"exp": 2.0, "log": 3.0}[name]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_numbers(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, np.log(tiny) + 0.4], dtype)
    out = np.empty_like(x)
    exps(x, out)
    np.testing.assert_array_equal(out, np.array([1, 1, np.inf, 0, np.nan, np.inf, 0, tiny], dtype))
    x = np.array([0, -0.0, np.inf, -1, -np.inf, np.nan, 1, tiny], dtype)
    logs(x, out)
    expected = [-np.inf, -np.inf, np.inf, np.nan, np.nan, np.nan, 0, np.log(np.float64(tiny))]
    np.testing.assert_allclose(out, np.array(expected, dtype), rtol=1e-6)


@pytest.mark.parametrize("name", LOOPS)
def test_in_the_interpreter(name):
    function, exact = getattr(ours, name), LOOPS[name][1]
    for value in (0.5, 1, 3, np.float32(0.25), np.float64(2)):
        found = function(value)
        assert type(found) is (np.float32 if isinstance(value, np.float32) else float)
        assert found == pytest.approx(float(exact(value)), rel=1e-6)
    assert ours.exp(1e5) == math.inf
    assert ours.log(0) == -math.inf and math.isnan(ours.log(-1.0))


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loops_become_vectors(name, dtype):
    loop, _ = LOOPS[name]
    x = np.ones(100, dtype)
    loop(x, x.copy())
    kind = np.dtype(dtype).name
    (code,) = [text for given, text in loop.inspect_asm().items() if kind in str(given[0])]
    assert re.search(r"vfmadd\w+pd\s+.*%[yz]mm|fmla\s+v\d+\.2d", code)


ROWS = [np.float32, np.float64]


def logits_of(rng, dtype):
    x = (4 * rng.normal(size=(6, 5000))).astype(dtype)
    x[1] += 1000
    x[2, 10:] = -np.inf
    x[3, 7] = np.nan
    x[4] = -np.inf
    x[5, 3] = np.inf
    return x


@pytest.mark.parametrize("dtype", ROWS)
def test_rows_of_logits(rng, dtype):
    x, targets = logits_of(rng, dtype), np.array([0, 4999, 3, 2, 1, 0])

    @njit
    def of_all(x, targets):
        losses, sums = np.empty(len(x)), np.empty(len(x))
        for i in range(len(x)):
            losses[i] = ours.cross_entropy(x[i], targets[i])
            sums[i] = ours.logsumexp(x[i])
        return losses, sums

    losses, sums = of_all(x, targets)
    rtol = 1e-12 if dtype == np.float64 else 2e-6
    expected = fastinfo.softmax_cross_entropy(x.astype(float), targets, reduction="none")
    np.testing.assert_allclose(losses, expected, rtol=rtol)
    np.testing.assert_allclose(sums, fastinfo.logsumexp(x.astype(float)), rtol=rtol)
    assert ours.cross_entropy(x[0], 0) == losses[0]
    assert ours.logsumexp(x[0]) == sums[0]


@pytest.mark.parametrize("p_dtype", ROWS)
@pytest.mark.parametrize("q_dtype", ROWS)
def test_pairs_of_distributions(rng, p_dtype, q_dtype):
    p, q = (rng.dirichlet(np.full(50, 0.2), 20).astype(t) for t in (p_dtype, q_dtype))
    p[3], q[4, :10] = q[3], 0

    @njit(parallel=True)
    def of_all(p, q):
        kl, js = np.empty(len(p)), np.empty(len(p))
        for i in prange(len(p)):
            kl[i] = ours.kl_divergence(p[i], q[i])
            js[i] = ours.js_divergence(2 * p[i], q[i])
        return kl, js

    found = dict(zip(("kl_divergence", "js_divergence"), of_all(p, q), strict=True))
    for name, values in found.items():
        expected = getattr(fastinfo, name)(p.astype(float), q.astype(float))
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-15)
    assert ours.kl_divergence(p[0], q[0]) == found["kl_divergence"][0]
    if p_dtype == q_dtype:
        assert found["kl_divergence"][3] == 0


def test_rows_that_are_no_distributions():
    good, zero = np.array([0.5, 0.5]), np.zeros(2)
    for bad in (zero, np.array([1.0, np.nan]), np.array([2.0, -0.5]), np.array([np.inf, 1.0])):
        for function in (ours.kl_divergence, ours.js_divergence):
            assert math.isnan(function(good, bad)) and math.isnan(function(bad, good))
    assert ours.kl_divergence(good, np.array([1.0, 0.0])) == math.inf


def test_errors():
    x = np.zeros((4, 6))
    for target in (-1, 6):
        with pytest.raises(IndexError, match="target must be a class of the row"):
            ours.cross_entropy(x[0], target)
    with pytest.raises(ValueError, match="p and q must be of one length"):
        ours.kl_divergence(np.ones(3), np.ones(4))
    for wrong in (x[:, 0], x, np.zeros(3, np.int64)):
        with pytest.raises(TypingError, match=r"logsumexp takes contiguous rows of float32 or"):
            ours.logsumexp(wrong)
