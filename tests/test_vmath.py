"""Errors of the polynomials, and the 16-bit conversions, against NumPy in float64."""

import ml_dtypes
import mpmath
import numba
import numpy as np
import pytest

from benchmarks.ulp import FUNCTIONS, every_float32, largest_error
from fastinfo.cpu import vmath
from fastinfo.cpu.memory import store
from fastinfo.engine import kernel


def over_array(function, dtype):
    @numba.njit(error_model="numpy")
    def fill(x, out):
        for k in range(x.size):
            out[k] = function(x[k])
        return out

    return lambda x: fill(x, np.empty(x.size, dtype))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_stays_below_what_the_table_promises(name, rng):
    row = FUNCTIONS[name]
    x = row.sample(rng, 200_000)
    assert largest_error(row, x)[0] <= row.bound


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [n for n, row in FUNCTIONS.items() if row.dtype == "float32"])
def test_every_float32(name):
    row = FUNCTIONS[name]
    assert max(largest_error(row, x)[0] for x in every_float32(row)) <= row.bound


def test_exp2_at_its_ends():
    x = np.array([-np.inf, -1e30, -127, -126, 0, 1, np.nan], np.float32)
    expected = [0, 0, 0, 2.0**-126, 1, 2, np.nan]
    np.testing.assert_array_equal(over_array(vmath.single.exp2, np.float32)(x), expected)
    x = np.array([-np.inf, -1e300, -1023, -1022, 0, 1, np.nan])
    expected = [0, 0, 0, 2.0**-1022, 1, 2, np.nan]
    np.testing.assert_array_equal(over_array(vmath.double.exp2, np.float64)(x), expected)


def test_log_at_its_ends():
    x = np.array([0.0, 1.0, np.inf, -1.0, np.nan, 5e-324, 1e-310])
    expected = [-np.inf, 0.0, np.inf, np.nan, np.nan, np.log(5e-324), np.log(1e-310)]
    np.testing.assert_allclose(over_array(vmath.double.log, np.float64)(x), expected, rtol=3e-16)


@pytest.mark.parametrize("arithmetic", [vmath.single, vmath.double])
def test_logarithm_over_pairs_is_finite_at_zero(arithmetic):
    zero = np.zeros(1, arithmetic.real)
    assert np.isfinite(over_array(arithmetic.log_in_units, arithmetic.real)(zero)[0])


@pytest.mark.parametrize(("arithmetic", "rtol"), [(vmath.single, 1e-6), (vmath.double, 5e-15)])
def test_entropy_gap_keeps_its_digits_near_zero(arithmetic, rtol):
    u = np.concatenate([10.0 ** np.arange(-9, 4), -(10.0 ** np.arange(-9, 0)), [-0.999, -1.0]])
    u = u.astype(arithmetic.real)

    def exact(v):
        u = mpmath.mpf(float(v))
        return float((1 + u) * mpmath.log(1 + u) - u) if u > -1 else 1.0

    with mpmath.workdps(50):
        expected = [exact(v) for v in u]
    value = over_array(arithmetic.entropy_gap, arithmetic.real)(u)
    np.testing.assert_allclose(value, expected, rtol=rtol)


@pytest.mark.parametrize(("arithmetic", "rtol"), [(vmath.single, 3e-7), (vmath.double, 7e-16)])
def test_exp_gap_keeps_its_digits_near_zero(rng, arithmetic, rtol):
    t = np.concatenate([10.0 ** np.arange(-15.0, 0), rng.uniform(-0.5, 0.5, 1000), [-0.5, 0.5]])
    t = t.astype(arithmetic.real)
    with mpmath.workdps(50):
        expected = [float(mpmath.expm1(-float(v)) + float(v)) for v in t]
    value = over_array(arithmetic.exp_gap_near, arithmetic.real)(t)
    np.testing.assert_allclose(value, expected, rtol=rtol)


@pytest.mark.parametrize("arithmetic", [vmath.single, vmath.double])
@pytest.mark.parametrize("name", ["entropy_gap", "mean_gap"])
@pytest.mark.parametrize("largest", [1e-9, 1e-3, 0.5, 1.0])
def test_gaps_of_vectors_by_the_short_way_and_the_long(rng, arithmetic, name, largest):
    of_vectors, lanes = vmath.of_vectors(arithmetic), arithmetic.lanes
    function = getattr(of_vectors, name)
    read = vmath.reader(np.dtype(arithmetic.real).name, arithmetic, 0.0)

    @kernel
    def gaps(name, arithmetic):
        def fill(u, out):
            for k in range(0, u.size, lanes):
                store(out, k, function(read(u, k)))

        return fill

    u = (largest * rng.uniform(-1, 1, 1001)).astype(arithmetic.real)
    u[:2] = -largest, largest
    value = np.empty_like(u)
    gaps(name, arithmetic)(u, value)

    def exact(v):
        v = mpmath.mpf(float(v))
        return (1 + v) * mpmath.log(1 + v) - v if v > -1 else mpmath.mpf(1)

    with mpmath.workdps(50):
        if name == "entropy_gap":
            expected = [float(exact(v)) for v in u]
        else:
            expected = [float((exact(v) + exact(-v)) / 2) for v in u]
    rtol = 1.2e-6 if arithmetic is vmath.single else 1e-14
    np.testing.assert_allclose(value, expected, rtol=rtol)


@pytest.mark.parametrize(
    ("p", "q"), [(1, 2), (1e-310, 1.0), (1.0, 5e-324), (0.3, 0.3), (3.0, 2.0), (1e300, 1e-300)]
)
def test_log_ratio(p, q):
    log_ratio, atanh_tail = vmath.double.log_ratio, vmath.double.atanh_tail

    @numba.njit(error_model="numpy")
    def log_of_ratio(p, q):
        n, s = log_ratio(p, q)
        return n * np.log(2.0) + 2.0 * s + 2.0 * s * s * s * atanh_tail(s * s)

    expected = np.log(np.longdouble(p)) - np.log(np.longdouble(q))
    assert log_of_ratio(float(p), float(q)) == pytest.approx(float(expected), rel=1e-15, abs=0)


@pytest.mark.parametrize(
    ("widen", "dtype"),
    [(vmath.widen_float16, np.float16), (vmath.widen_bfloat16, ml_dtypes.bfloat16)],
)
def test_widening_every_16_bit_word(widen, dtype):
    words = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(
        over_array(widen, np.float32)(words), words.view(dtype).astype(np.float32)
    )


@pytest.mark.parametrize(
    ("narrow", "dtype"),
    [(vmath.narrow_float16, np.float16), (vmath.narrow_bfloat16, ml_dtypes.bfloat16)],
)
def test_narrowing_rounds_to_nearest_even(narrow, dtype, rng):
    anything = rng.integers(0, 2**32, 1_000_000, dtype=np.uint32).view(np.float32)
    edges = np.float32([65504, 65519.99, 65520, 65536, 2**-24, 2**-25, 2**-25 * 1.01, -0.0, 6.1e-5])
    x = np.concatenate([anything, edges])
    words = over_array(narrow, np.uint16)(x)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(dtype)
    np.testing.assert_array_equal(words.view(dtype).astype(np.float32), expected.astype(np.float32))
