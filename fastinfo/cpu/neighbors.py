"""Nearest rows and rows within a radius, without a matrix of all pairs.

Bands of rows of x meet blocks of rows of y; what is of use is kept, the rest forgotten. Under the
Jensen-Shannon divergence a matrix product tells first which pairs can matter, since

    ln 2 · h² ≤ JS ≤ h²,   h² = ½ Σ (√p - √q)².

Proof, bin by bin, with s = p + q, t = (p - q) / s and c = √(1 - t²): JS is ½ Σ s (ln 2 - H), H the
entropy of {(1 + t) / 2, (1 - t) / 2}, and h² is ½ Σ s (1 - c). As t = tanh u, dH/dc = u / sinh u,
which falls with u as c = 1 / cosh u does: H is a convex function of c. So it lies below the chord
from (0, 0) to (1, ln 2), H ≤ c ln 2, and above the tangent at c = 1, H ≥ ln 2 - (1 - c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastinfo.catalogue import MEASURES
from fastinfo.cpu import neighbor_kernels as kernels
from fastinfo.cpu import pairs
from fastinfo.cpu.pairs import Fill, Job, Products, Side, Tiles
from fastinfo.engine import run

# Rows of x, and bytes of a factor of the rows of y, that meet at a time; bytes of their values.
BAND, BLOCK_BYTES, LEAST_BLOCK, ROOM_BYTES = 512, 1 << 24, 1024, 1 << 26
# More of the pairs than this left by the bound, and it is not worth asking for.
WORTH = 0.2
# ... nor is it for the next 2, 4, ... bands, up to this many.
MOST_SKIPPED = 64
# Returned numbers may differ by their accuracy from those the bound is for.
SLACK = 1.0 + 1e-4

Report = Callable[[int], object]


def nearest(job: Job, k: int, leave_out: bool, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Return the k smallest values of each row of x and their rows of y; `leave_out` its own."""
    n = job.x.count
    values, indices = np.full((n, k), np.nan, job.real), np.full((n, k), -1)
    sizes, keep = np.zeros(n, np.int64), kernels.smallest(job.real)
    for begin, lo, band in _bands(job, Limits.nearest(job, k, leave_out), report):
        which = slice(lo, lo + len(band))
        kept = values[which], indices[which], sizes[which]
        _by_rows(keep, [band, *kept], begin, lo, leave_out)
    sort = kernels.sorts(job.real)
    run(lambda lo, hi: sort(values[lo:hi], indices[lo:hi], sizes[lo:hi]), n, pairs.TILE_ROWS)
    _add_others(job, sizes, indices, leave_out)
    return values, indices


def _by_rows(
    kernel: Callable[..., Any],
    rows: list[np.ndarray],
    begin: int,
    lo: int,
    leave_out: bool,
    *given: object,
) -> None:
    """Call a kernel over rows from number `lo` on, whose columns begin at `begin`."""

    def task(first: int, last: int) -> None:
        kernel(begin, lo + first, leave_out, *given, *(part[first:last] for part in rows))

    run(task, len(rows[0]), pairs.TILE_ROWS)


def _add_others(job: Job, sizes: np.ndarray, indices: np.ndarray, leave_out: bool) -> None:
    """Fill up with rows of y whose values are NaN, in order, where the others are too few."""
    k = indices.shape[1]
    for i in np.flatnonzero((sizes < k) & job.x.valid):
        left = np.ones(job.y.count, bool)
        left[indices[i, : sizes[i]]] = False
        if leave_out:
            left[i] = False
        indices[i, sizes[i] :] = np.flatnonzero(left)[: k - sizes[i]]


