"""What a CUDA device can do at most: copies, readings, products, and logarithms in registers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastinfo.bench import Case
from fastinfo.cuda.row_kernels import FLIGHT, over
from fastinfo.cuda.seam import SIMULATED, cuda, helper, kernel, launch, loader, mathematics

THREADS = 4 if SIMULATED else 512
# Blocks of a multiprocessor: all the threads it holds.
RESIDENT = 4
# Chains of logarithms of a thread, and how long they are.
CHAINS, STEPS = 8, 4096

Tensor = Callable[[], Any]


# --- kernels -------------------------------------------------------------------------------------


@functools.cache
def sums(storage: str) -> Any:
    """Add all numbers by loads of 16 bytes, several in flight; a sum for each thread is written."""
    load, load_wide = loader(storage)
    lanes, zero = 8 if storage in ("float16", "bfloat16") else 4, np.float32(0)
    flight = FLIGHT

    @helper
    def add(total, v, k, given):  # type: ignore[no-untyped-def]
        return total + v

    each = over(lanes, add)

    @kernel
    def run(x, out):  # type: ignore[no-untyped-def]
        t, count = cuda.blockIdx.x * THREADS + cuda.threadIdx.x, cuda.gridDim.x * THREADS
        total, stride, tail = zero, count * lanes, x.size // lanes * lanes
        i = t * lanes
        while i + 3 * stride < tail:
            v, v1 = load_wide(x, i), load_wide(x, i + stride)
            v2, v3 = load_wide(x, i + 2 * stride), load_wide(x, i + 3 * stride)
            total = each(each(each(each(total, v, 0, 0), v1, 0, 0), v2, 0, 0), v3, 0, 0)
            i += flight * stride
        while i < tail:
            total = each(total, load_wide(x, i), 0, 0)
            i += stride
        for j in range(tail + t, x.size, count):
            total += load(x, j)
        out[t] = total

    return run


@functools.cache
def logarithms() -> Any:
    """Chains a <- log2(a) + 3, which stay near 5.4; their sum is written."""
    log2, c, first, step = (
        mathematics("float32").log2, np.float32(3), np.float32(4), np.float32(0.25),
    )  # fmt: skip

    @kernel
    def run(steps, out):  # type: ignore[no-untyped-def]
        t = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        a0 = first + step * np.float32(cuda.threadIdx.x % 4)
        a1, a2, a3, a4 = a0 + step, a0 + c, a0 + first, a0 - step
        a5, a6, a7 = a1 + c, a1 + first, a4 + c
        for _ in range(steps):
            a0, a1, a2, a3 = log2(a0) + c, log2(a1) + c, log2(a2) + c, log2(a3) + c
            a4, a5, a6, a7 = log2(a4) + c, log2(a5) + c, log2(a6) + c, log2(a7) + c
        out[t] = ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7))

    return run


# --- cases ---------------------------------------------------------------------------------------


@functools.cache
def _room() -> tuple[int, Any]:
    """Blocks that fill the device, and a number for each of their threads."""
    import torch

    blocks = RESIDENT * torch.cuda.get_device_properties("cuda").multi_processor_count
    return blocks, torch.empty(blocks * THREADS, device="cuda")


def _run(compiled: Any, *given: Any) -> Any:
    from fastinfo.cuda.arrays import read

    blocks, out = _room()
    memory = read("out", out).data
    launch(compiled, blocks, THREADS, memory.stream, *given, memory.flat)
    return out


def sum_by_kernel(x: Any) -> Any:
    """Return the sum of a tensor's numbers by each thread."""
    from fastinfo.cuda.arrays import read

    source = read("x", x)
    return _run(sums(source.storage), source.data.flat)


def reads(x: Tensor, n_bytes: int, dtype: str) -> Iterator[Case]:
    """Readings of `x()`, whose fastest is the ceiling ``read``."""
    import torch

    calls: dict[str, Callable[[], Any]] = {
        f"torch.sum, {dtype}": lambda: torch.sum(x()),
        f"torch.amax, {dtype}": lambda: torch.amax(x()),
        f"a kernel that adds, {dtype}": lambda: sum_by_kernel(x()),
    }
    if dtype != "float32":
        calls[f"torch.sum, {dtype} read as float32"] = lambda: torch.sum(x().view(torch.float32))
    for name, call in calls.items():
        yield Case(name, call, work=n_bytes, group="read")


def copy(source: Tensor, target: Tensor, n_bytes: int, dtype: str) -> Case:
    """Return torch's copy, bytes read and bytes written counted: the ceiling ``copy``."""
    return Case(
        f"torch copy_, {dtype}", lambda: target().copy_(source()), work=2 * n_bytes, group="copy"
    )


def logs() -> Case:
    """Return logarithms in registers: the ceiling ``log2``."""
    import torch

    count = RESIDENT * THREADS * CHAINS * STEPS
    if torch.cuda.is_available():
        count *= torch.cuda.get_device_properties("cuda").multi_processor_count
    return Case(
        "lg2.approx, 8 chains a thread", lambda: _run(logarithms(), STEPS), work=count, unit="log",
        group="log2",
    )  # fmt: skip
