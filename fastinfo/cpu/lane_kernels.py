"""Rows side by side: a vector holds one class of many rows.

What a row of few classes costs by itself, sums across lanes, branches, half-filled vectors, is then
shared by as many rows as a vector has lanes. Rows that lie beside each other (images, one value of
each class a pixel) are read where they are, others turned around on the way. The state of a row is
that of `row_state_kernels.py`, finished in the lanes; it is never merged.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import words
from fastinfo.cpu import row_state_kernels as rows
from fastinfo.cpu import vmath
from fastinfo.cpu.gradient_kernels import COEFFICIENTS, REFERENCE, SCALE, SHARE, TARGET, entries
from fastinfo.cpu.memory import LINE, fence, loader, part, store, stream
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
# Rows beside each other that are a vector, however short: fewer are turned around one by one.
BESIDE = 4
# Classes whose sums are of float32: an eighth of the time of float64 ones.
STEPS = 32


class Room(NamedTuple):
    """Room for a vector of rows.

    It is for the classes of their logits and of their soft targets, class weights of their targets,
    coefficients of their gradients, and the entries of these that are put in their places singly.
    """

    x: np.ndarray
    y: np.ndarray
    class_weights: np.ndarray
    coefficients: np.ndarray
    tile: np.ndarray

    @classmethod
    def of(cls, variant, into, width):
        """Return room for rows of `width` classes."""
        arithmetic = rows.arithmetic_of(*variant)
        real, lanes = arithmetic.real, arithmetic.lanes
        return cls(
            np.empty(width * lanes, real), np.empty(width * lanes, real), np.empty(lanes),
            np.empty(COEFFICIENTS * lanes, real), np.empty(width * lanes, words(into)),
        )  # fmt: skip


@helper
def are_beside(starts):
    """Whether rows begin one element after the other."""
    for j in range(1, starts.size):
        if starts[j] != starts[0] + j:
            return False
    return True


@cache
def first_vector(lanes):
    """Return first(starts): how many of some rows are the first vector, those beside each other."""

    @helper
    def first(starts):
        most, n = min(lanes, starts.size), 1
        while n < most and starts[n] == starts[0] + n:
            n += 1
        return n if n >= BESIDE else most

    return first


@cache
def gatherer(storage, arithmetic):
    """Return gather(x, starts, step, width, into): class k of some rows as the k-th vector.

    Lanes beyond the last row are 0, or repeat that.
    """
    load, real, lanes = vmath.STORAGE[storage][1], arithmetic.real, arithmetic.lanes
    read = vmath.reader(storage, arithmetic, 0.0)

    @helper(inline=False)
    def gather(x, starts, step, width, into):
        at, n = starts[0], starts.size
        if are_beside(starts):
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
def _finisher(softcap, weights, lanes, gradient):
    """What is asked for of a vector of rows, and the coefficients of the gradients, in float64."""
    z_of = rows.shape(vmath.with_lanes(vmath.double, lanes), softcap)

    @helper
    def loss_of(m, rest, log_sum, a, c, target_logit, class_weight, weight, option):
        inverse_t, z_loss = option[rows.INVERSE_TEMPERATURE], option[rows.Z_LOSS]
        z, _ = z_of(m, option[rows.CAP], option[rows.INNER])
        z_target, slope = z_of(target_logit, option[rows.CAP], option[rows.INNER])
        gap, offset = (z - z_target) * inverse_t, z * inverse_t
        own, smoothed = option[rows.ALPHA] * class_weight, option[rows.BETA] * class_weight
        loss = weight * _loss(log_sum, offset, gap, own, a, c, z_loss, inverse_t)
        if not gradient:
            return loss, z, z, z, z
        share = weight * option[rows.SLOPE]
        scale, entry = _gradient(
            log_sum, rest, offset, gap, target_logit == m, own, smoothed, c, z_loss, share, slope
        )
        return loss, z, scale, share, entry

    @helper
    def entropy_of(m, rest, log_sum, e, weight, inverse_t):
        entropy = _softmax_entropy(rest, e, inverse_t)
        if not gradient:
            return weight * entropy, m, m, m, m
        return weight * entropy, m, *_entropy_gradient(log_sum, entropy, weight, inverse_t), m

    @helper
    def finish(m, rest, e, a, c, target_logit, class_weight, weight, option):
        inverse_t, log_sum = option[rows.INVERSE_TEMPERATURE], _log1p(rest)
        if weights == rows.ENTROPY_WAY:
            return entropy_of(m, rest, log_sum, e, weight, inverse_t)
        if weights == rows.LOGSUMEXP_WAY:
            return _logsumexp(m * inverse_t, log_sum), m, m, m, m
        if weights == rows.SOFTMAX_WAY:
            return m, m, 1.0 / (1.0 + rest), m, m
        if weights == rows.LOG_SOFTMAX_WAY:
            return m, m, -log_sum, m * 0.0 + inverse_t, m
        return loss_of(m, rest, log_sum, a, c, target_logit, class_weight, weight, option)

    return finish


@cache
def vector_reader(storage, softcap, weights, soft, gradient):
    """Read a vector of rows: what is asked for, and the coefficients of their gradients."""
    arithmetic = rows.arithmetic_of(storage, softcap, weights, soft)
    real, lanes = arithmetic.real, arithmetic.lanes
    gather, gather_soft = gatherer(storage, arithmetic), gatherer(soft, arithmetic)
    sums, finish = _sums(softcap, weights, arithmetic), _finisher(softcap, weights, lanes, gradient)
    classes, load, convert = class_reader(arithmetic), loader(lanes), arithmetic.convert
    infinity, nan = real(np.inf), real(np.nan)

    @helper
    def weights_of_targets(w, target, targets, own):
        """Weights of the targets' classes, 0 where there is none."""
        if not w.size:
            return where(target >= real(0), 1.0, double(target) * 0.0)
        for j in range(lanes):
            own[j] = w[targets[j]] if j < targets.size and targets[j] >= 0 else 0.0
        return load(own, 0, 0.0)

    @helper
    def read_vector(
        x, starts, step, width, y, y_starts, y_step, w, targets, active, option, losses, room
    ):
        gather(x, starts, step, width, room.x)
        if weights in SOFT:
            gather_soft(y, y_starts, y_step, width, room.y)
        target, weight = classes(targets), load(active, 0, 0.0)
        m, rest, e, a, c, target_logit = sums(room.x, room.y, w, target, width, option)
        if weights == rows.LOGSUMEXP_WAY:
            m = where(rest == rest, m, nan)
        else:
            rest = where(absolute(m) < infinity, rest, np.nan)
        loss, reference, scale, share, entry = finish(
            double(m), rest, e, a, c, double(target_logit),
            weights_of_targets(w, target, targets, room.class_weights), weight, option,
        )  # fmt: skip
        store(losses, 0, where(weight != 0.0, loss, 0.0))
        if gradient:
            store(room.coefficients, REFERENCE * lanes, convert(reference))
            store(room.coefficients, SCALE * lanes, convert(scale))
            store(room.coefficients, SHARE * lanes, convert(share))
            store(room.coefficients, TARGET * lanes, convert(entry))

    return read_vector


