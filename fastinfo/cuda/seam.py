"""The only import of numba.cuda: decorators, launches, memory of foreign arrays, instructions.

On a device what is here compiles to single instructions; in Numba's simulator the same names are
plain functions of NumPy scalars.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from fractions import Fraction
from functools import cache, lru_cache, wraps
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fastinfo.arrays import FLOATS

if importlib.util.find_spec("numba_cuda") is None:
    raise ImportError("computing on a CUDA device needs numba-cuda: pip install 'fastinfo[cuda]'")

from numba import cuda as _cuda
from numba.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)


def _context() -> Any:
    """The simulated kernel that runs, if one does."""
    from numba.cuda.simulator.kernel import _get_kernel_context

    return _get_kernel_context()


class _Shared:
    """Shared memory of a simulated block: one array a line, whichever thread comes first.

    The simulator's own gives two threads that come at once an array each.
    """

    lock = threading.Lock()

    def array(self, size: int, dtype: Any, alignment: int | None = None) -> np.ndarray:
        """Return the array of the line that asks for it."""
        frame, context = sys._getframe(1), _context()
        with self.lock:
            made = context.__dict__.setdefault("fastinfo_shared", {})
            return made.setdefault((frame.f_code, frame.f_lineno), np.empty(size, dtype))


class _Simulated:
    """`numba.cuda` inside a simulated kernel, in functions of any module."""

    shared = _Shared()

    def __getattr__(self, name: str) -> Any:
        return getattr(_context() or _cuda, name)


cuda: Any = _Simulated() if SIMULATED else _cuda


def devices() -> list[str]:
    """Names of the devices that can be computed on."""
    if SIMULATED or not _cuda.is_available():
        return []
    names = (device.name for device in _cuda.gpus)
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


# --- decorators ----------------------------------------------------------------------------------


def helper(function: Callable[..., Any]) -> Any:
    """Decorate a function of kernels, which is inlined there."""
    return function if SIMULATED else _cuda.jit(device=True, forceinline=True)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Decorate a kernel; it returns nothing, and is compiled for the types of its first call."""
    if not SIMULATED:
        return _cuda.jit(function)

    @wraps(function)
    def quiet(*given: Any) -> None:
        with np.errstate(all="ignore"):
            function(*given)

    return _cuda.jit(quiet)


class Stream(NamedTuple):
    """A stream's address, and the number of the device it is of."""

    address: int
    device: int


def launch(
    compiled: Any, blocks: int | tuple[Any, ...], threads: int, stream: Stream, *given: Any
) -> None:
    """Run a kernel on a stream, without waiting for it.

    What Numba would pass is passed here: it finds out again at each launch how, 10 us an array.
    """
    if not blocks:
        return
    if SIMULATED:
        compiled[blocks, threads, 0](*given)
        return
    kinds: list[Any] = [compiled, stream.device]
    words: list[Any] = []
    for value in given:
        pass_on(value, kinds, words)
    key = tuple(kinds)
    with _on(stream.device):
        function = _functions.get(key)
        if function is None:
            function = _functions[key] = _loaded(compiled, given)
        _run(_queue(stream.address), _grid(blocks, threads), function, *words)


class Given:
    """A contiguous array as kernels take it: what it holds, and the words it is passed as."""

    __slots__ = ("dtype", "kind", "shape", "words")

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...], address: int) -> None:
        self.dtype, self.shape, self.kind = dtype, shape, dtype.char + str(len(shape))
        steps, step = [], dtype.itemsize
        for n in reversed(shape):
            steps.append(step)
            step *= n
        size = step // dtype.itemsize
        nobody = (0, 0)  # counts references to it, or owns it
        self.words = (*nobody, size, dtype.itemsize, address, *shape, *reversed(steps))


_functions: dict[tuple[Any, ...], Any] = {}


def pass_on(value: Any, kinds: list[Any], words: list[Any]) -> None:
    """Add what an argument is, and what it is passed as."""
    if type(value) is Given:
        kinds.append(value.kind)
        words.extend(value.words)
    elif type(value) is tuple:
        kinds.append(len(value))
        for part in value:
            pass_on(part, kinds, words)
    elif type(value) is bool:
        kinds.append(bool)
        words.append(value)
    else:
        kind: Any = type(value)
        kinds.append(kind)
        words.append(_as_c(kind)(value))


