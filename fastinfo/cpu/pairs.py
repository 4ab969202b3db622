"""Matrices of a measure between all pairs of rows, on the processor.

The result is made a band of rows at a time, in place where `out` allows. A road (see
`catalogue.py`) gives each pair's sum with a known error; pairs too small for theirs are computed
again. What a road measures from is found once, over all rows; then it fills a band of the rows of x
beside any stretch of the rows of y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastinfo import arrays, formulas
from fastinfo.arrays import Rows
from fastinfo.catalogue import Measure, Product, Sum, Tile
from fastinfo.cpu import pair_kernels as kernels
from fastinfo.cpu.bins import Divisors
from fastinfo.cpu.tiles import stretch
from fastinfo.cpu.vmath import STORAGE
from fastinfo.engine import run

# Rows of a band; and most of a matrix product, for which BLAS reads all of y anew (4 % more time
# with bands of 1024), as long as no array beside the result is larger than what malloc keeps.
BAND, PRODUCT_BAND, KEPT_BYTES = 1024, 4096, 1 << 25
# Rows of no more bins are taken side by side, and of FEW in float64: their pairs are so often near
# each other that computing those again would take most of the time.
NARROW, FEW = 128, 4
# Rows of the matrix a thread finishes at a time, and rows it prepares.
TILE_ROWS = 16
PREPARE_ROWS = 64
EPSILON = {"float32": 2.0**-24, "float64": 2.0**-53}
RANGE = {"float32": 2.0**-120, "float64": 2.0**-1000}
RTOL = {"float32": 2e-5, "float64": 1e-12}
# Errors that decide what is computed again: of a matrix product in units of the norms it
# multiplies, of a tile in units of Σ |row| (or of the norm of p - r), of sums in float64 in units
# of 1 + K / 1024. Tried for K from 3 to 10**5 on rows far apart, alike, peaked and of few values:
# raw JS sums stayed below 0.62 of their bounds; of products only results were compared (with 4.0 in
# place of 8.0 a float32 Hellinger distance at K = 20000 came to 0.93 of what is allowed).
PRODUCT_ERROR = 8.0
# ... and what a product adds with the root of its bins: BLAS adds up so many at a time in one
# number. Of rows of one sign against themselves, half a million pairs of 300 bins, the worst errors
# were 20 of values drawn evenly, and 30 of two values: the bound of neighbours is twice as wide.
PRODUCT_GROWTH, BLAS_BINS = 0.75, 320
# Bins of a product at a time. BLAS adds thousands up in one float32: of rows of few values, or of
# long constant stretches, whose roundings all go one way, float32 results from 10**5 bins at once
# came to 2.8 of what is allowed, from 2048 at a time to 1.1, from 1024 to 0.6.
PRODUCT_BINS = 1024
# Of a product of powers as they are, all positive, in units of its own size, 1 and the root of
# these bins: 6 at 300 bins, 28 at 2000 were measured, of rows of the values 1 and 100 (orders 0.1
# to 1.1). Roads are chosen so that it is small beside most results.
PLAIN_ERROR, PLAIN_GROWTH = 8.0, 0.75
# Powers are as exact as the logarithm times the exponent, which counts in what is in float64: of
# float32 rows that differ by 1e-7 at order 300 a matrix was off by 1e-4, until it was counted.
POWER_ERROR = 40.0
# Of rows that are sums of squares: error of a factor in units of its norm, beside the logarithm
# of the bins; and bins whose addition, roundings all one way, adds as much as one. Measured: 2 to
# 7 for KL, Jeffreys and Hellinger, 3 to 200000 bins, noise and few values; 9 at order 0.3, 22 at 5.
FACTOR_ERROR, ROW_BINS = 6.0, 128.0
# ... and what is known of a norm: bins are rounded before their mean is subtracted.
RESOLUTION = 4.0 * EPSILON["float64"]
# Most that two norms of roots of distributions less those of their mean are together, 2 √2.
NORMS = 3.0
TILE_ERROR = 16.0
# Error of a tile measured from the uniform distribution, in units of 1 + Σ |row|; and the median
# divergence from the mean row from which that is small beside most results.
UNIFORM_ERROR = {"float32": 4e-7, "float64": 1e-15}
WIDE = 0.1


@dataclass(frozen=True)
class Side:
    """The rows of one argument as kernels read them, and what they are divided by."""

    memory: np.ndarray
    starts: np.ndarray
    width: int
    storage: str
    totals: np.ndarray
    rests: np.ndarray
    valid: np.ndarray

    @classmethod
    def of(cls, rows: Rows, divisors: Divisors) -> Side:
        """Return a side; rows whose divisor is 0 or NaN are no distributions."""
        memory, starts = stretch(rows, 0, rows.count, 0, rows.width)
        valid = np.isfinite(divisors.rounded) & (divisors.rounded != 0.0)
        return cls(memory, starts, rows.width, rows.storage, divisors.rounded, divisors.rest, valid)

    def rows(self, which: slice) -> Side:
        """Some of the rows."""
        some = (v[which].copy() for v in (self.starts, self.totals, self.rests, self.valid))
        return Side(self.memory, next(some), self.width, self.storage, *some)

    def road(self, job: Job) -> Road:
        """Return the road of a measure of such rows, measured from all of them."""
        if job.measure.products:
            return Products.of(job)
        return Tiles.of(job) if job.measure.tiles else Direct(job)

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.starts.size

    @property
    def arguments(self) -> tuple[np.ndarray, ...]:
        """Rows as kernels take them."""
        return self.memory, self.starts, self.totals, self.rests


@dataclass(frozen=True)
class Job:
    """What is asked for."""

    measure: Measure
    x: Any  # a `Side`, or both a `sparse.SparseSide`
    y: Any
    same: bool
    real: str
    parameter: float
    unit: float
    normalize: bool
    # Whether a symmetric matrix may be computed by half.
    half: bool = True

    @property
    def total(self) -> Sum:
        """What the bins of two raw rows add up to."""
        return self.measure.total_for(self.normalize)

    @property
    def symmetric(self) -> bool:
        """Whether half of the matrix is enough."""
        return self.half and self.same and self.measure.symmetric

    @property
    def key(self) -> tuple[Any, ...]:
        """What kernels that compute pairs from the raw rows are made for."""
        return self.total, self.measure.finish, self.x.storage, self.y.storage, self.real


class Road(Protocol):
    """A way to all pairs."""

    def block(self, begin: int, end: int) -> Fill:
        """Return what fills bands beside the rows [begin, end) of y."""


# Write the measure of the rows of x from `lo` on, as many as `band` has, and the rows of a block.
Fill = Callable[[int, np.ndarray], None]


def bands(job: Job, out: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row and the values of each band; views of `out` if that can be written to.

    Of a symmetric matrix only what is on and above the diagonal is computed.
    """
    shape = (job.x.count, job.y.count)
    fill = job.x.road(job).block(0, shape[1])
    direct = out is not None and out.flags.c_contiguous and not isinstance(out, np.memmap)
    rows = _rows_of_band(job, direct)
    for lo in range(0, shape[0], rows):
        hi = min(lo + rows, shape[0])
        band = out[lo:hi] if direct and out is not None else np.empty((hi - lo, shape[1]), job.real)
        fill(lo, band)
        yield lo, band


