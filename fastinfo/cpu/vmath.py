"""Exponentials, logarithms and 16-bit conversions that vectorise in a loop.

Numba has no vector library since 0.62: `math.exp` in a loop is a scalar call, 15 to 20 times slower
than the machine. These are branch-free polynomials (minimax, fitted with the Remez algorithm in 60
digits) whose exponent is set by integer arithmetic on the bits. Errors: `docs/accuracy.md`.

`single` and `double` hold the same names for float32 and float64. No formula of information theory
lives here.
"""

import platform
from functools import cache
from types import SimpleNamespace

import llvmlite.binding as llvm
import numpy as np
from numba import types

from fastinfo.cpu import simd
from fastinfo.cpu.memory import loader
from fastinfo.cpu.simd import (
    absolute,
    any_of,
    bits_of,
    float_of,
    int32,
    lanes_before,
    power_of_two_below,
    product,
    single_of,
    times_power_of_two,
    two_product,
    uint16,
    where,
    whole_power_of_two,
)
from fastinfo.engine import helper

# --- float32 -------------------------------------------------------------------------------------

_f = np.float32
_i = np.int32
_F_ONE = _f(1)
_F_TWO = _f(2)
_F_MANTISSA = _i(23)
_F_LN2 = _f(np.log(2))
_F_SQRT_HALF = _i(0x3F3504F3)  # bits of sqrt(1/2)
# (2**f - 1) / f on [-1/2, 1/2], degree 4: 9.2e-8 relative in 2**f
_E1, _E2, _E3, _E4, _E5 = (
    _f(c)
    for c in (
        0.693146977599168008,
        0.240222420853780559,
        0.0555073374324654916,
        0.00967151263950091218,
        0.00132647271986880949,
    )
)
# log2(1 + r) / r on [sqrt(1/2) - 1, sqrt(2) - 1], degree 7: 4.9e-8 in log2
_L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (
    _f(c)
    for c in (
        1.44269477242727089,
        -0.721357148911725803,
        0.480939444903603563,
        -0.360087216318775223,
        0.286707453479422845,
        -0.250069035209705787,
        0.236890390451950717,
        -0.1457445059250625,
    )
)
# (log(1 + r) - r) / r**2 on the same interval, degree 7: 1.6e-7, so that (1 + r) log(1 + r) - r has
# a relative error twice that
_N1, _N2, _N3, _N4, _N5, _N6, _N7, _N8 = (
    _f(c)
    for c in (
        -0.499999925634428562,
        0.333336426761368324,
        -0.250020585033361401,
        0.199744597420417739,
        -0.165620210296728464,
        0.1477500911418005,
        -0.143523006406865834,
        0.0922664473021778426,
    )
)


# ((1 + u) log(1 + u) - u) / u**2 on [-1/2, 1/2], degree 9: 5.2e-8
_U1, _U2, _U3, _U4, _U5, _U6, _U7, _U8, _U9, _U10 = (
    _f(c)
    for c in (
        0.500000025267569497,
        -0.166666815873516406,
        0.0833284047312485453,
        -0.0499889781011603538,
        0.0334857310618987605,
        -0.0240378942914063688,
        0.0162403775208464369,
        -0.0119840807709112425,
        0.0177601947610657726,
        -0.0156929744736879089,
    )
)
# ((1 + u) log(1 + u) + (1 - u) log(1 - u)) / (2 u**2) for u**2 on [0, 1/4], degree 4: 5.2e-8
_M1, _M2, _M3, _M4, _M5 = (
    _f(c)
    for c in (
        0.500000025759829483,
        0.0833283405458776955,
        0.0334870201714206955,
        0.0162321139464209188,
        0.0177767346064350989,
    )
)


# (exp(-t) - 1 + t) / t**2 on [-1/2, 1/2], degree 5: 3.6e-8
_X1, _X2, _X3, _X4, _X5, _X6 = (
    _f(c)
    for c in (
        0.50000001201397536571,
        -0.1666666545589023248,
        0.041665795940878105732,
        -0.0083334521644310705144,
        0.0013981997407189753664,
        -0.00019875631635617494166,
    )
)


