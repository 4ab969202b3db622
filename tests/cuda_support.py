"""Arrays on a device for tests: Numba's simulator, or PyTorch on a real one; else a skip."""

import importlib.util
import os
import sys

import ml_dtypes
import numpy as np
import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def why_not():
    """Why CUDA tests cannot run here, None if they can."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed"
    if SIMULATED:
        return None
    if importlib.util.find_spec("torch") is None:
        return "no simulator (NUMBA_ENABLE_CUDASIM=1), and no torch to make arrays on a device"
    import torch

    return None if torch.cuda.is_available() else "no device, and no NUMBA_ENABLE_CUDASIM=1"


def skip_without_device():
    """Skip the whole module where there is nothing to run on."""
    if reason := why_not():
        pytest.skip(reason, allow_module_level=True)


def on_device(x):
    """Return a copy of an array on the device."""
    x = np.asarray(x)
    if SIMULATED:
        from numba import cuda

        return cuda.to_device(x)
    import torch

    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16).copy()).cuda().view(torch.bfloat16)
    return torch.from_numpy(np.array(x)).cuda()


def possible(*parts):
    """Return those parts of an array that are views on the device: tensors take no step back."""
    if SIMULATED:
        return parts
    return [part for part in parts if all(s.step is None or s.step > 0 for s in part)]


def is_on_device(x):
    """Whether a result is an array on the device."""
    return hasattr(x, "copy_to_host") if SIMULATED else bool(getattr(x, "is_cuda", False))


def host(x):
    """Return a result as a NumPy array."""
    if SIMULATED:
        return x.copy_to_host() if hasattr(x, "copy_to_host") else np.asarray(x)
    if str(x.dtype) == "torch.bfloat16":
        import ml_dtypes
        import torch

        return x.view(torch.int16).cpu().numpy().view(ml_dtypes.bfloat16)
    return x.cpu().numpy()


@pytest.fixture(autouse=True)
def switch_often():
    """The simulator's threads wait for each other: ten times sooner than every 5 ms."""
    before = sys.getswitchinterval()
    if SIMULATED:
        sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
# Largest differences from the processor's results, relative and absolute: twice what is promised of
# each for float32; the last bit of a 16-bit gradient.
LIMITS = {
    "float64": (2e-12, 2e-15),
    "float32": (4e-5, 2e-9),
    "float16": (1e-3, 1e-7),
    "bfloat16": (8e-3, 1e-9),
}


def same(device, expected, dtype=None, scale=1.0, limits=None):
    """Assert that results agree, kinds and shapes too; `dtype` tells of what is no float."""
    limits = limits or LIMITS
    if isinstance(expected, tuple):
        assert type(device) is type(expected)
        for one, other in zip(device, expected, strict=True):
            same(one, other, dtype, scale, limits)
        return
    if expected is None:
        assert device is None
        return
    expected = np.asarray(expected)
    assert is_on_device(device)
    found = host(device)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if expected.dtype == np.int64:
        np.testing.assert_array_equal(found, expected)
        return
    rtol, atol = limits[expected.dtype.name if expected.dtype.name in limits else dtype]
    np.testing.assert_allclose(
        found.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=atol * scale
    )
