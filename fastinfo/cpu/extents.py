"""Lowest and highest values and the sums of rows: what tells whether values keep to their range."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinfo.arrays import Rows
from fastinfo.cpu import vmath
from fastinfo.cpu.memory import part, prefetch
from fastinfo.cpu.simd import double, highest_of, maximum, sum_of
from fastinfo.cpu.tiles import elements, stretch
from fastinfo.engine import kernel, run

# Elements that a thread reads at a time.
PIECE = 1 << 18
# Figures of a row: its lowest value or 0, its highest or 0, both past NaN, and its sum.
LOWEST, HIGHEST, SUM, FIGURES = range(4)


def extents(rows: Rows) -> np.ndarray:
    """Return the figures of each row, one row of the result a figure."""
    group = max(1, PIECE // rows.width)
    tasks = [
        (lo, min(lo + group, rows.count), begin, min(begin + PIECE, rows.width))
        for lo in range(0, rows.count, group)
        for begin in range(0, rows.width, PIECE)
    ]
    parts = np.empty((-(-rows.width // PIECE), rows.count, FIGURES))
    read = _extents(rows.storage)

    def task(first: int, last: int) -> None:
        for lo, hi, begin, end in tasks[first:last]:
            memory, starts = stretch(rows, lo, hi, begin, end)
            read(memory, starts, end - begin, parts[begin // PIECE, lo:hi])

    run(task, len(tasks), 1)
    return _merged(parts)


def extent(rows: Rows) -> np.ndarray:
    """Return the figures of all elements, the same bits whatever rows they are seen as."""
    size = rows.count * rows.width
    parts = np.zeros((-(-size // PIECE), 1, FIGURES))
    read = _extents(rows.storage)

    def task(first: int, last: int) -> None:
        for i in range(first, last):
            memory = elements(rows, i * PIECE, min((i + 1) * PIECE, size))
            read(memory, np.zeros(1, np.int64), memory.size, parts[i])

    run(task, len(parts), 1)
    return _merged(parts)[:, 0]


def _merged(parts: np.ndarray) -> np.ndarray:
    low, high, total = np.moveaxis(parts, -1, 0)
    return np.stack(
        [low.min(axis=0, initial=0.0), high.max(axis=0, initial=0.0), total.sum(axis=0)]
    )


@kernel
def _extents(storage: str) -> Any:
    """Kernel: figures of rows, or of a stretch of them."""
    arithmetic = vmath.STORAGE[storage][0]
    read, filled, lanes = (
        vmath.reader(storage, arithmetic, 0.0),
        arithmetic.filled,
        arithmetic.lanes,
    )

    def read_rows(x, starts, width, figures):  # type: ignore[no-untyped-def]
        for i in range(starts.size):
            row = part(x, starts[i], starts[i] + width)
            low, high, total = filled(0.0), filled(0.0), double(filled(0.0))
            for k in range(0, width, lanes):
                prefetch(row, k)
                v = read(row, k)
                low, high = maximum(-v, low), maximum(v, high)
                total += double(v)
            figures[i, LOWEST], figures[i, HIGHEST] = -highest_of(low), highest_of(high)
            figures[i, SUM] = sum_of(total)

    return read_rows
