"""Pairs of sparse rows: what the bins add that both fill, and exact sums over those of either."""

from functools import cache

import numpy as np

from fastinfo.cpu import vmath
from fastinfo.cpu.bin_kernels import (
    bin_value,
    lost,
    reciprocal,
    share,
    sum_of_differences,
    together_of,
)
from fastinfo.cpu.memory import part, store
from fastinfo.cpu.simd import two_sum
from fastinfo.engine import formula, helper, kernel

# Bins of a column whose terms are computed before they are added to their rows.
CHUNK = 64


@kernel
def totals(storage):
    """Kernel: add up rows with what the roundings lose."""

    def add_rows(data, starts, totals, rests):
        for i in range(totals.size):
            total, rest = 0.0, 0.0
            for t in range(starts[i], starts[i + 1]):
                total, lost_here = two_sum(total, np.float64(data[t]))
                rest += lost_here
            if abs(total) < np.inf:
                total, rest = two_sum(total, rest)
            totals[i], rests[i] = total, rest

    return add_rows


@kernel
def figures(f, f2, row, storage):
    """Kernel: f and f2 of each entry, Σ row, Σ |p| and the largest figure of each row.

    Powers that are not in range make that inf.
    """
    powers = f.__name__ in ("power_alone", "other_power_alone")
    first, second, alone = (formula(g, vmath.double) for g in (f, f2, row))

    def write(data, starts, total, parameter, out, out2, rows, masses, most):
        for i in range(total.size):
            added, mass, largest = 0.0, 0.0, 0.0
            for t in range(starts[i], starts[i + 1]):
                p = share(np.float64(data[t]), total[i])
                if p > 0.0:
                    out[t], out2[t] = first(p, parameter), second(p, parameter)
                    added += alone(p, parameter)
                else:
                    out[t], out2[t] = 0.0, 0.0
                mass += p
                if powers and not 0.0 < out[t] < np.inf:
                    largest = np.inf
                largest = max(largest, max(abs(out[t]), abs(out2[t])))
            rows[i], masses[i], most[i] = added, mass, largest

    return write


@cache
def merged_sum(term, storage_p, storage_q, largest=False):
    """Σ term over the bins that either of two rows fills; a row is its entries and their bins."""
    compiled, together = formula(term, vmath.double), together_of(largest)
    start = -np.inf if largest else 0.0

    @helper
    def add(p, q, p_total, p_rest, q_total, q_rest, parameter):
        (p_data, p_bins), (q_data, q_bins) = p, q
        total, p_inverse, q_inverse = start, reciprocal(p_total), reciprocal(q_total)
        i, j = 0, 0
        while i < p_bins.size or j < q_bins.size:
            in_p = j == q_bins.size or (i < p_bins.size and p_bins[i] <= q_bins[j])
            in_q = i == p_bins.size or (j < q_bins.size and q_bins[j] <= p_bins[i])
            x = np.float64(p_data[i]) if in_p else 0.0
            y = np.float64(q_data[j]) if in_q else 0.0
            i, j = i + in_p, j + in_q
            a, b = share(x, p_total), share(y, q_total)
            a_lost = lost(x, a, p_total, p_rest, p_inverse)
            b_lost = lost(y, b, q_total, q_rest, q_inverse)
            v = compiled(a, b, sum_of_differences(a, b, a_lost, b_lost), parameter)
            total = together(total, v)
        return total

    return add


@kernel
def overlaps(shared, total, finish, infinite, storage_x, storage_y, into):
    """Kernel: a band of the matrix of sparse rows; y comes a bin after the other.

    `sums` and `hits` are room for a number a row of y, `room` for `CHUNK`.
    """
    real, arithmetic = vmath.STORAGE[into][0].real, vmath.double
    lanes, filled = arithmetic.lanes, arithmetic.filled
    read = vmath.reader("float64", arithmetic, 1.0)
    term = formula(shared.term, vmath.of_vectors(arithmetic))
    says, margin = formula(shared.says, arithmetic), formula(shared.margin, arithmetic)
    exact, compiled = bin_value(total, storage_x, storage_y, merged_sum), formula(finish)
    overflows, least = total.overflows, total.least

    @helper
    def add_bin(f, f2, g, g2, rows, sums, hits, room):
        for first in range(0, g.size, CHUNK):
            n = min(CHUNK, g.size - first)
            one, two = part(g, first, first + n), part(g2, first, first + n)
            for k in range(0, n, lanes):
                store(room, k, term(filled(f), filled(f2), read(one, k), read(two, k)))
            for k in range(n):
                sums[rows[first + k]] += room[k]
        if infinite:
            for k in range(g.size):
                hits[rows[k]] += 1

    @helper
    def is_infinite(hits, x_filled, y_filled):
        if infinite == "both":
            return hits < x_filled or hits < y_filled
        return infinite == "first" and hits < x_filled

    def fill(
        x_lo, y_lo, x_data, x_bins, x_places, x_starts, x_totals, x_rests, x_valid, x_filled, f, f2,
        x_rows, x_masses, x_most, y_data, y_bins, y_starts, y_totals, y_rests, y_valid, y_filled,
        g, g2,
        rows, columns, y_rows, y_masses, y_most, scale, parameter, unit, symmetric, diagonal, sums,
        hits, room, out,
    ):  # fmt: skip
        for i in range(out.shape[0]):
            sums[:], hits[:] = 0.0, 0
            for t in range(x_starts[i], x_starts[i + 1]):
                lo, hi = columns[x_places[t]], columns[x_places[t] + 1]
                add_bin(
                    f[t], f2[t], part(g, lo, hi), part(g2, lo, hi), part(rows, lo, hi), sums, hits,
                    room,
                )  # fmt: skip
            own = x_lo + i - y_lo if diagonal else -1
            for j in range(max(0, x_lo + i - y_lo) if symmetric else 0, out.shape[1]):
                v = x_rows[i] + y_rows[j] + sums[j]
                if not (x_valid[i] and y_valid[j]):
                    out[i, j] = np.nan
                    continue
                if is_infinite(hits[j], x_filled[i], y_filled[j]):
                    out[i, j] = real(np.inf / unit)
                    continue
                bound = x_masses[i] * y_most[j] + y_masses[j] * x_most[i]
                bound += abs(x_rows[i]) + abs(y_rows[j])
                again = margin(v) < bound * scale or j == own
                again |= overflows and not least <= v < np.inf
                if again or v != v:
                    value = exact(
                        (
                            part(x_data, x_starts[i], x_starts[i + 1]),
                            part(x_bins, x_starts[i], x_starts[i + 1]),
                        ),
                        (
                            part(y_data, y_starts[j], y_starts[j + 1]),
                            part(y_bins, y_starts[j], y_starts[j + 1]),
                        ),
                        x_totals[i], x_rests[i], y_totals[j], y_rests[j], parameter,
                    )  # fmt: skip
                else:
                    value = says(v, parameter)
                out[i, j] = real(compiled(value / unit))

    return fill
