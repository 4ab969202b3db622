"""Linear cross-entropy on a device against the same on the processor.

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1), or on a device (``pytest -m gpu``). What the
processor gives is itself checked against mpmath.
"""

import sys
import types

import cuda_support
import numpy as np
import pytest
from cuda_support import DTYPES, SIMULATED, host, skip_without_device, switch_often

import fastinfo

skip_without_device()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures(switch_often.__name__)]

from fastinfo import arrays  # noqa: E402
from fastinfo.cuda import arrays as device_arrays  # noqa: E402
from fastinfo.cuda import linear, products  # noqa: E402
from fastinfo.cuda.arrays import Memory  # noqa: E402

# Largest differences from the processor's results, relative and absolute.
LIMITS = {
    "float64": (1e-11, 1e-13),
    "float32": (1e-4, 2e-5),
    "float16": (2e-3, 2e-5),
    "bfloat16": (1.6e-2, 2e-5),
}
NAMES = ("hidden", "weight", "bias")


def on_device(x):
    return x if x is None else cuda_support.on_device(np.ascontiguousarray(x))


def same(device, expected, scale=1.0):
    """Assert that results agree, kinds and shapes too."""
    cuda_support.same(device, expected, scale=scale, limits=LIMITS)


def head(rng, shape, classes, dtype, weight_dtype=None, bias=True):
    """Return hidden, weight and bias of 5 features."""
    hidden = rng.normal(size=(*shape, 5)).astype(DTYPES[dtype])
    weight = rng.normal(size=(classes, 5)).astype(DTYPES[weight_dtype or dtype])
    own = rng.normal(size=classes).astype(DTYPES[weight_dtype or dtype]) if bias else None
    return hidden, weight, own


def least(job):
    """Return the least limit of memory that `job(limit)` takes."""
    with pytest.raises(ValueError, match="memory_limit must be at least") as error:
        job(1)
    return int(str(error.value).split("at least ")[1].split()[0])


