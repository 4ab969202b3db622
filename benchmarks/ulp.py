"""Largest errors of the polynomials in units in the last place: `python -m benchmarks.ulp`.

float32 functions are swept over every float of their range, float64 ones over ten million random
ones. The oracle is NumPy in float64, whose own error, up to 1 ULP, is in the figures of float64.
Writes the table of docs/accuracy.md and its picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numba
import numpy as np

import fastinfo.numba
from benchmarks.report import fill_markers
from fastinfo.cpu import vmath

# Parts of a range whose largest errors are drawn.
PARTS = 240


@dataclass(frozen=True)
class Function:
    """A polynomial, its oracle, the range it is used on, and what its error must stay below."""

    compiled: Callable
    oracle: Callable
    dtype: str
    low: float
    high: float
    bound: float
    floor: float = 0.0
    meaning: str = ""

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Random arguments: uniform, and for logarithms uniform in the exponent."""
        if self.low > 0:
            return np.exp(rng.uniform(np.log(self.low), np.log(self.high), n)).astype(self.dtype)
        return rng.uniform(self.low, self.high, n).astype(self.dtype)


def _tanh(which: int) -> Callable:
    single = vmath.single.tanh
    return numba.njit(lambda x: single(x)[which])


FUNCTIONS = {
    "exp2, float32": Function(
        vmath.single.exp2, np.exp2, "float32", -126.0, 32.0, 2.5, 2.0**-126, "every exponential"
    ),
    "log2, float32": Function(
        vmath.single.log_in_units, np.log2, "float32", 2.0**-100, 2.0**20, 2.0, 1.0,
        "JS of rows far apart",
    ),
    "(1 + u) log(1 + u) - u, float32": Function(
        vmath.single.entropy_gap, lambda u: (1.0 + u) * np.log1p(u) - u, "float32", 1e-3, 1e3, 20.0,
        0.0, "JS measured from the mean",
    ),
    "the same to 1/2, float32": Function(
        vmath.single.entropy_gap_near, lambda u: (1.0 + u) * np.log1p(u) - u, "float32", 1e-3, 0.5,
        5.0, 0.0, "JS of rows that are near",
    ),
    "its mean of u and -u, float32": Function(
        vmath.single.mean_gap_near,
        lambda u: 0.5 * ((1.0 + u) * np.log1p(u) + (1.0 - u) * np.log1p(-u)), "float32", 1e-3, 0.5,
        4.0, 0.0, "JS of rows that are near",
    ),
    "exp(-t) - 1 + t, float32": Function(
        vmath.single.exp_gap_near, lambda t: np.expm1(-t) + t, "float32", 1e-3, 0.5, 4.0, 0.0,
        "KL of logits that are near",
    ),
    "log, float32": Function(
        vmath.lanewise_single.log, np.log, "float32", 2.0**-126, 2.0**127, 2.0, 1.0,
        "Rényi, Bhattacharyya of all pairs",
    ),
    "tanh, float32": Function(_tanh(0), np.tanh, "float32", -12.0, 12.0, 16.0, 0.0, "softcap"),
    "log1p, float32": Function(
        vmath.single.log1p, np.log1p, "float32", 1e-30, 1.0, 2.5, 0.0, "binary cross-entropy"
    ),
    "exp2, float64": Function(
        vmath.double.exp2, np.exp2, "float64", -1022.0, 32.0, 1.5, 2.0**-1022, "every exponential"
    ),
    "log, float64": Function(
        vmath.double.log, np.log, "float64", 1e-300, 1e300, 2.5, 0.0, "every measure by rows"
    ),
    "log1p, float64": Function(
        vmath.double.log1p, np.log1p, "float64", 1e-300, 1.0, 2.5, 0.0, "binary cross-entropy"
    ),
    "log over pairs, float64": Function(
        vmath.double.log_in_units, np.log, "float64", 1e-300, 1e300, 5.0, 0.0, "JS of all pairs"
    ),
    **{
        f"fastinfo.numba.{function.__name__}, {dtype}": Function(
            function, oracle, dtype, low, high, bound, 0.0, "loops of your own"
        )
        for dtype, least, most in (("float32", -87.0, 88.0), ("float64", -708.0, 709.0))
        for function, oracle, low, high, bound in (
            (fastinfo.numba.exp, np.exp, least, most, 2.0),
            (fastinfo.numba.log, np.log, np.exp(least), np.exp(most), 3.0),
        )
    },
}  # fmt: skip


