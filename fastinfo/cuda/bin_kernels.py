"""Sums over the bins of rows on a device, in float64 whatever the rows are stored in.

A block of threads reads a row, or a pair of rows; formulas are those of the processor.
"""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.cuda.reduce import of_block
from fastinfo.cuda.row_kernels import STEP, start_of
from fastinfo.cuda.seam import SIMULATED, cuda, formula, helper, kernel, loader, mathematics

# Threads that read a row.
THREADS = 4 if SIMULATED else 256
DOUBLE = mathematics("float64")
FUSED = DOUBLE.fused
LEAST_NORMAL = np.float64(2.0**-1022)


@helper
def two_sum(a, b):
    """A + b rounded, and what the rounding lost."""
    total = a + b
    z = total - a
    return total, (a - (total - z)) + (b - z)


@helper
def lost(x, of, total, rest, inverse):
    """What rounding lost of x / (total + rest), as a share; `of` is x / total."""
    return (FUSED(-of, total, x) - of * rest) * inverse


@helper
def reciprocal(total):
    """1 / total, 0 where that overflows."""
    return 1.0 / total if abs(total) >= LEAST_NORMAL else 0.0


@cache
def divisors(storage, normalize):
    """Kernel: what rows are divided by, what its rounding lost, and their lowest entry below 0.

    NaN for a row with such an entry, with inf or NaN. A sum beyond the range is NaN, too.
    """
    load, nan = loader(storage)[0], np.float64(np.nan)

    @helper
    def merge(s, t, given):
        total, lost_here = two_sum(s[0], t[0])
        return total, s[1] + t[1] + lost_here, min(s[2], t[2])

    of_threads = of_block(merge, 3, 0, THREADS, "float64")

    @kernel
    def write_divisors(x, starts, place, width, totals, rests, lowest):
        i = cuda.blockIdx.x
        at, step = start_of(starts, place, i), place[STEP]
        total, rest, low = np.float64(0), np.float64(0), np.float64(0)
        for k in range(cuda.threadIdx.x, width, THREADS):
            v = np.float64(load(x, at + k * step))
            total, lost_here = two_sum(total, v)
            rest += lost_here
            if v < low:
                low = v
        total, rest, low = of_threads((total, rest, low), 0)
        if cuda.threadIdx.x == 0:
            lowest[i] = low
            if not (abs(total) < np.inf) or low < 0.0:
                total, rest = np.float64(nan), np.float64(0)
            elif normalize:
                total, rest = two_sum(total, rest)
            else:
                total, rest = np.float64(1), np.float64(0)
            totals[i], rests[i] = total, rest

    return write_divisors


@cache
def bin_sum(term, storage_p, storage_q, largest, threads):
    """Σ term over two rows divided by their totals, or the largest term, by a block of threads.

    `at` is where the rows begin, their steps and the number of bins; `by` what they are divided by.
    """
    load_p, load_q = loader(storage_p)[0], loader(storage_q)[0]
    compiled = formula(term, DOUBLE)
    in_double = "float64" in (storage_p, storage_q)
    start = np.float64(-np.inf if largest else 0.0)

    def added(total, v):
        return total + v

    def larger(total, v):
        return v if total == total and not v <= total else total

    together = helper(larger if largest else added)
    merge = helper(lambda s, t, given: (together(s[0], t[0]),))
    of_threads = of_block(merge, 1, 0, threads, "float64")

    @helper
    def add(p, q, at, by, parameter):
        total, p_inverse, q_inverse = start, reciprocal(by[0]), reciprocal(by[2])
        for k in range(cuda.threadIdx.x, at[4], threads):
            x = np.float64(load_p(p, at[0] + k * at[1]))
            y = np.float64(load_q(q, at[2] + k * at[3]))
            a, b = x / by[0], y / by[2]
            d = a - b
            if in_double:
                a_lost = lost(x, a, by[0], by[1], p_inverse)
                d += a_lost - lost(y, b, by[2], by[3], q_inverse)
            total = together(total, compiled(a, b, d, parameter))
        return of_threads((total,), 0)[0]

    return add


@cache
def bin_value(total, storage_p, storage_q, threads):
    """What a `catalogue.Sum` says of two rows; all threads of a block know it."""
    given = storage_p, storage_q
    add = bin_sum(total.term, *given, total.largest, threads)
    says = formula(total.says, DOUBLE)
    if total.far is not None:
        far, least = bin_value(total.far, *given, threads), np.float64(total.least)

        @helper
        def value_of_either(p, q, at, by, parameter):
            v = add(p, q, at, by, parameter)
            if v < least:
                return far(p, q, at, by, parameter)
            return says(v, parameter)

        return value_of_either
    if not total.overflows:

        @helper
        def value(p, q, at, by, parameter):
            return says(add(p, q, at, by, parameter), parameter)

        return value
    top_of = bin_sum(formulas.log_ratio_term, *given, True, threads)
    add_lowered = bin_sum(formulas.lowered_power_term, *given, False, threads)
    says_lowered, least = formula(formulas.renyi_of_lowered_powers, DOUBLE), total.least

    @helper
    def value_in_range(p, q, at, by, parameter):
        v = add(p, q, at, by, parameter)
        value = says(v, parameter)
        if value == np.inf or v < least:
            top = top_of(p, q, at, by, parameter)
            if abs(top) < np.inf:
                lowered = add_lowered(p, q, at, by, (parameter, top))
                value = says_lowered(lowered, parameter, top)
        return value

    return value_in_range


@cache
def values(total, finish, storage_p, storage_q):
    """Kernel: the measure of each pair of rows."""
    value, compiled = bin_value(total, storage_p, storage_q, THREADS), formula(finish, DOUBLE)

    @kernel
    def write_values(
        p, p_starts, p_place, p_totals, p_rests, q, q_starts, q_place, q_totals, q_rests, width,
        parameter, unit, out,
    ):  # fmt: skip
        i = cuda.blockIdx.x
        at = (
            start_of(p_starts, p_place, i), p_place[STEP],
            start_of(q_starts, q_place, i), q_place[STEP], width,
        )  # fmt: skip
        by = p_totals[i], p_rests[i], q_totals[i], q_rests[i]
        v = compiled(value(p, q, at, by, parameter) / unit)
        if cuda.threadIdx.x == 0:
            out[i] = v

    return write_values
