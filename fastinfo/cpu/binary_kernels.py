"""Binary cross-entropies, element by element: losses, their sum, gradients.

Kernels take stretches of elements side by side. Weights are numbers, or stretches beside those.
"""

from functools import cache
from types import SimpleNamespace

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import words
from fastinfo.cpu import vmath
from fastinfo.cpu.memory import fence, loader, part, prefetch, store, stream
from fastinfo.cpu.simd import any_of, double, maximum, minimum, sum_of, where
from fastinfo.engine import EXACT, formula, helper, kernel

# What is read: logits, or probabilities.
LOGITS, PROBABILITIES = "logits", "probabilities"
# Figures of a stretch: Σ of its losses, and whether what must be in [0, 1] is not.
TOTAL, OUTSIDE, FIGURES = range(3)
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
def _element(inputs, storage):
    """The arithmetic of a kind of inputs, and its formula."""
    if inputs == PROBABILITIES:
        mathematics = vmath.lanewise
        return vmath.double, formula(formulas.binary_cross_entropy_of_probability, mathematics)
    arithmetic = vmath.STORAGE[storage][0]
    mathematics = _mathematics(arithmetic)
    return arithmetic, formula(formulas.binary_cross_entropy_of_logit, mathematics)


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
    arithmetic, element = _element(inputs, storage)
    lanes, filled = arithmetic.lanes, arithmetic.filled
    item = np.dtype(words(storage)).itemsize
    beyond = -np.inf if inputs == LOGITS else 0.0  # with y = 0 an element that counts nothing
    read = vmath.reader(storage, arithmetic, beyond)
    read_y = vmath.reader(y_storage, arithmetic, 0.0)
    pos_weight = _pos_weight(arithmetic, pos_storage)
    weighted = _weighted(arithmetic, sample_storage)
    own, narrow = vmath.STORAGE[storage][0].convert, vmath.narrower(storage)
    rotated = _rotated(lanes)
    probabilities = inputs == PROBABILITIES

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
            bx, by, bl, o = (
                part(x, lo, hi),
                part(y, lo, hi),
                part(losses, lo, hi),
                part(out, lo, hi),
            )
            bp, bs = part(pos, lo, hi), part(sample, lo, hi)
            for k in range(0, bx.size, lanes):
                prefetch(bx, k)
                prefetch(by, k)
                v, t = read(bx, k), read_y(by, k)
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
