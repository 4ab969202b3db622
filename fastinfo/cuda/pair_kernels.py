"""All pairs of rows on a device: rows as tiles read them, the tiled loop, and what settles pairs.

A block of threads adds up a tile of pairs, 4 by 4 of them a thread in registers, from bins that it
brings to shared memory a few at a time. Sums of `BLOCK` bins are added up with what that loses. A
second kernel finishes the pairs in float64, and computes again from the raw rows those that are
small beside their error bound: 32 pairs a warp, one after the other, by all its threads.
"""

from functools import cache

import numpy as np

from fastinfo.cuda.bin_kernels import DOUBLE, bin_value, two_sum
from fastinfo.cuda.bin_kernels import THREADS as ROW_THREADS
from fastinfo.cuda.reduce import WARP, of_block
from fastinfo.cuda.row_kernels import STEP, start_of
from fastinfo.cuda.seam import SIMULATED, cuda, formula, helper, kernel, loader, mathematics

# Pairs of a tile each way, those of a thread each way, and bins in shared memory.
TILE, OWN, BINS = (8, 4, 2) if SIMULATED else (64, 4, 16)
ACROSS = TILE // OWN
THREADS = ACROSS * ACROSS
# Bins that a sum runs over before it is added up with what that loses.
BLOCK = 4 if SIMULATED else 64
# Threads of a block that settles pairs.
SETTLERS = 4 if SIMULATED else WARP
# Rows that a thread adds up for the mean, and rows the choice of a road looks at.
MEAN_ROWS, LOOKED_AT = 64, 64


@cache
def sums_of_bins(storage):
    """Kernel: add up the bins of some normalised rows, and count them, a thread a bin."""
    load = loader(storage)[0]

    @kernel
    def add_bins(x, starts, place, totals, width, sums):
        part, k = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
        if k <= width:
            added = np.float64(0)
            for i in range(part * MEAN_ROWS, min((part + 1) * MEAN_ROWS, totals.size)):
                total = totals[i]
                if total > 0.0:
                    at = start_of(starts, place, i) + k * place[STEP]
                    added += np.float64(load(x, at)) / total if k < width else 1.0
            sums[part, k] = added

    return add_bins


@cache
def means():
    """Kernel: the mean distribution, of sums of bins and numbers of rows of both arguments."""

    @kernel
    def write_means(x_sums, y_sums, width, out):
        k = cuda.grid(1)
        if k < width:
            added, count = np.float64(0), np.float64(0)
            for part in range(x_sums.shape[0]):
                added += x_sums[part, k]
                count += x_sums[part, width]
            for part in range(y_sums.shape[0]):
                added += y_sums[part, k]
                count += y_sums[part, width]
            out[k] = added / count if count > 0.0 else 0.0

    return write_means


@cache
def choice():
    """Kernel of one block: 1 where the median of some of the figures is above `least`, else 0."""

    @helper
    def figure(x, x_step, y, y_step, looked_at, at):
        return x[at * x_step] if at < looked_at else y[(at - looked_at) * y_step]

    @kernel
    def choose(x, x_step, y, y_step, x_least, y_least, out):
        of_x = (x.size + x_step - 1) // x_step
        of_all = of_x + (y.size + y_step - 1) // y_step
        for own in range(cuda.threadIdx.x, of_all, cuda.blockDim.x):
            v = figure(x, x_step, y, y_step, of_x, own)
            v = v / (x_least if own < of_x else y_least)
            below, known = 0, 0
            for other in range(of_all):
                w = figure(x, x_step, y, y_step, of_x, other)
                w = w / (x_least if other < of_x else y_least)
                if abs(w) < np.inf:
                    known += 1
                    if w < v or (w == v and other < own):
                        below += 1
            if abs(v) < np.inf and below == known // 2:
                out[0] = 1 if v > 1.0 else 0

    return choose


