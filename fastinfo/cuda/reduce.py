"""One block's states merged into one, known to all its threads: in a fixed order, so always alike.

By warp shuffles, and by a tree in shared memory for the simulator, which has none.
"""

from functools import cache

import numpy as np

from fastinfo.cuda.seam import SIMULATED, cuda, helper

WARP = 32
ALL = 0xFFFFFFFF


@cache
def of_block(merge, reals, integers, threads, real):
    """Return reduced(state, given): all threads' states by merge(state, state, given).

    A state is a tuple of as many numbers of a float type, and of as many int64.
    """
    kind, width = np.dtype(real).type, threads if SIMULATED else max(1, threads // WARP)
    number = reals + integers
    in_floats, in_longs = width * max(1, reals), width * max(1, integers)
    put, take = _putter(reals, integers, number), _taker(reals, integers, number)
    exchange = _exchanger(number)

    @helper
    def by_tree(state, given):
        floats = cuda.shared.array(in_floats, kind)
        longs = cuda.shared.array(in_longs, np.int64)
        t = cuda.threadIdx.x
        cuda.syncthreads()
        put(floats, longs, t, state)
        cuda.syncthreads()
        step = 1
        while step < threads:
            if t % (2 * step) == 0:
                state = merge(state, take(floats, longs, t + step), given)
                put(floats, longs, t, state)
            cuda.syncthreads()
            step *= 2
        return take(floats, longs, 0)

    @helper
    def by_warps(state, given):
        floats = cuda.shared.array(in_floats, kind)
        longs = cuda.shared.array(in_longs, np.int64)
        t = cuda.threadIdx.x
        step = 1
        while step < WARP:
            other = exchange(state, step)
            # the lower thread's state comes first, for both
            low, high = (state, other) if t & step == 0 else (other, state)
            state = merge(low, high, given)
            step *= 2
        cuda.syncthreads()
        if t % WARP == 0:
            put(floats, longs, t // WARP, state)
        cuda.syncthreads()
        state = take(floats, longs, 0)
        for w in range(1, width):
            state = merge(state, take(floats, longs, w), given)
        return state

    return by_tree if SIMULATED else by_warps


# --- tuples of any length, an element at a time --------------------------------------------------


def _putter(reals, integers, count):
    """Return put(floats, longs, at, state), which writes the first `count` elements."""
    at_last = count - 1

    @helper
    def put_real(floats, longs, at, state):
        floats[at * reals + at_last] = state[at_last]

    @helper
    def put_integer(floats, longs, at, state):
        longs[at * integers + (at_last - reals)] = state[at_last]

    put_one = put_real if count <= reals else put_integer
    if count == 1:
        return put_one
    put_others = _putter(reals, integers, count - 1)

    @helper
    def put(floats, longs, at, state):
        put_others(floats, longs, at, state)
        put_one(floats, longs, at, state)

    return put


def _taker(reals, integers, count):
    """Return take(floats, longs, at), a tuple of the first `count` elements."""
    at_last = count - 1

    @helper
    def take_real(floats, longs, at):
        return (floats[at * reals + at_last],)

    @helper
    def take_integer(floats, longs, at):
        return (longs[at * integers + (at_last - reals)],)

    take_one = take_real if count <= reals else take_integer
    if count == 1:
        return take_one
    take_others = _taker(reals, integers, count - 1)

    @helper
    def take(floats, longs, at):
        return take_others(floats, longs, at) + take_one(floats, longs, at)

    return take


def _exchanger(count):
    """Return exchange(state, step): the first elements of the thread whose number differs there."""
    at_last = count - 1

    @helper
    def exchange_one(state, step):
        return (cuda.shfl_xor_sync(ALL, state[at_last], step),)

    if count == 1:
        return exchange_one
    exchange_others = _exchanger(count - 1)

    @helper
    def exchange(state, step):
        return exchange_others(state, step) + exchange_one(state, step)

    return exchange
