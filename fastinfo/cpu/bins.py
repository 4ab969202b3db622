"""Measures of rows of bins on the processor: what is read when, by which thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo import checks, formulas
from fastinfo.arrays import Rows, Source
from fastinfo.catalogue import Sum
from fastinfo.cpu import bin_kernels as kernels
from fastinfo.cpu.tiles import stretch
from fastinfo.engine import run

# Bins of a row summed at a time, and bins that a thread takes at a time.
PIECE = 1 << 17
CHUNK = 1 << 18


def _over_rows(rows: Rows, add: Callable[[int, int, int, int], None]) -> None:
    """Call `add(lo, hi, begin, end)` for stretches of rows; a row's stretches come in order."""
    step = max(1, CHUNK // rows.width)

    def task(lo: int, hi: int) -> None:
        for begin in range(0, rows.width, PIECE):
            add(lo, hi, begin, min(begin + PIECE, rows.width))

    run(task, rows.count, step)


@dataclass(frozen=True)
class Divisors:
    """What rows are divided by, rounded, and what the rounding lost."""

    rounded: np.ndarray
    rest: np.ndarray


def with_divisors(source: Source, rows: Rows, normalize: bool) -> tuple[Rows, Divisors]:
    """Return rows and what they are divided by, their sums or 1; NaN for a row with inf or NaN.

    Rows whose sums overflow are scaled down first.
    """
    total, lowest = totals(rows)
    checks.no_negative(source, lowest)
    finite = np.isfinite(total.rounded)
    if normalize and finite.all():
        return rows, total
    beyond = np.isinf(total.rounded)
    if normalize and beyond.any():
        rows = rows.scaled_down(beyond)
        total, _ = totals(rows)
        finite = np.isfinite(total.rounded)
    divisor = total.rounded if normalize else np.ones(rows.count)
    rest = np.where(finite & normalize, total.rest, 0.0)
    return rows, Divisors(np.where(finite, divisor, np.nan), rest)


def totals(rows: Rows) -> tuple[Divisors, np.ndarray]:
    """Return the sum of each row, and its lowest entry if that is below 0."""
    total, rest, lowest = np.zeros((3, rows.count))
    add_rows = kernels.totals(rows.storage)

    def add(lo: int, hi: int, begin: int, end: int) -> None:
        memory, starts = stretch(rows, lo, hi, begin, end)
        add_rows(memory, starts, end - begin, total[lo:hi], rest[lo:hi], lowest[lo:hi])

    _over_rows(rows, add)
    return Divisors(total, rest), lowest


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, and what they are divided by."""

    p: Rows
    p_by: Divisors
    q: Rows
    q_by: Divisors

    def sums(
        self,
        term: Callable[..., Any],
        parameter: float,
        largest: bool = False,
        tops: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return Σ term of each pair, or its largest term; the term may need what is in `tops`."""
        p, q, p_by, q_by = self.p, self.q, self.p_by, self.q_by
        result = np.full(p.count, -np.inf if largest else 0.0)
        add_rows = kernels.sums(term, p.storage, q.storage, largest, tops is not None)
        tops = np.zeros(p.count) if tops is None else tops

        def add(lo: int, hi: int, begin: int, end: int) -> None:
            x, x_starts = stretch(p, lo, hi, begin, end)
            y, y_starts = stretch(q, lo, hi, begin, end)
            add_rows(
                x, x_starts, p_by.rounded[lo:hi], p_by.rest[lo:hi], y, y_starts,
                q_by.rounded[lo:hi], q_by.rest[lo:hi], end - begin, parameter, tops[lo:hi],
                result[lo:hi],
            )  # fmt: skip

        _over_rows(p, add)
        return result


def values(
    total: Sum, finish: Callable[..., Any], pairs: Pairs, parameter: float, unit: float
) -> np.ndarray:
    """Return the measure of each pair."""
    result = pairs.sums(total.term, parameter, total.largest)
    beyond = np.zeros(0, np.bool_)
    if total.overflows:
        beyond = np.isinf(result) | (result < total.least)
    if total.far is not None and (far := result < total.least).any():
        others = values(total.far, finish, pairs, parameter, unit)
        kernels.finishes(total.says, finish)(result, unit, parameter)
        return np.where(far, others, result)
    kernels.finishes(total.says, finish)(result, unit, parameter)
    if beyond.any():
        tops = pairs.sums(formulas.log_ratio_term, parameter, largest=True)
        beyond &= np.isfinite(tops)
        lowered = pairs.sums(
            formulas.lowered_power_term, parameter, tops=np.where(beyond, tops, 0.0)
        )
        for i in np.flatnonzero(beyond):
            result[i] = formulas.renyi_of_lowered_powers(lowered[i], parameter, tops[i]) / unit
    return result
