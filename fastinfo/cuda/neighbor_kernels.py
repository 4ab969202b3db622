"""The smallest values of rows on a device, and pairs that their Hellinger distance lets be small.

A block of threads looks at a row, and one of them keeps what is small.
"""

from functools import cache
from math import log

import numpy as np

from fastinfo.cuda.pair_kernels import MARKED
from fastinfo.cuda.reduce import of_block
from fastinfo.cuda.seam import SIMULATED, cuda, helper, kernel

# Threads that look at a row.
THREADS = 4 if SIMULATED else 128
LN2 = np.float32(log(2.0))
# Returned numbers may differ by their accuracy from those the bound is for.
SLACK = np.float32(1.0 + 1e-4)


@helper
def is_after(v, j, w, i):
    """Whether v of index j comes after w of index i."""
    return v > w or (v == w and j > i)


@helper
def sink(values, indices, i, size, v, j):
    """Put v into row i's heap of so many values in place of the root, the largest."""
    at, child = 0, 1
    while child < size:
        if child + 1 < size and is_after(
            values[i, child + 1], indices[i, child + 1], values[i, child], indices[i, child]
        ):
            child += 1
        if is_after(values[i, child], indices[i, child], v, j):
            values[i, at], indices[i, at] = values[i, child], indices[i, child]
            at, child = child, 2 * child + 1
        else:
            child = size
    values[i, at], indices[i, at] = v, j