@helper
def _exp_gap_near_single(t):
    """exp(-t) - 1 + t for t from -1/2 to 1/2, with full relative accuracy."""
    z = t * t
    even, odd = (_X5 * z + _X3) * z + _X1, (_X6 * z + _X4) * z + _X2
    return z * (odd * t + even)


@helper
def _exp2_and_below_single(t):
    """2**t and 2**t - 1 without cancellation near 0, for t <= 127.5."""
    n, f = power_of_two_below(t)
    p = ((((_E5 * f + _E4) * f + _E3) * f + _E2) * f + _E1) * f
    e = times_power_of_two(p + _F_ONE, n)
    return e, where(f == t, p, e - _F_ONE)


# the same on [0, 1], where 2**f is off by no more than 1.2e-7 (not of itself: its last place is the
# same all along); the best of those with float32 coefficients next to the exact ones
_W1, _W2, _W3, _W4, _W5 = (
    _f(c)
    for c in (
        0.6931525468826294,
        0.24015197157859802,
        0.05583873763680458,
        0.008969731628894806,
        0.0018868979532271624,
    )
)


@helper
def _exp2_single(t):
    """2**t for t <= 127.5, NaN for NaN; below -126 a subnormal number or 0."""
    n, f = whole_power_of_two(t)
    p = (((((_W5 * f + _W4) * f + _W3) * f + _W2) * f + _W1) * f) + _F_ONE
    return times_power_of_two(p, n)


@helper
def _tanh_single(u):
    """Tanh(u) and 1 - tanh(u)**2, both with full relative accuracy."""
    e, below = _exp2_and_below_single(absolute(u) * _f(-2.0 / np.log(2)))
    inverse = _F_ONE / (below + _F_TWO)
    value = below * inverse
    return where(u < _f(0), value, value * _f(-1)), e * inverse * inverse * _f(4)


@helper
def _log2_single(x):
    """log2(x) for normal x; a large negative number for 0, so that 0 * log2(0) is 0."""
    ix = bits_of(x)
    k = int32(int32(ix - _F_SQRT_HALF) >> _F_MANTISSA)
    r = float_of(int32(ix - (k << _F_MANTISSA))) - _F_ONE
    p = ((((((_L8 * r + _L7) * r + _L6) * r + _L5) * r + _L4) * r + _L3) * r + _L2) * r + _L1
    return p * r + single_of(k)


@helper
def _entropy_gap_single(u):
    """(1 + u) log(1 + u) - u, with full relative accuracy near 0, for u >= -1."""
    t = u + _F_ONE
    ix = bits_of(t)
    k = int32(int32(ix - _F_SQRT_HALF) >> _F_MANTISSA)
    near = k == _i(0)
    r = where(near, u, float_of(int32(ix - (k << _F_MANTISSA))) - _F_ONE)
    p = (((_N8 * r + _N7) * r + _N6) * r + _N5) * r + _N4
    tail = ((p * r + _N3) * r + _N2) * r + _N1  # log(1 + r) = r + r**2 tail
    square = r * r
    far = t * (single_of(k) * _F_LN2 + (square * tail + r)) - u
    return where(near, square * (t * tail + _F_ONE), far)


@helper
def _entropy_gap_near_single(u):
    """The same for u from -1/2 to 1/2."""
    z = u * u
    even = (((_U9 * z + _U7) * z + _U5) * z + _U3) * z + _U1
    odd = (((_U10 * z + _U8) * z + _U6) * z + _U4) * z + _U2
    return z * (odd * u + even)


@helper
def _mean_gap_near_single(u):
    """((1 + u) log(1 + u) + (1 - u) log(1 - u)) / 2 for u from -1/2 to 1/2."""
    z = u * u
    return z * ((((_M5 * z + _M4) * z + _M3) * z + _M2) * z + _M1)


# log(1 + e) / e on [0, 1], degree 9: 4.7e-9 relative
_P1, _P2, _P3, _P4, _P5, _P6, _P7, _P8, _P9, _P10 = (
    _f(c)
    for c in (
        0.999999995287312151,
        -0.499999024231690282,
        0.333299624216611214,
        -0.249541336822589777,
        0.1967593931282918,
        -0.153055925704770155,
        0.10603654678502487,
        -0.0569595306364315396,
        0.0198514597335227975,
        -0.00324402446192206429,
    )
)


