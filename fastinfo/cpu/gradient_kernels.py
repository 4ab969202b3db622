"""The second reading of rows of logits: gradients, and whatever is a vector a class.

The gradient of a row is scale * exp(z - reference) - share * c_k, which is its softmax as well; the
target's own entry comes apart, since p - 1 would lose its digits. Of an entropy it is
(scale + share * (z - reference) / T) * exp(z - reference); a row's log_softmax is
scale + share * (z - reference).
"""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import words
from fastinfo.cpu import row_kernels, vmath
from fastinfo.cpu import row_state_kernels as rows
from fastinfo.cpu.memory import fence, part, prefetch, row_of, store, stream
from fastinfo.cpu.simd import any_of, apart, flush_subnormals, restore, where, with_lane
from fastinfo.engine import formula, helper, kernel

# Coefficients of a row's gradient.
REFERENCE, SCALE, SHARE, TARGET, COEFFICIENTS = range(5)

# A factor of kept exponentials that float32 might round to a subnormal number.
LEAST = 2.0**-120

_log_sum, _softmax_gradient, _entropy_gradient = (
    formula(formulas.log_sum), formula(formulas.softmax_gradient),
    formula(formulas.entropy_gradient),
)  # fmt: skip


@helper
def _coefficients_of_entropy(state, target, weight, w, option, coefficients):
    """Coefficients of the gradient of an entropy."""
    log_sum = _log_sum(state[rows.MAX], state[rows.REST])
    entropy = row_kernels.entropy_of(state, target, 1.0, w, option)
    coefficients[REFERENCE] = state[rows.MAX]
    coefficients[SCALE], coefficients[SHARE] = _entropy_gradient(
        log_sum, entropy, weight, option[rows.INVERSE_TEMPERATURE]
    )
    coefficients[TARGET] = 0.0


@cache
def _coefficients_of_softmax(logarithm):
    """Coefficients of a row's softmax, or of its logarithm."""

    @helper
    def coefficients_of(state, target, weight, w, option, coefficients):
        m, rest = state[rows.MAX], state[rows.REST]
        coefficients[REFERENCE], coefficients[TARGET] = m, 0.0
        if logarithm:
            coefficients[SCALE] = -_log_sum(m, rest)
            coefficients[SHARE] = option[rows.INVERSE_TEMPERATURE]
        else:
            coefficients[SCALE] = 1.0 / (1.0 + rest) + 0.0 * m
            coefficients[SHARE] = 0.0

    return coefficients_of


@cache
def coefficients_from(softcap, weights):
    """Coefficients of a row's gradient from its state; NaN where the row is no distribution."""
    if weights == rows.ENTROPY_WAY:
        return _coefficients_of_entropy
    if weights in rows.OTHER_WAYS:
        return _coefficients_of_softmax(weights == rows.LOG_SOFTMAX_WAY)
    target_terms, capped = row_kernels.target_terms(softcap), bool(softcap)

    @helper
    def coefficients_of(state, target, weight, w, option, coefficients):
        z, gap, own_weight, smoothed = target_terms(state, target, w, option)
        log_sum, share = _log_sum(state[rows.MAX], state[rows.REST]), weight * option[rows.SLOPE]
        logit, slope = state[rows.TARGET_LOGIT], 1.0
        if capped:
            slope = 1.0 / np.cosh(logit * option[rows.INNER]) ** 2
        coefficients[REFERENCE], coefficients[SHARE] = z, share
        coefficients[SCALE], coefficients[TARGET] = _softmax_gradient(
            log_sum, state[rows.REST], z * option[rows.INVERSE_TEMPERATURE], gap,
            logit == state[rows.MAX], own_weight, smoothed, state[rows.WEIGHT],
            option[rows.Z_LOSS], share, slope,
        )  # fmt: skip

    return coefficients_of


@cache
def placer(into, lanes):
    """Write vectors of a gradient: how many come before the first that may be streamed; and one."""
    narrow, item = vmath.narrower(into), np.dtype(words(into)).itemsize

    @helper
    def head_of(out, streamed):
        # Streaming stores go to multiples of a vector's size: what is before the first comes apart.
        head = -out.ctypes.data // item % lanes if streamed else 0
        return head if head < out.size else out.size

    @helper
    def place(out, k, g, streamed):
        if streamed and k + lanes <= out.size:
            stream(out, k, narrow(g))
        else:
            store(out, k, narrow(g))

    return head_of, place


