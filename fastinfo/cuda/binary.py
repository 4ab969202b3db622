"""Binary cross-entropies on a device: what is launched for them.

A target or a probability outside [0, 1], and what is no weight, make their element NaN, unless
`fastinfo.config(check=True)` asks for an error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo.arrays import Source
from fastinfo.configuration import checked
from fastinfo.cpu.binary import refuse_outside, weight_of
from fastinfo.cuda import binary_kernels as kernels
from fastinfo.cuda import seam
from fastinfo.cuda.arrays import Memory, Rows, blocks, new, of_floats
from fastinfo.cuda.reductions import checked_weights, on_host, sum_of
from fastinfo.cuda.row_kernels import THREADS

# Least and most elements of a block, and blocks that keep a device busy.
LEAST, MOST, ENOUGH = 8 * THREADS, 128 * THREADS, 2048


@dataclass(frozen=True)
class Weights:
    """A number for the positive class, or an array; a factor of losses, or an array of weights.

    `total` is Σ of the weights over all elements.
    """

    pos_weight: float
    pos_weights: Memory | None
    weight: float
    sample_weights: Memory | None
    total: Memory

    @classmethod
    def of(cls, pos: Source, sample: Source, x: Source) -> Weights:
        """Return weights of the elements of x."""
        of_floats(x)
        pos_number, pos_array = _weight(pos, x)
        weight, weights = _weight(sample, x)
        if weights is None:
            total = new((1,), x.result, x.data).filled(weight * x.data.size)
        else:
            total = sum_of(weights, x.result, x.data.size / max(weights.size, 1))
        return cls(pos_number, pos_array, weight, weights, total)


def _weight(weight: Source, x: Source) -> tuple[float, Memory | None]:
    """Return a weight as a number, or 1 and an array in the arithmetic of x."""
    if weight.device != "cpu":
        return 1.0, checked_weights(weight, "position", x.result)
    nowhere = dataclasses.replace(x, data=np.empty(0), device="cpu")
    number, zero, _ = weight_of(weight, nowhere)
    return number, None if zero is None else new((), x.result, x.data).filled(0.0)


@dataclass(frozen=True)
class Problem:
    """Inputs ("logits" or "probabilities"), targets, weights, and how losses are reduced."""

    inputs: str
    x: Source
    y: Source
    weights: Weights
    reduction: str

    @property
    def in_range(self) -> list[Source]:
        """What must be in [0, 1]."""
        return [self.x, self.y] if self.inputs == kernels.PROBABILITIES else [self.y]

    @property
    def divisor(self) -> Memory:
        """What an array of weights is divided by; a mean over 0 is NaN."""
        total = self.weights.total
        return total if self.reduction == "mean" else new((1,), total.storage, total).filled(1.0)

    @property
    def factor(self) -> float:
        """What losses are multiplied by beside no array of weights."""
        share = 1.0 / max(1, self.x.data.size)
        return share if self.reduction == "mean" else self.weights.weight


def losses(problem: Problem, grad: Memory | None, overwrites: bool) -> Memory:
    """Return the reduced losses; with `grad`, write the derivatives there."""
    if checked():
        refuse_outside([on_host(source) for source in problem.in_range])
    x, real = problem.x.data, problem.x.result
    values = new(x.shape, real, x) if problem.reduction == "none" else None
    sums = _read(problem, values, grad)
    if values is not None:
        return values
    return sum_of(sums, real, 1.0, problem.divisor)


def _read(problem: Problem, values: Memory | None, grad: Memory | None) -> Memory:
    """Launch the one reading; return the sums of all blocks."""
    weights, x, real = problem.weights, problem.x.data, problem.x.result
    arrays = [None if w is None else w.broadcast(x.shape)
              for w in (weights.pos_weights, weights.sample_weights)]  # fmt: skip
    given = [x, problem.y.data, *arrays, values, grad]
    rows = [None if r is None else Rows(r, r.storage, problem.x) for r in _along(given)]
    own = rows[0]
    assert own is not None
    each_block = blocks(blocks(x.size, ENOUGH), LEAST) * LEAST
    length = min(max(LEAST, each_block), MOST)
    pieces = blocks(own.width, length)
    count = own.count * pieces
    sums = new((count,), real, x)
    kernel = kernels.losses(
        problem.inputs, problem.x.storage, problem.y.dtype, weights.pos_weights is not None,
        weights.sample_weights is not None, values is not None, grad is not None,
    )  # fmt: skip
    kind = np.dtype(real).type
    memories: list[tuple[Any, ...]] = []
    for r, none in zip(rows, (None, None, real, real, real, x.dtype.name), strict=True):
        memory = seam.nothing(str(none)) if r is None else r.data.flat
        memories.append((memory, *_located(own if r is None else r)))
    seam.launch(
        kernel, count, THREADS, x.stream, *[part for memory in memories for part in memory],
        own.width, length, pieces, kind(weights.pos_weight), kind(problem.factor),
        problem.divisor.flat, sums.flat,
    )  # fmt: skip
    return sums


def _located(rows: Rows) -> tuple[Any, ...]:
    """Where rows lie, as kernels take it."""
    return rows.starts, rows.place


def _along(arrays: Sequence[Memory | None]) -> list[Memory | None]:
    """Return arrays of one shape with neighbouring axes made one where they are so for all."""
    present = [x for x in arrays if x is not None]
    lengths, kept = list[int](), list[int]()
    for axis, n in enumerate(present[0].shape):
        if n == 1:
            continue
        if lengths and all(x.strides[kept[-1]] == x.strides[axis] * n for x in present):
            lengths[-1], kept[-1] = lengths[-1] * n, axis
        else:
            lengths.append(n)
            kept.append(axis)
    shape = tuple(lengths) or (1,)
    if not math.prod(present[0].shape):
        shape, kept = (0,), [0]
    return [x and dataclasses.replace(
        x, shape=shape, strides=tuple(x.strides[axis] for axis in kept) or (1,)
    ) for x in arrays]  # fmt: skip