@helper
def _log1p_single(e):
    """log(1 + e) for e in [0, 1], with full relative accuracy; NaN for NaN."""
    p = (((((_P10 * e + _P9) * e + _P8) * e + _P7) * e + _P6) * e + _P5) * e + _P4
    return product(((p * e + _P3) * e + _P2) * e + _P1, e)


# --- float64 -------------------------------------------------------------------------------------

_q = np.int64
_D_ROUND = 6755399441055744.0  # 1.5 * 2**52
_D_ROUND_BITS = _q(0x4338000000000000)
_D_MANTISSA = _q(52)
_D_SQRT_HALF = _q(0x3FE6A09E667F3BCD)
_D_TINY = 2.0**-1022
_LN2_HIGH = 0.693147180369123816490  # its last 32 bits are 0: an exponent times it is exact
_LN2_LOW = 1.90821492927058770002e-10
# (2**f - 1) / f on [-1/2, 1/2], degree 10: 3.4e-18 relative in 2**f
_G = (
    0.69314718055994532581,
    0.2402265069591013126,
    0.05550410866482008322,
    0.0096181291075941200514,
    0.0013333558146774622296,
    0.00015403530457112130915,
    0.00001525273349312567478,
    1.3215435282291897626e-6,
    1.0178199572640441735e-7,
    7.073783250873377796e-9,
    4.4347711729279120995e-10,
)
_G1, _G2, _G3, _G4, _G5, _G6, _G7, _G8, _G9, _G10, _G11 = _G
# (atanh(s) / s - 1) / s**2 as a polynomial in s**2 for |s| <= 3 - 2 sqrt(2), degree 6: 1.3e-18
_A1, _A2, _A3, _A4, _A5, _A6, _A7 = (
    0.33333333333333677233,
    0.19999999999703504729,
    0.14285714372128866153,
    0.11111099182795323951,
    0.090917879407442169312,
    0.07656868160232511153,
    0.073996356421386750848,
)
# the same of degree 5: 1.9e-16, for loops over all pairs
_B1, _B2, _B3, _B4, _B5, _B6 = (
    0.33333333333293083845,
    0.20000000026422733065,
    0.14285708514714660366,
    0.11111689638890051963,
    0.090616921341041004932,
    0.084115317002587607694,
)
_LN2 = np.log(2.0)
_LOG2_E, _LOG2_E_LOW = 1.0 / _LN2, 2.0355273740931033e-17


# (exp(-t) - 1 + t) / t**2 on [-1/2, 1/2], degree 10: 1.5e-16
_Y1, _Y2, _Y3, _Y4, _Y5, _Y6, _Y7, _Y8, _Y9, _Y10, _Y11 = (
    0.5,
    -0.16666666666666833735,
    0.041666666666664784726,
    -0.008333333333199168273,
    0.0013888888889434450877,
    -0.00019841270142584876327,
    0.000024801586797629713652,
    -2.755704324979949857e-6,
    2.7557451169271417149e-7,
    -2.5162602033353934469e-8,
    2.090298638764529487e-9,
)


@helper
def _exp_gap_near_double(t):
    """exp(-t) - 1 + t for t from -1/2 to 1/2, with full relative accuracy."""
    z = t * t
    even = ((((_Y11 * z + _Y9) * z + _Y7) * z + _Y5) * z + _Y3) * z + _Y1
    odd = (((_Y10 * z + _Y8) * z + _Y6) * z + _Y4) * z + _Y2
    return z * (odd * t + even)


@helper
def _exp2_minus_1(f):
    """2**f - 1 for |f| <= 1/2, in two halves side by side: a tenth faster than in one chain."""
    z = f * f
    low = ((_G6 * f + _G5) * z + (_G4 * f + _G3)) * z + (_G2 * f + _G1)
    high = (_G11 * z + (_G10 * f + _G9)) * z + (_G8 * f + _G7)
    return (high * (z * z * z) + low) * f