@cache
def _over_array(function: Callable) -> Callable:
    @numba.njit(error_model="numpy", nogil=True)
    def fill(x, out):
        for k in range(x.size):
            out[k] = function(x[k])
        return out

    return fill


def errors(row: Function, x: np.ndarray) -> np.ndarray:
    """Errors in ULP of the exact value (at least of `floor`)."""
    value = _over_array(row.compiled)(x, np.empty_like(x))
    exact = row.oracle(x.astype(np.float64))
    spacing = np.spacing(np.maximum(np.abs(exact), row.floor).astype(row.dtype)).astype(np.float64)
    return np.abs(value.astype(np.float64) - exact) / np.abs(spacing)


def largest_error(row: Function, x: np.ndarray) -> tuple[float, float]:
    """Return the largest error, and where."""
    found = errors(row, x)
    return float(found.max()), float(x[np.argmax(found)])


@dataclass
class Sweep:
    """What was found of a function: how many arguments, the largest error and where, its course."""

    row: Function
    count: int = 0
    worst: tuple[float, float] = (0.0, 0.0)
    course: np.ndarray = field(default_factory=lambda: np.zeros(PARTS))

    @property
    def edges(self) -> np.ndarray:
        """Edges of the parts: in equal ratios where all arguments are positive."""
        space = np.geomspace if self.row.low > 0 else np.linspace
        return space(self.row.low, self.row.high, PARTS + 1)

    def add(self, x: np.ndarray) -> None:
        """Try arguments."""
        found = errors(self.row, x)
        at = int(np.argmax(found))
        self.count += x.size
        self.worst = max(self.worst, (float(found[at]), float(x[at])))
        low, high, where = self.row.low, self.row.high, x.astype(np.float64)
        if low > 0:
            low, high, where = np.log(low), np.log(high), np.log(where)
        part = ((where - low) * (PARTS / (high - low))).astype(np.int64)
        np.maximum.at(self.course, np.clip(part, 0, PARTS - 1), found)


def draw(sweeps: dict[str, Sweep], path: Path) -> None:
    """Draw the largest errors along the arguments."""
    from matplotlib.figure import Figure

    columns = 3
    rows = -(-len(sweeps) // columns)
    figure = Figure(figsize=(10, 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, sweep) in zip(panels, sweeps.items(), strict=False):
        positive = sweep.row.low > 0
        axes.stairs(sweep.course, np.log10(sweep.edges) if positive else sweep.edges, fill=True)
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 1.15 * max(sweep.worst[0], 1.0))
        axes.set_xlabel(r"$\log_{10}\,x$" if positive else "$x$", fontsize=7)
        axes.tick_params(labelsize=7)
    for axes in panels[len(sweeps) :]:
        axes.set_axis_off()
    figure.supylabel("largest error, ULP", fontsize=9)
    figure.savefig(path, dpi=90)


def every_float32(row: Function, step: int = 1 << 24) -> Iterator[np.ndarray]:
    """Every float32 of the range, in pieces."""
    for sign in (0, 1):
        for lo in range(0, 1 << 31, step):
            words = np.arange(lo, lo + step, dtype=np.uint32) | np.uint32(sign << 31)
            x = words.view(np.float32)
            x = x[(x >= row.low) & (x <= row.high)]
            if x.size:
                yield x


def main() -> None:
    """Measure all, print the table, write it into docs/accuracy.md and draw the picture."""
    rng = np.random.default_rng(0)
    lines = [
        "| function | used in | arguments tried | largest error, ULP | at |",
        "|---|---|---|---|---|",
    ]
    sweeps = {name: Sweep(row) for name, row in FUNCTIONS.items()}
    for name, sweep in sweeps.items():
        row = sweep.row
        exhaustive = row.dtype == "float32"
        pieces = (
            every_float32(row) if exhaustive else (row.sample(rng, 1_000_000) for _ in range(10))
        )
        for x in pieces:
            sweep.add(x)
        tried = f"every one of {sweep.count:,}" if exhaustive else f"{sweep.count:,} at random"
        worst, at = sweep.worst
        lines.append(f"| {name} | {row.meaning} | {tried} | {worst:.2f} | {at:.9g} |")
        print(lines[-1], flush=True)
    page = Path("docs/accuracy.md")
    page.write_text(fill_markers(page.read_text(), {"ulp": "\n".join(lines)}))
    draw(sweeps, Path("docs/images/ulp.png"))


if __name__ == "__main__":
    main()
