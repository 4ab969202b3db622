"""What losses share on a device: classes and weights of rows, sums and means.

Nothing is copied to the host unless `fastinfo.config(check=True)` asks for it: a target out of
range makes its row NaN, and so does a weight that is no weight.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from fastinfo.arrays import Source, read, same_device
from fastinfo.configuration import checked
from fastinfo.cpu import reductions as host_reductions
from fastinfo.cuda import reduction_kernels as kernels
from fastinfo.cuda import seam
from fastinfo.cuda.arrays import Memory, Rows, blocks, new
from fastinfo.cuda.row_kernels import THREADS


def targets_of(source: Source, classes: int, ignore_index: int) -> Memory:
    """Return integer targets as int64 (n,), ignored ones -1, and -2 what is no class."""
    if checked():
        host_reductions.targets_of(on_host(source), classes, ignore_index)
    x = source.data
    out = new((x.size,), "int64", x)
    rows = Rows.entries(x)
    seam.launch(
        kernels.classes(), blocks(x.size, THREADS), THREADS, x.stream, x.flat, rows.starts,
        rows.place, classes, ignore_index, out.flat,
    )  # fmt: skip
    return out


def weights_of(
    name: str, value: Any, shape: tuple[int, ...], what: str, like: Source
) -> Memory | None:
    """Return weights of this shape in the arithmetic of `like`, NaN what is no weight."""
    if value is None:
        return None
    source = read(name, value)
    same_device(like, source)
    if source.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {source.shape}")
    return checked_weights(source, what, like.result)


def checked_weights(source: Source, what: str, real: str) -> Memory:
    """Return weights side by side in a float type, NaN what is no weight."""
    if checked():
        host = on_host(source)
        host_reductions.weights_of(source.name, host.values(), source.shape, what, host)
    x = source.data
    out, rows = new(x.shape, real, x), Rows.entries(x)
    seam.launch(
        kernels.weights(real, source.dtype), blocks(x.size, THREADS), THREADS, x.stream, x.flat,
        rows.starts, rows.place, out.flat,
    )  # fmt: skip
    return out


def on_host(source: Source) -> Source:
    """Return a copy in the processor's memory."""
    return dataclasses.replace(source, data=seam.to_host(source.data), device="cpu")


def row_weights(
    sample_weight: Any, shape: tuple[int, ...], classes: Memory | None,
    class_weight: Memory | None, reduction: str, like: Source,
) -> tuple[Memory, Memory]:  # fmt: skip
    """Weight of each row in the reduced loss, 0 for ignored ones, and what a mean divides by."""
    given = weights_of("sample_weight", sample_weight, shape, "row", like)
    x, real, count = like.data, like.result, math.prod(shape)
    weights = new((count,), real, x)
    pieces = max(1, blocks(count, kernels.ROWS))
    sums = new((pieces,), "float64", x)
    none, nowhere = seam.nothing(real), seam.nothing("int64")
    total, mean = new((1,), real, x), reduction == "mean"
    seam.launch(
        kernels.row_weights(real), pieces, THREADS, x.stream,
        none if given is None else given.flat, nowhere if classes is None else classes.flat,
        none if class_weight is None else class_weight.flat, classes is not None, mean,
        weights.flat, sums.flat, total.flat,
    )  # fmt: skip
    if pieces > 1:
        seam.launch(
            kernels.shares(real), blocks(count, THREADS), THREADS, x.stream, sums.flat, mean,
            weights.flat, total.flat,
        )  # fmt: skip
    return weights, total


def reduced(values: Memory, shape: tuple[int, ...], reduction: str, total: Memory) -> Memory:
    """Return rows in their shape, or their sum, divided before for a mean; NaN over nothing."""
    if reduction == "none":
        return values.reshape(shape)
    return sum_of(values, total.storage, 1.0, total)


def exponential(value: Memory) -> Memory:
    """Return exp of a reduced value, inf beyond the range of its type."""
    result = new((), value.storage, value)
    seam.launch(kernels.exponentials(value.storage), 1, 1, value.stream, value.flat, result.flat)
    return result


def sum_of(values: Memory, real: str, factor: float = 1.0, divisor: Memory | None = None) -> Memory:
    """Return a multiple of the sum of all numbers, NaN if `divisor` is 0."""
    while values.size > kernels.ROWS:
        pieces = blocks(values.size, kernels.ROWS)
        sums = new((pieces,), "float64", values)
        seam.launch(kernels.sums(), pieces, THREADS, values.stream, values.flat, sums.flat)
        values = sums
    result = new((), real, values)
    none = seam.nothing(real) if divisor is None else divisor.flat
    seam.launch(
        kernels.results(real), 1, THREADS, values.stream, values.flat, np.float64(factor), none,
        result.flat,
    )  # fmt: skip
    return result
