"""Kernels of the ceilings of a device: that they read all, compute, and are what they must be."""

import numpy as np
import pytest
from cuda_support import DTYPES, host, on_device, why_not

from benchmarks import cuda_code

runs = pytest.mark.skipif(bool(why_not()), reason=str(why_not()))
compiles = pytest.mark.skipif(bool(cuda_code.missing()), reason=str(cuda_code.missing()))
STORAGES = ["float32", "bfloat16"]


@runs
@pytest.mark.gpu
@pytest.mark.parametrize("storage", STORAGES)
def test_sums_read_everything(storage):
    from benchmarks.cuda_ceilings import THREADS, sums
    from fastinfo.arrays import read
    from fastinfo.cuda import seam

    x = on_device((np.arange(1003) % 5).astype(DTYPES[storage]))
    out = on_device(np.zeros(2 * THREADS, np.float32))
    source, target = read("x", x).data, read("out", out).data
    seam.launch(sums(storage), 2, THREADS, source.stream, source.flat, target.flat)
    assert host(out).sum() == (np.arange(1003) % 5).sum()


@runs
@pytest.mark.gpu
def test_chains_of_logarithms_stay_finite():
    from benchmarks.cuda_ceilings import CHAINS, THREADS, logarithms
    from fastinfo.arrays import read
    from fastinfo.cuda import seam

    out = on_device(np.zeros(THREADS, np.float32))
    target = read("out", out).data
    seam.launch(logarithms(), 1, THREADS, target.stream, 40, target.flat)
    fixed = 5.444908
    np.testing.assert_allclose(host(out), CHAINS * fixed, rtol=1e-5)


@compiles
def test_machine_code():
    """Loads of 16 bytes, four in flight; a logarithm a link of a chain, nothing in memory."""
    from numba.cuda import types as t

    from benchmarks.cuda_ceilings import CHAINS, logarithms, sums

    values = t.Array(t.float32, 1, "C")
    for memory, storage in ((t.float32, "float32"), (t.uint16, "bfloat16")):
        code = cuda_code.compiled(sums(storage), (t.Array(memory, 1, "C"), values))
        assert (code.local, code.spills, code.doubles) == ([], 0, [])
        assert code.main_loop_loads() == {128: 4}
    code = cuda_code.compiled(logarithms(), (t.int64, values))
    assert (code.local, code.spills, code.doubles) == ([], 0, [])
    assert set(code.mufu) == {"LG2"} and code.mufu["LG2"] % CHAINS == 0
