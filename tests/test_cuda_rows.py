"""Rows of logits on a device against the same functions on the processor.

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1), or on a device (``pytest -m gpu``). What the
processor gives is itself checked against mpmath.
"""

import types

import numpy as np
import pytest
from cuda_support import (
    DTYPES,
    host,
    on_device,
    possible,
    same,
    skip_without_device,
    switch_often,
)

import fastinfo

skip_without_device()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures(switch_often.__name__)]


def logits_of(rng, shape, dtype, kind):
    x = 4 * rng.normal(size=shape)
    if kind == "masked":
        x[rng.random(shape) < 0.4] = -np.inf
        x[..., 0] = 0.0
    if kind == "confident":
        x[..., 3] += 60
    if kind == "offset":
        x += 1e3 if dtype == "float16" else 1e6
    if kind == "special" and len(shape) == 2:
        x[0], x[1, 5], x[2, 7], x[3, 2:] = -np.inf, np.nan, np.inf, -np.inf
        x[4, 3], x[4, 9] = np.inf, np.nan
    return x.astype(DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "masked", "confident", "offset", "special"])
def test_cross_entropy_and_gradient(rng, dtype, kind):
    x = logits_of(rng, (6, 83), dtype, kind)
    targets = np.array([0, -100, 82, 5, 40, 3])
    for reduction in ("mean", "none", "sum"):
        given = {"reduction": reduction, "return_grad": True}
        found = fastinfo.softmax_cross_entropy(on_device(x), on_device(targets), **given)
        same(found, fastinfo.softmax_cross_entropy(x, targets, **given), dtype)


@pytest.mark.parametrize("seed", range(30))
def test_drawn_options(seed):
    rng = np.random.default_rng(seed)
    dtype = list(DTYPES)[seed % 4]
    n, v = int(rng.integers(1, 6)), int(rng.integers(1, 70))
    x = logits_of(rng, (n, v), dtype, "plain")
    soft = rng.random() < 0.4
    y = rng.dirichlet(np.ones(v), n) if soft else rng.integers(0, v, n)
    given = {
        "reduction": str(rng.choice(["mean", "sum", "none"])),
        "return_grad": True,
        "label_smoothing": float(rng.choice([0.0, 0.2])),
        "z_loss": float(rng.choice([0.0, 0.01])),
        "temperature": float(rng.choice([1.0, 0.7])),
        "softcap": rng.choice([None, 5.0]),
    }
    arrays = {}
    if rng.random() < 0.5:
        arrays["class_weight"] = rng.random(v)
    if rng.random() < 0.5:
        arrays["sample_weight"] = rng.integers(0, 3, n) / 2 if rng.random() < 0.5 else rng.random(n)
    expected = fastinfo.softmax_cross_entropy(x, y, **given, **arrays)
    on = {name: on_device(array) for name, array in arrays.items()}
    found = fastinfo.softmax_cross_entropy(on_device(x), on_device(y), **given, **on)
    same(found, expected, dtype, 1e3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "masked", "confident", "special"])
