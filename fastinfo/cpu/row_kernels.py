"""Rows of logits: one streaming reading into a small state, and a second one for gradients.

A row is cut into fixed pieces, a piece into blocks that stay in the first-level cache. Pieces are
merged in order, so it does not matter which thread read which. Formulas are in `formulas.py`.

Kernels take flat memory and the offset of each row in it, so that any strides between rows do.
`weights` is "none" where the targets are integers and all other classes count nothing; else the
weight c_k of a class comes from alpha, beta, class weights w and soft targets y.
"""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import words
from fastinfo.cpu import vmath
from fastinfo.cpu.vmath import part, prefetch, row_of
from fastinfo.engine import EXACT, SUM, formula, helper, kernel, template

# Elements read between two looks at the running maximum: 1024 to 8192 run within 5 %, and a block's
# sums are float32, so the shorter the more accurate.
BLOCK = 4096
# Elements added side by side, each to a sum of its own, and how many bytes ahead memory is asked
# for: the processor looks 1.7 kB ahead of an exponential by itself. A float32 loss reached 0.69 of
# a plain sum without, 0.98 to 1.00 with it in a prototype, 0.82 with 64 or 256 lanes. Lanes start
# on a cache line: across two, a sum is not forwarded to its next load, at 0.7 of the speed.
LANES = 128
PREFETCH = 8192
# A longer row is read in pieces of this many elements, by several threads if rows are few.
PIECE = 1 << 20
# A block is measured from the maximum before it, the first from that of its first elements. Its sum
# is kept if its own maximum is at most 2**32 times as high (32 bits of rise cost 5 of the float32's
# 24) and the rest of the sum more than 1/16 of its maximal term; else it is read again, from cache.
SAMPLE = 64
MAX_RISE = 32.0
MIN_REST = 0.0625
# Elements of a result held in the first-level cache before they are written.
BUFFER = 1024

# Columns of a row's state, and of the coefficients of its gradient.
MAX, REST, ENTROPY, LINEAR, WEIGHT, ARGMAX, RANK, TARGET_LOGIT, STATE = range(9)
REFERENCE, SCALE, SHARE, TARGET, COEFFICIENTS = range(5)
# Sums kept one a lane.
TOP, TOTAL, TIES, E_SUM, HIGHER, A_SUM, C_SUM, LANE_SUMS = range(8)
# Entries of the array of options.
ALPHA, BETA, LOG2_SCALE, INVERSE_TEMPERATURE, CAP, INNER, SLOPE, Z_LOSS, OPTIONS = range(9)
# Figures of a row.
(
    MAXIMUM, LOG_SUM, LOGSUMEXP, ENTROPY_OF_ROW, ARGMAX_OF_ROW, LOG_PROB, RANK_OF_TARGET,
    RAW_MAXIMUM, FIGURES,
) = range(9)  # fmt: skip

_lower, _merge = formula(formulas.lower), formula(formulas.merge)
_log_sum, _loss = formula(formulas.log_sum), formula(formulas.softmax_cross_entropy)
_target_gradient = formula(formulas.target_gradient)
_softmax_entropy = formula(formulas.softmax_entropy)


@cache
def _weight_of_class(weights, real, load):
    """c_k from the block's soft targets y and class weights w."""
    ways = {
        "none": lambda y, w, k, alpha, beta: real(0),
        "uniform": lambda y, w, k, alpha, beta: beta,
        "shared": lambda y, w, k, alpha, beta: beta * real(w[k]),
        "rows": lambda y, w, k, alpha, beta: alpha * real(load(y[k])) + beta,
        "weighted_rows": lambda y, w, k, alpha, beta: (
            (alpha * real(load(y[k])) + beta) * real(w[k])
        ),
    }
    return helper(EXACT)(ways[weights])


@cache
def _shape(arithmetic, softcap):
    """Z of a logit and dz/dx times the temperature: the identity, or softcap * tanh(inner * x)."""
    real, tanh = arithmetic.real, arithmetic.tanh
    one, infinity = real(1), real(np.inf)

    def identity(x, cap, inner):
        return x, one

    def capped(x, cap, inner):
        value, slope = tanh(x * inner)
        finite = abs(x) < infinity
        return (cap * value if finite else x), (slope if finite else one)

    return helper(EXACT)(capped if softcap else identity)


