"""Mutual information of all pairs of columns of codes, on the processor.

Two columns of few codes are compared as sets of samples, others by counting samples one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo import arrays
from fastinfo.arrays import Source, lazy
from fastinfo.checks import refuse
from fastinfo.cpu import contingency_kernels as kernels
from fastinfo.cpu.pairs import mirror
from fastinfo.cpu.simd import COUNTS_BITS
from fastinfo.engine import run

__all__ = ["Columns", "bands", "mirror", "normalize"]

# Most codes of a column that is compared as sets, where a pair takes 12 ps a cell and sample (one
# thread of a Zen 4, as all figures here; 35 ps with AVX2); samples are counted in 0.6 ns each.
FEW = 22 if COUNTS_BITS else 13
# Most cells of a whole table for each sample. With more, the cells that are there are cheaper: the
# two cost the same at 4 for 1000 samples and for a million.
TABLE = 4
# Rows of the matrix after which progress is told; codes of x and y in a tile (64 of x are 5 %
# slower); values of columns that are read at a time; cells that are computed together.
BAND = 128
X_TILE, Y_TILE = 128, 256
VALUES = 1 << 17
CELLS = 512
# Values up to this, or four times the number of samples, are numbered by a table of all of them.
COUNTED = 1 << 16


@dataclass(frozen=True)
class Columns:
    """Columns of codes, numbered from 0 by size, with the count of each."""

    codes: np.ndarray
    counts: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, source: Source) -> Columns:
        """Return the columns of an array of integers; ValueError if one is negative."""
        n, width = source.shape
        narrow = n <= 1 << 16 or source.data.itemsize <= 2
        codes = np.empty((width, n), "uint16" if narrow else "int32" if n < 2**31 else "int64")
        counts: list[np.ndarray] = [np.empty(0)] * width
        step = max(1, VALUES // max(1, n))

        def task(lo: int, hi: int) -> None:
            for k, values in enumerate(_values(source, lo, hi), lo):
                counts[k] = _renamed(*values, codes[k])

        run(task, width, step)
        starts = np.concatenate([[0], np.cumsum([c.size for c in counts], dtype=np.int64)])
        return cls(codes, np.concatenate([np.empty(0, np.int64), *counts]), starts)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.codes.shape[1]

    @property
    def count(self) -> int:
        """Number of columns."""
        return self.codes.shape[0]

    @lazy
    def sizes(self) -> np.ndarray:
        """Number of codes of each column."""
        return np.diff(self.starts)

    @lazy
    def real_counts(self) -> np.ndarray:
        """Counts as float64."""
        return self.counts.astype(np.float64)

    @lazy
    def entropies(self) -> np.ndarray:
        """Entropy of each column, in nats; NaN of no samples."""
        out = np.full(self.count, np.nan)
        if self.samples:
            ordered = [np.sort(c) for c in np.split(self.counts, self.starts[1:-1])]
            merged = np.concatenate([np.empty(0, np.int64), *ordered])
            kernels.entropies()(merged, self.starts, float(self.samples), out)
        return out

    @lazy
    def sets(self) -> Sets:
        """The columns of few codes as sets."""
        return Sets.of(self)


def _values(source: Source, lo: int, hi: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yield columns as int64, and their lowest and highest value."""
    block = np.array(source.data[:, lo:hi].T, np.int64, order="C")
    low, high = np.zeros((2, hi - lo), np.int64)
    if block.size:
        kernels.extremes()(block, low, high)
    if (low < 0).any() and source.data.dtype.kind == "i":  # of uint64, numbers beyond int64
        refuse(source.name, "at least 0", source.data, source.data < 0, ValueError, "position")
    yield from zip(block, low.tolist(), high.tolist(), strict=True)


def _renamed(values: np.ndarray, low: int, high: int, codes: np.ndarray) -> np.ndarray:
    """Write a column's codes, numbered from 0, and return the count of each."""
    if low < 0 or high >= max(COUNTED, 4 * values.size):
        _, codes[:], counts = np.unique(values, return_inverse=True, return_counts=True)
        return counts.astype(np.int64, copy=False)
    table = np.zeros(high + 1 if values.size else 0, np.int64)
    counts = np.empty(min(table.size, values.size), np.int64)
    return counts[: kernels.renaming(codes.dtype.name)(values, table, counts, codes)].copy()


