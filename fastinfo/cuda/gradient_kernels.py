"""The second reading of rows of logits on a device: gradients, and whatever is a vector a class.

Formulas of a row's gradient are those of `cpu.gradient_kernels`. It is read from its end, which the
caches still hold, and written past them.
"""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import computed_in
from fastinfo.cuda import row_kernels as rows
from fastinfo.cuda.row_kernels import NO_CLASS, SHIFT, STEP, THREADS, start_of
from fastinfo.cuda.seam import cuda, formula, helper, kernel, loader, mathematics, storer

# Coefficients of a row's gradient.
REFERENCE, SCALE, SHARE, TARGET, COEFFICIENTS = range(5)


def mapped(lanes, one):
    """Return each(values, k, given): the tuple of one(v, k, given)."""
    last = lanes - 1

    @helper
    def own(values, k, given):
        return (one(values[last], k + last, given),)

    if lanes == 1:
        return own
    others = mapped(lanes - 1, one)

    @helper
    def each(values, k, given):
        return others(values, k, given) + own(values, k, given)

    return each


@cache
def _coefficients(real, softcap):
    """Coefficients of a row's gradient from its state; NaN where the row is no distribution."""
    m_ = mathematics(real)
    terms, (_, slope_of) = rows.terms_of_target(real, softcap), rows.shape(real, softcap)
    gradient, one = formula(formulas.softmax_gradient, m_), m_.real(1)

    @helper
    def coefficients_of(state, target, logit, weight, w, option):
        log_sum, gap, own, smoothed = terms(state, target, logit, w, option)
        m, rest, _, _, c, z, _, _ = state
        share, offset = weight * option[rows.SLOPE], z * option[rows.INVERSE_TEMPERATURE]
        slope = slope_of(logit, option) if target >= 0 else one
        scale, entry = gradient(
            log_sum, rest, offset, gap, logit == m, own, smoothed, c, option[rows.Z_LOSS], share,
            slope,
        )  # fmt: skip
        return z, scale, share, entry

    return coefficients_of


@cache
def _entry(storage, softcap, weights, soft):
    """One entry of a gradient, or of what else is a vector a class."""
    real = computed_in(storage)
    m_ = mathematics(real)
    exp2, zero, lift, lowered = m_.exp2, m_.real(0), m_.real(64), m_.real(2.0**-64)
    ln2 = m_.real(formulas.LN2)
    (z_of, slope_of), weight = rows.shape(real, softcap), rows.weight_of_class(weights, real, soft)
    linear, entropy, logarithm = (
        weights not in rows.UNWEIGHTED, weights == "entropy", weights == "logarithm",
    )  # fmt: skip

    @helper
    def entry_of(v, k, given):
        y, y_at, y_step, w, target, option, (reference, scale, share, entry) = given
        d = z_of(v, option) - reference
        t = d * option[rows.LOG2_SCALE]
        if logarithm:
            return d * option[rows.INVERSE_TEMPERATURE] - scale
        if entropy:  # p log p may be a normal number where p is none
            low = t < -lift
            e = exp2(t + lift if low else t)
            g = e * (t * (ln2 * share) + scale) if e > zero else e * scale
            return g * lowered if low else g
        g = exp2(t) * scale
        if linear:
            g -= weight(y, y_at, y_step, w, k, option) * share
        if softcap:
            g *= slope_of(v, option)
        return entry if k == target else g

    return entry_of


@cache
def emitter(storage, softcap, weights, soft, into):
    """Write what the classes [begin, end) of a row give, by all threads of a block."""
    load, load_wide = loader(storage)
    store, store_wide = storer(into)
    entry = _entry(storage, softcap, weights, soft)
    lanes = 8 if storage in ("float16", "bfloat16") else 4
    each = mapped(lanes, entry)
    same = storage == into

    @helper
    def emit(x, start, place, begin, end, given, out, out_start, out_place):
        t, shift, step, out_step = cuda.threadIdx.x, place[SHIFT], place[STEP], out_place[STEP]
        aligned = (start + shift - out_start - out_place[SHIFT]) % lanes == 0
        if same and step == 1 and out_step == 1 and aligned:
            first, last, apart = start + begin, start + end, out_start - start
            head = min(first + (-(first + shift)) % lanes, last)
            tail = head + (last - head) // lanes * lanes
            for i in range(tail + t, last, THREADS):
                store(out, i + apart, entry(load(x, i), i - start, given))
            i = tail - lanes - t * lanes
            while i >= head:
                store_wide(out, i + apart, each(load_wide(x, i), i - start, given))
                i -= THREADS * lanes
            for i in range(first + t, head, THREADS):
                store(out, i + apart, entry(load(x, i), i - start, given))
        else:
            for k in range(begin + t, end, THREADS):
                store(out, out_start + k * out_step, entry(load(x, start + k * step), k, given))

    return emit


@cache
def filler(into):
    """Write one number to the classes [begin, end) of a row."""
    store = storer(into)[0]

    @helper
    def fill(v, begin, end, out, out_start, out_step):
        for k in range(begin + cuda.threadIdx.x, end, THREADS):
            store(out, out_start + k * out_step, v)

    return fill


# --- kernels -------------------------------------------------------------------------------------


