"""Largest errors of the polynomials in units in the last place: `python -m benchmarks.ulp`.

float32 functions are swept over every float of their range, float64 ones over ten million random
ones. The oracle is NumPy in float64, whose own error, up to 1 ULP, is in the figures of float64.
Writes the table of docs/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numba
import numpy as np

from benchmarks.report import fill_markers
from fastinfo.cpu import vmath


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
}  # fmt: skip


@cache
def _over_array(function: Callable) -> Callable:
    @numba.njit(error_model="numpy", nogil=True)
    def fill(x, out):
        for k in range(x.size):
            out[k] = function(x[k])
        return out

    return fill


def largest_error(row: Function, x: np.ndarray) -> tuple[float, float]:
    """Largest error in ULP of the exact value (at least of `floor`), and where."""
    value = _over_array(row.compiled)(x, np.empty_like(x))
    exact = row.oracle(x.astype(np.float64))
    spacing = np.spacing(np.maximum(np.abs(exact), row.floor).astype(row.dtype)).astype(np.float64)
    error = np.abs(value.astype(np.float64) - exact) / np.abs(spacing)
    return float(error.max()), float(x[np.argmax(error)])


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
    """Measure all, print the table and write it into docs/accuracy.md."""
    rng = np.random.default_rng(0)
    lines = [
        "| function | used in | arguments tried | largest error, ULP | at |",
        "|---|---|---|---|---|",
    ]
    for name, row in FUNCTIONS.items():
        exhaustive = row.dtype == "float32"
        pieces = (
            every_float32(row) if exhaustive else (row.sample(rng, 1_000_000) for _ in range(10))
        )
        count, worst = 0, (0.0, 0.0)
        for x in pieces:
            count, worst = count + x.size, max(worst, largest_error(row, x))
        tried = f"every one of {count:,}" if exhaustive else f"{count:,} at random"
        lines.append(f"| {name} | {row.meaning} | {tried} | {worst[0]:.2f} | {worst[1]:.9g} |")
        print(lines[-1], flush=True)
    page = Path("docs/accuracy.md")
    page.write_text(fill_markers(page.read_text(), {"ulp": "\n".join(lines)}))


if __name__ == "__main__":
    main()
