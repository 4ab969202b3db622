"""Divergences between distributions given by logits, on the processor.

The first reading gives both normalisers and KL. What it cannot give is summed in a second, with
known normalisers: JS, and whatever is too near 0 for the digits of the first; gradients take one
more. Rows are taken a tile at a time, so that later readings find it in cache; rows longer than a
piece go piece by piece. Pairs of few classes, and pairs that lie beside each other, are read side
by side instead, a lane of a vector a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import Rows, computed_in, lazy
from fastinfo.catalogue import LOGIT_DIVERGENCES, LogitDivergence
from fastinfo.cpu import lane_pair_kernels, lanes, row_kernels
from fastinfo.cpu import logit_pair_kernels as kernels
from fastinfo.cpu.rows import Options, Problem, one_by_one, states_of_rows, stretches
from fastinfo.cpu.tiles import put, stretch, writable
from fastinfo.cpu.vmath import STORAGE
from fastinfo.engine import run
from fastinfo.formulas import LN2

# Below these, times 1 + |Σ p (z_p - z_q)| for KL, a value is summed again, from terms of one sign:
# the errors of the first sums, 1e-7 and, where many terms are equal, 1e-13 of that, would show.
NEAR = {"float32": 2.0**-5, "float64": 2.0**-3}

# What a pair that is read side by side with others costs beyond its classes, as `lanes` counts it.
LANE_COST = 150


@dataclass(frozen=True)
class Pair:
    """Two arrays of logits, their divergence, and the weight of each row, 0 for ignored ones."""

    measure: str
    p: Rows
    q: Rows
    temperature: float
    weight: float
    active: np.ndarray

    @property
    def divergence(self) -> LogitDivergence:
        """Formulas of the divergence."""
        return LOGIT_DIVERGENCES[self.measure]

    @property
    def real(self) -> str:
        """Type in which both are computed with."""
        return computed_in(self.p.storage, self.q.storage)

    @lazy
    def problem(self) -> Problem:
        """What the first reading reads."""
        options = Options(self.temperature)
        return Problem(self.p, options, soft=self.q, active=self.active, way="relative")

    @lazy
    def options(self) -> np.ndarray:
        """Options of the later readings."""
        t = self.temperature
        return np.array([1.0 / t, 1.0 / (t * LN2), self.weight, NEAR[self.real]])


def divergences(pair: Pair, out: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted divergences; with `out`, write derivatives by q there, classes last."""
    n = pair.p.count
    values = np.zeros(n)
    target = None if out is None else Rows.along(out, *[pair.q.storage] * 2)
    if lanes.side_by_side(pair.p, pair.q):
        _side_by_side(pair, target, values)
        return values

    def task(lo: int, hi: int) -> None:
        values[lo:hi] = _finish(pair, states_of_rows(pair.problem, lo, hi), lo, hi, target)

    run(task, n, pair.problem.in_cache)
    return values


def _finish(pair: Pair, state: np.ndarray, lo: int, hi: int, target: Rows | None) -> np.ndarray:
    """Values of the rows [lo, hi) from their states, and their gradients."""
    figures = np.empty((row_kernels.RELATIVE_FIGURES, hi - lo))
    row_kernels.relative_summaries()(state, 1.0 / pair.temperature, figures)
    active, value = one_by_one(pair.active[lo:hi]), figures[row_kernels.DIVERGENCE]
    tile = Tile(pair, lo, active, figures, np.zeros(hi - lo))
    far, near = pair.divergence.far_terms, NEAR[pair.real]
    if far is None:
        near = near * (1.0 + figures[row_kernels.MAGNITUDE])
        tile.recentre(np.flatnonzero((active != 0.0) & (value < near)), value)
    else:
        # of nearly equal rows it is β (1 - β) KL, which is enough to choose the terms by
        own, other = formulas.shares(pair.weight)
        value *= own * other
        tile.add(far, np.flatnonzero((active != 0.0) & ~(value < near)), value)
        rows = np.flatnonzero((active != 0.0) & (value < near))
        tile.recentre(rows, np.empty(hi - lo))
        tile.add(pair.divergence.terms, rows, value)
    if target is not None:
        _write(tile, target)
    return np.where(active != 0.0, value, 0.0) * active