@cache
def _as_c(kind: type) -> Any:
    """Type of C of a number."""
    return np.ctypeslib.as_ctypes_type(np.dtype(kind))


def type_of(value: Any) -> Any:
    """Numba's type of an argument of a kernel."""
    from numba.cuda import types
    from numba.cuda.np.numpy_support import from_dtype

    if isinstance(value, tuple):
        return types.BaseTuple.from_types([type_of(part) for part in value])
    if isinstance(value, bool):
        return types.boolean
    if isinstance(value, Given):
        return types.Array(from_dtype(value.dtype), len(value.shape), "C")
    return from_dtype(np.dtype(type(value)))


def _loaded(compiled: Any, given: tuple[Any, ...]) -> Any:
    """Return a kernel compiled for some arguments, as the driver of the current device has it."""
    kernel = compiled.compile(tuple(type_of(value) for value in given))
    return kernel._codelibrary.get_cufunc().kernel


def _run(stream: Any, grid: Any, function: Any, *words: Any) -> None:
    from cuda.core import launch

    launch(stream, grid, function, *words)


@lru_cache(maxsize=1024)
def _grid(blocks: int | tuple[int, ...], threads: int) -> Any:
    """How many blocks of how many threads, as the driver has it."""
    from cuda.core import LaunchConfig

    return LaunchConfig(grid=blocks, block=threads)


@lru_cache(maxsize=1024)
def _queue(address: int) -> Any:
    """A stream as the driver has it."""
    from cuda.core import Stream

    return Stream.from_handle(address)


_here = threading.local()


def _on(device: int) -> Any:
    """Make a device the current one; the only one, once a thread."""
    if _count() > 1:
        return _cuda.gpus[device]
    if not getattr(_here, "ready", False):
        _cuda.current_context()
        _here.ready = True
    return nullcontext()


@cache
def _count() -> int:
    return len(_cuda.gpus)


@cache
def _stream(stream: Stream) -> Any:
    return _cuda.external_stream(stream.address) if stream.address else _cuda.default_stream()


def formula(function: Callable[..., Any], mathematics: Any) -> Any:
    """Compile a plain function of `formulas.py` with the functions and constants of a float type.

    A constant as Python has it would make float32 arithmetic float64.
    """
    scope, real = dict(function.__globals__), mathematics.real
    for name in function.__code__.co_names:
        if hasattr(mathematics, name):
            scope[name] = getattr(mathematics, name)
        elif isinstance(scope.get(name), FunctionType):
            scope[name] = formula(scope[name], mathematics)
        if isinstance(scope.get(name), float):
            scope[name] = real(scope[name])
    with np.errstate(over="ignore"):  # what no float32 reaches is inf
        constants = tuple(
            real(c) if isinstance(c, float) else c for c in function.__code__.co_consts
        )
    code = function.__code__.replace(co_consts=constants)
    return helper(FunctionType(code, scope, function.__name__))


# --- arrays --------------------------------------------------------------------------------------


def address_of(x: Any) -> int:
    """Address of a Numba device array."""
    return int(x._ary.ctypes.data if SIMULATED else x.device_ctypes_pointer.value or 0)


def describe(x: Any) -> tuple[int, str]:
    """Stream and device of a Numba device array."""
    if SIMULATED:
        return 0, "cuda:0"
    return int(getattr(x.stream, "handle", 0)), f"cuda:{_device_of(x)}"  # x.stream is 0 for none


def _device_of(x: Any) -> int:
    """Number of the device that a Numba device array lies on."""
    return int(x.gpu_data.context.device.id)


def make(shape: Sequence[int], dtype: str, like: Any) -> Any:
    """Return a new Numba device array."""
    if dtype == "bfloat16":
        from ml_dtypes import bfloat16 as kind  # only the simulator has such arrays
    else:
        kind = np.dtype(dtype)
    with nullcontext() if SIMULATED else _on(_device_of(like)):
        return _cuda.device_array(tuple(shape), kind, stream=like.stream)


def span(memory: Any, low: int, shape: tuple[int, ...]) -> Any:
    """Return elements from `low` on as a contiguous array that kernels take."""
    address = memory.address + low * memory.dtype.itemsize
    if SIMULATED:
        return _simulated(address, math.prod(shape), memory.dtype, memory.native).reshape(shape)
    return Given(memory.dtype, shape, address)


