"""Two rows of logits read together, once their maxima and sums are known.

Shapes of the arguments: two flat memories with the offset of each row; constants of each row (see
the columns below), and the options [1 / T, log2(e) / T, weight, near].
"""

from functools import cache
from types import SimpleNamespace

import numpy as np

from fastinfo import formulas
from fastinfo.cpu import row_kernels, vmath
from fastinfo.cpu.memory import fence, part, prefetch, store
from fastinfo.cpu.simd import (
    any_of,
    double,
    flush_subnormals,
    product,
    restore,
    sum_of,
    two_sum,
    where,
)
from fastinfo.engine import formula, helper, kernel

# Columns of a row's constants: maxima; shares of the maximal terms; where log(p / q) is 0, as
# `known_of_logits` has it; KL(Q | M); factor of the gradient.
P_MAX, Q_MAX, P_SHARE, Q_SHARE, DISTANCE, REMAINDER, SHIFT, OF_Q, FACTOR, CONSTANTS = range(10)
INVERSE_TEMPERATURE, LOG2_SCALE, WEIGHT, NEAR, OPTIONS = range(5)
# Readings of pairs near 0 at most. Each leaves 1e-6 of what the logarithm of the normalisers' ratio
# is off, 1e-5 at first; of equal pairs the last finds exactly 0.
GUESSES = 3
# Classes whose terms are added up in lanes: equal terms are rounded alike, 512 of them to 6e-14.
BLOCK = 4096
# A mean or square of the smallest normal numbers is none: p and q are made larger ones, which all
# sums and slopes are linear in.
LIFT = 2.0**64
# Sums of a row, of the two terms.
FIRST, SECOND, SUMS = range(3)


@cache
def entries(arithmetic, near):
    """p, q, d = p - q and e = p log(p / q) - d of vectors of logits, each with its own digits.

    All times `LIFT`; what is `known` comes from `lifted`. In vectors of p `near` q one
    exponential is enough, a third of the work.
    """
    real, exp2, exp2_and_below = arithmetic.real, arithmetic.exp2, arithmetic.exp2_and_below
    gap = arithmetic.exp_gap_near
    log2_e, half, infinity = real(1.0 / np.log(2.0)), real(0.5), real(np.inf)

    @helper
    def entries_of(v, u, known, option):
        p_max, q_max, p_share, q_share, distance, remainder, shift = known
        scale = real(option[LOG2_SCALE])
        p = exp2((v - p_max) * scale) * p_share
        high, low = two_sum(v, -u)
        low = where(abs(high) < infinity, low, real(0))
        t = (high - distance) + (low - remainder)
        # the product rounded: what is the same in all classes is then a shift
        t = product(t, real(option[INVERSE_TEMPERATURE])) - shift
        g = gap(t)
        d, e = p * (t - g), p * g
        if not near or any_of((abs(t) >= half) | (t != t)):
            q = exp2((u - q_max) * scale) * q_share
            below = exp2_and_below(-abs(t) * log2_e)[1]
            d = where(t > real(0), -p * below, q * below)
            d = where(p == real(0), -q, where(q == real(0), p, d))
            # a class that only q masks makes it inf, however small p
            far = where(t == infinity, t, where(p == real(0), q, p * t - d))
            return p, q, d, where(abs(t) < half, e, far)
        return p, p - d, d, e

    return entries_of


@cache
def lifted(convert):
    """What is known of two rows, as `entries` takes it: converted, and p and q times `LIFT`."""

    @helper
    def known(p_max, q_max, p_share, q_share, distance, remainder, shift):
        return (
            convert(p_max), convert(q_max), convert(p_share * LIFT), convert(q_share * LIFT),
            convert(distance), convert(remainder), convert(shift),
        )  # fmt: skip

    return known


@cache
def _known(real):
    """The same from the constants of a row."""
    known_of = lifted(real)

    @helper
    def known(row):
        return known_of(
            row[P_MAX], row[Q_MAX], row[P_SHARE], row[Q_SHARE], row[DISTANCE], row[REMAINDER],
            row[SHIFT],
        )  # fmt: skip

    return known


@cache
def _readers(p_storage, q_storage, arithmetic):
    """Prefetch and read the logits of both from class k on."""
    read_p, read_q = (
        vmath.reader(storage, arithmetic, -np.inf) for storage in (p_storage, q_storage)
    )

    @helper
    def read(p, q, k):
        prefetch(p, k)
        prefetch(q, k)
        return read_p(p, k), read_q(q, k)

    return read