@helper
def _exp2_and_below_double(t):
    """2**t and 2**t - 1 without cancellation near 0, for t <= 1023.5."""
    n, f = power_of_two_below(t)
    p = _exp2_minus_1(f)
    e = times_power_of_two(p + 1.0, n)
    return e, where(f == t, p, e - 1.0)


@helper
def _exp2_double(t):
    """2**t for t <= 1023.5, NaN for NaN; below -1022 a subnormal number or 0."""
    n, f = power_of_two_below(t)
    return times_power_of_two(_exp2_minus_1(f) + 1.0, n)


@helper
def _tanh_double(u):
    """Tanh(u) and 1 - tanh(u)**2, both with full relative accuracy."""
    e, below = _exp2_and_below_double(absolute(u) * (-2.0 / np.log(2.0)))
    inverse = 1.0 / (below + 2.0)
    value = below * inverse
    return where(u < 0.0, value, value * -1.0), e * inverse * inverse * 4.0


@helper
def _as_double(k):
    """Convert an integer below 2**51 by its bits: AVX2 has no such instruction."""
    return float_of(k + _D_ROUND_BITS) - _D_ROUND


@helper
def _as_single(k):
    """Convert an integer below 2**31."""
    return single_of(int32(k))


@helper
def _atanh_tail(z):
    """(atanh(s) / s - 1) / z with z = s**2."""
    p = (_A7 * z + _A6) * z + _A5
    return (((p * z + _A4) * z + _A3) * z + _A2) * z + _A1


@helper
def _log_normal(x):
    """log(x) for normal x; a finite negative number for 0, so that 0 * log(0) is 0."""
    ix = bits_of(x)
    k = (ix - _D_SQRT_HALF) >> _D_MANTISSA
    m = float_of(ix - (k << _D_MANTISSA))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = ((((_B6 * z + _B5) * z + _B4) * z + _B3) * z + _B2) * z + _B1
    return _as_double(k) * _LN2 + (s + s) * (z * p + 1.0)


@helper
def _split_above_one(u):
    """k and r with 1 + u = 2**k (1 + r), and whether k is 0: r is then u, with all its digits."""
    ix = bits_of(u + 1.0)
    k = (ix - _D_SQRT_HALF) >> _D_MANTISSA
    near = k == _q(0)
    return k, where(near, u, float_of(ix - (k << _D_MANTISSA)) - 1.0), near


@helper
def _log_of_parts(n, s):
    """N log 2 + 2 atanh(s)."""
    tail = 2.0 * s * s * s * _atanh_tail(s * s)
    return n * _LN2_HIGH + (2.0 * s + (tail + n * _LN2_LOW))


@helper
def _entropy_gap_double(u):
    """(1 + u) log(1 + u) - u, with full relative accuracy near 0, for u >= -1."""
    t = u + 1.0
    k, r, near = _split_above_one(u)
    s = r / (r + 2.0)
    z = s * s
    p = ((((_B6 * z + _B5) * z + _B4) * z + _B3) * z + _B2) * z + _B1
    far = t * (_as_double(k) * _LN2 + (s + s) * (z * p + 1.0)) - u
    return where(near, (t + 1.0) * z * (1.0 + s * (1.0 + s) * p), far)


@helper
def _entropy_gap_exact(u):
    """The same to 1e-15, where the other is off by up to 2e-14."""
    t = u + 1.0
    k, r, near = _split_above_one(u)
    s = r / (r + 2.0)
    close = (t + 1.0) * s * s * (1.0 + s * (1.0 + s) * _atanh_tail(s * s))
    return where(near, close, t * _log_of_parts(_as_double(k), s) - u)


# ((1 + u) log(1 + u) + (1 - u) log(1 - u)) / (2 u**2) for u**2 on [0, 1/4], degree 12: 6.2e-18
_D1, _D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11, _D12, _D13 = (
    0.5,
    0.083333333333329207636,
    0.033333333334243194304,
    0.017857142778417573879,
    0.011111114642939776967,
    0.0075756635560521728459,
    0.0054961053514434945321,
    0.0041485339378720938836,
    0.0034073881859559322196,
    0.0019059644915382983122,
    0.0046533643902556498022,
    -0.0034378041096663039858,
    0.0072298323500042155416,
)