@cache
def nothing(dtype: str) -> Any:
    """Return an array of no elements, as kernels take it."""
    if SIMULATED:
        return _simulated(0, 0, np.dtype(dtype), None)
    return Given(np.dtype(dtype), (0,), 0)


def _simulated(address: int, size: int, dtype: np.dtype, owner: Any) -> Any:
    import ctypes

    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    if not size:
        return FakeCUDAArray(np.empty(0, dtype))
    memory = (ctypes.c_char * (size * dtype.itemsize)).from_address(address)
    memory.owner = owner  # type: ignore[attr-defined]  # lives as long as the view
    return FakeCUDAArray(np.frombuffer(memoryview(memory), dtype))


def simulated_view(memory: Any) -> np.ndarray:
    """Return NumPy's view of an array of the simulator."""
    strides = tuple(step * memory.dtype.itemsize for step in memory.strides)
    first = memory.flat._ary[memory.first :]
    return np.lib.stride_tricks.as_strided(first, memory.shape, strides)


def to_host(memory: Any) -> np.ndarray:
    """Return a copy in the processor's memory, once the stream has come so far."""
    flat = _flat_to_host(memory) if memory.size else np.empty(0, memory.dtype)
    item = memory.dtype.itemsize
    strides = tuple(step * item for step in memory.strides)
    view = np.lib.stride_tricks.as_strided(flat[memory.first :], memory.shape, strides)
    return np.array(view)


def _flat_to_host(memory: Any) -> np.ndarray:
    if SIMULATED:
        return memory.flat.copy_to_host()
    given = memory.flat
    interface = {
        "shape": given.shape, "strides": None, "typestr": given.dtype.str,
        "data": (memory.address - memory.first * given.dtype.itemsize, False), "version": 2,
    }  # fmt: skip
    with _on(memory.stream.device):
        array = _cuda.from_cuda_array_interface(interface, owner=memory.native, sync=False)
        # a copy on no stream waits for the default one, not for those that torch makes
        stream = _stream(memory.stream)
        flat = array.copy_to_host(stream=stream)
        stream.synchronize()
    return flat


# --- instructions --------------------------------------------------------------------------------


def _instruction(code: str) -> Any:
    """A device function that is one line of PTX, of floats of 32 bits."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def emit(typingctx, x):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
            line = ir.InlineAsm(kind, f"{code} $0, $1;", "=f,f")
            return builder.call(line, arguments)

        return types.float32(types.float32), generate

    return emit


def _where(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


# ((1 + u) log(1 + u) - u) / u² for |u| ≤ ½, from the highest power on, to 2e-8.
GAP = (
    -0.01471914464,
    0.01770693821,
    -0.01252890439,
    0.01626683379,
    -0.02393646739,
    0.03348163384,
    -0.04999595255,
    0.08332860697,
    -0.166666687,
    0.5000000237,
)


def _of_means(log2: Any, maximum: Any) -> dict[str, Any]:
    """What tiles of pairs ask of float32: one approximate logarithm a bin."""
    real = np.float32
    tiny, one, half, log_unit = real(2.0**-126), real(1), real(0.5), real(np.log(2))
    (c9, c8, c7, c6, c5, c4, c3, c2, c1, c0) = (real(c) for c in GAP)

    def log_in_units(x: Any) -> Any:
        """Return log2 x, finite at 0 (there times 0)."""
        return log2(maximum(x, tiny))

    def entropy_gap(u: Any) -> Any:
        """Return (1 + u) log(1 + u) - u, relatively accurate near 0."""
        t = one + u
        far = t * (log2(maximum(t, tiny)) * log_unit) - u
        s = ((((c9 * u + c8) * u + c7) * u + c6) * u + c5) * u + c4
        s = (((s * u + c3) * u + c2) * u + c1) * u + c0
        return s * (u * u) if abs(u) < half else far

    return {
        "log_in_units": helper(log_in_units), "entropy_gap": helper(entropy_gap),
        "log_unit": math.log(2.0),
    }  # fmt: skip


def _simulated_fused(a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once."""
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        return a * b + c
    return np.float64(float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))))


