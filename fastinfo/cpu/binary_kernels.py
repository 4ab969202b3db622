"""Binary cross-entropies, element by element: losses, their sum, gradients.

Kernels take stretches of elements side by side. Weights are numbers, or stretches beside those.
"""

from functools import cache
from types import SimpleNamespace

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import words
from fastinfo.cpu import vmath
from fastinfo.cpu.memory import fence, loader, mask_loader, part, prefetch, store, stream
from fastinfo.cpu.simd import (
    any_of,
    bits_of_mask,
    double,
    highest_of,
    maximum,
    minimum,
    sum_of,
    where,
)
from fastinfo.engine import EXACT, formula, helper, kernel

# What is read: logits, or probabilities.
LOGITS, PROBABILITIES = "logits", "probabilities"
# Targets of which each is 0 or 1, as bits: a storage like those of arrays.
LABELS = "labels"
# Figures of a stretch: Σ of its losses, and whether what must be in [0, 1] is not.
TOTAL, OUTSIDE, FIGURES = range(3)
# Figures of targets: the lowest or 0, the highest or 1, and whether one is neither 0 nor 1.
LOWEST, HIGHEST, SOFT, TARGET_FIGURES = range(4)
# Lanes of the longest vectors.
LANES = 16


@cache
def _mathematics(arithmetic):
    """What the formula of logits needs, for vectors of an arithmetic."""
    exp2, log2e = arithmetic.exp2, arithmetic.real(1.0 / np.log(2.0))

    @helper(EXACT)
    def exp(x):
        return exp2(x * log2e)

    return SimpleNamespace(where=where, exp=exp, log1p=arithmetic.log1p)


@cache
def _element(inputs, storage, labelled):
    """The arithmetic of a kind of inputs, and its formula; perhaps that of masks of labels."""
    if inputs == PROBABILITIES:
        mathematics = vmath.lanewise
        return vmath.double, formula(formulas.binary_cross_entropy_of_probability, mathematics)
    arithmetic = vmath.STORAGE[storage][0]
    of_target, of_label = (
        formulas.binary_cross_entropy_of_logit, formulas.binary_cross_entropy_of_label,
    )  # fmt: skip
    return arithmetic, formula(of_label if labelled else of_target, _mathematics(arithmetic))


@cache
def _targets(arithmetic, storage, as_masks):
    """Return target(y, lo, hi, k): the vector y[lo + k:], as far as y[hi]; of labels the mask."""
    if storage != LABELS:
        read = vmath.reader(storage, arithmetic, 0.0)

        @helper(EXACT)
        def target(y, lo, hi, k):
            stretch = part(y, lo, hi)
            prefetch(stretch, k)
            return read(stretch, k)

        return target
    load, filled = mask_loader(arithmetic.lanes), arithmetic.filled
    if as_masks:
        return helper(EXACT)(lambda y, lo, hi, k: load(y, lo + k, hi - lo - k))
    return helper(EXACT)(
        lambda y, lo, hi, k: where(load(y, lo + k, hi - lo - k), filled(1.0), filled(0.0))
    )


@cache
def _pos_weight(arithmetic, storage):
    """Return weight(array, k, number): array[k:], or the number where there is no array."""
    real = arithmetic.real
    if storage is None:
        return helper(EXACT)(lambda array, k, number: real(number))
    read = vmath.reader(storage, arithmetic, 0.0)
    return helper(EXACT)(lambda array, k, number: read(array, k))


@cache
def _weighted(arithmetic, storage):
    """Return weighted(v, array, k, number): v number, or v array[k:] / number.

    Shares are taken in float64, where weights may be far from 1. What has weight 0 is 0.
    """
    real, convert = arithmetic.real, arithmetic.convert
    if storage is None:
        return helper(EXACT)(lambda v, array, k, number: v * real(number))
    load, widen = loader(arithmetic.lanes), vmath.widener(storage)

    @helper(EXACT)
    def by_array(v, array, k, number):
        w = double(widen(load(array, k, 0)))
        return where(w == 0.0, 0.0, v * convert(w / number))

    return by_array


@cache
def _rotated(lanes):
    """Return rotated(v, n, room): the lanes of v from lane n on, then those before it."""
    load = loader(lanes)

    @helper(EXACT)
    def rotated(v, n, room):
        store(room, 0, v)
        store(room, lanes, v)
        return load(room, n, 0.0)

    return rotated


