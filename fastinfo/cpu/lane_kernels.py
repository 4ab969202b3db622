"""Rows side by side: a vector holds one class of many rows.

What a row of few classes costs by itself, sums across lanes, branches, half-filled vectors, is then
shared by as many rows as a vector has lanes. Rows that lie beside each other (images, one value of
each class a pixel) are read where they are, others turned around on the way. The state of a row is
that of `row_state_kernels.py`, finished in the lanes; it is never merged.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import words
from fastinfo.cpu import row_state_kernels as rows
from fastinfo.cpu import vmath
from fastinfo.cpu.gradient_kernels import COEFFICIENTS, REFERENCE, SCALE, SHARE, TARGET, entries
from fastinfo.cpu.memory import LINE, fence, loader, part, row_of, store, stream
from fastinfo.cpu.row_kernels import FIGURES
from fastinfo.cpu.simd import absolute, double, flush_subnormals, maximum, restore, where
from fastinfo.engine import formula, helper, kernel

_loss, _softmax_entropy, _logsumexp, _gradient, _entropy_gradient = (
    formula(function, vmath.lanewise)
    for function in (
        formulas.softmax_cross_entropy, formulas.softmax_entropy, formulas.logsumexp,
        formulas.softmax_gradient, formulas.entropy_gradient,
    )
)  # fmt: skip
_log1p = vmath.lanewise.log1p

# Ways in which classes are weighed by soft targets.
SOFT = ("rows", "weighted_rows")
# Classes whose sums are of float32: an eighth less of the time than of float64 ones.
STEPS = 32


class Room(NamedTuple):
    """Room for a vector of rows.

    It is for the classes of their logits and of their soft targets, class weights of their targets,
    coefficients of their gradients, and the entries of these that are put in their places singly.
    """

    x: np.ndarray
    y: np.ndarray
    own_weights: np.ndarray
    coefficients: np.ndarray
    tile: np.ndarray

    @classmethod
    def of(cls, variant, width, into=""):
        """Return room for rows of `width` classes, and for their gradients in a storage type."""
        arithmetic = rows.arithmetic_of(*variant)
        real, lanes = arithmetic.real, arithmetic.lanes
        soft = width if variant[2] in SOFT else 0
        return cls(
            np.empty(width * lanes, real), np.empty(soft * lanes, real), np.empty(lanes),
            np.empty(COEFFICIENTS * lanes, real),
            np.empty(width * lanes if into else 0, words(into or variant[0])),
        )  # fmt: skip


@helper
def first_vector(starts, lanes, least):
    """How many rows the first vector has, and whether they begin one element after the other.

    It has those that do, unless they are fewer than `least`.
    """
    most, n = min(lanes, starts.size), 1
    while n < most and starts[n] == starts[0] + n:
        n += 1
    if n >= least or n == most:
        return n, True
    return most, False


@helper
def are_beside(starts):
    """Whether rows begin one element after the other."""
    return first_vector(starts, starts.size, 1)[0] == starts.size


@cache
def gatherer(storage, arithmetic):
    """Return gather(x, starts, beside, step, width, into): class k of some rows as vector k.

    Lanes beyond the last row are 0, or repeat that.
    """
    load, real, lanes = vmath.STORAGE[storage][1], arithmetic.real, arithmetic.lanes
    read = vmath.reader(storage, arithmetic, 0.0)

    @helper(inline=False)
    def gather(x, starts, beside, step, width, into):
        at, n = starts[0], starts.size
        if beside:
            for k in range(width):
                store(into, k * lanes, read(part(x, at, at + n), 0))
                at += step
            return
        for j in range(lanes):
            at = starts[j if j < n else n - 1]
            for k in range(width):
                into[k * lanes + j] = real(load(part(x, at, at + 1)[0]))
                at += step

    return gather


@cache
def class_reader(arithmetic):
    """Return classes(targets): the classes of a vector of rows as floats, -1 beyond the last."""
    read, convert = loader(arithmetic.lanes), arithmetic.of_integer

    @helper
    def classes(targets):
        return convert(read(targets, 0, -1))

    return classes


@cache
def _weight(weights, arithmetic):
    """c of class k of a vector of rows, from their soft targets y and the class weights w."""
    filled, real, lanes = arithmetic.filled, arithmetic.real, arithmetic.lanes
    read = loader(lanes)

    @helper
    def y_from(y, k):
        return read(y, k * lanes, 0.0)

    @helper
    def w_from(w, k):
        return filled(real(w[k]))

    return rows.weight_from(weights, arithmetic, y_from, w_from)


@cache
def _sums(softcap, weights, arithmetic):
    """Maxima of a vector of rows, their sums measured from them, and the logits of the targets.

    The sums are in float64, the first of them without the maximal term.
    """
    real, exp2, lanes, filled = (
        arithmetic.real, arithmetic.exp2, arithmetic.lanes, arithmetic.filled,
    )  # fmt: skip
    read, z_of = loader(lanes), rows.shape(arithmetic, softcap)
    weight = _weight(weights, arithmetic)
    linear, entropy = weights not in rows.UNWEIGHTED, weights == rows.ENTROPY_WAY
    zero, one, lowest = real(0), real(1), real(-np.inf)

    @helper
    def add(x, y, w, target, lo, hi, m, z, target_logit, given):
        """What the classes [lo, hi) add to the sums, and the targets' logits if among them."""
        cap, inner, scale, alpha, beta = given
        none = filled(zero)
        total, ties, e_sum, a, c_sum = none, none, none, none, none
        for k in range(lo, hi):
            v = read(x, k * lanes, lowest)
            d = z_of(v, cap, inner)[0] - z
            is_top = v == m
            e = where(is_top, zero, exp2(d * scale))
            total += e
            ties += where(is_top, one, zero)
            target_logit = where(target == real(k), v, target_logit)
            if entropy:
                e_sum += where(e > zero, e * d, zero)
            if linear:
                c = weight(y, w, k, alpha, beta)
                a += where(c == zero, zero, c * d)
                c_sum += c
        return total, ties, e_sum, a, c_sum, target_logit

    @helper(inline=False)
    def sums(x, y, w, target, width, option):
        cap, inner = real(option[rows.CAP]), real(option[rows.INNER])
        given = (
            cap, inner, real(option[rows.LOG2_SCALE]), real(option[rows.ALPHA]),
            real(option[rows.BETA]),
        )  # fmt: skip
        m = filled(lowest)
        for k in range(width):
            m = maximum(read(x, k * lanes, lowest), m)
        z, target_logit = z_of(m, cap, inner)[0], m
        none = double(filled(zero))
        rest, ties, e_sum, a, c_sum = none, none - 1.0, none, none, none
        for lo in range(0, width, STEPS):
            hi = min(lo + STEPS, width)
            total, equal, e, ab, cb, target_logit = add(
                x, y, w, target, lo, hi, m, z, target_logit, given
            )
            rest, ties = rest + double(total), ties + double(equal)
            e_sum, a, c_sum = e_sum + double(e), a + double(ab), c_sum + double(cb)
        return m, rest + ties, e_sum, a, c_sum, target_logit

    return sums


