"""Binary cross-entropies, element by element: losses, their sum, gradients.

Kernels take stretches of elements side by side. Weights are numbers, or stretches beside those.
"""

from functools import cache
from types import SimpleNamespace

import numpy as np

from fastinfo import formulas
from fastinfo.cpu import vmath
from fastinfo.cpu.gradient_kernels import placer
from fastinfo.cpu.memory import (
    fence,
    loader,
    mask_loader,
    part,
    prefetch,
    prefetcher,
    row_of,
    store,
)
from fastinfo.cpu.simd import (
    AVX512,
    ZEN,
    any_of,
    apart,
    bits_of_mask,
    double,
    flush_subnormals,
    highest_of,
    maximum,
    minimum,
    restore,
    sum_of,
    where,
)
from fastinfo.engine import formula, helper, kernel

# What is read: logits, or probabilities.
LOGITS, PROBABILITIES = "logits", "probabilities"
# Targets of which each is 0 or 1, as bits: a storage like those of arrays.
LABELS = "labels"
# Figures of a piece: Σ of its losses, and whether what must be in [0, 1] is not.
TOTAL, OUTSIDE, FIGURES = range(3)
# Figures of targets: the lowest or 0, the highest or 1, and whether one is neither 0 nor 1.
LOWEST, HIGHEST, SOFT, TARGET_FIGURES = range(4)
# No weight of the positive class, as a storage of such weights.
ONE = "one"
# Lanes of a vector of labels, and of the longest vectors.
LANES, MOST_LANES = 16, 32
# Elements that are summed together, and that a thread takes at a time, at least: of float32 a
# megabyte each of x, y and the gradient.
PIECE = 1 << 18
# Elements of a block, whose float32 losses are added as they are, no more than 64 of them; blocks
# are added up in float64.
BLOCK = 1024


@cache
def _mathematics(arithmetic):
    """What the formula of logits needs, for vectors of an arithmetic."""
    exp2, log2e = arithmetic.exp2, arithmetic.real(1.0 / np.log(2.0))

    @helper
    def exp(x):
        return exp2(x * log2e)

    return SimpleNamespace(where=where, exp=exp, log1p=arithmetic.log1p)


@cache
def _arithmetic(inputs, storage, gradient=False):
    """The arithmetic of a kind of inputs; a gradient's on two registers at a time, if they do.

    With half as many steps and two chains of operations beside each other it takes 0.96 of the
    time; AVX2 has too few registers, and a Zen 4 was slower.
    """
    if inputs == PROBABILITIES:
        return vmath.double
    arithmetic = vmath.STORAGE[storage][0]
    wide = gradient and AVX512 and not ZEN
    return vmath.with_lanes(arithmetic, 2 * arithmetic.lanes) if wide else arithmetic


@cache
def _element(inputs, arithmetic, labelled):
    """The formula of a kind of inputs; perhaps that of masks of labels."""
    if inputs == PROBABILITIES:
        of_target, of_label, mathematics = (
            formulas.binary_cross_entropy_of_probability,
            formulas.binary_cross_entropy_of_probability_and_label,
            vmath.lanewise,
        )
    else:
        of_target, of_label, mathematics = (
            formulas.binary_cross_entropy_of_logit,
            formulas.binary_cross_entropy_of_label,
            _mathematics(arithmetic),
        )
    if labelled:
        return formula(of_label, mathematics)
    compiled = formula(of_target, mathematics)
    return helper(lambda v, target, pos_weight: compiled(v, target[0], target[1], pos_weight))


@cache
def _targets(arithmetic, storage, as_masks):
    """Return target(y, lo, hi, k): the vector y[lo + k:], as far as y[hi], and 1 less that.

    Of labels as masks the mask alone. What is beyond the last element counts nothing.
    """
    lanes, one = arithmetic.lanes, arithmetic.real(1)
    if storage != LABELS:
        read, ask_ahead = vmath.reader(storage, arithmetic, 0.0), prefetcher(lanes)
        finer = storage == "float64" and arithmetic.real is np.float32
        load_finer, convert = loader(lanes), arithmetic.convert

        @helper
        def target(y, lo, hi, k):
            stretch = part(y, lo, hi)
            ask_ahead(stretch, k)
            if finer:
                v = load_finer(stretch, k, 0.0)
                return convert(v), convert(1.0 - v)
            v = read(stretch, k)
            return v, one - v

        return target
    load, filled = mask_loader(lanes), arithmetic.filled
    if as_masks:
        return helper(lambda y, lo, hi, k: load(y, lo + k))

    @helper
    def label(y, lo, hi, k):
        is_one = load(y, lo + k)
        return where(is_one, filled(1.0), filled(0.0)), where(is_one, filled(0.0), filled(1.0))

    return label


@cache
def _pos_weight(arithmetic, storage):
    """Return weight(array, k, number): array[k:], or the number where there is no array."""
    real = arithmetic.real
    one = real(1)
    if storage == ONE:
        return helper(lambda array, k, number: one)
    if storage is None:
        return helper(lambda array, k, number: real(number))
    read = vmath.reader(storage, arithmetic, 0.0)
    return helper(lambda array, k, number: read(array, k))


@cache
def _weighted(arithmetic, storage):
    """Return weighted(v, array, k, number): v number, or v array[k:] / number.

    Shares are taken in float64, where weights may be far from 1. What has weight 0 is 0.
    """
    real, convert = arithmetic.real, arithmetic.convert
    if storage is None:
        return helper(lambda v, array, k, number: v * real(number))
    load, widen = loader(arithmetic.lanes), vmath.widener(storage)

    @helper
    def by_array(v, array, k, number):
        w = double(widen(load(array, k, 0)))
        return where(w == 0.0, 0.0, v * convert(w / number))

    return by_array