@cache
def losses(inputs, storage, y_storage, pos_storage, sample_storage, each, gradient):
    """Kernel: losses of a stretch of elements; its figures, and with `each` the losses themselves.

    With `gradient` their derivatives are written too; that may be where the inputs are.
    """
    # Weights in an array may be 0, which not even an infinite loss outweighs.
    as_masks = y_storage == LABELS and inputs == LOGITS and pos_storage is None
    arithmetic, element = _element(inputs, storage, as_masks)
    lanes, filled = arithmetic.lanes, arithmetic.filled
    item = np.dtype(words(storage)).itemsize
    beyond = -np.inf if inputs == LOGITS else 0.0  # with y = 0 an element that counts nothing
    read = vmath.reader(storage, arithmetic, beyond)
    target = _targets(arithmetic, y_storage, as_masks)
    pos_weight = _pos_weight(arithmetic, pos_storage)
    weighted = _weighted(arithmetic, sample_storage)
    own, narrow = vmath.STORAGE[storage][0].convert, vmath.narrower(storage)
    rotated = _rotated(lanes)
    probabilities, in_doubt = inputs == PROBABILITIES, y_storage != LABELS

    @kernel(inputs, storage, y_storage, pos_storage, sample_storage, each, gradient)
    def read_and_write(
        x, y, pos, sample, pos_number, number, losses, out, streamed, rotation, figures
    ):
        total, lowest, highest = double(filled(0.0)), filled(0.0), filled(0.0)
        # Streaming stores go to multiples of a vector's size: what is before the first comes apart.
        # The sum is the same wherever `out` is: lane i has the elements i, i + lanes, ... in order.
        head = -out.ctypes.data // item % lanes if streamed else 0
        head = head if head < x.size else x.size
        for lo, hi in ((0, head), (head, x.size)):
            if lo == head:
                total = rotated(total, head, rotation)
            bx, bl, o = part(x, lo, hi), part(losses, lo, hi), part(out, lo, hi)
            bp, bs = part(pos, lo, hi), part(sample, lo, hi)
            for k in range(0, bx.size, lanes):
                prefetch(bx, k)
                v, t = read(bx, k), target(y, lo, hi, k)
                if in_doubt:
                    lowest, highest = minimum(t, lowest), maximum(t, highest)
                if probabilities:
                    lowest, highest = minimum(v, lowest), maximum(v, highest)
                loss, slope = element(v, t, pos_weight(bp, k, pos_number))
                loss = weighted(loss, bs, k, number)
                total += double(loss)
                if each:
                    store(bl, k, own(loss))
                if gradient:
                    g = narrow(own(weighted(slope, bs, k, number)))
                    if streamed and lo == head and k + lanes <= bx.size:
                        stream(o, k, g)
                    else:
                        store(o, k, g)
        figures[TOTAL] = sum_of(rotated(total, lanes - head, rotation))
        figures[OUTSIDE] = 1.0 if any_of((lowest < 0.0) | (highest > 1.0)) else 0.0
        fence()

    return read_and_write


@cache
def labels(storage):
    """Kernel: targets as bits, as many in a word as a vector has lanes; and their figures."""
    arithmetic = vmath.STORAGE[storage][0]
    read, filled, lanes = (
        vmath.reader(storage, arithmetic, 0.0),
        arithmetic.filled,
        arithmetic.lanes,
    )

    @kernel(storage)
    def pack_labels(y, words, figures):
        zero, one = filled(0.0), filled(1.0)
        lowest, highest, soft = zero, one, zero != zero
        for n in range(words.size):
            k = n * lanes
            prefetch(y, k)
            t = read(y, k)
            lowest, highest = minimum(t, lowest), maximum(t, highest)
            is_one = t == one
            words[n] = bits_of_mask(is_one)
            soft = soft | (t != where(is_one, one, zero))
        figures[LOWEST], figures[HIGHEST] = -highest_of(-lowest), highest_of(highest)
        figures[SOFT] = 1.0 if any_of(soft) else 0.0

    return pack_labels


@cache
def integer_labels(dtype):
    """Kernel: the same of integers; their figures are those of 0 and 1, or of what is neither."""
    load = loader(LANES)

    @kernel(dtype)
    def pack_integers(y, words, figures):
        others = 0
        for n in range(words.size):
            prefetch(y, n * LANES)
            t = load(y, n * LANES, 0)
            is_one = t == 1
            words[n] = bits_of_mask(is_one)
            others |= bits_of_mask(is_one | (t == 0)) ^ 0xFFFF
        figures[LOWEST], figures[HIGHEST] = 0.0, 2.0 if others else 1.0
        figures[SOFT] = 1.0 if others else 0.0

    return pack_integers
