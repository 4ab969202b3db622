"""Mutual information of all pairs of columns, beside a one-hot product and scikit-learn."""

from __future__ import annotations

import functools

import numpy as np

import fastinfo
from benchmarks import reference, shapes
from fastinfo.bench import Case

Table = tuple[int, int, int]

NAME = "mutual_information_matrix"
# Pairs of columns that scikit-learn is timed on.
TIMED_PAIRS = 50


@functools.cache
def codes(shape: Table) -> np.ndarray:
    """Return columns of random codes (samples, columns), half of each taken from its neighbour."""
    n, width, values = shape
    rng = np.random.default_rng(7)
    own = rng.integers(0, values, (n, width))
    return np.where(rng.random((n, width)) < 0.5, own, np.roll(own, 1, axis=1))


@functools.cache
def one_hot(shape: Table) -> np.ndarray:
    """Return a column of float32 for each code of each column."""
    n, width, values = shape
    made = np.zeros((n, width, values), np.float32)
    np.put_along_axis(made, codes(shape)[:, :, np.newaxis], 1.0, axis=2)
    return made.reshape(n, width * values)


def forget() -> None:
    """Let go of all data made so far."""
    codes.cache_clear()
    one_hot.cache_clear()


def _work(shape: Table) -> int:
    n, width, _ = shape
    return n * width * width


def _exact(x: np.ndarray, y: np.ndarray) -> float:
    """Mutual information of two columns, from differences of counts that are exact."""
    bins = np.arange(x.max() + 2), np.arange(y.max() + 2)
    table = np.histogram2d(x, y, bins=bins)[0].astype(np.longdouble)
    product = np.outer(table.sum(axis=1), table.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (table * x.size - product) / product
        terms = np.where(table > 0, (1 + u) * np.log1p(u) - u, 1)
    return float((product * terms).sum() / x.size**2)


def _pairs(shape: Table) -> list[tuple[int, int]]:
    """Pairs of columns: neighbours first, which depend on each other, then columns far apart."""
    width = shape[1]
    pairs = [(i, i + 1) for i in range(0, width - 1, 2)] + [(i, width - 1) for i in range(width)]
    return [(i, j) for i, j in pairs[: TIMED_PAIRS // 2] + pairs[-TIMED_PAIRS // 2 :] if i < j]


def _error(shape: Table, found: np.ndarray) -> float:
    x, pairs = codes(shape), _pairs(shape)
    exact = np.array([_exact(x[:, i], x[:, j]) for i, j in pairs])
    return reference.relative_error(np.array([found[i, j] for i, j in pairs]), exact)


def matrix_case(shape: Table, name: str, ceiling: str = "") -> Case:
    """Return the matrix of the columns with themselves."""
    return Case(
        name,
        lambda: fastinfo.mutual_information_matrix(codes(shape)),
        work=_work(shape),
        unit="sample",
        ceiling=ceiling,
        error=functools.partial(_error, shape),
        note="samples of the whole matrix, of which half are counted",
    )


def product_case(shape: Table) -> Case:
    """All counts as one matrix product, of codes that were made one-hot before."""
    size = shape[1] * shape[2]
    return Case(
        "numpy.matmul, one-hot float32",
        lambda: np.matmul(
            one_hot(shape).T, one_hot(shape), out=shapes.buffer((size, size), "float32")
        ),
        work=_work(shape),
        unit="sample",
        group="product",
        note="counts only",
    )


def sklearn_case(shape: Table) -> Case:
    """scikit-learn's function of two columns in a loop over pairs of them."""
    from sklearn.metrics import mutual_info_score

    width, pairs = shape[1], _pairs(shape)

    def call() -> list[float]:
        x = codes(shape)
        return [mutual_info_score(x[:, i], x[:, j]) for i, j in pairs]

    def error(found: list[float]) -> float:
        x = codes(shape)
        exact = np.array([_exact(x[:, i], x[:, j]) for i, j in pairs])
        return reference.relative_error(np.array(found), exact)

    return Case(
        "scikit-learn mutual_info_score, 1 thread",
        call,
        work=_work(shape),
        unit="sample",
        scale=width * (width + 1) / 2 / len(pairs),
        error=error,
        peer=True,
        note=f"timed on {len(pairs)} pairs of columns, scaled",
    )


def cases(shape: Table) -> list[Case]:
    """The matrix with 10 codes beside the product; with 2 and 100 codes, which go other ways."""
    n, width, _ = shape
    return [
        product_case(shape),
        matrix_case(shape, NAME, "product"),
        matrix_case((n, width, 2), f"{NAME}, 2 codes"),
        matrix_case((n, max(4, width // 5), 100), f"{NAME}, a fifth of the columns, 100 codes"),
    ]
