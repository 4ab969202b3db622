"""All pairs of rows: what the roads prepare, the tiled loop, and the finish with its recomputation.

A pair whose result is small beside its error bound is computed again from the raw rows, in float64,
by the sum over bins of `bin_kernels`. Formulas and roads are in `catalogue.py`.
"""

from functools import cache

import numpy as np

from fastinfo.cpu import vmath
from fastinfo.cpu.bin_kernels import bin_sum, share
from fastinfo.cpu.simd import part, row_of
from fastinfo.engine import EXACT, SUM, formula, helper, kernel

# Bins that a float32 sum runs over before it is added up in float64.
BLOCK = 1024
# Columns of pairs done for the same few rows: their bins stay in the second-level cache.
COLUMNS = 64


@cache
def mean_sums(function, storage):
    """Kernel: column sums of a function of normalised rows, and how many rows it is finite in."""
    load = vmath.STORAGE[storage][1]
    compiled = formula(function, vmath.double)

    @helper(EXACT)
    def add(x, total, sums, counts):
        for k in range(x.size):
            v = compiled(share(np.float64(load(x[k])), total))
            finite = abs(v) < np.inf
            sums[k] += v if finite else 0.0
            counts[k] += 1.0 if finite else 0.0

    @kernel(function.__name__, storage)
    def add_rows(x, starts, width, total, valid, sums, counts):
        for i in range(starts.size):
            if valid[i]:
                add(part(x, starts[i], starts[i] + width), total[i], sums, counts)

    return add_rows


@cache
def factors(function, row, storage, into):
    """Kernel: f(p) - mean as `into`, Σ row(p), and the norm of what was written."""
    load = vmath.STORAGE[storage][1]
    real = vmath.STORAGE[into][0].real
    f, row_term = formula(function, vmath.double), formula(row, vmath.double)

    @helper(SUM)
    def write(x, total, own_mean, f_mean, g_mean, out):
        row_sum, norm = 0.0, 0.0
        for k in range(x.size):
            p = share(np.float64(load(x[k])), total)
            v = f(p) - own_mean[k]
            e = real(v if abs(v) < np.inf else 0.0)
            out[k] = e
            norm += np.float64(e) * np.float64(e)
            row_sum += row_term(p, f_mean[k], g_mean[k])
        return row_sum, np.sqrt(norm)

    @kernel(function.__name__, row.__name__, storage, into)
    def write_rows(x, starts, width, total, valid, own_mean, f_mean, g_mean, out, rows, norms):
        for i in range(starts.size):
            if valid[i]:
                rows[i], norms[i] = write(
                    part(x, starts[i], starts[i] + width),
                    total[i],
                    own_mean,
                    f_mean,
                    g_mean,
                    row_of(out, i),
                )
            else:
                out[i] = 0.0
                rows[i], norms[i] = np.nan, np.nan

    return write_rows


@cache
def tile_rows(prepare, row, storage, into):
    """Kernel: rows as the tiled loop reads them, Σ row of these, and their error's magnitude."""
    load = vmath.STORAGE[storage][1]
    real = vmath.STORAGE[into][0].real
    compiled, row_term = formula(prepare, vmath.double), formula(row, vmath.double)

    @helper(SUM)
    def write(x, total, mean, weight, out):
        row_sum, spread = 0.0, 0.0
        for k in range(x.size):
            p = share(np.float64(load(x[k])), total)
            e = real(compiled(p, mean[k], weight))
            out[k] = e
            row_sum += row_term(np.float64(e), mean[k], weight)
            spread += (p - mean[k]) * (p - mean[k])
        return row_sum, np.sqrt(spread)

    @kernel(prepare.__name__, row.__name__, storage, into)
    def write_rows(x, starts, width, total, valid, mean, weight, out, rows, spreads):
        for i in range(starts.size):
            if valid[i]:
                rows[i], spreads[i] = write(
                    part(x, starts[i], starts[i] + width), total[i], mean, weight, row_of(out, i)
                )
            else:
                out[i] = 0.0
                rows[i], spreads[i] = np.nan, np.nan

    return write_rows


@cache
def zeros(storage):
    """Kernel: bits of the bins where a row is 0, and of those where it is not."""
    load = vmath.STORAGE[storage][1]

    @kernel(storage)
    def write_rows(x, starts, width, total, empty, filled):
        for i in range(starts.size):
            row = part(x, starts[i], starts[i] + width)
            for k in range(width):
                bit = np.uint64(1) << np.uint64(k & 63)
                if share(np.float64(load(row[k])), total[i]) == 0.0:
                    empty[i, k >> 6] |= bit
                else:
                    filled[i, k >> 6] |= bit

    return write_rows