@cache
def _block(inputs, storage, y_storage, pos_storage, sample_storage, gradient):
    """Losses of a block of elements; the lowest and the highest of what may be out of range.

    With `gradient` their derivatives are written to `out`.
    """
    # Weights in an array may be 0, which not even an infinite loss outweighs.
    as_masks = y_storage == LABELS and pos_storage in (None, ONE)
    arithmetic = _arithmetic(inputs, storage, gradient)
    lanes, filled = arithmetic.lanes, arithmetic.filled
    element, ask_ahead = _element(inputs, arithmetic, as_masks), prefetcher(lanes)
    beyond = -np.inf if inputs == LOGITS else 0.0  # with y = 0 an element that counts nothing
    read = vmath.reader(storage, arithmetic, beyond)
    target = _targets(arithmetic, y_storage, as_masks)
    pos_weight = _pos_weight(arithmetic, pos_storage)
    weighted = _weighted(arithmetic, sample_storage)
    own, place = vmath.STORAGE[storage][0].convert, placer(storage, lanes)[1]
    probabilities, in_doubt = inputs == PROBABILITIES, y_storage != LABELS

    @helper(inline=False)
    def read_block(x, y, pos, sample, lo, hi, pos_number, number, losses, out, streamed):
        apart()
        lowest, highest = filled(0.0), filled(0.0)
        bx, o, bp, bs = part(x, lo, hi), part(out, lo, hi), part(pos, lo, hi), part(sample, lo, hi)
        for k in range(0, bx.size, lanes):
            ask_ahead(bx, k)
            v, t = read(bx, k), target(y, lo, hi, k)
            if in_doubt:
                lowest = minimum(minimum(t[0], t[1]), lowest)
            if probabilities:
                lowest, highest = minimum(v, lowest), maximum(v, highest)
            loss, slope = element(v, t, pos_weight(bp, k, pos_number))
            store(losses, k, weighted(loss, bs, k, number))
            if gradient:
                place(o, k, own(weighted(slope, bs, k, number)), streamed)
        return lowest, highest

    return read_block


@kernel
def losses(inputs, storage, y_storage, pos_storage, sample_storage, each, gradient):
    """Kernel: losses of pieces of elements; their figures, and with `each` the losses themselves.

    With `gradient` their derivatives are written too; that may be where the inputs are. Vectors
    begin where those of the gradient may be streamed; their losses go to `room` for a block and a
    vector, so that sums are the same wherever that is.
    """
    read_block = _block(inputs, storage, y_storage, pos_storage, sample_storage, gradient)
    arithmetic, vector = _arithmetic(inputs, storage), _arithmetic(inputs, storage, gradient).lanes
    filled, lanes, own = arithmetic.filled, arithmetic.lanes, vmath.STORAGE[storage][0].convert
    load, carried, head_of = loader(lanes), loader(vector), placer(storage, vector)[0]

    @helper
    def read_piece(
        x, y, pos, sample, lo, hi, pos_number, number, losses, out, streamed, room, figures
    ):
        done, total = lo + head_of(part(out, lo, hi), streamed), double(filled(0.0))
        lowest, highest = read_block(
            x, y, pos, sample, lo, done, pos_number, number, room, out, False
        )
        for begin in range(lo, hi, BLOCK):
            end = min(begin + BLOCK, hi)
            last = min(end + (done - end) % vector, hi)
            low, high = read_block(
                x, y, pos, sample, done, last, pos_number, number,
                part(room, done - begin, room.size), out, streamed,
            )  # fmt: skip
            lowest, highest, done = minimum(low, lowest), maximum(high, highest), last
            block, added = part(room, 0, end - begin), filled(0.0)
            for k in range(0, block.size, 4 * lanes):  # one after the other they would wait
                low_two = load(block, k, 0.0) + load(block, k + lanes, 0.0)
                high_two = load(block, k + 2 * lanes, 0.0) + load(block, k + 3 * lanes, 0.0)
                added += low_two + high_two
            if each:
                for k in range(0, block.size, lanes):
                    store(part(losses, begin, end), k, own(load(block, k, 0.0)))
            total += double(added)
            store(room, 0, carried(room, BLOCK, 0.0))
        figures[TOTAL] = sum_of(total)
        figures[OUTSIDE] = 1.0 if any_of((lowest < 0.0) | (highest > 1.0)) else 0.0

    def read_and_write(x, y, pos, sample, pos_number, number, losses, out, streamed, room, figures):
        floats = flush_subnormals()
        for i in range(figures.shape[0]):
            lo, hi = i * PIECE, min((i + 1) * PIECE, x.size)
            read_piece(
                x, y, pos, sample, lo, hi, pos_number, number, losses, out, streamed, room,
                row_of(figures, i),
            )  # fmt: skip
        fence()
        restore(floats)

    return read_and_write


@kernel
def labels(storage):
    """Kernel: targets as bits, as many in a word as a vector has lanes; and their figures."""
    arithmetic = vmath.STORAGE[storage][0]
    read, filled, lanes = (
        vmath.reader(storage, arithmetic, 0.0),
        arithmetic.filled,
        arithmetic.lanes,
    )

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


@kernel
def integer_labels(dtype):
    """Kernel: the same of integers; their figures are those of 0 and 1, or of what is neither."""
    load = loader(LANES)

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