def test_statistics(rng, dtype, kind):
    x = logits_of(rng, (6, 83), dtype, kind)
    x[5, 20:] = x[5, :1]  # ties
    targets = np.array([0, -100, 82, 5, 40, 33])
    for given in ({}, {"temperature": 2.0, "softcap": 10.0}):
        found = fastinfo.softmax_statistics(on_device(x), on_device(targets), **given)
        same(tuple(found), tuple(fastinfo.softmax_statistics(x, targets, **given)), dtype, 1e4)
    found = fastinfo.softmax_statistics(on_device(x))
    same(tuple(found), tuple(fastinfo.softmax_statistics(x)), dtype, 1e4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmaxes(rng, dtype):
    x = logits_of(rng, (5, 61), dtype, "plain")
    for function in ("softmax", "log_softmax", "logsumexp"):
        same(getattr(fastinfo, function)(on_device(x)), getattr(fastinfo, function)(x), dtype)
    given = {"temperature": 0.5, "return_grad": True}
    found = fastinfo.softmax_entropy(on_device(x), **given)
    same(found, fastinfo.softmax_entropy(x, **given), dtype, 1e3)
    same(
        fastinfo.perplexity(on_device(x), on_device([1, 2, 3, 4, 5])),
        fastinfo.perplexity(x, [1, 2, 3, 4, 5]),
        dtype,
    )


DIVERGENCES = {
    "softmax_kl_divergence": {},
    "softmax_js_divergence": {"beta": 0.3},
}


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("kind", ["plain", "masked", "confident", "offset", "special"])
@pytest.mark.parametrize("dtypes", [("float64",) * 2, ("float32",) * 2, ("bfloat16", "float32")])
def test_divergences_of_logits(rng, name, kind, dtypes):
    p = logits_of(rng, (7, 83), dtypes[0], kind)
    q = logits_of(rng, (7, 83), dtypes[1], kind)
    q[5], q[6] = p[5], (p[6].astype(np.float64) * 1.01).astype(q.dtype)
    weights = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.0, 3.0])
    given = DIVERGENCES[name] | {"temperature": 1.5, "return_grad": True}
    on = {"sample_weight": on_device(weights)}
    for reduction in ("none", "mean"):
        given["reduction"] = reduction
        expected = getattr(fastinfo, name)(p, q, **given, sample_weight=weights)
        found = getattr(fastinfo, name)(on_device(p), on_device(q), **given, **on)
        same(found, expected, max(dtypes), 1e2)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("dtypes", [("float16", "float16"), ("float64", "bfloat16")])
def test_divergences_of_logits_near_0(rng, name, dtypes):
    """Rows so near that only a second reading in float64 has the digits; equal ones are 0."""
    p = logits_of(rng, (4, 200), dtypes[0], "plain")
    q = p.astype(np.float64).astype(DTYPES[dtypes[1]])
    q[2:] = (q[2:].astype(np.float64) * (1 + 1e-2 * rng.normal(size=(2, 200)))).astype(q.dtype)
    given = DIVERGENCES[name] | {"reduction": "none"}
    expected = getattr(fastinfo, name)(p, q, **given)
    found = getattr(fastinfo, name)(on_device(p), on_device(q), **given)
    same(found, expected, max(dtypes), 0.0)
    assert host(getattr(fastinfo, name)(on_device(q), on_device(q), **given)).tolist() == [0.0] * 4


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_of_logits_in_pieces_and_layouts(rng, name):
    p, q = (logits_of(rng, (2, 1500), "float32", "plain") for _ in range(2))
    given = DIVERGENCES[name] | {"return_grad": True, "reduction": "none"}
    expected = getattr(fastinfo, name)(p, q, **given)
    same(getattr(fastinfo, name)(on_device(p), on_device(q), **given), expected, "float32")
    x, y = on_device(p), on_device(q)
    left = np.s_[:, 3:80]
    for right in possible(np.s_[:, 7:84], np.s_[:, 1:154:2], np.s_[::-1, 154:0:-2]):
        expected = getattr(fastinfo, name)(p[left], q[right], **given)
        same(getattr(fastinfo, name)(x[left], y[right], **given), expected, "float32")
    getattr(fastinfo, name)(x, y, return_grad=True, out=y)
    same(y, getattr(fastinfo, name)(p, q, return_grad=True)[1], "float32")