@cache
def _positions(arithmetic, ranks):
    """Class of the maximum of a vector of rows, or of the first NaN if any, and the target's rank.

    As NumPy does, of equals the first counts, and NaNs are above all numbers.
    """
    real, lanes, filled = arithmetic.real, arithmetic.lanes, arithmetic.filled
    read, zero, one, lowest = loader(lanes), real(0), real(1), real(-np.inf)

    @helper(inline=False)
    def positions(x, target, target_logit, width):
        top, position, nan_at, rank = filled(lowest), filled(zero), filled(-one), filled(zero)
        for k in range(width):
            v, at = read(x, k * lanes, lowest), real(k)
            is_higher, is_nan, before = v > top, v != v, target > at
            top, position = where(is_higher, v, top), where(is_higher, at, position)
            nan_at = where(is_nan & (nan_at < zero), at, nan_at)
            if ranks:
                counts = (v > target_logit) | ((v == target_logit) & before)
                counts = counts | (is_nan & (before | (target_logit == target_logit)))
                rank += where(counts, one, zero)
        return where(nan_at < zero, position, nan_at), nan_at >= zero, rank

    return positions


@cache
def _target_terms(softcap, lanes):
    """z of the maximum, its gap to the target's, and dz/dx there times the temperature."""
    z_of = rows.shape(vmath.with_lanes(vmath.double, lanes), softcap)

    @helper
    def terms(m, target_logit, option):
        z, _ = z_of(m, option[rows.CAP], option[rows.INNER])
        z_target, slope = z_of(target_logit, option[rows.CAP], option[rows.INNER])
        return z, (z - z_target) * option[rows.INVERSE_TEMPERATURE], slope

    return terms


