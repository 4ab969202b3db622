"""Arrays on a CUDA device, whoever made them, as kernels take them: nothing is copied.

What a caller gives is described by its `__cuda_array_interface__`; new memory comes from the
library that made the caller's array, so that its allocator and its current stream are used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from fastinfo.arrays import JAX, Source, computed_in, lazy, refuse_grad, words
from fastinfo.cuda import seam


@dataclass(frozen=True)
class Memory:
    """An array on a device: its elements as kernels read them, 16-bit floats as words.

    `strides` are in elements; `native` is the caller's array, or what holds new memory.
    """

    native: Any
    kind: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    storage: str
    address: int
    stream: seam.Stream
    place: str

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @lazy
    def reach(self) -> tuple[int, int]:
        """Offsets of the lowest and the highest element from the first."""
        low = high = 0
        for n, step in zip(self.shape, self.strides, strict=True):
            low, high = min(low, low + (n - 1) * step), max(high, high + (n - 1) * step)
        return low, high

    @lazy
    def flat(self) -> Any:
        """All elements it spans, as a one-dimensional array that kernels take."""
        low, high = self.reach
        return seam.span(self, low, (high - low + 1 if self.size else 0,))

    @property
    def first(self) -> int:
        """Where the first element lies in `flat`."""
        return -self.reach[0]

    @property
    def contiguous(self) -> bool:
        """Whether elements lie side by side in the order of the axes."""
        step = 1
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n > 1 and stride != step:
                return False
            step *= n
        return True

    @property
    def shaped(self) -> Any:
        """A contiguous array in its shape, as kernels take it."""
        return seam.span(self, 0, self.shape)

    def moved(self, axis: int) -> Memory:
        """Return a view with an axis last."""
        order = [a for a in range(self.ndim) if a != axis] + [axis]
        shape, strides = (tuple(g[a] for a in order) for g in (self.shape, self.strides))
        return dataclasses.replace(self, shape=shape, strides=strides)

    def broadcast(self, shape: tuple[int, ...]) -> Memory:
        """Return a view in a larger shape, as NumPy's rules have it."""
        strides = [0] * (len(shape) - self.ndim) + [
            0 if own == 1 else step for own, step in zip(self.shape, self.strides, strict=True)
        ]
        return dataclasses.replace(self, shape=shape, strides=tuple(strides))

    def part(self, k: int) -> Memory:
        """Return the k-th of the parts along the first axis of memory that `new` made."""
        address = self.address + k * self.strides[0] * self.dtype.itemsize
        return _side_by_side(self.native[k], self.shape[1:], self.storage, address, self)

    def reshape(self, shape: tuple[int, ...]) -> Memory:
        """Return memory that `new` made in another shape."""
        native = self.native.reshape(shape)
        return _side_by_side(native, shape, self.storage, self.address, self)

    def filled(self, v: float) -> Memory:
        """Return the same, filled with a number."""
        from fastinfo.cuda import reduction_kernels as kernels

        number = self.dtype.type(v)
        threads = kernels.THREADS
        seam.launch(
            kernels.fills(), blocks(self.size, threads), threads, self.stream, number, self.flat
        )
        return self


def blocks(count: int, length: int) -> int:
    """Return how many blocks of some length it takes."""
    return -(-count // length)


# --- kinds of arrays -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """How a library's arrays are described and made: `describe` gives stream and place."""

    address: Callable[[Any], int]
    describe: Callable[[Any], tuple[int, str]]
    make: Callable[[Sequence[int], str, Any], Any]


def _describe_torch(x: Any) -> tuple[int, str]:
    torch = import_module("torch")
    return torch.cuda.current_stream(x.device).cuda_stream, f"cuda:{x.device.index}"


def _make_torch(shape: Sequence[int], dtype: str, like: Any) -> Any:
    torch = import_module("torch")
    return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=like.device)


def _describe_cupy(x: Any) -> tuple[int, str]:
    cupy = import_module("cupy")
    return cupy.cuda.get_current_stream().ptr, f"cuda:{x.device.id}"


def _make_cupy(shape: Sequence[int], dtype: str, like: Any) -> Any:
    cupy = import_module("cupy")
    with like.device:
        return cupy.empty(tuple(shape), cupy.dtype(dtype))


KINDS = {
    "torch": Kind(lambda x: x.data_ptr(), _describe_torch, _make_torch),
    "cupy": Kind(lambda x: x.data.ptr, _describe_cupy, _make_cupy),
    "numba": Kind(seam.address_of, seam.describe, seam.make),
}


