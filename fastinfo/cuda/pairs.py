"""Matrices of a measure between all pairs of rows, on a device.

Measures with a tiled loop (see `catalogue.Tile`) are added up tile by tile in the arithmetic of the
result, separable ones (`catalogue.Product`) by the device's matrix product; the pairs that come out
small beside their error bound, and all pairs of other measures, are computed from the raw rows in
float64. Nothing waits for the device: which road is measured from the better reference, and which
pairs are computed again, is decided there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import lazy
from fastinfo.catalogue import Product, Tile
from fastinfo.cpu.pairs import (
    EPSILON,
    FACTOR_ERROR,
    NORMS,
    PRODUCT_ERROR,
    RANGE,
    ROW_BINS,
    RTOL,
    WIDE,
    Job,
    growth_of,
)
from fastinfo.cuda import pair_kernels as kernels
from fastinfo.cuda import products, seam
from fastinfo.cuda.arrays import Memory, Rows, as_result, blocks, new
from fastinfo.cuda.bin_kernels import THREADS as ROW_THREADS
from fastinfo.cuda.bins import Divisors, arguments
from fastinfo.cuda.linear import between, rows_between

__all__ = ["Job", "Side", "bands", "condensed", "mirror"]

# Threads of what is no tile and no row.
THREADS = ROW_THREADS
# Errors that decide what is computed again, as in `cpu.pairs`: of a tile measured from the uniform
# distribution, in units of 1 + Σ |row|; from the mean, in units of Σ |row| or of the norm of p - r.
# The logarithm of float32 is one instruction here, right to 2⁻²² near 1.
UNIFORM_ERROR = {"float32": 6e-7, "float64": 1e-15}
TILE_ERROR = {"float32": 40.0, "float64": 16.0}
# Bins of a product at a time. In which order they are added up is the library's affair; in the
# worst, one after the other, terms of one sign and size lose up to half a roundoff of their sum
# each, all one way: half of these many. Of 90000 pairs of rows added up so, of few values, of long
# constant stretches, drawn evenly or peaked, the worst were 0.43 of them, and 0.25 without
# stretches. Sums of such parts, which differ, lose as the root of their number.
PRODUCT_BINS = {"float32": 128, "float64": 1024}
# Roundoffs of a pair that is finished from its rows and its product.
FINISH_ERROR = 4.0
# Bytes of a factor of the rows of x, and of its product with all of y.
ROOM_BYTES = 1 << 28
# Rows of x at a time: a grid has 65535 blocks down.
MOST_ROWS = 1 << 19
# Which road a kernel belongs to: any, the one measured from the mean, from the uniform one.
ANY, NEAR, FAR = -1, 0, 1


@dataclass(frozen=True)
class Side:
    """The rows of one argument, and what they are divided by: 0 or NaN if no distributions."""

    data: Rows
    divisors: Divisors

    @classmethod
    def of(cls, rows: Rows, divisors: Divisors) -> Side:
        """Return a side; on the processor, what it needs is found here."""
        return cls(rows, divisors)

    @property
    def storage(self) -> str:
        """Type in which the rows are stored."""
        return self.data.storage

    @property
    def width(self) -> int:
        """Number of bins."""
        return self.data.width

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.data.count

    @property
    def memory(self) -> Memory:
        """Memory of the rows."""
        return self.data.data

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Rows as kernels take them."""
        return arguments(self.data, self.divisors)

    def rows(self, lo: int, hi: int) -> Side:
        """Return some of the rows."""
        rounded, rest = (between(v, lo, hi) for v in (self.divisors.rounded, self.divisors.rest))
        return Side(rows_between(self.data, lo, hi), Divisors(rounded, rest))


class Road(Protocol):
    """A way to all pairs."""

    def beside(self, begin: int, end: int) -> Road:
        """Return the road to the rows [begin, end) of y, measured from the same."""

    def fill(self, out: Memory, lo: int = 0) -> None:
        """Write the measure of the rows of x from `lo` on, as many as `out` has."""


def road_of(job: Job) -> Road:
    """Return the road of a measure, measured from all rows."""
    if job.measure.products and products.known(job.x.memory.kind):
        return Products.of(job)
    return Tiles.of(job) if job.measure.tiles else Direct(job)


def bands(job: Job, out: Memory | None) -> Iterator[tuple[int, Memory]]:
    """Yield the whole matrix, made in `out` if that is given; see `cpu.pairs.bands`."""
    shape = job.x.count, job.y.count
    out = new(shape, job.real, job.x.memory) if out is None else out
    if out.size:
        road_of(job).fill(out)
    yield 0, out


