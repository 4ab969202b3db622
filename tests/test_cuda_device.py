"""What only a device can show: huge arrays, streams, no waiting, other libraries, two devices.

``pytest -m gpu tests/test_cuda_device.py``; the simulator has none of it.
"""

import importlib.util

import numpy as np
import pytest
from cuda_support import SIMULATED, why_not

import fastinfo

if SIMULATED or why_not():
    pytest.skip(why_not() or "the simulator is no device", allow_module_level=True)

import torch

pytestmark = pytest.mark.gpu
V = 131_072
N = 2**31 // V + 9
ROWS = (0, 1, N // 2, N - 2, N - 1)  # the last begin beyond 2**31 elements


@pytest.fixture(scope="module")
def huge():
    """More than 2**31 logits and their classes; skipped where there is no room."""
    free, _ = torch.cuda.mem_get_info()
    if free < 12 << 30:
        pytest.skip(f"needs 12 GiB of free memory on the device, there are {free / 2**30:.0f}")
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.empty(N, V, dtype=torch.bfloat16, device="cuda").normal_(0, 3, generator=generator)
    assert x.numel() > 2**31
    return x, torch.randint(V, (N,), device="cuda", generator=generator)


@pytest.mark.parametrize("row", ROWS)
def test_losses_and_gradients_beyond_two_to_the_31(huge, row):
    x, y = huge
    loss, gradient = fastinfo.softmax_cross_entropy(x, y, reduction="none", return_grad=True)
    exact, target = x[row].double(), int(y[row])
    log_p = exact.log_softmax(0)
    assert loss[row].item() == pytest.approx(-log_p[target].item(), rel=4e-5)
    wanted = log_p.exp()
    terms = wanted.clone()
    wanted[target] -= 1
    terms[target] += 1
    assert ((gradient[row].double() - wanted).abs() / terms).max() < 2**-8


def test_statistics_beyond_two_to_the_31(huge):
    x, y = huge
    found = fastinfo.softmax_statistics(x, y)
    for row in ROWS:
        exact, target = x[row].double(), int(y[row])
        log_p = exact.log_softmax(0)
        near = {"rel": 4e-5}
        assert found.target_log_prob[row].item() == pytest.approx(log_p[target].item(), **near)
        assert found.logsumexp[row].item() == pytest.approx(exact.logsumexp(0).item(), **near)
        entropy = -(log_p.exp() * log_p).sum().item()
        assert found.entropy[row].item() == pytest.approx(entropy, **near)
        assert x[row, found.argmax[row]] == x[row].max()
        above = (x[row] > x[row, target]).sum() + (x[row, :target] == x[row, target]).sum()
        assert found.target_rank[row] == above


@pytest.mark.parametrize("measure", ["js_divergence", "kl_divergence"])
def test_pairs_beyond_two_to_the_31(measure):
    n = 46_400
    free, _ = torch.cuda.mem_get_info()
    if free < 36 << 30:
        pytest.skip(f"needs 36 GiB of free memory on the device, there are {free / 2**30:.0f}")
    generator = torch.Generator("cuda").manual_seed(3)
    x, y = (torch.rand(n, 8, device="cuda", generator=generator) for _ in range(2))
    found = fastinfo.pairwise(x, y, measure)
    assert found.numel() > 2**31
    for rows in (slice(3), slice(-3, None)):
        exact = fastinfo.pairwise(x[rows].cpu().numpy(), y[rows].cpu().numpy(), measure)
        np.testing.assert_allclose(found[rows, rows].cpu().numpy(), exact, rtol=4e-5, atol=2e-9)


# --- streams -------------------------------------------------------------------------------------


def calls():
    """Calls by name, each on tensors of its own."""
    generator = torch.Generator("cuda").manual_seed(1)
    x = torch.randn(300, 5000, device="cuda", generator=generator)
    y = torch.randint(5000, (300,), device="cuda", generator=generator)
    p = torch.rand(200, 64, device="cuda", generator=generator)
    q = torch.rand(300, 64, device="cuda", generator=generator)
    hidden = torch.randn(300, 64, device="cuda", generator=generator).bfloat16()
    weight = torch.randn(5000, 64, device="cuda", generator=generator).bfloat16()

    def linear():
        loss, found = fastinfo.linear_cross_entropy(hidden, weight, y, return_grad=True)
        return loss, found.hidden, found.weight

    return {
        "softmax_cross_entropy": lambda: fastinfo.softmax_cross_entropy(x, y, return_grad=True),
        "softmax_statistics": lambda: tuple(fastinfo.softmax_statistics(x, y)),
        "pairwise": lambda: (fastinfo.pairwise(p, q),),
        "pairwise, a product": lambda: (fastinfo.pairwise(p, q, "kl_divergence"),),
        "nearest": lambda: tuple(fastinfo.nearest(p, q, 5)),
        "linear_cross_entropy": linear,
        "softmax_js_divergence": lambda: fastinfo.softmax_js_divergence(
            x, x.flip(0), return_grad=True
        ),
        "binary_cross_entropy": lambda: fastinfo.binary_cross_entropy(p, p, return_grad=True),
        "entropy": lambda: (fastinfo.entropy(p),),
    }


NAMES = (
    "softmax_cross_entropy",
    "softmax_statistics",
    "linear_cross_entropy",
    "softmax_js_divergence",
    "binary_cross_entropy",
    "entropy",
    "pairwise",
    "pairwise, a product",
    "nearest",
)


def busy():
    """Keep the current stream busy for about half a second."""
    torch.cuda._sleep(10**9)


def test_names_are_those_of_the_calls():
    assert set(NAMES) == set(calls())


def test_a_call_waits_for_the_work_of_its_own_stream():
    """Logits that are written late on a stream: on any other a call would read what was there."""
    late = torch.randn(64, 3000, device="cuda")
    y = torch.zeros(64, dtype=torch.int64, device="cuda")
    expected = fastinfo.softmax_cross_entropy(late, y, return_grad=True)
    x = torch.zeros_like(late)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        busy()
        x.copy_(late)
        found = fastinfo.softmax_cross_entropy(x, y, return_grad=True)
    stream.synchronize()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_checks_wait_for_the_work_of_their_own_stream():
    x, late = torch.ones(4, 9, device="cuda"), -torch.ones(4, 9, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()), fastinfo.config(check=True):
        busy()
        x.copy_(late)
        with pytest.raises(ValueError, match="x must be at least 0"):
            fastinfo.pairwise(x)


@pytest.mark.parametrize("name", NAMES)
def test_results_on_another_stream_are_the_same(name):
    call = calls()[name]
    expected = call()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = call()
    stream.synchronize()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", NAMES)
def test_no_call_waits(name):
    """Neither in torch, which tells, nor elsewhere: the stream is still busy after it."""
    call = calls()[name]
    call()
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    busy()
    done.record()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
        waited = done.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert not waited


# --- other libraries, two devices ----------------------------------------------------------------


def by_processor(x, y):
    loss, gradient = fastinfo.softmax_cross_entropy(x, y, return_grad=True)
    return float(loss), gradient


def test_cupy_in_cupy_out(rng):
    cupy = pytest.importorskip("cupy")
    x, y = rng.standard_normal((40, 900)).astype(np.float32), rng.integers(0, 900, 40)
    loss, gradient = fastinfo.softmax_cross_entropy(
        cupy.asarray(x), cupy.asarray(y), return_grad=True
    )
    assert type(loss) is type(gradient) is cupy.ndarray
    expected = by_processor(x, y)
    assert float(loss) == pytest.approx(expected[0], rel=4e-5)
    np.testing.assert_allclose(cupy.asnumpy(gradient), expected[1], rtol=4e-5, atol=1e-9)
    p = rng.random((30, 20), np.float32)
    for measure in ("js_divergence", "kl_divergence"):
        found = fastinfo.pairwise(cupy.asarray(p), measure=measure)
        exact = fastinfo.pairwise(p, measure=measure)
        np.testing.assert_allclose(cupy.asnumpy(found), exact, rtol=4e-5, atol=1e-9)


def test_cupy_calls_run_on_its_current_stream():
    cupy = pytest.importorskip("cupy")
    late, y = cupy.random.standard_normal((64, 3000), np.float32), cupy.zeros(64, np.int64)
    expected = fastinfo.softmax_cross_entropy(late, y, return_grad=True)
    x, stream = cupy.zeros_like(late), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream, torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr)):
        busy()
        cupy.copyto(x, late)
        found = fastinfo.softmax_cross_entropy(x, y, return_grad=True)
    stream.synchronize()
    for one, other in zip(found, expected, strict=True):
        assert bool((one == other).all())


