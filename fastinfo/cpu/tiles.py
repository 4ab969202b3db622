"""Stretches of rows as kernels read them: in place, or a tile copied and turned around in cache."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastinfo.arrays import Rows, read_only, words
from fastinfo.engine import kernel

# Classes copied for all rows of a tile before the next: their cache lines, which neighbouring rows
# share, may all fall in one set of 12.
CLASSES = 8
# Elements between the rows of a tile beyond their width, for the same reason.
PADDING = 16


def stretch(rows: Rows, lo: int, hi: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return memory and offsets of the classes [begin, end) of the rows [lo, hi)."""
    if not rows.copied:
        memory, starts = rows.memory
        return read_only(memory), starts[lo:hi] + begin
    tile = _copy(rows, lo, hi, begin, end, PADDING)
    return read_only(tile.ravel()), np.arange(hi - lo) * tile.shape[1]


def _copy(rows: Rows, lo: int, hi: int, begin: int, end: int, padding: int) -> np.ndarray:
    """Return a copy of the classes [begin, end) of the rows [lo, hi), as kernels read them."""
    if rows.converted:
        return rows.converted_tile(lo, hi, begin, end)
    tile = np.empty((hi - lo, end - begin + padding), words(rows.storage))
    memory, starts = rows.memory
    copies(rows.storage)(
        read_only(memory), starts[lo:hi] + begin * rows.step, rows.step, end - begin, tile
    )
    return tile


def in_place(rows: Rows) -> bool:
    """Whether kernels can read the rows where they lie, one after the other without a gap."""
    return not rows.copied and rows.data.flags.c_contiguous


def _flat(rows: Rows, lo: int, hi: int, begin: int, end: int) -> np.ndarray:
    at = lo * rows.width + begin
    return rows.data.reshape(-1)[at : at + (hi - lo) * (end - begin)]


def dense(rows: Rows, lo: int, hi: int, begin: int, end: int) -> np.ndarray:
    """Return the classes [begin, end) of the rows [lo, hi), whole rows or one, side by side."""
    if in_place(rows):
        return read_only(_flat(rows, lo, hi, begin, end))
    return read_only(_copy(rows, lo, hi, begin, end, 0).ravel())


def room(
    rows: Rows, lo: int, hi: int, begin: int, end: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return memory to write to, as `dense` has it, and the tile to `put` in its place."""
    if in_place(rows):
        return _flat(rows, lo, hi, begin, end), None
    tile = np.empty((hi - lo, end - begin), words(rows.storage))
    return tile.ravel(), tile


def writable(
    rows: Rows, lo: int, hi: int, begin: int, end: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return memory and offsets to write to, and the tile to `put` in its place, if it is one."""
    if not rows.copied:
        memory, starts = rows.memory
        return memory, starts[lo:hi] + begin, None
    tile = np.empty((hi - lo, end - begin), words(rows.storage))
    return tile.ravel(), np.arange(hi - lo) * (end - begin), tile


def put(rows: Rows, tile: np.ndarray, lo: int, hi: int, begin: int) -> None:
    """Write a tile to the rows [lo, hi) and the classes from `begin` on."""
    if rows.converted:
        rows.put(tile, lo, hi, begin)
        return
    memory, starts = rows.memory
    returns(rows.storage)(tile, starts[lo:hi] + begin * rows.step, rows.step, memory)


@cache
def copies(storage: str) -> Any:
    """Kernel: copy rows whose classes are `step` apart to a tile."""

    @kernel(storage)
    def copy_rows(memory, starts, step, width, tile):  # type: ignore[no-untyped-def]
        for first in range(0, width, CLASSES):
            last = min(first + CLASSES, width)
            for i in range(starts.size):
                at = starts[i] + first * step
                for k in range(first, last):
                    tile[i, k] = memory[at]
                    at += step

    return copy_rows


@cache
def returns(storage: str) -> Any:
    """Kernel: copy a tile to rows whose classes are `step` apart."""

    @kernel(storage)
    def return_rows(tile, starts, step, memory):  # type: ignore[no-untyped-def]
        width = tile.shape[1]
        for first in range(0, width, CLASSES):
            last = min(first + CLASSES, width)
            for i in range(starts.size):
                at = starts[i] + first * step
                for k in range(first, last):
                    memory[at] = tile[i, k]
                    at += step

    return return_rows
