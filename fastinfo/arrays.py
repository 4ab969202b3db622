"""Array kinds in and out, dtype rules, and rows as kernels read them.

An argument becomes a `Source`: its memory seen through NumPy without a copy, 16-bit floats as
words, and what is needed to give a result back as the caller's kind of array.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fastinfo.dispatch import home

FLOATS = ("float64", "float32", "float16", "bfloat16")
# DLPack: processor memory, and the same pinned for a GPU; memory of a GPU.
CPU_DEVICES, CUDA_DEVICE = (1, 3), 2
# Where the types of JAX's arrays come from.
JAX = ("jax", "jaxlib")
# Columns of a tile copied at a time.
TILE_COLUMNS = 2048


class lazy:
    """`functools.cached_property` without its lock, which a fork can find taken (Python 3.11)."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.function(instance)
        return value


@dataclass(frozen=True)
class Source:
    """An array argument seen through NumPy."""

    name: str
    data: Any
    dtype: str
    kind: str
    native: Any
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.data.shape

    @property
    def is_float(self) -> bool:
        """Whether the values are floats, of any width."""
        return self.dtype in FLOATS

    @property
    def storage(self) -> str:
        """Type in which kernels read it: integers are read as float64."""
        return self.dtype if self.is_float else "float64"

    @property
    def result(self) -> str:
        """Type of results that come from it."""
        return computed_in(self.storage)

    def values(self) -> np.ndarray:
        """Return the values as an array NumPy can compute with."""
        return widen(self.data, self.dtype)


@cache
def _name(dtype: np.dtype) -> str:
    """Name of a type: NumPy takes 3 us to make one."""
    return dtype.name


@cache
def _words_like(dtype: np.dtype) -> np.dtype:
    """Return the type of 16-bit words in the byte order of another type."""
    return np.dtype(np.uint16).newbyteorder(dtype.byteorder)


# --- in ------------------------------------------------------------------------------------------


def read(name: str, x: Any) -> Source:
    """Return an argument as a `Source`; TypeError if it is no array of real numbers."""
    kind = type(x).__module__.partition(".")[0]
    native = getattr(x, "dtype", None)
    if x is None:
        raise TypeError(f"{name} must be an array, got None")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: fill it, or drop what is masked")
    if on_cuda(x, kind):
        return home("arrays", "cuda").read(name, x)
    if isinstance(x, np.ndarray | np.generic):
        data, kind = np.asarray(x), "numpy"
    elif hasattr(x, "__dlpack__"):
        data = _from_dlpack(name, x, kind)
    else:
        data, kind = from_sequence(name, x), "numpy"
        native = data.dtype
    dtype = _name(data.dtype)
    if dtype == "uint16":
        dtype = str(native).removeprefix("torch.")
    if dtype not in FLOATS and data.dtype.kind not in "biu":
        if hasattr(x, "toarray"):
            raise TypeError(f"{name} must be dense, got {type(x).__name__}: pass {name}.toarray()")
        raise TypeError(
            f"{name} must hold real numbers (bfloat16, float16, float32, float64, integers or "
            f"booleans), got dtype {native if native is not None else data.dtype}"
        )
    if dtype in ("float16", "bfloat16"):
        data = data.view(_words_like(data.dtype))
    return Source(name, data, dtype, kind, native)


def on_cuda(x: Any, kind: str) -> bool:
    """Whether an array lives on a CUDA device."""
    if kind == "torch":
        return bool(getattr(x, "is_cuda", False))
    if kind in JAX:
        return hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] == CUDA_DEVICE
    return hasattr(x, "__cuda_array_interface__") or bool(getattr(x, "__cuda_ndarray__", False))


def _from_dlpack(name: str, x: Any, kind: str) -> np.ndarray:
    if kind == "torch" and (str(x.layout) != "torch.strided" or x.is_meta):
        what = "has no values" if x.is_meta else f"is of layout {x.layout}"
        raise TypeError(f"{name} must be a dense tensor with values, got one that {what}")
    if kind in JAX and type(x).__name__.endswith("Tracer"):
        raise TypeError(
            f"{name} is traced by jax ({type(x).__name__}), and fastinfo's functions are not: call "
            "them outside jax.jit and jax.grad, or by jax.pure_callback"
        )
    code, number = (int(part) for part in x.__dlpack_device__())
    if code not in CPU_DEVICES:
        raise ValueError(
            f"{name} is on device {getattr(x, 'device', (code, number))}: fastinfo computes in the "
            f"processor's memory and on CUDA devices; copy it there first"
        )
    if getattr(x, "requires_grad", False):
        refuse_grad(name, kind)
        x = x.detach()
    if kind == "torch":  # `numpy` keeps the memory writable, which `np.from_dlpack` may not
        x = x.resolve_neg()
        if str(x.dtype) == "torch.bfloat16":
            return x.view(sys.modules["torch"].int16).numpy().view(np.uint16)
        try:
            return x.resolve_conj().numpy()
        except TypeError as error:  # a type that NumPy does not have
            raise TypeError(
                f"{name} must hold real numbers (bfloat16, float16, float32, float64, integers or "
                f"booleans), got dtype {x.dtype}"
            ) from error
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError) as error:
        if hasattr(x, "__array__"):
            return np.asarray(x)
        raise TypeError(f"{name} cannot be read through DLPack: {error}") from error