@helper
def _mean_gap_near_double(u):
    """((1 + u) log(1 + u) + (1 - u) log(1 - u)) / 2 for u from -1/2 to 1/2."""
    z = u * u
    p = (((((_D13 * z + _D12) * z + _D11) * z + _D10) * z + _D9) * z + _D8) * z + _D7
    return z * ((((((p * z + _D6) * z + _D5) * z + _D4) * z + _D3) * z + _D2) * z + _D1)


@helper
def _log_double(x):
    """Natural logarithm of any float64, subnormal too; NaN below 0."""
    small = x < _D_TINY
    ix = bits_of(where(small, x * 2.0**54, x))
    k = (ix - _D_SQRT_HALF) >> _D_MANTISSA
    m = float_of(ix - (k << _D_MANTISSA))
    value = _log_of_parts(_as_double(k), (m - 1.0) / (m + 1.0))
    value = where(small, value - 54.0 * _LN2, value)
    value = where(x == np.inf, x, value)
    value = where(x == 0.0, -np.inf, value)
    return where(x >= 0.0, value, np.nan)


@helper
def _log_ratio(p, q):
    """Return n and s with log(p/q) = n log 2 + 2 atanh(s), |s| <= 3 - 2 sqrt(2); n = 0 near p = q.

    For positive finite p, q however far apart: p / q is never formed, so it cannot overflow.
    """
    p_small, q_small = p < _D_TINY, q < _D_TINY
    ip = bits_of(p * 2.0**54 if p_small else p)
    iq = bits_of(q * 2.0**54 if q_small else q)
    kp = (ip >> _D_MANTISSA) - (_q(54) if p_small else _q(0))
    kq = (iq >> _D_MANTISSA) - (_q(54) if q_small else _q(0))
    mp = float_of((ip & _q(0xFFFFFFFFFFFFF)) | _q(0x3FF0000000000000))
    mq = float_of((iq & _q(0xFFFFFFFFFFFFF)) | _q(0x3FF0000000000000))
    up, down = mp > mq * np.sqrt(2.0), mp * np.sqrt(2.0) < mq
    n = kp - kq + (_q(1) if up else _q(0)) - (_q(1) if down else _q(0))
    mq = mq * 2.0 if up else mq
    mp = mp * 2.0 if down else mp
    return _as_double(n), (mp - mq) / (mp + mq)


@helper
def _log1p_double(e):
    """log(1 + e) for e in [0, 1], with full relative accuracy; NaN for NaN."""
    far = e > np.sqrt(2.0) - 1.0
    s = where(far, e - 1.0, e) / where(far, e + 3.0, e + 2.0)  # of (1 + e) / 2 or of 1 + e
    tail = 2.0 * s * s * s * _atanh_tail(s * s)
    return where(far, _LN2_HIGH, 0.0) + (2.0 * s + (tail + where(far, _LN2_LOW, 0.0)))


@helper
def _log1p_of_sum_double(r):
    """log(1 + r) for any r above -1, with full relative accuracy; NaN for NaN."""
    k, m, _ = _split_above_one(r)
    return where(r < np.inf, _log_of_parts(_as_double(k), m / (m + 2.0)), r)


# --- 16-bit words --------------------------------------------------------------------------------


@helper
def widen_bfloat16(word):
    """Return the float32 of a bfloat16 word."""
    return float_of(int32(int32(word) << 16))


@helper
def widen_float16(word):
    """Return the float32 of a float16 word; a multiplication moves the exponent, subnormals too."""
    w = int32(word)
    magnitude = float_of(int32((w & 0x7FFF) << 13)) * _f(2.0**112)
    special = where((w & 0x7C00) == 0x7C00, _i(0x7F800000), _i(0))
    return float_of(int32(bits_of(magnitude) | special | ((w & 0x8000) << 16)))


@helper
def narrow_bfloat16(x):
    """Return the bfloat16 word nearest to a float32, ties to even."""
    w = bits_of(x)
    rounded = int32(w + 0x7FFF + ((w >> 16) & 1))
    quiet = int32(w | 0x400000)
    return uint16(int32(where(x == x, rounded, quiet) >> 16))