@cache
def _row_placer(into, lanes):
    """The same of a row, in which the entry of the target is another."""
    head_of, place = placer(into, lanes)

    @helper
    def place_beside(out, k, g, position, entry, streamed):
        if 0 <= position < lanes:
            g = with_lane(g, position, entry)
        place(out, k, g, streamed)

    return head_of, place_beside


@cache
def entries(softcap, weights, arithmetic):
    """Entries of gradients at logits v whose classes weigh c, from the coefficients of the rows."""
    real, exp2, z_of = arithmetic.real, arithmetic.exp2, rows.shape(arithmetic, softcap)
    linear, entropy = weights not in rows.UNWEIGHTED, weights == rows.ENTROPY_WAY
    logarithm, capped = weights == rows.LOG_SOFTMAX_WAY, bool(softcap)
    zero, lift, lowered, ln2 = real(0), real(64), real(2.0**-64), real(np.log(2.0))

    @helper
    def of_entropy(t, share, factor):
        is_low, own = t < -lift, t * (ln2 * share) + factor
        if any_of(is_low):  # p log p may be a normal number where p is none, and p may be 0
            e = exp2(where(is_low, t + lift, t))
            g = where(e > zero, e * own, e * factor)
            return where(is_low, g * lowered, g)
        return exp2(t) * own

    @helper
    def entry(v, c, ref, factor, share, scale, cap, inner):
        z, slope = z_of(v, cap, inner)
        d = z - ref
        t = d * scale
        if entropy:
            g = of_entropy(t, share, factor)
        else:
            g = d * share + factor if logarithm else exp2(t) * factor
        if linear:
            g -= c * share
        return g * slope if capped else g

    return entry


@cache
def _emit(storage, softcap, weights, soft, into):
    """Write a row's gradient; `out` may be the logits themselves."""
    arithmetic = rows.arithmetic_of(storage, softcap, weights, soft)
    convert = vmath.STORAGE[into][0].convert
    real, lanes, entry_of = arithmetic.real, arithmetic.lanes, entries(softcap, weights, arithmetic)
    read, weight = (
        vmath.reader(storage, arithmetic, -np.inf), rows.weight_of_class(weights, arithmetic, soft),
    )  # fmt: skip
    head_of, place = _row_placer(into, lanes)

    @helper(inline=False)
    def emit(x, y, w, target, coefficients, option, out, streamed):
        apart()
        alpha, beta = real(option[rows.ALPHA]), real(option[rows.BETA])
        ref, factor = real(coefficients[REFERENCE]), real(coefficients[SCALE])
        share, entry = real(coefficients[SHARE]), real(coefficients[TARGET])
        given = (
            ref, factor, share, real(option[rows.LOG2_SCALE]), real(option[rows.CAP]),
            real(option[rows.INNER]),
        )  # fmt: skip
        head = head_of(out, streamed)
        for lo, hi in ((0, head), (head, x.size)):
            b, by, bw, o = part(x, lo, hi), part(y, lo, hi), part(w, lo, hi), part(out, lo, hi)
            for k in range(0, b.size, lanes):
                prefetch(b, k)
                g = entry_of(read(b, k), weight(by, bw, k, alpha, beta), *given)
                place(o, k, convert(g), target - lo - k, entry, streamed and lo == head)

    return emit


@cache
def _emit_kept(storage):
    """Write a row's gradient from exponentials that were kept, times a factor."""
    arithmetic = vmath.STORAGE[storage][0]
    real, lanes = arithmetic.real, arithmetic.lanes
    read = vmath.reader(real.__name__, arithmetic, 0.0)
    head_of, place = _row_placer(storage, lanes)

    @helper(inline=False)
    def emit(kept, factor, target, entry, out, streamed):
        apart()
        factor, entry = real(factor), real(entry)
        head = head_of(out, streamed)
        for lo, hi in ((0, head), (head, kept.size)):
            b, o = part(kept, lo, hi), part(out, lo, hi)
            for k in range(0, b.size, lanes):
                g = read(b, k) * factor
                place(o, k, g, target - lo - k, entry, streamed and lo == head)

    return emit


