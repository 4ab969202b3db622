"""Tables of counts of pairs of columns of codes, and the mutual information of each.

Few codes: a code of a column is a set of samples, kept as bits, and a cell of a table is the
number of bits in the intersection of two sets. Many codes: samples are counted one by one.
"""

from functools import cache

import numpy as np
from numba import types

from fastinfo import formulas
from fastinfo.cpu import simd, vmath
from fastinfo.cpu.memory import part, row_of, store, whole_loader
from fastinfo.cpu.simd import AVX2, ones_of, sums_of_eight, two_product
from fastinfo.engine import SUM, formula, helper, kernel

# Words of 64 samples of a set that are gone through at a time: 2 kB, so that a strip of sets stays
# in the second-level cache.
WORDS = 256
# Sets taken together: 2 of x and 4 of y are eight counts in registers.
X_SETS, Y_SETS = 2, 4
# Lanes of a vector of float64, to a multiple of which rooms are padded.
LANES = 8


@cache
def _term():
    """The term of a cell, on vectors."""
    arithmetic = vmath.Arithmetic(two_product=two_product, entropy_gap=vmath.double.entropy_gap)
    return formula(formulas.independence_term, arithmetic)


@helper
def snapped(value, x_entropy, y_entropy):
    """Return mutual information as an entropy it is next to: one column is a function of the other.

    Were it none, the two would differ by more than 1e-13 for any number of samples below 1e11.
    """
    if abs(value - y_entropy) <= 1e-13 * y_entropy:
        return y_entropy
    if abs(value - x_entropy) <= 1e-13 * x_entropy:
        return x_entropy
    return value


@helper
def pad(x, padding, out):
    """Copy numbers to the front of `out`, and fill it."""
    for k in range(out.size):
        out[k] = x[k] if k < x.size else padding


# --- columns -------------------------------------------------------------------------------------


@kernel
def extremes():
    """Kernel: the lowest and highest value of each row."""

    @helper(flags=SUM)
    def extremes_of(x):
        low, high = x[0], x[0]
        for k in range(x.size):
            low, high = min(low, x[k]), max(high, x[k])
        return low, high

    def find_extremes(x, low, high):
        for i in range(x.shape[0]):
            low[i], high[i] = extremes_of(row_of(x, i))

    return find_extremes


@kernel
def renaming(word):
    """Kernel: number the values of a column by size, and count them; returns how many there are.

    `table` is of zeros, longer than the largest value; it is used up.
    """

    def rename(x, table, counts, codes):
        for k in range(x.size):
            table[x[k]] += 1
        n = 0
        for value in range(table.size):
            if table[value]:
                counts[n] = table[value]
                table[value] = n
                n += 1
        for k in range(x.size):
            codes[k] = table[x[k]]
        return n

    return rename


@kernel
def entropies():
    """Kernel: entropies of columns from their counts, each column's in ascending order.

    Sorted, so that columns that differ by the names of their codes have the same.
    """

    def add_up(counts, starts, n, out):
        for i in range(out.size):
            total = 0.0
            for k in range(starts[i], starts[i + 1]):
                count = np.float64(counts[k])
                total += count * np.log1p((n - count) / count)
            out[i] = total / n

    return add_up


@kernel
def sets():
    """Kernel: sets of samples as bits, of each code of columns but the last; `bits` is of zeros."""

    def write_sets(codes, index, first, lo, bits):
        for i in range(lo, lo + index.size):
            column, sets = row_of(codes, index[i - lo]), first[i + 1] - first[i]
            for k in range(column.size):
                code = np.int64(column[k])
                if code < sets:
                    bits[first[i] + code, k >> 6] |= np.int64(1) << (k & 63)

    return write_sets


# --- few codes: sets -----------------------------------------------------------------------------