@cache
def tile_rows(prepare, row, storage, into, uniform):
    """Kernel: rows as the tiled loop reads them, Σ row of these, half of what a pair must reach.

    Written are tiles of rows, a bin of all after the other, with zeros beyond the last row and bin.
    `errors` are that of any row, that in units of its sum, and of its distance from the mean.
    """
    load, real = loader(storage)[0], np.dtype(into).type
    compiled, row_term = formula(prepare, DOUBLE), formula(row, DOUBLE)
    nan, sqrt = np.float64(np.nan), DOUBLE.sqrt
    merge = helper(lambda s, t, given: (s[0] + t[0], s[1] + t[1]))
    of_threads = of_block(merge, 2, 0, ROW_THREADS, "float64")

    @kernel
    def write_rows(
        x, starts, place, totals, width, padded, far, wanted, mean, constant, weight, errors, out,
        rows, bounds,
    ):  # fmt: skip
        if wanted >= 0 and far[0] != wanted:
            return
        i = cuda.blockIdx.x
        inside = i < rows.size
        total = totals[i] if inside else nan
        at = start_of(starts, place, i) if inside else 0
        begin = i // TILE * padded
        row_sum, spread = np.float64(0), np.float64(0)
        for k in range(cuda.threadIdx.x, padded, ROW_THREADS):
            e = real(0)
            if k < width and total > 0.0:
                r = constant if uniform else mean[k]
                p = np.float64(load(x, at + k * place[STEP])) / total
                e = real(compiled(p, r, weight))
                row_sum += row_term(np.float64(e), r, weight)
                spread += (p - r) * (p - r)
            out[(begin + k) * TILE + i % TILE] = e
        row_sum, spread = of_threads((row_sum, spread), 0)
        if inside and cuda.threadIdx.x == 0:
            valid = total > 0.0
            bound = errors[0] + errors[1] * abs(row_sum) + errors[2] * sqrt(spread)
            rows[i], bounds[i] = (row_sum, bound) if valid else (nan, nan)

    return write_rows


@cache
def tiles(term, into, uniform):
    """Kernel: Σ term of all pairs of rows, a tile of them a block.

    With `symmetric` only tiles on and above the diagonal; nothing if another road is wanted.
    """
    real, load_wide = np.dtype(into).type, loader(into)[1]
    compiled = formula(term, mathematics(into))
    zero, of_tile = real(0), BINS * TILE

    @helper
    def more(s, a, b, r):
        return (
            s[0] + compiled(a, b[0], r), s[1] + compiled(a, b[1], r),
            s[2] + compiled(a, b[2], r), s[3] + compiled(a, b[3], r),
        )  # fmt: skip

    @helper
    def whole(s, h, rest):
        h0, l0 = two_sum(h[0], s[0])
        h1, l1 = two_sum(h[1], s[1])
        h2, l2 = two_sum(h[2], s[2])
        h3, l3 = two_sum(h[3], s[3])
        return (h0, h1, h2, h3), (rest[0] + l0, rest[1] + l1, rest[2] + l2, rest[3] + l3)

    @helper
    def write(out, at, step, room, h, rest):
        if room > 0:
            out[at] = h[0] + rest[0]
        if room > 1:
            out[at + step] = h[1] + rest[1]
        if room > 2:
            out[at + 2 * step] = h[2] + rest[2]
        if room > 3:
            out[at + 3 * step] = h[3] + rest[3]

    @kernel
    def fill(a, b, r, padded, far, wanted, across, symmetric, n, m, out, first, down, right):
        if wanted >= 0 and far[0] != wanted:
            return
        i, j = cuda.blockIdx.x // across, cuda.blockIdx.x % across
        if symmetric and j < i:
            return
        of_a = cuda.shared.array(of_tile, real, alignment=16)
        of_b = cuda.shared.array(of_tile, real, alignment=16)
        of_r = cuda.shared.array(BINS, real, alignment=16)
        t = cuda.threadIdx.x
        y, x = t // ACROSS * OWN, t % ACROSS * OWN
        a_at, b_at = i * padded * TILE, j * padded * TILE
        nothing = zero, zero, zero, zero
        h0, h1, h2, h3 = nothing, nothing, nothing, nothing
        l0, l1, l2, l3 = nothing, nothing, nothing, nothing
        for begin in range(0, padded, BLOCK):
            s0, s1, s2, s3 = nothing, nothing, nothing, nothing
            for k in range(begin, min(begin + BLOCK, padded), BINS):
                va = load_wide(a, a_at + k * TILE + 4 * t)
                vb = load_wide(b, b_at + k * TILE + 4 * t)
                of_a[4 * t], of_a[4 * t + 1] = va[0], va[1]
                of_a[4 * t + 2], of_a[4 * t + 3] = va[2], va[3]
                of_b[4 * t], of_b[4 * t + 1] = vb[0], vb[1]
                of_b[4 * t + 2], of_b[4 * t + 3] = vb[2], vb[3]
                if not uniform and t < BINS:
                    of_r[t] = r[k + t]
                cuda.syncthreads()
                for own in range(BINS):
                    p = load_wide(of_a, own * TILE + y)
                    q = load_wide(of_b, own * TILE + x)
                    c = zero if uniform else of_r[own]
                    s0, s1 = more(s0, p[0], q, c), more(s1, p[1], q, c)
                    s2, s3 = more(s2, p[2], q, c), more(s3, p[3], q, c)
                cuda.syncthreads()
            h0, l0 = whole(s0, h0, l0)
            h1, l1 = whole(s1, h1, l1)
            h2, l2 = whole(s2, h2, l2)
            h3, l3 = whole(s3, h3, l3)
        row, column = i * TILE + y, j * TILE + x
        room, at = m - column, first + row * down + column * right
        if row < n:
            write(out, at, right, room, h0, l0)
        if row + 1 < n:
            write(out, at + down, right, room, h1, l1)
        if row + 2 < n:
            write(out, at + 2 * down, right, room, h2, l2)
        if row + 3 < n:
            write(out, at + 3 * down, right, room, h3, l3)

    return fill