def mirror(out: Memory) -> None:
    """Do nothing: both sides of the diagonal are written at once."""


def condensed(values: Memory, out: Memory) -> None:
    """Write what is above the diagonal of a matrix as a vector."""
    n = values.shape[0]
    seam.launch(
        kernels.condensed(), n if out.size else 0, THREADS, values.stream, values.flat, n, out.flat
    )


def _settle(job: Job, out: Memory, known: int, sums: tuple[Any, ...] | None = None) -> None:
    """Finish the pairs of which so much is known, computing again what must be."""
    n, m = out.shape
    pieces = blocks(m, kernels.SETTLERS)
    if sums is None:
        nothing = seam.nothing("float64")
        sums = (nothing,) * 4 + (seam.nothing("int32"), (np.float64(0), np.float64(0)))
    seam.launch(
        kernels.settled(*job.key, known), n * pieces, kernels.SETTLERS, out.stream,
        *job.x.arguments, *job.y.arguments, job.x.width, *sums, np.float64(job.parameter),
        np.float64(job.unit), job.symmetric, n, m, pieces, *_placed(out),
    )  # fmt: skip


def _beside(job: Job, begin: int, end: int) -> Job:
    """Return the job of some rows of y: the whole job if these are all."""
    if end - begin == job.y.count:
        return job
    return replace(job, y=job.y.rows(begin, end), same=False)


def _band(job: Job, lo: int, count: int) -> Job:
    """Return the job of some rows of x: the whole job if these are all."""
    if count == job.x.count:
        return job
    return replace(job, x=job.x.rows(lo, lo + count), same=False)


def _placed(out: Memory) -> tuple[Any, ...]:
    """A matrix as kernels take it."""
    return out.flat, out.first, *out.strides


# --- pair by pair --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direct:
    """Pairs from the raw rows, in float64."""

    job: Job

    def beside(self, begin: int, end: int) -> Direct:
        """Return the road to some rows of y."""
        return Direct(_beside(self.job, begin, end))

    def fill(self, out: Memory, lo: int = 0) -> None:
        """Write the measure of some rows of x."""
        _settle(_band(self.job, lo, out.shape[0]), out, kernels.NOTHING)


