"""Two rows of logits read together, once their maxima and sums are known.

Shapes of the arguments: two flat memories with the offset of each row; constants of each row (see
the columns below), and the options [1 / T, log2(e) / T, weight].
"""

from functools import cache

import numpy as np

from fastinfo.cpu import vmath
from fastinfo.cpu.memory import fence, part, prefetch, store
from fastinfo.cpu.simd import double, flush_subnormals, restore, sum_of, two_sum, where
from fastinfo.engine import EXACT, formula, helper, kernel

# Columns of a row's constants: maxima; reciprocals of the sums; their distance, in two parts, the
# second in nats with that of the logarithms of the sums; KL(Q | M); factor of the gradient.
P_MAX, Q_MAX, P_SHARE, Q_SHARE, DISTANCE, SHIFT, OF_Q, FACTOR, CONSTANTS = range(9)
INVERSE_TEMPERATURE, LOG2_SCALE, WEIGHT, OPTIONS = range(4)
# Classes whose terms are added up in lanes: equal terms are rounded alike, 512 of them to 6e-14.
BLOCK = 4096
# A mean of the smallest normal numbers is none: slopes, which are linear, are taken of larger ones.
LIFT = 2.0**24
# Sums of a row, of the two terms.
FIRST, SECOND, SUMS = range(3)


@cache
def _entries(arithmetic, lift=1.0):
    """p, q, d = p - q and t = log(p / q) of vectors of logits, each with its own digits.

    The first three are times `lift`.
    """
    real, exp2, exp2_and_below = arithmetic.real, arithmetic.exp2, arithmetic.exp2_and_below
    log2_e = real(1.0 / np.log(2.0))

    @helper(EXACT)
    def entries(v, u, row, option):
        scale = real(option[LOG2_SCALE])
        p = exp2((v - real(row[P_MAX])) * scale) * real(row[P_SHARE] * lift)
        q = exp2((u - real(row[Q_MAX])) * scale) * real(row[Q_SHARE] * lift)
        high, low = two_sum(v, -u)
        low = where(abs(high) < real(np.inf), low, real(0))
        t = (high - real(row[DISTANCE])) + low
        t = t * real(option[INVERSE_TEMPERATURE]) - real(row[SHIFT])
        below = exp2_and_below(-abs(t) * log2_e)[1]
        d = where(t > real(0), -p * below, q * below)
        d = where(p == real(0), -q, where(q == real(0), p, d))
        return p, q, d, t

    return entries


@cache
def _readers(p_storage, q_storage, arithmetic):
    """Prefetch and read the logits of both from class k on."""
    read_p, read_q = (
        vmath.reader(storage, arithmetic, -np.inf) for storage in (p_storage, q_storage)
    )

    @helper(EXACT)
    def read(p, q, k):
        prefetch(p, k)
        prefetch(q, k)
        return read_p(p, k), read_q(q, k)

    return read


@cache
def sums(terms, p_storage, q_storage, arithmetic):
    """Kernel: sums of two terms over a stretch of some rows."""
    entries, read = _entries(arithmetic), _readers(p_storage, q_storage, arithmetic)
    lanes, filled, real = arithmetic.lanes, arithmetic.filled, arithmetic.real
    terms_of = formula(terms, arithmetic)

    @kernel(terms.__name__, p_storage, q_storage, real.__name__)
    def add_terms(which, p, p_starts, q, q_starts, width, constants, option, out):
        weight, floats = real(option[WEIGHT]), flush_subnormals()
        for n in range(which.size):
            i = which[n]
            row = constants[i]
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
                    x, y, d, t = entries(*read(a, b, k), row, option)
                    f, s = terms_of(x, y, d, t, weight)
                    first, second = first + double(f), second + double(s)
                out[n, FIRST] += sum_of(first)
                out[n, SECOND] += sum_of(second)
        restore(floats)

    return add_terms


@cache
def gradients(slope, p_storage, q_storage, arithmetic, into):
    """Kernel: write the derivatives by the logits of q over a stretch of rows."""
    entries, read = _entries(arithmetic, LIFT), _readers(p_storage, q_storage, arithmetic)
    lanes, real = arithmetic.lanes, arithmetic.real
    slope_of, narrow = formula(slope, arithmetic), vmath.narrower(into)
    convert = vmath.STORAGE[into][0].convert

    @kernel(slope.__name__, p_storage, q_storage, real.__name__, into)
    def write_slopes(p, p_starts, q, q_starts, width, active, constants, option, out, out_starts):
        weight, floats = real(option[WEIGHT]), flush_subnormals()
        for i in range(active.size):
            target = part(out, out_starts[i], out_starts[i] + width)
            if active[i] == 0.0:
                target[:] = 0
                continue
            row = constants[i]
            a, b = (
                part(p, p_starts[i], p_starts[i] + width),
                part(q, q_starts[i], q_starts[i] + width),
            )
            of_q, factor, lower = real(row[OF_Q]), real(row[FACTOR]), real(1.0 / LIFT)
            for k in range(0, width, lanes):
                x, y, d, t = entries(*read(a, b, k), row, option)
                slope = slope_of(x, y, d, t, weight, of_q) * lower
                store(target, k, narrow(convert(slope * factor)))
        fence()
        restore(floats)

    return write_slopes
