"""The smallest values of rows, and pairs that their Hellinger distance lets be small."""

from math import log

import numpy as np

from fastinfo.cpu import vmath
from fastinfo.cpu.memory import part, row_of, store
from fastinfo.cpu.pair_kernels import COLUMNS, pair_of, pair_value
from fastinfo.cpu.simd import any_of, bits_of_mask, double, lanes_before, single
from fastinfo.engine import formula, helper, kernel

LN2 = log(2.0)


@helper
def _is_after(v, j, w, i):
    return v > w or (v == w and j > i)


@helper(inline=False)
def _put_at_root(values, indices, size, v, j):
    """Put v in the place of the largest of a heap."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _is_after(
            values[child + 1], indices[child + 1], values[child], indices[child]
        ):
            child += 1
        if not _is_after(values[child], indices[child], v, j):
            break
        values[at], indices[at] = values[child], indices[child]
        at = child
    values[at], indices[at] = v, j


@helper(inline=False)
def _push(values, indices, size, v, j):
    """Keep v in a heap of at most so many of the smallest values; return how many it holds.

    The largest is at its root, of equal ones that of the largest index.
    """
    if size < values.size:
        at = size
        while at > 0:
            parent = (at - 1) // 2
            if not _is_after(v, j, values[parent], indices[parent]):
                break
            values[at], indices[at] = values[parent], indices[parent]
            at = parent
        values[at], indices[at] = v, j
        return size + 1
    _put_at_root(values, indices, size, v, j)
    return size


@kernel
def sorts(storage):
    """Kernel: sort the heaps of rows, which may not fill these, by value and then by index."""

    def sort_rows(values, indices, sizes):
        for i in range(sizes.size):
            row, numbers = row_of(values, i), row_of(indices, i)
            for last in range(sizes[i] - 1, 0, -1):
                v, j = row[last], numbers[last]
                row[last], numbers[last] = row[0], numbers[0]
                _put_at_root(row, numbers, last, v, j)

    return sort_rows


@kernel
def smallest(storage):
    """Kernel: keep the smallest values of each row, those of column `own` left out.

    Columns come with rising indices, so that of equal values the first stay.
    """
    arithmetic = vmath.STORAGE[storage][0]
    read, filled, lanes = (
        vmath.reader(storage, arithmetic, np.inf), arithmetic.filled, arithmetic.lanes,
    )  # fmt: skip

    @helper
    def keep(row, begin, own, values, indices, size):
        for j in range(0, row.size, lanes):
            if size < values.size or any_of(read(row, j) < filled(values[0])):
                for i in range(j, min(j + lanes, row.size)):
                    v = row[i]
                    if i != own and v == v and (size < values.size or v < values[0]):
                        size = _push(values, indices, size, v, begin + i)
        return size

    def keep_smallest(begin, x_lo, leave_out, band, values, indices, sizes):
        for i in range(band.shape[0]):
            own = x_lo + i - begin if leave_out else -1
            sizes[i] = keep(
                row_of(band, i), begin, own, row_of(values, i), row_of(indices, i), sizes[i]
            )

    return keep_smallest


@helper
def _bounds(product, x_row, y_row, x_error, y_error, floor):
    """h² = ½ Σ (√p - √q)² from below and from above."""
    middle = 0.5 * (x_row + y_row) - product
    error = x_error * y_error + floor
    return middle - error, middle + error


@kernel
def limits():
    """Kernel: the k-th smallest upper bound of each row, and how many pairs may be below it."""

    def find_limits(
        begin, x_lo, leave_out, y_rows, y_errors, floor, slack, products, x_rows, x_errors, uppers,
        indices, sizes, taus, counts,
    ):  # fmt: skip
        for i in range(products.shape[0]):
            own = x_lo + i - begin if leave_out else -1
            kept, numbers, size, row = (
                row_of(uppers, i), row_of(indices, i), sizes[i], row_of(products, i),
            )  # fmt: skip
            for j in range(row.size):
                _, upper = _bounds(row[j], x_rows[i], y_rows[j], x_errors[i], y_errors[j], floor)
                if size < kept.size or upper < kept[0]:
                    if j != own and upper == upper:
                        size = _push(kept, numbers, size, upper, begin + j)
            sizes[i] = size
            if kept.size:
                taus[i] = kept[0] * slack if size == kept.size else np.inf
            n = 0
            for j in range(row.size):
                lower, _ = _bounds(row[j], x_rows[i], y_rows[j], x_errors[i], y_errors[j], floor)
                n += 1 if LN2 * lower <= taus[i] else 0
            counts[i] = n

    return find_limits


@kernel
def survivors(term, total, finish, storage_x, storage_y, into):
    """Kernel: the measure of pairs that may be below their row's limit, NaN for the others.

    `out` may hold the products; with an infinite limit they need not be known. Pairs whose
    divergence is known to be too small for the tiled loop go without it.
    """
    real, lanes, filled = vmath.STORAGE[into][0].real, vmath.double.lanes, vmath.double.filled
    pair, direct, compiled = (
        pair_of(term, into), pair_value(total, storage_x, storage_y, into), formula(finish),
    )  # fmt: skip
    read_product, read = (vmath.reader(kind, vmath.double, 0.0) for kind in ("float32", "float64"))
    narrow = single if into == "float32" else double

    @helper
    def bounded(products, j, tau, least, x_root, y_roots, x_error, y_errors, b_bounds, floor):
        """Bits of the columns from j on that may be below the limit, and of those too small."""
        some = read_product(products, j)
        lower, upper = _bounds(some, x_root, read(y_roots, j), x_error, read(y_errors, j), floor)
        small = bits_of_mask(upper < least + read(b_bounds, j))
        return bits_of_mask((lower * LN2 <= tau) & lanes_before(products.size - j, some)), small

    def fill(
        taus, x_roots, y_roots, x_errors, y_errors, floor, a, b, r, a_rows, b_rows, a_bounds,
        b_bounds, factor, x, x_starts, x_totals, x_rests, y, y_starts, y_totals, y_rests, width,
        parameter, unit, products, out,
    ):  # fmt: skip
        for first in range(0, b.shape[0], COLUMNS):
            last = min(first + COLUMNS, b.shape[0])
            for i in range(out.shape[0]):
                row, own = part(row_of(out, i), 0, last), part(row_of(products, i), 0, last)
                for begin in range(first, last, lanes):
                    left, small = 255, 0
                    if taus[i] < np.inf:
                        left, small = bounded(
                            own, begin, taus[i], a_bounds[i], x_roots[i], y_roots, x_errors[i],
                            y_errors, b_bounds, floor,
                        )  # fmt: skip
                        store(row, begin, narrow(filled(np.nan)))
                    for j in range(begin, min(begin + lanes, last) if left else begin):
                        if (left >> (j - begin)) & 1:
                            least, v = a_bounds[i] + b_bounds[j], 0.0
                            if not (small >> (j - begin)) & 1:
                                v = a_rows[i] + b_rows[j]
                                v += factor * pair(row_of(a, i), row_of(b, j), r)
                            if abs(v) < least:
                                v = direct(
                                    part(x, x_starts[i], x_starts[i] + width),
                                    part(y, y_starts[j], y_starts[j] + width), x_totals[i],
                                    x_rests[i], y_totals[j], y_rests[j], parameter,
                                )  # fmt: skip
                            row[j] = real(compiled(v / unit))

    return fill
