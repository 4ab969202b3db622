"""Calls on a CUDA device as cases, beside what they are measured against, by section."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastinfo
from benchmarks import cuda_ceilings as ceilings
from benchmarks import reference
from fastinfo.bench import Case

# Elements that are compared in float64 at a time, and the pairs that are.
PIECE = 1 << 24
PAIRS = 64, 256

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Where the arrays are made; with `shrink` above 1 lengths are divided by it (for tests)."""

    device: str = "cuda"
    shrink: int = 1

    def shape(self, *lengths: int) -> Shape:
        """Return a shape, as small as the plan has it."""
        return tuple(max(n // self.shrink, min(n, 8)) for n in lengths)

    def rows(self, dtype: str) -> Shape:
        """Rows and classes of 2 GiB of logits."""
        return self.shape(8192 if dtype == "bfloat16" else 4096, 131072)

    @property
    def js(self) -> Shape:
        """Rows of x, rows of y and bins of JS."""
        return self.shape(8192, 8192, 256)

    @property
    def kl(self) -> Shape:
        """Rows of x, rows of y and bins of KL."""
        return self.shape(8192, 8192, 1024)

    @property
    def head(self) -> Shape:
        """Rows, features and classes of linear cross-entropy."""
        return self.shape(8192, 4096, 131072)


# --- data ----------------------------------------------------------------------------------------


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def n_bytes(shape: Shape, dtype: str) -> int:
    """Return the bytes of a tensor."""
    return int(np.prod(shape, dtype=np.int64)) * _dtype(dtype).itemsize


@functools.cache
def normal(plan: Plan, shape: Shape, dtype: str, scale: float, seed: int = 1) -> Any:
    """Return normal numbers of some standard deviation."""
    import torch

    generator = torch.Generator(plan.device).manual_seed(seed)
    x = torch.randn(shape, dtype=_dtype(dtype), device=plan.device, generator=generator)
    return x.mul_(scale)


@functools.cache
def distributions(plan: Plan, shape: Shape, seed: int) -> Any:
    """Return float32 rows of Dirichlet(1)."""
    import torch

    generator = torch.Generator(plan.device).manual_seed(seed)
    x = torch.empty(shape, device=plan.device).exponential_(generator=generator)
    return x.div_(x.sum(1, keepdim=True))


@functools.cache
def targets(plan: Plan, rows: int, classes: int) -> Any:
    """Return one class a row."""
    import torch

    generator = torch.Generator(plan.device).manual_seed(2)
    return torch.randint(classes, (rows,), device=plan.device, generator=generator)


@functools.cache
def buffer(plan: Plan, shape: Shape, dtype: str, use: str = "") -> Any:
    """Return memory to write to; `use` tells two of a shape apart."""
    import torch

    return torch.zeros(shape, dtype=_dtype(dtype), device=plan.device)


def logits(plan: Plan, dtype: str) -> Any:
    """Return logits of a standard deviation of 3, as a language model's."""
    return normal(plan, plan.rows(dtype), dtype, 3.0)


@functools.cache
def overwritten(plan: Plan, dtype: str) -> Any:
    """Return a copy of the logits for who writes over them."""
    return logits(plan, dtype).clone()


def forget() -> None:
    """Let go of all data made so far."""
    for made in (normal, distributions, targets, buffer, overwritten):
        made.cache_clear()


# --- errors --------------------------------------------------------------------------------------


def _pieces(shape: Shape) -> Iterator[slice]:
    step = max(1, PIECE // shape[1])
    yield from (slice(lo, lo + step) for lo in range(0, shape[0], step))


def _losses_of(rows: Any, y: Any) -> Any:
    return rows.logsumexp(1) - rows.gather(1, y[:, None])[:, 0]


def loss_error(losses: Any, x: Any, y: Any) -> float:
    """Return the largest error of the losses of rows, relative to their value or to a floor."""
    worst = 0.0
    for part in _pieces(x.shape):
        exact = _losses_of(x[part].double(), y[part])
        error = (losses[part].double() - exact).abs() / exact.abs().clamp_min(5e-5)
        worst = max(worst, float(error.max()))
    return worst


def mean_error(loss: Any, x: Any, y: Any) -> float:
    """Return the relative error of the mean loss of rows."""
    total = sum(float(_losses_of(x[part].double(), y[part]).sum()) for part in _pieces(x.shape))
    return abs(float(loss) * len(x) / total - 1)


def gradient_error(gradient: Any, x: Any, y: Any) -> float:
    """Return the largest error of a mean's gradient, relative to its terms, softmax and one."""
    worst = 0.0
    for part in _pieces(x.shape):
        softmax = x[part].double().softmax(1)
        one = softmax.new_zeros(softmax.shape).scatter_(1, y[part, None], 1.0)
        error = (gradient[part].double() * len(x) - (softmax - one)).abs() / (softmax + one)
        worst = max(worst, float(error.max()))
    return worst


def pairs_error(matrix: Any, measure: str, x: Any, y: Any) -> float:
    """Return the largest relative error of some pairs."""
    p, q = (z[:n].double().cpu().numpy() for z, n in zip((x, y), PAIRS, strict=True))
    p, q = (z / z.sum(1, keepdims=True) for z in (p, q))
    exact = np.stack([reference.MEASURES[measure](row, q) for row in p[: len(matrix)]])
    return reference.relative_error(matrix[: len(exact), : exact.shape[1]].cpu().numpy(), exact)


def head_loss_error(loss: Any, plan: Plan) -> float:
    """Return the relative error of the mean loss of all rows."""
    h, w, y = head(plan)
    w, total = w.double(), 0.0
    for part in _pieces((len(h), len(w))):
        total += float(_losses_of(h[part].double() @ w.T, y[part]).sum())
    return abs(float(loss) * len(h) / total - 1)


def head_errors(gradients: Any, plan: Plan) -> float:
    """Return the error of some rows of a gradient by hidden states, relative to its largest."""
    h, w, y = head(plan)
    rows, w = min(16, len(h)), w.double()
    softmax = (h[:rows].double() @ w.T).softmax(1)
    exact = softmax.scatter_add_(1, y[:rows, None], -softmax.new_ones(rows, 1)) @ w / len(h)
    return float((gradients[:rows].double() - exact).abs().max() / exact.abs().max())


# --- sections ------------------------------------------------------------------------------------


def machine(plan: Plan) -> Iterator[Case]:
    """All ceilings, on 2 GiB."""
    for dtype in ("bfloat16", "float32"):
        yield from _memory(plan, dtype)
        yield _product(plan, dtype)
    yield ceilings.logs()


def _memory(plan: Plan, dtype: str) -> Iterator[Case]:
    shape = plan.rows(dtype)
    size, x = n_bytes(shape, dtype), functools.partial(logits, plan, dtype)
    yield from ceilings.reads(x, size, dtype)
    yield ceilings.copy(x, lambda: buffer(plan, shape, dtype), size, dtype)


def _product(plan: Plan, dtype: str) -> Case:
    import torch

    n, m, k = plan.kl

    def call() -> None:
        x, y = normal(plan, (n, k), dtype, 1.0, 3), normal(plan, (m, k), dtype, 1.0, 4)
        torch.mm(x, y.T, out=buffer(plan, (n, m), dtype, "product"))

    what = "float32 without TF32" if dtype == "float32" else dtype
    return Case(f"torch.mm, {what}", call, work=n * m * k, unit="bin", group="product")


def loss(plan: Plan, dtype: str) -> Iterator[Case]:
    """Losses of rows, and their gradients."""
    shape = plan.rows(dtype)
    size = n_bytes(shape, dtype)

    def data() -> tuple[Any, Any]:
        return logits(plan, dtype), targets(plan, *shape)

    def rows() -> Any:
        return fastinfo.softmax_cross_entropy(*data(), reduction="none")

    def both() -> Any:
        out = buffer(plan, shape, dtype)
        return fastinfo.softmax_cross_entropy(*data(), return_grad=True, out=out)

    yield from _memory(plan, dtype)
    yield Case(
        f"loss, {dtype}", lambda: fastinfo.softmax_cross_entropy(*data()), work=size,
        ceiling="read", error=lambda _: loss_error(rows(), *data()),
    )  # fmt: skip
    yield Case(
        f"loss + gradient, {dtype}", both, work=2 * size, ceiling="copy",
        error=lambda found: gradient_error(found[1], *data()), note="error of the gradient",
    )  # fmt: skip
    yield Case(
        f"softmax_statistics, {dtype}", lambda: fastinfo.softmax_statistics(*data()), work=size,
        ceiling="read",
    )  # fmt: skip


def _pairs(plan: Plan, measure: str, shape: Shape, ceiling: str) -> Case:
    n, m, k = shape

    def data() -> tuple[Any, Any]:
        return distributions(plan, (n, k), 1), distributions(plan, (m, k), 2)

    def call() -> Any:
        return fastinfo.pairwise(*data(), measure, out=buffer(plan, (n, m), "float32"))

    return Case(
        f"{measure}, float32", call, work=n * m * k, unit="bin", ceiling=ceiling,
        error=lambda found: pairs_error(found, measure, *data()),
    )  # fmt: skip


def js(plan: Plan) -> Iterator[Case]:
    """JS, a logarithm a bin."""
    yield ceilings.logs()
    yield _pairs(plan, "js_divergence", plan.js, "log2")


def kl(plan: Plan) -> Iterator[Case]:
    """KL, a matrix product."""
    yield _product(plan, "float32")
    yield _pairs(plan, "kl_divergence", plan.kl, "product")


def head(plan: Plan) -> tuple[Any, Any, Any]:
    """Hidden states, a classifier whose logits have a standard deviation of 3, and classes."""
    m, d, v = plan.head
    h = normal(plan, (m, d), "bfloat16", 1.0, 5)
    return h, normal(plan, (v, d), "bfloat16", 3 * d**-0.5, 6), targets(plan, m, v)


def linear(plan: Plan) -> Iterator[Case]:
    """Linear cross-entropy with gradients, beside its three products."""
    import torch

    m, d, v = plan.head

    def gradients() -> tuple[Any, Any]:
        return tuple(buffer(plan, (n, d), "bfloat16", f"by {n}") for n in (m, v))  # type: ignore[return-value]

    def products() -> None:
        (h, w, _), z = head(plan), buffer(plan, (m, v), "bfloat16")
        by_hidden, by_weight = gradients()
        torch.mm(h, w.T, out=z)
        torch.mm(z, w, out=by_hidden)
        torch.mm(z.T, h, out=by_weight)

    def call() -> Any:
        return fastinfo.linear_cross_entropy(
            *head(plan), return_grad=True, out=(*gradients(), None)
        )

    work = 6 * m * d * v
    yield Case("three products, bfloat16", products, work=work, unit="flop", group="product")
    yield Case(
        "linear_cross_entropy + gradients, bfloat16", call, work=work, unit="flop",
        ceiling="product", error=lambda found: head_errors(found[1].hidden, plan),
        note="error of that by hidden",
    )  # fmt: skip
    yield Case(
        "linear_cross_entropy, bfloat16", lambda: fastinfo.linear_cross_entropy(*head(plan)),
        work=work // 3, unit="flop", ceiling="product",
        error=lambda found: head_loss_error(found, plan),
    )  # fmt: skip


SECTIONS: dict[str, Callable[[Plan], Iterator[Case]]] = {
    "ceilings": machine,
    "bfloat16": functools.partial(loss, dtype="bfloat16"),
    "float32": functools.partial(loss, dtype="float32"),
    "js": js,
    "kl": kl,
    "linear": linear,
}


def small_calls(plan: Plan) -> dict[str, Callable[[], Any]]:
    """Calls whose kernels take no time."""
    x, y = normal(plan, (8, 1000), "float32", 3.0), targets(plan, 8, 1000)
    p = distributions(plan, (16, 64), 1)
    return {
        "loss of 8 x 1000": lambda: fastinfo.softmax_cross_entropy(x, y),
        "loss + gradient of 8 x 1000": lambda: fastinfo.softmax_cross_entropy(
            x, y, return_grad=True
        ),
        "js_divergence of 16 x 16 x 64": lambda: fastinfo.pairwise(p),
    }
