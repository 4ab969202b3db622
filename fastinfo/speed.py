"""The command `bench`: this machine's ceilings, our share of them, and what else is installed.

The main calls only, on made-up data; ``python -m benchmarks`` of the sources measures all.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastinfo
from fastinfo import files, pictures
from fastinfo.bench import (
    Case,
    Row,
    Workers,
    ceiling_bytes,
    ceiling_cases,
    machine_facts,
    measure,
    rows_table,
)

Say = Callable[[str], None]

CLASSES = 131072
PAIRS, BINS = 2000, 256
# Pairs that SciPy is given, of all.
PART = 200


def losses(quick: bool) -> list[Case]:
    """Loss and gradient of rows of logits, beside reading and copying as many bytes."""
    rows = 256 if quick else max(1, ceiling_bytes() // (4 * CLASSES))
    rng = np.random.default_rng(0)
    x = functools.cache(lambda: rng.standard_normal((rows, CLASSES), np.float32))
    y, out = rng.integers(0, CLASSES, rows), functools.cache(lambda: np.empty_like(x()))
    size = 4 * rows * CLASSES

    def error(value: Any) -> float:
        z = x()[:8].astype(np.float64)
        exact = np.log(np.exp(z).sum(axis=1)) - z[np.arange(8), y[:8]]
        ours = fastinfo.softmax_cross_entropy(x()[:8], y[:8], reduction="none")
        return float(np.abs(ours / exact - 1.0).max())

    ours = [
        Case("loss", lambda: fastinfo.softmax_cross_entropy(x(), y), size,
             ceiling="read float32", error=error),
        Case("loss + gradient",
             lambda: fastinfo.softmax_cross_entropy(x(), y, return_grad=True, out=out()),
             2 * size, ceiling="copy float32"),
    ]  # fmt: skip
    return [*ours, *_torch_losses(x, y, size)]


def _torch_losses(x: Callable[[], np.ndarray], y: np.ndarray, size: int) -> list[Case]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    cross_entropy = torch.nn.functional.cross_entropy
    torch.set_num_threads(fastinfo.get_num_threads())
    targets = torch.from_numpy(y)

    def gradient() -> None:
        logits = torch.from_numpy(x()).requires_grad_()
        cross_entropy(logits, targets).backward()

    return [
        Case("loss, torch", lambda: cross_entropy(torch.from_numpy(x()), targets), size,
             ceiling="read float32", peer=True),
        Case("loss + gradient, torch", gradient, 2 * size, ceiling="copy float32", peer=True),
    ]  # fmt: skip


def pairs(quick: bool) -> list[Case]:
    """Matrices of divergences between rows, beside the matrix product."""
    n = PAIRS // 4 if quick else PAIRS
    x = np.random.default_rng(0).dirichlet(np.full(BINS, 0.5), n).astype(np.float32)
    y, bins = x[::-1].copy(), n * n * BINS
    out = np.empty((n, n), np.float32)

    def error(matrix: Any) -> float:
        p, q = x[0].astype(np.float64), y[1].astype(np.float64)
        p, q = p / p.sum(), q / q.sum()
        m = (p + q) / 2
        halves = [np.sum(v * np.log(v / m, where=v > 0, out=np.zeros(BINS))) / 2 for v in (p, q)]
        return float(abs(matrix[0, 1] / sum(halves) - 1.0))

    cases = [
        Case("numpy.matmul of the rows", lambda: np.matmul(x, y.T, out=out), bins, "bin",
             group="product of the rows"),
        Case("KL of all pairs", lambda: fastinfo.pairwise(x, y, "kl_divergence"), bins, "bin",
             ceiling="product of the rows"),
        Case("JS of all pairs", lambda: fastinfo.pairwise(x, y), bins, "bin", error=error),
        Case("10 nearest by JS", lambda: fastinfo.nearest(x, y, 10), bins, "bin"),
    ]  # fmt: skip
    if importlib.util.find_spec("scipy") is not None:
        from scipy.spatial.distance import cdist

        part = min(PART, n)
        cases.append(
            Case("JS of all pairs, SciPy", lambda: cdist(x[:part], y, "jensenshannon"), bins, "bin",
                 scale=n / part, peer=True)
        )  # fmt: skip
    return cases


def run(quick: bool, plot: str | None, say: Say) -> dict[str, Any]:
    """Measure, tell, and draw if asked to."""
    if plot:
        pictures.check("bars.svg")
    facts = machine_facts(["torch", "scipy"])
    say(f"{facts['processor']}, {facts['threads']} threads, {facts['blas']}")
    workers = Workers(fastinfo.get_num_threads())
    ceilings = ceiling_cases(workers, ceiling_bytes() // (4 if quick else 1), 2048)
    sections = {
        "Rows of logits": [*ceilings[:-2], *losses(quick)],
        "All pairs of rows": [*ceilings[-2:], *pairs(quick)],
    }
    folder = Path(plot) if plot else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": facts, "rows": []}
    for title, cases in sections.items():
        rows = measure(cases, 3 if quick else 9, 2.0 if quick else 10.0)
        say(f"\n{title}\n\n{rows_table(rows)}")
        report["rows"] += [_figures(title, row) for row in rows]
        if folder:
            path = folder / f"{title.lower().replace(' ', '-')}.svg"
            with files.whole(path) as partial:
                pictures.bars(title, rows, partial)
            say(f"\ndrawn: {path}")
    return report


def _figures(title: str, row: Row) -> dict[str, Any]:
    low, high = row.timing.quartiles
    return {
        "section": title, "call": row.name, "seconds": row.timing.median, "quartiles": [low, high],
        "rate": row.rate, "unit": f"{row.unit}/s", "share": row.share, "error": row.error,
        "peer": row.peer,
    }  # fmt: skip