@cache
def losses_and_gradients(storage, softcap, weights, soft):
    """Kernel: both, a block a row: the second reading finds it in the second-level cache."""
    real = computed_in(storage)
    read_piece, load = (
        rows.piece_reader(storage, softcap, weights, soft, False, False), loader(storage)[0],
    )  # fmt: skip
    finish, coefficients_of = rows.loss_of(real, softcap), _coefficients(real, softcap)
    emit, fill = emitter(storage, softcap, weights, soft, storage), filler(storage)
    weighed, kind = rows.weight_of(real), mathematics(real).real
    zero, nan = kind(0), kind(np.nan)

    @kernel
    def read_and_write_rows(
        x, starts, place, width, y, y_starts, y_place, w, targets, active, option, losses,
        out, out_starts, out_place,
    ):  # fmt: skip
        i = cuda.blockIdx.x
        target, weight = rows.target_of(targets, i), weighed(active, i)
        start, at = start_of(starts, place, i), start_of(y_starts, y_place, i)
        out_start, loss = start_of(out_starts, out_place, i), nan if target == NO_CLASS else zero
        if weight == zero or target == NO_CLASS:
            fill(loss, 0, width, out, out_start, out_place[STEP])
        else:
            logit = load(x, start + target * place[STEP]) if target >= 0 else nan
            given = y, at, y_place[STEP], w, target, logit, option
            state = read_piece(x, start, place, 0, width, given)
            loss = finish(state, target, logit, weight, w, option)
            coefficients = coefficients_of(state, target, logit, weight, w, option)
            cuda.syncthreads()  # `out` may be the logits: all have read the target's
            written = y, at, y_place[STEP], w, target, option, coefficients
            emit(x, start, place, 0, width, written, out, out_start, out_place)
        if cuda.threadIdx.x == 0:
            losses[i] = loss

    return read_and_write_rows


@cache
def coefficients(real, softcap):
    """Kernel: coefficients of gradients from the states of pieces, a thread a row."""
    merged, coefficients_of = rows.row_of_pieces(real, softcap), _coefficients(real, softcap)
    weighed = rows.weight_of(real)

    @kernel
    def write_coefficients(numbers, integers, targets, active, w, option, out):
        i = cuda.grid(1)
        if i < out.shape[0]:
            state, target = merged(numbers, integers, i, option), rows.target_of(targets, i)
            logit = numbers[i, 0, rows.TARGET_LOGIT]
            found = coefficients_of(state, target, logit, weighed(active, i), w, option)
            out[i, REFERENCE], out[i, SCALE], out[i, SHARE], out[i, TARGET] = found

    return write_coefficients


@cache
def gradients(storage, softcap, weights, soft, into):
    """Kernel: write what coefficients say, a block a piece of a row; block (row, piece)."""
    emit, fill = emitter(storage, softcap, weights, soft, into), filler(into)
    real = computed_in(storage)
    weighed, kind = rows.weight_of(real), mathematics(real).real
    zero, nan = kind(0), kind(np.nan)

    @kernel
    def write_gradients(
        x, starts, place, width, length, y, y_starts, y_place, w, targets, active, option, found,
        out, out_starts, out_place,
    ):  # fmt: skip
        i, begin = cuda.blockIdx.x, cuda.blockIdx.y * length
        out_start = start_of(out_starts, out_place, i)
        end = min(begin + length, width)
        target = rows.target_of(targets, i)
        if weighed(active, i) == zero or target == NO_CLASS:
            blank = nan if target == NO_CLASS else zero
            fill(blank, begin, end, out, out_start, out_place[STEP])
        else:
            own = found[i, REFERENCE], found[i, SCALE], found[i, SHARE], found[i, TARGET]
            at, start = start_of(y_starts, y_place, i), start_of(starts, place, i)
            written = y, at, y_place[STEP], w, target, option, own
            emit(x, start, place, begin, end, written, out, out_start, out_place)

    return write_gradients


@cache
def entropy_coefficients(real):
    """Kernel: entropies, and coefficients of their gradients, from figures; a thread a row."""
    m_, weighed = mathematics(real), rows.weight_of(real)
    gradient, zero = formula(formulas.entropy_gradient, m_), m_.real(0)

    @kernel
    def write_coefficients(figures, active, option, values, out):
        i = cuda.grid(1)
        if i < values.size:
            weight = weighed(active, i)
            entropy, log_sum = figures[rows.ENTROPY_OF_ROW, i], figures[rows.LOG_SUM, i]
            values[i] = weight * entropy
            out[i, REFERENCE], out[i, TARGET] = figures[rows.RAW_MAXIMUM, i], zero
            out[i, SCALE], out[i, SHARE] = gradient(
                log_sum, entropy, weight, option[rows.INVERSE_TEMPERATURE]
            )

    return write_coefficients


@cache
def softmax_coefficients(real, logarithm):
    """Kernel: coefficients of softmax, or of its logarithm, from figures; a thread a row."""
    m_ = mathematics(real)
    exp, zero = m_.exp, m_.real(0)

    @kernel
    def write_coefficients(figures, out):
        i = cuda.grid(1)
        if i < out.shape[0]:
            log_sum = figures[rows.LOG_SUM, i]
            out[i, REFERENCE], out[i, SHARE] = figures[rows.RAW_MAXIMUM, i], zero
            out[i, SCALE], out[i, TARGET] = log_sum if logarithm else exp(-log_sum), zero

    return write_coefficients
