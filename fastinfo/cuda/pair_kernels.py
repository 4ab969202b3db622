"""All pairs of rows on a device: what the roads prepare, the tiled loop, and what settles pairs.

A block of threads adds up a tile of pairs, 4 by 4 of them a thread in registers, from bins that it
brings to shared memory a few at a time. Sums of `BLOCK` bins are added up with what that loses. A
second kernel finishes the pairs in float64, and computes again from the raw rows those that are
small beside their error bound: 32 pairs a warp, one after the other, by all its threads. Matrix
products are finished in the arithmetic of the result, and such pairs marked for it.
"""

from functools import cache

import numpy as np

from fastinfo.cpu.pair_kernels import POWERS
from fastinfo.cpu.pairs import RESOLUTION
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
# Rows of a product that a thread finishes in one column, and threads that do so.
FINISHED, FINISHERS = (2, 4) if SIMULATED else (16, 128)
# Bins of a word of their support: an int64 but for its sign.
WORD = 63
# What `settled` knows of a pair: nothing, the sum of a tile, or its result unless that is NaN.
NOTHING, SUMS, RESULTS = range(3)
# The road whose results are known where tiles are expected.
MARKED = 2


@cache
def sums_of_bins(storage):
    """Kernel: add up the bins of some normalised rows, and count them, a thread a bin.

    Blocks are numbered in one dimension, which may have more of them than others.
    """
    load = loader(storage)[0]

    @kernel
    def add_bins(x, starts, place, totals, width, sums):
        parts = sums.shape[0]
        part = cuda.blockIdx.x % parts
        k = cuda.blockIdx.x // parts * cuda.blockDim.x + cuda.threadIdx.x
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
def settled(total, finish, storage_x, storage_y, into, known):
    """Kernel: finish sums of pairs, computing again from the raw rows those below their bounds.

    Of `RESULTS`, and of `SUMS` if the road is `MARKED`, those that are NaN are computed, unless one
    of the rows is no distribution. With `symmetric` pairs on and above the diagonal, which is
    always, are written on both sides of it.
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
        marked = known == RESULTS or (known == SUMS and far[0] == MARKED)
        if inside and known != NOTHING:
            found = out[first + i * down + j * right]
            if marked:
                small = found != found and x_totals[i] > 0.0 and y_totals[j] > 0.0
            else:
                factor = factors[1] if far[0] == 1 else factors[0]
                v = a_rows[i] + b_rows[j] + factor * np.float64(found)
                bound = a_bounds[i] + b_bounds[j]  # what is beyond any number may have overflowed
                small = abs(v) < bound or (bound == bound and not abs(v) < np.inf)
                small = small or (symmetric and i == j)
        values[t], again[t] = v, 1 if small else 0
        cuda.syncthreads()
        x_at = start_of(x_starts, x_place, i)
        for other in range(SETTLERS):
            if again[other] != 0:
                k = begin + other
                at = x_at, x_place[STEP], start_of(y_starts, y_place, k), y_place[STEP], width
                by = x_totals[i], x_rests[i], y_totals[k], y_rests[k]
                computed = value(x, y, at, by, parameter)
                if t == other:
                    values[t] = computed
        if small or (inside and not marked):
            result = real(compiled(values[t] / unit))
            out[first + i * down + j * right] = result
            if symmetric:
                out[first + j * down + i * right] = result

    return settle


@cache
def references(weight, f, g):
    """Kernel: weights of bins, f and g of the mean distributions, 0 if not finite, and the mean."""
    weight_of, f_of, g_of = (formula(function, DOUBLE) for function in (weight, f, g))
    finite = helper(lambda v: v if abs(v) < np.inf else 0.0)

    @kernel
    def write_references(x_mean, y_mean, width, parameter, out):
        k = cuda.grid(1)
        if k < width:
            w = weight_of(x_mean[k], parameter)
            out[0, k] = w
            out[1, k] = finite(f_of(x_mean[k], w, parameter))
            out[2, k] = finite(g_of(y_mean[k], w, parameter))
            out[3, k] = x_mean[k]

    return write_references


@cache
def distances(storage):
    """Kernel: Σ (√p - √r)² from the mean distribution r, of one in `every` rows, a block a row."""
    load, nan, sqrt = loader(storage)[0], np.float64(np.nan), DOUBLE.sqrt
    merge = helper(lambda s, t, given: (s[0] + t[0],))
    of_threads = of_block(merge, 1, 0, ROW_THREADS, "float64")

    @kernel
    def write_distances(x, starts, place, totals, width, every, mean, out):
        i = cuda.blockIdx.x * every
        total, at, added = totals[i], start_of(starts, place, i), np.float64(0)
        for k in range(cuda.threadIdx.x, width, ROW_THREADS):
            p = np.float64(load(x, at + k * place[STEP])) / total
            d = sqrt(p) - sqrt(mean[k])
            added += d * d
        added = of_threads((added,), 0)[0]
        if cuda.threadIdx.x == 0:
            out[cuda.blockIdx.x] = added if total > 0.0 else nan

    return write_distances


@cache
def factors(f, also, row, storage, into, of_y):
    """Kernel: f(p) less its reference, `also` of p less its own behind it if not None, as `into`.

    And Σ row(p), and the norm of those: inf where a power of a filled bin is not in range. Where
    `far` is 1 references are 0, and nothing is added up.
    """
    load, real, sqrt = loader(storage)[0], np.dtype(into).type, DOUBLE.sqrt
    f_of, row_term = formula(f, DOUBLE), formula(row, DOUBLE)
    turned, also_of = also is not None, formula(f if also is None else also, DOUBLE)
    most, least = (2.0**127, 2.0**-126) if into == "float32" else (2.0**1023, 2.0**-1022)
    own, other = (2, 1) if of_y else (1, 2)
    bounded, nan, inf = f.__name__ in POWERS, np.float64(np.nan), np.float64(np.inf)
    merge = helper(lambda s, t, given: (s[0] + t[0], s[1] + t[1]))
    of_threads = of_block(merge, 2, 0, ROW_THREADS, "float64")

    @helper
    def beyond(v, p, parameter):
        """Inf of a power out of range; of orders above 1 what is next to nothing adds nothing."""
        inside = v < most and (parameter > 1.0 or (v > least and p >= least))
        return 0.0 if inside or p == 0.0 or not bounded else inf

    @kernel
    def write_factors(
        x, starts, place, totals, width, far, references, parameter, out, rows, norms
    ):
        i = cuda.blockIdx.x
        total, at = totals[i], start_of(starts, place, i)
        begin, plain = i * width * (2 if turned else 1), far[0] == 1
        row_sum, squares = np.float64(0), np.float64(0)
        for k in range(cuda.threadIdx.x, width, ROW_THREADS):
            e, second = real(0), real(0)
            if total > 0.0:
                p, w = np.float64(load(x, at + k * place[STEP])) / total, references[0, k]
                whole = f_of(p, w, parameter)
                v = whole if plain else whole - references[own, k]
                e = real(v if abs(v) < most else 0.0)
                squares += np.float64(e) * np.float64(e) + beyond(whole, p, parameter)
                if not plain:
                    row_sum += row_term(
                        p, whole, references[3, k], references[1, k], references[2, k], parameter
                    )
                if turned:
                    v = also_of(p, w, parameter) - references[other, k]
                    second = real(v if abs(v) < most else 0.0)
                    squares += np.float64(second) * np.float64(second)
            out[begin + k] = e
            if turned:
                out[begin + width + k] = second
        row_sum, squares = of_threads((row_sum, squares), 0)
        if cuda.threadIdx.x == 0:
            valid = total > 0.0
            rows[i], norms[i] = (real(row_sum), real(sqrt(squares))) if valid else (nan, nan)

    return write_factors


@cache
def supports(storage):
    """Kernel: bits of the bins where a row is 0, its words `count` apart, and whether any is."""
    load = loader(storage)[0]

    @kernel
    def write_supports(x, starts, place, totals, width, words, empty, holes):
        i = cuda.blockIdx.x
        total, at = totals[i], start_of(starts, place, i)
        for word in range(cuda.threadIdx.x, words, ROW_THREADS):
            bits, begin = np.int64(0), word * WORD
            for k in range(begin, min(begin + WORD, width)):
                if np.float64(load(x, at + k * place[STEP])) / total == 0.0:
                    bits |= np.int64(1) << np.int64(k - begin)
            empty[word * totals.size + i] = bits
            if bits != 0:
                holes[i] = 1

    return write_supports


@cache
def product_finishes(roads, square, finish, infinite, into):
    """Kernel: finish a band of Σ f(p) g(q), with the test of supports; NaN what is below its bound.

    `roads` are what a sum says and its margin, of rows far apart and of others. `errors` of each
    are those of a product in units of its norms, of rows in units of their sums, and at least, or
    in units of the norms of rows near the mean that are sums of squares.
    """
    arithmetic = mathematics(into)
    real, says, margins = arithmetic.real, [], []
    for road in roads:
        says.append(formula(road[0], arithmetic))
        margins.append(formula(road[1], arithmetic))
    far_says, far_margin, near_says, near_margin = says[0], margins[0], says[-1], margins[-1]
    compiled, nan, inf = formula(finish, arithmetic), real(np.nan), real(np.inf)
    both, resolution = infinite == "both", real(2.0 * RESOLUTION)

    @helper
    def apart(x_holes, x_empty, i, y_holes, y_empty, j):
        """Whether some bin that counts is filled in one row and empty in the other."""
        if y_holes[j] != 0 or (both and x_holes[i] != 0):
            words = x_empty.size // x_holes.size
            for word in range(words):
                of_x, of_y = x_empty[word * x_holes.size + i], y_empty[word * y_holes.size + j]
                if of_y & ~of_x != 0 or (both and of_x & ~of_y != 0):
                    return True
        return False

    @kernel
    def finish_products(
        sums, lo, hi, begin, x_rows, x_norms, x_holes, x_empty, y_rows, y_norms, y_holes, y_empty,
        far, factor, errors, parameter, inverse_unit, diagonal, symmetric, out, first, down, right,
    ):  # fmt: skip
        j, length = begin + cuda.grid(1), y_rows.size - begin
        if j >= y_rows.size:
            return
        plain, y_row, y_norm = far[0] == 1, y_rows[j], y_norms[j]
        error, slack, floor = errors[0] if plain else errors[1]
        top = lo + cuda.blockIdx.y * FINISHED
        for i in range(top, min(top + FINISHED, hi)):
            if symmetric and j < i:
                return
            row = x_rows[i - lo]
            v = row + y_row - factor * sums[(i - lo) * length + j - begin]
            x_norm = x_norms[i - lo]
            least = floor * (x_norm + y_norm + resolution) if square and not plain else floor
            bound = error * x_norm * y_norm + slack * (abs(row) + abs(y_row)) + least
            if plain:
                margin, said = far_margin(v), far_says(v, parameter)
            else:
                margin, said = near_margin(v), near_says(v, parameter)
            result = compiled(said * inverse_unit)
            if not margin >= bound or (diagonal and i == j):
                result = nan
            if infinite and row == row and y_row == y_row:
                if apart(x_holes, x_empty, i - lo, y_holes, y_empty, j):
                    result = compiled(inf * inverse_unit)
            out[first + i * down + j * right] = result
            if symmetric:
                out[first + j * down + i * right] = result

    return finish_products


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