def from_sequence(name: str, x: Any) -> np.ndarray:
    """Return a nested sequence as an array; ValueError if it is no rectangle."""
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array or a rectangular nested sequence: {error}"
        ) from None


def refuse_grad(name: str, kind: str) -> None:
    """TypeError for a tensor that records a graph."""
    if sys.modules[kind].is_grad_enabled():
        raise TypeError(
            f"{name} requires grad, and fastinfo's functions record no graph: use "
            f"fastinfo.torch, or call inside torch.no_grad(), or pass {name}.detach()"
        )


def same_device(*sources: Source | None) -> None:
    """ValueError that names the arguments if they live on different devices."""
    present = [s for s in sources if s is not None]
    if len({s.device for s in present}) > 1:
        places = ", ".join(f"{s.name} on {s.device}" for s in present)
        raise ValueError(f"all arrays must be on one device, got {places}")


def computed_in(*storages: str) -> str:
    """Type in which numbers of these storage types are computed with, and results are."""
    return "float64" if "float64" in storages else "float32"


def promote(*sources: Source) -> str:
    """Storage that holds the values of all: float64 if any is float64 or integer, else float32."""
    kinds = {s.storage for s in sources}
    return kinds.pop() if len(kinds) == 1 else computed_in(*kinds)


# --- out -----------------------------------------------------------------------------------------

_NAMESPACES = {"torch": "torch", "jax": "jax.numpy", "jaxlib": "jax.numpy", "cupy": "cupy"}


def empty(shape: Sequence[int], dtype: str, like: Source | None = None) -> Any:
    """Return an uninitialised array on a 64-byte boundary, 16-bit floats as words.

    It is where `like` is, in the processor's memory without.
    """
    if like is not None and like.device != "cpu":
        return home("arrays", like.device).empty(shape, dtype, like)
    word = words(dtype)
    size = math.prod(shape) * word.itemsize
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size].view(word).reshape(shape)


def as_result(values: Any, dtype: str) -> Any:
    """Round float64 figures to the dtype of a result, beyond its range to inf."""
    if not isinstance(values, np.ndarray | np.generic):
        return home("arrays", "cuda").as_result(values, dtype)
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(dtype)


def give(result: Any, like: Source, dtype: str | None = None) -> Any:
    """Return a result as the kind of array `like` was; 16-bit words as `dtype`."""
    if like.device != "cpu":
        return home("arrays", like.device).give(result, like, dtype)
    narrow = dtype in ("float16", "bfloat16")
    if like.kind == "numpy":
        if narrow:
            result = result.view(np.float16 if dtype == "float16" else like.native)
        return result[()] if result.ndim == 0 else result
    if like.kind not in _NAMESPACES:
        return result
    namespace = import_module(_NAMESPACES[like.kind])
    if narrow:
        array = namespace.from_dlpack(result.view(np.int16))
        return array.view(getattr(namespace, str(dtype)))
    if like.kind == "torch":
        return namespace.from_dlpack(result)
    kinds = import_module("jax.dtypes")  # 64 bits only where JAX has them switched on
    return namespace.asarray(result.astype(kinds.canonicalize_dtype(result.dtype)))