@cache
def _value(softcap, weights, lanes):
    """What is asked for of a vector of rows, in float64."""
    terms = _target_terms(softcap, lanes)

    @helper
    def nothing(state, own_weight, weight, option):
        return weight

    @helper
    def logsumexp(state, own_weight, weight, option):
        m, rest, _, _, _, _ = state
        return _logsumexp(m * option[rows.INVERSE_TEMPERATURE], _log1p(rest))

    @helper
    def entropy(state, own_weight, weight, option):
        _, rest, e, _, _, _ = state
        return weight * _softmax_entropy(rest, e, option[rows.INVERSE_TEMPERATURE])

    @helper
    def loss(state, own_weight, weight, option):
        m, rest, _, a, c, target_logit = state
        (z, gap, _), inverse_t = terms(m, target_logit, option), option[rows.INVERSE_TEMPERATURE]
        return weight * _loss(
            _log1p(rest), z * inverse_t, gap, option[rows.ALPHA] * own_weight, a, c,
            option[rows.Z_LOSS], inverse_t,
        )  # fmt: skip

    others = {
        rows.SOFTMAX_WAY: nothing, rows.LOG_SOFTMAX_WAY: nothing, rows.ENTROPY_WAY: entropy,
        rows.LOGSUMEXP_WAY: logsumexp,
    }  # fmt: skip
    return others.get(weights, loss)


@cache
def _coefficients(softcap, weights, lanes):
    """Reference, scale, share and target's entry of the gradients of a vector, in float64."""
    terms = _target_terms(softcap, lanes)

    @helper
    def of_softmax(state, own_weight, weight, option):
        m, rest, _, _, _, _ = state
        return m, 1.0 / (1.0 + rest), m, m

    @helper
    def of_log_softmax(state, own_weight, weight, option):
        m, rest, _, _, _, _ = state
        return m, -_log1p(rest), m * 0.0 + option[rows.INVERSE_TEMPERATURE], m

    @helper
    def of_entropy(state, own_weight, weight, option):
        (m, rest, e, _, _, _), inverse_t = state, option[rows.INVERSE_TEMPERATURE]
        entropy = _softmax_entropy(rest, e, inverse_t)
        return m, *_entropy_gradient(_log1p(rest), entropy, weight, inverse_t), m

    @helper
    def of_loss(state, own_weight, weight, option):
        m, rest, _, _, c, target_logit = state
        z, gap, slope = terms(m, target_logit, option)
        share = weight * option[rows.SLOPE]
        scale, entry = _gradient(
            _log1p(rest), rest, z * option[rows.INVERSE_TEMPERATURE], gap, target_logit == m,
            option[rows.ALPHA] * own_weight, option[rows.BETA] * own_weight, c,
            option[rows.Z_LOSS], share, slope,
        )  # fmt: skip
        return z, scale, share, entry

    others = {
        rows.SOFTMAX_WAY: of_softmax, rows.LOG_SOFTMAX_WAY: of_log_softmax,
        rows.ENTROPY_WAY: of_entropy,
    }  # fmt: skip
    return others.get(weights, of_loss)


