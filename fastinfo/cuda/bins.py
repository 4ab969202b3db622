"""Measures of rows of bins on a device: sums of rows, and of pairs of rows one beside the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo import checks
from fastinfo.arrays import Source
from fastinfo.catalogue import Sum
from fastinfo.configuration import checked
from fastinfo.cuda import bin_kernels as kernels
from fastinfo.cuda import seam
from fastinfo.cuda.arrays import Memory, Rows, new
from fastinfo.cuda.bin_kernels import THREADS


@dataclass(frozen=True)
class Divisors:
    """What rows are divided by, rounded, and what the rounding lost; see `cpu.bins.Divisors`."""

    rounded: Memory
    rest: Memory


def _divisors(rows: Rows, normalize: bool) -> tuple[Divisors, Memory]:
    """Return the sum of each row or 1, NaN where there is none, and its lowest entry if below 0."""
    x, count = rows.data, rows.count
    total, rest, lowest = (new((count,), "float64", x) for _ in range(3))
    seam.launch(
        kernels.divisors(rows.storage, normalize), count, THREADS, x.stream, x.flat,
        rows.starts, rows.place, rows.width, total.flat, rest.flat, lowest.flat,
    )  # fmt: skip
    return Divisors(total, rest), lowest


def with_divisors(source: Source, rows: Rows, normalize: bool) -> tuple[Rows, Divisors]:
    """Return rows and what they are divided by; a negative entry is an error only under `check`."""
    divisors, lowest = _divisors(rows, normalize)
    if checked():
        host = dataclasses.replace(source, data=seam.to_host(source.data), device="cpu")
        checks.no_negative(host, seam.to_host(lowest))
    return rows, divisors


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, and what they are divided by."""

    p: Rows
    p_by: Divisors
    q: Rows
    q_by: Divisors


def values(
    total: Sum, finish: Callable[..., Any], pairs: Pairs, parameter: float, unit: float
) -> Memory:
    """Return the measure of each pair, in float64."""
    p, q = pairs.p, pairs.q
    out = new((p.count,), "float64", p.data)
    seam.launch(
        kernels.values(total, finish, p.storage, q.storage), p.count, THREADS, p.data.stream,
        *arguments(p, pairs.p_by), *arguments(q, pairs.q_by), p.width, np.float64(parameter),
        np.float64(unit), out.flat,
    )  # fmt: skip
    return out


def arguments(rows: Rows, by: Divisors) -> tuple[Any, ...]:
    """Return rows and their divisors as kernels take them."""
    return rows.data.flat, rows.starts, rows.place, by.rounded.flat, by.rest.flat
