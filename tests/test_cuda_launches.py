"""Every launch of public calls, compiled to machine code for the types a device would be given.

The simulator runs plain Python, to which types are all one. Here nothing runs: arrays have no
memory, and what would be launched is compiled.
"""

import ctypes
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from benchmarks import cuda_code

if cuda_code.missing():
    pytest.skip(cuda_code.missing(), allow_module_level=True)

import fastinfo
from fastinfo.cuda import arrays, products, seam

ARCH = "sm_90"
REGISTERS = 65536  # of a multiprocessor, which the threads of a block share
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Array:
    """An array on a device that is not there."""

    __cuda_array_interface__ = ()

    def __init__(self, shape, dtype, strides=None):
        self.shape = tuple(int(n) for n in shape)
        self.dtype = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
        steps = np.cumprod([1, *self.shape[:0:-1]])[::-1] * self.dtype.itemsize
        self.strides = strides or tuple(int(step) for step in steps)[: len(self.shape)]

    def __getitem__(self, k):
        return Array(self.shape[1:], self.dtype, self.strides[1:])

    def reshape(self, shape):
        return Array(shape, self.dtype)


@pytest.fixture
def launches(monkeypatch):
    """Names of the kernels that were launched, each compiled and looked at."""
    found = []

    def compile_it(kernel, blocks, threads, stream, *given):
        code = cuda_code.compiled(kernel, tuple(seam.type_of(v) for v in given), ARCH)
        name = kernel.py_func.__qualname__
        found.append(name)
        assert (code.local, code.stack, code.spills) == ([], 0, 0), name
        assert -(-code.registers // 8) * 8 * threads <= REGISTERS, name

    kind = arrays.Kind(
        lambda x: 1 << 20, lambda x: (0, "cuda:0"), lambda shape, dtype, like: Array(shape, dtype)
    )
    monkeypatch.setattr(Array, "__module__", "numba")
    monkeypatch.setitem(arrays.KINDS, "numba", kind)
    monkeypatch.setattr(seam, "launch", compile_it)
    monkeypatch.setitem(products.PRODUCTS, "numba", lambda a, b, out, add: None)
    monkeypatch.setattr(products, "known", lambda kind: True)
    return found


def array(*shape, dtype="float32"):
    return Array(shape, dtype)


DTYPES = ("float32", "bfloat16", "float16", "float64")
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.mark.parametrize(
    ("count", "call"),
    [
        (4, lambda x, y: fastinfo.softmax_cross_entropy(x, y)),
        (3, lambda x, y: fastinfo.softmax_cross_entropy(x, y, reduction="none")),
        (4, lambda x, y: fastinfo.softmax_cross_entropy(x, y, return_grad=True)),
        (3, lambda x, y: fastinfo.softmax_statistics(x, y)),
        (2, lambda x, y: fastinfo.logsumexp(x)),
        (4, lambda x, y: fastinfo.softmax(x)),
        (4, lambda x, y: fastinfo.kl_divergence(x, x)),
    ],
)
def test_how_many_kernels_a_small_call_launches(launches, monkeypatch, count, call):
    """Each takes the host some 10 us."""
    found = []
    monkeypatch.setattr(seam, "launch", lambda kernel, *given: found.append(kernel))
    call(array(64, 1000), array(64, dtype="int64"))
    assert len(found) == count


@dtypes
def test_cross_entropy(launches, dtype):
    x, y = array(6, 5000, dtype=dtype), array(6, dtype="int32")
    given = {"return_grad": True, "class_weight": array(5000), "sample_weight": array(6)}
    fastinfo.softmax_cross_entropy(x, y)
    fastinfo.softmax_cross_entropy(x, y, **given, label_smoothing=0.1)
    fastinfo.softmax_cross_entropy(array(900, 50000, dtype=dtype), array(900, 50000), softcap=9.0)
    fastinfo.perplexity(array(3, 1 << 20, dtype=dtype), array(3, dtype="uint8"))
    assert {"losses.<locals>.read_losses", "states.<locals>.read_states"} <= set(launches)


@dtypes
def test_of_rows(launches, dtype):
    x, y = array(6, 4, 5000, dtype=dtype), array(6, 4, dtype="int64")
    fastinfo.softmax_statistics(x, y)
    fastinfo.softmax(x, axis=1)
    fastinfo.log_softmax(x)
    fastinfo.logsumexp(x)
    fastinfo.softmax_entropy(x, return_grad=True, reduction="mean")
    uneven = Array((4, 5, 6, 70), dtype, (70000, 3000, 200, 2 * np.dtype(x.dtype).itemsize))
    fastinfo.softmax_entropy(uneven)


@dtypes
def test_two_rows_of_logits(launches, dtype):
    p, q = array(6, 5000, dtype=dtype), array(6, 5000, dtype=dtype)
    for name in ("softmax_kl_divergence", "softmax_js_divergence"):
        getattr(fastinfo, name)(p, q, return_grad=True, sample_weight=array(6, dtype="int32"))
    fastinfo.softmax_kl_divergence(p, array(6, 5000), return_grad=True)


@dtypes
def test_two_classes(launches, dtype):
    x, y = array(60, 50, dtype=dtype), array(60, 50, dtype=dtype)
    weights = {"pos_weight": array(50, dtype="int64"), "sample_weight": array(60, 1)}
    for loss in (fastinfo.binary_cross_entropy, fastinfo.binary_cross_entropy_with_logits):
        loss(x, y, return_grad=True)
        loss(x, array(60, 50, dtype="bool"), reduction="none", **weights)


@dtypes
def test_linear(launches, dtype):
    hidden, weight = array(600, 64, dtype=dtype), array(5000, 64, dtype=dtype)
    targets, bias = array(600, dtype="int64"), array(5000, dtype=dtype)
    fastinfo.linear_cross_entropy(hidden, weight, targets, return_grad=True)
    fastinfo.linear_cross_entropy(hidden, weight, targets, bias=bias, z_loss=1e-4)
    fastinfo.linear_softmax_statistics(hidden, weight, targets)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("measure", fastinfo.measures(), ids=lambda m: m.name)
def test_measures(launches, measure, dtype):
    given = {"alpha": 0.5} if measure.parameters == ("alpha",) else {}
    x, y = array(80, 300, dtype=dtype), array(70, 300, dtype=dtype)
    fastinfo.pairwise(x, y, measure.name, **given)
    fastinfo.pairwise(x, measure=measure.name, condensed=measure.symmetric, **given)
    getattr(fastinfo, measure.name)(x, x, **given)
    fastinfo.nearest(x, y, 3, measure.name, **given)


def test_orders_and_weights(launches, monkeypatch):
    x = array(80, 300)
    for alpha in (0.0, 1.0, 2.5, np.inf):
        fastinfo.pairwise(x, measure="renyi_divergence", alpha=alpha)
    fastinfo.nearest(x, weights=(0.3, 0.7))
    assert "finish_products" in {name.rpartition(".")[2] for name in launches}
    launches.clear()
    monkeypatch.setattr(products, "known", lambda kind: False)
    fastinfo.pairwise(x, measure="kl_divergence")
    fastinfo.nearest(x)
    assert "finish_products" not in {name.rpartition(".")[2] for name in launches}


class Devices(list):
    """Devices that note which of them is made the current one."""

    def __init__(self, count, noted):
        super().__init__(Device(k, noted) for k in range(count))


class Device:
    def __init__(self, number, noted):
        self.number, self.noted = number, noted

    def __enter__(self):
        self.noted.append(self.number)

    def __exit__(self, *error):
        self.noted.append(None)


@pytest.fixture
def driver(monkeypatch):
    """What would be run, on which stream and grid: of a driver that is not there."""
    ran = []
    monkeypatch.setattr(seam, "_loaded", lambda compiled, given: compiled)
    monkeypatch.setattr(seam, "_run", lambda *given: ran.append(given))
    monkeypatch.setattr(seam, "_functions", {})
    monkeypatch.setattr(seam, "_queue", lambda address: address)
    monkeypatch.setattr(seam._cuda, "current_context", lambda: ran.append("context"))
    return ran


def test_a_kernel_runs_on_the_device_of_its_stream(monkeypatch, driver):
    monkeypatch.setattr(seam._cuda, "gpus", Devices(2, driver))
    monkeypatch.setattr(seam, "_count", lambda: 2)
    seam.launch("kernel", 3, 32, seam.Stream(7, 1))
    seam.launch("kernel", 0, 32, seam.Stream(7, 1))
    device, (queue, grid, function), none = driver
    assert (device, queue, function, none) == (1, 7, "kernel", None)
    assert (grid.grid, grid.block) == ((3, 1, 1), (32, 1, 1))


def test_the_only_device_is_made_the_current_one_once_a_thread(monkeypatch, driver):
    monkeypatch.setattr(seam, "_count", lambda: 1)

    def twice():
        seam.launch("kernel", 3, 32, seam.Stream(7, 0))
        seam.launch("kernel", (3, 4), 32, seam.Stream(7, 0))

    for _ in range(2):
        thread = threading.Thread(target=twice)
        thread.start()
        thread.join()
    assert [given if given == "context" else "run" for given in driver] == [
        "context",
        "run",
        "run",
    ] * 2


def as_numba_passes(values):
    """Types of arguments, and words: of a kernel of Numba's that is launched with them."""
    from numba.cuda import dispatcher
    from numba.cuda.cudadrv import devicearray
    from numba.cuda.cudadrv import driver as of_numba
    from numba.cuda.typing.typeof import typeof

    def made(value):
        if isinstance(value, tuple):
            return tuple(made(part) for part in value)
        if not isinstance(value, seam.Given):
            return value
        strides = value.words[5 + len(value.shape) :]
        pointer = of_numba.MemoryPointer(None, ctypes.c_void_p(value.words[4]), value.words[2])
        return devicearray.DeviceNDArray(value.shape, strides, value.dtype, gpu_data=pointer)

    kernel = SimpleNamespace(extensions=[])
    kernel._prepare_args = dispatcher._Kernel._prepare_args.__get__(kernel)
    arrays, words = [made(value) for value in values], []
    kinds = [typeof(value) for value in arrays]
    for kind, value in zip(kinds, arrays, strict=True):
        kernel._prepare_args(kind, value, 0, [], words)
    return kinds, words


def comparable(words):
    return [(type(word).__name__, getattr(word, "value", word)) for word in words]


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "int64", "int32"])
def test_arguments_are_passed_as_numba_passes_them(monkeypatch, driver, dtype):
    monkeypatch.setattr(seam, "_count", lambda: 1)
    kind = np.dtype(dtype)
    given = (
        seam.Given(kind, (12,), 1 << 20), seam.Given(kind, (3, 4), 4096),
        seam.Given(kind, (2, 3, 5), 1 << 40), seam.Given(kind, (1, 4), 64), 5, -7, True, False,
        np.float32(0.5), np.float64(0.25), 0.125, np.int64(1 << 40), np.int32(-3),
        (1, 2, 3), (np.float32(1.5), np.float32(2.5)), (1, np.float64(3.0)), (),
    )  # fmt: skip
    kinds, words = as_numba_passes(given)
    seam.launch("kernel", 1, 32, seam.Stream(0, 0), *given)
    assert [seam.type_of(value) for value in given] == kinds
    assert comparable(driver[-1][3:]) == comparable(words)