def test_numba_in_numba_out(rng):
    from numba import cuda

    x, y = rng.standard_normal((40, 900)).astype(np.float32), rng.integers(0, 900, 40)
    loss, gradient = fastinfo.softmax_cross_entropy(
        cuda.to_device(x), cuda.to_device(y), return_grad=True
    )
    assert hasattr(loss, "copy_to_host") and hasattr(gradient, "copy_to_host")
    expected = by_processor(x, y)
    assert float(loss.copy_to_host()) == pytest.approx(expected[0], rel=4e-5)
    np.testing.assert_allclose(gradient.copy_to_host(), expected[1], rtol=4e-5, atol=1e-9)
    p = rng.random((30, 20), np.float32)
    found = fastinfo.pairwise(cuda.to_device(p)).copy_to_host()
    np.testing.assert_allclose(found, fastinfo.pairwise(p), rtol=4e-5, atol=1e-9)


def test_numba_arrays_are_computed_on_the_stream_they_are_bound_to(rng):
    from numba import cuda

    late = cuda.to_device(rng.standard_normal((64, 3000)).astype(np.float32))
    y = cuda.to_device(np.zeros(64, np.int64))
    expected = fastinfo.softmax_cross_entropy(late, y, return_grad=True)
    x = cuda.to_device(np.zeros((64, 3000), np.float32))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    bound = cuda.external_stream(stream.cuda_stream)
    with torch.cuda.stream(stream):
        busy()
    x.copy_to_device(late, stream=bound)
    found = fastinfo.softmax_cross_entropy(x.bind(bound), y.bind(bound), return_grad=True)
    stream.synchronize()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.copy_to_host(), other.copy_to_host())