def test_divergence_of_stretches_of_equal_logits(rng, monkeypatch):
    """Equal numbers are rounded alike: a KL of 0.09 was off by five times what is allowed."""
    monkeypatch.setattr("fastinfo.cuda.rows.ENOUGH", 1)
    cuts = np.sort(rng.integers(0, 4096, (20, 3)), 1)
    which = (np.arange(4096) >= cuts[..., None]).sum(1)
    x = rng.normal(0, 1, (20, 4))
    y = x + rng.normal(0, 0.4, (20, 4))
    p, q = (np.take_along_axis(a.astype(np.float32), which, 1) for a in (x, y))
    expected = fastinfo.softmax_kl_divergence(p, q, reduction="none")
    found = fastinfo.softmax_kl_divergence(on_device(p), on_device(q), reduction="none")
    same(found, expected, "float32", 0.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layouts(rng, dtype):
    """Strides, offsets, an axis in the middle, rows that are no even step apart."""
    x = logits_of(rng, (3, 20, 7), dtype, "plain")
    targets = rng.integers(0, 20, (3, 7))
    given = {"axis": 1, "return_grad": True}
    found = fastinfo.softmax_cross_entropy(on_device(x), on_device(targets), **given)
    same(found, fastinfo.softmax_cross_entropy(x, targets, **given), dtype)
    y = logits_of(rng, (9, 50), dtype, "plain")
    device = on_device(y)
    parts = np.s_[::2, 3:], np.s_[1:, ::3], np.s_[::-1, 1:-1], np.s_[:, ::-1], np.s_[:, 5:12]
    for part in possible(*parts):
        rows = len(y[part])
        targets = rng.integers(0, y[part].shape[1], rows)
        given = {"return_grad": True, "reduction": "sum"}
        found = fastinfo.softmax_cross_entropy(device[part], on_device(targets), **given)
        same(found, fastinfo.softmax_cross_entropy(y[part], targets, **given), dtype)
    z = logits_of(rng, (3, 4, 2, 11), dtype, "plain")[:, ::2]
    whole = logits_of(rng, (3, 4, 2, 11), dtype, "plain")
    z, device = whole[:, ::2], on_device(whole)[:, ::2]
    same(fastinfo.logsumexp(device), fastinfo.logsumexp(z), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_go_in_pieces(rng, dtype):
    x = logits_of(rng, (2, 1500), dtype, "plain")
    x[1, 700] = np.nan
    targets = np.array([1400, 3])
    given = {"return_grad": True, "reduction": "none", "label_smoothing": 0.1}
    found = fastinfo.softmax_cross_entropy(on_device(x), on_device(targets), **given)
    same(found, fastinfo.softmax_cross_entropy(x, targets, **given), dtype)
    found = fastinfo.softmax_statistics(on_device(x), on_device(targets))
    same(tuple(found), tuple(fastinfo.softmax_statistics(x, targets)), dtype, 1e4)


def test_in_place_and_into_a_buffer(rng):
    x = logits_of(rng, (4, 33), "float32", "plain")
    targets = np.array([0, 1, 2, -100])
    expected = fastinfo.softmax_cross_entropy(x, targets, return_grad=True)
    device, buffer = on_device(x), on_device(np.zeros_like(x))
    _, grad = fastinfo.softmax_cross_entropy(
        device, on_device(targets), return_grad=True, out=buffer
    )
    assert grad is buffer
    same(grad, expected[1], "float32")
    same(device, x, "float32")
    fastinfo.softmax_cross_entropy(device, on_device(targets), return_grad=True, out=device)
    same(device, expected[1], "float32")


def test_a_row_whose_target_is_no_class_is_nan():
    x, targets = np.zeros((3, 4), np.float32), on_device([0, 4, -1])
    loss, grad = fastinfo.softmax_cross_entropy(
        on_device(x), targets, reduction="none", return_grad=True
    )
    assert np.isnan(host(loss)).tolist() == [False, True, True]
    assert np.isnan(host(grad)).all(axis=1).tolist() == [False, True, True]
    with fastinfo.config(check=True), pytest.raises(IndexError, match="got 4 at row 1"):
        fastinfo.softmax_cross_entropy(on_device(x), targets)


def test_weights_that_are_none():
    x, bad = on_device(np.zeros((2, 3), np.float32)), on_device([1.0, -1.0])
    loss = fastinfo.softmax_cross_entropy(x, on_device([0, 1]), sample_weight=bad)
    assert np.isnan(host(loss))
    with fastinfo.config(check=True), pytest.raises(ValueError, match="sample_weight must be"):
        fastinfo.softmax_cross_entropy(x, on_device([0, 1]), sample_weight=bad)


def test_arrays_on_two_devices_are_named():
    x = on_device(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"logits on cuda:0, targets on cpu"):
        fastinfo.softmax_cross_entropy(x, [0, 1])
    with pytest.raises(ValueError, match=r"class_weight on cpu"):
        fastinfo.softmax_cross_entropy(x, on_device([0, 1]), class_weight=np.ones(3))


def test_means_over_nothing():
    x = on_device(np.zeros((2, 3), np.float32))
    ignored = on_device([-100, -100])
    assert np.isnan(host(fastinfo.softmax_cross_entropy(x, ignored)))
    assert host(fastinfo.softmax_cross_entropy(x, ignored, reduction="sum")) == 0
    none = on_device(np.zeros((0, 3), np.float32)), on_device(np.zeros(0, np.int64))
    assert np.isnan(host(fastinfo.softmax_cross_entropy(*none)))
    assert host(fastinfo.softmax_cross_entropy(*none, reduction="none")).shape == (0,)


def test_what_is_not_built_says_so():
    x, y = on_device(np.full((2, 3), 0.5, np.float32)), on_device([0, 1])
    calls = {
        "negative_log_likelihood": lambda: fastinfo.negative_log_likelihood(x, y),
        "StreamingCrossEntropy": lambda: fastinfo.StreamingCrossEntropy(y),
        "surprisal": lambda: fastinfo.surprisal(x),
        "contingency": lambda: fastinfo.contingency(y, y),
        "mutual_information_matrix": lambda: fastinfo.mutual_information_matrix(on_device([[1]])),
        "a measure of Gaussians": lambda: fastinfo.gaussian.entropy(x),
        "a measure of joint tables": lambda: fastinfo.mutual_information(x),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"{name} is not computed on a CUDA device.*copy"):
            call()


class Jax:
    """An array of JAX on a device, as far as it can be told from another; its view is `memory`."""

    def __init__(self, memory):
        self.memory, self.dtype = memory, memory.dtype

    def __dlpack__(self, **given):
        raise AssertionError("DLPack is torch's, CuPy's and JAX's own")

    def __dlpack_device__(self):
        return 2, 0


Jax.__module__ = "jaxlib._jax"


def test_jax_in_jax_out(rng, monkeypatch):
    """Read through a library's view of the same memory, and given back through one of JAX."""
    from fastinfo.cuda import arrays

    narrow = {"int64": np.int32}
    known = {
        "jax.dlpack": types.SimpleNamespace(from_dlpack=Jax),
        "jax.dtypes": types.SimpleNamespace(
            canonicalize_dtype=lambda dtype: np.dtype(narrow.get(str(dtype), dtype))
        ),
    }
    monkeypatch.setattr(arrays, "import_module", lambda name: known.get(name) or __import__(name))
    monkeypatch.setattr(arrays, "_view_of_jax", lambda name, x: x.memory)
    x, y = logits_of(rng, (3, 20), "float32", "plain"), np.array([0, 1, 2])
    found = fastinfo.softmax_cross_entropy(
        Jax(on_device(x)), Jax(on_device(y)), return_grad=True, reduction="none"
    )
    assert all(isinstance(array, Jax) for array in found)
    expected = fastinfo.softmax_cross_entropy(x, y, return_grad=True, reduction="none")
    same(tuple(array.memory for array in found), expected, "float32")
    positions = fastinfo.softmax_statistics(Jax(on_device(x))).argmax
    assert host(positions.memory).dtype == np.int32
    with pytest.raises(ValueError, match="out must be writable, got a JAX array"):
        fastinfo.softmax_cross_entropy(
            Jax(on_device(x)), Jax(on_device(y)), return_grad=True, out=Jax(on_device(x))
        )


def test_jax_without_another_library(monkeypatch):
    from fastinfo.cuda import arrays

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(arrays, "import_module", missing)
    with pytest.raises(ImportError, match=r"x is a JAX array .* pip install cupy-cuda13x"):
        fastinfo.logsumexp(Jax(on_device(np.zeros(3))))
