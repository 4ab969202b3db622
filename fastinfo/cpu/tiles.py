"""Stretches of rows as kernels read them: in place, or a tile copied and turned around in cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastinfo.arrays import Rows, read_only, words
from fastinfo.cpu.simd import ZEN
from fastinfo.engine import kernel

# Classes copied for all rows of a tile before the next: their cache lines, which neighbouring rows
# share, may all fall in one set of 12.
CLASSES = 8
# Elements between the rows of a tile beyond their width, for the same reason.
PADDING = 16
# What is larger is written past the caches.
STREAM_BYTES = 1 << 23


def stretch(rows: Rows, lo: int, hi: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return memory and offsets of the classes [begin, end) of the rows [lo, hi)."""
    if not rows.copied:
        return read_only(rows.memory), rows.starts(lo, hi) + begin
    if rows.converted:
        tile = rows.converted_tile(lo, hi, begin, end)
    else:
        tile = np.empty((hi - lo, end - begin + PADDING), words(rows.storage))
        _copy(rows, lo, hi, begin, end, tile)
    return read_only(tile.ravel()), np.arange(hi - lo) * tile.shape[1]


def writable(
    rows: Rows, lo: int, hi: int, begin: int, end: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return memory and offsets to write to, and the tile to `put` in its place, if it is one."""
    if not rows.copied:
        return rows.memory, rows.starts(lo, hi) + begin, None
    tile = np.empty((hi - lo, end - begin), words(rows.storage))
    return tile.ravel(), np.arange(hi - lo) * (end - begin), tile


def put(rows: Rows | None, tile: np.ndarray | None, lo: int, hi: int, begin: int) -> None:
    """Write a tile, if it is one, to the rows [lo, hi) and the classes from `begin` on."""
    if rows is None or tile is None:
        return
    if rows.converted:
        rows.put(tile, lo, hi, begin)
        return
    starts = rows.starts(lo, hi) + begin * rows.step
    returns(rows.storage)(tile, starts, rows.step, rows.memory)


def _copy(rows: Rows, lo: int, hi: int, begin: int, end: int, tile: np.ndarray) -> None:
    """Copy the classes [begin, end) of the rows [lo, hi) to a tile."""
    starts = rows.starts(lo, hi) + begin * rows.step
    copies(rows.storage)(read_only(rows.memory), starts, rows.step, end - begin, tile)


def streams(out: Rows, *given: Rows | None) -> bool:
    """Whether what kernels write to `out` goes past the caches.

    Over what has just been read, a store finds its line in cache; an Intel throws that out first (a
    gradient in place took 1.5 times as long), a Zen does not.
    """
    if out.copied or out.data.nbytes < STREAM_BYTES:
        return False
    return ZEN or not any(rows and np.may_share_memory(out.data, rows.data) for rows in given)


# --- elements side by side, whatever rows they are of --------------------------------------------


def in_place(rows: Rows) -> bool:
    """Whether kernels can read all elements where they lie, side by side."""
    return not rows.copied and rows.data.flags.c_contiguous


def elements(rows: Rows, first: int, last: int) -> np.ndarray:
    """Return the elements [first, last) in the order of the rows, in place or copied."""
    if in_place(rows):
        return read_only(rows.data.reshape(-1)[first:last])
    flat = np.empty(last - first, words(rows.storage))
    for tile, lo, begin in _tiles(flat, rows.width, first):
        hi, end = lo + tile.shape[0], begin + tile.shape[1]
        if rows.converted:
            tile[...] = rows.converted_tile(lo, hi, begin, end)
        else:
            _copy(rows, lo, hi, begin, end, tile)
    return read_only(flat)


def room(rows: Rows, first: int, last: int) -> tuple[np.ndarray, bool]:
    """Return memory for the elements [first, last), and whether it is their own."""
    if in_place(rows):
        return rows.data.reshape(-1)[first:last], True
    return np.empty(last - first, words(rows.storage)), False


def put_elements(rows: Rows, flat: np.ndarray, first: int) -> None:
    """Write elements to their places from `first` on."""
    for tile, lo, begin in _tiles(flat, rows.width, first):
        put(rows, tile, lo, lo + tile.shape[0], begin)


def _tiles(flat: np.ndarray, width: int, first: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Cut elements from `first` on into the end of a row, whole rows, a beginning; and where."""
    at = 0
    while at < flat.size:
        lo, begin = divmod(first + at, width)
        left = flat.size - at
        rows = left // width if not begin and left >= width else 1
        length = width if rows > 1 else min(width - begin, left)
        yield flat[at : at + rows * length].reshape(rows, length), lo, begin
        at += rows * length


@kernel
def copies(storage: str) -> Any:
    """Kernel: copy rows whose classes are `step` apart to a tile."""

    def copy_rows(memory, starts, step, width, tile):  # type: ignore[no-untyped-def]
        for first in range(0, width, CLASSES):
            last = min(first + CLASSES, width)
            for i in range(starts.size):
                at = starts[i] + first * step
                for k in range(first, last):
                    tile[i, k] = memory[at]
                    at += step

    return copy_rows


@kernel
def returns(storage: str) -> Any:
    """Kernel: copy a tile to rows whose classes are `step` apart."""

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
