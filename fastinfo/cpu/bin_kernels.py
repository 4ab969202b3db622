"""Sums over the bins of rows, in float64 whatever the rows are stored in."""

from functools import cache

import numpy as np

from fastinfo.cpu import vmath
from fastinfo.cpu.memory import part
from fastinfo.cpu.simd import exact_sum_of, fused, highest_of, maximum, sum_of, two_sum
from fastinfo.engine import EXACT, SUM, formula, helper, kernel

# Neither fused nor reordered, which would undo what they are for.
AS_WRITTEN = frozenset[str]()


@helper(AS_WRITTEN)
def share(x, total):
    """X / total, rounded: fused with a difference it would not be 0 between equal rows."""
    return x / total


@helper(AS_WRITTEN)
def reciprocal(total):
    """1 / total, 0 where that overflows: subnormal totals have no more digits to give."""
    return 1.0 / total if abs(total) >= 2.0**-1022 else 0.0


@helper(AS_WRITTEN)
def lost(x, of, total, rest, inverse):
    """What rounding lost of x / (total + rest), as a share; `of` is x / total."""
    return (fused(-of, total, x) - of * rest) * inverse


@helper(AS_WRITTEN)
def sum_of_differences(a, b, c, d):
    """(a - b) + (c - d)."""
    return (a - b) + (c - d)


@cache
def bin_sum(term, storage_p, storage_q):
    """Σ term over two rows divided by their totals, which have a rest each.

    In float64 differences are taken with the digits that the shares lost: a total variation of
    1e-8 is asked for to 12 digits.
    """
    load_p, load_q = vmath.STORAGE[storage_p][1], vmath.STORAGE[storage_q][1]
    compiled = formula(term, vmath.double)
    in_double = "float64" in (storage_p, storage_q)

    @helper(SUM)
    def add(p, q, p_total, p_rest, q_total, q_rest, parameter):
        total, p_inverse, q_inverse = 0.0, reciprocal(p_total), reciprocal(q_total)
        for k in range(p.size):
            x, y = np.float64(load_p(p[k])), np.float64(load_q(q[k]))
            a, b = share(x, p_total), share(y, q_total)
            a_lost = lost(x, a, p_total, p_rest, p_inverse) if in_double else 0.0
            b_lost = lost(y, b, q_total, q_rest, q_inverse) if in_double else 0.0
            total += compiled(a, b, sum_of_differences(a, b, a_lost, b_lost), parameter)
        return total

    return add


@cache
def totals(storage):
    """Kernel: add up rows with what the roundings lose, and find their lowest entry."""
    read, filled, lanes = vmath.reader(storage, vmath.double, 0.0), vmath.double.filled, 8

    @helper(EXACT)
    def add(x):
        total, rest, highest = filled(0.0), filled(0.0), filled(0.0)
        for k in range(0, x.size, lanes):
            v = read(x, k)
            total, lost = two_sum(total, v)
            rest += lost
            highest = maximum(-v, highest)
        whole, lost = exact_sum_of(total)
        return whole, lost + sum_of(rest), -highest_of(highest)

    @kernel(storage)
    def add_rows(x, starts, width, totals, rests, lowest):
        for i in range(starts.size):
            total, rest, low = add(part(x, starts[i], starts[i] + width))
            total, lost = two_sum(totals[i], total)
            rest += rests[i] + lost
            if abs(total) < np.inf:  # beyond, the rest is NaN
                total, rest = two_sum(total, rest)
            totals[i], rests[i] = total, rest
            lowest[i] = min(lowest[i], low)

    return add_rows


@cache
def sums(term, storage_p, storage_q):
    """Kernel: add up a term over the bins of pairs of rows."""
    add = bin_sum(term, storage_p, storage_q)

    @kernel(term.__name__, storage_p, storage_q)
    def add_rows(p, p_starts, p_total, p_rest, q, q_starts, q_total, q_rest, width, parameter, out):
        for i in range(p_starts.size):
            out[i] += add(
                part(p, p_starts[i], p_starts[i] + width),
                part(q, q_starts[i], q_starts[i] + width),
                p_total[i], p_rest[i], q_total[i], q_rest[i], parameter,
            )  # fmt: skip

    return add_rows


@cache
def finishes(finish):
    """Kernel: finish sums in place, divided by `unit` before."""
    compiled = formula(finish)

    @kernel(finish.__name__)
    def finish_rows(values, unit):
        for i in range(values.size):
            values[i] = compiled(values[i] / unit)

    return finish_rows
