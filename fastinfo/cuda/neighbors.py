"""Nearest rows on a device, without a matrix of all pairs.

Bands of rows of x meet blocks of rows of y; what is of use is kept, the rest forgotten. Under the
Jensen-Shannon divergence a matrix product tells first which pairs can matter, as in
`cpu.neighbors`: where few are left, these alone are computed, pair by pair; the device decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastinfo.catalogue import MEASURES
from fastinfo.cuda import neighbor_kernels as kernels
from fastinfo.cuda import products, seam
from fastinfo.cuda.arrays import Memory, blocks, new
from fastinfo.cuda.pair_kernels import TILE
from fastinfo.cuda.pairs import ROOM_BYTES, THREADS, Job, Products, Road, Tiles, road_of

# Rows of x, whole tiles, that meet rows of y at a time.
BAND = 1024
# Rows of no more bins take no longer than the bound.
NARROW = 128
# More of the pairs than this left by the bound, and tiles are computed: a pair in float64 takes as
# long as some 64 of a tile, by the number of their instructions.
WORTH = 1 / 64

Report = Callable[[int], object]


def nearest(job: Job, k: int, leave_out: bool, report: Report) -> tuple[Memory, Memory]:
    """Return the k smallest values of each row of x and their rows of y; `leave_out` its own."""
    n, m, like = job.x.count, job.y.count, job.x.memory
    kept = Kept.new(n, k, job.real, like, leave_out)
    if not n:
        return kept.values, kept.indices
    road, length = Limits.of(job, k, leave_out) or road_of(job), _length(job)
    room = new((min(n, BAND) * min(m, length),), job.real, like)
    for begin in range(0, m, length):
        end = min(begin + length, m)
        beside = road.beside(begin, end)
        for lo in range(0, n, BAND):
            shape = min(BAND, n - lo), end - begin
            band = replace(room, shape=shape, strides=(shape[1], 1))
            beside.fill(band, lo)
            kept.keep(band, begin, lo)
            report(int(n * (begin * n + (lo + shape[0]) * shape[1]) / (n * m)))
    seam.launch(
        kernels.in_order(job.real), blocks(n, THREADS), THREADS, like.stream,
        job.x.divisors.rounded.flat, kept.sizes.shaped, kept.values.shaped, kept.indices.shaped,
    )  # fmt: skip
    return kept.values, kept.indices


def _length(job: Job) -> int:
    """Return how many rows of y, whole tiles, meet a band: bounded are their bins and values."""
    item = np.dtype(job.real).itemsize
    most = ROOM_BYTES // (item * max(BAND, job.x.width))
    return max(most // TILE, 1) * TILE


@dataclass(frozen=True)
class Kept:
    """The smallest values of each row so far, as `kernels.smallest` has them."""

    values: Memory
    indices: Memory
    sizes: Memory
    leave_out: bool

    @classmethod
    def new(cls, n: int, k: int, real: str, like: Memory, leave_out: bool) -> Kept:
        """Return none yet."""
        sizes = new((n, 2), "int64", like).filled(0)
        return cls(new((n, k), real, like), new((n, k), "int64", like), sizes, leave_out)

    def keep(self, band: Memory, begin: int, lo: int) -> None:
        """Look at the values of rows from `lo` on, of columns from `begin` on."""
        n, m = band.shape
        seam.launch(
            kernels.smallest(self.values.storage), n, kernels.THREADS, band.stream, band.flat, m,
            begin, lo, self.leave_out, self.values.shaped, self.indices.shaped, self.sizes.shaped,
        )  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """A road that gives inf for pairs that cannot be of use, by their squared Hellinger distance.

    `uppers` are the smallest upper bounds so far of each row of x; rows of y begin at `begin`.
    """

    roots: Products
    tiles: Tiles
    uppers: Kept
    begin: int = 0

    @classmethod
    def of(cls, job: Job, k: int, leave_out: bool) -> Limits | None:
        """Return limits where the bound holds: of distributions, with equal weights.

        A unit below 0, of a base below 1, turns the order of the pairs around.
        """
        like, bounded = job.x.memory, job.measure.bounded_by_hellinger and job.normalize
        if not (bounded and job.unit > 0.0 and job.x.width > NARROW and products.known(like.kind)):
            return None
        hellinger = replace(job, measure=MEASURES["hellinger_distance"], real="float32")
        uppers = Kept.new(job.x.count, k, "float32", like, leave_out)
        return cls(Products.of(hellinger), Tiles.of(job), uppers)

    def beside(self, begin: int, end: int) -> Road:
        """Return the road to some rows of y."""
        roots, tiles = self.roots.beside(begin, end), self.tiles.beside(begin, end)
        return replace(self, roots=roots, tiles=tiles, begin=begin)

    def fill(self, out: Memory, lo: int = 0) -> None:
        """Write the measure of some rows of x, of pairs that may be of use at least."""
        n, m = out.shape
        x, stream, threads = self.roots.job.x.rows(lo, lo + n), out.stream, kernels.THREADS
        e, found = self.roots.sums(x, 0, self.roots.room(n, m))
        rows = *e.known[:2], *self.roots.g.known[:2], self.roots.error_of_half()
        seam.launch(kernels.upper_bounds(), n, threads, stream, *rows, found.flat)
        self.uppers.keep(found, self.begin, lo)
        counts, road = new((n,), "int64", out), new((1,), "int32", out)
        kept = self.uppers.values.shaped, self.uppers.sizes.shaped
        seam.launch(
            kernels.survivors(out.storage), n, threads, stream, *rows, found.flat, lo, *kept,
            counts.flat, out.flat,
        )  # fmt: skip
        seam.launch(
            kernels.choice(), 1, threads, stream, counts.flat, int(WORTH * n * m),
            self.tiles.far.flat, road.flat,
        )  # fmt: skip
        replace(self.tiles, far=road).fill(out, lo)