def _rows_of_band(job: Job, direct: bool) -> int:
    """How many rows of the matrix are made at a time."""
    products = job.measure.products
    if job.symmetric or not products:
        return BAND
    width = job.x.width * (2 if products[-1].turned else 1)
    beside = 0 if direct and width <= PRODUCT_BINS else job.y.count
    rows = KEPT_BYTES // (np.dtype(job.real).itemsize * max(width, beside))
    return min(max(BAND, rows), PRODUCT_BAND)


def mirror(out: np.ndarray) -> None:
    """Copy what is above the diagonal to below it."""
    step = 512
    for i in range(0, out.shape[0], step):
        corner = out[i : i + step, i : i + step]
        corner[...] = np.where(np.tri(len(corner), k=-1, dtype=bool), corner.T, corner)
        for j in range(i + step, out.shape[0], step):
            out[j : j + step, i : i + step] = out[i : i + step, j : j + step].T


# --- what roads prepare --------------------------------------------------------------------------


def _mean(sides: list[Side]) -> np.ndarray:
    """Return the mean distribution over all valid rows of the sides."""
    width = sides[0].width
    parts: list[tuple[int, int, int]] = []
    step = max(PREPARE_ROWS, -(-max(s.count for s in sides) // 64))
    for number, side in enumerate(sides):
        parts += [(number, lo, min(lo + step, side.count)) for lo in range(0, side.count, step)]
    sums = np.zeros((len(parts), width))

    def task(first: int, last: int) -> None:
        for part in range(first, last):
            number, lo, hi = parts[part]
            side = sides[number]
            kernels.sums_of_bins(side.storage)(
                side.memory, side.starts[lo:hi], width, side.totals[lo:hi], side.valid[lo:hi],
                sums[part],
            )  # fmt: skip

    run(task, len(parts), 1)
    with np.errstate(over="ignore"):  # such rows are computed again
        return sums.sum(axis=0) / max(1, sum(np.count_nonzero(side.valid) for side in sides))


def _prepare(
    side: Side, kernel: Callable[..., Any], written: np.ndarray, *given: object
) -> tuple[Any, ...]:
    """Call a kernel that writes, for each row, what a road reads; return two figures of each."""
    rows, norms = np.empty(side.count), np.empty(side.count)

    def task(lo: int, hi: int) -> None:
        kernel(
            side.memory, side.starts[lo:hi], side.width, side.totals[lo:hi], side.valid[lo:hi],
            *given, written[lo:hi], rows[lo:hi], norms[lo:hi],
        )  # fmt: skip

    run(task, side.count, PREPARE_ROWS, side.count)
    return rows, norms


def _sample(side: Side) -> Side:
    """Some of the rows, from which a road is chosen."""
    return side.rows(slice(None, None, max(1, side.count // 64)))


def _median_of(samples: list[np.ndarray]) -> float:
    """Median over rows that are distributions, 0 if there are none."""
    known = np.concatenate(samples)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if known.size else 0.0


# --- pair by pair --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direct:
    """Pairs from the raw rows, in float64."""

    job: Job

    def block(self, begin: int, end: int) -> Fill:
        """Return what fills bands beside the rows [begin, end) of y."""
        job = self.job
        y, loop = job.y.rows(slice(begin, end)), kernels.values(*job.key)

        def fill(lo: int, band: np.ndarray) -> None:
            x = job.x.rows(slice(lo, lo + len(band)))

            def task(first: int, last: int) -> None:
                loop(
                    first, lo, begin, *x.arguments, *y.arguments, x.width, job.parameter, job.unit,
                    job.symmetric, band[first:last],
                )  # fmt: skip

            run(task, len(band), 1)

        return fill


# --- matrix products -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Products:
    """A matrix product, measured from the mean rows, or their references by f and by g."""

    job: Job
    road: Product
    weights: np.ndarray
    mean: np.ndarray
    f_mean: np.ndarray
    g_mean: np.ndarray
    # What a row sums to, and how large logarithms are; of the means if they are no distributions.
    total: float
    logarithm: float

    @classmethod
    def of(cls, job: Job) -> Products:
        """Return the road; the first of two for rows far apart."""
        roads = job.measure.products
        means = (
            [_mean([job.x, job.y])] * 2 if roads[-1].shared else [_mean([job.x]), _mean([job.y])]
        )
        road = roads[-1]
        if len(roads) > 1:
            # Σ p^α q^(1 - α) is 1 less about 4 α (1 - α) of the distance that is looked at
            least = _plain_error(job) / max(abs(job.parameter * (1.0 - job.parameter)), 1e-9)
            far = not job.normalize or _are_far(job, means[0], max(WIDE, least))
            road = roads[0] if far else road
        weights = np.empty_like(means[0])
        kernels.weights(road.weight)(means[0], job.parameter, weights)
        f_mean, g_mean = (
            _reference(f, mean, weights, job.parameter)
            for f, mean in zip((road.f, road.g), means, strict=True)
        )
        total, logarithm = 1.0, float(np.log(job.x.width))
        if not job.normalize:
            filled = np.concatenate([mean[mean > 0.0] for mean in means])
            with np.errstate(over="ignore"):
                total = float(max(mean.sum() for mean in means))
            # two are subtracted, and few bins leave nothing to average
            logarithm = 2.0 * float(np.abs(np.log(filled)).max(initial=0.0))
        return cls(job, road, weights, means[0], f_mean, g_mean, total, logarithm)

    @property
    def beside_norms(self) -> float | None:
        """What is added to a norm that errors in float64 are in proportion to; None if to none.

        √total norm + total is at least what a row sums to (Cauchy and Schwarz).
        """
        if self.road.plain or (self.job.normalize and not self.road.square):
            return None
        return (RESOLUTION if self.road.square else 1.0) * float(np.sqrt(self.total))

    def factors(self, side: Side, of_y: bool, written: np.ndarray) -> tuple[Any, ...]:
        """Write a side's factors of the product; return what its rows add, and their norms."""
        road, real, width = self.road, self.job.real, side.width
        f, g = (road.f, self.f_mean), (road.g, self.g_mean)
        ways = [(g, road.column)] if of_y else [(f, road.row)]
        if road.turned:
            ways.append((f if of_y else g, formulas.no_row))
        rows, squares = np.zeros(side.count), np.zeros(side.count)
        for at, ((function, mean), row) in enumerate(ways):
            kernel = kernels.factors(function, row, side.storage, real)
            own = np.zeros(width) if road.plain else mean
            added, norms = _prepare(
                side, kernel, written, self.weights, self.mean, self.f_mean, self.g_mean, own,
                self.job.parameter, at * width,
            )  # fmt: skip
            rows += added
            squares += norms * norms
        return rows, np.sqrt(squares)

    def block(self, begin: int, end: int) -> Fill:
        """Return what fills bands beside the rows [begin, end) of y."""
        job, road = self.job, self.road
        x_side, y = job.x, job.y.rows(slice(begin, end))
        width = y.width * (2 if road.turned else 1)
        g = np.empty((y.count, width), job.real)
        y_rows, y_norms = self.factors(y, True, g)
        error, slack, floor = self._errors()
        y_floor = 0.0 if self.beside_norms is None else floor
        y_bounds, y_slacks = self._bounds(y_rows, y_norms, 1.0, slack, y_floor)
        y_supports = _supports(y) if job.measure.infinite else _NO_SUPPORTS
        finish = kernels.product_finishes(
            job.total, road.says, road.margin, job.measure.finish, x_side.storage, y.storage,
            job.real,
        )  # fmt: skip

        def fill(lo: int, band: np.ndarray) -> None:
            x = x_side.rows(slice(lo, lo + len(band)))
            e = np.empty((len(band), width), job.real)
            x_rows, x_norms = self.factors(x, False, e)
            x_bounds, x_slacks = self._bounds(x_rows, x_norms, error, slack, floor)
            supports = _together(x, y_supports, job.measure.infinite)
            # of a symmetric matrix what is right of the band's first row
            first = max(0, lo - begin) if job.symmetric else 0
            right = band[:, first:]
            with np.errstate(all="ignore"):  # powers may overflow: those rows are computed again
                multiply(e, g[first:], right)
            y_part = y.rows(slice(first, None))
            y_holes, y_filled, y_empty = (s[first:] for s in supports[1])
            room = min(kernels.FINISHED, max(1, right.shape[1]))

            def task(lowest: int, last: int) -> None:
                finish(
                    lowest, lo, begin + first, road.factor, x_rows, y_rows[first:], x_bounds,
                    y_bounds[first:], x_slacks, y_slacks[first:], supports[0][0], y_holes,
                    supports[0][1], supports[0][2], y_filled, y_empty, *x.arguments,
                    *y_part.arguments, x.width, job.parameter, job.unit, job.same,
                    arrays.empty((room,), job.real), first, band[lowest:last],
                )  # fmt: skip

            run(task, len(band), TILE_ROWS, len(band))

        return fill

    def error_of_half(self) -> tuple[float, float]:
        """Error of half the sum, in units of its norms, and at least, for what must not fail."""
        asked = RTOL[self.job.real]
        error, slack, floor = self._errors()
        return asked * error, asked * (NORMS * floor + 2.0 * slack)

    def _errors(self) -> tuple[float, float, float]:
        """Error of a product in units of its norms, of rows in units of their sums, and at least.

        In units of the relative accuracy that is asked for.
        """
        job, road, width = self.job, self.road, self.job.x.width
        asked = RTOL[job.real]
        exact, logarithm = EPSILON["float64"] / asked, max(1.0, self.logarithm)
        slack = PRODUCT_ERROR * exact
        if road.plain:  # a margin is below 1, so a pair whose sum may overflow is computed again
            return RANGE[job.real], slack, _plain_error(job)
        length = PRODUCT_GROWTH * np.sqrt(min(width, BLAS_BINS))
        unit = abs(road.factor) * (PRODUCT_ERROR + length) * EPSILON[job.real] / asked
        growth = growth_of(job) if road.f is formulas.power_of else 1.0
        error = (growth if job.real == "float64" else 1.0) * unit
        of_norms = growth * exact * np.sqrt(self.total)
        if self.road.square:
            return error, slack * (1.0 + width / ROW_BINS), of_norms * (FACTOR_ERROR + logarithm)
        return error, slack, of_norms * PRODUCT_ERROR * logarithm

    def _bounds(
        self, rows: np.ndarray, norms: np.ndarray, error: float, slack: float, floor: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a pair's margin must reach: a product of two of the first, and two of the second.

        Where rows are sums of squares, a bin's rounding counts by its distance from the mean; where
        they are no distributions, by its size.
        """
        beyond, real = np.isinf(norms), self.job.real
        most, sizes = np.finfo(real).max, np.where(beyond, 0.0, norms)
        bounds = np.minimum(error * sizes, most)
        least = floor if self.beside_norms is None else floor * (sizes + self.beside_norms)
        slacks = np.minimum(slack * np.abs(rows) + least, most)
        return bounds.astype(real), np.where(beyond, np.inf, slacks).astype(real)


def growth_of(job: Job) -> float:
    """How many times the error in float64 of a sum of powers is that of others."""
    exponent = max(job.parameter, abs(1.0 - job.parameter))
    return 1.0 + POWER_ERROR * exponent / PRODUCT_ERROR


def _plain_error(job: Job) -> float:
    """Relative error of a product of powers as they are, in units of what is asked for."""
    error = PLAIN_ERROR + PLAIN_GROWTH * np.sqrt(min(job.x.width, PRODUCT_BINS))
    growth = growth_of(job) if job.real == "float64" else 1.0
    return float(growth * error * EPSILON[job.real] / RTOL[job.real])


def multiply(e: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
    """Write the product of rows, some of the bins at a time."""
    np.matmul(e[:, :PRODUCT_BINS], g[:, :PRODUCT_BINS].T, out=out)
    part = np.empty_like(out) if e.shape[1] > PRODUCT_BINS else out
    for k in range(PRODUCT_BINS, e.shape[1], PRODUCT_BINS):
        np.matmul(e[:, k : k + PRODUCT_BINS], g[:, k : k + PRODUCT_BINS].T, out=part)
        out += part


def _are_far(job: Job, mean: np.ndarray, least: float) -> bool:
    """Whether a median row is so far from the mean that pairs are not nearly equal."""
    root, row = formulas.root_of, formulas.hellinger_row
    reference = _reference(root, mean, mean, 0.0)
    distances = []
    for side in (job.x, job.y):
        some = _sample(side)
        kernel = kernels.factors(root, row, some.storage, job.real)
        room = np.empty((some.count, some.width), job.real)
        distances.append(_prepare(some, kernel, room, *[reference] * 5, 0.0, 0)[0])
    return _median_of(distances) > least


def _reference(
    function: Callable[..., Any], mean: np.ndarray, weights: np.ndarray, parameter: float
) -> np.ndarray:
    """Return what a factor is measured from: its function of the mean distribution."""
    out = np.empty_like(mean)
    kernels.references(function)(mean, weights, parameter, out)
    return out


# Which rows have empty bins, bits of the bins that are filled, and of those that are empty.
Supports = tuple[np.ndarray, np.ndarray, np.ndarray]
_NO_BITS = np.empty((0, 0), np.uint64)
_NO_SUPPORTS = (np.empty(0, np.bool_), _NO_BITS, _NO_BITS)


def _supports(side: Side) -> Supports:
    """Return the supports of rows."""
    words = np.zeros((2, side.count, -(-side.width // 64)), np.uint64)
    empty, filled = words.view(np.uint8)
    write = kernels.zeros(side.storage)

    def task(lo: int, hi: int) -> None:
        write(
            side.memory, side.starts[lo:hi], side.width, side.totals[lo:hi], empty[lo:hi],
            filled[lo:hi],
        )  # fmt: skip

    run(task, side.count, PREPARE_ROWS, side.count)
    return np.asarray(words[0].any(axis=1)), words[1], words[0]


def _together(x: Side, of_y: Supports, infinite: str) -> tuple[Supports, Supports]:
    """What a pair's supports are tested by: those of x, and of y; nothing if none has empty bins.

    If only p > 0 over q = 0 is infinite, x has no empty bins that count, and y no filled ones.
    """
    holes, _, empty = of_y
    both = infinite == "both"
    if not both and not holes.any():
        return _NO_SUPPORTS, _NO_SUPPORTS
    of_x = _supports(x)
    if both:
        return (of_x, of_y) if holes.any() or of_x[0].any() else (_NO_SUPPORTS, _NO_SUPPORTS)
    return (np.zeros(x.count, np.bool_), of_x[1], _NO_BITS), (holes, _NO_BITS, empty)


# --- tiles ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiles:
    """A loop over all pairs, measured from the mean row or from the uniform one."""

    job: Job
    road: Tile
    mean: np.ndarray
    factor: float

    @classmethod
    def of(cls, job: Job) -> Tiles:
        """Return the road; of two the second, measured from the mean, unless rows are far apart."""
        sides, roads = [job.x] if job.same else [job.x, job.y], job.measure.tiles
        mean, road = _mean(sides), roads[-1]
        if len(roads) > 1:
            some = [cls(job, road, mean, 0.0).rows(_sample(side), 0.5)[1] for side in sides]
            road = roads[0] if 2.0 * _median_of(some) > WIDE else road
        if not road.uniform:
            return cls(job, road, mean, road.factor)
        constant = 2.0 ** -np.ceil(np.log2(job.x.width))
        factor = road.factor * constant * STORAGE[_inner(job)][0].log_unit
        return cls(job, road, np.full_like(mean, constant), factor)

    @property
    def narrow(self) -> bool:
        """Whether rows have so few bins that pairs, not bins, lie side by side in a vector."""
        return self.job.x.width <= NARROW

    def rows(self, side: Side, weight: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows as the loop reads them, Σ row of each, and half of what a pair must reach."""
        inner = _inner(self.job)
        kernel = kernels.tile_rows(self.road.prepare, self.road.row, side.storage, inner)
        written = np.empty((side.count, side.width), inner)
        rows, spreads = _prepare(side, kernel, written, self.mean, weight)
        return written, rows, self._bounds(rows, spreads)

    def block(self, begin: int, end: int) -> Fill:
        """Return what fills bands beside the rows [begin, end) of y."""
        job, road = self.job, self.road
        y, weight = job.y.rows(slice(begin, end)), job.parameter
        own, other = formulas.shares(weight)
        b, b_rows, b_bounds = self.rows(y, other)
        shared = job.same and weight == 0.5 and begin == 0 and end == job.y.count
        reference = self.mean.astype(_inner(job))
        if self.narrow:
            loop = kernels.narrow_tiles(road.term, *job.key, _inner(job))
            length = kernels.NARROW_COLUMNS
            columns = np.zeros((b.shape[1], b.shape[0] + kernels.BESIDE), b.dtype)
            columns[:, : b.shape[0]] = b.T
        else:
            loop, columns, length = kernels.tiles(road.term, *job.key), b, kernels.COLUMNS

        def fill(lo: int, band: np.ndarray) -> None:
            which = slice(lo, lo + len(band))
            x = job.x.rows(which)
            if shared:
                a, a_rows, a_bounds = b[which], b_rows[which], b_bounds[which]
            else:
                a, a_rows, a_bounds = self.rows(x, own)

            def task(first: int, last: int) -> None:
                loop(
                    first, lo, begin, a, columns, reference, a_rows, b_rows, a_bounds, b_bounds,
                    self.factor, *x.arguments, *y.arguments, x.width, weight, job.unit,
                    job.symmetric, arrays.empty((2, length), "float64"), band[first:last],
                )  # fmt: skip

            run(task, len(band), TILE_ROWS)

        return fill

    def _bounds(self, rows: np.ndarray, spreads: np.ndarray) -> np.ndarray:
        """Half of what a pair's sum must reach to be accurate enough, from each of its rows."""
        real, length = _inner(self.job), 1.0 + self.job.x.width / 1024.0
        floor = PRODUCT_ERROR * EPSILON["float64"] * length
        magnitude = np.abs(rows)
        if self.road.uniform:
            error = UNIFORM_ERROR[real] * (1.0 + magnitude)
            error *= length if real == "float64" else 1.0
        elif self.road.row is formulas.nothing:
            error = TILE_ERROR * EPSILON[real] * spreads
        else:  # what is rounded in a bin counts by its distance from the mean
            error = TILE_ERROR * EPSILON[real] * magnitude
            floor *= np.sqrt(magnitude)
        return (error + floor) / RTOL[self.job.real]


def _inner(job: Job) -> str:
    """Type that tiles compute in."""
    return "float64" if job.x.width <= FEW else job.real
