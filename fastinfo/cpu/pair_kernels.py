"""All pairs of rows: what the roads prepare, the tiled loop, and the finish with its recomputation.

A pair whose result is small beside its error bound is computed again from the raw rows, in float64,
by the sum over bins of `bin_kernels`. Formulas and roads are in `catalogue.py`.
"""

from functools import cache

import numpy as np

from fastinfo.cpu import vmath
from fastinfo.cpu.bin_kernels import bin_value, share, together_of
from fastinfo.cpu.memory import part, row_of, store, whole_loader
from fastinfo.cpu.simd import (
    absolute,
    any_of,
    bits_of_mask,
    double,
    highest_of,
    lanes_before,
    maximum,
    single,
    sum_of,
    where,
)
from fastinfo.engine import SUM, formula, helper, kernel

# Bins that a float32 sum runs over before it is added up in float64.
BLOCK = 1024
# Numbers that are added up one after the other in a tile: those of a stretch of equal bins are
# rounded alike, 64 or 128 of them to five times what is allowed.
RUN = 16
# Sums of powers beyond this may hold an exponential that was cut off.
MOST_QUICK = 2.0**900
# Columns of pairs done for the same few rows: their bins stay in the second-level cache.
COLUMNS = 64
# ... and of pairs that lie side by side, where so many beyond the last are read.
NARROW_COLUMNS, BESIDE = 256, 32
# Factors whose range depends on a parameter: what they overflow or underflow is computed again.
POWERS = ("power_of", "other_power_of", "half_power_of", "square_of", "inverse_of")
# Columns of a product finished at a time: what is known of them stays in the second-level cache,
# and rows are read so far in one go (512 took a sixth longer).
FINISHED = 2048


@helper
def scales(total):
    """Two factors that divide by `total`: the first keeps the reciprocal of any total in range."""
    lift = 2.0**100 if total < 2.0**-900 else 2.0**-100 if total > 2.0**900 else 1.0
    return lift, 1.0 / (total * lift)


@kernel
def sums_of_bins(storage):
    """Kernel: add up the bins of normalised rows."""
    arithmetic = vmath.double
    read, lanes = vmath.reader(storage, arithmetic, 0.0), arithmetic.lanes
    read_sums = vmath.reader("float64", arithmetic, 0.0)

    @helper
    def add(x, lift, inverse, sums):
        for k in range(0, x.size, lanes):
            store(sums, k, read_sums(sums, k) + read(x, k) * lift * inverse)

    def add_bins(x, starts, width, total, valid, sums):
        for i in range(starts.size):
            if valid[i]:
                add(part(x, starts[i], starts[i] + width), *scales(total[i]), sums)

    return add_bins


@kernel
def references(function):
    """Kernel: a function of the mean distribution, 0 where that is not finite."""
    compiled = formula(function, vmath.double)

    def write_references(mean, weights, parameter, out):
        for k in range(mean.size):
            v = compiled(mean[k], weights[k], parameter)
            out[k] = v if abs(v) < np.inf else 0.0

    return write_references


@kernel
def weights(function):
    """Kernel: the weights of bins, from the mean distribution."""
    compiled = formula(function, vmath.double)

    def write_weights(mean, parameter, out):
        for k in range(mean.size):
            out[k] = compiled(mean[k], parameter)

    return write_weights


