"""Sparse rows, all pairs: work in proportion to the bins that pairs share, and to the pairs.

Rows of x meet y a bin after the other: what shared bins add is collected for a row of x and all
rows of a block of y. All of it is in float64; pairs whose sum has lost its digits to cancellation
are computed again from both rows, side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo import arrays
from fastinfo.cpu import sparse_kernels as kernels
from fastinfo.cpu.pairs import EPSILON, RTOL, Fill, Job
from fastinfo.engine import run

# Error of a sum in units of what enters it; the least that entries of a row count for.
ERROR, LEAST = 8.0, 16.0
# Rows of x that a thread takes at a time.
STEP = 16


@dataclass(frozen=True)
class SparseSide:
    """The rows of one argument: entries above 0 and their bins, in order, row after row."""

    data: np.ndarray
    bins: np.ndarray
    starts: np.ndarray
    width: int
    storage: str
    totals: np.ndarray
    rests: np.ndarray
    valid: np.ndarray

    @classmethod
    def of(
        cls, data: np.ndarray, bins: np.ndarray, starts: np.ndarray, width: int, normalize: bool
    ) -> SparseSide:
        """Return a side; rows that hold NaN or inf, or sum to 0, are no distributions."""
        totals, rests = _totals(data, starts)
        beyond = np.isinf(totals)
        if normalize and beyond.any():
            data = data.astype(np.float64)
            data[np.repeat(beyond, np.diff(starts))] *= 2.0**-64
            totals, rests = _totals(data, starts)
        finite = np.isfinite(totals)
        if not normalize:
            totals, rests = np.where(finite, 1.0, np.nan), np.zeros(len(totals))
        valid = finite & (totals != 0.0)
        return cls(data, bins, starts, width, data.dtype.name, totals, rests, valid)

    def rows(self, which: slice) -> SparseSide:
        """Some rows, one after the other."""
        lo, hi, _ = which.indices(self.count)
        first, last = self.starts[lo], self.starts[hi]
        entries = slice(first, last)
        some = (v[lo:hi] for v in (self.totals, self.rests, self.valid))
        starts = self.starts[lo : hi + 1] - first
        return SparseSide(
            self.data[entries], self.bins[entries], starts, self.width, self.storage, *some
        )

    def road(self, job: Job) -> Overlaps:
        """Return the road of a measure of such rows."""
        return Overlaps(job)

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.totals.size

    @property
    def filled(self) -> np.ndarray:
        """Number of filled bins of each row."""
        return np.diff(self.starts)


def _totals(data: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    totals, rests = np.empty((2, len(starts) - 1))
    kernels.totals(data.dtype.name)(data, starts, totals, rests)
    return totals, rests


@dataclass(frozen=True)
class Figures:
    """What a side's entries and rows add, see `catalogue.Shared`."""

    first: np.ndarray
    second: np.ndarray
    rows: np.ndarray
    masses: np.ndarray
    most: np.ndarray

    @classmethod
    def of(cls, side: SparseSide, functions: tuple[Any, Any, Any], parameter: float) -> Figures:
        """Return the figures of a side."""
        first, second = np.empty((2, side.data.size))
        rows, masses, most = np.empty((3, side.count))
        write = kernels.figures(*functions, side.storage)

        def task(lo: int, hi: int) -> None:
            write(
                side.data, side.starts[lo : hi + 1], side.totals[lo:hi], parameter, first, second,
                rows[lo:hi], masses[lo:hi], most[lo:hi],
            )  # fmt: skip

        run(task, side.count, STEP)
        rows[~side.valid] = np.nan
        return cls(first, second, rows, 1.0 + masses, LEAST + most)


@dataclass(frozen=True)
class Overlaps:
    """What pairs share, bin by bin, beside what their rows add alone."""

    job: Job

    def block(self, begin: int, end: int) -> Fill:
        """Return what fills bands beside the rows [begin, end) of y."""
        job, shared = self.job, self.job.measure.shared
        assert shared is not None
        y = job.y.rows(slice(begin, end))
        of_y = Figures.of(y, (shared.g, shared.g2, shared.column), job.parameter)
        present, columns, rows, order = _by_bins(y)
        g, g2 = of_y.first[order], of_y.second[order]
        loop = kernels.overlaps(
            shared, job.total, job.measure.finish, job.measure.infinite, job.x.storage, y.storage,
            job.real,
        )  # fmt: skip
        longest = max(int(job.x.filled.max(initial=0)), int(y.filled.max(initial=0)))
        scale = ERROR * EPSILON["float64"] * (1.0 + longest / 1024.0) / RTOL[job.real]

        def fill(lo: int, band: np.ndarray) -> None:
            x = job.x.rows(slice(lo, lo + len(band)))
            of_x = Figures.of(x, (shared.f, shared.f2, shared.row), job.parameter)
            places = _places(x.bins, present)

            def task(first: int, last: int) -> None:
                part = slice(first, last)
                loop(
                    lo + first, begin, x.data, x.bins, places, x.starts[first : last + 1],
                    x.totals[part], x.rests[part], x.valid[part], x.filled[part], of_x.first,
                    of_x.second,
                    of_x.rows[part], of_x.masses[part], of_x.most[part], y.data, y.bins, y.starts,
                    y.totals, y.rests, y.valid, y.filled, g, g2, rows, columns, of_y.rows,
                    of_y.masses, of_y.most, scale, job.parameter, job.unit, job.symmetric, job.same,
                    np.empty(y.count), np.empty(y.count, np.int64),
                    arrays.empty((kernels.CHUNK,), "float64"), band[part],
                )  # fmt: skip

            run(task, len(band), STEP)

        return fill


def _by_bins(side: SparseSide) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the bins that are filled, where each one's entries begin, their rows, their numbers.

    Entries are ordered by bin. The last beginning is that of a bin without any.
    """
    order = np.argsort(side.bins, kind="stable")
    present, counts = np.unique(side.bins, return_counts=True)
    columns = np.concatenate([[0], np.cumsum(counts)])
    rows = np.repeat(np.arange(side.count), side.filled)[order]
    return present, np.append(columns, columns[-1]), rows, order


def _places(bins: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Where bins are among those present; beyond these if they are not."""
    places = np.searchsorted(present, bins)
    found = np.append(present, -1)[places] == bins
    return np.where(found, places, present.size)