@kernel
def sums(terms, near, p_storage, q_storage, arithmetic):
    """Kernel: sums of two terms over a stretch of some rows, quicker for those that are near."""
    entries_of, read = entries(arithmetic, near), _readers(p_storage, q_storage, arithmetic)
    lanes, filled, real = arithmetic.lanes, arithmetic.filled, arithmetic.real
    known_of = _known(real)
    terms_of = formula(terms, vmath.of_vectors(arithmetic))

    def add_terms(which, p, p_starts, q, q_starts, width, constants, option, out):
        weight, floats = real(option[WEIGHT]), flush_subnormals()
        for n in range(which.size):
            i = which[n]
            known = known_of(constants[i])
            a, b = (
                part(p, p_starts[i], p_starts[i] + width),
                part(q, q_starts[i], q_starts[i] + width),
            )
            for column in range(SUMS):
                out[n, column] = 0.0
            for lo in range(0, width, BLOCK):
                none = double(filled(0.0))
                first, second = none, none
                for k in range(lo, min(lo + BLOCK, width), lanes):
                    x, y, d, e = entries_of(*read(a, b, k), known, option)
                    f, s = terms_of(x, y, d, e, weight)
                    first, second = first + double(f), second + double(s)
                out[n, FIRST] += sum_of(first) / LIFT
                out[n, SECOND] += sum_of(second) / LIFT
        restore(floats)

    return add_terms


@kernel
def knowledge(real):
    """Kernel: the constants of some rows from what the first reading found, and more of Σ q."""
    unit = float(np.finfo(real).eps)
    rounding = SimpleNamespace(rounded=helper(lambda x: np.float64(real(x))))
    known_of_logits = formula(formulas.known_of_logits, rounding)

    def know(which, figures, active, more, option, constants):
        inverse_t = option[INVERSE_TEMPERATURE]
        for n in range(which.size):
            i = which[n]
            p_max, p_log_sum = figures[row_kernels.P_MAX, i], figures[row_kernels.P_LOG_SUM, i]
            q_max, q_log_sum = figures[row_kernels.Q_MAX, i], figures[row_kernels.Q_LOG_SUM, i]
            row = constants[i]
            row[P_MAX], row[Q_MAX] = p_max, q_max
            row[P_SHARE], row[Q_SHARE], row[DISTANCE], row[REMAINDER], row[SHIFT] = known_of_logits(
                p_max, p_log_sum, q_max, q_log_sum, more[i], inverse_t, unit
            )
            # NaN where a row is no distribution
            row[FACTOR] = active[i] * inverse_t + 0.0 * (p_log_sum + q_log_sum)

    return know


@kernel
def refinements():
    """Kernel: KL of some rows near 0 from their sums, and how much more the log sums of q are."""
    kl_of_sums = formula(formulas.kl_of_sums, vmath.double)

    def refine(sums, which, value, more):
        for n in range(which.size):
            excess, lacking = sums[n, FIRST], sums[n, SECOND]
            value[which[n]] = max(kl_of_sums(excess, lacking), 0.0)
            more[which[n]] += np.log1p(-lacking)

    return refine


@kernel
def gradients(slope, p_storage, q_storage, arithmetic, into):
    """Kernel: write the derivatives by the logits of q over a stretch of rows."""
    entries_of, read = entries(arithmetic, True), _readers(p_storage, q_storage, arithmetic)
    lanes, real, known_of = arithmetic.lanes, arithmetic.real, _known(arithmetic.real)
    slope_of, narrow = formula(slope, arithmetic), vmath.narrower(into)
    convert = vmath.STORAGE[into][0].convert

    def write_slopes(p, p_starts, q, q_starts, width, active, constants, option, out, out_starts):
        weight, floats = real(option[WEIGHT]), flush_subnormals()
        for i in range(active.size):
            target = part(out, out_starts[i], out_starts[i] + width)
            if active[i] == 0.0:
                target[:] = 0
                continue
            row = constants[i]
            known = known_of(row)
            a, b = (
                part(p, p_starts[i], p_starts[i] + width),
                part(q, q_starts[i], q_starts[i] + width),
            )
            of_q, factor, lower = real(row[OF_Q]), real(row[FACTOR]), real(1.0 / LIFT)
            for k in range(0, width, lanes):
                x, y, d, e = entries_of(*read(a, b, k), known, option)
                slope = slope_of(x, y, d, e, weight, of_q) * lower
                store(target, k, narrow(convert(slope * factor)))
        fence()
        restore(floats)

    return write_slopes