def _single() -> SimpleNamespace:
    where = helper(_where)
    if SIMULATED:
        return SimpleNamespace(
            real=np.float32, exp2=np.exp2, exp=np.exp, log=np.log, log1p=np.log1p, sqrt=np.sqrt,
            tanh=np.tanh, cosh=np.cosh, log2=np.log2, expm1=np.expm1, where=where, maximum=np.fmax,
            **_of_means(np.log2, np.fmax),
        )  # fmt: skip
    log2 = _instruction("lg2.approx.ftz.f32")
    return SimpleNamespace(
        real=np.float32,
        # 2 ULP, subnormal results are 0: one instruction where `math.exp2` is four
        exp2=_instruction("ex2.approx.ftz.f32"),
        log2=log2,
        exp=math.exp, log=math.log, log1p=math.log1p, sqrt=math.sqrt, tanh=math.tanh,
        expm1=math.expm1, cosh=math.cosh, where=where, maximum=_cuda.libdevice.fmaxf,
        **_of_means(log2, _cuda.libdevice.fmaxf),
    )  # fmt: skip


def _double() -> SimpleNamespace:
    library = np if SIMULATED else math
    names = ("exp2", "log2", "exp", "log", "log1p", "expm1", "sqrt", "tanh", "cosh")
    functions = {name: getattr(library, name) for name in names}
    functions |= {"frexp": library.frexp, "ldexp": library.ldexp, "log_unit": 1.0}
    functions["atanh"] = np.arctanh if SIMULATED else math.atanh
    functions["fused"] = _simulated_fused if SIMULATED else _cuda.libdevice.fma_rn
    maximum = np.fmax if SIMULATED else _cuda.libdevice.fmax
    return SimpleNamespace(real=np.float64, where=helper(_where), maximum=maximum, **functions)


@cache
def mathematics(real: str) -> SimpleNamespace:
    """Functions of a float type that kernels compute with."""
    return _single() if real == "float32" else _double()