def read(name: str, x: Any) -> Source:
    """Return an array on a device as a `Source`."""
    kind = type(x).__module__.partition(".")[0]
    if kind in JAX:
        source = read(name, _view_of_jax(name, x))
        return dataclasses.replace(source, kind="jax", native=x.dtype)
    if kind not in KINDS:
        raise TypeError(
            f"{name} lives on a CUDA device in a {type(x).__module__} array: pass it as one of "
            f"{', '.join(KINDS)}, jax (a view through DLPack copies nothing)"
        )
    if getattr(x, "requires_grad", False):
        refuse_grad(name, kind)
        x = x.detach()
    dtype = _name(x.dtype)
    stream, place = KINDS[kind].describe(x)
    queue = seam.Stream(stream, int(place.partition(":")[2]))
    word = words(dtype)
    shape = tuple(int(n) for n in x.shape)
    strides = tuple(x.stride()) if kind == "torch" else _in_elements(name, x.strides, word.itemsize)
    address = KINDS[kind].address(x)
    memory = Memory(x, kind, shape, strides, word, dtype, address, queue, place)
    return Source(name, memory, dtype, kind, x.dtype, place)


@cache
def _name(dtype: Any) -> str:
    """Name of a type of NumPy's or of torch's: NumPy takes 3 us to make one."""
    return str(dtype).removeprefix("torch.")


def _view_of_jax(name: str, x: Any) -> Any:
    """Return a view through DLPack, which makes one stream wait for the other.

    Of a library that makes memory on the stream it tells of, as JAX does not.
    """
    for library in ("torch", "cupy"):
        try:
            module = import_module(library)
        except ImportError:
            continue
        if library == "cupy" or module.cuda.is_available():
            return module.from_dlpack(x)
    raise ImportError(
        f"{name} is a JAX array on a CUDA device, whose results are made in the memory of CuPy or "
        f"torch: pip install cupy-cuda13x"
    )


def _in_elements(name: str, strides: Sequence[int], item: int) -> tuple[int, ...]:
    if any(stride % item for stride in strides):
        raise ValueError(
            f"{name} must have strides of whole elements of {item} bytes, got {tuple(strides)}"
        )
    return tuple(stride // item for stride in strides)


def of_floats(source: Source) -> None:
    """TypeError for an array of integers, which the processor converts and a device does not."""
    if not source.is_float:
        raise TypeError(
            f"{source.name} must hold floats on a CUDA device (bfloat16, float16, float32, "
            f"float64), got dtype {source.dtype}"
        )


def empty(shape: Sequence[int], dtype: str, like: Source) -> Memory:
    """Return uninitialised memory of the kind, and on the device and stream, of an array."""
    return new(shape, dtype, like.data)


def new(shape: Sequence[int], dtype: str, like: Memory) -> Memory:
    """Return uninitialised memory as `empty` does."""
    kind = KINDS[like.kind]
    native = kind.make(shape, dtype, like.native)
    return _side_by_side(native, tuple(shape), dtype, kind.address(native), like)


def _side_by_side(
    native: Any, shape: tuple[int, ...], storage: str, address: int, like: Memory
) -> Memory:
    """Return memory whose elements lie side by side, on the stream of other memory."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return Memory(
        native, like.kind, shape, tuple(reversed(strides)), words(storage), storage, address,
        like.stream, like.place,
    )  # fmt: skip


def as_result(values: Memory, dtype: str) -> Memory:
    """Return figures in the dtype of a result."""
    from fastinfo.cuda import reduction_kernels as kernels

    if values.storage == dtype:
        return values
    out, threads = new(values.shape, dtype, values), kernels.THREADS
    seam.launch(
        kernels.converted(dtype), blocks(values.size, threads), threads, values.stream,
        values.flat, out.flat,
    )  # fmt: skip
    return out


def give(result: Memory, like: Source, dtype: str | None = None) -> Any:
    """Return a result as the caller's kind of array."""
    if like.kind != "jax":
        return result.native
    if result.storage in ("float64", "int64"):  # 64 bits only where JAX has them switched on
        kinds = import_module("jax.dtypes")
        result = as_result(result, str(kinds.canonicalize_dtype(result.dtype)))
    return import_module("jax.dlpack").from_dlpack(result.native)


def output(
    name: str, out: Any, shape: tuple[int, ...], dtype: str, inputs: Sequence[Source],
    alias: Source | None,
) -> Memory:  # fmt: skip
    """Check a caller's buffer and return its memory; it may be `alias` itself, no other input."""
    like, kind = inputs[0], type(out).__module__.partition(".")[0]
    if kind in JAX:
        raise ValueError(f"{name} must be writable, got a JAX array, which never changes")
    if kind != like.kind:
        raise ValueError(f"{name} must be an array of {like.kind}, got {type(out).__name__}")
    target = read(name, out)
    if target.device != like.device:
        raise ValueError(f"{name} must be on {like.device}, as {like.name}, got {target.device}")
    if target.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {target.shape}")
    if target.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype}, got {target.native}")
    if _repeats(target.data):
        raise ValueError(f"{name} must not overlap itself, got strides {target.data.strides}")
    for source in inputs:
        if source is alias and _same(target.data, source.data):
            continue
        if _overlap(target.data, source.data):
            rule = "be or not touch" if source is alias else "not overlap"
            raise ValueError(f"{name} must {rule} the memory of {source.name}, it overlaps it")
    return target.data


