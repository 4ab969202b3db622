"""Kinds of arrays in and out, layouts, dtypes, untouched inputs, memory."""

import cases
import numpy as np
import pytest
from accuracy import assert_same_bits, gradient_dtype, peak, result_dtype
from cases import DISTRIBUTION_CALLS, FLOATS, LOGITS_CALLS

import fastinfo
from fastinfo.arrays import Rows

SHAPE = (6, 1300)


def inputs(rng, name, dtype, shape=SHAPE):
    """Return the function of that name and two fresh arguments for it."""
    if name in LOGITS_CALLS:
        targets = rng.integers(0, shape[-1], shape[:-1])
        return LOGITS_CALLS[name], cases.normal_logits(rng, shape, dtype), targets
    p, q = rng.dirichlet(np.ones(shape[-1]), (2, *shape[:-1])).astype(dtype)
    return DISTRIBUTION_CALLS[name], p, q


@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_same_bits_whatever_the_layout(rng, name, layout):
    for dtype in FLOATS:
        function, x, other = inputs(rng, name, dtype)
        actual = function(cases.LAYOUTS[layout](x), cases.LAYOUTS[layout](other))
        assert_same_bits(actual, function(x, other))


@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS])
def test_rows_repeated_with_stride_zero(rng, name):
    for dtype in FLOATS:
        function, x, other = inputs(rng, name, dtype)
        repeated = [np.broadcast_to(a[:1], a.shape) for a in (x, other)]
        assert_same_bits(function(*repeated), function(*(a.copy() for a in repeated)))


@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS])
@pytest.mark.parametrize("dtype", cases.INTEGERS, ids=str)
def test_integers_are_read_as_float64(rng, name, dtype):
    function, _, other = inputs(rng, name, np.float64)
    x = rng.integers(0, 100, SHAPE).astype(dtype)
    assert_same_bits(function(x, other), function(x.astype(np.float64), other))


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (2, 1, 3, 4), (3, 2, 2, 0, 4), (1, 4)])
def test_converted_rows_of_any_range(rng, shape):
    """Read and written by as few blocks of the leading axes as they are made of."""
    x = np.asfortranarray(rng.integers(0, 100, shape))
    rows, flat = Rows.along(x, "int64", "float64"), x.reshape(-1, 4)
    for lo in range(rows.count + 1):
        for hi in range(lo, rows.count + 1):
            tile = rows.converted_tile(lo, hi, 1, 3)
            assert_same_bits(tile, flat[lo:hi, 1:3].astype(np.float64))
            target = np.zeros_like(x)
            Rows.along(target, "int64", "float64").put(tile, lo, hi, 1)
            expected = np.zeros_like(flat)
            expected[lo:hi, 1:3] = flat[lo:hi, 1:3]
            assert_same_bits(target.reshape(-1, 4), expected)


@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes_of_results(rng, name, dtype):
    function, x, other = inputs(rng, name, dtype)
    results = function(x, other)
    dtypes = [r.dtype for r in (results if isinstance(results, tuple) else (results,))]
    kind, int64 = result_dtype(dtype), np.dtype(np.int64)
    expected = {
        "loss and gradient": [kind, gradient_dtype(dtype)],
        "softmax_entropy": [kind, gradient_dtype(dtype)],
        "softmax_kl_divergence": [kind, gradient_dtype(dtype)],
        "softmax_js_divergence": [kind, gradient_dtype(dtype)],
        "statistics": [kind, kind, kind, kind, int64, kind, int64],
    }
    assert dtypes == expected.get(name, [kind])


@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS, "pairwise"])
@pytest.mark.parametrize("layout", ["read-only", "spaced", "reversed"])
def test_inputs_are_never_changed(rng, name, layout):
    for dtype in FLOATS:
        if name == "pairwise":
            function, x, other = inputs(rng, "kl_divergence", dtype)
            function = fastinfo.pairwise
        else:
            function, x, other = inputs(rng, name, dtype)
        x[2], before = 0.5, (x.copy(), other.copy())
        before = x.copy(), other.copy()
        arguments = cases.LAYOUTS[layout](x), cases.LAYOUTS[layout](other)
        function(*arguments)
        assert_same_bits(tuple(np.ascontiguousarray(a) for a in arguments), before)


