"""Matrices of a measure between all pairs of rows, on the processor.

The result is made a band of rows at a time, in place where `out` allows. A road (see
`catalogue.py`) gives each pair's sum with a known error; pairs too small for theirs are computed
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import Rows
from fastinfo.catalogue import Measure, Tile
from fastinfo.cpu import bins
from fastinfo.cpu import pair_kernels as kernels
from fastinfo.cpu.vmath import STORAGE
from fastinfo.engine import run

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
    valid: np.ndarray

    @classmethod
    def of(cls, rows: Rows, divisors: np.ndarray) -> Side:
        """Return a side; rows whose divisor is 0 or NaN are no distributions."""
        memory, starts = rows.stretch(0, rows.count, 0, rows.width)
        valid = np.isfinite(divisors) & (divisors != 0.0)
        return cls(memory, starts, rows.width, rows.storage, divisors, valid)

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.starts.size

    @property
    def arguments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows as kernels take them."""
        return self.memory, self.starts, self.totals


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


def totals(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of each row, and its lowest entry if that is below 0."""
    return bins.totals(rows)


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


def _mean(function: Callable, sides: list[Side]) -> np.ndarray:
    """Return the mean of a function of the bins over all valid rows of the sides."""
    width = sides[0].width
    parts: list[tuple[int, int, int]] = []
    step = max(PREPARE_ROWS, -(-max(s.count for s in sides) // 64))
    for number, side in enumerate(sides):
        parts += [(number, lo, min(lo + step, side.count)) for lo in range(0, side.count, step)]
    sums = np.zeros((2, len(parts), width))

    def task(first: int, last: int) -> None:
        for part in range(first, last):
            number, lo, hi = parts[part]
            side = sides[number]
            kernels.mean_sums(function, side.storage)(
                side.memory, side.starts[lo:hi], width, side.totals[lo:hi], side.valid[lo:hi],
                sums[0, part], sums[1, part],
            )  # fmt: skip

    run(task, len(parts), 1)
    total, count = sums.sum(axis=1)
    return total / np.maximum(count, 1.0)


def _prepare(side: Side, kernel: Callable, real: str, *given: object) -> tuple:
    """Call a kernel that writes, for each row, what a road reads and two figures of it."""
    out = np.empty((side.count, side.width), real)
    rows, norms = np.empty(side.count), np.empty(side.count)

    def task(lo: int, hi: int) -> None:
        kernel(
            side.memory, side.starts[lo:hi], side.width, side.totals[lo:hi], side.valid[lo:hi],
            *given, out[lo:hi], rows[lo:hi], norms[lo:hi],
        )  # fmt: skip

    run(task, side.count, PREPARE_ROWS)
    return out, rows, norms


# --- matrix products -----------------------------------------------------------------------------


def _product(job: Job) -> Callable[[int, np.ndarray], None]:
    """Return what fills a band by a matrix product."""
    road, real = job.measure.product, job.real
    assert road is not None
    if road.f is road.g:  # a squared difference: both sides from one mean
        f_mean = g_mean = _mean(road.f, [job.x, job.y])
    else:
        f_mean, g_mean = _mean(road.f, [job.x]), _mean(road.g, [job.y])
    write_x = kernels.factors(road.f, road.row, job.x.storage, real)
    e, x_rows, x_norms = _prepare(job.x, write_x, real, f_mean, f_mean, g_mean)
    write_y = kernels.factors(road.g, road.column, job.y.storage, real)
    f, y_rows, y_norms = _prepare(job.y, write_y, real, g_mean, f_mean, g_mean)
    filled, empty, holes = _supports(job)
    scale = road.factor * PRODUCT_ERROR * EPSILON[real] / RTOL[real]
    slack = PRODUCT_ERROR * EPSILON["float64"] / RTOL[real]
    floor = slack * max(1.0, np.log(job.x.width))
    finish = kernels.product_finishes(
        job.direct, job.measure.finish, job.x.storage, job.y.storage, real
    )

    def fill(lo: int, band: np.ndarray) -> None:
        np.matmul(e[lo : lo + band.shape[0]], f.T, out=band)

        def task(first: int, last: int) -> None:
            finish(
                lo + first, road.factor, x_rows, y_rows, scale * x_norms, y_norms, slack, floor,
                filled, empty, holes, *job.x.arguments, *job.y.arguments, job.x.width,
                job.parameter, job.unit, job.same, band[first:last],
            )  # fmt: skip

        run(task, band.shape[0], TILE_ROWS)

    return fill


def _supports(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits of the bins filled in rows of x, empty in rows of y, and which rows have empty bins."""
    words = -(-job.x.width // 64)
    none = np.empty((0, 0), np.uint64), np.empty((0, 0), np.uint64), np.empty(0, np.bool_)
    if not job.measure.needs_support:
        return none
    empty, ignored = np.zeros((2, job.y.count, words), np.uint64)
    _bits(job.y, empty, ignored)
    holes = np.asarray(empty.any(axis=1))
    if not holes.any():
        return none
    filled, ignored = np.zeros((2, job.x.count, words), np.uint64)
    _bits(job.x, ignored, filled)
    return filled, empty, holes


def _bits(side: Side, empty: np.ndarray, filled: np.ndarray) -> None:
    write = kernels.zeros(side.storage)

    def task(lo: int, hi: int) -> None:
        write(
            side.memory, side.starts[lo:hi], side.width, side.totals[lo:hi], empty[lo:hi],
            filled[lo:hi],
        )  # fmt: skip

    run(task, side.count, PREPARE_ROWS)


# --- tiles ---------------------------------------------------------------------------------------


def _tiles(job: Job) -> Callable[[int, np.ndarray], None]:
    """Return what fills a band by the tiled loop."""
    sides = [job.x] if job.same else [job.x, job.y]
    mean = _mean(formulas.same_of, sides)
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
                job.symmetric, band[first:last],
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
    sample = [_tile_rows(job, _some(side), roads[-1], mean, 0.5)[1] for side in sides]
    spread = 2.0 * float(np.median(np.nan_to_num(np.concatenate([[0.0], *sample]))))
    return roads[0] if spread > WIDE else roads[-1]


def _some(side: Side) -> Side:
    """At most 64 rows of a side."""
    step = max(1, side.count // 64)
    starts, totals, valid = (v[::step].copy() for v in (side.starts, side.totals, side.valid))
    return Side(side.memory, starts, side.width, side.storage, totals, valid)


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
