"""The installed peers as cases, by section, each with its own conventions.

- SciPy's, SimSIMD's and NumKong's Jensen-Shannon is the square root: it is squared to compare;
- SimSIMD and NumKong do not normalise: their rows are normalised before, untimed;
- SimSIMD, NumKong and SciPy are timed on one thread, and their names say so;
- scikit-learn's `log_loss` takes probabilities: they are made before, untimed; it clips them to
  the epsilon of their dtype, which its error shows.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import columns, linear, reference, shapes
from benchmarks.kernels import Plan
from fastinfo.bench import Case

# module to import: distribution that has the version
PEERS = {
    "torch": "torch",
    "jax": "jax",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "simsimd": "simsimd",
    "numkong": "numkong",
}

Rows = tuple[int, int]
Grid = tuple[int, int, int]


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


# --------------------------------------------------------------------------------- losses


@functools.cache
def _torch_loss(compiled: bool) -> Callable[..., Any]:
    import torch

    loss = torch.nn.functional.cross_entropy
    return torch.compile(lambda *args, **names: loss(*args, **names)) if compiled else loss


def _torch_cases(shape: Rows, plan: Plan, compiled: bool) -> Iterator[Case]:
    import torch

    torch.set_num_threads(plan.workers.threads)
    label = "torch.compile" if compiled else "torch eager"
    n = reference.checked_rows(shape)

    def data() -> tuple[Any, Any]:
        return torch.from_numpy(shapes.logits(shape)), torch.from_numpy(shapes.targets(shape))

    def forward() -> Any:
        with torch.no_grad():
            return _torch_loss(compiled)(*data())

    def backward(x: Any, y: Any, reduction: str) -> Any:
        x = x.detach().requires_grad_()
        _torch_loss(compiled)(x, y, reduction=reduction).backward()
        return x.grad

    def loss_error(_: Any) -> float:
        x, y = data()
        rows = torch.nn.functional.cross_entropy(x[:n], y[:n], reduction="none")
        return reference.loss_error(rows.numpy(), shape, "float32")

    def gradient_error(_: Any) -> float:
        x, y = data()
        return reference.gradient_error(backward(x[:n], y[:n], "sum").numpy(), shape, "float32")

    size = shapes.n_bytes(shape, "float32")
    yield Case(
        f"{label} loss, float32",
        forward,
        work=size,
        error=None if compiled else loss_error,
        peer=True,
    )
    yield Case(
        f"{label} loss + gradient, float32",
        lambda: backward(*data(), "mean"),
        work=2 * size,
        error=None if compiled else gradient_error,
        peer=True,
    )


def _jax_cases(shape: Rows) -> Iterator[Case]:
    import jax
    import jax.numpy as jnp

    @functools.cache
    def data() -> tuple[Any, Any]:
        return jnp.from_dlpack(shapes.logits(shape)), jnp.asarray(shapes.targets(shape))

    def rows(x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1)[:, 0]

    loss = jax.jit(lambda x, y: rows(x, y).mean())
    gradient = jax.jit(jax.value_and_grad(lambda x, y: rows(x, y).mean()))
    n = reference.checked_rows(shape)

    def loss_error(_: Any) -> float:
        x, y = data()
        return reference.loss_error(np.asarray(rows(x[:n], y[:n])), shape, "float32")

    def gradient_error(_: Any) -> float:
        x, y = (part[:n] for part in data())
        found = jax.grad(lambda x, y: rows(x, y).sum())(x, y)
        return reference.gradient_error(np.asarray(found), shape, "float32")

    size = shapes.n_bytes(shape, "float32")
    yield Case(
        "jax.jit loss, float32",
        lambda: loss(*data()).block_until_ready(),
        work=size,
        error=loss_error,
        peer=True,
    )
    yield Case(
        "jax.jit loss + gradient, float32",
        lambda: jax.block_until_ready(gradient(*data())),
        work=2 * size,
        error=gradient_error,
        peer=True,
    )


def _scipy_logsumexp(shape: Rows) -> Case:
    from scipy.special import logsumexp

    n = reference.checked_rows(shape)
    return Case(
        "scipy logsumexp, float32, 1 thread",
        lambda: logsumexp(shapes.logits(shape)[:n], axis=1),
        work=shapes.n_bytes(shape, "float32"),
        scale=shape[0] / n,
        error=lambda found: reference.logsumexp_error(found, shape, "float32"),
        peer=True,
        note=f"timed on {n} rows, scaled",
    )


def _sklearn_log_loss(shape: Rows) -> Case:
    from sklearn.metrics import log_loss

    n = reference.checked_rows(shape)

    @functools.cache
    def probabilities() -> np.ndarray:
        return reference.softmax_rows(shape, "float32")[1].astype(np.float32)

    def call() -> float:
        return log_loss(shapes.targets(shape)[:n], probabilities(), labels=np.arange(shape[1]))

    def error(found: float) -> float:
        mean = reference.softmax_rows(shape, "float32")[0].mean()
        return reference.relative_error(np.array([found]), np.array([mean]))

    return Case(
        "scikit-learn log_loss, float32, 1 thread",
        call,
        work=shapes.n_bytes(shape, "float32"),
        scale=shape[0] / n,
        error=error,
        peer=True,
        note=f"from probabilities; timed on {n} rows, scaled; error of the mean",
    )


def loss(plan: Plan) -> Iterator[Case]:
    """Peers of the section of the loss."""
    shape = plan.shapes.rows("power of two")
    if _installed("torch"):
        yield from _torch_cases(shape, plan, compiled=False)
        yield from _torch_cases(shape, plan, compiled=True)
    if _installed("jax"):
        yield from _jax_cases(shape)
    if _installed("scipy"):
        yield _scipy_logsumexp(shape)


def pixels(plan: Plan) -> Iterator[Case]:
    """PyTorch on few classes along another axis than the last."""
    if not _installed("torch"):
        return
    import torch

    torch.set_num_threads(plan.workers.threads)
    shape = plan.shapes.rows("pixels")
    size = shapes.n_bytes(shape, "float32")

    def data() -> tuple[Any, Any]:
        x, y = shapes.planes(shape), shapes.targets(shape)
        return torch.from_numpy(x)[None], torch.from_numpy(y)[None]

    def gradient() -> Any:
        x, y = data()
        x = x.detach().requires_grad_()
        torch.nn.functional.cross_entropy(x, y).backward()
        return x.grad

    label = "torch eager loss"
    yield Case(
        f"{label}, float32",
        lambda: torch.nn.functional.cross_entropy(*data()),
        work=size,
        peer=True,
    )
    yield Case(f"{label} + gradient, float32", gradient, work=2 * size, peer=True)
    yield Case(
        "torch eager kl_div + gradient, float32",
        lambda: _torch_kl(shapes.planes(shape), shapes.planes(shape, of_student=True), 0),
        work=3 * size,
        peer=True,
    )


def _torch_kl(p: np.ndarray, q: np.ndarray, axis: int) -> Any:
    """KL of two softmaxes as PyTorch has it, and its gradient."""
    import torch

    teacher, student = torch.from_numpy(p), torch.from_numpy(q).detach().requires_grad_()
    log_p, log_q = (torch.log_softmax(x, axis) for x in (teacher, student))
    loss = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    loss.backward()
    return student.grad


def short_rows(plan: Plan, name: str) -> Iterator[Case]:
    """Peers of the sections of many short rows: eager torch, and scikit-learn."""
    shape = plan.shapes.rows(name)
    if _installed("torch"):
        yield next(_torch_cases(shape, plan, compiled=False))
    if _installed("sklearn"):
        yield _sklearn_log_loss(shape)


# --------------------------------------------------------------------------------- pairs


def _matrix_case(
    label: str,
    call: Callable[[np.ndarray, np.ndarray], Any],
    measure: str,
    shape: Grid,
    kind: str,
    dtype: str,
    rows: int | None = None,
    power: float = 1.0,
) -> Case:
    """`call` on the first `rows` of x and all of y; its result to the `power` is the measure."""
    n, m, k = shape
    taken = min(n, rows or n)

    def error(found: Any) -> float:
        values = np.asarray(found, np.float64) ** power
        return reference.pairs_error(values, measure, shape, kind, dtype)

    return Case(
        f"{label}, {measure}, {dtype}, {kind}",
        lambda: call(
            shapes.distributions((n, k), kind, 1, dtype)[:taken],
            shapes.distributions((m, k), kind, 2, dtype),
        ),
        work=n * m * k,
        unit="bin",
        scale=n / taken,
        error=error,
        peer=True,
        note="" if taken == n else f"timed on {taken} of the rows of x, scaled",
    )


def _scipy_js(shape: Grid, kind: str, dtype: str) -> Case:
    from scipy.spatial.distance import cdist

    def call(x: np.ndarray, y: np.ndarray) -> Any:
        return cdist(x, y, "jensenshannon")

    return _matrix_case("scipy, 1 thread", call, "js_divergence", shape, kind, dtype, 32, 2)


def _scipy_tv(shape: Grid, kind: str, dtype: str) -> Case:
    from scipy.spatial.distance import cdist

    def call(x: np.ndarray, y: np.ndarray) -> Any:
        return 0.5 * cdist(x, y, "cityblock")

    return _matrix_case("scipy, 1 thread", call, "total_variation", shape, kind, dtype, 64)


def _scipy_kl(shape: Grid, kind: str) -> Case:
    from scipy.special import rel_entr

    def call(x: np.ndarray, y: np.ndarray) -> Any:
        return np.stack([rel_entr(row, y).sum(axis=1) for row in x])

    return _matrix_case("scipy, 1 thread", call, "kl_divergence", shape, kind, "float32", 4)


def _simd(module: str, name: str, measure: str, shape: Grid, kind: str, dtype: str) -> Case:
    peer = importlib.import_module(module)

    def call(x: np.ndarray, y: np.ndarray) -> Any:
        return peer.cdist(x, y, metric=name)

    power = 2.0 if measure == "js_divergence" else 1.0
    return _matrix_case(
        f"{module}, 1 thread", call, measure, shape, kind, dtype, rows=256, power=power
    )


def _torch_distance(measure: str, shape: Grid, kind: str, plan: Plan) -> Case:
    import torch

    torch.set_num_threads(plan.workers.threads)

    def total_variation(x: np.ndarray, y: np.ndarray) -> Any:
        return 0.5 * torch.cdist(torch.from_numpy(x), torch.from_numpy(y), p=1)

    def hellinger_distance(x: np.ndarray, y: np.ndarray) -> Any:
        p, q = torch.from_numpy(x).sqrt(), torch.from_numpy(y).sqrt()
        return torch.cdist(p, q) * 0.5**0.5

    call = total_variation if measure == "total_variation" else hellinger_distance
    return _matrix_case("torch.cdist", call, measure, shape, kind, "float32")


def _numpy_kl(shape: Grid, kind: str) -> Case:
    def call(x: np.ndarray, y: np.ndarray) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            entropies = np.sum(x * np.log(x), axis=1, where=x > 0)
            return entropies[:, None] - x @ np.log(y).T

    return _matrix_case("numpy formula", call, "kl_divergence", shape, kind, "float32")


def pairs(plan: Plan) -> Iterator[Case]:
    """Peers of the tiled measures."""
    shape, kind, js = plan.shapes.pairs("cube"), "Dirichlet(1)", "js_divergence"
    for dtype in ("float32", "float64"):
        for module in ("simsimd", "numkong"):
            if _installed(module):
                yield _simd(module, "jensenshannon", js, shape, kind, dtype)
        if _installed("scipy"):
            yield _scipy_js(shape, kind, dtype)
            yield _scipy_tv(shape, kind, dtype)
    if _installed("simsimd"):
        yield _simd("simsimd", "jensenshannon", js, shape, shapes.NEARLY_EQUAL, "float32")
    if _installed("torch"):
        yield _torch_distance("total_variation", shape, kind, plan)


def few_bins(plan: Plan) -> Iterator[Case]:
    """SciPy on rows of few bins."""
    if _installed("scipy"):
        yield _scipy_js(plan.shapes.pairs("few bins"), "Dirichlet(1)", "float64")


def products(plan: Plan, name: str) -> Iterator[Case]:
    """Peers of the measures that are a matrix product."""
    shape, kind = plan.shapes.pairs(name), "Dirichlet(0.3)"
    for rows in (kind, shapes.NEARLY_EQUAL):
        yield _numpy_kl(shape, rows)
        if _installed("torch"):
            yield _torch_distance("hellinger_distance", shape, rows, plan)
    if _installed("scipy"):
        yield _scipy_kl(shape, kind)
    if _installed("simsimd"):
        yield _simd("simsimd", "kl", "kl_divergence", shape, kind, "float32")
    if _installed("numkong"):
        yield _simd("numkong", "kld", "kl_divergence", shape, kind, "float32")


def softmaxes(plan: Plan) -> Iterator[Case]:
    """KL of two softmaxes as PyTorch has it, with its gradient."""
    if not _installed("torch"):
        return
    import torch

    torch.set_num_threads(plan.workers.threads)
    shape = plan.shapes.rows("power of two")
    yield Case(
        "torch eager kl_div + gradient, float32",
        lambda: _torch_kl(shapes.logits(shape), shapes.student(shape), -1),
        work=3 * shapes.n_bytes(shape, "float32"),
        peer=True,
    )


def linear_heads(plan: Plan) -> Iterator[Case]:
    """Peers of linear cross-entropy: torch's product and loss."""
    if _installed("torch"):
        yield from linear.torch_eager(plan.shapes.heads("head"), plan.workers.threads)


def tables(plan: Plan) -> Iterator[Case]:
    """Peers of the mutual information of columns."""
    if _installed("sklearn"):
        yield columns.sklearn_case(plan.shapes.tables("columns"))


SECTIONS: dict[str, Callable[[Plan], Iterator[Case]]] = {
    "loss": loss,
    "softmaxes": softmaxes,
    "linear": linear_heads,
    "thousand": functools.partial(short_rows, name="thousand"),
    "ten": functools.partial(short_rows, name="ten"),
    "pixels": pixels,
    "pairs": pairs,
    "few-bins": few_bins,
    "products": functools.partial(products, name="large"),
    "mutual-information": tables,
}
