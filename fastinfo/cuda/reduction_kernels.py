"""What losses share on a device: classes and weights of rows, sums; a thread a row.

Sums are in float64, in pieces of a fixed length: figures of rows, not of what is streamed.
"""

from functools import cache

import numpy as np

from fastinfo.cuda.reduce import of_block
from fastinfo.cuda.row_kernels import IGNORED, NO_CLASS, THREADS, start_of
from fastinfo.cuda.seam import cuda, helper, kernel, loader, mathematics

__all__ = [
    "ROWS", "THREADS", "classes", "converted", "exponentials", "fills", "results", "row_weights",
    "shares", "starts", "sums", "weights",
]  # fmt: skip

# Rows that one block adds up.
ROWS = 64 * THREADS


@cache
def starts():
    """Kernel: the offset of each row, of up to four axes of which the last comes first."""

    @kernel
    def write_starts(first, sizes, steps, out):
        i = cuda.grid(1)
        if i < out.size:
            rest, at = i, first
            for axis in range(len(sizes)):
                rest, index = rest // sizes[axis], rest % sizes[axis]
                at += index * steps[axis]
            out[i] = at

    return write_starts


@cache
def classes():
    """Kernel: the class of each row, or that it is ignored, or that there is none such."""

    @kernel
    def write_classes(targets, offsets, place, width, ignore_index, out):
        i = cuda.grid(1)
        if i < out.size:
            target = np.int64(targets[start_of(offsets, place, i)])
            if target == ignore_index:
                out[i] = IGNORED
            else:
                out[i] = target if 0 <= target < width else NO_CLASS

    return write_classes


@cache
def weights(real, dtype):
    """Kernel: weights as a float type; NaN for what is not finite or below 0."""
    kind, load = mathematics(real).real, loader(dtype)[0]
    zero, nan, infinity = kind(0), kind(np.nan), kind(np.inf)

    @kernel
    def write_weights(given, offsets, place, out):
        i = cuda.grid(1)
        if i < out.size:
            w = kind(load(given, start_of(offsets, place, i)))
            out[i] = w if zero <= w < infinity else nan

    return write_weights


@cache
def row_weights(real):
    """Kernel: weights of rows that count, 0 for the others, and sums of what a mean divides by.

    One block alone divides by its sum, as `shares` does of several.
    """
    kind = mathematics(real).real
    zero = kind(0)
    add = helper(lambda s, t, given: (s[0] + t[0],))
    added, share_of = of_block(add, 1, 0, THREADS, "float64"), _share(real)

    @kernel
    def weigh_rows(sample_weight, targets, w, ignores, mean, out, sums, total):
        t, begin, all_of_them = cuda.threadIdx.x, cuda.blockIdx.x * ROWS, 0.0
        end = min(begin + ROWS, out.size)
        for i in range(begin + t, end, THREADS):
            weight = sample_weight[i] if sample_weight.size else kind(1)
            if ignores and targets[i] == IGNORED:
                weight = zero
            out[i] = weight
            counted = weight
            if ignores and w.size and targets[i] >= 0:
                counted = weight * w[targets[i]]
            all_of_them += counted
        all_of_them = added((all_of_them,), 0)[0]
        if cuda.gridDim.x > 1:
            if t == 0:
                sums[cuda.blockIdx.x] = all_of_them
        else:
            divisor = kind(all_of_them) if mean else kind(1)
            for i in range(t, end, THREADS):
                out[i] = share_of(out[i], divisor)
            if t == 0:
                total[0] = divisor

    return weigh_rows


def _share(real):
    """A weight divided by the sum of all; NaN what is divided by 0."""
    kind = mathematics(real).real
    zero, nan = kind(0), kind(np.nan)

    @helper
    def share_of(weight, divisor):
        if weight == zero:
            return zero
        return weight / divisor if divisor != zero else nan

    return share_of


@cache
def shares(real):
    """Kernel: divide weights by their sum, if a mean is asked for."""
    kind, share_of = mathematics(real).real, _share(real)

    @kernel
    def divide(sums, mean, weights, total):
        i, all_of_them = cuda.grid(1), 1.0
        if mean:
            all_of_them = 0.0
            for k in range(sums.size):
                all_of_them += sums[k]
        divisor = kind(all_of_them)
        if i == 0:
            total[0] = divisor
        if i < weights.size:
            weights[i] = share_of(weights[i], divisor)

    return divide


@cache
def sums():
    """Kernel: add up numbers, `ROWS` of them a block."""
    added = of_block(helper(lambda s, t, given: (s[0] + t[0],)), 1, 0, THREADS, "float64")

    @kernel
    def add_up(values, out):
        total, begin = 0.0, cuda.blockIdx.x * ROWS
        for i in range(begin + cuda.threadIdx.x, min(begin + ROWS, values.size), THREADS):
            total += values[i]
        total = added((total,), 0)[0]
        if cuda.threadIdx.x == 0:
            out[cuda.blockIdx.x] = total

    return add_up


@cache
def results(real):
    """Kernel of one block: a multiple of the sum of numbers; NaN of a mean over nothing."""
    kind = mathematics(real).real
    added = of_block(helper(lambda s, t, given: (s[0] + t[0],)), 1, 0, THREADS, "float64")

    @kernel
    def write_result(values, factor, divisor, out):
        total = 0.0
        for i in range(cuda.threadIdx.x, values.size, THREADS):
            total += values[i]
        total = added((total,), 0)[0] * factor
        if cuda.threadIdx.x == 0:
            out[0] = kind(total) if not divisor.size or divisor[0] != 0 else kind(np.nan)

    return write_result


@cache
def exponentials(real):
    """Kernel of one thread: exp of a number, computed in float64."""
    kind, exp = mathematics(real).real, mathematics("float64").exp

    @kernel
    def write_exponential(value, out):
        out[0] = kind(exp(np.float64(value[0])))

    return write_exponential


@cache
def converted(into):
    """Kernel: write numbers as another type."""
    kind = np.dtype(into).type

    @kernel
    def write(values, out):
        i = cuda.grid(1)
        if i < out.size:
            out[i] = kind(values[i])

    return write


@cache
def fills():
    """Kernel: write one number everywhere."""

    @kernel
    def write(v, out):
        i = cuda.grid(1)
        if i < out.size:
            out[i] = v

    return write
