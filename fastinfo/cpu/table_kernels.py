"""Joint tables, in float64 whatever they are stored in: sums of rows and columns, terms of cells.

Tables come as rows, `height` of which are a table, or a tile of one.
"""

import numpy as np

from fastinfo import formulas
from fastinfo.cpu import vmath
from fastinfo.cpu.bin_kernels import AS_WRITTEN
from fastinfo.cpu.memory import loader, part, row_of, store
from fastinfo.cpu.simd import (
    exact_sum_of,
    fused,
    highest_of,
    maximum,
    minimum,
    sum_of,
    two_sum,
    where,
)
from fastinfo.engine import SUM, formula, helper, kernel

LANES = 8
# Differences below this share are what the rounding of products of sums of two numbers leaves.
NOISE = 2.0**-100
TINY = 2.0**-1022


@helper
def normalised(total, rest):
    """Return a sum of two numbers, the first rounded; beyond the numbers the rest is nothing."""
    if abs(total) < np.inf:
        return two_sum(total, rest)
    return total, 0.0


@kernel
def margins(storage):
    """Kernel: add up rows and columns with what the roundings lose, and find the lowest entry."""
    read, filled, load = (
        vmath.reader(storage, vmath.double, 0.0),
        vmath.double.filled,
        loader(LANES),
    )

    @helper
    def add(x, scale, columns, rests):
        total, rest, highest = filled(0.0), filled(0.0), filled(0.0)
        for k in range(0, x.size, LANES):
            v = read(x, k)
            highest = maximum(-v, highest)
            v = v * scale
            column, lost = two_sum(load(columns, k, 0.0), v)
            store(columns, k, column)
            store(rests, k, load(rests, k, 0.0) + lost)
            total, lost = two_sum(total, v)
            rest += lost
        whole, lost = exact_sum_of(total)
        return whole, lost + sum_of(rest), -highest_of(highest)

    def add_tables(
        x, starts, height, width, scales, totals, rests, column_totals, column_rests, lowest
    ):
        for b in range(lowest.size):
            columns, lost = row_of(column_totals, b), row_of(column_rests, b)
            for i in range(b * height, (b + 1) * height):
                row = part(x, starts[i], starts[i] + width)
                totals[i], rests[i], low = add(row, scales[b], columns, lost)
                lowest[b] = min(lowest[b], low)

    return add_tables


@kernel
def merges():
    """Kernel: add up sums of two numbers along the first axis."""

    def merge_parts(totals, rests, total, rest):
        for i in range(totals.shape[0]):
            for k in range(totals.shape[1]):
                total[k], lost = two_sum(total[k], totals[i, k])
                rest[k] += rests[i, k] + lost
        for k in range(total.size):
            total[k], rest[k] = normalised(total[k], rest[k])

    return merge_parts


@helper(flags=AS_WRITTEN)
def products(n, total, total_rest, row, row_rest, column, column_rest):
    """Return a = n total, b = row column, and a - b with twice the digits."""
    a, b = n * total, row * column
    a_lost = fused(n, total, -a) + n * total_rest
    b_lost = fused(row, column, -b) + (row * column_rest + row_rest * column)
    d = (a - b) + (a_lost - b_lost)
    return a, b, where(abs(d) <= NOISE * b, 0.0, d)


@helper(flags=AS_WRITTEN)
def remainder(whole, rest, n):
    """(whole + rest) - n."""
    return (whole - n) + rest


@kernel
def information(storage):
    """Kernel: Σ n T log(n T / (r c)) - n T + r c over cells n of tables; sums r and c, in all T."""
    load, term = vmath.STORAGE[storage][1], formula(formulas.kl_term, vmath.double)
    far_term = formula(formulas.information_term, vmath.double)

    @helper(flags=SUM)
    def add(x, scale, total, total_rest, row, row_rest, columns, column_rests):
        result, left = 0.0, 0
        for k in range(x.size):
            n = np.float64(load(x[k])) * scale
            a, b, d = products(n, total, total_rest, row, row_rest, columns[k], column_rests[k])
            far = b < TINY and a > 0.0
            left += 1 if far else 0
            result += 0.0 if far else term(a, b, d)
        return result, left

    @helper(flags=SUM)
    def add_far(x, scale, total, row, columns):
        result = 0.0
        for k in range(x.size):
            n = np.float64(load(x[k])) * scale
            if row * columns[k] < TINY and n * total > 0.0:
                result += far_term(n, row, columns[k], total)
        return result

    def add_tables(
        x, starts, height, width, scales, totals, rests, rows, row_rests, columns, column_rests, out
    ):
        for b in range(out.size):
            result, lost = 0.0, 0.0
            for i in range(b * height, (b + 1) * height):
                cells, sums = part(x, starts[i], starts[i] + width), row_of(columns, b)
                value, left = add(
                    cells, scales[b], totals[b], rests[b], rows[i], row_rests[i], sums,
                    row_of(column_rests, b),
                )  # fmt: skip
                if left > 0:
                    value += add_far(cells, scales[b], totals[b], rows[i], sums)
                result, error = two_sum(result, value)
                lost += error
            out[b] = result + lost

    return add_tables


