"""Joint tables on the processor: what is read when, by which thread.

Tables are cut into tiles of one size, whose sums are merged in order: results do not depend on the
number of threads, nor on what other tables hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastinfo.arrays import Rows, empty
from fastinfo.cpu import table_kernels as kernels
from fastinfo.cpu.tiles import elements, put_elements, room, stretch
from fastinfo.engine import run

# Rows and columns of a tile. The sums of its rows and columns are 1/128 of what it holds.
TILE = 512
# Cells of small tables that a thread takes at a time.
CHUNK = 1 << 18
# Totals beyond these bounds are scaled to 1, so that products of sums are normal numbers.
LEAST, MOST = 2.0**-64, 2.0**64
# What tables are scaled by if their totals are beyond the largest number.
DOWN = 2.0**-600


@dataclass(frozen=True)
class Tile:
    """Whole tables, or a tile of one: the half-open ranges of what it covers."""

    down: int
    across: int
    tables: slice
    rows: slice
    columns: slice
    height: int


@dataclass(frozen=True)
class Sums:
    """Sums as rounded, and what the rounding lost."""

    rounded: np.ndarray
    rest: np.ndarray


@dataclass(frozen=True)
class Tables:
    """Tables with their sums, all times `scale`, a power of two; NaN where not finite."""

    cells: Rows
    height: int
    scale: np.ndarray
    total: Sums
    rows: Sums
    columns: Sums
    lowest: np.ndarray


def _grid(cells: Rows, height: int) -> tuple[int, int]:
    """Return how many tiles a table has, down and across."""
    return -(-height // TILE), -(-cells.width // TILE)


def _over_tiles(cells: Rows, height: int, call: Callable[[Tile], None]) -> None:
    width, (down, across) = cells.width, _grid(cells, height)
    count, each = cells.count // height, down * across

    def tile(item: int) -> Tile:
        table, place = divmod(item, each)
        i, j = divmod(place, across)
        top, bottom = i * TILE, min((i + 1) * TILE, height)
        rows = slice(table * height + top, table * height + bottom)
        columns = slice(j * TILE, min((j + 1) * TILE, width))
        return Tile(i, j, slice(table, table + 1), rows, columns, bottom - top)

    def task(lo: int, hi: int) -> None:
        if each == 1:
            rows = slice(lo * height, hi * height)
            call(Tile(0, 0, slice(lo, hi), rows, slice(0, width), height))
            return
        for item in range(lo, hi):
            call(tile(item))

    run(task, count * each, max(1, CHUNK // (height * width)) if each == 1 else 1)


def _read(cells: Rows, tile: Tile) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Return memory, where rows begin in it, and the height and width of tables there."""
    columns = tile.columns
    memory, starts = stretch(cells, tile.rows.start, tile.rows.stop, columns.start, columns.stop)
    return memory, starts, tile.height, columns.stop - columns.start


def _merged(totals: np.ndarray, rests: np.ndarray) -> Sums:
    """Add up along the first axis."""
    total, rest = np.zeros((2, *totals.shape[1:]))
    parts = (len(totals), total.size)
    kernels.merges()(totals.reshape(parts), rests.reshape(parts), total.ravel(), rest.ravel())
    return Sums(total, rest)


def _margins(cells: Rows, height: int, scale: np.ndarray) -> Tables:
    count, (down, across) = scale.size, _grid(cells, height)
    rows = np.zeros((2, across, cells.count))
    columns = np.zeros((2, down, count, cells.width))
    lowest = np.zeros((down, across, count))
    add_tables = kernels.margins(cells.storage)

    def add(tile: Tile) -> None:
        add_tables(
            *_read(cells, tile), scale[tile.tables], *rows[:, tile.across, tile.rows],
            *columns[:, tile.down, tile.tables, tile.columns],
            lowest[tile.down, tile.across, tile.tables],
        )  # fmt: skip

    _over_tiles(cells, height, add)
    of_rows = _merged(*rows)
    by_table = (np.ascontiguousarray(s.reshape(count, height).T)
                for s in (of_rows.rounded, of_rows.rest))  # fmt: skip
    return Tables(
        cells, height, scale, _merged(*by_table), of_rows, _merged(*columns), lowest.min((0, 1))
    )


