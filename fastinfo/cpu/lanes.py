"""Rows side by side, a lane of a vector a row: which rows, how many at a time, where they lie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastinfo.arrays import Rows, read_only, words
from fastinfo.cpu.tiles import STREAM_BYTES, put
from fastinfo.engine import run

# Classes of rows that are read side by side at most: of any rows (4 classes in 0.4 of the time, 24
# in 0.7), and of those that lie beside at least so many others, that are not turned around then
# (from 4 to 4000 classes half of the time or less; from 6 rows on too, or 4 of float64, but the
# last bits of a few rows are to be the same in any layout).
NARROW, MOST_BESIDE, LEAST_BESIDE = 24, 4096, 16
# Of few classes, rows beside each other that are a vector by themselves: fewer are turned around.
LEAST_VECTOR = 4
# Work that a thread takes at a time at least, in elements of a long row; what a class costs in
# these; elements, those of rows that are converted, and rows that it takes at most.
LEAST, CLASS_COST = 1 << 20, 3
MOST, MOST_CONVERTED, MOST_ROWS = 1 << 24, 1 << 20, 1 << 17


def side_by_side(*all_rows: Rows) -> bool:
    """Whether a vector holds one class of many rows."""
    width = all_rows[0].width
    if width <= NARROW:
        return True
    return width <= MOST_BESIDE and all(rows.beside >= LEAST_BESIDE for rows in all_rows)


def spread_out(rows: Rows | None, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return memory, offsets of the rows [lo, hi) in it, and how far apart their classes are."""
    if rows is None:
        return read_only(np.empty(0, np.float32)), np.empty(0, np.int64), 1
    if rows.converted:
        tile = rows.converted_tile(lo, hi, 0, rows.width)
        return read_only(tile.ravel()), np.arange(hi - lo) * rows.width, 1
    return read_only(rows.memory), rows.starts(lo, hi), rows.step


def room_for(
    rows: Rows | None, lo: int, hi: int
) -> tuple[np.ndarray, np.ndarray, int, np.ndarray | None]:
    """Return the same of memory to write to, and the tile to `put` in its place, if it is one."""
    if rows is None:
        return np.empty(0), np.empty(0, np.int64), 1, None
    if not rows.converted:
        return rows.memory, rows.starts(lo, hi), rows.step, None
    tile = np.empty((hi - lo, rows.width), words(rows.storage))
    return tile.ravel(), np.arange(hi - lo) * rows.width, 1, tile


def over_rows(
    work: Callable[..., None], rows: Rows, other: Rows | None, target: Rows | None, cost: int
) -> None:
    """Call work(lo, hi, least, out, out_starts, out_step, streamed) for some rows at a time.

    Rows are a vector if at least `least` lie beside each other; the others are where to write.
    `cost` is what a row costs beyond its classes, as `LEAST` counts it.
    """
    converted = any(x is not None and x.converted for x in (rows, other, target))
    least = LEAST_VECTOR if rows.width <= NARROW else 1
    streamed = target is not None and target.data.nbytes >= STREAM_BYTES  # in place as fast

    def task(lo: int, hi: int) -> None:
        out, starts, step, tile = room_for(target, lo, hi)
        work(lo, hi, least, out, starts, step, streamed and tile is None)
        put(target, tile, lo, hi, 0)

    most = min(MOST_ROWS, (MOST_CONVERTED if converted else MOST) // rows.width)
    run(task, rows.count, max(1, LEAST // (cost + CLASS_COST * rows.width)), most)
