"""Matrices of a measure between all pairs of rows, on a device.

Measures with a tiled loop (see `catalogue.Tile`) are added up tile by tile in the arithmetic of the
result; the pairs that come out small beside their error bound, and all pairs of other measures, are
computed from the raw rows in float64. Nothing waits for the device: which road is measured from
the better reference, and which pairs are computed again, is decided there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastinfo import formulas
from fastinfo.catalogue import Tile
from fastinfo.cpu.pairs import EPSILON, PRODUCT_ERROR, RTOL, WIDE, Job
from fastinfo.cuda import pair_kernels as kernels
from fastinfo.cuda import seam
from fastinfo.cuda.arrays import Memory, Rows, as_result, blocks, new
from fastinfo.cuda.bin_kernels import THREADS as ROW_THREADS
from fastinfo.cuda.bins import Divisors, arguments

__all__ = ["Job", "Side", "bands", "condensed", "mirror"]

# Threads of what is no tile and no row.
THREADS = ROW_THREADS
# Errors that decide what is computed again, as in `cpu.pairs`: of a tile measured from the uniform
# distribution, in units of 1 + Σ |row|; from the mean, in units of Σ |row| or of the norm of p - r.
# The logarithm of float32 is one instruction here, right to 2⁻²² near 1.
UNIFORM_ERROR = {"float32": 6e-7, "float64": 1e-15}
TILE_ERROR = {"float32": 40.0, "float64": 16.0}
# Which road a kernel belongs to: any, the one measured from the mean, from the uniform one.
ANY, NEAR, FAR = -1, 0, 1


@dataclass(frozen=True)
class Side:
    """The rows of one argument, and what they are divided by."""

    data: Rows
    divisors: Divisors

    @classmethod
    def of(cls, rows: Rows, divisors: Divisors) -> Side:
        """Return a side; rows whose divisor is 0 or NaN are no distributions."""
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
    def arguments(self) -> tuple:
        """Rows as kernels take them."""
        return arguments(self.data, self.divisors)


def bands(job: Job, out: Memory | None) -> Iterator[tuple[int, Memory]]:
    """Yield the whole matrix, made in `out` if that is given; see `cpu.pairs.bands`."""
    shape = job.x.count, job.y.count
    out = new(shape, job.real, job.x.memory) if out is None else out
    if out.size:
        tiled = Tiles.of(job) if job.measure.tiles else None
        if tiled is not None:
            tiled.fill(out)
        _settle(job, tiled, out)
    yield 0, out


def mirror(out: Memory) -> None:
    """Do nothing: both sides of the diagonal are written at once."""


def condensed(values: Memory, out: Memory) -> None:
    """Write what is above the diagonal of a matrix as a vector."""
    n = values.shape[0]
    seam.launch(
        kernels.condensed(), n if out.size else 0, THREADS, values.stream, values.flat, n, out.flat
    )


def _settle(job: Job, tiled: Tiles | None, out: Memory) -> None:
    """Finish the sums of pairs, or compute all of them from the raw rows."""
    n, m = out.shape
    pieces = blocks(m, kernels.SETTLERS)
    nothing = out.nothing("float64")
    if tiled is None:
        known: tuple = (nothing,) * 4 + (out.nothing("int32"), (np.float64(0), np.float64(0)))
    else:
        known = tiled.known
    seam.launch(
        kernels.settled(*job.key, tiled is None), n * pieces, kernels.SETTLERS, out.stream,
        *job.x.arguments, *job.y.arguments, job.x.width, *known, np.float64(job.parameter),
        np.float64(job.unit), job.symmetric, n, m, pieces, *_placed(out),
    )  # fmt: skip


def _placed(out: Memory) -> tuple:
    """A matrix as kernels take it."""
    return out.flat, out.first, *out.strides


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
        made = cls(job, inner, _mean(job), far, x, y)
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
    def factors(self) -> tuple:
        """Factor of the sum over pairs, of each road."""
        near, far = self.road(NEAR).factor, self.road(FAR).factor
        unit = seam.mathematics(self.inner).log_unit
        return np.float64(near), np.float64(far * self.constant * unit)

    @property
    def known(self) -> tuple:
        """What is known of rows, and of the road, as kernels take it."""
        x, y = self.x, self.y
        figures = x.sums.flat, y.sums.flat, x.bounds.flat, y.bounds.flat
        return *figures, self.far.flat, self.factors

    def _errors(self, road: Tile) -> tuple:
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
        road, weight = self.road(which), self.job.parameter
        sides = [(self.job.x, self.x, weight), (self.job.y, self.y, 1.0 - weight)]
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
        x, y, weight = self.x.sums, self.y.sums, self.job.parameter
        steps = [max(1, v.size // kernels.LOOKED_AT) for v in (x, y)]
        seam.launch(
            kernels.choice(), 1, THREADS, x.stream, x.flat, steps[0], y.flat, steps[1],
            np.float64(WIDE * weight), np.float64(WIDE * (1.0 - weight)), self.far.flat,
        )  # fmt: skip

    def fill(self, out: Memory) -> None:
        """Write Σ term of all pairs; those below the diagonal of a symmetric matrix may be left."""
        n, m = out.shape
        down, across = (blocks(count, kernels.TILE) for count in (n, m))
        reference = as_result(self.mean, self.inner)
        roads = [(NEAR, ANY)] if len(self.job.measure.tiles) == 1 else [(NEAR, NEAR), (FAR, FAR)]
        for which, wanted in roads:
            road = self.road(which)
            seam.launch(
                kernels.tiles(road.term, self.inner, road.uniform), down * across,
                kernels.THREADS, out.stream, self.x.values.flat, self.y.values.flat,
                reference.flat, self.x.padded, self.far.flat, wanted, across,
                self.job.symmetric, n, m, *_placed(out),
            )  # fmt: skip


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


def _padded(width: int) -> int:
    return blocks(width, kernels.BINS) * kernels.BINS


def _mean(job: Job) -> Memory:
    """Return the mean distribution over all valid rows, with zeros after the last bin."""
    x, width = job.x.memory, job.x.width
    sums = [_sums(side) for side in ([job.x] if job.same else [job.x, job.y])]
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
    grid = (parts, blocks(side.width + 1, THREADS)) if parts else 0
    seam.launch(
        kernels.sums_of_bins(side.storage), grid, THREADS, side.memory.stream, x, starts, place,
        totals, side.width, sums.shaped,
    )  # fmt: skip
    return sums