def test_weights_are_never_changed(rng):
    x, targets = cases.normal_logits(rng, (6, 40), np.float32), rng.random((6, 40))
    options = {"class_weight": rng.random(40), "sample_weight": rng.random(6)}
    arrays = (x, targets, *options.values())
    before = tuple(a.copy() for a in arrays)
    x[1] = -np.inf
    before[0][1] = -np.inf
    fastinfo.softmax_cross_entropy(
        x, targets, return_grad=True, label_smoothing=0.1, softcap=3.0, **options
    )
    assert_same_bits(arrays, before)


# Memory: what NumPy allocates is traced -------------------------------------------------------


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layout", ["as it is", "fortran", "spaced", "swapped bytes"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16, cases.BFLOAT16], ids=["f4", "i2", "bf16"])
def test_no_array_of_the_size_of_the_logits(layout, dtype):
    """Tiles of a fixed size a thread, whatever the layout: less than half of 48 MiB."""
    fastinfo.set_num_threads(2)
    size = 48 * 2**20 // np.dtype(dtype).itemsize
    logits = np.ones((64, size // 64), dtype)
    if layout != "as it is":
        logits = cases.LAYOUTS[layout](logits)
    targets = np.zeros(64, np.int64)
    for call in (
        lambda: fastinfo.softmax_cross_entropy(logits, targets),
        lambda: fastinfo.softmax_statistics(logits, targets),
        lambda: fastinfo.softmax_entropy(logits),
        lambda: fastinfo.softmax_kl_divergence(logits, logits),
        lambda: fastinfo.softmax_js_divergence(logits, logits),
        lambda: fastinfo.logsumexp(logits),
        lambda: fastinfo.entropy(logits),
    ):
        assert peak(call) < 24 * 2**20


@pytest.mark.usefixtures("threads")
def test_no_copy_along_another_axis():
    fastinfo.set_num_threads(2)
    logits = np.zeros((4, 1000, 96, 32), np.float32)
    targets = np.zeros((4, 96, 32), np.int64)

    def call():
        fastinfo.softmax_cross_entropy(logits, targets, axis=1, return_grad=True, out=logits)

    assert peak(call) < 24 * 2**20


# Kinds of arrays ------------------------------------------------------------------------------


class Frame:
    """A table with `__array__` only, as a DataFrame."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


class Capsule:
    """An array with the DLPack protocol only."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("kind", [list, tuple, Frame])
def test_sequences_and_tables(rng, kind):
    logits, targets = cases.normal_logits(rng, (3, 5), np.float64), [0, 4, 2]
    given = kind(logits.tolist())
    loss, grad = fastinfo.softmax_cross_entropy(given, targets, return_grad=True)
    expected = fastinfo.softmax_cross_entropy(logits, np.array(targets), return_grad=True)
    assert_same_bits((loss, grad), expected)
    assert type(grad) is np.ndarray
    p = kind([[1, 2, 0], [3, 3, 3]])
    matrix = fastinfo.pairwise(p)
    assert type(matrix) is np.ndarray
    assert_same_bits(matrix, fastinfo.pairwise(np.array([[1, 2, 0], [3, 3, 3]])))


def test_dlpack_objects(rng):
    x = cases.normal_logits(rng, (4, 50), np.float32)
    assert_same_bits(np.asarray(fastinfo.logsumexp(Capsule(x))), fastinfo.logsumexp(x))


def test_array_subclasses_give_plain_arrays(rng):
    x = rng.random((3, 4)).view(np.recarray)
    assert type(fastinfo.softmax(x)) is np.ndarray


def test_matrix_class_keeps_its_values(rng):
    x = rng.random((3, 4))
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(x)
    assert_same_bits(np.asarray(fastinfo.logsumexp(matrix)).ravel(), fastinfo.logsumexp(x))


def test_data_frames(rng):
    pandas = pytest.importorskip("pandas")
    x = rng.random((3, 4))
    frame = pandas.DataFrame(x, columns=list("abcd"))
    assert_same_bits(fastinfo.entropy(frame), fastinfo.entropy(x))
    assert_same_bits(fastinfo.pairwise(frame, frame), fastinfo.pairwise(x, x))
    targets = pandas.Series([0, 3, 1])
    assert_same_bits(
        fastinfo.softmax_cross_entropy(frame, targets),
        fastinfo.softmax_cross_entropy(x, np.array([0, 3, 1])),
    )


# PyTorch on the CPU ---------------------------------------------------------------------------


def as_numpy(tensor):
    """Return a tensor as an array, bfloat16 too."""
    torch = pytest.importorskip("torch")
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(cases.BFLOAT16)
    return tensor.numpy()


def as_tensor(array):
    """Return an array as a tensor, bfloat16 too."""
    torch = pytest.importorskip("torch")
    if array.dtype == cases.BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_torch_in_torch_out(rng, name, dtype):
    torch = pytest.importorskip("torch")
    function, x, other = inputs(rng, name, dtype)
    actual, expected = function(as_tensor(x), as_tensor(other)), function(x, other)
    if not isinstance(expected, tuple):
        actual, expected = (actual,), (expected,)
    assert all(isinstance(tensor, torch.Tensor) for tensor in actual)
    assert_same_bits(tuple(as_numpy(tensor) for tensor in actual), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_torch_gradient_into_a_tensor(rng, dtype):
    """Without a copy: the caller's memory is written, also that of the logits."""
    pytest.importorskip("torch")
    x, targets = cases.normal_logits(rng, (5, 70), dtype), rng.integers(0, 70, 5)
    loss, grad = fastinfo.softmax_cross_entropy(x, targets, return_grad=True)
    logits = as_tensor(x.copy())
    address = logits.data_ptr()
    value, out = fastinfo.softmax_cross_entropy(
        logits, as_tensor(targets), return_grad=True, out=logits
    )
    assert out is logits
    assert out.data_ptr() == address
    assert_same_bits((as_numpy(value), as_numpy(logits)), (np.asarray(loss), grad))


def test_torch_scalars_views_and_pairs(rng):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(cases.normal_logits(rng, (5, 8), np.float32))
    loss = fastinfo.softmax_cross_entropy(x.T, torch.tensor([0] * 8, dtype=torch.int32))
    assert isinstance(loss, torch.Tensor)
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    expected = fastinfo.softmax_cross_entropy(x.numpy().T.copy(), np.zeros(8, int))
    assert loss.item() == float(expected)
    expanded = fastinfo.logsumexp(x[:1].expand(4, 8))
    assert_same_bits(expanded.numpy(), fastinfo.logsumexp(np.repeat(x[:1].numpy(), 4, 0)))
    p = x.exp()
    matrix = fastinfo.pairwise(p, measure="kl_divergence")
    assert isinstance(matrix, torch.Tensor)
    assert_same_bits(matrix.numpy(), fastinfo.pairwise(p.numpy(), measure="kl_divergence"))
    out = torch.empty(5, 5)
    assert fastinfo.pairwise(p, measure="kl_divergence", out=out) is out
    assert torch.equal(out, matrix)


def test_the_first_array_decides_the_kind(rng):
    torch = pytest.importorskip("torch")
    x, targets = rng.random((3, 4)), np.array([0, 1, 2])
    mixed = fastinfo.softmax_cross_entropy(x, torch.from_numpy(targets), reduction="none")
    assert_same_bits(mixed, fastinfo.softmax_cross_entropy(x, targets, reduction="none"))
    other = fastinfo.kl_divergence(torch.from_numpy(x), x + 1)
    assert isinstance(other, torch.Tensor)
    assert_same_bits(other.numpy(), fastinfo.kl_divergence(x, x + 1))
    weighted = fastinfo.softmax_cross_entropy(x, targets, class_weight=torch.ones(4))
    assert_same_bits(weighted, fastinfo.softmax_cross_entropy(x, targets, class_weight=np.ones(4)))


def test_torch_tensors_that_require_grad(rng):
    """Taken while torch's grad mode is off; else the differentiable front door is named."""
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rng.random((3, 4))).requires_grad_()
    for call in (
        lambda: fastinfo.softmax_cross_entropy(x, [0, 1, 2]),
        lambda: fastinfo.entropy(x),
        lambda: fastinfo.pairwise(np.ones((2, 4)), x),
        lambda: fastinfo.softmax_cross_entropy(np.ones((3, 4)), x),
    ):
        with pytest.raises(TypeError, match=r"fastinfo\.torch"):
            call()
        for quiet in (torch.no_grad, torch.inference_mode):
            with quiet():
                call()
    with torch.no_grad():
        expected = fastinfo.logsumexp(x.detach().numpy())
        assert_same_bits(fastinfo.logsumexp(x).numpy(), expected)


def test_torch_tensors_that_are_not_plain_memory(rng):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rng.random((3, 4)))
    negative = torch.complex(x, x).conj().imag
    assert negative.is_neg()
    assert_same_bits(fastinfo.logsumexp(negative).numpy(), fastinfo.logsumexp(-x.numpy()))
    for bad, message in (
        (x.to_sparse(), "x must be a dense tensor.*sparse"),
        (x.to("meta"), "x must be a dense tensor with values"),
        (x.to(torch.float8_e5m2), "x must hold real numbers.*float8"),
    ):
        with pytest.raises(TypeError, match=message):
            fastinfo.logsumexp(bad)


# JAX on the CPU -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS])
@pytest.mark.parametrize("dtype", FLOATS[1:], ids=str)
def test_jax_in_jax_out(rng, name, dtype):
    jax = pytest.importorskip("jax")
    function, x, other = inputs(rng, name, dtype)
    other = other.astype(np.int32) if other.dtype.kind == "i" else other
    with jax.default_device(jax.devices("cpu")[0]):
        actual = function(jax.numpy.asarray(x), jax.numpy.asarray(other))
    expected = function(x, other)
    if not isinstance(expected, tuple):
        actual, expected = (actual,), (expected,)
    assert all(isinstance(array, jax.Array) for array in actual)
    for one, two in zip(actual, expected, strict=True):
        assert np.asarray(one).astype(two.dtype).tobytes() == two.tobytes()


def test_jax_has_no_out(rng):
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(rng.random((3, 4), np.float32))
    before = np.asarray(x).copy()
    with pytest.raises((TypeError, ValueError), match="out"):
        fastinfo.softmax_cross_entropy(x, [0, 1, 2], return_grad=True, out=x)
    assert_same_bits(np.asarray(x), before)


def test_jax_does_not_trace(rng):
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(rng.random((3, 4), np.float32))
    for transform in (jax.jit, jax.grad):
        with pytest.raises(TypeError, match=r"logits is traced by jax.*outside jax\.jit"):
            transform(lambda x: fastinfo.softmax_cross_entropy(x, [0, 1, 2]))(x)


# Devices --------------------------------------------------------------------------------------


def test_arrays_on_two_devices():
    x = np.ones((2, 3))
    other = Capsule(x, device=(2, 0))
    for call in (
        lambda: fastinfo.kl_divergence(x, other),
        lambda: fastinfo.pairwise(x, other),
        lambda: fastinfo.softmax_cross_entropy(x, other),
    ):
        with pytest.raises(ValueError, match=r"device"):
            call()
