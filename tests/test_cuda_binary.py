"""Binary losses on a device against the same functions on the processor."""

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

KINDS = {
    "logits": fastinfo.binary_cross_entropy_with_logits,
    "probabilities": fastinfo.binary_cross_entropy,
}
kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def drawn(rng, kind, shape, dtype):
    x = 5 * rng.normal(size=shape) if kind == "logits" else rng.random(shape)
    return x.astype(DTYPES[dtype]), rng.random(shape).astype(DTYPES[dtype])


# Derivatives are differences of two terms, each right to its last digits.
SCALE = 1e2


def agree(kind, dtype, x, y, **given):
    """Assert that both sides agree in all that is asked for, arrays among the options too."""
    on = {k: on_device(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
    for reduction in ("mean", "sum", "none"):
        options = {"reduction": reduction, "return_grad": True}
        expected = KINDS[kind](x, y, **given, **options)
        same(KINDS[kind](on_device(x), on_device(y), **on, **options), expected, dtype, SCALE)


@kinds
@dtypes
@pytest.mark.parametrize("n", [1, 7, 33, 260])
def test_elements(rng, kind, dtype, n):
    agree(kind, dtype, *drawn(rng, kind, (n,), dtype))


@kinds
@dtypes
def test_hard_values(kind, dtype):
    """Certainty right and wrong, digits far out, NaN."""
    x = np.array([0, 1, -1, 20, -20, 90, -90, np.inf, -np.inf, np.inf, -np.inf, np.nan, 0.1])
    if kind == "probabilities":
        x = np.array([0, 1, 0, 1, 0.5, 6e-5, 0.9995, 0.25, 0.75, 0.1, 0.9, np.nan, 0.3])
    y = np.array([0, 1, 1, 0, 0.25, 0.5, 1, 0, 1, 1, 0, 0.5, 1])
    agree(kind, dtype, *(v.astype(DTYPES[dtype]) for v in (x, y)))


@kinds
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights(rng, kind, dtype):
    x, y = drawn(rng, kind, (4, 30), dtype)
    x[2] = np.nan
    y[y < 0.2] = 0
    by_row, by_class = np.array([1.0, 0.5, 0.0, 3.0])[:, None], rng.random(30)
    for given in (
        {"pos_weight": 3.0, "sample_weight": 2.5}, {"sample_weight": by_row},
        {"pos_weight": by_class, "sample_weight": by_row.astype(np.float32)},
        {"pos_weight": np.arange(30), "sample_weight": by_row * rng.random((4, 30))},
        {"pos_weight": 0.0}, {"sample_weight": 0.0},
    ):  # fmt: skip
        agree(kind, dtype, x, y, **given)


@kinds
@pytest.mark.parametrize("y_dtype", [bool, np.int64, np.uint8, np.float64, np.float16])
def test_targets_of_any_dtype(rng, kind, y_dtype):
    x, _ = drawn(rng, kind, (3, 50), "float32")
    agree(kind, "float32", x, (rng.random((3, 50)) < 0.5).astype(y_dtype))


@kinds
@dtypes
def test_layouts(rng, kind, dtype):
    x, y = drawn(rng, kind, (6, 5, 40), dtype)
    device, targets = on_device(x), on_device(y)
    for part, other in (
        (np.s_[:, :, 3:37], np.s_[:, :, 1:35]), (np.s_[::2, ::-1], np.s_[::2]),
        (np.s_[:, 1:4, ::3], np.s_[:, 1:4, 26:]), (np.s_[:0,], np.s_[:0]),
    ):  # fmt: skip
        if not possible(part):
            continue
        for reduction in ("mean", "none"):
            given = {"reduction": reduction, "return_grad": True}
            found = KINDS[kind](device[part], targets[other], **given)
            same(found, KINDS[kind](x[part], y[other], **given), dtype, SCALE)


@kinds
def test_into_buffers(rng, kind):
    x, y = drawn(rng, kind, (3, 41), "float32")
    given = {"return_grad": True, "sample_weight": 2.0}
    expected = KINDS[kind](x, y, **given)
    device, targets, buffer = on_device(x), on_device(y), on_device(np.zeros((3, 60), np.float32))
    out = buffer[:, 7:48]
    _, grad = KINDS[kind](device, targets, **given, out=out)
    assert grad is out
    same(buffer, np.pad(expected[1], ((0, 0), (7, 12))), "float32")
    KINDS[kind](device, targets, **given, out=device)
    same(device, expected[1], "float32")
    with pytest.raises(ValueError, match="out must not overlap the memory of y"):
        KINDS[kind](device, targets, **given, out=targets)


@kinds
def test_what_is_outside(rng, kind):
    x, y = drawn(rng, kind, (30,), "float32")
    y[3], y[4] = 1.5, -0.1
    losses, grad = KINDS[kind](on_device(x), on_device(y), reduction="none", return_grad=True)
    assert np.flatnonzero(np.isnan(host(losses))).tolist() == [3, 4]
    assert np.flatnonzero(np.isnan(host(grad))).tolist() == [3, 4]
    with fastinfo.config(check=True), pytest.raises(ValueError, match=r"y must be in \[0, 1\].*3"):
        KINDS[kind](on_device(x), on_device(y))
    weights = np.array([1.0] * 28 + [-1.0, np.inf])
    y = y.clip(0, 1)
    for name in ("pos_weight", "sample_weight"):
        given = {name: on_device(weights), "reduction": "none"}
        losses = host(KINDS[kind](on_device(x), on_device(y), **given))
        assert np.flatnonzero(np.isnan(losses)).tolist() == [28, 29]
        with fastinfo.config(check=True), pytest.raises(ValueError, match=f"{name} must be finite"):
            KINDS[kind](on_device(x), on_device(y), **given)


def test_wrong_arguments():
    x, y = on_device(np.zeros((2, 3), np.float32)), on_device(np.ones((2, 3), np.float32))
    loss = fastinfo.binary_cross_entropy_with_logits
    with pytest.raises(ValueError, match=r"logits on cuda:0, y on cpu"):
        loss(x, np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"sample_weight on cpu"):
        loss(x, y, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match=r"pos_weight must broadcast"):
        loss(x, y, pos_weight=on_device(np.ones(2)))
    with pytest.raises(ValueError, match="pos_weight must be finite in float32"):
        loss(x, y, pos_weight=-1.0)
    with pytest.raises(TypeError, match=r"logits must hold floats on a CUDA device.*int64"):
        loss(on_device([1, 2]), on_device([1, 0]))