@cache
def vector_reader(storage, softcap, weights, soft, gradient):
    """Read a vector of rows: what is asked for, and the coefficients of the gradients if any."""
    arithmetic = rows.arithmetic_of(storage, softcap, weights, soft)
    real, lanes = arithmetic.real, arithmetic.lanes
    gather, gather_soft = gatherer(storage, arithmetic), gatherer(soft, arithmetic)
    sums, value_of = _sums(softcap, weights, arithmetic), _value(softcap, weights, lanes)
    coefficients_of = _coefficients(softcap, weights, lanes)
    classes, load, convert = class_reader(arithmetic), loader(lanes), arithmetic.convert
    filled, infinity, nan = vmath.with_lanes(vmath.double, lanes).filled, real(np.inf), real(np.nan)

    @helper
    def weights_of_targets(w, target, targets, own):
        """Weights of the targets' classes, 0 where there is none."""
        if not w.size:
            return where(target >= real(0), filled(1.0), filled(0.0))
        for j in range(lanes):
            own[j] = w[targets[j]] if j < targets.size and targets[j] >= 0 else 0.0
        return load(own, 0, 0.0)

    @helper
    def read_vector(
        x, starts, beside, step, width, y, y_starts, y_step, w, targets, active, option, losses,
        room,
    ):  # fmt: skip
        gather(x, starts, beside, step, width, room.x)
        if weights in SOFT:
            gather_soft(y, y_starts, are_beside(y_starts), y_step, width, room.y)
        target, weight = classes(targets), load(active, 0, 0.0)
        m, rest, e, a, c, target_logit = sums(room.x, room.y, w, target, width, option)
        if weights == rows.LOGSUMEXP_WAY:  # an infinite maximum is the result, but for a NaN
            m = where(rest == rest, m, nan)
        else:
            rest = where(absolute(m) < infinity, rest, np.nan)
        state = double(m), rest, e, a, c, double(target_logit)
        own_weight = weights_of_targets(w, target, targets, room.own_weights)
        value = value_of(state, own_weight, weight, option)
        store(losses, 0, where(weight != 0.0, value, 0.0))
        if gradient:
            reference, scale, share, entry = coefficients_of(state, own_weight, weight, option)
            store(room.coefficients, REFERENCE * lanes, convert(reference))
            store(room.coefficients, SCALE * lanes, convert(scale))
            store(room.coefficients, SHARE * lanes, convert(share))
            store(room.coefficients, TARGET * lanes, convert(entry))

    return read_vector


@cache
def placer(into, lanes):
    """Write one class of a vector of rows; and put the classes of a tile in their places singly."""
    convert, narrow = vmath.STORAGE[into][0].convert, vmath.narrower(into)
    lines = lanes * words(into).itemsize == LINE

    @helper
    def place(out, at, n, g, streamed):
        target, g = part(out, at, at + n), narrow(convert(g))
        if lines and streamed and n == lanes and target.ctypes.data % LINE == 0:
            stream(target, 0, g)
        else:
            store(target, 0, g)

    @helper
    def put_singly(tile, width, out, starts, step):
        for j in range(starts.size):
            at = starts[j]
            for k in range(width):
                part(out, at, at + 1)[0] = tile[k * lanes + j]
                at += step

    return place, put_singly


@cache
def vector_writer(storage, softcap, weights, soft, into):
    """Write the gradients of a vector of rows whose classes and coefficients are in the room."""
    arithmetic = rows.arithmetic_of(storage, softcap, weights, soft)
    real, lanes, zero = arithmetic.real, arithmetic.lanes, arithmetic.real(0)
    entry_of, weight_of = entries(softcap, weights, arithmetic), _weight(weights, arithmetic)
    read, classes = loader(lanes), class_reader(arithmetic)
    place, put_singly = placer(into, lanes)

    @helper(inline=False)
    def emit(width, w, targets, active, option, out, at, n, step, streamed, room):
        alpha, beta = real(option[rows.ALPHA]), real(option[rows.BETA])
        given = (
            read(room.coefficients, REFERENCE * lanes, 0.0),
            read(room.coefficients, SCALE * lanes, 0.0),
            read(room.coefficients, SHARE * lanes, 0.0), real(option[rows.LOG2_SCALE]),
            real(option[rows.CAP]), real(option[rows.INNER]),
        )  # fmt: skip
        entry, target = read(room.coefficients, TARGET * lanes, 0.0), classes(targets)
        counts = read(active, 0, 0.0) != 0.0
        for k in range(width):
            c = weight_of(room.y, w, k, alpha, beta)
            g = entry_of(read(room.x, k * lanes, 0.0), c, *given)
            g = where(counts, where(target == real(k), entry, g), zero)
            place(out, at, n, g, streamed)
            at += step

    @helper
    def write_vector(width, w, targets, active, option, out, starts, step, streamed, room):
        n = starts.size
        if are_beside(starts):
            emit(width, w, targets, active, option, out, starts[0], n, step, streamed, room)
            return
        emit(width, w, targets, active, option, room.tile, 0, lanes, lanes, False, room)
        put_singly(room.tile, width, out, starts, step)

    return write_vector