@cache
def _add(storage, softcap, weights, soft, statistics, exclude):
    """Add a block of at most LANES logits, measured from `ref`, to sums kept one a lane."""
    arithmetic, load, _ = vmath.STORAGE[storage]
    real, exp2 = arithmetic.real, arithmetic.exp2
    shape = _shape(arithmetic, softcap)
    weight = _weight_of_class(weights, real, vmath.STORAGE[soft][1])
    linear = weights != "none"
    zero, one = real(0), real(1)

    @helper(SUM)
    def add(x, y, w, ref, peak, above, from_target, alpha, beta, scale, cap, inner, lanes):
        top, total, ties = row_of(lanes, TOP), row_of(lanes, TOTAL), row_of(lanes, TIES)
        e_sum, higher = row_of(lanes, E_SUM), row_of(lanes, HIGHER)
        a_sum, c_sum = row_of(lanes, A_SUM), row_of(lanes, C_SUM)
        for k in range(x.size):
            v = load(x[k])
            top[k] = vmath.maximum(top[k], v)
            d = shape(v, cap, inner)[0] - ref
            e = exp2(d * scale)
            if exclude:
                total[k] += zero if v == peak else e
                ties[k] += one if v == peak else zero
            else:
                total[k] += e
            if statistics:
                e_sum[k] += e * d if e > zero else zero
                higher[k] += one if v > above or v >= from_target else zero
            if linear:
                c = weight(y, w, k, alpha, beta)
                a_sum[k] += zero if c == zero else c * d
                c_sum[k] += c

    return add


@cache
def _lanes_of(storage):
    """Clear n sums of a kind, add them up, find the largest."""
    real = vmath.STORAGE[storage][0].real
    zero, lowest = real(0), real(-np.inf)

    @helper(SUM)
    def clear(lane, n, value):
        for k in range(n):
            lane[k] = value

    @helper(SUM)
    def add_up(lane, n):
        total = zero
        for k in range(n):
            total += lane[k]
        return np.float64(total)

    @helper(SUM)
    def highest(lane, n):
        top = lowest
        for k in range(n):
            top = vmath.maximum(top, lane[k])
        return top

    return clear, add_up, highest


@cache
def _block(storage, softcap, weights, soft, statistics, exclude):
    """Sums over a block of logits measured from `ref`; `exclude` leaves out one equal to `peak`."""
    arithmetic = vmath.STORAGE[storage][0]
    real = arithmetic.real
    add = _add(storage, softcap, weights, soft, statistics, exclude)
    zero, lowest = real(0), real(-np.inf)
    line = 64 // np.dtype(words(storage)).itemsize
    ahead = PREFETCH // np.dtype(words(storage)).itemsize

    clear, add_up, highest = _lanes_of(storage)

    @helper(EXACT)
    def block(x, y, w, ref, peak, above, from_target, option, lanes):
        alpha, beta, scale = real(option[ALPHA]), real(option[BETA]), real(option[LOG2_SCALE])
        cap, inner = real(option[CAP]), real(option[INNER])
        n = LANES if x.size > LANES else x.size
        clear(row_of(lanes, TOP), n, lowest)
        clear(row_of(lanes, TOTAL), n, zero)
        if exclude:
            clear(row_of(lanes, TIES), n, zero)
        if statistics:
            clear(row_of(lanes, E_SUM), n, zero)
            clear(row_of(lanes, HIGHER), n, zero)
        if weights != "none":
            clear(row_of(lanes, A_SUM), n, zero)
            clear(row_of(lanes, C_SUM), n, zero)
        whole = x.size - x.size % LANES
        for lo in range(0, whole, LANES):
            for k in range(lo + ahead, lo + ahead + LANES, line):
                prefetch(x, k)
            hi = lo + LANES
            add(
                part(x, lo, hi), part(y, lo, hi), part(w, lo, hi), ref, peak, above, from_target,
                alpha, beta, scale, cap, inner, lanes,
            )  # fmt: skip
        add(
            part(x, whole, x.size), part(y, whole, x.size), part(w, whole, x.size), ref, peak,
            above, from_target, alpha, beta, scale, cap, inner, lanes,
        )  # fmt: skip
        total = add_up(row_of(lanes, TOTAL), n)
        if exclude:
            total += add_up(row_of(lanes, TIES), n) - 1.0
        e = add_up(row_of(lanes, E_SUM), n) if statistics else 0.0
        higher = add_up(row_of(lanes, HIGHER), n) if statistics else 0.0
        a = add_up(row_of(lanes, A_SUM), n) if weights != "none" else 0.0
        c = add_up(row_of(lanes, C_SUM), n) if weights != "none" else 0.0
        return highest(row_of(lanes, TOP), n), total, e, a, c, higher

    return block


