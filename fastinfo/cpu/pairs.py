"""Matrices of a measure between all pairs of rows, on the processor.

The result is made a band of rows at a time, in place where `out` allows. A road (see
`catalogue.py`) gives each pair's sum with a known error; pairs too small for theirs are computed
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fastinfo import arrays, formulas
from fastinfo.arrays import Rows
from fastinfo.catalogue import Measure, Tile
from fastinfo.cpu import pair_kernels as kernels
from fastinfo.cpu.bins import Divisors
from fastinfo.cpu.tiles import stretch
from fastinfo.cpu.vmath import STORAGE
from fastinfo.engine import get_num_threads, run

# Rows of a band: 512 and more keep the matrix product at full speed.
BAND = 1024
# Rows of the matrix a thread finishes at a time, and rows it prepares.
TILE_ROWS = 16
PREPARE_ROWS = 64
EPSILON = {"float32": 2.0**-24, "float64": 2.0**-53}
RTOL = {"float32": 2e-5, "float64": 1e-12}
# Errors that decide what is computed again: of a matrix product in units of the norms it
# multiplies, of a tile in units of Σ |row| (or of the norm of p - r), of sums in float64 in units
# of 1 + K / 1024. Tried for K from 3 to 10**5 on rows far apart, alike, peaked and of few values:
# raw JS sums stayed below 0.62 of their bounds; of products only results were compared (with 4.0 in
# place of 8.0 a float32 Hellinger distance at K = 20000 came to 0.93 of what is allowed).
PRODUCT_ERROR = 8.0
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
    x: Side
    y: Side
    same: bool
    real: str
    parameter: float
    unit: float
    normalize: bool

    @property
    def direct(self) -> Callable:
        """The term of a bin, computed from the raw rows."""
        return self.measure.term_for(self.normalize)

    @property
    def symmetric(self) -> bool:
        """Whether half of the matrix is enough."""
        return self.same and self.measure.symmetric and self.parameter == 0.5


def bands(job: Job, out: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row and the values of each band; views of `out` if that can be written to.

    Of a symmetric matrix only what is on and above the diagonal is computed.
    """
    shape = (job.x.count, job.y.count)
    fill = _product(job) if job.measure.product else _tiles(job)
    direct = out is not None and out.flags.c_contiguous and not isinstance(out, np.memmap)
    for lo in range(0, shape[0], BAND):
        hi = min(lo + BAND, shape[0])
        band = out[lo:hi] if direct and out is not None else np.empty((hi - lo, shape[1]), job.real)
        fill(lo, band)
        yield lo, band


def mirror(out: np.ndarray) -> None:
    """Copy what is above the diagonal to below it."""
    step = 512
    for i in range(0, out.shape[0], step):
        corner = out[i : i + step, i : i + step]
        corner[...] = np.triu(corner) + np.triu(corner, 1).T
        for j in range(i + step, out.shape[0], step):
            out[j : j + step, i : i + step] = out[i : i + step, j : j + step].T


# --- what both roads prepare ---------------------------------------------------------------------


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
    return sums.sum(axis=0) / max(1, sum(np.count_nonzero(side.valid) for side in sides))


def _reference(function: Callable, mean: np.ndarray) -> np.ndarray:
    """Return what a factor is measured from: its function of the mean distribution."""
    out = np.empty_like(mean)
    kernels.references(function)(mean, out)
    return out


def _prepare(
    side: Side, kernel: Callable, real: str, *given: object, out: np.ndarray | None = None
) -> tuple:
    """Call a kernel that writes, for each row, what a road reads and two figures of it."""
    written = np.empty((side.count, side.width), real) if out is None else out[: side.count]
    rows, norms = np.empty(side.count), np.empty(side.count)

    def task(lo: int, hi: int) -> None:
        kernel(
            side.memory, side.starts[lo:hi], side.width, side.totals[lo:hi], side.valid[lo:hi],
            *given, written[lo:hi], rows[lo:hi], norms[lo:hi],
        )  # fmt: skip

    run(task, side.count, PREPARE_ROWS, side.count)
    return written, rows, norms


# --- matrix products -----------------------------------------------------------------------------


def _product(job: Job) -> Callable[[int, np.ndarray], None]:
    """Return what fills a band by a matrix product."""
    road, real = job.measure.product, job.real
    assert road is not None
    if road.f is road.g:  # a squared difference: both sides from one mean
        f_mean = g_mean = _reference(road.f, _mean([job.x, job.y]))
    else:
        f_mean = _reference(road.f, _mean([job.x]))
        g_mean = _reference(road.g, _mean([job.y]))
    write_x = kernels.factors(road.f, road.row, job.x.storage, real)
    write_y = kernels.factors(road.g, road.column, job.y.storage, real)
    f, y_rows, y_norms = _prepare(job.y, write_y, real, g_mean, f_mean, g_mean)
    filled, empty, holes = _supports(job)
    x_error = road.factor * PRODUCT_ERROR * EPSILON[real] / RTOL[real]
    slack = PRODUCT_ERROR * EPSILON["float64"] / RTOL[real]
    floor, y_slacks = slack * max(1.0, np.log(job.x.width)), slack * np.abs(y_rows)
    finish = kernels.product_finishes(
        job.direct, job.measure.finish, job.x.storage, job.y.storage, real
    )
    factors = np.empty((min(BAND, job.x.count), job.x.width), real)

    def fill(lo: int, band: np.ndarray) -> None:
        own = job.x.rows(slice(lo, lo + band.shape[0]))
        e, x_rows, x_norms = _prepare(own, write_x, real, f_mean, f_mean, g_mean, out=factors)
        np.matmul(e, f.T, out=band)

        def task(first: int, last: int) -> None:
            finish(
                first, lo, road.factor, x_rows, y_rows, x_error * x_norms, y_norms,
                slack * np.abs(x_rows) + floor, y_slacks, filled[lo:], empty, holes, *own.arguments,
                *job.y.arguments, job.x.width, job.parameter, job.unit, job.same,
                arrays.empty((kernels.FINISHED,), "float64"), band[first:last],
            )  # fmt: skip

        run(task, band.shape[0], TILE_ROWS, band.shape[0], _beside_blas())

    return fill


