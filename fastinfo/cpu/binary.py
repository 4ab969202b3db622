"""Binary cross-entropies on the processor: what is read when, by which thread.

Elements are taken in pieces of one size, in the order of their indices; what cannot be read in
place is copied a piece at a time. Sums of pieces are merged in order. All ways give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo.arrays import Rows, Source, read_only, words
from fastinfo.cpu import binary_kernels as kernels
from fastinfo.cpu import extents
from fastinfo.cpu.tiles import elements, in_place, put_elements, room
from fastinfo.engine import run

# Elements that a thread takes at a time: of float32 a megabyte each of x, y and the gradient.
PIECE = 1 << 18
# A gradient of more than this many bytes is written past the caches, in place too.
STREAM_BYTES = 1 << 23
NOTHING = read_only(np.empty(0))


@dataclass(frozen=True)
class Problem:
    """Inputs ("logits" or "probabilities"), targets and weights: a number, and perhaps an array.

    Losses count pos_weights or else pos_weight, and sample_weights / weight or else weight.
    """

    inputs: str
    x: Source
    y: Source
    pos_weight: float
    pos_weights: Source | None
    weight: float
    sample_weights: Source | None


def extent(x: Source) -> tuple[float, ...]:
    """Return the lowest value or 0, the highest or 0, and the sum."""
    figures = extents.extent(_along([(x.data, x.dtype, x.storage)])[0])
    return tuple(float(figure) for figure in figures)


def losses(
    problem: Problem, values: np.ndarray | None, grad: np.ndarray | None
) -> tuple[float, bool]:
    """Return the sum of the losses, and whether a target or probability is outside [0, 1].

    With `values` the losses are written there, with `grad` their derivatives.
    """
    x = problem.x
    if not x.data.size:
        return 0.0, False
    given = [x, problem.y, problem.pos_weights, problem.sample_weights]
    arrays = [None if s is None else (s.data, s.dtype, s.storage) for s in given]
    for array, kind in ((values, x.result), (grad, x.storage)):
        arrays.append(None if array is None else (array, kind, kind))
    rows = _along(arrays)
    kernel = kernels.losses(
        problem.inputs, *[r and r.storage for r in rows[:4]], values is not None, grad is not None
    )
    unused = [np.empty(0, words(kind)) for kind in (x.result, x.storage)]
    streamed = grad is not None and grad.nbytes >= STREAM_BYTES and in_place(rows[5])
    size = x.data.size
    figures = np.empty((-(-size // PIECE), kernels.FIGURES))

    def task(lo: int, hi: int) -> None:
        for i in range(lo, hi):
            at = i * PIECE, min((i + 1) * PIECE, size)
            outputs = [
                (none, True) if w is None else room(w, *at)
                for w, none in zip(rows[4:], unused, strict=True)
            ]
            kernel(
                *[NOTHING if r is None else elements(r, *at) for r in rows[:4]],
                problem.pos_weight, problem.weight, *[memory for memory, _ in outputs], streamed,
                np.empty(2 * kernels.LANES), figures[i],
            )  # fmt: skip
            for w, (memory, own) in zip(rows[4:], outputs, strict=True):
                if not own:
                    put_elements(w, memory, at[0])

    run(task, len(figures), 1)
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