@cache
def _piece(storage, softcap, weights, soft, statistics):
    """State of a piece of a row."""
    arithmetic, load, _ = vmath.STORAGE[storage]
    real = arithmetic.real
    variant = (storage, softcap, weights, soft, statistics)
    measure, measure_again = _block(*variant, False), _block(*variant, True)
    shape = _shape(arithmetic, softcap)
    lowest, zero, one, nothing = real(-np.inf), real(0), real(1), real(np.nan)
    # Weighted sums of z - ref would cancel if measured from anything but the maximum.
    always_again = weights != "none"

    @helper(EXACT)
    def z_of(x, option):
        return shape(x, real(option[CAP]), real(option[INNER]))[0]

    @helper(SUM)
    def count_equal(x, value):
        n = zero
        for k in range(x.size):
            n += one if load(x[k]) == value else zero
        return n

    @helper(SUM)
    def highest(x):
        top = lowest
        for k in range(x.size):
            top = vmath.maximum(top, load(x[k]))
        return top

    @helper(SUM)
    def count_nan(x):
        n = zero
        for k in range(x.size):
            n += one if load(x[k]) != load(x[k]) else zero
        return n

    @helper(EXACT)
    def find(x, value):
        """Position of the first `value`, of the first NaN if it is NaN."""
        for k in range(x.size):
            v = load(x[k])
            if v == value or (v != v and value != value):
                return k
        return 0

    @template
    def piece(x, y, w, target, target_logit, option, lanes):
        inverse_t, scale = option[INVERSE_TEMPERATURE], option[LOG2_SCALE]
        m, r, e, a, c, rank, block_of_max = lowest, -1.0, 0.0, 0.0, 0.0, 0.0, 0
        for lo in range(0, x.size, BLOCK):
            hi = lo + BLOCK if lo + BLOCK < x.size else x.size
            b, by, bw = part(x, lo, hi), part(y, lo, hi), part(w, lo, hi)
            from_target = nothing
            if statistics and lo < target:
                if target < hi:
                    rank += count_equal(part(x, lo, target), target_logit)
                else:
                    from_target = target_logit
            start = m
            if not m > lowest:
                start = highest(part(b, 0, SAMPLE if b.size > SAMPLE else b.size))
            ref = z_of(start if start > lowest else zero, option)
            top, total, eb, ab, cb, higher = measure(
                b, by, bw, ref, zero, target_logit, from_target, option, lanes
            )
            rank += higher
            if not top > m:
                r, e, a, c = r + total, e + eb, a + ab, c + cb
                continue
            z = z_of(top, option)
            rise = np.float64(z) - np.float64(ref)
            shrink = np.exp2(-rise * scale)
            rest = total * shrink - 1.0
            if always_again or not (rest > MIN_REST and rise * scale < MAX_RISE):
                _, rest, eb, ab, cb, _ = measure_again(
                    b, by, bw, z, top, target_logit, from_target, option, lanes
                )
            else:
                eb = (eb - total * rise) * shrink
            gap = np.float64(z_of(m, option)) - np.float64(z)
            _, r, e, a, c = _merge(
                np.float64(m), r, e, a, c, np.float64(top), rest, eb, ab, cb, gap, inverse_t
            )
            m, block_of_max = top, lo
        if r != r:
            m = nothing if count_nan(x) else m
        position = 0
        if statistics and r != r:
            position = find(x, m)
        elif statistics:
            end = block_of_max + BLOCK
            position = block_of_max + find(
                part(x, block_of_max, end if end < x.size else x.size), m
            )
        return np.float64(m), r, e, a, c, position, rank

    return piece


@cache
def _absorb(storage, softcap):
    """Merge what comes next in a row into its state; a NaN stays, and where it was first."""
    arithmetic = vmath.STORAGE[storage][0]
    shape, real = _shape(arithmetic, softcap), arithmetic.real

    @template
    def absorb(state, m, r, e, a, c, argmax, rank, option):
        before, cap, inner = state[MAX], real(option[CAP]), real(option[INNER])
        z_before, z = shape(real(before), cap, inner)[0], shape(real(m), cap, inner)[0]
        if before == before and (m > before or m != m):
            state[ARGMAX] = argmax
        state[MAX], state[REST], state[ENTROPY], state[LINEAR], state[WEIGHT] = _merge(
            before, state[REST], state[ENTROPY], state[LINEAR], state[WEIGHT],
            m, r, e, a, c, np.float64(z_before) - np.float64(z), option[INVERSE_TEMPERATURE],
        )  # fmt: skip
        if m != m or before != before:
            state[MAX] = np.nan
        state[RANK] += rank

    return absorb


