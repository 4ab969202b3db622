"""The hot loops are vector code: a scalar one is 10 times slower and gives the same numbers."""

import json
import os
import platform
import re
import subprocess
import sys

import pytest
from llvmlite import binding

from fastinfo.cpu.simd import AVX2

# AVX2 reads one vector of half the length at a time instead of four.
SHORTER = 2 if AVX2 else 1
# Compiled in a process of its own without the cache: what comes from the cache has no assembly.
PROGRAM = """
import json
import ml_dtypes
import numpy as np
import fastinfo
from benchmarks.cpu_code import assembly

rng = np.random.default_rng(0)
x = rng.standard_normal((4, 3000))

def calls():
    for dtype in (np.float32, np.float64, np.float16):
        fastinfo.softmax_cross_entropy(x.astype(dtype), [0, 1, 2, 3], return_grad=True)
    for dtype in (np.float32, np.float64, ml_dtypes.bfloat16):
        fastinfo.softmax_cross_entropy(x.astype(dtype), [0, 1, 2, 3])
        fastinfo.binary_cross_entropy_with_logits(x.astype(dtype), x > 0, return_grad=True)
    p = np.abs(x)
    fastinfo.binary_cross_entropy(p / p.max(), x > 0, return_grad=True)
    fastinfo.pairwise(p, measure="kl_divergence")
    near = 1.0 + 0.01 * p
    fastinfo.pairwise(near.astype(np.float32), near[::-1].astype(np.float32))
    for name in ("js_divergence", "total_variation"):
        for dtype in (np.float32, np.float64):
            fastinfo.pairwise(p.astype(dtype), p[::-1].astype(dtype), name)
    fastinfo.mutual_information_matrix(rng.integers(0, 5, (300, 4)))

print(json.dumps(assembly(calls)))
"""


@pytest.fixture(scope="module")
def assembly():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
        env={**os.environ, "FASTINFO_CACHE": "0"},
    )  # fmt: skip
    return json.loads(result.stdout)


def packed(text: str, real: str) -> int:
    """Count packed multiply-adds of a float type."""
    suffix = {"float32": "ps", "float64": "pd"}[real]
    if platform.machine() in ("x86_64", "AMD64"):
        return sum(
            line.split()[0].endswith(suffix) and "fmadd" in line
            for line in text.splitlines()
            if line.strip()
        )
    lanes = {"float32": ".4s", "float64": ".2d"}[real]
    return sum("fmla" in line and lanes in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("kernel", "real", "at_least"),
    [
        ("gradient_kernels-losses_and_gradients-float32", "float32", 10),
        ("gradient_kernels-losses_and_gradients-float64", "float64", 20),
        ("gradient_kernels-losses_and_gradients-float16", "float32", 10),
        ("row_kernels-losses-float32", "float32", 20 // SHORTER),
        ("row_kernels-losses-float64", "float64", 40 // SHORTER),
        ("row_kernels-losses-bfloat16", "float32", 20 // SHORTER),
        ("binary_kernels-losses-logits-float32", "float32", 15),
        ("binary_kernels-losses-logits-float64", "float64", 20),
        ("binary_kernels-losses-probabilities-float64", "float64", 15),
        ("pair_kernels-factors-weighted_log_of", "float64", 5),
        ("pair_kernels-tiles-js_tile_term", "float32", 7),
        ("pair_kernels-tiles-js_tile_term", "float64", 6),
        ("pair_kernels-tiles-js_centred_tile_term", "float32", 7),
        ("contingency_kernels-by_sets", "float64", 6),
    ],
)
def test_multiply_adds_are_packed(assembly, kernel, real, at_least):
    found = [text for name, text in assembly.items() if name.startswith(f"cpu.{kernel}")]
    assert found
    assert max(packed(text, real) for text in found) >= at_least


def test_no_exponential_is_a_call(assembly):
    for name, text in assembly.items():
        assert "expf" not in text and "logf" not in text, name
        assert "exp2f" not in text and "tanhf" not in text, name


def hot_loop(text: str) -> list[str]:
    """Return the instructions from the first prefetch to the jump back before it."""
    lines = [line.strip() for line in text.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("prefetcht0"))
    label = next(lines[i] for i in range(first, 0, -1) if lines[i].endswith(":"))
    last = next(
        i for i in range(first, len(lines)) if re.fullmatch(rf"j\w+\s+{label[:-1]}", lines[i])
    )
    return lines[first:last]


# With fewer or shorter registers some constants must come from memory: there is nothing to assert.
@pytest.mark.skipif(
    not binding.get_host_cpu_features().get("avx512f"), reason="the processor has no AVX-512"
)
@pytest.mark.parametrize("storage", ["float32", "float64", "bfloat16"])
def test_the_loop_over_logits_keeps_its_constants_in_registers(assembly, storage):
    kernel = next(
        t for n, t in assembly.items() if n.startswith(f"cpu.row_kernels-losses-{storage}")
    )
    loop = hot_loop(kernel)
    assert sum("fmadd" in line and "zmm" in line for line in loop) >= 20
    assert not any("vbroadcast" in line or "{1to" in line or "%rsp" in line for line in loop)
    lines_read = 2 if storage == "bfloat16" else 4  # four vectors, of 16 bits two to a line
    assert sum(line.startswith("prefetcht0") for line in loop) >= lines_read


@pytest.mark.skipif(
    not binding.get_host_cpu_features().get("avx512vpopcntdq"), reason="no such instruction"
)
def test_bits_in_common_are_counted_by_vectors(assembly):
    (kernel,) = (
        text
        for name, text in assembly.items()
        if name.startswith("cpu.contingency_kernels-by_sets")
    )
    assert sum("vpopcntq" in line and "zmm" in line for line in kernel.splitlines()) >= 8