@helper
def narrow_float16(x):
    """Return the float16 word nearest to a float32, ties to even."""
    w = bits_of(x)
    magnitude = int32(w & 0x7FFFFFFF)
    # below 2**-14 the addition of 1/2 rounds to a multiple of 2**-24, the float16 subnormal step
    small = int32(bits_of(float_of(magnitude) + _f(0.5)) - 0x3F000000)
    normal = int32((magnitude + 0xFFF + ((magnitude >> 13) & 1) - 0x38000000) >> 13)
    word = where(magnitude < 0x38800000, small, normal)
    word = where(magnitude >= 0x477FF000, _i(0x7C00), word)
    word = where(magnitude > 0x7F800000, _i(0x7E00), word)
    return uint16(int32(word | ((w >> 16) & 0x8000)))


@helper
def _same(x):
    return x


@helper
def _above_single(u):
    """Return u, at least -1, as a float32: -1 as Python has it would make it a float64."""
    return where(u < _f(-1), _f(-1), u)


@helper
def _above_double(u):
    return where(u < -1.0, -1.0, u)


class Arithmetic(SimpleNamespace):
    """The functions of one float type, and how many of them are a vector."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    @property
    def name(self):
        """What tells one from another."""
        return f"{self.real.__name__}x{self.lanes}"


single = Arithmetic(
    real=np.float32,
    lanes=16,
    filled=simd.filled(types.float32, 16),
    convert=simd.single,
    exp2=_exp2_single,
    exp2_and_below=_exp2_and_below_single,
    where=where,
    tanh=_tanh_single,
    log1p=_log1p_single,
    entropy_gap=_entropy_gap_single,
    entropy_gap_near=_entropy_gap_near_single,
    mean_gap_near=_mean_gap_near_single,
    exp_gap_near=_exp_gap_near_single,
    above=_above_single,
    log_in_units=_log2_single,
    log_unit=np.log(2.0),
    of_integer=_as_single,
)
double = Arithmetic(
    real=np.float64,
    lanes=8,
    filled=simd.filled(types.float64, 8),
    convert=simd.double,
    exp2=_exp2_double,
    exp2_and_below=_exp2_and_below_double,
    tanh=_tanh_double,
    log1p=_log1p_double,
    where=where,
    log=_log_double,
    entropy_gap=_entropy_gap_double,
    entropy_gap_near=_entropy_gap_double,
    mean_gap_near=_mean_gap_near_double,
    exp_gap_near=_exp_gap_near_double,
    above=_above_double,
    log_in_units=_log_normal,
    log_unit=1.0,
    of_integer=_as_double,
    log_ratio=_log_ratio,
    atanh_tail=_atanh_tail,
)


@cache
def with_lanes(arithmetic, lanes):
    """Return an arithmetic on vectors of another length."""
    lane = types.float32 if arithmetic is single else types.float64
    return Arithmetic(**{**vars(arithmetic), "lanes": lanes, "filled": simd.filled(lane, lanes)})


@helper
def _exp_double(x):
    """exp(x), with a relative error of 3e-16; 2**1000 beyond that."""
    t, lost = two_product(x, _LOG2_E)
    e = _exp2_double(where(t > 1000.0, 1000.0, t))
    rest = e * ((lost + x * _LOG2_E_LOW) * _LN2)
    return e + where((t < 1000.0) & (t > -1100.0), rest, 0.0)


@helper
def _exp_gap_double(t):
    """exp(-t) - 1 + t."""
    return where(absolute(t) < 0.5, _exp_gap_near_double(t), _exp_double(-t) - 1.0 + t)


# What formulas need that are compiled for vectors.
lanewise = SimpleNamespace(
    where=where, sqrt=simd.root, log=_log_double, abs=simd.absolute, exp=_exp_double,
    entropy_gap=_entropy_gap_exact, exp_gap=_exp_gap_double, log1p=_log1p_of_sum_double,
)  # fmt: skip


@helper
def _log_widened(x):
    """Natural logarithm of 0 or of a normal number, as float64 is of narrower types; not of NaN."""
    return where(x == 0.0, -np.inf, _log_normal(x))


lanewise_widened = SimpleNamespace(**vars(lanewise) | {"log": _log_widened})


@helper
def _log_single(x):
    """Natural logarithm of a float32 of at least 0; NaN for NaN."""
    value = where(x == _f(0), _f(-np.inf), _log2_single(x) * _F_LN2)
    value = where(x == _f(np.inf), x, value)
    return where(x >= _f(0), value, _f(np.nan))


lanewise_single = SimpleNamespace(where=where, sqrt=simd.root, log=_log_single, abs=simd.absolute)


@cache
def of_vectors(arithmetic):
    """Return an arithmetic for formulas of vectors that use what Python has for numbers.

    Gaps have a short way for a vector of small ones, a third of the work of the long.
    """
    gap, near, mean_near = (
        arithmetic.entropy_gap, arithmetic.entropy_gap_near, arithmetic.mean_gap_near,
    )  # fmt: skip
    half = arithmetic.real(0.5)

    @helper
    def entropy_gap(u):
        return gap(u) if any_of(absolute(u) > half) else near(u)

    @helper
    def mean_gap(u):
        return half * (gap(u) + gap(-u)) if any_of(absolute(u) > half) else mean_near(u)

    either = entropy_gap if near is not gap else gap
    return SimpleNamespace(
        **vars(arithmetic)
        | {"abs": absolute, "sqrt": simd.root, "entropy_gap": either, "mean_gap": mean_gap}
    )


# storage → (arithmetic, load, store)
STORAGE = {
    "float64": (double, _same, _same),
    "float32": (single, _same, _same),
    "float16": (single, widen_float16, narrow_float16),
    "bfloat16": (single, widen_bfloat16, narrow_bfloat16),
}

# --- vectors of any storage ----------------------------------------------------------------------

_LOWEST_WORDS = {"float16": 0xFC00, "bfloat16": 0xFF80}


@cache
def _converts_halves() -> bool:
    """Whether the processor has an instruction for float16: elsewhere LLVM would make a call."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    return bool(llvm.get_host_cpu_features().get("f16c"))