def test_views_through_dlpack_are_the_same_memory():
    cupy = pytest.importorskip("cupy")
    x = torch.randn(40, 900, device="cuda")
    out = torch.empty_like(x)
    y = cupy.zeros(40, np.int64)
    view, target = cupy.from_dlpack(x), cupy.from_dlpack(out)
    _, gradient = fastinfo.softmax_cross_entropy(view, y, return_grad=True, out=target)
    expected = fastinfo.softmax_cross_entropy(x, torch.from_dlpack(y), return_grad=True)[1]
    assert gradient.data.ptr == out.data_ptr()
    torch.cuda.synchronize()
    assert torch.equal(out, expected)


def test_jax_in_jax_out(rng, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    import jax

    if jax.default_backend() != "gpu":
        pytest.skip("jax has no device")
    x, y = rng.standard_normal((40, 900)).astype(np.float32), rng.integers(0, 900, 40)
    loss, gradient = fastinfo.softmax_cross_entropy(
        jax.numpy.asarray(x), jax.numpy.asarray(y), return_grad=True
    )
    assert isinstance(loss, jax.Array) and isinstance(gradient, jax.Array)
    expected = by_processor(x, y)
    assert float(loss) == pytest.approx(expected[0], rel=4e-5)
    np.testing.assert_allclose(np.asarray(gradient), expected[1], rtol=4e-5, atol=1e-9)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two devices")
def test_arrays_on_two_devices_are_named():
    x, y = torch.rand(4, 8, device="cuda:0"), torch.zeros(4, dtype=torch.int64, device="cuda:1")
    with pytest.raises(ValueError, match=r"logits on cuda:0, targets on cuda:1"):
        fastinfo.softmax_cross_entropy(x, y)
    with pytest.raises(ValueError, match=r"x on cuda:0, y on cuda:1"):
        fastinfo.pairwise(x, x.to("cuda:1"))
    with pytest.raises(ValueError, match=r"out must be on cuda:0"):
        fastinfo.pairwise(x, out=torch.empty(4, 4, device="cuda:1"))
