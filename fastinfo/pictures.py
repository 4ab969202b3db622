"""Pictures of matrices and of benchmarks, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastinfo.bench import Row, fastest

# A matrix is thinned to so many rows, and a tree is drawn of no more.
MOST = 1500


def check(path: str | Path) -> None:
    """ImportError without matplotlib, ValueError for a file that it cannot write."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ImportError('pictures need matplotlib: pip install "fastinfo[plot]"') from None
    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(path).suffix.lower()[1:] not in kinds:
        raise ValueError(f"{path} must end in one of {', '.join('.' + kind for kind in kinds)}")


def _figure(**given: Any) -> Any:
    from matplotlib.figure import Figure

    return Figure(layout="constrained", **given)


def is_symmetric(matrix: np.ndarray) -> bool:
    """Whether a matrix small enough to cluster equals its transpose."""
    n, m = matrix.shape
    return n == m and n <= MOST and bool(np.array_equal(matrix, matrix.T, equal_nan=True))


def heat_map(matrix: np.ndarray, path: Path, title: str, symmetric: bool) -> None:
    """Draw a matrix; a symmetric one beside the tree of its clustering and in the tree's order.

    Without SciPy, or where it holds what is no number, it stays in its own order.
    """
    from matplotlib import colormaps

    tree = _tree(matrix) if symmetric and len(matrix) > 2 else None
    figure = _figure(figsize=(9, 8), dpi=150)
    if tree is None:
        axes = figure.add_subplot()
        shown = matrix[:: -(-len(matrix) // MOST) or 1, :: -(-matrix.shape[1] // MOST) or 1]
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
    else:
        from scipy.cluster import hierarchy

        left, axes = figure.subplots(1, 2, width_ratios=(1, 5))
        drawn = hierarchy.dendrogram(
            tree, orientation="left", no_labels=True, ax=left, color_threshold=0,
            above_threshold_color="0.3",
        )  # fmt: skip
        left.invert_yaxis()
        left.set_axis_off()
        shown = matrix[np.ix_(drawn["leaves"], drawn["leaves"])]
        axes.set_yticks([])
        axes.set_xticks([])
    finite = shown[np.isfinite(shown)]
    top = float(np.quantile(finite, 0.99)) if finite.size else 1.0
    colours = colormaps["magma"].with_extremes(bad="0.6")
    shown = np.ma.masked_invalid(shown)
    image = axes.imshow(shown, cmap=colours, aspect="auto", interpolation="nearest", vmax=top)
    axes.set_title(f"{title}, {matrix.shape[0]} x {matrix.shape[1]}")
    figure.colorbar(image, extend="max", shrink=0.7)
    figure.savefig(path)


def _tree(matrix: np.ndarray) -> Any:
    """Return the average linkage of a symmetric matrix, None without SciPy or where it is NaN."""
    try:
        from scipy.cluster import hierarchy
    except ImportError:
        return None
    above = matrix[np.triu_indices(len(matrix), 1)].astype(np.float64)
    return hierarchy.linkage(above, "average") if np.isfinite(above).all() else None


def bars(title: str, rows: Sequence[Row], path: Path) -> Path:
    """Draw the rates of calls, one axis a unit; a tick beside a bar is the ceiling of that call."""
    from matplotlib import rc_context

    rows = [row for row in rows if not row.group or row is fastest(rows, row.group)]
    units = sorted({row.unit for row in rows})
    with rc_context({"svg.hashsalt": "fastinfo"}):
        drawing = _figure(figsize=(9, 1.2 + 0.28 * len(rows)))
        heights = [sum(row.unit == unit for row in rows) for unit in units]
        grid = drawing.subplots(len(units), squeeze=False, height_ratios=heights)
        for axes, unit in zip(grid[:, 0], units, strict=True):
            _bars(axes, [row for row in rows if row.unit == unit], unit)
        drawing.suptitle(title)
        drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _bars(axes: Any, rows: Sequence[Row], unit: str) -> None:
    colours = ["0.75" if row.group else "C1" if row.peer else "C0" for row in rows]
    rates = [row.rate / 1e9 for row in rows]
    axes.barh([row.name for row in rows], rates, color=colours)
    for place, (row, rate) in enumerate(zip(rows, rates, strict=True)):
        if row.share:
            axes.plot([rate / row.share] * 2, [place - 0.4, place + 0.4], "k", linewidth=2)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel(("GB/s" if unit == "B" else f"G {unit}s/s") + "; the black tick is the ceiling")