def test_what_is_compiled_anew(monkeypatch, driver):
    loaded = []
    monkeypatch.setattr(seam, "_count", lambda: 1)
    monkeypatch.setattr(seam, "_loaded", lambda compiled, given: loaded.append(given) or compiled)
    array = seam.Given(np.dtype("float32"), (12,), 1 << 20)
    for given in (
        (array, 1), (seam.Given(np.dtype("float32"), (7,), 64), 2), (array, np.float32(1)),
        (array, 1.0), (array, True), (array, (1,)), (array, (1, 2)), (array, ((1,), 2)),
        (seam.Given(np.dtype("float32"), (3, 4), 64), 1),
        (seam.Given(np.dtype("int32"), (12,), 64), 1),
    ):  # fmt: skip
        seam.launch("kernel", 1, 32, seam.Stream(0, 0), *given)
    assert len(loaded) == 9


class NumbaArray:
    """A Numba device array on device 3, bound to a stream or to none."""

    def __init__(self, stream):
        context = SimpleNamespace(device=SimpleNamespace(id=3))
        self.gpu_data = SimpleNamespace(context=context)
        self.device_ctypes_pointer = ctypes.c_size_t(1 << 20)
        self.stream = stream


def test_streams_of_numba_arrays_as_numba_has_them():
    from cuda.bindings.driver import CUstream
    from numba.cuda.cudadrv.driver import Stream

    bound = NumbaArray(Stream(CUstream(12345), external=True))
    assert seam.describe(bound) == (12345, "cuda:3") and seam.address_of(bound) == 1 << 20
    assert seam.describe(NumbaArray(Stream(CUstream(0)))) == (0, "cuda:3")
    assert seam.describe(NumbaArray(0)) == (0, "cuda:3")