@kernel
def factors(function, row, storage, into):
    """Kernel: f(p) - mean as `into` in the columns from `at` on, Σ row(p), and the norm of those.

    The norm is inf where a power of a filled bin is not in range, and up to twice as large for long
    stretches of one value: a product of two such rows is off by 4 times as much, all its roundings
    going one way.
    """
    arithmetic = vmath.double
    lanes, filled = arithmetic.lanes, arithmetic.filled
    read, known = (vmath.reader(kind, arithmetic, 0.0) for kind in (storage, "float64"))
    narrow, most, least, tiny = (
        (single, 2.0**127, 2.0**-126, 2.0**-149.9)
        if into == "float32"
        else (double, 2.0**1023, 2.0**-1022, 0.0)
    )
    names = vmath.lanewise if storage == "float64" else vmath.lanewise_widened
    f, row_term = formula(function, names), formula(row, names)
    bounded = function.__name__ in POWERS

    @helper
    def out_of_range(v, p, parameter):
        if not bounded:
            return filled(0.0)
        # a sum of powers is at least 1 for orders above 1: what is next to nothing adds nothing;
        lowest = least if parameter < 1.0 else -1.0
        # ... and one of orders below 1 is no less than the smaller share: it rounds to no 0
        inside = (v < most) & (v > lowest) & ((p >= tiny) | (parameter > 1.0)) | (p == 0.0)
        return where(inside, filled(0.0), filled(np.inf))

    @helper
    def write(x, lift, inverse, weights, mean, f_mean, g_mean, own_mean, parameter, out):
        sums, norms, repeated, before = filled(0.0), filled(0.0), filled(0.0), filled(np.nan)
        for k in range(0, x.size, lanes):
            p = read(x, k) * lift * inverse
            whole = f(p, known(weights, k), parameter)
            v = whole - known(own_mean, k)
            e = narrow(where(absolute(v) < most, v, 0.0))
            store(out, k, e)
            square = double(e) * double(e)
            repeated += where(double(e) == before, square, 0.0)
            before = double(e)
            norms += square + out_of_range(whole, p, parameter)
            sums += row_term(
                p, whole, known(mean, k), known(f_mean, k), known(g_mean, k), parameter
            )
        norm, again = sum_of(norms), sum_of(repeated)
        share_again = again / norm if 0.0 < again < np.inf else 0.0
        return sum_of(sums), np.sqrt(norm) * (1.0 + share_again)

    def write_factors(
        x, starts, width, total, valid, weights, mean, f_mean, g_mean, own_mean, parameter, at,
        out, rows, norms,
    ):  # fmt: skip
        for i in range(starts.size):
            target = part(row_of(out, i), at, at + width)
            if valid[i]:
                p = part(x, starts[i], starts[i] + width)
                rows[i], norms[i] = write(
                    p, *scales(total[i]), weights, mean, f_mean, g_mean, own_mean, parameter, target
                )
            else:
                target[:] = 0.0
                rows[i], norms[i] = np.nan, np.nan

    return write_factors


@kernel
def tile_rows(prepare, row, storage, into):
    """Kernel: rows as the tiled loop reads them, Σ row of these, and their error's magnitude."""
    load = vmath.STORAGE[storage][1]
    real = vmath.STORAGE[into][0].real
    compiled, row_term = formula(prepare, vmath.double), formula(row, vmath.double)

    @helper(flags=SUM)
    def write(x, total, mean, weight, out):
        row_sum, spread = 0.0, 0.0
        for k in range(x.size):
            p = share(np.float64(load(x[k])), total)
            e = real(compiled(p, mean[k], weight))
            out[k] = e
            row_sum += row_term(np.float64(e), mean[k], weight)
            spread += (p - mean[k]) * (p - mean[k])
        return row_sum, np.sqrt(spread)

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