@kernel
def entropies(storage):
    """Kernel: Σ n log(whole / n) over the cells of tables; each row has a whole of its own."""
    load, term = vmath.STORAGE[storage][1], formula(formulas.part_entropy_term, vmath.double)

    @helper(flags=SUM)
    def add(x, scale, whole, rest):
        result = 0.0
        for k in range(x.size):
            n = np.float64(load(x[k])) * scale
            result += term(n, whole, remainder(whole, rest, n))
        return result

    def add_tables(x, starts, height, width, scales, wholes, rests, out):
        for b in range(out.size):
            result, lost = 0.0, 0.0
            for i in range(b * height, (b + 1) * height):
                row = part(x, starts[i], starts[i] + width)
                result, error = two_sum(result, add(row, scales[b], wholes[i], rests[i]))
                lost += error
            out[b] = result + lost

    return add_tables


@kernel
def sum_entropies():
    """Kernel: Σ r log(total / r) over the sums of rows or columns of tables.

    What the largest sum leaves of the total are the others, which may be too small to be left over.
    """
    term = formula(formulas.part_entropy_term, vmath.double)

    @helper(flags=AS_WRITTEN)
    def others(whole, rest, n, n_rest):
        return (whole - n) + (rest - n_rest)

    def add_sums(sums, sum_rests, totals, rests, out):
        for b in range(out.size):
            row, largest, beside = sums[b], 0, 0.0
            for i in range(row.size):
                if row[i] > row[largest]:
                    largest = i
            for i in range(row.size):
                if i != largest:
                    beside += row[i]
                    left = others(totals[b], rests[b], row[i], sum_rests[b, i])
                    out[b] += term(row[i], totals[b], left)
            if row.size:
                out[b] += term(row[largest], totals[b], beside)

    return add_sums


@kernel
def pointwise(storage, result):
    """Kernel: log(n T / (r c)) / unit of the cells."""
    load, value = vmath.STORAGE[storage][1], formula(formulas.pointwise_information, vmath.double)
    real = np.float64 if result == "float64" else np.float32

    @helper(flags=SUM)
    def fill(x, scale, total, total_rest, row, row_rest, columns, column_rests, unit, out):
        for k in range(x.size):
            n, column = np.float64(load(x[k])) * scale, columns[k]
            a, b, d = products(n, total, total_rest, row, row_rest, column, column_rests[k])
            out[k] = real(value(n, row, column, total, a, b, d) / unit)

    def fill_tables(
        x, starts, height, width, scales, totals, rests, rows, row_rests, columns, column_rests,
        unit, out, out_starts,
    ):  # fmt: skip
        for b in range(totals.size):
            for i in range(b * height, (b + 1) * height):
                fill(
                    part(x, starts[i], starts[i] + width), scales[b], totals[b], rests[b],
                    rows[i], row_rests[i], row_of(columns, b), row_of(column_rests, b), unit,
                    part(out, out_starts[i], out_starts[i] + width),
                )  # fmt: skip

    return fill_tables


@kernel
def surprisals(storage, result):
    """Kernel: -log p / unit of elements, NaN for infinity; return the lowest, or 0."""
    arithmetic, value = vmath.double, formula(formulas.surprisal, vmath.lanewise)
    read, convert = vmath.reader(storage, arithmetic, 1.0), vmath.STORAGE[result][0].convert
    lanes, filled = arithmetic.lanes, arithmetic.filled

    def fill(x, unit, out):
        lowest = filled(0.0)
        for k in range(0, x.size, lanes):
            p = read(x, k)
            lowest = minimum(p, lowest)
            store(out, k, convert(where(p < np.inf, value(p) / unit, np.nan)))
        return -highest_of(-lowest)

    return fill