def _side_by_side(pair: Pair, target: Rows | None, values: np.ndarray) -> None:
    """Write the values of pairs side by side, and their gradients."""
    width, (arithmetic, _, _), form = pair.q.width, STORAGE[pair.real], pair.divergence
    into = "" if target is None else target.storage
    read_pairs = lane_pair_kernels.divergences(
        form.terms, form.slope, pair.p.storage, pair.q.storage, arithmetic, into
    )

    def read(lo: int, hi: int, *places: Any) -> None:
        read_pairs(
            *lanes.spread_out(pair.p, lo, hi), *lanes.spread_out(pair.q, lo, hi), width,
            one_by_one(pair.active[lo:hi]), pair.options, values[lo:hi],
            lane_pair_kernels.Room.of(arithmetic, width, into), *places,
        )  # fmt: skip

    lanes.over_rows(read, pair.q, pair.p, target, LANE_COST)


@dataclass(frozen=True)
class Tile:
    """Rows from lo on after the first reading; the log sums of q are `more` than that found."""

    pair: Pair
    lo: int
    active: np.ndarray
    figures: np.ndarray
    more: np.ndarray

    @lazy
    def constants(self) -> np.ndarray:
        """What the later readings know of each row."""
        constants = np.zeros((self.active.size, kernels.CONSTANTS))
        self.know(np.arange(self.active.size), constants)
        return constants

    def know(self, rows: np.ndarray, constants: np.ndarray) -> None:
        """Find the constants of some rows."""
        real = STORAGE[self.pair.real][0].real
        kernels.knowledge(real)(
            rows, self.figures, self.active, self.more, self.pair.options, constants
        )

    def add(self, terms: Callable[..., Any], rows: np.ndarray, value: np.ndarray) -> None:
        """Make the value of some rows the sum of two terms."""
        if rows.size:
            first, second = _sums(self, terms, rows).T
            own, other = formulas.shares(self.pair.weight)
            value[rows] = own * first + other * second
            self.constants[rows, kernels.OF_Q] = second

    def recentre(self, rows: np.ndarray, value: np.ndarray) -> None:
        """Make the value of some rows KL with all its digits, and their constants as good.

        KL is a sum of terms of one sign, which depend on the ratio of the normalisers: P and Q tell
        how far it is off.
        """
        for _ in range(kernels.GUESSES):
            if not rows.size:
                break
            sums = _sums(self, formulas.kl_of_logits, rows)
            kernels.refinements()(sums, rows, value, self.more)
            self.know(rows, self.constants)
            rows = rows[sums[:, kernels.SECOND] ** 2 > sums[:, kernels.FIRST]]


def _sums(tile: Tile, terms: object, which: np.ndarray) -> np.ndarray:
    """Sums of two terms over some of the rows of a tile."""
    pair, lo, constants = tile.pair, tile.lo, tile.constants
    near = terms is not pair.divergence.far_terms
    add = kernels.sums(terms, near, pair.p.storage, pair.q.storage, STORAGE[pair.real][0])
    tasks = stretches(pair.p.width, lo, lo + len(constants))
    parts = [np.empty((0, kernels.SUMS))] * len(tasks)
    first, last = (np.searchsorted(which + lo, [task[i] for task in tasks]) for i in (0, 1))

    def task(begin: int, end: int) -> None:
        for i in range(begin, end):
            if first[i] == last[i]:
                continue
            own, (top, bottom, left, right) = which[first[i] : last[i]], tasks[i]
            p, p_starts = stretch(pair.p, top, bottom, left, right)
            q, q_starts = stretch(pair.q, top, bottom, left, right)
            parts[i] = np.empty((own.size, kernels.SUMS))
            add(
                own + (lo - top), p, p_starts, q, q_starts, right - left,
                constants[top - lo : bottom - lo], pair.options, parts[i],
            )  # fmt: skip

    run(task, len(tasks), 1)
    sums = np.zeros((which.size, kernels.SUMS))
    for part, begin, end in zip(parts, first, last, strict=True):
        sums[begin:end] += part
    return sums


def _write(rows: Tile, target: Rows) -> None:
    """Write the derivatives by the logits of q."""
    pair, lo, active, constants = rows.pair, rows.lo, rows.active, rows.constants
    slope, real = pair.divergence.slope, STORAGE[pair.real][0]
    write = kernels.gradients(slope, pair.p.storage, pair.q.storage, real, target.storage)
    tasks = stretches(pair.p.width, lo, lo + len(constants))

    def task(begin: int, end: int) -> None:
        for top, bottom, left, right in tasks[begin:end]:
            p, p_starts = stretch(pair.p, top, bottom, left, right)
            q, q_starts = stretch(pair.q, top, bottom, left, right)
            memory, starts, tile = writable(target, top, bottom, left, right)
            own = slice(top - lo, bottom - lo)
            write(
                p, p_starts, q, q_starts, right - left, active[own], constants[own],
                pair.options, memory, starts,
            )  # fmt: skip
            put(target, tile, top, bottom, left)

    run(task, len(tasks), 1)