@cache
def settled(total, finish, storage_x, storage_y, into, direct):
    """Kernel: finish sums of pairs, computing again from the raw rows those below their bounds.

    With `direct` all are computed from the raw rows; with `symmetric` those on and above the
    diagonal, which is always, and written on both sides of it.
    """
    value = bin_value(total, storage_x, storage_y, SETTLERS)
    compiled, real = formula(finish, DOUBLE), np.dtype(into).type

    @kernel
    def settle(
        x, x_starts, x_place, x_totals, x_rests, y, y_starts, y_place, y_totals, y_rests, width,
        a_rows, b_rows, a_bounds, b_bounds, far, factors, parameter, unit, symmetric, n, m, pieces,
        out, first, down, right,
    ):  # fmt: skip
        i, begin = cuda.blockIdx.x // pieces, cuda.blockIdx.x % pieces * SETTLERS
        if symmetric and begin + SETTLERS <= i:
            return
        values = cuda.shared.array(SETTLERS, np.float64)
        again = cuda.shared.array(SETTLERS, np.int32)
        t = cuda.threadIdx.x
        j = begin + t
        inside = j < m and (not symmetric or j >= i)
        v, small = np.float64(0), inside
        if inside and not direct:
            factor = factors[1] if far[0] == 1 else factors[0]
            v = a_rows[i] + b_rows[j] + factor * np.float64(out[first + i * down + j * right])
            small = abs(v) < a_bounds[i] + b_bounds[j] or (symmetric and i == j)
        values[t], again[t] = v, 1 if small else 0
        cuda.syncthreads()
        x_at = start_of(x_starts, x_place, i)
        for other in range(SETTLERS):
            if again[other] != 0:
                k = begin + other
                at = x_at, x_place[STEP], start_of(y_starts, y_place, k), y_place[STEP], width
                by = x_totals[i], x_rests[i], y_totals[k], y_rests[k]
                found = value(x, y, at, by, parameter)
                if t == other:
                    values[t] = found
        if inside:
            result = real(compiled(values[t] / unit))
            out[first + i * down + j * right] = result
            if symmetric:
                out[first + j * down + i * right] = result

    return settle


@cache
def condensed():
    """Kernel: what is above the diagonal as a vector."""

    @kernel
    def write(values, n, out):
        i = cuda.blockIdx.x
        begin = i * n - i * (i + 1) // 2 - i - 1
        for j in range(i + 1 + cuda.threadIdx.x, n, cuda.blockDim.x):
            out[begin + j] = values[i * n + j]

    return write
