"""Two rows walked side by side by the threads of a block."""

from functools import cache

from fastinfo.cuda.row_kernels import SHIFT, STEP, THREADS
from fastinfo.cuda.seam import cuda, helper, loader


def wide_loader(storage, lanes):
    """Return load(x, i), `lanes` numbers by loads of 16 bytes, and how many one of those gives."""
    load_wide, own = loader(storage)[1], 8 if storage in ("float16", "bfloat16") else 4
    if own == lanes:
        return load_wide, own
    return helper(lambda x, i: load_wide(x, i) + load_wide(x, i + own)), own


@cache
def lanes_of(p_storage, q_storage):
    """How many classes of both are taken at a time."""
    return 8 if {"float16", "bfloat16"} & {p_storage, q_storage} else 4


def walker(p_storage, q_storage, one, threads):
    """Return walk(..., state, given): one(state, v, u, k, given) of all classes."""
    load_p, load_q = loader(p_storage)[0], loader(q_storage)[0]

    @helper
    def walk(p, p_start, p_place, q, q_start, q_place, begin, end, state, given):
        p_step, q_step = p_place[STEP], q_place[STEP]
        for k in range(begin + cuda.threadIdx.x, end, threads):
            v, u = load_p(p, p_start + k * p_step), load_q(q, q_start + k * q_step)
            state = one(state, v, u, k, given)
        return state

    return walk


def wide_walker(p_storage, q_storage, one, wide):
    """Return walk(..., state, given) as `walker`, by wide(state, v, u, k, given) of tuples.

    So both rows are read 16 bytes at a time, if they lie alike.
    """
    load_p, load_q, lanes = (
        loader(p_storage)[0],
        loader(q_storage)[0],
        lanes_of(p_storage, q_storage),
    )
    (wide_p, p_lanes), (wide_q, q_lanes) = (
        wide_loader(p_storage, lanes),
        wide_loader(q_storage, lanes),
    )
    walk_slowly, threads = walker(p_storage, q_storage, one, THREADS), THREADS

    @helper
    def walk(p, p_start, p_place, q, q_start, q_place, begin, end, state, given):
        t = cuda.threadIdx.x
        p_head = -(p_start + begin + p_place[SHIFT]) % p_lanes
        q_head = -(q_start + begin + q_place[SHIFT]) % q_lanes
        first = p_head if p_lanes == lanes else q_head
        alike = first % p_lanes == p_head and first % q_lanes == q_head
        if alike and p_place[STEP] == 1 and q_place[STEP] == 1:
            head = min(begin + first, end)
            tail = head + (end - head) // lanes * lanes
            for k in range(begin + t, head, threads):
                state = one(state, load_p(p, p_start + k), load_q(q, q_start + k), k, given)
            k, stride = head + t * lanes, threads * lanes
            while k + stride < tail:
                v, u = wide_p(p, p_start + k), wide_q(q, q_start + k)
                v1, u1 = wide_p(p, p_start + k + stride), wide_q(q, q_start + k + stride)
                state = wide(state, v, u, k, given)
                state = wide(state, v1, u1, k + stride, given)
                k += 2 * stride
            if k < tail:
                v, u = wide_p(p, p_start + k), wide_q(q, q_start + k)
                state = wide(state, v, u, k, given)
            for k in range(tail + t, end, threads):
                state = one(state, load_p(p, p_start + k), load_q(q, q_start + k), k, given)
        else:
            state = walk_slowly(
                p, p_start, p_place, q, q_start, q_place, begin, end, state, given
            )  # fmt: skip
        return state

    return walk


def over_both(lanes, one):
    """Return each(state, v, u, k, given): one(state, v, u, k, given) over two tuples, in order."""
    last = lanes - 1

    @helper
    def own(state, v, u, k, given):
        return one(state, v[last], u[last], k + last, given)

    if lanes == 1:
        return own
    others = over_both(lanes - 1, one)

    @helper
    def each(state, v, u, k, given):
        return own(others(state, v, u, k, given), v, u, k, given)

    return each


def mapped_both(lanes, one):
    """Return each(v, u, given): the tuple of one(v, u, given) over two tuples."""
    last = lanes - 1

    @helper
    def own(v, u, given):
        return (one(v[last], u[last], given),)

    if lanes == 1:
        return own
    others = mapped_both(lanes - 1, one)

    @helper
    def each(v, u, given):
        return others(v, u, given) + own(v, u, given)

    return each