@kernel
def by_sets():
    """Kernel: mutual information of columns [x_lo, x_hi) with [y_lo, y_hi), from their sets.

    What the last code of a column counts follows from the others. `table` has a row for each set of
    x and one to spare, `width` columns for the sets of y and then one for each last code of y; as
    `y_room` and `sums`, both padded.
    """
    term, of_integer = _term(), vmath.double.of_integer
    lanes = 4 if AVX2 else 8
    load, four, eight = whole_loader(lanes), whole_loader(Y_SETS), whole_loader(LANES)
    none, zeros = simd.filled(types.int64, lanes), simd.filled(types.float64, LANES)

    @helper
    def common(u, v, p, q, r, s):
        """How many samples u and v each have in common with p, q, r and s."""
        a, b, c, d, e, f, g, h = (
            none(0), none(0), none(0), none(0), none(0), none(0), none(0), none(0),
        )  # fmt: skip
        for k in range(0, u.size, lanes):
            x, y = load(u, k), load(v, k)
            z = load(p, k)
            a += ones_of(x & z)
            e += ones_of(y & z)
            z = load(q, k)
            b += ones_of(x & z)
            f += ones_of(y & z)
            z = load(r, k)
            c += ones_of(x & z)
            g += ones_of(y & z)
            z = load(s, k)
            d += ones_of(x & z)
            h += ones_of(y & z)
        of_u, of_v = sums_of_eight(a, b, c, d, e, f, g, h)
        return of_integer(of_u), of_integer(of_v)

    @helper
    def count(x, x_begin, x_end, y, y_begin, y_end, table):
        """Count what sets have in common, a stretch of samples at a time."""
        stretches = -(-x.shape[1] // WORDS)
        step = -(-x.shape[1] // (stretches * LANES)) * LANES
        for begin in range(0, x.shape[1], step):
            end = min(begin + step, x.shape[1])
            for at in range(y_begin, y_end, Y_SETS):
                j, last = at - y_begin, y_end - 1
                p, q = row_of(y, at), row_of(y, min(at + 1, last))
                r, s = row_of(y, min(at + 2, last)), row_of(y, min(at + 3, last))
                for i in range(x_begin, x_end, X_SETS):
                    u, v = row_of(x, i), row_of(x, min(i + 1, x_end - 1))
                    of_u, of_v = common(
                        part(u, begin, end), part(v, begin, end), part(p, begin, end),
                        part(q, begin, end), part(r, begin, end), part(s, begin, end),
                    )  # fmt: skip
                    upper, lower = row_of(table, i - x_begin), row_of(table, i - x_begin + 1)
                    store(upper, j, four(upper, j) + of_u)
                    store(lower, j, four(lower, j) + of_v)

    @helper
    def count_last(x_counts, y_first, width, table):
        """Count the last codes of y."""
        for i in range(x_counts.size):
            row = row_of(table, i)
            for j in range(y_first.size - 1):
                left = x_counts[i]
                for k in range(y_first[j] - y_first[0], y_first[j + 1] - y_first[0]):
                    left -= row[k]
                row[width + j] = left

    @helper
    def add_terms(table, row, x_counts, x_last, y_counts, n, sums):
        """Σ terms over the codes of one column of x, for each code of y."""
        for k in range(0, sums.size, LANES):
            n_y, total = eight(y_counts, k), zeros(0.0)
            left = n_y
            for i in range(x_counts.size):
                count = eight(row_of(table, row + i), k)
                left -= count
                total += term(count, x_counts[i], n_y, n)
            store(sums, k, total + term(left, x_last, n_y, n))

    def compare_sets(
        x, x_lo, x_hi, x_index, x_first, x_counts, x_lasts, x_entropies, y, y_lo, y_hi, y_index,
        y_first, y_counts, y_lasts, y_entropies, n, width, table, y_room, sums, out,
    ):  # fmt: skip
        x_begin, x_end, y_begin, y_end = x_first[x_lo], x_first[x_hi], y_first[y_lo], y_first[y_hi]
        table[:] = 0.0
        count(x, x_begin, x_end, y, y_begin, y_end, table)
        count_last(part(x_counts, x_begin, x_end), part(y_first, y_lo, y_hi + 1), width, table)
        pad(part(y_counts, y_begin, y_end), 1.0, part(y_room, 0, width))  # of 0 the term is NaN
        pad(part(y_lasts, y_lo, y_hi), 1.0, part(y_room, width, y_room.size))
        for i in range(x_lo, x_hi):
            own = part(x_counts, x_first[i], x_first[i + 1])
            add_terms(table, x_first[i] - x_begin, own, x_lasts[i], y_room, n, sums)
            target = row_of(out, x_index[i])
            for j in range(y_lo, y_hi):
                total = sums[width + j - y_lo]
                for k in range(y_first[j] - y_begin, y_first[j + 1] - y_begin):
                    total += sums[k]
                target[y_index[j]] = snapped(total / n / n, x_entropies[i], y_entropies[j])

    return compare_sets


# --- many codes: samples one by one --------------------------------------------------------------


@kernel
def by_tables(x_word, y_word, integer):
    """Kernel: mutual information of a column of x with columns of y, each from a whole table.

    `table` is of zeros, and is left so; `cells` and `y_room` hold a padded row of it.
    """
    term, load, zeros = _term(), whole_loader(LANES), simd.filled(types.float64, LANES)

    @helper
    def count(x, y, width, table):
        # unsigned: an index that could be below 0 costs a quarter of the speed
        for k in range(x.size):
            table[np.uint64(x[k]) * np.uint64(width) + np.uint64(y[k])] += 1

    @helper
    def take(row, padding, cells):
        """Move a row of the table, zeros left, to the front of padded cells."""
        for k in range(row.size):
            cells[k] = row[k]
            row[k] = 0
        for k in range(row.size, cells.size):
            cells[k] = padding

    @helper
    def row_of_terms(cells, n_x, y_counts, n):
        total = zeros(0.0)
        for k in range(0, cells.size, LANES):
            total += term(load(cells, k), n_x, load(y_counts, k), n)
        return total

    def count_in_tables(
        x, x_counts, x_entropy, y, y_index, y_counts, y_starts, y_entropies, n, table, cells,
        y_room, out,
    ):  # fmt: skip
        for j in y_index:
            y_own = part(y_counts, y_starts[j], y_starts[j + 1])
            width, size = y_own.size, -(-y_own.size // LANES) * LANES
            of_y, of_row = part(y_room, 0, size), part(cells, 0, size)
            pad(y_own, n, of_y)  # with a cell of n_x that adds exactly 0
            count(x, row_of(y, j), width, table)
            total = zeros(0.0)
            for i in range(x_counts.size):
                take(part(table, i * width, (i + 1) * width), x_counts[i], of_row)
                total += row_of_terms(of_row, x_counts[i], of_y, n)
            out[j] = snapped(simd.sum_of(total) / n / n, x_entropy, y_entropies[j])

    return count_in_tables


@kernel
def orders(word):
    """Kernel: the samples of a column by code; where each begins becomes where it ends."""

    def write_order(x, starts, order):
        for k in range(x.size):
            code = x[k]
            order[starts[code]] = k
            starts[code] += 1

    return write_order


@kernel
def by_groups(word):
    """Kernel: mutual information of a column of x with columns of y, from the cells that are there.

    The samples of a code of x are counted by their codes of y; what the empty cells add is known
    exactly from the rest. `table` is of zeros, and is left so; `cells` has rows for counts of cells
    and of their codes.
    """
    term, load, zeros = _term(), whole_loader(LANES), simd.filled(types.float64, LANES)

    @helper
    def add_terms(cells, n):
        total = zeros(0.0)
        for k in range(0, cells.shape[1], LANES):
            count, n_x, n_y = (
                load(row_of(cells, 0), k), load(row_of(cells, 1), k), load(row_of(cells, 2), k)
            )  # fmt: skip
            total += term(count, n_x, n_y, n)
        return simd.sum_of(total)

    @helper
    def count(order, y, table, touched):
        """Count the codes of some samples, and list those that occur."""
        found = 0
        for k in range(order.size):
            code = np.uint64(y[np.uint64(order[k])])
            if table[code] == 0:
                touched[found] = code
                found += 1
            table[code] += 1
        return found

    @helper
    def pair(order, ends, y, y_counts, n, table, touched, cells):
        total, filled, begin = 0.0, 0, 0
        for i in range(ends.size):
            n_x, left = np.float64(ends[i] - begin), n
            for t in range(count(part(order, begin, ends[i]), y, table, touched)):
                code = touched[t]
                cells[0, filled], cells[1, filled], cells[2, filled] = (
                    table[code], n_x, y_counts[code],
                )  # fmt: skip
                table[code] = 0
                left -= y_counts[code]
                filled += 1
                if filled == cells.shape[1]:
                    total += add_terms(cells, n)
                    filled = 0
            total += n_x * left
            begin = ends[i]
        for k in range(filled, cells.shape[1]):  # add exactly 0
            cells[0, k], cells[1, k], cells[2, k] = 1.0, n, 1.0
        return total + add_terms(cells, n)

    def count_in_groups(
        order, ends, x_entropy, y, y_index, y_counts, y_starts, y_entropies, n, table, touched,
        cells, out,
    ):  # fmt: skip
        for j in y_index:
            y_own = part(y_counts, y_starts[j], y_starts[j + 1])
            total = pair(order, ends, row_of(y, j), y_own, n, table, touched, cells)
            out[j] = snapped(total / n / n, x_entropy, y_entropies[j])

    return count_in_groups
