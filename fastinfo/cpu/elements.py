"""A formula element by element of arrays that broadcast, whatever they hold and how they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastinfo.arrays import read_only
from fastinfo.cpu import vmath
from fastinfo.cpu.memory import loader, store
from fastinfo.engine import formula, helper, kernel, run

# Elements that are made contiguous float64 at a time, and that a thread takes at a time.
BLOCK, CHUNK = 1 << 13, 1 << 17


def values(term: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """Return term(*arrays) in float64; ValueError if the arrays do not broadcast."""
    # a number, repeated, is filled in a block at a time
    spread = [x if not any(x.strides) else np.ascontiguousarray(x)
              for x in np.broadcast_arrays(*arrays)]  # fmt: skip
    result = np.empty(spread[0].shape)
    fill, out = fills(term, len(arrays)), result.reshape(-1)

    def task(lo: int, hi: int) -> None:
        for begin in range(lo, hi, BLOCK):
            end = min(begin + BLOCK, hi)
            fill(tuple(_block(x, begin, end) for x in spread), out[begin:end])

    run(task, out.size, CHUNK)
    return result


def _block(x: np.ndarray, lo: int, hi: int) -> np.ndarray:
    """Return the elements [lo, hi) in C order as contiguous float64."""
    some = x.reshape(-1)[lo:hi] if any(x.strides) else np.full(hi - lo, x.flat[0])
    return read_only(np.require(some, np.float64, ["A", "C"]))


@kernel
def fills(term: Callable[..., Any], count: int) -> Any:
    """Kernel: a formula of so many numbers, in vectors."""
    value, lanes = formula(term, vmath.lanewise), vmath.double.lanes
    load = loader(lanes)
    read = helper(lambda x, k: load(x, k, 1.0))
    value_at = helper(
        {
            1: lambda x, k: value(read(x[0], k)),
            2: lambda x, k: value(read(x[0], k), read(x[1], k)),
            4: lambda x, k: value(read(x[0], k), read(x[1], k), read(x[2], k), read(x[3], k)),
        }[count]
    )

    def fill(given, out):  # type: ignore[no-untyped-def]
        for k in range(0, out.size, lanes):
            store(out, k, value_at(given, k))

    return fill
