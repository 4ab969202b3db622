"""Divergences between distributions given by logits, row by row, on the processor.

The first reading gives both normalisers and KL. What it cannot give is summed in a second, with
known normalisers: JS, and whatever is too near 0 for the digits of the first; gradients take one
more. Rows are taken a tile at a time, so that later readings find it in cache; rows longer than a
piece go piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import Rows, lazy
from fastinfo.catalogue import LOGIT_DIVERGENCES, LogitDivergence
from fastinfo.cpu import logit_pair_kernels as kernels
from fastinfo.cpu import row_kernels
from fastinfo.cpu.rows import Options, Problem, states_of_rows, stretches
from fastinfo.cpu.tiles import put, stretch, writable
from fastinfo.cpu.vmath import STORAGE
from fastinfo.engine import run
from fastinfo.formulas import LN2

# Below these, times 1 + |Σ p (z_p - z_q)|, a value is summed again, from terms of one sign in
# float64: the errors of the first sums, 1e-7 and, where many terms are equal, 1e-13 of that, would
# show.
NEAR = {"float32": 2.0**-6, "float64": 2.0**-3}


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
        return "float64" if "float64" in (self.p.storage, self.q.storage) else "float32"

    @lazy
    def problem(self) -> Problem:
        """What the first reading reads."""
        options = Options(self.temperature)
        return Problem(self.p, options, soft=self.q, active=self.active, way="relative")

    @lazy
    def options(self) -> np.ndarray:
        """Options of the later readings."""
        return np.array([1.0 / self.temperature, 1.0 / (self.temperature * LN2), self.weight])


def divergences(pair: Pair, out: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted divergences; with `out`, write derivatives by q there, classes last."""
    n = pair.p.count
    values = np.zeros(n)
    target = None if out is None else Rows.along(out, *[pair.q.storage] * 2)

    def task(lo: int, hi: int) -> None:
        values[lo:hi] = _finish(pair, states_of_rows(pair.problem, lo, hi), lo, hi, target)

    run(task, n, pair.problem.in_cache)
    return values


def _finish(pair: Pair, state: np.ndarray, lo: int, hi: int, target: Rows | None) -> np.ndarray:
    """Values of the rows [lo, hi) from their states, and their gradients."""
    figures = np.empty((row_kernels.RELATIVE_FIGURES, hi - lo))
    row_kernels.relative_summaries()(state, 1.0 / pair.temperature, figures)
    active = pair.active[lo:hi]
    value, of_q = figures[row_kernels.DIVERGENCE], np.zeros(hi - lo)
    if pair.divergence.far_terms:
        rows = np.flatnonzero(active)
        sums = _sums(pair, pair.divergence.far_terms, pair.real, rows, lo, figures)
        value[rows], of_q[rows] = _value(pair, sums), sums[:, kernels.SECOND]
    size = 0.0 if pair.divergence.far_terms else figures[row_kernels.MAGNITUDE]
    bound = NEAR[pair.real] * (1.0 + size)
    near = np.flatnonzero((active != 0.0) & (value < bound))
    if near.size:
        # anew, both in the same way: what is equal must stay so
        log_sums = [row_kernels.P_LOG_SUM], [row_kernels.Q_LOG_SUM]
        figures[log_sums, near] = 0.0
        sums = _sums(pair, formulas.masses, "float64", near, lo, figures)
        figures[log_sums, near] = np.log(sums.T)
        sums = _sums(pair, pair.divergence.terms, "float64", near, lo, figures)
        value[near], of_q[near] = _value(pair, sums), sums[:, kernels.SECOND]
    if target is not None:
        _write(pair, lo, figures, of_q, active, target)
    return np.where(active != 0.0, value, 0.0) * active


def _value(pair: Pair, sums: np.ndarray) -> np.ndarray:
    if pair.measure == "kl":
        return sums[:, kernels.FIRST]
    return pair.weight * sums[:, kernels.FIRST] + (1.0 - pair.weight) * sums[:, kernels.SECOND]


def _constants(
    pair: Pair,
    figures: np.ndarray,
    real: str,
    divergence: np.ndarray | float,
    factor: np.ndarray | float,
) -> np.ndarray:
    """Return what the later readings know of each row."""
    p_max, p_log_sum = figures[row_kernels.P_MAX], figures[row_kernels.P_LOG_SUM]
    q_max, q_log_sum = figures[row_kernels.Q_MAX], figures[row_kernels.Q_LOG_SUM]
    constants = np.empty((p_max.size, kernels.CONSTANTS))
    with np.errstate(all="ignore"):
        distance = p_max - q_max
        of_q = distance - p_max
        lost = (p_max - (distance - of_q)) - (q_max + of_q)
        rounded = distance.astype(real).astype(np.float64)
        constants[:, kernels.P_MAX], constants[:, kernels.Q_MAX] = p_max, q_max
        constants[:, kernels.P_SHARE] = np.exp(-p_log_sum)
        constants[:, kernels.Q_SHARE] = np.exp(-q_log_sum)
        constants[:, kernels.DISTANCE] = rounded
        constants[:, kernels.SHIFT] = (p_log_sum - q_log_sum) + (
            (distance - rounded) + lost
        ) / pair.temperature
    constants[:, kernels.OF_Q], constants[:, kernels.FACTOR] = divergence, factor
    return constants


def _sums(
    pair: Pair, terms: object, real: str, which: np.ndarray, lo: int, figures: np.ndarray
) -> np.ndarray:
    """Sums of terms over some of the rows from lo on."""
    add = kernels.sums(terms, pair.p.storage, pair.q.storage, STORAGE[real][0])
    constants = _constants(pair, figures, real, 0.0, 0.0)
    tasks = stretches(pair.p.width, lo, lo + figures.shape[1])
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


def _write(
    pair: Pair, lo: int, figures: np.ndarray, of_q: np.ndarray, active: np.ndarray, target: Rows
) -> None:
    """Write the derivatives of the rows from lo on by the logits of q."""
    slope, real = pair.divergence.slope, STORAGE[pair.real][0]
    write = kernels.gradients(slope, pair.p.storage, pair.q.storage, real, target.storage)
    # NaN where a row is no distribution
    valid = 0.0 * (figures[row_kernels.P_LOG_SUM] + figures[row_kernels.Q_LOG_SUM])
    factor = active / pair.temperature + valid
    constants = _constants(pair, figures, pair.real, of_q, factor)
    tasks = stretches(pair.p.width, lo, lo + figures.shape[1])

    def task(begin: int, end: int) -> None:
        for top, bottom, left, right in tasks[begin:end]:
            p, p_starts = stretch(pair.p, top, bottom, left, right)
            q, q_starts = stretch(pair.q, top, bottom, left, right)
            memory, starts, tile = writable(target, top, bottom, left, right)
            rows = slice(top - lo, bottom - lo)
            write(
                p, p_starts, q, q_starts, right - left, active[rows], constants[rows],
                pair.options, memory, starts,
            )  # fmt: skip
            if tile is not None:
                put(target, tile, top, bottom, left)

    run(task, len(tasks), 1)
