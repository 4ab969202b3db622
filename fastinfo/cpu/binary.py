"""Binary cross-entropies on the processor: what is read when, by which thread.

Elements are taken in pieces of one size, in the order of their indices; what cannot be read in
place is copied a piece at a time. Sums of pieces are merged in order. All ways give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastinfo import checks
from fastinfo.arrays import Rows, Source, as_result, empty, read_only, words
from fastinfo.cpu import binary_kernels as kernels
from fastinfo.cpu import extents
from fastinfo.cpu.binary_kernels import PIECE
from fastinfo.cpu.tiles import elements, in_place, put_elements, room, streams
from fastinfo.cpu.vmath import STORAGE
from fastinfo.engine import run

# Pieces that a thread takes at most, of what it reads and writes in place: 40 us of Python a piece
# cost an eighth of the speed.
MOST = 64
NOTHING = read_only(np.empty(0))


@dataclass(frozen=True)
class Weights:
    """A number for the positive class, or an array; a factor of losses, and perhaps an array.

    Losses count pos_weights or else pos_weight, and sample_weights / total or else weight; `total`
    is Σ of the weights over all elements.
    """

    pos_weight: float
    pos_weights: Source | None
    weight: float
    sample_weights: Source | None
    total: float

    @classmethod
    def of(cls, pos: Source, sample: Source, x: Source) -> Weights:
        """Return weights of the elements of x."""
        pos_number, pos_array, _ = weight_of(pos, x)
        return cls(pos_number, pos_array, *weight_of(sample, x))


def weight_of(weight: Source, x: Source) -> tuple[float, Source | None, float]:
    """Return a weight as a number, or 1 and an array of the shape of x, and its sum over x."""
    size, limit = weight.data.size, float(np.finfo(x.result).max)
    if size == 1:
        low = high = total = float(weight.values().reshape(()))
    else:
        low, high, total = _extent(weight)
    if low < 0.0 or high > limit or not np.isfinite(total):
        values = np.asarray(weight.values(), np.float64)
        rule = f"finite in {x.result} and at least 0"
        bad = ~((values >= 0.0) & (values <= limit))
        checks.refuse(weight.name, rule, values, bad, ValueError, "position")
    total *= x.data.size / max(size, 1)
    # an array of zeros, which ignores; a number would multiply
    if size == 1 and high > 0.0:
        return high, None, total
    return 1.0, replace(weight, data=np.broadcast_to(weight.data, x.shape)), total


def _extent(x: Source) -> tuple[float, ...]:
    """Return the lowest value or 0, the highest or 0, and the sum."""
    figures = extents.extent(_along([(x.data, x.dtype, x.storage)])[0])
    return tuple(float(figure) for figure in figures)


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
        return [self.x, self.y] if self.inputs == "probabilities" else [self.y]

    @property
    def factor(self) -> float:
        """What losses are multiplied by, or divided by beside an array of weights."""
        weights = self.weights
        if self.reduction != "mean":
            return weights.weight
        if weights.sample_weights is None:
            return weights.weight / weights.total if weights.total else weights.weight
        return weights.total


def losses(problem: Problem, grad: np.ndarray | None, overwrites: bool) -> np.ndarray:
    """Return the reduced losses; with `grad`, write the derivatives there."""
    x, y, labels = problem.x, problem.y, None
    if problem.reduction == "mean":
        checks.finite_sum(problem.weights.total)
    for source in problem.in_range:
        # all checks come before the first write; and the kernel reads y in the digits of x
        integers = source is y and _is_integer(y)
        if overwrites or source.result != x.result or integers:
            if source is y:
                low, high, labels = _labels(y)
            else:
                low, high, _ = _extent(source)
            refuse_outside([source] if low < 0.0 or high > 1.0 else [])
    values = empty(x.shape, x.result) if problem.reduction == "none" else None
    loss, outside = _read(problem, labels, values, grad)
    refuse_outside(problem.in_range if outside else [])
    if values is not None:
        return values
    of_nothing = problem.reduction == "mean" and not problem.weights.total
    return as_result(np.asarray(np.nan if of_nothing else loss), x.result)


def refuse_outside(sources: list[Source]) -> None:
    """ValueError for the first value outside [0, 1]."""
    for source in sources:
        values = source.values()
        outside = (values < 0) | (values > 1)
        checks.refuse(source.name, "in [0, 1]", values, outside, ValueError, "position")


def _is_integer(source: Source) -> bool:
    return source.dtype == source.data.dtype.name and source.data.dtype.kind in "biu"


def _labels(y: Source) -> tuple[float, float, np.ndarray | None]:
    """Return the lowest target or 0, the highest or 1, and all as bits if each is 0 or 1.

    Targets that are read before the first write need not be read in full again.
    """
    size, flat = y.data.size, y.data
    # LOWEST, HIGHEST, SOFT of no targets: a task writes those of all its pieces in its first row
    figures = np.tile([0.0, 1.0, 0.0], (-(-size // PIECE), 1))
    if _is_integer(y) and flat.flags.c_contiguous and flat.flags.aligned and flat.dtype.isnative:
        flat = flat.view(np.uint8) if y.dtype == "bool" else flat
        rows = Rows.along(flat.reshape(-1), *[flat.dtype.name] * 2)
        pack, lanes = kernels.integer_labels(flat.dtype.name), kernels.LANES
    else:
        rows = _along([(y.data, y.dtype, y.storage)])[0]
        pack, lanes = kernels.labels(y.storage), STORAGE[y.storage][0].lanes
    bits = np.empty(len(figures) * PIECE // 8 + 8, np.uint8)  # the last are read as eight bytes

    def task(lo: int, hi: int) -> None:
        targets = elements(rows, lo * PIECE, min(hi * PIECE, size))
        first, words = lo * PIECE // 8, -(-targets.size // lanes)
        own = bits[first : first + words * lanes // 8]
        pack(targets, own.view(f"u{lanes // 8}"), figures[lo])

    run(task, len(figures), 1, MOST if in_place(rows) else 1)
    low = figures[:, kernels.LOWEST].min(initial=0.0)
    high = figures[:, kernels.HIGHEST].max(initial=1.0)
    return low, high, None if figures[:, kernels.SOFT].any() else bits


def _read(
    problem: Problem,
    labels: np.ndarray | None,
    values: np.ndarray | None,
    grad: np.ndarray | None,
) -> tuple[float, bool]:
    """Return the sum of the losses, and whether a target or probability is outside [0, 1].

    With `labels`, these are the targets; with `values` the losses are written there.
    """
    x, weights = problem.x, problem.weights
    if not x.data.size:
        return 0.0, False
    y = problem.y if labels is None else None
    given = [x, y, weights.pos_weights, weights.sample_weights]
    arrays = [None if s is None else (s.data, s.dtype, s.storage) for s in given]
    for array, kind in ((values, x.result), (grad, x.storage)):
        arrays.append(None if array is None else (array, kind, kind))
    rows = _along(arrays)
    storages = [r and r.storage for r in rows[:4]]
    if labels is not None:
        storages[1] = kernels.LABELS
    if weights.pos_weights is None and weights.pos_weight == 1.0:
        storages[2] = kernels.ONE
    kernel = kernels.losses(problem.inputs, *storages, values is not None, grad is not None)
    unused = [np.empty(0, words(kind)) for kind in (x.result, x.storage)]
    streamed = grad is not None and in_place(rows[5]) and streams(rows[5], *rows[:2])
    block = "float64" if problem.inputs == "probabilities" else x.result
    size = x.data.size
    figures = np.empty((-(-size // PIECE), kernels.FIGURES))

    def task(lo: int, hi: int) -> None:
        at = lo * PIECE, min(hi * PIECE, size)
        outputs = [
            (none, True) if w is None else room(w, *at)
            for w, none in zip(rows[4:], unused, strict=True)
        ]
        stretches = [NOTHING if r is None else elements(r, *at) for r in rows[:4]]
        if labels is not None:
            stretches[1] = read_only(labels[at[0] // 8 :])
        kernel(
            *stretches, weights.pos_weight, problem.factor, *[memory for memory, _ in outputs],
            streamed, np.empty(kernels.BLOCK + kernels.MOST_LANES, block), figures[lo:hi],
        )  # fmt: skip
        for w, (memory, own) in zip(rows[4:], outputs, strict=True):
            if not own:
                put_elements(w, memory, at[0])

    run(task, len(figures), 1, MOST if all(r is None or in_place(r) for r in rows) else 1)
    return float(figures[:, kernels.TOTAL].sum()), bool(figures[:, kernels.OUTSIDE].any())


def _along(arrays: Sequence[tuple[np.ndarray, str, str] | None]) -> list[Any]:
    """Return arrays of one shape, given with dtype and storage, as rows of the same elements.

    Neighbouring axes that are one in the memory of all become one: contiguous arrays are one row.
    """
    present = [array for array, *_ in filter(None, arrays)]
    lengths, last = list[int](), -1
    for axis, n in enumerate(present[0].shape):
        if n == 1:
            continue
        if lengths and all(a.strides[last] == a.strides[axis] * n for a in present):
            lengths[-1] *= n
        else:
            lengths.append(n)
        last = axis
    shape = lengths or [1]
    return [a and Rows.along(a[0].reshape(shape), *a[1:]) for a in arrays]
