"""Products of matrices on a device, by the library that made the arrays: the only door to it.

It has no twin on the processor, where every product is NumPy's. Products are exact sums in the type
of `out`, rounded as its arithmetic rounds: TF32, which a caller may have switched on for float32,
is off in here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from fastinfo.arrays import widen
from fastinfo.cuda import linear_kernels as kernels
from fastinfo.cuda import seam
from fastinfo.cuda.arrays import Memory, blocks


def known(kind: str) -> bool:
    """Whether there is a library for the products of such arrays."""
    return kind != "numba" or seam.SIMULATED or find_spec("cupy") is not None


def takes_halves(kind: str) -> bool:
    """Whether matrices of 16-bit floats are multiplied into float32, and added to it, as they are.

    torch 2.8 multiplies them so, but refuses to add until 2.10 (pytorch/pytorch#167931).
    """
    return kind == "torch" and bool(import_module("torch").__version__ >= (2, 10))


def adds(kind: str) -> bool:
    """Whether a product is added to a matrix without memory of its own."""
    return kind == "torch"


def multiply(a: Memory, b: Memory, out: Memory) -> None:
    """Write a @ b."""
    if out.size:
        PRODUCTS[out.kind](a, b, out, False)


def multiply_add(a: Memory, b: Memory, out: Memory, room: Memory | None) -> None:
    """Add a @ b to `out`, all without gaps; `room` is of the shape of `out`, unless `adds`."""
    if not out.size:
        return
    if room is None:
        PRODUCTS[out.kind](a, b, out, True)
        return
    PRODUCTS[out.kind](a, b, room, False)
    threads = kernels.THREADS
    seam.launch(
        kernels.additions(), blocks(out.size, threads), threads, out.stream, room.flat, out.flat
    )


def _by_torch(a: Memory, b: Memory, out: Memory, add: bool) -> None:
    torch = import_module("torch")
    x, y, z = (_tensor(torch, m) for m in (a, b, out))
    wide = {} if x.dtype == z.dtype else {"out_dtype": z.dtype}
    with torch.no_grad(), _without_tf32(torch.backends.cuda.matmul):
        if add:
            torch.addmm(z, x, y, out=z, **wide)
        else:
            torch.mm(x, y, out=z, **wide)


def _tensor(torch: Any, x: Memory) -> Any:
    begin = x.native.storage_offset() + (x.address - x.native.data_ptr()) // x.dtype.itemsize
    return torch.as_strided(x.native, x.shape, x.strides, begin)


class _Users:
    """Threads that have the switch off, and what it was before the first of them."""

    lock = threading.Lock()
    count = 0
    before: Any = None


@contextmanager
def _without_tf32(switches: Any, users: type[_Users] = _Users) -> Iterator[None]:
    """Products of float32 in float32; the last of several threads puts the caller's switch back."""
    # torch refuses to mix its newer switch with the older one
    name, exact = ("fp32_precision", "ieee")
    if not hasattr(switches, name):
        name, exact = "allow_tf32", False  # type: ignore[assignment]
    with users.lock:
        if not users.count:
            users.before = getattr(switches, name)
            setattr(switches, name, exact)
        users.count += 1
    try:
        yield
    finally:
        with users.lock:
            users.count -= 1
            if not users.count:
                setattr(switches, name, users.before)


def _by_cupy(a: Memory, b: Memory, out: Memory, add: bool) -> None:
    try:
        cupy = import_module("cupy")
    except ImportError:
        raise ImportError(
            "matrix products of Numba's device arrays are CuPy's: pip install cupy-cuda13x, or "
            "pass torch tensors"
        ) from None
    number = out.stream.device
    with cupy.cuda.Device(number), _cupy_stream(cupy, out.stream.address):
        x, y, z = (_cupy_array(cupy, m, number) for m in (a, b, out))
        cupy.matmul(x, y, out=z)


def _cupy_stream(cupy: Any, address: int) -> Any:
    return cupy.cuda.ExternalStream(address) if address else cupy.cuda.Stream.null


def _cupy_array(cupy: Any, x: Memory, number: int) -> Any:
    low, high = x.reach
    item = x.dtype.itemsize
    begin, size = x.address + low * item, (high - low + 1) * item if x.size else 0
    memory = cupy.cuda.UnownedMemory(begin, size, x.native, number)
    pointer = cupy.cuda.MemoryPointer(memory, -low * item)
    strides = tuple(step * item for step in x.strides)
    return cupy.ndarray(x.shape, x.storage, pointer, strides=strides)


def _by_numpy(a: Memory, b: Memory, out: Memory, add: bool) -> None:
    """In the simulator, where the arrays are NumPy's."""
    x, y = (widen(seam.simulated_view(m), m.storage).astype(out.dtype) for m in (a, b))
    z = seam.simulated_view(out)
    with np.errstate(all="ignore"):
        if add:
            z += np.matmul(x, y)
        else:
            np.matmul(x, y, out=z)


PRODUCTS = {
    "torch": _by_torch,
    "cupy": _by_cupy,
    "numba": _by_numpy if seam.SIMULATED else _by_cupy,
}
