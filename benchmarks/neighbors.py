"""Nearest rows beside the whole matrix, and sparse rows beside dense ones."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import fastinfo
from benchmarks import shapes
from fastinfo.bench import Case

NEAREST = 10
CLUSTERS = 100
CLUSTERED, ALIKE = "clustered rows", "rows of one distribution"
# Entries of a sparse row, and rows of which the dense matrix is timed.
ENTRIES = (100, 200)
DENSE_ROWS = 200

Shape = tuple[int, int, int]


@functools.cache
def rows(kind: str, count: int, width: int, seed: int) -> np.ndarray:
    """Return rows around a hundred distributions, or of Dirichlet(1)."""
    rng = np.random.default_rng(seed)
    if kind == ALIKE:
        return shapes.distributions((count, width), "Dirichlet(1)", seed)
    centres = np.random.default_rng(0).dirichlet(np.full(width, 0.3), CLUSTERS)
    values = rng.standard_gamma(20, (count, width)).astype(np.float32)
    values *= centres.astype(np.float32)[rng.integers(0, CLUSTERS, count)]
    return values


def _relative(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(found - exact) / exact))


def nearest(shape: Shape) -> list[Case]:
    """Ten nearest rows under JS, by `nearest` and by the whole matrix."""
    n, m, k = shape
    cases = []
    for kind in (CLUSTERED, ALIKE):

        def sides(kind: str = kind) -> tuple[np.ndarray, np.ndarray]:
            return rows(kind, n, k, 1), rows(kind, m, k, 2)

        def whole(sides: Any = sides) -> np.ndarray:
            matrix = fastinfo.pairwise(*sides())
            some = np.argpartition(matrix, NEAREST, axis=1)[:, :NEAREST]
            return np.sort(np.take_along_axis(matrix, some, 1), axis=1)

        def error(found: Any, sides: Any = sides) -> float:
            x, y = sides()
            exact = [
                fastinfo.js_divergence(row, y[indices].astype(np.float64))
                for row, indices in zip(x[:20].astype(np.float64), found.indices, strict=False)
            ]
            return _relative(found.distances[:20], np.array(exact))

        work = n * m * k
        cases += [
            Case(
                f"pairwise + argpartition, {kind}",
                whole,
                work=work,
                unit="bin",
                group=f"whole, {kind}",
            ),
            Case(
                f"nearest, {kind}",
                lambda sides=sides: fastinfo.nearest(*sides(), NEAREST),
                work=work,
                unit="bin",
                ceiling=f"whole, {kind}",
                error=error,
                note="bins of all pairs",
            ),
        ]
    return cases


@functools.cache
def sparse_rows(count: int, width: int, entries: int, seed: int) -> Any:
    """Return rows of so many entries, at places drawn evenly."""
    from scipy.sparse import csr_array

    rng = np.random.default_rng(seed)
    bins = np.concatenate([rng.choice(width, entries, replace=False) for _ in range(count)])
    data = rng.standard_gamma(1, bins.size).astype(np.float32)
    return csr_array((data, bins, entries * np.arange(count + 1)), shape=(count, width))


def sparse(shape: Shape) -> list[Case]:
    """Matrices of sparse rows under JS and KL, and our own dense matrix of some of them, scaled."""
    n, m, k = shape
    few = min(DENSE_ROWS, n, m)
    entries = [min(number, k) for number in ENTRIES]

    def sides(number: int) -> tuple[Any, Any]:
        return sparse_rows(n, k, number, 1), sparse_rows(m, k, number, 2)

    def dense(number: int) -> list[np.ndarray]:
        return [side[:few].toarray() for side in sides(number)]

    kept = functools.cache(dense)

    def case(measure: str, number: int, label: str) -> Case:
        def error(found: np.ndarray) -> float:
            exact = fastinfo.pairwise(*(s.astype(np.float64) for s in kept(number)), measure)
            with np.errstate(invalid="ignore"):
                return float(np.nanmax(np.abs(found[:few, :few] - exact) / exact))

        return Case(
            f"{measure}, {label} entries a row",
            lambda: fastinfo.pairwise(
                *sides(number), measure, out=shapes.buffer((n, m), "float32")
            ),
            work=n * m,
            unit="pair",
            error=error if measure == "js_divergence" else None,
        )

    return [
        Case(
            "js_divergence, dense",
            lambda: fastinfo.pairwise(*kept(entries[0])),
            work=n * m,
            unit="pair",
            scale=n * m / few**2,
            note=f"timed on {few} x {few} rows, scaled",
        ),
        *(case("js_divergence", e, str(label)) for e, label in zip(entries, ENTRIES, strict=True)),
        case("kl_divergence", entries[0], str(ENTRIES[0])),
    ]