@cache
def _row(storage, softcap, weights, soft, statistics):
    """Read one row, or a stretch of one that begins at class `base`, into its state."""
    arithmetic, load, _ = vmath.STORAGE[storage]
    piece = _piece(storage, softcap, weights, soft, statistics)
    real, absorb = arithmetic.real, _absorb(storage, softcap)

    @template
    def row(x, y, w, base, target, elsewhere, option, state, lanes):
        position = target - base
        logit = load(x[position]) if 0 <= position < x.size else real(elsewhere)
        state[TARGET_LOGIT] = logit
        for lo in range(0, x.size, PIECE):
            hi = lo + PIECE if lo + PIECE < x.size else x.size
            m, r, e, a, c, argmax, rank = piece(
                part(x, lo, hi), part(y, lo, hi), part(w, base + lo, base + hi), position - lo,
                logit, option, lanes,
            )  # fmt: skip
            absorb(state, m, r, e, a, c, base + lo + argmax, rank, option)

    return row


@cache
def _z(softcap):
    """Z of a logit in float64, before the division by the temperature."""

    @helper(EXACT)
    def z_of(x, option):
        return option[CAP] * np.tanh(x * option[INNER]) if softcap and abs(x) < np.inf else x

    return z_of


@cache
def _target_terms(softcap):
    """Log Σ w, z of the maximum, its gap to the target, the target's and its smoothed weight."""
    z_of = _z(softcap)

    @template
    def target_terms(state, target, w, option):
        z, gap, own_weight, smoothed = z_of(state[MAX], option), 0.0, 0.0, 0.0
        if target >= 0:
            class_weight = np.float64(w[target]) if w.size else 1.0
            own_weight, smoothed = option[ALPHA] * class_weight, option[BETA] * class_weight
            gap = (z - z_of(state[TARGET_LOGIT], option)) * option[INVERSE_TEMPERATURE]
        return _log_sum(state[MAX], state[REST]), z, gap, own_weight, smoothed

    return target_terms


@cache
def _finish(softcap):
    """Loss of a row from its state."""
    target_terms = _target_terms(softcap)

    @template
    def finish(state, target, weight, w, option):
        log_sum, z, gap, own_weight, _ = target_terms(state, target, w, option)
        inverse_t = option[INVERSE_TEMPERATURE]
        return weight * _loss(
            log_sum, z * inverse_t, gap, own_weight, state[LINEAR], state[WEIGHT],
            option[Z_LOSS], inverse_t,
        )  # fmt: skip

    return finish


@cache
def _coefficients(softcap):
    """Coefficients of a row's gradient from its state; NaN where the row is no distribution."""
    target_terms = _target_terms(softcap)

    @template
    def coefficients_of(state, target, weight, w, option, coefficients):
        log_sum, z, gap, own_weight, smoothed = target_terms(state, target, w, option)
        rest, c = state[REST], state[WEIGHT]
        z_term = 0.0
        if option[Z_LOSS] != 0.0:
            z_term = 2.0 * option[Z_LOSS] * (z * option[INVERSE_TEMPERATURE] + log_sum)
        share = weight * option[SLOPE]
        coefficients[REFERENCE], coefficients[SHARE] = z, share
        coefficients[SCALE] = share * (own_weight + c + z_term) / (1.0 + rest) + 0.0 * log_sum
        if target >= 0:
            logit = state[TARGET_LOGIT]
            entry = -(own_weight + smoothed)
            if gap < np.inf:
                entry = _target_gradient(
                    rest, np.exp(-gap), logit == state[MAX], own_weight, smoothed, c, z_term
                )
                if softcap:
                    entry /= np.cosh(logit * option[INNER]) ** 2
            coefficients[TARGET] = share * entry + 0.0 * log_sum

    return coefficients_of


