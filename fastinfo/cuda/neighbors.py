"""Nearest rows on a device, without a matrix of all pairs.

Bands of rows of x meet blocks of rows of y; what is of use is kept, the rest forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastinfo.cuda import neighbor_kernels as kernels
from fastinfo.cuda import seam
from fastinfo.cuda.arrays import Memory, blocks, new
from fastinfo.cuda.pair_kernels import TILE
from fastinfo.cuda.pairs import ROOM_BYTES, THREADS, Job, road_of

# Rows of x, whole tiles, that meet rows of y at a time.
BAND = 1024

Report = Callable[[int], object]


def nearest(job: Job, k: int, leave_out: bool, report: Report) -> tuple[Memory, Memory]:
    """Return the k smallest values of each row of x and their rows of y; `leave_out` its own."""
    n, m, like = job.x.count, job.y.count, job.x.memory
    values, indices = new((n, k), job.real, like), new((n, k), "int64", like)
    sizes = new((n, 2), "int64", like).filled(0)
    if not values.size:
        return values, indices
    road, keep = road_of(job), kernels.smallest(job.real)
    length = _length(job)
    room = new((min(n, BAND) * min(m, length),), job.real, like)
    for begin in range(0, m, length):
        end = min(begin + length, m)
        beside = road.beside(begin, end)
        for lo in range(0, n, BAND):
            shape = min(BAND, n - lo), end - begin
            band = replace(room, shape=shape, strides=(shape[1], 1))
            beside.fill(band, lo)
            seam.launch(
                keep, shape[0], kernels.THREADS, like.stream, band.flat, shape[1], begin, lo,
                leave_out, values.shaped, indices.shaped, sizes.shaped,
            )  # fmt: skip
            report(int(n * (begin * n + (lo + shape[0]) * shape[1]) / (n * m)))
    seam.launch(
        kernels.in_order(job.real), blocks(n, THREADS), THREADS, like.stream,
        job.x.divisors.rounded.flat, sizes.shaped, values.shaped, indices.shaped,
    )  # fmt: skip
    return values, indices


def _length(job: Job) -> int:
    """Return how many rows of y, whole tiles, meet a band: bounded are their bins and values."""
    item = np.dtype(job.real).itemsize
    most = ROOM_BYTES // (item * max(BAND, job.x.width))
    return max(most // TILE, 1) * TILE
