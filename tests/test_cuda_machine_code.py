"""CUDA kernels compiled on a machine without a device: what must not be there, and what must."""

from collections import Counter

import pytest

from benchmarks import cuda_code

if cuda_code.missing():
    pytest.skip(cuda_code.missing(), allow_module_level=True)

from benchmarks.cuda_kernels import (
    ARCHITECTURES,
    KERNELS,
    logit_pairs,
    neighbors,
    product_factors,
    product_finish,
    settled,
    tiles,
)  # fmt: skip
from fastinfo.catalogue import MEASURES

SEPARABLE = [name for name, row in MEASURES.items() if row.products]


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


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("measure", "which"), [("js_divergence", 0), ("js_divergence", 1), ("total_variation", 0)]
)
def test_tiles_of_pairs(measure, which, arch):
    """One logarithm for each of the 16 pairs of a thread, and nothing but wide loads of bins."""
    code = cuda_code.compiled(*tiles(measure, which, "float32"), arch)
    assert (code.local, code.stack, code.spills, code.doubles) == ([], 0, 0, [])
    loops = code.mufu["LG2"]
    assert loops == 0 if measure == "total_variation" else loops % 16 == 0
    assert code.loads[128] >= 2
    assert code.registers <= 96


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_rows_of_logits_again_in_float64(arch):
    """All of the double arithmetic is in a kernel of its own, short enough to be compiled soon."""
    code = cuda_code.compiled(*logit_pairs("bfloat16", "near"), arch)
    assert (code.local, code.stack, code.spills) == ([], 0, 0)
    assert 0 < len(code.doubles) < 2000


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("measure", SEPARABLE)
def test_products_of_pairs(measure, arch):
    """What is done a pair is in the arithmetic of the result, unless it is computed again."""
    code = cuda_code.compiled(*product_finish(measure, "float32"), arch)
    assert (code.local, code.stack, code.spills, code.doubles) == ([], 0, 0, [])
    given = [settled(measure, "float32")]
    given += [product_factors(measure, "bfloat16", of_y) for of_y in (False, True)]
    for each in given:
        code = cuda_code.compiled(*each, arch)
        assert (code.local, code.stack, code.spills) == ([], 0, 0)
        assert code.doubles


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize("which", ["kept", "sorted", "bounds", "survivors", "choice"])
def test_neighbors(which, storage, arch):
    code = cuda_code.compiled(*neighbors(storage, which), arch)
    assert (code.local, code.stack, code.spills) == ([], 0, 0)
    if storage == "float32" and which != "sorted":  # which reads the rows' divisors
        assert code.doubles == []
