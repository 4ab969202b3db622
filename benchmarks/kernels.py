"""The kernels of fastinfo as cases, with the ceilings they are measured against.

A case touches its data when it is called, so a list of cases is cheap to make.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from typing import Any
from unittest import mock

import numpy as np

import fastinfo
from benchmarks import columns, linear, neighbors, reference, shapes, training
from fastinfo import catalogue, matrices
from fastinfo.bench import Case, Workers, ceiling_bytes, ceiling_cases, copy_cases, read_cases


@dataclass(frozen=True)
class Plan:
    """What a run is made of: the shapes, the threads, the bytes that outgrow every cache."""

    shapes: shapes.Shapes
    workers: Workers
    ceiling_bytes: int


def make_plan(shrink: int = 1) -> Plan:
    """Return a plan with as many threads as fastinfo uses; `shrink` is for tests."""
    workers = Workers(fastinfo.get_num_threads())
    return Plan(shapes.Shapes(shrink), workers, max(ceiling_bytes() // shrink**2, 64))


def ceilings(plan: Plan) -> list[Case]:
    """Return the ceilings: reading, copying and products, on arrays of their own."""
    return ceiling_cases(plan.workers, plan.ceiling_bytes, max(2048 // plan.shapes.shrink, 4))


# --------------------------------------------------------------------------------- rows


def _loss_error(shape: tuple[int, int], dtype: str) -> Callable[[Any], float]:
    def error(_: Any) -> float:
        n = reference.checked_rows(shape)
        x, y = shapes.logits(shape, dtype)[:n], shapes.targets(shape)[:n]
        losses = fastinfo.softmax_cross_entropy(x, y, reduction="none")
        return reference.loss_error(losses, shape, dtype)

    return error


def _gradient_error(shape: tuple[int, int], dtype: str) -> Callable[[Any], float]:
    def error(_: Any) -> float:
        n = reference.checked_rows(shape)
        x, y = shapes.logits(shape, dtype)[:n], shapes.targets(shape)[:n]
        _, gradient = fastinfo.softmax_cross_entropy(x, y, reduction="sum", return_grad=True)
        return reference.gradient_error(gradient, shape, dtype)

    return error


def _bytes_of(dtype: str) -> str:
    """Name the ceiling of an array of that dtype: there is no plain sum of 16-bit floats."""
    return "16-bit bytes" if shapes.dtype_of(dtype).itemsize == 2 else dtype


def loss_case(shape: tuple[int, int], dtype: str) -> Case:
    """Mean loss: one reading of the logits."""
    return Case(
        f"loss, {dtype}",
        lambda: fastinfo.softmax_cross_entropy(shapes.logits(shape, dtype), shapes.targets(shape)),
        work=shapes.n_bytes(shape, dtype),
        ceiling=f"read {_bytes_of(dtype)}",
        error=_loss_error(shape, dtype),
    )


def gradient_case(shape: tuple[int, int], dtype: str, out: str) -> Case:
    """Mean loss and gradient, written to a `buffer`, to a new array, or over the logits."""

    def written() -> np.ndarray | None:
        return None if out == "new array" else shapes.buffer(shape, dtype)

    def call() -> Any:
        x = written() if out == "in place" else shapes.logits(shape, dtype)
        y = shapes.targets(shape)
        return fastinfo.softmax_cross_entropy(x, y, return_grad=True, out=written())

    def restore() -> None:
        np.copyto(shapes.buffer(shape, dtype), shapes.logits(shape, dtype))

    return Case(
        f"loss + gradient, {dtype}, {out}",
        call,
        work=2 * shapes.n_bytes(shape, dtype),
        ceiling=f"copy {_bytes_of(dtype)}",
        before=restore if out == "in place" else None,
        error=_gradient_error(shape, dtype),
        note="memory of the gradient is made in the call" if out == "new array" else "",
    )


def _read(shape: tuple[int, int], dtype: str, plan: Plan) -> list[Case]:
    """Plain sums of as many bytes as the logits have; 16-bit ones are summed as float32."""

    def array() -> np.ndarray:
        if shapes.dtype_of(dtype).itemsize > 2:
            return shapes.logits(shape, dtype)
        flat = shapes.logits(shape).reshape(-1)
        return flat[: flat.size // 2]

    return read_cases(_bytes_of(dtype), array, shapes.n_bytes(shape, dtype), plan.workers)


def _copy(shape: tuple[int, int], dtype: str, plan: Plan) -> list[Case]:
    return copy_cases(
        _bytes_of(dtype),
        lambda: shapes.logits(shape, dtype).view(np.uint8),
        lambda: shapes.buffer(shape, dtype).view(np.uint8),
        shapes.n_bytes(shape, dtype),
        plan.workers,
    )


def _statistics_error(shape: tuple[int, int]) -> Callable[[Any], float]:
    n = reference.checked_rows(shape)
    return lambda found: reference.logsumexp_error(found.logsumexp[:n], shape, "float32")


def _statistics_case(shape: tuple[int, int]) -> Case:
    return Case(
        "softmax_statistics, float32",
        lambda: fastinfo.softmax_statistics(shapes.logits(shape), shapes.targets(shape)),
        work=shapes.n_bytes(shape, "float32"),
        ceiling="read float32",
        error=_statistics_error(shape),
        note="error of the field logsumexp",
    )


def loss(plan: Plan) -> list[Case]:
    """Everything on one shape, beside the plain sum and the copy of the same array."""
    shape = plan.shapes.rows("power of two")
    size, read = shapes.n_bytes(shape, "float32"), "read float32"
    n = reference.checked_rows(shape)
    return [
        *_read(shape, "float32", plan),
        *_read(shape, "bfloat16", plan),
        *_read(shape, "float64", plan),
        *_copy(shape, "float32", plan),
        *_copy(shape, "bfloat16", plan),
        loss_case(shape, "float32"),
        loss_case(shape, "bfloat16"),
        loss_case(shape, "float16"),
        loss_case(shape, "float64"),
        gradient_case(shape, "float32", "buffer"),
        gradient_case(shape, "float32", "in place"),
        gradient_case(shape, "float32", "new array"),
        gradient_case(shape, "bfloat16", "buffer"),
        _statistics_case(shape),
        Case(
            "logsumexp, float32",
            lambda: fastinfo.logsumexp(shapes.logits(shape)),
            work=size,
            ceiling=read,
            error=lambda found: reference.logsumexp_error(found[:n], shape, "float32"),
        ),
    ]


def _streamed(shape: tuple[int, int], pieces: int) -> Any:
    """Mean loss of logits that come as columns, a piece of the vocabulary at a time."""
    stream = fastinfo.StreamingCrossEntropy(shapes.targets(shape))
    width = -(-shape[1] // pieces)
    for start in range(0, shape[1], width):
        stream.update(shapes.logits(shape)[:, start : start + width], start)
    return stream.loss()


def softmaxes(plan: Plan) -> list[Case]:
    """Entropy and divergences, values and gradients, and a vocabulary in pieces."""
    shape = plan.shapes.rows("power of two")
    size, n = shapes.n_bytes(shape, "float32"), reference.checked_rows(shape)

    def entropy(**options: Any) -> Any:
        return fastinfo.softmax_entropy(shapes.logits(shape), **options)

    def divergence(function: Callable[..., Any], **options: Any) -> Any:
        return function(shapes.logits(shape), shapes.student(shape), **options)

    def entropy_error(_: Any) -> float:
        found = fastinfo.softmax_entropy(shapes.logits(shape)[:n], return_grad=True)
        return reference.entropy_error(*found, shape)

    def kl_error(_: Any) -> float:
        p, q = shapes.logits(shape)[:n], shapes.student(shape)[:n]
        values, gradient = fastinfo.softmax_kl_divergence(p, q, reduction="none", return_grad=True)
        return reference.divergence_error(values, gradient, shape)

    kl, js = fastinfo.softmax_kl_divergence, fastinfo.softmax_js_divergence
    cases = [
        ("softmax_entropy", entropy, 1, entropy_error),
        ("softmax_kl_divergence", functools.partial(divergence, kl), 2, kl_error),
        ("softmax_js_divergence", functools.partial(divergence, js), 2, None),
    ]
    made = [*_read(shape, "float32", plan), *_copy(shape, "float32", plan)]
    made += [
        loss_case(shape, "float32"),
        Case(
            "StreamingCrossEntropy, float32, 16 pieces",
            lambda: _streamed(shape, 16),
            work=size,
            ceiling="read float32",
        ),
        _statistics_case(shape),
    ]
    for name, call, arrays, error in cases:
        made.append(Case(f"{name}, float32", call, work=arrays * size, ceiling="read float32"))
        made.append(
            Case(
                f"{name} + gradient, float32, buffer",
                functools.partial(_into_buffer, call, shape),
                work=(arrays + 1) * size,
                ceiling="copy float32",
                error=error,
            )
        )
    made += [
        Case(
            f"softmax_{name}_divergence, float32, nearly equal",
            functools.partial(function, shapes.logits(shape), shapes.copy_of_model(shape)),
            work=2 * size,
            ceiling="read float32",
        )
        for name, function in (("kl", kl), ("js", js))
    ]
    return made


def _into_buffer(call: Callable[..., Any], shape: tuple[int, int]) -> Any:
    return call(return_grad=True, out=shapes.buffer(shape, "float32"))


def binary(plan: Plan) -> list[Case]:
    """Binary cross-entropy of many elements."""
    shape = plan.shapes.rows("elements")
    size = shapes.n_bytes(shape, "float32")

    def call(**options: Any) -> Any:
        return fastinfo.binary_cross_entropy_with_logits(
            shapes.logits(shape), shapes.labels(shape), **options
        )

    name = "binary_cross_entropy_with_logits"
    return [
        *_read(shape, "float32", plan),
        *_copy(shape, "float32", plan),
        Case(f"{name}, float32", call, work=2 * size, ceiling="read float32"),
        Case(
            f"{name} + gradient, float32, buffer",
            functools.partial(_into_buffer, call, shape),
            work=3 * size,
            ceiling="copy float32",
        ),
    ]


def vocabulary(plan: Plan, name: str) -> list[Case]:
    """Loss and gradient over the vocabulary of one model."""
    shape = plan.shapes.rows(name)
    return [
        *_read(shape, "float32", plan),
        *_read(shape, "bfloat16", plan),
        *_copy(shape, "float32", plan),
        loss_case(shape, "float32"),
        loss_case(shape, "bfloat16"),
        gradient_case(shape, "float32", "buffer"),
    ]


def short_rows(plan: Plan, name: str) -> list[Case]:
    """Loss of many rows of few classes."""
    shape = plan.shapes.rows(name)
    return [*_read(shape, "float32", plan), loss_case(shape, "float32")]


def pixels(plan: Plan) -> list[Case]:
    """Losses and more of few classes along the first axis, beside the plain sum and the copy."""
    shape = plan.shapes.rows("pixels")
    n, size = reference.checked_rows(shape), shapes.n_bytes(shape, "float32")

    def call(**more: Any) -> Any:
        x, y = shapes.planes(shape), shapes.targets(shape)
        return fastinfo.softmax_cross_entropy(x, y, axis=0, **more)

    def rows(**more: Any) -> Any:
        x, y = shapes.planes(shape)[:, :n], shapes.targets(shape)[:n]
        return fastinfo.softmax_cross_entropy(x, y, axis=0, **more)

    def gradient_error(_: Any) -> float:
        _, grad = rows(reduction="sum", return_grad=True)
        return reference.gradient_error(grad.T, shape, "float32")

    def divergence(**more: Any) -> Any:
        p, q = shapes.planes(shape), shapes.planes(shape, of_student=True)
        return fastinfo.softmax_kl_divergence(p, q, axis=0, **more)

    def divergence_error(_: Any) -> float:
        p, q = (shapes.planes(shape, of_student=given)[:, :n] for given in (False, True))
        values, grad = fastinfo.softmax_kl_divergence(
            p, q, axis=0, reduction="none", return_grad=True
        )
        return reference.divergence_error(values, grad.T, shape)

    return [
        *_read(shape, "float32", plan),
        *_copy(shape, "float32", plan),
        Case(
            "loss, float32",
            call,
            work=size,
            ceiling="read float32",
            error=lambda _: reference.loss_error(rows(reduction="none"), shape, "float32"),
        ),
        Case(
            "loss + gradient, float32, buffer",
            lambda: call(return_grad=True, out=shapes.buffer(shape[::-1], "float32")),
            work=2 * size,
            ceiling="copy float32",
            error=gradient_error,
        ),
        Case(
            "softmax_statistics with targets, float32",
            lambda: fastinfo.softmax_statistics(
                shapes.planes(shape), shapes.targets(shape), axis=0
            ),
            work=size,
            ceiling="read float32",
        ),
        Case(
            "softmax_kl_divergence, float32",
            divergence,
            work=2 * size,
            ceiling="read float32",
        ),
        Case(
            "softmax_kl_divergence + gradient, float32, buffer",
            lambda: divergence(return_grad=True, out=shapes.buffer(shape[::-1], "float32")),
            work=3 * size,
            ceiling="copy float32",
            error=divergence_error,
        ),
    ]


def _with_threads(threads: int, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        before = fastinfo.get_num_threads()
        fastinfo.set_num_threads(threads)
        try:
            return call()
        finally:
            fastinfo.set_num_threads(before)

    return run


def one_row(plan: Plan) -> list[Case]:
    """One long row, by one thread and by all of them."""
    cases = []
    for name, dtype in (("one row of 16M", "bfloat16"), ("one row of 1M", "float32")):
        shape = plan.shapes.rows(name)
        for label, threads in (("1 thread", 1), ("all threads", plan.workers.threads)):
            case = loss_case(shape, dtype)
            cases.append(
                Case(
                    f"{name}, {dtype}, {label}",
                    _with_threads(threads, case.call),
                    work=case.work,
                    error=case.error,
                )
            )
    return cases


# --------------------------------------------------------------------------------- pairs


def recomputed_bin(p: float, q: float, d: float, weight: float) -> float:
    """Stand in, as NaN, for the term with which a pair is computed again."""
    return nan


def share_recomputed(x: np.ndarray, y: np.ndarray, measure: str, **parameters: float) -> float:
    """Share of the pairs that were computed again: those that a term of NaN spoils."""
    row = catalogue.MEASURES[measure].at(parameters.get("alpha", 0.5))
    spoilt = dataclasses.replace(row, total=catalogue.Sum(recomputed_bin), form=None)
    with mock.patch.object(matrices, "MEASURES", {**catalogue.MEASURES, measure: spoilt}):
        return float(np.isnan(fastinfo.pairwise(x, y, measure, **parameters)).mean())


def matrix_case(
    measure: str,
    shape: tuple[int, int, int],
    kind: str,
    dtype: str,
    ceiling: str = "",
    **parameters: float,
) -> Case:
    """Return a whole matrix between two sets of rows."""
    n, m, k = shape
    given = "".join(f", {name} {value:g}" for name, value in parameters.items())

    def sides() -> tuple[np.ndarray, np.ndarray]:
        x = shapes.distributions((n, k), kind, 1, dtype)
        return x, shapes.distributions((m, k), kind, 2, dtype)

    return Case(
        f"{measure}{given}, {dtype}, {kind}",
        lambda: fastinfo.pairwise(
            *sides(), measure, out=shapes.buffer((n, m), dtype), **parameters
        ),
        work=n * m * k,
        unit="bin",
        ceiling=ceiling,
        error=lambda found: reference.pairs_error(found, measure, shape, kind, dtype, **parameters),
        recomputed=lambda _: share_recomputed(*sides(), measure, **parameters),
    )


def _matmul_case(shape: tuple[int, int, int], kind: str, dtype: str) -> Case:
    n, m, k = shape
    return Case(
        f"numpy.matmul, {dtype}",
        lambda: np.matmul(
            shapes.distributions((n, k), kind, 1, dtype),
            shapes.distributions((m, k), kind, 2, dtype).T,
            out=shapes.buffer((n, m), dtype, "product"),
        ),
        work=n * m * k,
        unit="bin",
        group=f"product {dtype}",
    )


def pairs(plan: Plan) -> list[Case]:
    """Measures that take a logarithm or a difference a bin."""
    cube, (n, _, k) = plan.shapes.pairs("cube"), plan.shapes.pairs("cube")
    alone = matrix_case("js_divergence", cube, "Dirichlet(1)", "float32")
    return [
        *(matrix_case("js_divergence", cube, kind, "float32") for kind in shapes.KINDS),
        Case(
            "js_divergence, float32, Dirichlet(1), 1 thread",
            _with_threads(1, alone.call),
            work=alone.work,
            unit="bin",
        ),
        Case(
            "js_divergence, float32, Dirichlet(1), x with itself",
            lambda: fastinfo.pairwise(
                shapes.distributions((n, k), "Dirichlet(1)", 1),
                measure="js_divergence",
                out=shapes.buffer((n, n), "float32"),
            ),
            work=n * n * k,
            unit="bin",
            note="bins of the whole matrix, of which half are computed",
        ),
        matrix_case("js_divergence", cube, "Dirichlet(1)", "float64"),
        matrix_case("total_variation", cube, "Dirichlet(1)", "float32"),
        matrix_case("total_variation", cube, "Dirichlet(1)", "float64"),
    ]


def products(plan: Plan, name: str) -> list[Case]:
    """Measures that are a matrix product, beside the bare product of that shape."""
    shape = plan.shapes.pairs(name)
    product = "product float32"
    kl = [matrix_case("kl_divergence", shape, kind, "float32", product) for kind in shapes.KINDS]
    return [
        _matmul_case(shape, "Dirichlet(0.3)", "float32"),
        *kl,
        matrix_case("cross_entropy", shape, "Dirichlet(0.3)", "float32", product),
        matrix_case("hellinger_distance", shape, "Dirichlet(0.3)", "float32", product),
        matrix_case("hellinger_distance", shape, shapes.NEARLY_EQUAL, "float32", product),
        dataclasses.replace(
            matrix_case("jeffreys_divergence", shape, "Dirichlet(0.3)", "float32", product),
            work=2 * shape[0] * shape[1] * shape[2],
            note="bins of the two products it needs",
        ),
        *(
            matrix_case("renyi_divergence", shape, "Dirichlet(0.3)", "float32", product, alpha=a)
            for a in (0.5, 2.0)
        ),
        matrix_case("bhattacharyya_distance", shape, "Dirichlet(0.3)", "float32", product),
    ]


def few_bins(plan: Plan) -> list[Case]:
    """JS of rows of few bins."""
    shape = plan.shapes.pairs("few bins")
    return [matrix_case("js_divergence", shape, "Dirichlet(1)", "float32")]


def products_in_double(plan: Plan) -> list[Case]:
    """KL in float64."""
    shape = plan.shapes.pairs("cube")
    return [
        _matmul_case(shape, "Dirichlet(0.3)", "float64"),
        matrix_case("kl_divergence", shape, "Dirichlet(0.3)", "float64", "product float64"),
        matrix_case("kl_divergence", shape, shapes.NEARLY_EQUAL, "float64", "product float64"),
    ]


def small_pairs(plan: Plan) -> list[Case]:
    """Return the matrices of the smaller shape."""
    shape = plan.shapes.pairs("small")
    return [
        _matmul_case(shape, "Dirichlet(1)", "float32"),
        matrix_case("js_divergence", shape, "Dirichlet(1)", "float32"),
        matrix_case("total_variation", shape, "Dirichlet(1)", "float32"),
        *(
            matrix_case(measure, shape, "Dirichlet(1)", "float32", "product float32")
            for measure in ("kl_divergence", "hellinger_distance")
        ),
    ]


@dataclass(frozen=True)
class Section:
    """Cases timed in alternation, under a title; `shape` names their shape where it is one."""

    title: str
    cases: Callable[[Plan], list[Case]]
    shape: str = ""

    def heading(self, plan: Plan) -> str:
        """Title and shape."""
        if not self.shape:
            return self.title
        return f"{self.title}, {' x '.join(map(str, plan.shapes.find(self.shape)))}"


def _vocabulary(title: str, name: str) -> Section:
    return Section(title, functools.partial(vocabulary, name=name), name)


def _short_rows(name: str) -> Section:
    return Section("Many short rows", functools.partial(short_rows, name=name), name)


SECTIONS: dict[str, Section] = {
    "ceilings": Section("Ceilings of this machine", ceilings),
    "loss": Section("Softmax cross-entropy", loss, "power of two"),
    "softmaxes": Section("Entropy, divergences, pieces", softmaxes, "power of two"),
    "binary": Section("Binary cross-entropy", binary, "elements"),
    "linear": Section(
        "Linear cross-entropy", lambda plan: linear.many_rows(plan.shapes.heads("head")), "head"
    ),
    "linear-few": Section(
        "Linear cross-entropy of few rows",
        lambda plan: linear.few_rows(plan.shapes.heads("head of few rows")),
        "head of few rows",
    ),
    "gpt2": _vocabulary("Vocabulary of GPT-2", "gpt2"),
    "llama3": _vocabulary("Vocabulary of Llama 3", "llama3"),
    "qwen3": _vocabulary("Vocabulary of Qwen 3", "qwen3"),
    "million": _vocabulary("A million classes", "million"),
    "thousand": _short_rows("thousand"),
    "ten": _short_rows("ten"),
    "pixels": Section("Few classes along the first axis", pixels, "pixels"),
    "one-row": Section("One long row", one_row),
    "pairs": Section("Matrices with a logarithm a bin", pairs, "cube"),
    "small-pairs": Section("Smaller matrices", small_pairs, "small"),
    "few-bins": Section("Matrices of few bins", few_bins, "few bins"),
    "products": Section(
        "Matrices that are a product", functools.partial(products, name="large"), "large"
    ),
    "mutual-information": Section(
        "Mutual information of all pairs of columns",
        lambda plan: columns.cases(plan.shapes.tables("columns")),
        "columns",
    ),
    "nearest": Section(
        "Nearest rows under JS",
        lambda plan: neighbors.nearest(plan.shapes.pairs("neighbours")),
        "neighbours",
    ),
    "sparse": Section(
        "Matrices of sparse rows",
        lambda plan: neighbors.sparse(plan.shapes.pairs("sparse")),
        "sparse",
    ),
    "products-double": Section("The same in double precision", products_in_double, "cube"),
    "training": Section(
        "Steps of training in PyTorch",
        lambda plan: training.cases(plan.shapes.heads("model"), plan.workers.threads),
        "model",
    ),
}