@helper
def rise(values, indices, i, size, v, j):
    """Add v to row i's heap of so many values."""
    at = size
    while at > 0 and is_after(v, j, values[i, (at - 1) // 2], indices[i, (at - 1) // 2]):
        parent = (at - 1) // 2
        values[i, at], indices[i, at] = values[i, parent], indices[i, parent]
        at = parent
    values[i, at], indices[i, at] = v, j


@cache
def smallest(storage):
    """Kernel: keep the smallest values of each row in a heap, those of column `own` left out.

    Columns come with rising indices, so that of equal values the first stay. Where there are too
    few, the first that are NaN fill the row from its end: `sizes` are the numbers of both, of which
    the heap may have taken some back.
    """
    real = np.dtype(storage).type

    @helper
    def push(values, indices, i, size, unknown, v, j):
        k = values.shape[1]
        if v != v:
            indices[i, k - 1 - unknown] = j
            return size, unknown + 1
        if size < k:
            rise(values, indices, i, size, v, j)
            return size + 1, unknown
        sink(values, indices, i, size, v, j)
        return size, unknown

    @kernel
    def keep_smallest(band, columns, begin, lo, leave_out, values, indices, sizes):
        row, i, t = cuda.blockIdx.x * columns, lo + cuda.blockIdx.x, cuda.threadIdx.x
        own = i - begin if leave_out else -1
        found = cuda.shared.array(THREADS, real)
        wanted = cuda.shared.array(THREADS, np.int32)
        counts = cuda.shared.array(2, np.int64)
        limit = cuda.shared.array(1, real)
        k = values.shape[1]
        if t == 0:
            counts[0], counts[1], limit[0] = sizes[i, 0], sizes[i, 1], values[i, 0]
        cuda.syncthreads()
        for first in range(0, columns, THREADS):
            j = first + t
            inside = j < columns and j != own
            v = band[row + j] if inside else real(0)
            room = k - counts[0]
            if v != v:
                room -= counts[1]
            wanted[t] = 1 if inside and (room > 0 or v < limit[0]) else 0
            found[t] = v
            if cuda.syncthreads_or(wanted[t]):
                if t == 0:
                    size, unknown = counts[0], counts[1]
                    for other in range(THREADS):
                        v = found[other]
                        left = k - size - (unknown if v != v else 0)
                        if wanted[other] != 0 and (left > 0 or v < values[i, 0]):
                            size, unknown = push(
                                values, indices, i, size, unknown, v, begin + first + other
                            )
                    counts[0], counts[1], limit[0] = size, unknown, values[i, 0]
                cuda.syncthreads()
        if t == 0:
            sizes[i, 0], sizes[i, 1] = counts[0], counts[1]

    return keep_smallest


@cache
def in_order(storage):
    """Kernel: turn heaps into rising values, NaN last; of rows that are none, NaN and -1."""
    nan = np.dtype(storage).type(np.nan)

    @kernel
    def sort(totals, sizes, values, indices):
        i = cuda.grid(1)
        if i >= totals.size:
            return
        k, size = values.shape[1], sizes[i, 0]
        for last in range(size - 1, 0, -1):
            v, j = values[i, last], indices[i, last]
            values[i, last], indices[i, last] = values[i, 0], indices[i, 0]
            sink(values, indices, i, last, v, j)
        for at in range(size, (size + k) // 2):
            other = size + k - 1 - at
            indices[i, at], indices[i, other] = indices[i, other], indices[i, at]
        for at in range(size, k):
            values[i, at] = nan
            if not totals[i] > 0.0:
                indices[i, at] = -1

    return sort


@helper
def error_of(x_norm, y_norm, x_row, y_row, errors):
    """Error of h² = ½ Σ (√p - √q)²."""
    return errors[0] * x_norm * y_norm + errors[1] * (abs(x_row) + abs(y_row)) + errors[2]


@cache
def upper_bounds():
    """Kernel: h² of pairs from above in place of their products, a block a row."""
    half = np.float32(0.5)

    @kernel
    def write_bounds(x_rows, x_norms, y_rows, y_norms, errors, products):
        i, columns = cuda.blockIdx.x, y_rows.size
        row, norm = x_rows[i], x_norms[i]
        for j in range(cuda.threadIdx.x, columns, THREADS):
            error = error_of(norm, y_norms[j], row, y_rows[j], errors)
            products[i * columns + j] = half * (row + y_rows[j]) - products[i * columns + j] + error

    return write_bounds


@cache
def survivors(storage):
    """Kernel: NaN for pairs that may be below the limit of their row, else inf; and how many may.

    The limit is the largest of the `k` smallest upper bounds so far.
    """
    real, two, unlimited = np.dtype(storage).type, np.float32(2), np.float32(np.inf)
    nan, inf = real(np.nan), real(np.inf)
    merge = helper(lambda s, t, given: (s[0] + t[0],))
    of_threads = of_block(merge, 0, 1, THREADS, "float32")

    @kernel
    def mark(x_rows, x_norms, y_rows, y_norms, errors, uppers, lo, kept, sizes, counts, out):
        i, columns = cuda.blockIdx.x, y_rows.size
        row, norm, many = x_rows[i], x_norms[i], np.int64(0)
        limit = kept[lo + i, 0] * SLACK if sizes[lo + i, 0] == kept.shape[1] else unlimited
        for j in range(cuda.threadIdx.x, columns, THREADS):
            error = error_of(norm, y_norms[j], row, y_rows[j], errors)
            lower = LN2 * (uppers[i * columns + j] - two * error)
            out[i * columns + j] = inf if lower > limit else nan
            many += 1 if lower <= limit else 0
        many = of_threads((many,), 0)[0]
        if cuda.threadIdx.x == 0:
            counts[i] = many

    return mark


@cache
def choice():
    """Kernel of one block: the road of pairs that are marked, if few are, else that of tiles."""
    merge = helper(lambda s, t, given: (s[0] + t[0],))
    of_threads = of_block(merge, 0, 1, THREADS, "float32")

    @kernel
    def choose(counts, most, far, road):
        many = np.int64(0)
        for i in range(cuda.threadIdx.x, counts.size, THREADS):
            many += counts[i]
        many = of_threads((many,), 0)[0]
        if cuda.threadIdx.x == 0:
            road[0] = MARKED if many <= most else far[0]

    return choose