def _element(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Address of an element of a one-dimensional array, unchecked."""
    made = context.make_array(kind)(context, builder, value=array)
    return builder.gep(made.data, [index])


def _bits_of_half(word: Any, storage: str) -> Any:
    """A float of 16 bits from its word, in the simulator."""
    if storage == "bfloat16":
        return (np.array(word, np.uint32) << np.uint32(16)).view(np.float32)[()]
    return np.float32(np.array(word, np.uint16).view(np.float16)[()])


def _half_of_bits(x: Any, storage: str) -> Any:
    from fastinfo.arrays import narrow

    return narrow(np.array(x, np.float32), storage)[()]


@cache
def loader(storage: str) -> tuple[Any, Any]:
    """Return load(x, i), one number, and load_wide(x, i), those of 16 bytes at a multiple of 16.

    Wide loads of float64 are of 4 numbers, 2 at a time; of what is no float there are none.
    """
    if storage not in FLOATS:
        return helper(lambda x, i: x[i]), None
    if SIMULATED:
        half = storage in ("float16", "bfloat16")
        lanes = 8 if half else 4

        def load(x: Any, i: Any) -> Any:
            return _bits_of_half(x[i], storage) if half else x[i]

        def load_wide(x: Any, i: Any) -> Any:
            return tuple(load(x, i + lane) for lane in range(lanes))

        return load, load_wide
    return _load_of(storage, 1), _load_of(storage, 8 if storage[-2:] == "16" else 4)


def _load_of(storage: str, lanes: int) -> Any:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    real = types.float64 if storage == "float64" else types.float32
    llvm = {"float64": ir.DoubleType(), "float32": ir.FloatType()}
    own = llvm.get(storage, ir.IntType(32 if lanes > 1 else 16))
    at_once = 16 // (8 if storage == "float64" else 4)

    def widen(builder: Any, bits: Any) -> Any:
        """The float32 of 16 bits."""
        if storage == "bfloat16":
            shifted = builder.shl(builder.zext(bits, ir.IntType(32)), ir.IntType(32)(16))
            return builder.bitcast(shifted, ir.FloatType())
        kind = ir.FunctionType(ir.FloatType(), [ir.IntType(16)])
        return builder.call(ir.InlineAsm(kind, "cvt.f32.f16 $0, $1;", "=f,h"), [bits])

    def numbers(builder: Any, element: Any) -> list[Any]:
        """What is in one element of the vector that is loaded."""
        if storage in llvm:
            return [element]
        if storage == "bfloat16":  # both halves stay in 32 bits
            low = builder.shl(element, ir.IntType(32)(16))
            high = builder.and_(element, ir.IntType(32)(0xFFFF0000))
            return [builder.bitcast(part, ir.FloatType()) for part in (low, high)]
        halves = (element, builder.lshr(element, ir.IntType(32)(16)))
        return [widen(builder, builder.trunc(part, ir.IntType(16))) for part in halves]

    @intrinsic
    def load(typingctx, x, i):  # type: ignore[no-untyped-def]
        result = real if lanes == 1 else types.UniTuple(real, lanes)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            address = _element(context, builder, signature.args[0], *arguments)
            if lanes == 1:
                value = builder.load(address)
                return value if storage in llvm else widen(builder, value)
            found: list[Any] = []
            while len(found) < lanes:
                first = builder.gep(address, [ir.IntType(64)(len(found))])
                vector = ir.VectorType(own, at_once)
                loaded = builder.load(builder.bitcast(first, vector.as_pointer()), align=16)
                for lane in range(at_once):
                    element = builder.extract_element(loaded, ir.IntType(32)(lane))
                    found += numbers(builder, element)
            return context.make_tuple(builder, signature.return_type, found)

        return result(x, i), generate

    return load


@cache
def storer(storage: str) -> tuple[Any, Any]:
    """Return store(x, i, v), and store_wide(x, i, values), past the caches, at a multiple of 16."""
    if SIMULATED:
        half = storage in ("float16", "bfloat16")

        def store(x: Any, i: Any, v: Any) -> None:
            x[i] = _half_of_bits(v, storage) if half else v

        def store_wide(x: Any, i: Any, values: Any) -> None:
            for lane, v in enumerate(values):
                store(x, i + lane, v)

        return store, store_wide
    return _store_of(storage, False), _store_of(storage, True)


def _store_of(storage: str, wide: bool) -> Any:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    code, letter, kind = {
        "float64": ("f64", "d", ir.DoubleType()),
        "float32": ("f32", "f", ir.FloatType()),
    }.get(storage, ("b16", "h", ir.IntType(16)))

    def narrow(builder: Any, v: Any) -> Any:
        """The word of 16 bits nearest to a float32, ties to even."""
        if storage in ("float32", "float64"):
            return v
        line = "cvt.rn.bf16.f32 $0, $1;" if storage == "bfloat16" else "cvt.rn.f16.f32 $0, $1;"
        made = ir.FunctionType(ir.IntType(16), [ir.FloatType()])
        return builder.call(ir.InlineAsm(made, line, "=h,f"), [v])

    def write(builder: Any, address: Any, values: list[Any]) -> None:
        """One store of 16 bytes, or of what there is."""
        if kind == ir.IntType(16):
            pairs = zip(values[::2], values[1::2], strict=True)
            words = []
            for low, high in pairs:
                wide_low, wide_high = (builder.zext(v, ir.IntType(32)) for v in (low, high))
                words.append(builder.or_(wide_low, builder.shl(wide_high, ir.IntType(32)(16))))
            unit, mark, values = "b32", "r", words
        else:
            unit, mark = code, letter
        n = len(values)
        places = ", ".join(f"${k + 1}" for k in range(n))
        made = ir.FunctionType(ir.VoidType(), [address.type, *(v.type for v in values)])
        line = f"st.global.cs.v{n}.{unit} [$0], {{{places}}};"
        marks = "l," + ",".join(mark for _ in values) + ",~{memory}"
        builder.call(ir.InlineAsm(made, line, marks, side_effect=True), [address, *values])

    @intrinsic
    def store(typingctx, x, i, v):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            array, index, given = arguments
            address = _element(context, builder, signature.args[0], array, index)
            if not wide:
                builder.store(narrow(builder, given), address)
            else:
                count = len(signature.args[2])
                values = [narrow(builder, builder.extract_value(given, k)) for k in range(count)]
                lanes = 2 if storage == "float64" else 8 if kind == ir.IntType(16) else 4
                for first in range(0, count, lanes):
                    place = builder.gep(address, [ir.IntType(64)(first)])
                    write(builder, place, values[first : first + lanes])
            return context.get_dummy_value()

        return types.void(x, i, v), generate

    return store