@cache
def _settle(term, finish, storage_x, storage_y, into):
    """Finish a row of sums, computing again from the raw rows what is below its bound."""
    direct, compiled = bin_sum(term, storage_x, storage_y), formula(finish)
    real = vmath.STORAGE[into][0].real

    @helper(SUM)
    def count_below(values, bounds):
        n = 0
        for j in range(values.size):
            n += 1 if abs(values[j]) < bounds[j] else 0
        return n

    @helper(EXACT)
    def finish_all(values, unit, out):
        for j in range(values.size):
            out[j] = real(compiled(values[j] / unit))

    @helper(EXACT)
    def settle(values, bounds, p, p_total, y, y_starts, y_totals, width, parameter, unit, out):
        if count_below(values, bounds):
            for j in range(values.size):
                if abs(values[j]) < bounds[j]:
                    q = part(y, y_starts[j], y_starts[j] + width)
                    values[j] = direct(p, q, p_total, y_totals[j], parameter)
        finish_all(values, unit, out)

    return settle


@cache
def tiles(term, direct_term, finish, storage_x, storage_y, into):
    """Kernel: a band of the matrix by the tiled loop; with `symmetric`, from the diagonal on."""
    real = vmath.STORAGE[into][0].real
    compiled = formula(term, vmath.STORAGE[into][0])
    settle = _settle(direct_term, finish, storage_x, storage_y, into)

    @helper(SUM)
    def block(a, b, r):
        total = real(0)
        for k in range(a.size):
            total += compiled(a[k], b[k], r[k])
        return total

    @helper(EXACT)
    def pair(a, b, r):
        total = 0.0
        for k in range(0, a.size, BLOCK):
            end = min(k + BLOCK, a.size)
            total += np.float64(block(part(a, k, end), part(b, k, end), part(r, k, end)))
        return total

    @kernel(term.__name__, direct_term.__name__, finish.__name__, storage_x, storage_y, into)
    def fill(
        lo, a, b, r, a_rows, b_rows, a_bounds, b_bounds, factor, x, x_starts, x_totals,
        y, y_starts, y_totals, width, parameter, unit, symmetric, out,
    ):  # fmt: skip
        values, bounds = np.empty(COLUMNS), np.empty(COLUMNS)
        for first in range(lo if symmetric else 0, b.shape[0], COLUMNS):
            last = min(first + COLUMNS, b.shape[0])
            for i in range(lo, lo + out.shape[0]):
                begin = max(first, i) if symmetric else first
                for j in range(begin, last):
                    values[j - begin] = (
                        a_rows[i] + b_rows[j] + factor * pair(row_of(a, i), row_of(b, j), r)
                    )
                    bounds[j - begin] = (
                        np.inf if symmetric and i == j else a_bounds[i] + b_bounds[j]
                    )
                n = last - begin
                if n > 0:
                    settle(
                        part(values, 0, n), part(bounds, 0, n),
                        part(x, x_starts[i], x_starts[i] + width), x_totals[i], y,
                        part(y_starts, begin, last), part(y_totals, begin, last), width, parameter,
                        unit, part(row_of(out, i - lo), begin, last),
                    )  # fmt: skip

    return fill


@cache
def product_finishes(direct_term, finish, storage_x, storage_y, into):
    """Kernel: finish a band of the matrix that holds Σ f(p) g(q), with the test of supports."""
    settle = _settle(direct_term, finish, storage_x, storage_y, into)

    @helper(EXACT)
    def touch(filled, empty):
        """Whether some bin is filled in one row and empty in the other."""
        for k in range(filled.size):
            if filled[k] & empty[k]:
                return True
        return False

    @helper(EXACT)
    def values_of(x_row, x_bound, y_rows, y_bounds, factor, slack, floor, sums, values, bounds):
        for j in range(values.size):
            values[j] = x_row + y_rows[j] - factor * np.float64(sums[j])
            bounds[j] = x_bound * y_bounds[j] + slack * (abs(x_row) + abs(y_rows[j])) + floor

    @kernel(direct_term.__name__, finish.__name__, storage_x, storage_y, into)
    def finish_rows(
        lo, factor, x_rows, y_rows, x_bounds, y_bounds, slack, floor, filled, empty, holes,
        x, x_starts, x_totals, y, y_starts, y_totals, width, parameter, unit, diagonal, out,
    ):  # fmt: skip
        values, bounds = np.empty(out.shape[1]), np.empty(out.shape[1])
        for i in range(lo, lo + out.shape[0]):
            values_of(
                x_rows[i], x_bounds[i], y_rows, y_bounds, factor, slack, floor, row_of(out, i - lo),
                values, bounds,
            )  # fmt: skip
            if holes.size:
                for j in range(values.size):
                    if (
                        holes[j]
                        and values[j] == values[j]
                        and touch(row_of(filled, i), row_of(empty, j))
                    ):
                        values[j] = np.inf
            if diagonal:
                bounds[i] = np.inf
            settle(
                values, bounds, part(x, x_starts[i], x_starts[i] + width), x_totals[i], y,
                y_starts, y_totals, width, parameter, unit, row_of(out, i - lo),
            )  # fmt: skip

    return finish_rows