def tables(cells: Rows, height: int) -> Tables:
    """Add up tables of `height` rows each."""
    margins = _margins(cells, height, np.ones(cells.count // height))
    beyond = np.isinf(margins.total.rounded)
    if beyond.any():
        margins = _margins(cells, height, np.where(beyond, DOWN, 1.0))
    total = margins.total.rounded
    ordinary = (total >= LEAST) & (total <= MOST) | (total <= 0.0) | ~np.isfinite(total)
    exponent = np.clip(-np.frexp(np.where(ordinary, 1.0, total))[1], -1022, 1023)
    factor = np.where(ordinary, 1.0, np.ldexp(1.0, exponent))

    def scaled(sums: Sums, by: np.ndarray) -> Sums:
        finite = np.isfinite(sums.rounded)
        return Sums(
            np.where(finite, sums.rounded, np.nan) * by, np.where(finite, sums.rest, 0) * by
        )

    return Tables(
        cells, height, margins.scale * factor, scaled(margins.total, factor),
        scaled(margins.rows, np.repeat(factor, height)), scaled(margins.columns, factor[:, None]),
        margins.lowest,
    )  # fmt: skip


def _by_tables(tables: Tables, total: Sums, tile: Tile) -> tuple[np.ndarray, ...]:
    """Return scale, totals, sums of rows and sums of columns as kernels of cells take them."""
    return (
        tables.scale[tile.tables],
        total.rounded[tile.tables], total.rest[tile.tables],
        tables.rows.rounded[tile.rows], tables.rows.rest[tile.rows],
        tables.columns.rounded[tile.tables, tile.columns],
        tables.columns.rest[tile.tables, tile.columns],
    )  # fmt: skip


def _shares(values: np.ndarray, tables: Tables) -> np.ndarray:
    """Return values over the totals, NaN of nothing."""
    with np.errstate(invalid="ignore"):
        return values / tables.total.rounded


def information(tables: Tables) -> np.ndarray:
    """Return the mutual information of each table over its sum, in nats."""
    add_tables = kernels.information(tables.cells.storage)
    sums = np.zeros((*_grid(tables.cells, tables.height), tables.scale.size))

    def add(tile: Tile) -> None:
        given = _by_tables(tables, tables.total, tile)
        add_tables(*_read(tables.cells, tile), *given, sums[tile.down, tile.across, tile.tables])

    _over_tiles(tables.cells, tables.height, add)
    return _shares(_shares(sums.sum((0, 1)), tables), tables)


def _entropies(tables: Tables, whole: Sums) -> np.ndarray:
    add_tables = kernels.entropies(tables.cells.storage)
    sums = np.zeros((*_grid(tables.cells, tables.height), tables.scale.size))

    def add(tile: Tile) -> None:
        add_tables(
            *_read(tables.cells, tile), tables.scale[tile.tables], whole.rounded[tile.rows],
            whole.rest[tile.rows], sums[tile.down, tile.across, tile.tables],
        )  # fmt: skip

    _over_tiles(tables.cells, tables.height, add)
    return _shares(sums.sum((0, 1)), tables)


def joint_entropies(tables: Tables) -> np.ndarray:
    """Return the entropy of each table over its sum, in nats."""
    total = tables.total
    whole = (np.repeat(part, tables.height) for part in (total.rounded, total.rest))
    return _entropies(tables, Sums(*whole))


def conditional_entropies(tables: Tables) -> np.ndarray:
    """Return the entropy of the columns, the row given, of each table over its sum, in nats."""
    return _entropies(tables, tables.rows)


def marginal_entropies(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Return the entropies of the rows and of the columns of each table over its sum, in nats."""
    count, total = tables.scale.size, tables.total
    results = np.zeros((2, count))
    for sums, result in zip((tables.rows, tables.columns), results, strict=True):
        size = sums.rounded.size // max(1, count)
        parts = [part.reshape(count, size) for part in (sums.rounded, sums.rest)]
        kernels.sum_entropies()(*parts, total.rounded, total.rest, result)
    return _shares(results[0], tables), _shares(results[1], tables)


def pointwise(tables: Tables, normalize: bool, unit: float, dtype: str) -> np.ndarray:
    """Return the pointwise mutual information of each cell in units of `unit`, a row a row."""
    total = tables.total
    if normalize:
        total = Sums(np.where(total.rounded == 0, np.nan, total.rounded), total.rest)
    else:  # what stands there has a total of 1
        total = Sums(tables.scale, np.zeros_like(tables.scale))
    cells, fill_tables = tables.cells, kernels.pointwise(tables.cells.storage, dtype)
    out = empty((cells.count, cells.width), dtype)

    def fill(tile: Tile) -> None:
        given = _by_tables(tables, total, tile)
        begins = np.arange(tile.rows.start, tile.rows.stop) * cells.width + tile.columns.start
        fill_tables(*_read(cells, tile), *given, unit, out.reshape(-1), begins)

    _over_tiles(cells, tables.height, fill)
    return out


def surprisals(x: Rows, unit: float, result: Rows) -> float:
    """Write -log p / unit of all elements; return the lowest element, or 0."""
    size = x.count * x.width
    lowest = np.zeros(-(-size // CHUNK))
    fill = kernels.surprisals(x.storage, result.storage)

    def task(lo: int, hi: int) -> None:
        for i in range(lo, hi):
            first, last = i * CHUNK, min((i + 1) * CHUNK, size)
            memory, own = room(result, first, last)
            lowest[i] = fill(elements(x, first, last), unit, memory)
            if not own:
                put_elements(result, memory, first)

    run(task, len(lowest), 1)
    return float(lowest.min(initial=0.0))
