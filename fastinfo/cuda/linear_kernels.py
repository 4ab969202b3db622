"""What stands between matrix products on a device: copies into another type, bias, sums of columns.

Each is one reading and one writing of what a product gives or takes.
"""

from functools import cache

import numpy as np

from fastinfo.arrays import computed_in
from fastinfo.cuda.gradient_kernels import mapped
from fastinfo.cuda.row_kernels import FIRST, ROW_STEP, SHIFT, STEP, start_of
from fastinfo.cuda.seam import SIMULATED, cuda, helper, kernel, loader, mathematics, storer

# Threads of a block; rows that one block adds the bias to.
THREADS = 4 if SIMULATED else 256
ROWS = 32
# Rows added up in the type of the products before they go to float64.
RUN = 256


@cache
def copies(storage, into, real):
    """Kernel: write rows as another type, a block a row; 0 where the weight of a row is 0."""
    (load, load_wide), (store, store_wide) = loader(storage), storer(into)
    kind, weightless = np.dtype(computed_in(into)).type, mathematics(real).real(0)
    zero = kind(0)
    lanes = 8 if storage in ("float16", "bfloat16") else 4
    each = mapped(lanes, helper(lambda v, k, given: kind(v)))

    @kernel
    def copy(x, starts, place, width, active, out, out_starts, out_place):
        i, t = cuda.blockIdx.x, cuda.threadIdx.x
        start, to = start_of(starts, place, i), start_of(out_starts, out_place, i)
        step, out_step = place[STEP], out_place[STEP]
        if active.size and active[i] == weightless:
            for k in range(t, width, THREADS):
                store(out, to + k * out_step, zero)
            return
        head = 0
        aligned = (start + place[SHIFT]) % lanes == 0 and (to + out_place[SHIFT]) % lanes == 0
        if step == 1 and out_step == 1 and aligned:
            head = width // lanes * lanes
            for k in range(t * lanes, head, THREADS * lanes):
                store_wide(out, to + k, each(load_wide(x, start + k), k, 0))
        for k in range(head + t, width, THREADS):
            store(out, to + k * out_step, kind(load(x, start + k * step)))

    return copy


@cache
def splits():
    """Kernel: write some classes of rows of float32 as sums of two bfloat16, a block a row.

    What is left out is below 2**-16 of each number.
    """
    (load, load_wide), (store, store_wide) = loader("float32"), storer("bfloat16")
    # a product whose sum with the number has 16 bits fewer: Dekker's splitting
    factor = np.float32((1 << 16) + 1)

    @helper
    def high_of(v, k, given):
        c = v * factor
        return c - (c - v)

    @helper
    def low_of(v, k, given):
        return v - high_of(v, k, given)

    highs, lows = mapped(4, high_of), mapped(4, low_of)

    @kernel
    def split(x, place, begin, width, high, low):
        i, t = cuda.blockIdx.x, cuda.threadIdx.x
        start, to, head = place[FIRST] + i * place[ROW_STEP] + begin, i * width, 0
        if (start + place[SHIFT]) % 4 == 0 and width % 4 == 0:
            head = width
            for k in range(t * 4, width, THREADS * 4):
                values = load_wide(x, start + k)
                store_wide(high, to + k, highs(values, k, 0))
                store_wide(low, to + k, lows(values, k, 0))
        for k in range(head + t, width, THREADS):
            v = load(x, start + k)
            store(high, to + k, high_of(v, k, 0))
            store(low, to + k, low_of(v, k, 0))

    return split


@cache
def biases():
    """Kernel: add a bias to rows of logits, a thread a class; block (classes, rows)."""

    @kernel
    def add_bias(logits, bias, count):
        k, width = cuda.grid(1), bias.size
        if k < width:
            own, begin = bias[k], cuda.blockIdx.y * ROWS
            for i in range(begin, min(begin + ROWS, count)):
                logits[i * width + k] += own

    return add_bias


@cache
def column_sums(real):
    """Kernel: add the sum of each column of rows to float64, a thread a column."""
    zero = mathematics(real).real(0)

    @kernel
    def add_columns(x, count, sums):
        k, width = cuda.grid(1), sums.size
        if k < width:
            total = sums[k]
            for begin in range(0, count, RUN):
                run = zero
                for i in range(begin, min(begin + RUN, count)):
                    run += x[i * width + k]
                total += run
            sums[k] = total

    return add_columns


@cache
def additions():
    """Kernel: add numbers to others."""

    @kernel
    def add(x, out):
        i = cuda.grid(1)
        if i < out.size:
            out[i] += x[i]

    return add