def output(
    name: str,
    out: Any,
    shape: tuple[int, ...],
    dtype: str,
    inputs: Sequence[Source],
    alias: Source | None,
) -> Any:
    """Check a caller's buffer and return its memory; it may be `alias` itself, no other input."""
    if inputs and inputs[0].device != "cpu":
        return home("arrays", inputs[0].device).output(name, out, shape, dtype, inputs, alias)
    if not (isinstance(out, np.ndarray) or hasattr(out, "__dlpack__")):
        raise ValueError(f"{name} must be an array, got {type(out).__name__}")
    target = read(name, out)
    if target.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {target.shape}")
    if target.dtype != dtype or not target.data.dtype.isnative:
        raise ValueError(f"{name} must have dtype {dtype}, got {target.native}")
    if not target.data.flags.writeable:
        which = "an array of JAX's, which never is" if target.kind in JAX else "a read-only array"
        raise ValueError(f"{name} must be writable, got {which}")
    if _repeats(target.data):
        raise ValueError(f"{name} must not overlap itself, got strides {target.data.strides}")
    for source in inputs:
        if source is alias and _same_memory(target.data, source.data):
            continue
        if _overlap(target.data, source.data):
            rule = "be or not touch" if source is alias else "not overlap"
            raise ValueError(f"{name} must {rule} the memory of {source.name}, it overlaps it")
    return target.data


def _repeats(x: np.ndarray) -> bool:
    """Whether two elements may share memory: a stride within what smaller strides span."""
    if not x.size:
        return False
    span = x.dtype.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1):
        if stride < span:
            return True
        span += stride * (n - 1)
    return False


def _same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides and a.shape == b.shape


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=100_000))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