@cache
def _emit(storage, softcap, weights, soft, into):
    """Write a row's gradient, through a buffer: `out` may be the logits themselves."""
    arithmetic, load, _ = vmath.STORAGE[storage]
    store = vmath.STORAGE[into][2]
    real, exp2 = arithmetic.real, arithmetic.exp2
    shape = _shape(arithmetic, softcap)
    weight = _weight_of_class(weights, real, vmath.STORAGE[soft][1])
    linear = weights != "none"

    @helper(EXACT)
    def block(x, y, w, coefficients, option, buffer):
        alpha, beta, scale = real(option[ALPHA]), real(option[BETA]), real(option[LOG2_SCALE])
        cap, inner = real(option[CAP]), real(option[INNER])
        ref, factor = real(coefficients[REFERENCE]), real(coefficients[SCALE])
        share = real(coefficients[SHARE])
        for k in range(x.size):
            z, slope = shape(load(x[k]), cap, inner)
            g = factor * exp2((z - ref) * scale)
            if linear:
                g -= share * weight(y, w, k, alpha, beta)
            buffer[k] = store(slope * g) if softcap else store(g)

    @template
    def emit(x, y, w, base, target, coefficients, option, out, buffer, stream):
        for lo in range(0, x.size, BUFFER):
            hi = lo + BUFFER if lo + BUFFER < x.size else x.size
            block(
                part(x, lo, hi), part(y, lo, hi), part(w, base + lo, base + hi), coefficients,
                option, buffer,
            )  # fmt: skip
            if lo <= target - base < hi:
                buffer[target - base - lo] = store(real(coefficients[TARGET]))
            copy_out(buffer, part(out, lo, hi), stream)

    return emit


@helper(EXACT)
def copy_out(buffer, out, stream):
    """Copy the buffer to `out`; with `stream`, 64 bytes at a time past the caches."""
    size, begin = out.size, 0
    if stream:
        item = buffer.itemsize
        address, source = out.ctypes.data, buffer.ctypes.data
        head = (-address % 64) // item
        head = head if head < size else size
        for k in range(head):
            out[k] = buffer[k]
        lines = (size - head) * item // 64
        for line in range(lines):
            at = head * item + line * 64
            vmath.stream_64(address + at, source + at)
        begin = head + lines * 64 // item
    rest, source_rest = part(out, begin, size), part(buffer, begin, size)
    for k in range(rest.size):
        rest[k] = source_rest[k]


# --- kernels -------------------------------------------------------------------------------------


@cache
def states(storage, softcap, weights, soft, statistics):
    """Kernel: read rows, or the stretch of them that begins at class `base`, into their states."""
    row = _row(storage, softcap, weights, soft, statistics)

    @kernel(storage, softcap, weights, soft, statistics)
    def read_rows(
        x, starts, width, base, y, y_starts, w, targets, elsewhere, active, option, lanes, state
    ):
        for i in range(starts.size):
            if active[i] != 0.0:
                own = part(y, y_starts[i], y_starts[i] + width) if y_starts.size else part(y, 0, 0)
                row(
                    part(x, starts[i], starts[i] + width), own, w, base, targets[i],
                    elsewhere[i] if elsewhere.size else np.nan, option, row_of(state, i), lanes,
                )  # fmt: skip

    return read_rows


@cache
def finishes(softcap):
    """Kernel: losses from states."""
    finish = _finish(softcap)

    @kernel(softcap)
    def finish_rows(state, targets, active, w, option, losses):
        for i in range(losses.size):
            losses[i] = 0.0
            if active[i] != 0.0:
                losses[i] = finish(row_of(state, i), targets[i], active[i], w, option)

    return finish_rows


@cache
def gradient_coefficients(softcap):
    """Kernel: coefficients of gradients from states."""
    coefficients_of = _coefficients(softcap)

    @kernel(softcap)
    def write_coefficients(state, targets, active, w, option, coefficients):
        for i in range(targets.size):
            if active[i] != 0.0:
                coefficients_of(
                    row_of(state, i), targets[i], active[i], w, option, row_of(coefficients, i)
                )

    return write_coefficients


@cache
def gradients(storage, softcap, weights, soft, into):
    """Kernel: write the gradients of rows, or of the stretch that begins at class `base`."""
    emit = _emit(storage, softcap, weights, soft, into)

    @kernel(storage, softcap, weights, soft, into)
    def write_rows(
        x, starts, width, base, y, y_starts, w, targets, active, option, coefficients,
        out, out_starts, stream,
    ):  # fmt: skip
        buffer = np.empty(BUFFER, out.dtype)
        for i in range(starts.size):
            target_row = part(out, out_starts[i], out_starts[i] + width)
            if active[i] == 0.0:
                target_row[:] = 0
                continue
            own = part(y, y_starts[i], y_starts[i] + width) if y_starts.size else part(y, 0, 0)
            emit(
                part(x, starts[i], starts[i] + width), own, w, base, targets[i],
                row_of(coefficients, i), option, target_row, buffer, stream,
            )  # fmt: skip
        vmath.fence()

    return write_rows