@cache
def reader(storage, arithmetic, beyond):
    """Return read(x, k): a vector of an arithmetic from x[k] on, `beyond` (0 or -inf) past its end.

    float16 is widened by the processor where it can: 2.1 times the speed of the integer form.
    """
    load, convert = loader(arithmetic.lanes), arithmetic.convert
    fill, widen = _fill(storage, beyond), widener(storage)

    @helper
    def read(x, k):
        return convert(widen(load(x, k, fill)))

    return read


@cache
def widener(storage):
    """Return what makes a vector of a storage one of floats."""
    if storage == "bfloat16":
        return simd.upper_halves
    return simd.widen_half if storage == "float16" and _converts_halves() else STORAGE[storage][1]


@cache
def pair_reader(storage, arithmetic, beyond, in_order):
    """Return read(x, k): two vectors that are x[k : k + 2 * lanes], and masks of what is in x.

    Unless they must be `in_order`, bfloat16 comes as what is in even and in odd places.
    """
    lanes = arithmetic.lanes
    read, load, fill = (
        reader(storage, arithmetic, beyond),
        loader(2 * lanes),
        _fill(storage, beyond),
    )

    @helper
    def one_after_the_other(x, k):
        left, low = x.size - k, read(x, k)
        inside = lanes_before(left, low), lanes_before(left - lanes, low)
        return (low, read(x, k + lanes)), inside

    @helper
    def alternating(x, k):
        left, pair = x.size - k, simd.even_and_odd(load(x, k, fill))
        return pair, (lanes_before((left + 1) >> 1, pair[0]), lanes_before(left >> 1, pair[0]))

    alternates = storage == "bfloat16" and arithmetic is single and not in_order
    return alternating if alternates else one_after_the_other


def _fill(storage, beyond):
    """What is read beyond the end of an array, in its storage."""
    return _LOWEST_WORDS[storage] if beyond and storage in _LOWEST_WORDS else beyond


@cache
def narrower(storage):
    """Return what makes a vector of its arithmetic one of a storage."""
    halves = storage == "float16" and _converts_halves()
    return simd.narrow_half if halves else STORAGE[storage][2]