def test_new_numba_arrays_are_on_the_device_of_the_old(monkeypatch):
    noted = []
    monkeypatch.setattr(seam._cuda, "gpus", Devices(4, noted))
    monkeypatch.setattr(seam._cuda, "device_array", lambda *given, stream: noted.append(stream))
    seam.make((2, 3), "float32", NumbaArray(7))
    assert noted == [3, 7, None]


def test_copies_to_the_processor_wait_for_their_stream(monkeypatch):
    noted = []

    class Flat:
        def copy_to_host(self, stream):
            noted.append(stream)
            return np.arange(6.0)

    def read(interface, owner, sync):
        noted.append((interface["data"], interface["shape"], interface["typestr"]))
        return Flat()

    stream = SimpleNamespace(synchronize=lambda: noted.append("waited"))
    monkeypatch.setattr(seam, "_on", lambda device: nullcontext())
    monkeypatch.setattr(seam._cuda, "from_cuda_array_interface", read)
    monkeypatch.setattr(seam, "_stream", lambda found: stream)
    memory = arrays.Memory(
        None, "numba", (2, 3), (1, 2), np.dtype("float64"), "float64", 1 << 20, seam.Stream(7, 0),
        "cuda:0",
    )  # fmt: skip
    np.testing.assert_array_equal(seam.to_host(memory), [[0, 2, 4], [1, 3, 5]])
    assert noted == [((1 << 20, False), (6,), "<f8"), stream, "waited"]


def test_memory_knows_the_device_of_its_stream(launches, monkeypatch):
    kind = arrays.Kind(lambda x: 1 << 20, lambda x: (9, "cuda:3"), lambda shape, dtype, like: None)
    monkeypatch.setitem(arrays.KINDS, "numba", kind)
    source = arrays.read("x", array(2, 3))
    assert source.data.stream == (9, 3) and source.device == "cuda:3"
