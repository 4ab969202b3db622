"""CUDA kernels compiled on a machine without a device: what must not be there, and what must."""

from collections import Counter

import pytest

from benchmarks import cuda_code

if cuda_code.missing():
    pytest.skip(cuda_code.missing(), allow_module_level=True)

from benchmarks.cuda_kernels import ARCHITECTURES, KERNELS


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.name}-{k.storage}")
def test_kernel(kernel, arch):
    code = kernel.code(arch)
    assert (code.local, code.stack, code.spills) == ([], 0, 0)
    if kernel.storage != "float64":
        assert code.doubles == []
    loads = code.main_loop_loads()
    assert loads[128] >= 1
    if kernel.alone:
        assert loads == Counter({128: loads[128]})
