"""The peers installed on a CUDA device, as cases by section.

- Liger-Kernel writes the gradient over the logits: it has a copy, made before, untimed;
- quack's gradient in one kernel is that of the sum, and no autograd stands before it;
- CuPy and torch.compile, which broadcast for JS, are timed on a few rows, scaled.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.cuda_cases import (
    Plan,
    distributions,
    gradient_error,
    head,
    head_errors,
    logits,
    mean_error,
    n_bytes,
    overwritten,
    pairs_error,
    targets,
)  # fmt: skip
from fastinfo.bench import Case

PEERS = {
    "torch": "torch", "liger_kernel": "Liger-Kernel", "quack": "quack",
    "flash_attn": "flash-attention", "cupy": "CuPy",
}  # fmt: skip
BROADCAST_ROWS = 16


def installed(module: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(module) is not None


# --- losses --------------------------------------------------------------------------------------


def _eager() -> Callable[..., Any]:
    import torch

    return torch.nn.functional.cross_entropy


@functools.cache
def _compiled() -> Callable[..., Any]:
    import torch

    return torch.compile(lambda x, y: torch.nn.functional.cross_entropy(x, y), dynamic=False)


@functools.cache
def _liger() -> Callable[..., Any]:
    from liger_kernel.transformers import LigerCrossEntropyLoss

    return LigerCrossEntropyLoss()


def _quack() -> Callable[..., Any]:
    from quack.cross_entropy import cross_entropy

    return functools.partial(cross_entropy, reduction="mean")


@functools.cache
def _flash() -> Callable[..., Any]:
    from flash_attn.losses.cross_entropy import CrossEntropyLoss

    return CrossEntropyLoss()


LOSSES: dict[str, tuple[str, Callable[[], Callable[..., Any]]]] = {
    "torch eager": ("torch", _eager),
    "torch.compile": ("torch", _compiled),
    "Liger-Kernel": ("liger_kernel", _liger),
    "quack": ("quack", _quack),
    "flash-attention": ("flash_attn", _flash),
}


def loss(plan: Plan, dtype: str) -> Iterator[Case]:
    """Loss, and loss with its gradient, of whoever has one."""
    for label, (module, make) in LOSSES.items():
        if installed(module):
            yield from _loss_cases(plan, dtype, label, make)
    if installed("quack"):
        yield _quack_at_once(plan, dtype)


def _loss_cases(
    plan: Plan, dtype: str, label: str, make: Callable[[], Callable[..., Any]]
) -> Iterator[Case]:
    import torch

    shape, size = plan.rows(dtype), n_bytes(plan.rows(dtype), dtype)

    def own() -> Any:
        return (overwritten if label == "Liger-Kernel" else logits)(plan, dtype)

    def forward() -> Any:
        with torch.no_grad():
            return make()(own(), targets(plan, *shape))

    def both() -> Any:
        x = own().detach().requires_grad_()
        make()(x, targets(plan, *shape)).backward()
        return x.grad

    def loss_error(_: Any) -> float:
        x, y = logits(plan, dtype), targets(plan, *shape)
        with torch.no_grad():
            return mean_error(make()(x.clone(), y), x, y)

    def error(gradient: Any) -> float:
        return gradient_error(gradient, logits(plan, dtype), targets(plan, *shape))

    yield Case(
        f"{label} loss + gradient, {dtype}", both, work=2 * size, error=error, peer=True,
        note="error of the gradient",
    )  # fmt: skip
    yield Case(f"{label} loss, {dtype}", forward, work=size, error=loss_error, peer=True)


def _quack_at_once(plan: Plan, dtype: str) -> Case:
    shape, size = plan.rows(dtype), n_bytes(plan.rows(dtype), dtype)

    def data() -> tuple[Any, Any]:
        return logits(plan, dtype), targets(plan, *shape)

    def call() -> Any:
        from quack.cross_entropy import cross_entropy_fwd

        return cross_entropy_fwd(*data(), return_dx=True)

    return Case(
        f"quack loss + gradient in one kernel, {dtype}", call, work=2 * size, peer=True,
        error=lambda found: gradient_error(found[1] / shape[0], *data()),
        note="error of the gradient",
    )  # fmt: skip


# --- pairs ---------------------------------------------------------------------------------------


def _js_of(library: Any) -> Callable[[Any, Any], Any]:
    def js(p: Any, q: Any) -> Any:
        m = (p + q) / 2
        return (p * library.log(p / m) + q * library.log(q / m)).sum(-1) / 2

    return js


@functools.cache
def _compiled_js() -> Callable[..., Any]:
    import torch

    return torch.compile(_js_of(torch), dynamic=False)


def js(plan: Plan) -> Iterator[Case]:
    """Broadcasting, by torch, torch.compile and CuPy."""
    import torch

    yield _broadcast(plan, "torch eager", lambda: _js_of(torch), lambda x: x)
    yield _broadcast(plan, "torch.compile", _compiled_js, lambda x: x)
    if installed("cupy"):
        yield _broadcast(
            plan,
            "CuPy",
            lambda: _js_of(importlib.import_module("cupy")),
            lambda x: importlib.import_module("cupy").from_dlpack(x),
        )


def _broadcast(
    plan: Plan, label: str, make: Callable[[], Callable[..., Any]], take: Callable[[Any], Any]
) -> Case:
    import torch

    n, m, k = plan.js
    rows = min(n, BROADCAST_ROWS)

    def data() -> tuple[Any, Any]:
        return distributions(plan, (n, k), 1)[:rows], distributions(plan, (m, k), 2)

    def call() -> Any:
        x, y = (take(z) for z in data())
        return make()(x[:, None], y[None])

    def error(found: Any) -> float:
        return pairs_error(torch.from_dlpack(found), "js_divergence", *data())

    return Case(
        f"{label}, js_divergence", call, work=n * m * k, unit="bin", scale=n / rows, peer=True,
        error=error, note=f"timed on {rows} of the rows of x, scaled",
    )  # fmt: skip


def kl(plan: Plan) -> Iterator[Case]:
    """The formula with its product, by torch and by CuPy."""
    import torch

    n, m, k = plan.kl

    def data() -> tuple[Any, Any]:
        return distributions(plan, (n, k), 1), distributions(plan, (m, k), 2)

    def by_torch() -> Any:
        x, y = data()
        return (x * x.log()).sum(1)[:, None] - x @ y.log().T

    def by_cupy() -> Any:
        import cupy

        x, y = (cupy.from_dlpack(z) for z in data())
        return (x * cupy.log(x)).sum(1)[:, None] - x @ cupy.log(y).T

    calls = {"torch eager": by_torch} | ({"CuPy": by_cupy} if installed("cupy") else {})
    for label, call in calls.items():
        yield Case(
            f"{label}, kl_divergence", call, work=n * m * k, unit="bin", peer=True,
            error=lambda found: pairs_error(torch.from_dlpack(found), "kl_divergence", *data()),
        )  # fmt: skip


# --- linear --------------------------------------------------------------------------------------


def linear(plan: Plan) -> Iterator[Case]:
    """torch's product and loss, and Liger's fused one."""
    import torch

    m, d, v = plan.head

    def eager(h: Any, w: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(h @ w.T, y)

    def liger(h: Any, w: Any, y: Any) -> Any:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        return LigerFusedLinearCrossEntropyLoss()(w, h, y)

    def both(function: Callable[..., Any]) -> Any:
        h, w, y = head(plan)
        h, w = h.detach().requires_grad_(), w.detach().requires_grad_()
        function(h, w, y).backward()
        return h.grad

    calls: dict[str, Callable[..., Any]] = {"torch eager": eager}
    if installed("liger_kernel"):
        calls["Liger-Kernel"] = liger
    for label, function in calls.items():
        yield Case(
            f"{label} linear + cross_entropy + gradients, bfloat16",
            functools.partial(both, function), work=6 * m * d * v, unit="flop", peer=True,
            error=lambda found: head_errors(found, plan), note="error of that by hidden",
        )  # fmt: skip


SECTIONS: dict[str, Callable[[Plan], Iterator[Case]]] = {
    "bfloat16": functools.partial(loss, dtype="bfloat16"),
    "float32": functools.partial(loss, dtype="float32"),
    "js": js,
    "kl": kl,
    "linear": linear,
}