# --- matrix products -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Products:
    """A matrix product, measured from the mean rows, or their references by f and by g.

    `far` is 1 if it is measured from 0.
    """

    job: Job
    references: Memory
    far: Memory

    @classmethod
    def of(cls, job: Job) -> Products:
        """Return the road; the first of two for rows far apart."""
        roads, like, width = job.measure.products, job.x.memory, job.x.width
        sides = [[job.x, job.y]] * 2 if roads[-1].shared else [[job.x], [job.y]]
        means = [_mean(side) for side in sides]
        references = new((4, width), "float64", like)
        seam.launch(
            kernels.references(roads[-1].weight, roads[-1].f, roads[-1].g),
            blocks(width, THREADS), THREADS, like.stream, means[0].flat, means[1].flat, width,
            np.float64(job.parameter), references.shaped,
        )  # fmt: skip
        always = len(roads) > 1 and not job.normalize
        made = cls(job, references, new((1,), "int32", like).filled(1 if always else 0))
        if len(roads) > 1 and not always:
            made._choose(means[0])
        return made

    @property
    def road(self) -> Product:
        """The road of rows near each other."""
        return self.job.measure.products[-1]

    @property
    def square(self) -> bool:
        """Whether rows near the mean are sums of squares, of distributions."""
        return self.road.square and self.job.normalize

    @property
    def length(self) -> int:
        """Bins of a factor."""
        return self.job.x.width * (2 if self.road.turned else 1)

    def _choose(self, mean: Memory) -> None:
        """Choose the road of rows far apart if their median distance from the mean is large."""
        # Σ p^α q^(1 - α) is 1 less about 4 α (1 - α) of the distance that is looked at: from this
        # one on that is twice what it must be
        job, far = self.job, self.job.measure.products[0]
        least = self._errors(far)[2] / max(2.0 * abs(job.parameter * (1.0 - job.parameter)), 1e-9)
        least, found = max(WIDE, float(least)), []
        for side in (job.x, job.y):
            every = max(1, side.count // kernels.LOOKED_AT)
            some = new((blocks(side.count, every),), "float64", side.memory)
            x, starts, place, totals, _ = side.arguments
            seam.launch(
                kernels.distances(side.storage), some.size, ROW_THREADS, some.stream, x, starts,
                place, totals, side.width, every, mean.flat, some.flat,
            )  # fmt: skip
            found += [some.flat, 1]
        limits = np.float64(least), np.float64(least)
        seam.launch(kernels.choice(), 1, THREADS, self.far.stream, *found, *limits, self.far.flat)

    def _errors(self, road: Product) -> tuple[Any, ...]:
        """Error of a product in units of its norms, of rows in units of their sums, and at least.

        In units of the relative accuracy that is asked for.
        """
        job, real = self.job, self.job.real
        bins, asked = PRODUCT_BINS[real], RTOL[real]
        length = PRODUCT_ERROR + 0.5 * min(self.length, bins) + math.sqrt(self.length / bins)
        error = length * EPSILON[real] / asked
        exact = PRODUCT_ERROR * EPSILON["float64"] / asked
        slack = exact + FINISH_ERROR * EPSILON[real] / asked
        growth = growth_of(job) if road.f is formulas.power_of else 1.0
        error *= growth if real == "float64" else 1.0
        if road.plain:  # a margin is below 1, so a pair whose sum may overflow is computed again
            found = RANGE[real], slack, error
        else:
            logs = max(1.0, math.log(job.x.width))
            least = growth * exact * logs
            if self.square:
                slack += exact * job.x.width / ROW_BINS
                least = growth * EPSILON["float64"] / asked * (FACTOR_ERROR + logs)
            found = abs(road.factor) * error, slack, least
        return tuple(np.dtype(real).type(v) for v in found)

    def factors(self, side: Side, of_y: bool) -> Factors:
        """Return a side's factors of the product."""
        job, road, like = self.job, self.road, side.memory
        f, also, row = (road.g, road.f, road.column) if of_y else (road.f, road.g, road.row)
        x, starts, place, totals, _ = side.arguments
        rows = x, starts, place, totals, side.width
        values = new((side.count, self.length), job.real, like)
        sums, norms = (new((side.count,), job.real, like) for _ in range(2))
        kernel = kernels.factors(
            f, also if road.turned else None, row, side.storage, job.real, of_y
        )
        seam.launch(
            kernel, side.count, ROW_THREADS, like.stream, *rows, self.far.flat,
            self.references.shaped, np.float64(job.parameter), values.flat, sums.flat, norms.flat,
        )  # fmt: skip
        words = blocks(side.width, kernels.WORD) if job.measure.infinite else 0
        empty = new((words * side.count,), "int64", like)
        holes = new((side.count if words else 0,), "int32", like).filled(0)
        seam.launch(
            kernels.supports(side.storage), side.count if words else 0, ROW_THREADS, like.stream,
            *rows, words, empty.flat, holes.flat,
        )  # fmt: skip
        return Factors(values, (sums.flat, norms.flat, holes.flat, empty.flat))

    @lazy
    def g(self) -> Factors:
        """The factors of all rows of y."""
        return self.factors(self.job.y, True)

    def beside(self, begin: int, end: int) -> Products:
        """Return the road to some rows of y."""
        return replace(self, job=_beside(self.job, begin, end))

    def fill(self, out: Memory, lo: int = 0) -> None:
        """Write the measure of some rows of x, bands of them at a time."""
        job, (n, m) = _band(self.job, lo, out.shape[0]), out.shape
        item = np.dtype(job.real).itemsize
        band = min(n, max(1, ROOM_BYTES // (item * max(m, self.length))), MOST_ROWS)
        room = self.room(band, m)
        for first in range(0, n, band):
            last = min(first + band, n)
            begin = first if job.symmetric else 0
            e, sums = self.sums(job.x.rows(first, last), begin, room)
            self._finish(job, e, sums, (first, last, begin), out)
        _settle(job, out, kernels.RESULTS)

    def room(self, n: int, m: int) -> list[Memory]:
        """Return memory for the product of so many rows."""
        parts = self.length > PRODUCT_BINS[self.job.real]
        number = 2 if parts and not products.adds(self.job.x.memory.kind) else 1
        return [new((n * m,), self.job.real, self.job.x.memory) for _ in range(number)]

    def sums(self, x: Side, begin: int, room: list[Memory]) -> tuple[Factors, Memory]:
        """Return factors of some rows of x, and their product with the rows of y from `begin`."""
        e = self.factors(x, False)
        return e, _product(e.values, between(self.g.values, begin, self.job.y.count), room)

    def error_of_half(self) -> tuple[Any, ...]:
        """Errors of half the sum, as `_errors`, twice as wide for what must not fail."""
        real = np.dtype(self.job.real).type
        error, slack, least = (real(RTOL[self.job.real]) * v for v in self._errors(self.road))
        return error, slack, real(NORMS) * least

    def _finish(
        self, job: Job, e: Factors, sums: Memory, place: tuple[int, int, int], out: Memory
    ) -> None:
        """Finish the pairs of some rows, those that must be computed again as NaN."""
        roads, real, (first, last, begin) = job.measure.products, np.dtype(job.real).type, place
        kernel = kernels.product_finishes(
            tuple((road.says, road.margin) for road in roads), self.square, job.measure.finish,
            job.measure.infinite, job.real,
        )  # fmt: skip
        grid = (
            blocks(out.shape[1] - begin, kernels.FINISHERS),
            blocks(last - first, kernels.FINISHED),
        )
        seam.launch(
            kernel, grid, kernels.FINISHERS, out.stream,
            sums.flat, *place, *e.known, *self.g.known, self.far.flat, real(self.road.factor),
            (self._errors(roads[0]), self._errors(roads[-1])), real(job.parameter),
            real(1.0 / job.unit), job.same, job.symmetric, *_placed(out),
        )  # fmt: skip


@dataclass(frozen=True)
class Factors:
    """Rows as a product reads them; and Σ row of each, norms, and supports, as kernels take them.

    `values` are rows, the other figures one after the other.
    """

    values: Memory
    known: tuple[Any, ...]


def _product(e: Memory, g: Memory, room: list[Memory]) -> Memory:
    """Return the product of rows, some of the bins at a time; `room` is for it, and for a part."""
    shape = e.shape[0], g.shape[0]
    out, *part = (replace(v, shape=shape, strides=(shape[1], 1)) for v in room)
    bins = PRODUCT_BINS[e.storage]
    for k in range(0, e.shape[1], bins):
        a, b = (_bins(v, k, min(k + bins, e.shape[1])) for v in (e, g))
        b = replace(b, shape=b.shape[::-1], strides=b.strides[::-1])
        if k:
            products.multiply_add(a, b, out, part[0] if part else None)
        else:
            products.multiply(a, b, out)
    return out


def _bins(x: Memory, lo: int, hi: int) -> Memory:
    """Return some columns of a matrix."""
    at = x.address + lo * x.dtype.itemsize
    return replace(x, address=at, shape=(x.shape[0], hi - lo))


# --- tiles ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiles:
    """A loop over all pairs, measured from the mean row or from the uniform one."""

    job: Job
    inner: str
    mean: Memory
    far: Memory
    x: Written
    y: Written

    @classmethod
    def of(cls, job: Job) -> Tiles:
        """Return the road with its rows prepared, measured from the mean unless far apart."""
        inner = job.real
        shared = job.same and job.parameter == 0.5
        x = Written.new(job.x, inner)
        y = x if shared else Written.new(job.y, inner)
        far = new((1,), "int32", job.x.memory).filled(0)
        made = cls(job, inner, _mean([job.x, job.y]), far, x, y)
        made._prepare(NEAR)
        if len(job.measure.tiles) > 1:
            made._choose()
            made._prepare(FAR)
        return made

    def road(self, which: int) -> Tile:
        """Return one of the roads."""
        return self.job.measure.tiles[-1 if which == NEAR else 0]

    @property
    def constant(self) -> float:
        """What the road of rows far apart is measured from."""
        return 2.0 ** -math.ceil(math.log2(self.job.x.width))

    @property
    def factors(self) -> tuple[Any, ...]:
        """Factor of the sum over pairs, of each road."""
        near, far = self.road(NEAR).factor, self.road(FAR).factor
        unit = seam.mathematics(self.inner).log_unit
        return np.float64(near), np.float64(far * self.constant * unit)

    def _errors(self, road: Tile) -> tuple[Any, ...]:
        """Half of what a pair's sum must reach: of all rows, by their sums, by their distances."""
        length = 1.0 + self.job.x.width / 1024.0
        all_of_them = PRODUCT_ERROR * EPSILON["float64"] * length
        by_sum = by_distance = 0.0
        if road.uniform:
            by_sum = UNIFORM_ERROR[self.inner] * (length if self.inner == "float64" else 1.0)
            all_of_them += by_sum
        elif road.row is formulas.nothing:
            by_distance = TILE_ERROR["float64"] * EPSILON[self.inner]
        else:
            by_sum = TILE_ERROR[self.inner] * EPSILON[self.inner]
        return tuple(
            np.float64(v / RTOL[self.job.real]) for v in (all_of_them, by_sum, by_distance)
        )

    def _prepare(self, which: int) -> None:
        road, (own, other) = self.road(which), formulas.shares(self.job.parameter)
        sides = [(self.job.x, self.x, own), (self.job.y, self.y, other)]
        for side, written, share in sides[:1] if self.x is self.y else sides:
            kernel = kernels.tile_rows(
                road.prepare, road.row, side.storage, self.inner, road.uniform
            )
            x, starts, place, totals, _ = side.arguments
            seam.launch(
                kernel, blocks(side.count, kernels.TILE) * kernels.TILE, ROW_THREADS,
                side.memory.stream, x, starts, place, totals, side.width, written.padded,
                self.far.flat, ANY if which == NEAR else FAR, self.mean.flat,
                np.float64(self.constant), np.float64(share), self._errors(road),
                written.values.flat, written.sums.flat, written.bounds.flat,
            )  # fmt: skip

    def _choose(self) -> None:
        """Choose the road of rows far apart if the median divergence from the mean is large."""
        x, y, (own, other) = self.x.sums, self.y.sums, formulas.shares(self.job.parameter)
        steps = [max(1, v.size // kernels.LOOKED_AT) for v in (x, y)]
        seam.launch(
            kernels.choice(), 1, THREADS, x.stream, x.flat, steps[0], y.flat, steps[1],
            np.float64(WIDE * own), np.float64(WIDE * other), self.far.flat,
        )  # fmt: skip

    def beside(self, begin: int, end: int) -> Tiles:
        """Return the road to some rows of y, whole tiles but for the last."""
        return replace(self, job=_beside(self.job, begin, end), y=self.y.rows(begin, end))

    def fill(self, out: Memory, lo: int = 0) -> None:
        """Write the measure of some rows of x, from whole tiles on: Σ term of their pairs first."""
        n, m = out.shape
        job, x = _band(self.job, lo, n), self.x.rows(lo, lo + n)
        down, across = (blocks(count, kernels.TILE) for count in (n, m))
        reference = as_result(self.mean, self.inner)
        roads = [(NEAR, ANY)] if len(job.measure.tiles) == 1 else [(NEAR, NEAR), (FAR, FAR)]
        for which, wanted in roads:
            road = self.road(which)
            seam.launch(
                kernels.tiles(road.term, self.inner, road.uniform), down * across,
                kernels.THREADS, out.stream, x.values.flat, self.y.values.flat, reference.flat,
                x.padded, self.far.flat, wanted, across, job.symmetric, n, m, *_placed(out),
            )  # fmt: skip
        of_x, of_y = (x.sums.flat, x.bounds.flat), (self.y.sums.flat, self.y.bounds.flat)
        figures = of_x[0], of_y[0], of_x[1], of_y[1]
        _settle(job, out, kernels.SUMS, (*figures, self.far.flat, self.factors))


@dataclass(frozen=True)
class Written:
    """Rows as the loop reads them, Σ row of each, and half of what a pair must reach."""

    values: Memory
    sums: Memory
    bounds: Memory
    padded: int

    @classmethod
    def new(cls, side: Side, inner: str) -> Written:
        """Return memory for the rows of a side."""
        padded = _padded(side.width)
        whole = blocks(side.count, kernels.TILE) * kernels.TILE
        sums, bounds = (new((side.count,), "float64", side.memory) for _ in range(2))
        return cls(new((whole * padded,), inner, side.memory), sums, bounds, padded)

    def rows(self, lo: int, hi: int) -> Written:
        """Return some of the rows, from a whole tile on."""
        last = blocks(hi, kernels.TILE) * kernels.TILE
        values = between(self.values, lo * self.padded, last * self.padded)
        return Written(
            values, between(self.sums, lo, hi), between(self.bounds, lo, hi), self.padded
        )


def _padded(width: int) -> int:
    return blocks(width, kernels.BINS) * kernels.BINS


def _mean(sides: list[Side]) -> Memory:
    """Return the mean distribution over the valid rows of sides, with zeros after the last bin."""
    x, width = sides[0].memory, sides[0].width
    sums = [_sums(side) for side in (sides[:1] if sides[0] is sides[-1] else sides)]
    none = new((0, width + 1), "float64", x)
    mean = new((_padded(width),), "float64", x).filled(0.0)
    seam.launch(
        kernels.means(), blocks(width, THREADS), THREADS, x.stream, sums[0].shaped,
        (sums[1] if len(sums) > 1 else none).shaped, width, mean.flat,
    )  # fmt: skip
    return mean


def _sums(side: Side) -> Memory:
    parts = blocks(side.count, kernels.MEAN_ROWS)
    sums = new((parts, side.width + 1), "float64", side.memory)
    x, starts, place, totals, _ = side.arguments
    grid = parts * blocks(side.width + 1, THREADS)
    seam.launch(
        kernels.sums_of_bins(side.storage), grid, THREADS, side.memory.stream, x, starts, place,
        totals, side.width, sums.shaped,
    )  # fmt: skip
    return sums
