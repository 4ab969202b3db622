"""Sums over the bins of rows, in float64 whatever the rows are stored in."""

from functools import cache

import numpy as np

from fastinfo.cpu import vmath
from fastinfo.cpu.simd import highest_of, maximum, part, sum_of
from fastinfo.engine import EXACT, SUM, formula, helper, kernel


@helper(frozenset())
def share(x, total):
    """X / total, rounded: fused with a difference it would not be 0 between equal rows."""
    return x / total


@cache
def bin_sum(term, storage_p, storage_q):
    """Σ term(p / p_total, q / q_total) over two rows."""
    load_p, load_q = vmath.STORAGE[storage_p][1], vmath.STORAGE[storage_q][1]
    compiled = formula(term, vmath.double)

    @helper(SUM)
    def add(p, q, p_total, q_total, parameter):
        total = 0.0
        for k in range(p.size):
            total += compiled(
                share(np.float64(load_p(p[k])), p_total),
                share(np.float64(load_q(q[k])), q_total),
                parameter,
            )
        return total

    return add


@cache
def totals(storage):
    """Kernel: add up rows, and find their lowest entry."""
    read, filled, lanes = vmath.reader(storage, vmath.double, 0.0), vmath.double.filled, 8

    @helper(EXACT)
    def add(x):
        total, highest = filled(0.0), filled(0.0)
        for k in range(0, x.size, 2 * lanes):
            v, w = read(x, k), read(x, k + lanes)
            total += v + w
            highest = maximum(maximum(v * -1.0, w * -1.0), highest)
        return sum_of(total), -highest_of(highest)

    @kernel(storage)
    def add_rows(x, starts, width, total, lowest):
        for i in range(starts.size):
            row_total, row_lowest = add(part(x, starts[i], starts[i] + width))
            total[i] += row_total
            lowest[i] = min(lowest[i], row_lowest)

    return add_rows


@cache
def sums(term, storage_p, storage_q):
    """Kernel: add up a term over the bins of pairs of rows."""
    add = bin_sum(term, storage_p, storage_q)

    @kernel(term.__name__, storage_p, storage_q)
    def add_rows(p, p_starts, q, q_starts, width, p_total, q_total, parameter, out):
        for i in range(p_starts.size):
            out[i] += add(
                part(p, p_starts[i], p_starts[i] + width),
                part(q, q_starts[i], q_starts[i] + width),
                p_total[i], q_total[i], parameter,
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