@kernel
def zeros(storage):
    """Kernel: bits of the bins where a row is 0, and of those where it is not."""
    arithmetic = vmath.double
    read, lanes = vmath.reader(storage, arithmetic, 0.0), arithmetic.lanes

    def write_bits(x, starts, width, total, empty, filled):
        for i in range(starts.size):
            row = part(x, starts[i], starts[i] + width)
            for k in range(0, width, lanes):
                share_is_0 = read(row, k) / total[i] == 0.0
                inside = lanes_before(width - k, share_is_0)
                zero, whole = bits_of_mask(share_is_0 & inside), bits_of_mask(inside)
                empty[i, k // lanes], filled[i, k // lanes] = zero, whole ^ zero

    return write_bits


@cache
def _quick_sum(quick, storage_x, storage_y, into, largest):
    """Σ of a quick term over the bins of two rows, or the largest."""
    arithmetic = vmath.double if quick.wide else vmath.STORAGE[into][0]
    wide_names = vmath.lanewise if "float64" in (storage_x, storage_y) else vmath.lanewise_widened
    term = formula(quick.term, wide_names if quick.wide else vmath.of_vectors(arithmetic))
    real, lanes, filled = arithmetic.real, arithmetic.lanes, arithmetic.filled
    read_p, read_q = (vmath.reader(kind, arithmetic, 0.0) for kind in (storage_x, storage_y))
    together, of_lanes = together_of(largest), highest_of if largest else sum_of

    @helper
    def block(p, q, p_lift, p_inverse, q_lift, q_inverse, parameter):
        added = filled(0.0)
        for k in range(0, p.size, lanes):
            v = term(
                read_p(p, k) * p_lift * p_inverse, read_q(q, k) * q_lift * q_inverse, parameter
            )
            added = maximum(v, added) if largest else added + v
        return np.float64(of_lanes(added))

    @helper(inline=False)
    def quick_sum(p, q, p_total, q_total, parameter):
        p_lift, p_inverse = scales(p_total)
        q_lift, q_inverse = scales(q_total)
        added = 0.0
        for k in range(0, p.size, BLOCK):
            end = min(k + BLOCK, p.size)
            v = block(
                part(p, k, end), part(q, k, end), real(p_lift), real(p_inverse), real(q_lift),
                real(q_inverse), real(parameter),
            )  # fmt: skip
            added = together(added, v)
        return added

    return quick_sum


@cache
def pair_value(total, storage_x, storage_y, into):
    """What a `catalogue.Sum` says of two raw rows: by vectors where that is exact enough."""
    exact, quick = bin_value(total, storage_x, storage_y), total.quick
    if quick is None or quick.least[into == "float64"] == np.inf:
        return exact
    quick_sum = _quick_sum(quick, storage_x, storage_y, into, total.largest)
    says, doubt = formula(quick.says or total.says, vmath.double), formula(quick.doubt)
    least, lowest = quick.least[into == "float64"], -0.5 if total.far is None else total.least

    @helper
    def value(p, q, p_total, p_rest, q_total, q_rest, parameter):
        if 0.0 < p_total < np.inf and 0.0 < q_total < np.inf:  # else they are no distributions
            v = quick_sum(p, q, p_total, q_total, parameter)
            if lowest < v < MOST_QUICK:
                said = says(v, parameter)
                if least * doubt(parameter) <= said:
                    return said
        return exact(p, q, p_total, p_rest, q_total, q_rest, parameter)

    return value


@cache
def _settle(total, finish, storage_x, storage_y, into):
    """Finish a row of sums, computing again from the raw rows what is below its bound.

    And what is not finite, but for rows that have no bound: what is computed may overflow.
    """
    direct, compiled = pair_value(total, storage_x, storage_y, into), formula(finish)
    real = vmath.STORAGE[into][0].real

    @helper
    def is_below(value, bound):
        return (bound == bound) & ((abs(value) < bound) | (not abs(value) < np.inf))

    @helper(flags=SUM)
    def are_some_below(values, bounds):
        n, finite = 0, 0.0
        for j in range(values.size):
            n += 1 if abs(values[j]) < bounds[j] else 0
        for j in range(values.size):
            finite += values[j] * 0.0
        return n > 0 or finite != finite

    @helper
    def finish_all(values, unit, out):
        if unit != 1.0:
            for j in range(values.size):
                values[j] /= unit
        for j in range(values.size):
            out[j] = real(compiled(values[j]))

    @helper
    def settle(
        values, bounds, p, p_total, p_rest, y, y_starts, y_totals, y_rests, width, parameter, unit,
        out,
    ):  # fmt: skip
        if are_some_below(values, bounds):
            for j in range(values.size):
                if is_below(values[j], bounds[j]):
                    q = part(y, y_starts[j], y_starts[j] + width)
                    values[j] = direct(p, q, p_total, p_rest, y_totals[j], y_rests[j], parameter)
        finish_all(values, unit, out)

    return settle


@cache
def pair_of(term, into):
    """Σ term over the bins of two rows beside what they are measured from, in blocks."""
    arithmetic = vmath.STORAGE[into][0]
    lanes, filled = arithmetic.lanes, arithmetic.filled
    compiled = formula(term, vmath.of_vectors(arithmetic))
    read, length = vmath.reader(into, arithmetic, 0.0), 2 * RUN * lanes

    @helper
    def term_at(a, b, r, k):
        return compiled(read(a, k), read(b, k), read(r, k))

    @helper
    def block(a, b, r):
        added = filled(0.0)
        for k in range(0, a.size, 2 * lanes):
            added += term_at(a, b, r, k) + term_at(a, b, r, k + lanes)
        return np.float64(sum_of(added))

    @helper
    def pair(a, b, r):
        added = 0.0
        for k in range(0, a.size, length):
            end = min(k + length, a.size)
            added += block(part(a, k, end), part(b, k, end), part(r, k, end))
        return added

    return pair


@kernel
def tiles(term, total, finish, storage_x, storage_y, into):
    """Kernel: a band of the matrix by the tiled loop; with `symmetric`, from the diagonal on.

    `room` is for twice `COLUMNS` values.
    """
    pair, settle = pair_of(term, into), _settle(total, finish, storage_x, storage_y, into)

    def fill(
        lo, x_lo, y_lo, a, b, r, a_rows, b_rows, a_bounds, b_bounds, factor, x, x_starts, x_totals,
        x_rests, y, y_starts, y_totals, y_rests, width, parameter, unit, symmetric, room, out,
    ):  # fmt: skip
        values, bounds = row_of(room, 0), row_of(room, 1)
        for first in range(0, b.shape[0], COLUMNS):
            last = min(first + COLUMNS, b.shape[0])
            for i in range(lo, lo + out.shape[0]):
                own = x_lo + i - y_lo
                begin = max(first, own) if symmetric else first
                for j in range(begin, last):
                    values[j - begin] = (
                        a_rows[i] + b_rows[j] + factor * pair(row_of(a, i), row_of(b, j), r)
                    )
                    bounds[j - begin] = (
                        np.inf if symmetric and own == j else a_bounds[i] + b_bounds[j]
                    )
                n = last - begin
                if n > 0:
                    settle(
                        part(values, 0, n), part(bounds, 0, n),
                        part(x, x_starts[i], x_starts[i] + width), x_totals[i], x_rests[i], y,
                        part(y_starts, begin, last), part(y_totals, begin, last),
                        part(y_rests, begin, last), width, parameter, unit,
                        part(row_of(out, i - lo), begin, last),
                    )  # fmt: skip

    return fill


@kernel
def narrow_tiles(term, total, finish, storage_x, storage_y, into, inner):
    """Kernel: `tiles` of rows of few bins, pairs side by side in vectors; b has a row a bin.

    It computes in `inner`. `room` is for twice `NARROW_COLUMNS` values.
    """
    arithmetic = vmath.double if inner == "float64" else vmath.single
    filled, lanes = arithmetic.filled, arithmetic.lanes
    compiled = formula(term, vmath.of_vectors(arithmetic))
    read = whole_loader(lanes)
    settle = _settle(total, finish, storage_x, storage_y, into)

    @helper
    def added(a, b, r, begin, j):
        """Terms of the bins from `begin` on, of the pairs from j on."""
        low, high = filled(0.0), filled(0.0)
        for k in range(begin, min(begin + RUN, a.size)):
            bins, own, known = row_of(b, k), filled(a[k]), filled(r[k])
            low += compiled(own, read(bins, j), known)
            high += compiled(own, read(bins, j + lanes), known)
        return low, high

    @helper
    def sums(a, b, first, last, r, b_rows, a_row, factor, values):
        for j in range(first, last, 2 * lanes):
            low, high = added(a, b, r, 0, j)
            for begin in range(RUN, a.size, RUN):
                more_low, more_high = added(a, b, r, begin, j)
                low, high = low + more_low, high + more_high
            store(values, j - first, double(low))
            store(values, j - first + lanes, double(high))
        for j in range(last - first):
            values[j] = a_row + b_rows[first + j] + factor * values[j]

    def fill(
        lo, x_lo, y_lo, a, b, r, a_rows, b_rows, a_bounds, b_bounds, factor, x, x_starts, x_totals,
        x_rests, y, y_starts, y_totals, y_rests, width, parameter, unit, symmetric, room, out,
    ):  # fmt: skip
        for first in range(0, b_rows.size, NARROW_COLUMNS):
            last = min(first + NARROW_COLUMNS, b_rows.size)
            for i in range(lo, lo + out.shape[0]):
                own = x_lo + i - y_lo
                begin = max(first, own) if symmetric else first
                n = last - begin
                if n > 0:
                    values, bounds = part(row_of(room, 0), 0, n), part(row_of(room, 1), 0, n)
                    sums(row_of(a, i), b, begin, last, r, b_rows, a_rows[i], factor, values)
                    for j in range(n):
                        bounds[j] = a_bounds[i] + b_bounds[begin + j]
                    if symmetric and begin == own:
                        bounds[0] = np.inf
                    settle(
                        values, bounds, part(x, x_starts[i], x_starts[i] + width), x_totals[i],
                        x_rests[i], y, part(y_starts, begin, last), part(y_totals, begin, last),
                        part(y_rests, begin, last), width, parameter, unit,
                        part(row_of(out, i - lo), begin, last),
                    )  # fmt: skip

    return fill


@kernel
def values(total, finish, storage_x, storage_y, into):
    """Kernel: a band of the matrix from the raw rows, pair by pair."""
    value, compiled = pair_value(total, storage_x, storage_y, into), formula(finish)
    real = vmath.STORAGE[into][0].real

    def fill(
        lo, x_lo, y_lo, x, x_starts, x_totals, x_rests, y, y_starts, y_totals, y_rests, width,
        parameter, unit, symmetric, out,
    ):  # fmt: skip
        for i in range(lo, lo + out.shape[0]):
            p = part(x, x_starts[i], x_starts[i] + width)
            for j in range(max(0, x_lo + i - y_lo) if symmetric else 0, out.shape[1]):
                q = part(y, y_starts[j], y_starts[j] + width)
                v = value(p, q, x_totals[i], x_rests[i], y_totals[j], y_rests[j], parameter)
                out[i - lo, j] = real(compiled(v / unit))

    return fill


@kernel
def product_finishes(total, says, margin, finish, storage_x, storage_y, into):
    """Kernel: finish a band of the matrix that holds Σ f(p) g(q), with the test of supports.

    Column `skip` + j of `out` is row `y_lo` + j of y, j from 0 on. `room` is for `FINISHED` values.
    """
    direct = pair_value(total, storage_x, storage_y, into)
    if into == "float32":  # the sum in float64, all that is made of it in float32
        result, names = vmath.single, vmath.lanewise_single
        wide = vmath.with_lanes(vmath.double, result.lanes)
    else:
        result, names, wide = vmath.double, vmath.lanewise, vmath.double
    say, finished, margin_of = (formula(f, names) for f in (says, finish, margin))
    finish_one, margin_of_one = formula(finish), formula(margin, vmath.double)
    real, narrow, lanes, filled_with = result.real, result.convert, result.lanes, result.filled
    infinity = real(np.inf)
    read_sums, read = (vmath.reader(kind, wide, 0.0) for kind in (into, "float64"))
    slack = vmath.reader(into, result, 0.0)
    floor = vmath.reader(into, result, -np.inf)  # past the end no value is below it

    @helper
    def touch(filled, empty):
        """Whether some bin is filled in one row and empty in the other."""
        for k in range(filled.size):
            if filled[k] & empty[k]:
                return True
        return False

    @helper
    def bound_of(x_bound, x_slack, y_bound, y_slack):
        return y_bound * x_bound + (y_slack + x_slack)

    @helper
    def finish_all(
        x_row, x_bound, x_slack, y_rows, y_bounds, y_slacks, factor, parameter, inverse_unit,
        values, out,
    ):  # fmt: skip
        """Write values and what they finish as, and return whether any is below its bound.

        Or beyond float32, where what it finishes as may not be.
        """
        for j in range(0, values.size, lanes):
            store(values, j, narrow(read(y_rows, j) + x_row - read_sums(out, j) * factor))
        below = lanes_before(0, filled_with(0.0))
        for j in range(0, values.size, lanes):
            v = slack(values, j)
            bound = bound_of(x_bound, x_slack, floor(y_bounds, j), slack(y_slacks, j))
            below |= (margin_of(v) < bound) | (absolute(v) == infinity)
            store(out, j, finished(say(v, parameter) * inverse_unit))
        return any_of(below)

    def finish_rows(
        lo, x_lo, y_lo, factor, x_rows, y_rows, x_bounds, y_bounds, x_slacks, y_slacks, x_holes,
        y_holes, x_filled, x_empty, y_filled, y_empty, x, x_starts, x_totals, x_rests, y, y_starts,
        y_totals, y_rests, width, parameter, unit, diagonal, room, skip, out,
    ):  # fmt: skip
        for first in range(0, y_rows.size, FINISHED):
            last = min(first + FINISHED, y_rows.size)
            y_row, y_bound = part(y_rows, first, last), part(y_bounds, first, last)
            y_slack, v = part(y_slacks, first, last), part(room, 0, last - first)
            for i in range(lo, lo + out.shape[0]):
                target = part(row_of(out, i - lo), skip + first, skip + last)
                below = finish_all(
                    x_rows[i], x_bounds[i], x_slacks[i], y_row, y_bound, y_slack, factor,
                    real(parameter), real(1.0 / unit), v, target,
                )  # fmt: skip
                own = x_lo + i - y_lo if diagonal else -1
                if below or first <= own < last:
                    p = part(x, x_starts[i], x_starts[i] + width)
                    for j in range(v.size):
                        bound = bound_of(x_bounds[i], x_slacks[i], y_bound[j], y_slack[j])
                        uncertain = margin_of_one(v[j]) < bound or abs(v[j]) == np.inf
                        if uncertain or (first + j == own and bound == bound):
                            at = y_starts[first + j]
                            value = direct(
                                p, part(y, at, at + width), x_totals[i], x_rests[i],
                                y_totals[first + j], y_rests[first + j], parameter,
                            )  # fmt: skip
                            target[j] = real(finish_one(value / unit))
                for j in range(v.size if y_holes.size else 0):
                    invalid = x_rows[i] != x_rows[i] or y_row[j] != y_row[j]
                    if (y_holes[first + j] or x_holes[i]) and not invalid:
                        apart = touch(row_of(x_filled, i), row_of(y_empty, first + j))
                        if y_filled.shape[0] and not apart:
                            apart = touch(row_of(y_filled, first + j), row_of(x_empty, i))
                        if apart:
                            target[j] = real(np.inf / unit)

    return finish_rows