# --- sets ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sets:
    """Columns of few codes: for each code but the last the samples that have it, as bits.

    Sets of column `index[k]` are `bits[first[k] : first[k + 1]]`.
    """

    index: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    lasts: np.ndarray
    entropies: np.ndarray
    bits: np.ndarray

    @classmethod
    def of(cls, columns: Columns) -> Sets:
        """Return the sets of the columns of few codes."""
        few = columns.sizes <= FEW
        index, ends = np.flatnonzero(few), columns.starts[1:][few] - 1
        first = np.concatenate([[0], np.cumsum(columns.sizes[few] - 1)])
        own = np.repeat(few, columns.sizes)
        own[ends] = False
        words = -(-columns.samples // (64 * kernels.LANES)) * kernels.LANES
        bits = arrays.empty((int(first[-1]), words), "int64")
        write = kernels.sets()

        def task(lo: int, hi: int) -> None:
            bits[first[lo] : first[hi]] = 0
            write(columns.codes, index[lo:hi], first, lo, bits)

        run(task, index.size, max(1, VALUES // columns.samples))
        counts = columns.real_counts
        return cls(index, first, counts[own], counts[ends], columns.entropies[few], bits)

    @property
    def arguments(self) -> tuple[np.ndarray, ...]:
        """What the kernel takes of it beside the bits."""
        return self.index, self.first, self.counts, self.lasts, self.entropies

    def within(self, lo: int, hi: int) -> tuple[int, int]:
        """Which of its columns are those from `lo` to `hi` of all."""
        begin, end = np.searchsorted(self.index, [lo, hi])
        return int(begin), int(end)

    def cut(self, lo: int, hi: int, most: int) -> Iterator[tuple[int, int]]:
        """Cut a range of columns into some of about `most` codes."""
        codes = self.first + np.arange(self.first.size)
        while lo < hi:
            end = int(np.searchsorted(codes, codes[lo] + most, "right")) - 1
            end = min(max(end, lo + 1), hi)
            yield lo, end
            lo = end


def _by_sets(x: Columns, y: Columns, lo: int, hi: int, out: np.ndarray) -> None:
    """Fill the pairs of columns of few codes in some rows; with itself, above the diagonal."""
    a, b = x.sets, y.sets
    tiles = [
        (*strip, *tile)
        for strip in a.cut(*a.within(lo, hi), X_TILE)
        for tile in b.cut(strip[0] if x is y else 0, b.index.size, Y_TILE)
    ]
    compare_sets = kernels.by_sets()

    def task(begin: int, end: int) -> None:
        for x_lo, x_hi, y_lo, y_hi in tiles[begin:end]:
            width = _padded(int(b.first[y_hi] - b.first[y_lo]))
            whole = width + _padded(y_hi - y_lo)
            table = arrays.empty((int(a.first[x_hi] - a.first[x_lo]) + 1, whole), "float64")
            y_room, sums = arrays.empty((2, whole), "float64")
            compare_sets(
                a.bits, x_lo, x_hi, *a.arguments, b.bits, y_lo, y_hi, *b.arguments,
                float(x.samples), width, table, y_room, sums, out,
            )  # fmt: skip

    run(task, len(tiles), 1)


def _padded(length: int) -> int:
    return -(-length // kernels.LANES) * kernels.LANES


# --- counting ------------------------------------------------------------------------------------


def _by_counting(x: Columns, y: Columns, lo: int, hi: int, out: np.ndarray) -> None:
    """Fill the other pairs in some rows; with itself, above the diagonal."""
    many = np.flatnonzero(y.sizes > FEW)
    every = np.arange(y.count)
    rows = np.flatnonzero((x.sizes[lo:hi] > FEW) | bool(many.size)) + lo

    def task(begin: int, end: int) -> None:
        for i in rows[begin:end].tolist():
            others = many if x.sizes[i] <= FEW else every
            others = others[others > i] if x is y else others
            whole = x.sizes[i] * y.sizes[others] <= TABLE * x.samples
            for fill, which in ((_tables, others[whole]), (_groups, others[~whole])):
                if which.size:
                    fill(x, i, y, which, out[i])

    run(task, rows.size, 1)


def _tables(x: Columns, i: int, y: Columns, which: np.ndarray, out: np.ndarray) -> None:
    """Fill pairs of a column of x from whole tables."""
    integer = np.dtype(np.int32 if x.samples < 2**31 else np.int64)
    widest = int(y.sizes[which].max())
    cells, y_room = arrays.empty((2, _padded(widest)), "float64")
    kernels.by_tables(x.codes.dtype.name, y.codes.dtype.name, integer.name)(
        x.codes[i], x.real_counts[x.starts[i] : x.starts[i + 1]], x.entropies[i], y.codes, which,
        y.real_counts, y.starts, y.entropies, float(x.samples),
        np.zeros(int(x.sizes[i]) * widest, integer), cells, y_room, out,
    )  # fmt: skip


def _groups(x: Columns, i: int, y: Columns, which: np.ndarray, out: np.ndarray) -> None:
    """Fill pairs of a column of x from the cells that are there."""
    order, ends = np.empty(x.samples, np.int64), np.zeros(x.sizes[i], np.int64)
    np.cumsum(x.counts[x.starts[i] : x.starts[i + 1] - 1], out=ends[1:])
    kernels.orders(x.codes.dtype.name)(x.codes[i], ends, order)
    widest = int(y.sizes[which].max())
    kernels.by_groups(y.codes.dtype.name)(
        order, ends, x.entropies[i], y.codes, which, y.real_counts, y.starts, y.entropies,
        float(x.samples), np.zeros(widest, np.int64), np.empty(widest, np.int64),
        arrays.empty((3, CELLS), "float64"), out,
    )  # fmt: skip


# --- the matrix ----------------------------------------------------------------------------------


def bands(x: Columns, y: Columns, out: np.ndarray) -> Iterator[int]:
    """Fill a matrix, yielding the rows done; of x with itself, what is above the diagonal."""
    for lo in range(0, x.count, BAND):
        hi = min(lo + BAND, x.count)
        if x.samples:
            _by_sets(x, y, lo, hi, out)
            _by_counting(x, y, lo, hi, out)
        else:
            out[lo:hi] = np.nan
        yield hi
    if x is y:
        mirror(out)
        np.fill_diagonal(out, x.entropies)


_MEANS: dict[str, Callable[..., Any]] = {
    "arithmetic": lambda a, b: 0.5 * (a + b),
    "geometric": lambda a, b: np.sqrt(a * b),
    "min": np.minimum,
    "max": np.maximum,
}


def normalize(out: np.ndarray, x: Columns, y: Columns, average: str) -> None:
    """Divide mutual information by a mean of the entropies; two constants are 1, one is 0."""
    for lo in range(0, x.count, BAND):
        band, own = out[lo : lo + BAND], x.entropies[lo : lo + BAND, np.newaxis]
        mean = _MEANS[average](own, y.entropies)
        np.divide(band, mean, out=band, where=mean != 0.0)
        np.minimum(band, 1.0, out=band)
        band[(own == 0.0) & (y.entropies == 0.0)] = 1.0