def _beside_blas() -> int:
    """How many threads finish a product.

    BLAS keeps its threads spinning for 0.1 s, and a thread of ours gets half of such a core: of two
    threads the second is no gain here, where memory is the limit.
    """
    threads = get_num_threads()
    return threads if threads > 2 else 1


def _supports(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits of the bins filled in rows of x, empty in rows of y, and which rows have empty bins."""
    none = np.empty((0, 0), np.uint64), np.empty((0, 0), np.uint64), np.empty(0, np.bool_)
    if not job.measure.needs_support:
        return none
    empty, _ = _bits(job.y)
    holes = np.asarray(empty.any(axis=1))
    if not holes.any():
        return none
    return _bits(job.x)[1], empty, holes


def _bits(side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Bits of the empty bins of rows, and of the filled ones."""
    words = np.zeros((2, side.count, -(-side.width // 64)), np.uint64)
    empty, filled = words.view(np.uint8)
    write = kernels.zeros(side.storage)

    def task(lo: int, hi: int) -> None:
        write(
            side.memory, side.starts[lo:hi], side.width, side.totals[lo:hi], empty[lo:hi],
            filled[lo:hi],
        )  # fmt: skip

    run(task, side.count, PREPARE_ROWS, side.count)
    return words[0], words[1]


# --- tiles ---------------------------------------------------------------------------------------


def _tiles(job: Job) -> Callable[[int, np.ndarray], None]:
    """Return what fills a band by the tiled loop."""
    sides = [job.x] if job.same else [job.x, job.y]
    mean = _mean(sides)
    road = _tile_road(job, mean, sides)
    factor = road.factor
    if road.uniform:
        constant = 2.0 ** -np.ceil(np.log2(job.x.width))
        mean, factor = (
            np.full_like(mean, constant),
            factor * constant * STORAGE[job.real][0].log_unit,
        )
    a, a_rows, a_spreads = _tile_rows(job, job.x, road, mean, job.parameter)
    b, b_rows, b_spreads = a, a_rows, a_spreads
    if not job.same or job.parameter != 0.5:
        b, b_rows, b_spreads = _tile_rows(job, job.y, road, mean, 1.0 - job.parameter)
    a_bounds, b_bounds = (
        _bounds(job, rows, spreads, road)
        for rows, spreads in ((a_rows, a_spreads), (b_rows, b_spreads))
    )
    loop = kernels.tiles(
        road.term, job.direct, job.measure.finish, job.x.storage, job.y.storage, job.real
    )
    reference = mean.astype(job.real)

    def fill(lo: int, band: np.ndarray) -> None:
        def task(first: int, last: int) -> None:
            loop(
                lo + first, a, b, reference, a_rows, b_rows, a_bounds, b_bounds, factor,
                *job.x.arguments, *job.y.arguments, job.x.width, job.parameter, job.unit,
                job.symmetric, arrays.empty((2, kernels.COLUMNS), "float64"), band[first:last],
            )  # fmt: skip

        run(task, band.shape[0], TILE_ROWS)

    return fill


def _tile_rows(job: Job, side: Side, road: Tile, mean: np.ndarray, weight: float) -> tuple:
    write = kernels.tile_rows(road.prepare, road.row, side.storage, job.real)
    return _prepare(side, write, job.real, mean, weight)


def _tile_road(job: Job, mean: np.ndarray, sides: list[Side]) -> Tile:
    """Choose a measure's tile: the last, measured from the mean, unless rows are far apart."""
    roads = job.measure.tiles
    if len(roads) == 1:
        return roads[0]
    samples = [side.rows(slice(None, None, max(1, side.count // 64))) for side in sides]
    sample = [_tile_rows(job, some, roads[-1], mean, 0.5)[1] for some in samples]
    spread = 2.0 * float(np.median(np.nan_to_num(np.concatenate([[0.0], *sample]))))
    return roads[0] if spread > WIDE else roads[-1]


def _bounds(job: Job, rows: np.ndarray, spreads: np.ndarray, road: Tile) -> np.ndarray:
    """Half of what a pair's sum must reach to be accurate enough, from each of its rows."""
    length = 1.0 + job.x.width / 1024.0
    floor = PRODUCT_ERROR * EPSILON["float64"] * length
    magnitude = np.abs(rows)
    if road.uniform:
        error = UNIFORM_ERROR[job.real] * (1.0 + magnitude)
        error *= length if job.real == "float64" else 1.0
    elif road.row is formulas.nothing:
        error = TILE_ERROR * EPSILON[job.real] * spreads
    else:
        error = TILE_ERROR * EPSILON[job.real] * magnitude
    return (error + floor) / RTOL[job.real]