@cache
def vector_writer(storage, softcap, weights, soft, into):
    """Write the gradients of a vector of rows whose classes and coefficients are in the room."""
    arithmetic = rows.arithmetic_of(storage, softcap, weights, soft)
    real, lanes = arithmetic.real, arithmetic.lanes
    entry_of, weight_of = entries(softcap, weights, arithmetic), _weight(weights, arithmetic)
    read, classes = loader(lanes), class_reader(arithmetic)
    convert, narrow = vmath.STORAGE[into][0].convert, vmath.narrower(into)
    zero, lines = real(0), lanes * words(into).itemsize == LINE

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
            place, g = part(out, at, at + n), narrow(convert(g))
            if lines and streamed and n == lanes and place.ctypes.data % LINE == 0:
                stream(place, 0, g)
            else:
                store(place, 0, g)
            at += step

    @helper
    def write_vector(width, w, targets, active, option, out, starts, step, streamed, room):
        if are_beside(starts):
            n = starts.size
            emit(width, w, targets, active, option, out, starts[0], n, step, streamed, room)
            return
        emit(width, w, targets, active, option, room.tile, 0, lanes, lanes, False, room)
        for j in range(starts.size):
            at = starts[j]
            for k in range(width):
                part(out, at, at + 1)[0] = room.tile[k * lanes + j]
                at += step

    return write_vector


# --- kernels -------------------------------------------------------------------------------------


@kernel
def losses(storage, softcap, weights, soft):
    """Kernel: what is asked for of rows whose classes are `step` apart."""
    read_vector = vector_reader(storage, softcap, weights, soft, False)
    first = first_vector(rows.arithmetic_of(storage, softcap, weights, soft).lanes)
    of_soft = weights in SOFT

    def read_rows(
        x, starts, step, width, y, y_starts, y_step, w, targets, active, option, losses, room
    ):
        floats = flush_subnormals()
        lo, count = 0, starts.size
        while lo < count:
            hi = lo + first(part(starts, lo, count))
            read_vector(
                x, part(starts, lo, hi), step, width,
                y, part(y_starts, lo, hi) if of_soft else y_starts, y_step, w,
                part(targets, lo, hi), part(active, lo, hi), option, part(losses, lo, hi), room,
            )  # fmt: skip
            lo = hi
        restore(floats)

    return read_rows


@kernel
def losses_and_gradients(storage, softcap, weights, soft, into):
    """Kernel: the same, and the gradients or whatever is a vector a class."""
    read_vector = vector_reader(storage, softcap, weights, soft, True)
    write_vector = vector_writer(storage, softcap, weights, soft, into)
    first = first_vector(rows.arithmetic_of(storage, softcap, weights, soft).lanes)
    of_soft = weights in SOFT

    def read_and_write_rows(
        x, starts, step, width, y, y_starts, y_step, w, targets, active, option, losses,
        out, out_starts, out_step, streamed, room,
    ):  # fmt: skip
        floats = flush_subnormals()
        lo, count = 0, starts.size
        while lo < count:
            hi = lo + first(part(starts, lo, count))
            own_targets, own_active = part(targets, lo, hi), part(active, lo, hi)
            read_vector(
                x, part(starts, lo, hi), step, width,
                y, part(y_starts, lo, hi) if of_soft else y_starts, y_step, w,
                own_targets, own_active, option, part(losses, lo, hi), room,
            )  # fmt: skip
            write_vector(
                width, w, own_targets, own_active, option, out, part(out_starts, lo, hi), out_step,
                streamed, room,
            )  # fmt: skip
            lo = hi
        fence()
        restore(floats)

    return read_and_write_rows
