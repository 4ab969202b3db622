"""Sums over the bins of rows, in float64 whatever the rows are stored in."""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.cpu import vmath
from fastinfo.cpu.memory import part
from fastinfo.cpu.simd import exact_sum_of, fused, highest_of, maximum, sum_of, two_sum
from fastinfo.engine import SUM, formula, helper, kernel

# Bins added up before they join the rest of a row: of many with one value the roundings go all one
# way, and are as many as the additions.
BLOCK = 4096
# Neither fused nor reordered, which would undo what they are for.
AS_WRITTEN = frozenset[str]()


@helper(flags=AS_WRITTEN)
def share(x, total):
    """x / total, rounded: fused with a difference it would not be 0 between equal rows."""
    return x / total


@helper(flags=AS_WRITTEN)
def reciprocal(total):
    """1 / total, 0 where that overflows: subnormal totals have no more digits to give."""
    return 1.0 / total if abs(total) >= 2.0**-1022 else 0.0


@helper(flags=AS_WRITTEN)
def lost(x, of, total, rest, inverse):
    """What rounding lost of x / (total + rest), as a share; `of` is x / total."""
    return (fused(-of, total, x) - of * rest) * inverse


@helper(flags=AS_WRITTEN)
def sum_of_differences(a, b, c, d):
    """(a - b) + (c - d)."""
    return (a - b) + (c - d)


@cache
def bin_sum(term, storage_p, storage_q, largest=False):
    """Σ term over two rows divided by their totals, which have a rest each; or the largest term.

    Differences are taken with the digits that the shares lost: a total variation of 1e-8 is asked
    for to 12 digits, and of float32 rows one of 1e-16 to 5. (Without those of float32 rows LLVM
    makes no vectors of the loops of KL and JS, which then take four times as long.)
    """
    load_p, load_q = vmath.STORAGE[storage_p][1], vmath.STORAGE[storage_q][1]
    compiled = formula(term, vmath.double)
    together = together_of(largest)
    start = -np.inf if largest else 0.0

    @helper(flags=SUM)
    def block(p, q, p_total, p_rest, q_total, q_rest, parameter):
        total, p_inverse, q_inverse = start, reciprocal(p_total), reciprocal(q_total)
        for k in range(p.size):
            x, y = np.float64(load_p(p[k])), np.float64(load_q(q[k]))
            a, b = share(x, p_total), share(y, q_total)
            a_lost = lost(x, a, p_total, p_rest, p_inverse)
            b_lost = lost(y, b, q_total, q_rest, q_inverse)
            v = compiled(a, b, sum_of_differences(a, b, a_lost, b_lost), parameter)
            total = together(total, v)
        return total

    @helper
    def add(p, q, p_total, p_rest, q_total, q_rest, parameter):
        total = start
        for k in range(0, p.size, BLOCK):
            end = min(k + BLOCK, p.size)
            v = block(part(p, k, end), part(q, k, end), p_total, p_rest, q_total, q_rest, parameter)
            total = together(total, v)
        return total

    return add


@cache
def together_of(largest):
    """Add two numbers, or return the larger, NaN if either is."""

    @helper(flags=SUM)
    def add(total, v):
        return total + v

    @helper
    def larger(total, v):
        return v if total == total and not v <= total else total

    return larger if largest else add


@cache
def bin_value(total, storage_p, storage_q, sum_of=bin_sum):
    """What a `catalogue.Sum` says of two rows, of which `sum_of` makes what adds them up."""
    add, says = (
        sum_of(total.term, storage_p, storage_q, total.largest),
        formula(total.says, vmath.double),
    )
    if total.far is not None:
        far, least = bin_value(total.far, storage_p, storage_q, sum_of), total.least

        @helper
        def value_of_either(p, q, p_total, p_rest, q_total, q_rest, parameter):
            v = add(p, q, p_total, p_rest, q_total, q_rest, parameter)
            if v < least:
                return far(p, q, p_total, p_rest, q_total, q_rest, parameter)
            return says(v, parameter)

        return value_of_either
    if not total.overflows:

        @helper
        def value(p, q, p_total, p_rest, q_total, q_rest, parameter):
            return says(add(p, q, p_total, p_rest, q_total, q_rest, parameter), parameter)

        return value
    top_of = sum_of(formulas.log_ratio_term, storage_p, storage_q, True)
    add_lowered = sum_of(formulas.lowered_power_term, storage_p, storage_q)
    says_lowered, least = formula(formulas.renyi_of_lowered_powers, vmath.double), total.least

    @helper
    def value_in_range(p, q, p_total, p_rest, q_total, q_rest, parameter):
        v = add(p, q, p_total, p_rest, q_total, q_rest, parameter)
        value = says(v, parameter)
        if value == np.inf or v < least:
            top = top_of(p, q, p_total, p_rest, q_total, q_rest, parameter)
            if abs(top) < np.inf:
                given = (parameter, top)
                lowered = add_lowered(p, q, p_total, p_rest, q_total, q_rest, given)
                value = says_lowered(lowered, parameter, top)
        return value

    return value_in_range


@cache
def total_of(storage):
    """Return add(x): the sum of a row, what the roundings lose, and its lowest entry or 0."""
    read, filled, lanes = vmath.reader(storage, vmath.double, 0.0), vmath.double.filled, 8

    @helper
    def add(x):
        total, rest, highest = filled(0.0), filled(0.0), filled(0.0)
        for k in range(0, x.size, lanes):
            v = read(x, k)
            total, lost = two_sum(total, v)
            rest += lost
            highest = maximum(-v, highest)
        whole, lost = exact_sum_of(total)
        return whole, lost + sum_of(rest), -highest_of(highest)

    return add


@kernel
def totals(storage):
    """Kernel: add up rows with what the roundings lose, and find their lowest entry."""
    add = total_of(storage)

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


@kernel
def sums(term, storage_p, storage_q, largest=False, lowered=False):
    """Kernel: add up a term over the bins of pairs of rows, or find its largest.

    With `lowered` the term is given the number in `tops` as well.
    """
    add, together = bin_sum(term, storage_p, storage_q, largest), together_of(largest)

    def with_top(parameter, tops, i):
        return parameter, tops[i]

    def alone(parameter, tops, i):
        return parameter

    given = helper(with_top if lowered else alone)

    def add_rows(
        p, p_starts, p_total, p_rest, q, q_starts, q_total, q_rest, width, parameter, tops, out
    ):
        for i in range(p_starts.size):
            v = add(
                part(p, p_starts[i], p_starts[i] + width),
                part(q, q_starts[i], q_starts[i] + width),
                p_total[i], p_rest[i], q_total[i], q_rest[i], given(parameter, tops, i),
            )  # fmt: skip
            out[i] = together(out[i], v)

    return add_rows


@kernel
def finishes(says, finish):
    """Kernel: finish sums in place, divided by `unit` between what they say and that."""
    read, compiled = formula(says, vmath.double), formula(finish)

    def finish_rows(values, unit, parameter):
        for i in range(values.size):
            values[i] = compiled(read(values[i], parameter) / unit)

    return finish_rows
