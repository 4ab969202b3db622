"""Extra memory of one call: ``python -m benchmarks.memory NAME ROWS`` prints bytes as JSON.

The peak is the operating system's, so whatever allocates is counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastinfo
from benchmarks import shapes

CLASSES = 65536
RESET_PEAK = Path("/proc/self/clear_refs")

Call = Callable[[np.ndarray, np.ndarray], Any]


def _loss(**options: Any) -> Call:
    return lambda x, y: fastinfo.softmax_cross_entropy(x, y, **options)


def _in_place(x: np.ndarray, y: np.ndarray) -> Any:
    return fastinfo.softmax_cross_entropy(x, y, return_grad=True, out=x)


def _spatial(x: np.ndarray, y: np.ndarray) -> Any:
    """Classes along axis 1, as PyTorch's (N, V, d1)."""
    shape = (len(x) // 4, CLASSES // 16, 64)
    classes = np.resize(y % shape[1], (shape[0], shape[2]))
    return fastinfo.softmax_cross_entropy(x.reshape(shape), classes, axis=1)


def _strided(x: np.ndarray, y: np.ndarray) -> Any:
    return fastinfo.softmax_cross_entropy(x[:, ::2], y // 2)


@dataclass(frozen=True)
class Probe:
    """A call to measure; `gradient` says that one is asked for, which does not count."""

    call: Call
    dtype: str = "float32"
    gradient: bool = False
    probabilities: bool = False


CASES: dict[str, Probe] = {
    "loss, float32": Probe(_loss()),
    "loss + gradient, float32": Probe(_loss(return_grad=True), gradient=True),
    "loss + gradient, float32, in place": Probe(_in_place),
    "loss, bfloat16": Probe(_loss(), "bfloat16"),
    "loss + gradient, bfloat16": Probe(_loss(return_grad=True), "bfloat16", gradient=True),
    "loss, float64": Probe(_loss(), "float64"),
    "loss, int32 logits": Probe(_loss(), "int32"),
    "loss, label smoothing, z-loss, softcap": Probe(
        _loss(label_smoothing=0.1, z_loss=1e-4, softcap=30.0)
    ),
    "loss + gradient, probability targets": Probe(
        _loss(return_grad=True), gradient=True, probabilities=True
    ),
    "loss, axis=1": Probe(_spatial),
    "loss, strided": Probe(_strided),
    "softmax_statistics, float32": Probe(fastinfo.softmax_statistics),
    "softmax_entropy + gradient, float32": Probe(
        lambda x, y: fastinfo.softmax_entropy(x, return_grad=True), gradient=True
    ),
    "softmax_kl_divergence, float32": Probe(
        lambda x, y: fastinfo.softmax_kl_divergence(x, x[::-1])
    ),
    "softmax_js_divergence + gradient, float32": Probe(
        lambda x, y: fastinfo.softmax_js_divergence(x[::-1], x, return_grad=True), gradient=True
    ),
    "logsumexp, float32": Probe(lambda x, y: fastinfo.logsumexp(x)),
}


LINEAR = "linear_cross_entropy + gradients, 8192 x 262144"
NEAREST = "nearest, 2000 x 50000 x 512"
NAMES = (LINEAR, NEAREST, *CASES)


def _resident_after(call: Callable[[], Any], results: int) -> int:
    """Bytes at the peak of a call beyond those before it and its results."""
    RESET_PEAK.write_text("5")
    before = _resident("VmRSS")
    held = call()
    extra = _resident("VmHWM") - before - results
    del held
    return extra


def _linear(rows: int = 8192, features: int = 64, classes: int = 262144) -> dict[str, int]:
    """Logits that never exist: their bytes, and what a call takes beside gradients."""
    rng = np.random.default_rng(0)
    h = rng.standard_normal((rows, features), np.float32)
    w = rng.standard_normal((classes, features), np.float32)
    y = rng.integers(0, classes, rows)

    def call(n: int) -> Any:
        return fastinfo.linear_cross_entropy(h[:n], w, y[:n], return_grad=True)

    call(8)
    extra = _resident_after(lambda: call(rows), h.nbytes + w.nbytes)
    return {"logits": rows * classes * h.itemsize, "extra": extra}


def _nearest(queries: int = 2000, rows: int = 50_000, bins: int = 512) -> dict[str, int]:
    """Ten nearest rows: the bytes of the matrix there would be, and what a call takes."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_gamma(1, (n, bins)).astype(np.float32) for n in (queries, rows))
    fastinfo.nearest(x[:8], y[:100], 10)
    extra = _resident_after(lambda: fastinfo.nearest(x, y, 10), 0)
    return {"logits": queries * rows * x.itemsize, "extra": extra}


def _data(probe: Probe, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.empty((rows, CLASSES), shapes.dtype_of(probe.dtype))
    for row in x:
        row[:] = 8 * rng.random(CLASSES, np.float32)
    if probe.probabilities:
        return x, np.full(x.shape, 1 / CLASSES, np.float32)
    return x, rng.integers(0, CLASSES, rows)


def _resident(field: str) -> int:
    """Bytes of a field of this process's status: VmRSS now, VmHWM at the peak."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(field + ":")[2].split()[0])


def main(name: str, rows: int) -> None:
    """Warm up on a few rows, so that nothing is compiled in the call, then measure."""
    whole = {LINEAR: _linear, NEAREST: _nearest}
    if name in whole:
        print(json.dumps(whole[name]()))
        return
    probe = CASES[name]
    probe.call(*_data(probe, 8))
    x, y = _data(probe, rows)
    extra = _resident_after(lambda: probe.call(x, y), probe.gradient * x.nbytes)
    print(json.dumps({"logits": x.nbytes, "extra": extra}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