# --- kernels -------------------------------------------------------------------------------------


@kernel
def coefficients(softcap, way):
    """Kernel: coefficients of the gradients of what a way asks for, losses for "", from states."""
    coefficients_of = coefficients_from(softcap, way)

    def write_coefficients(state, targets, active, w, option, coefficients):
        for i in range(targets.size):
            if active[i] != 0.0:
                coefficients_of(
                    row_of(state, i), targets[i], active[i], w, option, row_of(coefficients, i)
                )

    return write_coefficients


@kernel
def gradients(storage, softcap, weights, soft, into):
    """Kernel: write the gradients of rows, or of the stretch that begins at class `base`."""
    emit = _emit(storage, softcap, weights, soft, into)

    def write_gradients(
        x, starts, width, base, y, y_starts, w, targets, active, option, coefficients,
        out, out_starts, streamed,
    ):  # fmt: skip
        floats = flush_subnormals()
        for i in range(starts.size):
            row_out = part(out, out_starts[i], out_starts[i] + width)
            if active[i] == 0.0:
                row_out[:] = 0
                continue
            at = y_starts[i] if y_starts.size else 0
            emit(
                part(x, starts[i], starts[i] + width), part(y, at, at + width),
                part(w, base, base + width), targets[i] - base, row_of(coefficients, i), option,
                row_out, streamed,
            )  # fmt: skip
        fence()
        restore(floats)

    return write_gradients


@kernel
def losses_and_gradients(storage, softcap, weights, soft, into):
    """Kernel: the three steps some rows of one piece at a time: the last finds them in cache.

    `state` and `coefficients` are room for so many rows, so is `y` where weights are "kept".
    """
    read_rows = row_kernels.rows_reader(storage, softcap, weights, soft)
    finish, coefficients_of = (
        row_kernels.value_of(softcap, weights),
        coefficients_from(softcap, weights),
    )
    emit, emit_kept = _emit(storage, softcap, weights, soft, into), _emit_kept(storage)
    keeps = weights == "kept"

    @helper
    def write_kept(own, state, coefficients, target, option, out, streamed):
        """Write what was kept times a factor, unless that is next to nothing."""
        rise = coefficients[REFERENCE] - state[rows.KEPT_REFERENCE]
        factor = coefficients[SCALE] * np.exp(-rise * option[rows.INVERSE_TEMPERATURE])
        if not abs(factor) >= LEAST:
            return False
        emit_kept(own, factor, target, coefficients[TARGET], out, streamed)
        return True

    def read_and_write_rows(
        x, starts, width, y, y_starts, w, targets, active, option, losses, state, coefficients,
        out, out_starts, streamed,
    ):  # fmt: skip
        floats = flush_subnormals()
        for first in range(0, starts.size, state.shape[0]):
            last = min(first + state.shape[0], starts.size)
            read_rows(first, last, x, starts, width, y, y_starts, w, targets, active, option, state)
            for i in range(first, last):
                losses[i] = 0.0
                if active[i] != 0.0:
                    own = row_of(state, i - first)
                    losses[i] = finish(own, targets[i], active[i], w, option)
                    into_row = row_of(coefficients, i - first)
                    coefficients_of(own, targets[i], active[i], w, option, into_row)
            for i in range(first, last):
                row_out = part(out, out_starts[i], out_starts[i] + width)
                if active[i] == 0.0:
                    row_out[:] = 0
                    continue
                at = y_starts[i] if y_starts.size else 0
                own, known = part(y, at, at + width), row_of(coefficients, i - first)
                if keeps and write_kept(
                    own, row_of(state, i - first), known, targets[i], option, row_out, streamed
                ):
                    continue
                emit(
                    part(x, starts[i], starts[i] + width), own, w, targets[i], known, option,
                    row_out, streamed,
                )  # fmt: skip
        fence()
        restore(floats)

    return read_and_write_rows
