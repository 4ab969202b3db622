"""Binary cross-entropies on the processor: what is read when, by which thread.

Elements are taken in pieces of one size, in the order of the memory of the inputs; what cannot be
read in place is copied a piece at a time. Sums of pieces are merged in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo.arrays import Rows, Source, read_only, words
from fastinfo.cpu import binary_kernels as kernels
from fastinfo.cpu import extents
from fastinfo.cpu.tiles import dense, in_place, put, room
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


def extent(x: Source) -> tuple[float, float, float]:
    """Return the lowest value or 0, the highest or 0, and the sum."""
    figures = extents.extents(_along([(x.data, x.dtype, x.storage)])[0])
    return (
        float(figures[extents.LOWEST].min(initial=0.0)),
        float(figures[extents.HIGHEST].max(initial=0.0)),
        float(figures[extents.SUM].sum()),
    )


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
    pieces = _pieces(rows[0])
    figures = np.empty((len(pieces), kernels.FIGURES))

    def task(first: int, last: int) -> None:
        for i in range(first, last):
            at = pieces[i]
            inputs = [NOTHING if r is None else dense(r, *at) for r in rows[:4]]
            outputs = [
                (none, None) if w is None else room(w, *at)
                for w, none in zip(rows[4:], unused, strict=True)
            ]
            kernel(
                *inputs, problem.pos_weight, problem.weight, outputs[0][0], outputs[1][0],
                streamed, figures[i],
            )  # fmt: skip
            for w, (_, tile) in zip(rows[4:], outputs, strict=True):
                if tile is not None:
                    put(w, tile, *at[:3])

    run(task, len(pieces), 1)
    return float(figures[:, kernels.TOTAL].sum()), bool(figures[:, kernels.OUTSIDE].any())


def _pieces(rows: Rows) -> list[tuple[int, int, int, int]]:
    """Cut rows into pieces (lo, hi, begin, end) that are whole rows, or of a single one."""
    group = max(1, PIECE // rows.width)
    return [
        (lo, min(lo + group, rows.count), begin, min(begin + PIECE, rows.width))
        for lo in range(0, rows.count, group)
        for begin in range(0, rows.width, PIECE)
    ]


def _along(arrays: Sequence[tuple[np.ndarray, str, str] | None]) -> list[Any]:
    """Return arrays of one shape, given with dtype and storage, as rows of the same elements.

    Axes are ordered as the memory of the first array is, and neighbours that are one in the memory
    of all become one: contiguous arrays are a single row.
    """
    present = [array for array, *_ in filter(None, arrays)]
    first, lengths, last = present[0], list[int](), -1
    order = sorted(range(first.ndim), key=lambda axis: -abs(first.strides[axis]))
    for axis in order:
        n = first.shape[axis]
        if n == 1:
            continue
        if lengths and all(a.strides[last] == a.strides[axis] * n for a in present):
            lengths[-1] *= n
        else:
            lengths.append(n)
        last = axis
    shape = lengths or [1]
    return [a and Rows.along(a[0].transpose(order).reshape(shape), *a[1:]) for a in arrays]