def within(
    job: Job, radius: float, leave_out: bool, report: Report
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs with a value of at most `radius`, as values, columns and starts of rows."""
    none = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, job.real)
    found = [none]
    for begin, lo, band in _bands(job, Limits.within(job, radius), report):
        near = band <= radius
        if leave_out:
            own = np.arange(lo, lo + len(band)) - begin
            inside = (own >= 0) & (own < band.shape[1])
            near[np.flatnonzero(inside), own[inside]] = False
        i, j = np.nonzero(near)
        found.append((i + lo, j + begin, band[i, j]))
    i, j, values = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(i, kind="stable")
    starts = np.searchsorted(i[order], np.arange(job.x.count + 1))
    return values[order], j[order], starts


def _bands(
    job: Job, limits: Limits | None, report: Report
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the first row of y, the first of x, and the values of each block, for a moment.

    With `limits` values that are of no use are NaN.
    """
    n, m = job.x.count, job.y.count
    item = np.dtype(job.real).itemsize
    most = min(BLOCK_BYTES // (job.x.width * item), ROOM_BYTES // (BAND * item))
    length = min(max(m, 1), max(LEAST_BLOCK, most))
    room = np.empty(min(n, BAND) * length, job.real)
    road = limits or job.x.road(job)
    for begin in range(0, m, length):
        end = min(begin + length, m)
        fill = road.block(begin, end)
        for lo in range(0, n, BAND):
            count = min(BAND, n - lo)
            band = room[: count * (end - begin)].reshape(count, end - begin)
            fill(lo, band)
            yield begin, lo, band
            report(int(n * (begin * n + (lo + count) * (end - begin)) / (n * m)))


@dataclass
class Limits:
    """Which pairs can be of use, by the squared Hellinger distance that bounds their divergence.

    `uppers` are the smallest upper bounds so far of each row of x, or `taus` are given.
    """

    job: Job
    roots: Products
    road: Tiles
    taus: np.ndarray
    uppers: np.ndarray
    leave_out: bool
    skipped: int = 0
    to_skip: int = 0
    indices: np.ndarray = field(init=False)
    sizes: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.indices = np.empty(self.uppers.shape, np.int64)
        self.sizes = np.zeros(len(self.uppers), np.int64)

    @classmethod
    def nearest(cls, job: Job, k: int, leave_out: bool) -> Limits | None:
        """Return limits that come from the rows read so far."""
        n = job.x.count
        return cls._of(job, np.full(n, np.inf), np.empty((n, k), np.float32), leave_out)

    @classmethod
    def within(cls, job: Job, radius: float) -> Limits | None:
        """Return the limits of a radius."""
        root = job.measure.name != "js_divergence"
        nats = radius * (radius if root else 1.0) * job.unit
        n = job.x.count
        return cls._of(job, np.full(n, nats * SLACK), np.empty((n, 0), np.float32), False)

    @classmethod
    def _of(cls, job: Job, taus: np.ndarray, uppers: np.ndarray, leave_out: bool) -> Limits | None:
        """Return the limits where the bound holds: of distributions, with equal weights.

        A unit below 0, of a base below 1, turns the order of the pairs around.
        """
        bounded = job.measure.bounded_by_hellinger and job.normalize and job.unit > 0.0
        if not (isinstance(job.x, Side) and bounded):
            return None
        road = Tiles.of(job)
        if road.narrow:  # a few bins take no longer than the bound
            return None
        hellinger = replace(job, measure=MEASURES["hellinger_distance"], real="float32")
        return cls(job, Products.of(hellinger), road, taus, uppers, leave_out)

    def block(self, begin: int, end: int) -> Fill:
        """Return what fills bands beside the rows [begin, end) of y."""
        job, roots = self.job, self.roots
        y = job.y.rows(slice(begin, end))
        g = np.empty((y.count, y.width), np.float32)
        y_roots, y_norms = roots.factors(y, True, g)
        b, b_rows, b_bounds = self.road.rows(y, 0.5)
        error, floor = roots.error_of_half()
        own = np.empty((BAND, y.width), np.float32)
        room = np.empty(BAND * y.count if job.real == "float64" else 0, np.float32)
        reference, loop = (
            self.road.mean.astype(job.real),
            kernels.survivors(self.road.road.term, *job.key),
        )

        def fill(lo: int, band: np.ndarray) -> None:
            rows = slice(lo, lo + len(band))
            x, e = job.x.rows(rows), own[: len(band)]
            x_roots, x_norms = roots.factors(x, False, e)
            x_norms *= error
            products = room[: band.size].reshape(band.shape) if room.size else band
            if self.to_skip:
                self.to_skip -= 1
                taus = np.full(len(band), np.inf)
            else:
                with np.errstate(all="ignore"):
                    pairs.multiply(e, g, products)
                taus = self._limits(begin, lo, products, x_roots, y_roots, x_norms, y_norms, floor)
            a, a_rows, a_bounds = self.road.rows(x, 0.5)

            def task(first: int, last: int) -> None:
                part = slice(first, last)
                some = x.rows(part)
                loop(
                    taus[part], x_roots[part], y_roots, x_norms[part], y_norms, floor, a[part], b,
                    reference, a_rows[part], b_rows, a_bounds[part], b_bounds, self.road.factor,
                    *some.arguments, *y.arguments, x.width, job.parameter, job.unit,
                    products[part], band[part],
                )  # fmt: skip

            run(task, len(band), pairs.TILE_ROWS)

        return fill

    def _limits(
        self, begin: int, lo: int, products: np.ndarray, x_roots: np.ndarray, y_roots: np.ndarray,
        x_errors: np.ndarray, y_errors: np.ndarray, floor: float,
    ) -> np.ndarray:  # fmt: skip
        """Return each row's limit; none where the bound leaves too many pairs."""
        counts, which = np.empty(len(products), np.int64), slice(lo, lo + len(products))
        taus = self.taus[which].copy()
        kept = self.uppers[which], self.indices[which], self.sizes[which]
        rows = [products, x_roots, x_errors, *kept, taus, counts]
        given = y_roots, y_errors, floor, SLACK
        _by_rows(kernels.limits(), rows, begin, lo, self.leave_out, *given)
        if counts.sum() <= WORTH * products.size:
            self.skipped = 0
            return taus
        self.skipped = min(max(1, 2 * self.skipped), MOST_SKIPPED)
        self.to_skip = self.skipped
        return np.full(len(products), np.inf)