# --- kernels -------------------------------------------------------------------------------------


@kernel
def losses(storage, softcap, weights, soft, into):
    """Kernel: what is asked for of rows whose classes are `step` apart.

    If `into` is named, the gradients as well, or whatever is a vector a class. Rows are a vector if
    at least `least` lie beside each other, else turned around.
    """
    read_vector = vector_reader(storage, softcap, weights, soft, bool(into))
    write_vector: Any = vector_writer(storage, softcap, weights, soft, into) if into else None
    lanes = rows.arithmetic_of(storage, softcap, weights, soft).lanes
    of_soft = weights in SOFT

    def read_rows(
        x, starts, step, width, y, y_starts, y_step, w, targets, active, option, losses, room,
        least, out, out_starts, out_step, streamed,
    ):  # fmt: skip
        floats = flush_subnormals()
        lo, count = 0, starts.size
        while lo < count:
            n, beside = first_vector(part(starts, lo, count), lanes, least)
            hi = lo + n
            own_targets, own_active = part(targets, lo, hi), part(active, lo, hi)
            read_vector(
                x, part(starts, lo, hi), beside, step, width,
                y, part(y_starts, lo, hi) if of_soft else y_starts, y_step, w,
                own_targets, own_active, option, part(losses, lo, hi), room,
            )  # fmt: skip
            if into:
                write_vector(
                    width, w, own_targets, own_active, option, out, part(out_starts, lo, hi),
                    out_step, streamed, room,
                )  # fmt: skip
            lo = hi
        fence()
        restore(floats)

    return read_rows


@kernel
def statistics(storage, softcap, ranks):
    """Kernel: the figures of rows (see `row_kernels`), one row of `figures` a figure."""
    weights = rows.ENTROPY_WAY
    arithmetic = rows.arithmetic_of(storage, softcap, weights, "float32")
    lanes, real = arithmetic.lanes, arithmetic.real
    gather, classes = gatherer(storage, arithmetic), class_reader(arithmetic)
    sums, positions = _sums(softcap, weights, arithmetic), _positions(arithmetic, ranks)
    terms, nan = _target_terms(softcap, lanes), np.nan

    @helper
    def figures_of(x, unread, targets, width, option):
        """`unread` are soft targets and weights of classes, which an entropy has none of."""
        target = classes(targets)
        m, rest, e, _, _, target_logit = sums(x, unread, unread, target, width, option)
        position, has_nan, rank = positions(x, target, target_logit, width)
        m, known = double(where(has_nan, real(nan), m)), double(target) >= 0.0
        inverse_t = option[rows.INVERSE_TEMPERATURE]
        rest = where(absolute(m) < np.inf, rest, nan)
        z, gap, _ = terms(m, double(target_logit), option)
        log_sum = _log1p(rest)
        return (
            z * inverse_t, log_sum, _logsumexp(z * inverse_t, log_sum),
            _softmax_entropy(rest, e, inverse_t), double(position),
            where(known, -(log_sum + gap), nan), where(known, double(rank), -1.0), m,
        )  # fmt: skip

    def read_statistics(x, starts, step, width, targets, option, room, least, figures):
        floats = flush_subnormals()
        lo, count = 0, starts.size
        while lo < count:
            n, beside = first_vector(part(starts, lo, count), lanes, least)
            hi = lo + n
            gather(x, part(starts, lo, hi), beside, step, width, room.x)
            found = figures_of(room.x, room.own_weights, part(targets, lo, hi), width, option)
            for number in range(FIGURES):
                store(part(row_of(figures, number), lo, hi), 0, found[number])
            lo = hi
        restore(floats)

    return read_statistics