def compare(hidden, weight, targets, limit=None, **given):
    """Compare with the processor's, within a limit of memory on the device."""
    expected = fastinfo.linear_cross_entropy(hidden, weight, targets, **given)
    on = {k: on_device(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
    arrays = [on_device(x) for x in (hidden, weight, targets)]

    def compute(limit):
        return fastinfo.linear_cross_entropy(*arrays, memory_limit=limit, **on)

    limit = limit if limit is None else int(limit * least(compute))
    found = compute(limit)
    same(found, expected)
    return found


@pytest.mark.parametrize("seed", range(16))
def test_drawn_options(seed):
    rng = np.random.default_rng(seed)
    dtype = list(DTYPES)[seed % 4]
    weight_dtype = str(rng.choice(list(DTYPES))) if rng.random() < 0.3 else dtype
    n, v = int(rng.integers(1, 8)), int(rng.integers(1, 30))
    shape = (n,) if rng.random() < 0.7 else (2, n)
    hidden, weight, bias = head(rng, shape, v, dtype, weight_dtype, rng.random() < 0.6)
    if rng.random() < 0.4:
        targets = rng.dirichlet(np.ones(v), shape)
    else:
        targets = np.where(rng.random(shape) < 0.2, -100, rng.integers(0, v, shape))
        targets.flat[0] = 0
    given = {
        "bias": bias,
        "reduction": str(rng.choice(["mean", "sum", "none"])),
        "return_grad": bool(rng.random() < 0.8),
        "label_smoothing": float(rng.choice([0.0, 0.2])),
        "z_loss": float(rng.choice([0.0, 0.01])),
        "temperature": float(rng.choice([1.0, 0.7])),
        "softcap": rng.choice([None, 5.0]),
    }
    if rng.random() < 0.5:
        given["class_weight"] = rng.random(v) + 0.1
    if rng.random() < 0.5:
        given["sample_weight"] = rng.random(shape)
    compare(hidden, weight, targets, rng.choice([None, 1.0, 1.3, 2.0]), **given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ranked", [False, True])
def test_statistics(rng, dtype, ranked):
    hidden, weight, bias = head(rng, (2, 3), 19, dtype)
    targets = np.array([[0, 18, -100], [3, 4, 5]]) if ranked else None
    given = {"temperature": 0.5, "softcap": 8.0}
    expected = fastinfo.linear_softmax_statistics(hidden, weight, targets, bias=bias, **given)
    arrays = [on_device(x) for x in (hidden, weight, targets)]

    def compute(limit):
        return fastinfo.linear_softmax_statistics(
            *arrays, bias=on_device(bias), memory_limit=limit, **given
        )

    for limit in (None, least(compute)):
        same(compute(limit), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layouts(rng, dtype):
    """Strides, transposed factors, rows that are no even step apart."""
    hidden, weight, bias = head(rng, (4, 3), 8, dtype)
    targets = rng.integers(0, 4, (4, 3))
    cuts = [np.s_[::2], np.s_[:, ::2], np.s_[::2, :2]]
    if SIMULATED:  # tensors have no negative strides
        cuts.append(np.s_[::-1])
    device, factor = on_device(hidden), on_device(weight)
    for cut in cuts:
        expected = fastinfo.linear_cross_entropy(
            hidden[cut], weight[::2], targets[cut], bias=bias[::2], return_grad=True
        )
        found = fastinfo.linear_cross_entropy(
            device[cut], factor[::2], on_device(targets[cut]), bias=on_device(bias)[::2],
            return_grad=True,
        )  # fmt: skip
        same(found, expected)
    turned = np.ascontiguousarray(weight.T)
    expected = fastinfo.linear_cross_entropy(hidden, turned.T, targets, return_grad=True)
    found = fastinfo.linear_cross_entropy(
        device, on_device(turned).T, on_device(targets), return_grad=True
    )
    same(found, expected)


@pytest.mark.parametrize("need", [(), "hidden", "weight", ("bias",), ("hidden", "bias")])
@pytest.mark.parametrize("kind", [None, "float32", "float64"])
def test_gradients_that_are_asked_for(rng, need, kind):
    hidden, weight, bias = head(rng, (6,), 9, "float64" if kind == "float64" else "bfloat16")
    compare(
        hidden, weight, np.arange(6), 1.2, bias=bias, return_grad=True, need_grad=need,
        grad_dtype=kind,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("bound", [None, 1.0, 2.5])
def test_16_bit_factors_as_they_are(rng, monkeypatch, dtype, bound):
    """What a library makes possible that multiplies them into float32, and adds."""
    if not SIMULATED and not products.takes_halves("torch"):
        pytest.skip("torch before 2.10 has no such products")
    monkeypatch.setattr(products, "takes_halves", lambda kind: True)
    monkeypatch.setattr(products, "adds", lambda kind: True)
    hidden, weight, bias = head(rng, (7,), 21, dtype)
    hidden[2] = np.nan
    targets = np.array([0, 20, -100, 3, 8, 9, 1])
    for need in (NAMES, "hidden", "weight", "bias"):
        compare(
            hidden, weight, targets, bound, bias=bias, return_grad=True, need_grad=need,
            grad_dtype="float32", z_loss=0.1,
        )  # fmt: skip
    compare(hidden, weight, targets, bound, bias=bias)


def test_soft_targets_in_blocks_of_uneven_rows(rng):
    hidden, weight, _ = head(rng, (4, 3), 6, "float32")
    soft = rng.dirichlet(np.ones(6), (4, 4)).astype(np.float32)[:, :3]
    expected = fastinfo.linear_cross_entropy(hidden, weight, soft, return_grad=True)
    whole = on_device(np.concatenate([soft, soft[:, :1]], axis=1))
    given = on_device(hidden), on_device(weight), whole[:, :3]

    def compute(limit):
        return fastinfo.linear_cross_entropy(*given, return_grad=True, memory_limit=limit)

    same(compute(least(compute)), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_ignored_rows_may_hold_nan(rng, dtype):
    hidden, weight, bias = head(rng, (5,), 7, dtype)
    hidden[1], hidden[3, 2] = np.nan, np.inf
    targets = np.array([0, -100, 6, 2, 1])
    weights = np.array([1, 1, 0.5, 0, 1])
    loss, gradients = compare(
        hidden, weight, targets, 1.5, bias=bias, sample_weight=weights, return_grad=True
    )
    assert np.isfinite(host(loss))
    assert not host(gradients.hidden)[[1, 3]].any()


def test_a_row_of_nan_is_nan_and_a_masked_class_is_none(rng):
    hidden, weight, bias = head(rng, (4,), 7, "float32")
    hidden[2], bias[5] = np.nan, -np.inf
    compare(
        hidden, weight, np.arange(4), bias=bias, return_grad=True, reduction="none",
        need_grad="hidden",
    )  # fmt: skip


def test_buffers(rng):
    hidden, weight, bias = head(rng, (6,), 9, "bfloat16")
    targets = np.arange(6)
    expected = fastinfo.linear_cross_entropy(hidden, weight, targets, bias=bias, return_grad=True)
    wide = on_device(np.ones((9, 10), weight.dtype))
    out = [on_device(np.ones_like(hidden)), wide[:, ::2], on_device(np.ones_like(bias))]
    found = fastinfo.linear_cross_entropy(
        on_device(hidden), on_device(weight), on_device(targets), bias=on_device(bias),
        return_grad=True, out=out,
    )  # fmt: skip
    assert all(one is other for one, other in zip(found[1], out, strict=True))
    same(found, expected)
    assert (host(wide)[:, 1::2] == 1).all()
    with pytest.raises(ValueError, match=r"out\.hidden must not overlap the memory of hidden"):
        x = on_device(hidden)
        fastinfo.linear_cross_entropy(
            x, on_device(weight), on_device(targets), return_grad=True, out=(x, None, None)
        )


def test_zero_rows(rng):
    hidden, weight, bias = head(rng, (0,), 4, "float32")
    for reduction in ("none", "sum", "mean"):
        compare(
            hidden, weight, np.zeros(0, np.int64), bias=bias, return_grad=True, reduction=reduction
        )
    found = fastinfo.linear_softmax_statistics(on_device(hidden), on_device(weight))
    assert found.max.shape == (0,)


def test_errors(rng):
    hidden, weight, _ = head(rng, (3,), 4, "float32")
    targets = on_device([0, 1, 4])
    loss = fastinfo.linear_cross_entropy(
        on_device(hidden), on_device(weight), targets, reduction="none"
    )
    assert np.isnan(host(loss)).tolist() == [False, False, True]
    with fastinfo.config(check=True), pytest.raises(IndexError, match="got 4 at row 2"):
        fastinfo.linear_cross_entropy(on_device(hidden), on_device(weight), targets)
    with pytest.raises(TypeError, match="must hold floats on a CUDA device"):
        fastinfo.linear_cross_entropy(on_device([[1]]), on_device([[1], [2]]), on_device([0]))
    with pytest.raises(ValueError, match="all arrays must be on one device"):
        fastinfo.linear_cross_entropy(on_device(hidden), weight, targets)


def test_the_same_call_gives_the_same_bits(rng):
    hidden, weight, bias = head(rng, (7,), 11, "float32")
    arrays = [on_device(x) for x in (hidden, weight, np.arange(7))]
    given = {"bias": on_device(bias), "return_grad": True}
    first, second = (fastinfo.linear_cross_entropy(*arrays, **given)[1] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(host(one), host(other))


# --- products by PyTorch, whose tensors may lie on the processor for this ------------------------


def as_memory(x):
    kind = str(x.dtype).removeprefix("torch.")
    word = np.dtype(np.uint16) if kind in ("float16", "bfloat16") else np.dtype(kind)
    return Memory(
        x, "torch", tuple(x.shape), tuple(x.stride()), word, kind, x.data_ptr(), 0, "cuda:0"
    )


@pytest.mark.skipif(not SIMULATED, reason="tensors of the processor have no stream")
def test_products_by_torch(rng):
    torch = pytest.importorskip("torch")
    a, b, c = (torch.tensor(rng.normal(size=s)) for s in ((6, 4), (5, 4), (7, 5)))
    left = linear.between(as_memory(a), 2, 5)
    products.multiply(left, as_memory(b).moved(0), linear.between(as_memory(c), 1, 4))
    np.testing.assert_allclose(c[1:4], a[2:5] @ b.T)
    before, out = c.clone(), linear.between(as_memory(c), 0, 3)
    products.multiply_add(left, as_memory(b).moved(0), out, None)
    np.testing.assert_allclose(c[:3], before[:3] + a[2:5] @ b.T)


@pytest.mark.skipif(not SIMULATED, reason="a device has tensors of its own")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors(rng, monkeypatch, dtype):
    """Tensors of the processor, taken for a device's."""
    torch = pytest.importorskip("torch")
    on_cuda = arrays.on_cuda
    monkeypatch.setattr(arrays, "on_cuda", lambda x, kind: kind == "torch" or on_cuda(x, kind))
    monkeypatch.setattr(products, "takes_halves", lambda kind: False)
    kind = device_arrays.Kind(
        lambda x: x.data_ptr(), lambda x: (0, "cuda:0"), device_arrays.KINDS["torch"].make
    )
    monkeypatch.setitem(device_arrays.KINDS, "torch", kind)
    given = {"return_grad": True, "softcap": 5.0, "label_smoothing": 0.1}
    factors = [
        torch.tensor(rng.normal(size=s)).to(getattr(torch, dtype))
        for s in ((2, 8, 5), (9, 10), (9,))
    ]
    hidden, weight, bias = factors[0][:, 1:6], factors[1][:, 1:6], factors[2]
    targets = torch.tensor(rng.integers(0, 9, (2, 5)))

    def compute(limit):
        return fastinfo.linear_cross_entropy(
            hidden, weight, targets, bias=bias, memory_limit=limit, **given
        )

    loss, gradients = compute(int(1.5 * least(compute)))
    wide = [x.to(torch.float32).numpy() for x in (hidden, weight, bias)]
    expected, exact = fastinfo.linear_cross_entropy(
        *wide[:2], targets.numpy(), bias=wide[2], **given
    )
    rtol, atol = LIMITS[dtype]
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    for found, other, of in zip(gradients, exact, (hidden, weight, bias), strict=True):
        assert (found.dtype, found.shape) == (of.dtype, of.shape)
        np.testing.assert_allclose(found.to(torch.float32), other, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("version", "takes"),
    [("2.7.1", False), ("2.9.1+cu130", False), ("2.10.0+cu130", True), ("3.0.0", True)],
)
def test_torch_that_adds_16_bit_products_to_float32(monkeypatch, version, takes):
    found = pytest.importorskip("torch").torch_version.TorchVersion(version)
    monkeypatch.setattr(
        products, "import_module", lambda name: types.SimpleNamespace(__version__=found)
    )
    assert products.takes_halves("torch") is takes
    assert not products.takes_halves("cupy")


def test_tf32_is_off_in_a_product_and_then_as_it_was():
    class New:
        fp32_precision = "tf32"

    class Old:
        allow_tf32 = True

    for switches, name, exact in ((New(), "fp32_precision", "ieee"), (Old(), "allow_tf32", False)):
        before = getattr(switches, name)
        with products._without_tf32(switches):
            assert getattr(switches, name) == exact
        assert getattr(switches, name) == before


def test_tf32_is_off_until_the_last_of_several_threads_is_done():
    switches = types.SimpleNamespace(allow_tf32=True)
    first, second = products._without_tf32(switches), products._without_tf32(switches)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert switches.allow_tf32 is False
    second.__exit__(None, None, None)
    assert switches.allow_tf32 is True


def test_numba_arrays_need_cupy_for_products(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    x = as_memory(pytest.importorskip("torch").zeros(2, 2))
    with pytest.raises(ImportError, match="pip install cupy-cuda13x"):
        products._by_cupy(x, x, x, False)