# --- rows ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Rows of an array along one axis, for kernels: flat memory and the offset of each row in it.

    Where the classes of a row do not lie side by side in a type that kernels read, a tile of them
    is copied (`converted`: by NumPy, which knows every type); the array as a whole never is.
    """

    data: np.ndarray
    storage: str
    copied: bool
    converted: bool

    @classmethod
    def of(cls, source: Source, axis: int = -1) -> Any:
        """Return the rows of a source along `axis`, as its device has them."""
        if source.device != "cpu":
            return home("arrays", source.device).Rows.of(source, axis)
        last = axis in (-1, source.data.ndim - 1)
        data = source.data if last else np.moveaxis(source.data, axis, -1)
        return cls.along(data, source.dtype, source.storage)

    @classmethod
    def along(cls, data: np.ndarray, dtype: str, storage: str) -> Rows:
        """Return the rows along the last axis."""
        item = data.dtype.itemsize
        dense = data.shape[-1] <= 1 or data.strides[-1] == item
        whole = data.flags.aligned and all(stride % item == 0 for stride in data.strides)
        as_it_is = dtype == storage and data.dtype.isnative and whole
        return cls(data, storage, not (as_it_is and dense), not as_it_is)

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

    @lazy
    def memory(self) -> np.ndarray:
        """The memory the array spans, as one dimension."""
        if self.data.flags.c_contiguous:
            return self.data.reshape(-1)
        item = self.data.dtype.itemsize
        lowest = self.data[tuple(slice(None, None, -1 if s < 0 else 1) for s in self.data.strides)]
        span = sum(
            abs(s) * (n - 1) for n, s in zip(self.data.shape, self.data.strides, strict=True)
        )
        return as_strided(lowest, (1 + span // item,), (item,))

    @lazy
    def _axes(self) -> tuple[int, list[int], list[int]]:
        """Where in memory the first row begins, and lengths and steps of the axes that rows go by.

        Axes that go on where others end are one.
        """
        item = self.data.dtype.itemsize
        steps = [stride // item for stride in self.data.strides]
        reach = [(n - 1) * step for n, step in zip(self.data.shape, steps, strict=True)]
        lengths, apart = [1], [0]
        for n, step in zip(self.shape, steps, strict=False):
            if lengths[-1] == 1 or apart[-1] == n * step:
                n *= lengths.pop()
                apart.pop()
            lengths.append(n)
            apart.append(step)
        return -sum(min(r, 0) for r in reach), lengths, apart

    def starts(self, lo: int, hi: int) -> np.ndarray:
        """Return where in memory the rows [lo, hi) begin."""
        first, lengths, steps = self._axes
        return _offsets(first, lengths, steps, lo, hi)

    @property
    def beside(self) -> int:
        """How many rows lie beside each other, one element after the other."""
        if self.converted:
            return 1
        _, lengths, steps = self._axes
        return lengths[-1] if steps[-1] == 1 else 1

    @property
    def step(self) -> int:
        """How far apart in memory two classes of a row are."""
        return self.data.strides[-1] // self.data.dtype.itemsize

    def converted_tile(self, lo: int, hi: int, begin: int, end: int) -> np.ndarray:
        """Return a copy of the classes [begin, end) of the rows [lo, hi) in the storage type."""
        tile = np.empty((hi - lo, end - begin), words(self.storage))
        for at, index in _runs(self.shape, lo, hi):
            source = self.data[index][..., begin:end]
            own = tile[at].reshape(source.shape)
            # in columns that stay in cache, since neighbours may lie along the other axis
            for c in range(0, end - begin, TILE_COLUMNS):
                columns = slice(c, c + TILE_COLUMNS)
                np.copyto(own[..., columns], source[..., columns], casting="unsafe")
        return tile

    def scaled_down(self, which: np.ndarray) -> Rows:
        """Return a float64 copy with some rows divided by 2**64, so that their sums are finite."""
        values = np.array(widen(self.data, self.storage), np.float64, order="C")
        values.reshape(-1, self.width)[which] *= 2.0**-64
        return Rows.along(values, "float64", "float64")

    def put(self, tile: np.ndarray, lo: int, hi: int, begin: int) -> None:
        """Write a tile to the rows [lo, hi) and the classes from `begin` on."""
        for at, index in _runs(self.shape, lo, hi):
            target = self.data[index][..., begin : begin + tile.shape[1]]
            target[...] = tile[at].reshape(target.shape)

    def pick(self, classes: np.ndarray) -> np.ndarray:
        """Return one value a row as float64, NaN where the class is below 0."""
        index = np.maximum(classes, 0)
        if self.converted:
            where = index.reshape(*self.shape, 1)
            picked = np.take_along_axis(self.data, where, axis=-1).ravel()
        else:
            picked = self.memory[self.starts(0, self.count) + index * self.step]
        values = np.array(widen(picked, self.storage), np.float64)
        values[classes < 0] = np.nan
        return values


def _runs(
    shape: tuple[int, ...], lo: int, hi: int
) -> Iterator[tuple[slice, tuple[int | slice, ...]]]:
    """Cut the indices [lo, hi) of an array in C order into blocks: which of them, and where."""
    if hi <= lo:
        return
    if not shape:
        yield slice(0, 1), ()
        return
    inner = math.prod(shape[1:])
    first, last = -(-lo // inner) * inner, hi // inner * inner
    for begin, end in itertools.pairwise(sorted({lo, min(first, hi), max(last, lo), hi})):
        i = begin // inner
        if begin % inner == 0 and end % inner == 0:
            yield slice(begin - lo, end - lo), (slice(i, end // inner),)
            continue
        for at, index in _runs(shape[1:], begin - i * inner, end - i * inner):
            yield slice(at.start + begin - lo, at.stop + begin - lo), (i, *index)


def _offsets(first: int, lengths: list[int], steps: list[int], lo: int, hi: int) -> np.ndarray:
    """Return first + Σ index · step for the numbers [lo, hi) of an array's indices, in C order."""
    if len(lengths) == 1:
        return np.arange(lo, hi) * steps[0] + first
    inner, step = lengths[-1], steps[-1]
    begin, end = (lo // inner, -(-hi // inner)) if hi > lo else (0, 0)
    outer = _offsets(first, lengths[:-1], steps[:-1], begin, end)
    if inner < hi - lo:
        every = np.add.outer(outer, np.arange(inner) * step).ravel()
        return every[lo - begin * inner : hi - begin * inner]
    runs = [
        np.arange(max(lo - i * inner, 0), min(hi - i * inner, inner)) * step + at
        for i, at in zip(range(begin, end), outer, strict=True)
    ]
    return np.concatenate(runs) if runs else outer


def words(storage: str) -> np.dtype:
    """NumPy type of the memory of a storage type."""
    return np.dtype(np.uint16 if storage in ("float16", "bfloat16") else storage)


def widen(data: np.ndarray, storage: str) -> np.ndarray:
    """Return memory as an array NumPy can compute with: a view, except of bfloat16."""
    if storage == "bfloat16":
        return (data.astype(np.uint32) << 16).view(np.float32)
    return data.view(data.dtype.str.replace("u", "f")) if storage == "float16" else data


def narrow(values: np.ndarray, storage: str) -> np.ndarray:
    """Return numbers in a storage type, 16-bit ones as words rounded to nearest even."""
    with np.errstate(over="ignore", under="ignore"):
        if storage != "bfloat16":
            result = values.astype(storage, copy=False)
            return result.view(np.uint16) if storage == "float16" else result
        near = values.astype(np.float32)
        bits = near.view(np.uint32)
    if values.dtype == np.float64:  # to the odd neighbour, so that bits are rounded once
        bits = (bits - (abs(near) > abs(values))) | (near != values)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def read_only(x: np.ndarray) -> np.ndarray:
    """Return a view that kernels compile for once, whatever the caller's flags."""
    view = x.view()
    view.flags.writeable = False
    return view