@cache
def losses_and_gradients(storage, softcap, weights, soft):
    """Kernel: the three steps a row at a time, so that the second reading finds it in cache."""
    row, finish = _row(storage, softcap, weights, soft, False), _finish(softcap)
    coefficients_of = _coefficients(softcap)
    emit = _emit(storage, softcap, weights, soft, storage)

    @kernel(storage, softcap, weights, soft)
    def read_and_write_rows(
        x, starts, width, y, y_starts, w, targets, active, option, lanes, losses,
        out, out_starts, stream,
    ):  # fmt: skip
        buffer = np.empty(BUFFER, out.dtype)
        state, coefficients = np.empty(STATE), np.empty(COEFFICIENTS)
        for i in range(starts.size):
            losses[i] = 0.0
            target_row = part(out, out_starts[i], out_starts[i] + width)
            if active[i] == 0.0:
                target_row[:] = 0
                continue
            state[:] = 0.0
            state[MAX], state[REST] = -np.inf, -1.0
            logits = part(x, starts[i], starts[i] + width)
            own = part(y, y_starts[i], y_starts[i] + width) if y_starts.size else part(y, 0, 0)
            row(logits, own, w, 0, targets[i], np.nan, option, state, lanes)
            losses[i] = finish(state, targets[i], active[i], w, option)
            coefficients_of(state, targets[i], active[i], w, option, coefficients)
            emit(logits, own, w, 0, targets[i], coefficients, option, target_row, buffer, stream)
        vmath.fence()

    return read_and_write_rows


@cache
def summaries(softcap):
    """Kernel: the figures of rows from their states, as SciPy has them for infinite rows."""
    z_of = _z(softcap)

    @kernel(softcap)
    def summarise_rows(state, targets, option, figures):
        inverse_t = option[INVERSE_TEMPERATURE]
        for i in range(state.shape[0]):
            m, rest = state[i, MAX], state[i, REST]
            z, log_sum = z_of(m, option), _log_sum(m, rest)
            figures[RAW_MAXIMUM, i], figures[MAXIMUM, i] = m, z * inverse_t
            figures[LOG_SUM, i] = log_sum
            figures[LOGSUMEXP, i] = z * inverse_t + (log_sum if abs(m) < np.inf else 0.0)
            entropy = _softmax_entropy(rest, state[i, ENTROPY], inverse_t)
            figures[ENTROPY_OF_ROW, i] = entropy + 0.0 * log_sum
            figures[ARGMAX_OF_ROW, i] = state[i, ARGMAX]
            gap = (z - z_of(state[i, TARGET_LOGIT], option)) * inverse_t
            known = targets[i] >= 0
            figures[LOG_PROB, i] = -(log_sum + gap) if known else np.nan
            figures[RANK_OF_TARGET, i] = state[i, RANK] if known else -1.0

    return summarise_rows


@cache
def merges(softcap, storage):
    """Kernel: put the states of the pieces of rows together, in order."""
    absorb = _absorb(storage, softcap)

    @kernel(storage, softcap)
    def merge_pieces(parts, option, state):
        for i in range(state.shape[0]):
            for p in range(parts.shape[0]):
                s = parts[p, i]
                absorb(
                    row_of(state, i), s[MAX], s[REST], s[ENTROPY], s[LINEAR], s[WEIGHT],
                    s[ARGMAX], s[RANK], option,
                )  # fmt: skip
                state[i, TARGET_LOGIT] = s[TARGET_LOGIT]

    return merge_pieces


@cache
def log_softmaxes(storage):
    """Kernel: (z - max) / T - log_sum of rows, or of a stretch of them."""
    arithmetic, load, _ = vmath.STORAGE[storage]
    real = arithmetic.real

    @kernel(storage)
    def write_rows(x, starts, width, inverse_t, reference, log_sum, out, out_starts):
        scale = real(inverse_t)
        for i in range(starts.size):
            logits = part(x, starts[i], starts[i] + width)
            target_row = part(out, out_starts[i], out_starts[i] + width)
            ref, log = real(reference[i]), real(log_sum[i])
            for k in range(width):
                target_row[k] = (load(logits[k]) - ref) * scale - log

    return write_rows