def _repeats(x: Memory) -> bool:
    """Whether two elements may share memory: a stride within what smaller strides span."""
    span = 1
    for stride, n in sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1):
        if stride < span:
            return bool(x.size)
        span += stride * (n - 1)
    return False


def _same(a: Memory, b: Memory) -> bool:
    return (a.address, a.strides, a.shape, a.dtype) == (b.address, b.strides, b.shape, b.dtype)


def _overlap(a: Memory, b: Memory) -> bool:
    """Whether the spans of two arrays touch."""
    if not a.size or not b.size:
        return False
    ends = []
    for x in (a, b):
        low, high = x.reach
        item = x.dtype.itemsize
        ends.append((x.address + low * item, x.address + (high + 1) * item))
    return ends[0][0] < ends[1][1] and ends[1][0] < ends[0][1]


# --- rows ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Rows of an array along its last axis: flat memory, the offset of each row, a step."""

    data: Memory
    storage: str
    source: Source

    @classmethod
    def of(cls, source: Source, axis: int = -1) -> Rows:
        """Return the rows of a source along `axis`."""
        last = axis in (-1, source.data.ndim - 1)
        return cls.along(source.data if last else source.data.moved(axis), source)

    @classmethod
    def along(cls, data: Memory, source: Source) -> Rows:
        """Return the rows of memory along the last axis; `source` is of its kind and dtype."""
        of_floats(source)
        return cls(data, source.storage, source)

    @property
    def width(self) -> int:
        """Number of classes or bins."""
        return self.data.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an array with one entry a row."""
        return self.data.shape[:-1]

    @property
    def count(self) -> int:
        """Number of rows."""
        return math.prod(self.shape)

    @property
    def arithmetic(self) -> str:
        """Type in which kernels compute with it."""
        return computed_in(self.storage)

    @property
    def step(self) -> int:
        """How far apart in memory two classes of a row are."""
        return self.data.strides[-1]

    @classmethod
    def entries(cls, x: Memory) -> Rows:
        """Return every element as a row of its own."""
        alone = dataclasses.replace(x, shape=(*x.shape, 1), strides=(*x.strides, 1))
        return cls(alone, x.storage, Source("", x, x.storage, x.kind, None, x.place))

    @lazy
    def row_step(self) -> int | None:
        """How far the next row is, None where that is not always alike."""
        found: int | None = 0
        span = 1
        for n, step in zip(reversed(self.data.shape[:-1]), reversed(self.data.strides[:-1]),
                           strict=True):  # fmt: skip
            if n == 1:
                continue
            if span == 1:
                found = step
            elif found is None or step != found * span:
                return None
            span *= n
        return found

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Where rows lie, as `row_kernels` has it."""
        item = self.data.dtype.itemsize
        begin = self.data.address + self.data.reach[0] * item
        return begin % 16 // item, self.step, self.data.first, self.row_step or 0

    @lazy
    def starts(self) -> Any:
        """Offset of each row in the memory, on the device; none where `place` tells."""
        x = self.data
        if self.row_step is not None:
            return seam.nothing("int64")
        from fastinfo.cuda import reduction_kernels as kernels

        out, threads = new((self.count,), "int64", x), kernels.THREADS
        seam.launch(
            kernels.starts(), blocks(self.count, threads), threads, x.stream, x.first,
            x.shape[-2::-1], x.strides[-2::-1], out.flat,
        )  # fmt: skip
        return out.flat
