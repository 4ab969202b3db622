"""Divergences between distributions given by logits, row by row, on a device.

The first reading gives both normalisers and KL; JS takes a second, gradients one more. Rows whose
value is too near 0 for the digits of these are summed again in float64 by a kernel of its own,
which leaves the others at once: nothing waits to know which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo.arrays import computed_in, lazy
from fastinfo.catalogue import LOGIT_DIVERGENCES, LogitDivergence
from fastinfo.cuda import logit_pair_kernels as kernels
from fastinfo.cuda import seam
from fastinfo.cuda.arrays import Memory, Rows, blocks, new
from fastinfo.cuda.row_kernels import THREADS
from fastinfo.cuda.rows import length_of_pieces
from fastinfo.formulas import LN2

# Most classes of a piece: 32 sums of four a thread, of which equal ones are rounded alike.
MOST = 128 * THREADS
# Below these, times 1 + |Σ p (z_p - z_q)| for KL, a value is summed again: of float32 sums the
# error is 5e-7.
NEAR = {"float32": 2.0**-5, "float64": 2.0**-3}


@dataclass(frozen=True)
class Pair:
    """Two arrays of logits, their divergence, and the weight of each row, 0 for ignored ones."""

    measure: str
    p: Rows
    q: Rows
    temperature: float
    weight: float
    active: Memory

    @property
    def divergence(self) -> LogitDivergence:
        """Formulas of the divergence."""
        return LOGIT_DIVERGENCES[self.measure]

    @property
    def real(self) -> str:
        """Type in which both are computed with."""
        return computed_in(self.p.storage, self.q.storage)

    @property
    def storages(self) -> tuple[str, str]:
        """What both are stored in."""
        return self.p.storage, self.q.storage

    @property
    def stream(self) -> seam.Stream:
        """Stream of the logits that gradients are for."""
        return self.q.data.stream

    @lazy
    def rows(self) -> tuple[Any, ...]:
        """Both as kernels take them."""
        p, q = self.p, self.q
        return p.data.flat, p.starts, p.place, q.data.flat, q.starts, q.place, q.width

    @lazy
    def length(self) -> int:
        """Classes of a piece: all, unless there are too few rows or too many classes."""
        return length_of_pieces(self.q.count, self.q.width, MOST)

    @property
    def grid(self) -> tuple[int, int] | int:
        """Blocks of kernels that stream: (row, piece)."""
        return (self.q.count, blocks(self.q.width, self.length)) if self.q.count else 0

    def option(self, real: str) -> tuple[Any, ...]:
        """Options as kernels take them."""
        t = self.temperature
        return tuple(np.dtype(real).type(v) for v in (1.0 / t, 1.0 / (t * LN2), self.weight))

    def new(self, real: str, *shape: int) -> Memory:
        """Return memory for figures of rows."""
        return new((self.q.count, *shape), real, self.q.data)


def divergences(pair: Pair, out: Memory | None = None) -> Memory:
    """Return the weighted divergences; with `out`, write derivatives by q there, classes last."""
    real, far, active = pair.real, pair.divergence.far_terms, pair.active.flat
    option, exact = pair.option(real), pair.option("float64")
    threads, whole = THREADS, blocks(pair.q.count, THREADS)
    pieces = blocks(pair.q.width, pair.length)
    numbers = pair.new(real, pieces, kernels.NUMBERS)
    seam.launch(
        kernels.states(*pair.storages, real), pair.grid, threads, pair.stream, *pair.rows,
        pair.length, active, option, numbers.shaped,
    )  # fmt: skip
    figures, constants = pair.new("float64", kernels.FIGURES), pair.new(real, kernels.CONSTANTS)
    values, bound = pair.new("float64"), np.float64(NEAR[real])
    known = figures.shaped, constants.shaped, values.flat
    seam.launch(
        kernels.summaries(real, far is not None), whole, threads, pair.stream, numbers.shaped,
        active, exact, bound, *known,
    )  # fmt: skip
    if far is not None:
        sums = pair.new(real, pieces, kernels.SUMS)
        seam.launch(
            kernels.sums(far, *pair.storages, real), pair.grid, threads, pair.stream, *pair.rows,
            pair.length, constants.shaped, option, sums.shaped,
        )  # fmt: skip
        seam.launch(
            kernels.totals(real), whole, threads, pair.stream, sums.shaped, active, exact, bound,
            *known[1:],
        )  # fmt: skip
    seam.launch(
        kernels.near(pair.divergence.terms, *pair.storages, real), pair.q.count,
        kernels.NEAR_THREADS, pair.stream, *pair.rows, active, exact, *known,
    )  # fmt: skip
    if out is not None:
        target = Rows.along(out, pair.q.source)
        seam.launch(
            kernels.gradients(pair.divergence.slope, *pair.storages, real), pair.grid, threads,
            pair.stream, *pair.rows, pair.length, active, constants.shaped, option, out.flat,
            target.starts, target.place,
        )  # fmt: skip
    return values
