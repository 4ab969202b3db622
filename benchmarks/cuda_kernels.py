"""What the CUDA kernels compile to, as a table: ``python -m benchmarks.cuda_kernels``.

No device is needed; of time nothing is said.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cuda_code import Code, compiled
from benchmarks.report import fill_markers

ARCHITECTURES = ("sm_80", "sm_90")
FLOATS = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Kernel:
    """A kernel, the types of its arguments, and whether logits are all that its loop reads."""

    name: str
    storage: str
    make: Callable[[], tuple[Any, Any]]
    alone: bool = True

    def code(self, arch: str) -> Code:
        """Return what it compiles to."""
        return compiled(*self.make(), arch)


@functools.cache
def _types() -> Any:
    from numba.cuda import types

    return types


def _array(kind: Any, axes: int = 1) -> Any:
    return _types().Array(kind, axes, "C")


def _kinds(storage: str) -> tuple[Any, Any]:
    """Types of the memory, and of the arithmetic."""
    t = _types()
    real = t.float64 if storage == "float64" else t.float32
    return {"float32": t.float32, "float64": t.float64}.get(storage, t.uint16), real


def _rows(memory: Any) -> tuple[Any, ...]:
    """Types of rows: their memory, offsets, and place."""
    t = _types()
    return _array(memory), _array(t.int64), t.UniTuple(t.int64, 4)


def losses(storage: str, softcap: bool, weights: str, gradient: bool) -> tuple[Any, Any]:
    """Losses of rows, with their gradients or without."""
    from fastinfo.cuda import gradient_kernels, row_kernels

    t, (memory, real) = _types(), _kinds(storage)
    where = gradient_kernels.losses_and_gradients if gradient else row_kernels.losses
    given = (
        *_rows(memory), t.int64, *_rows(memory), _array(real), _array(t.int64), _array(real),
        t.UniTuple(real, row_kernels.OPTIONS), _array(real),
    )  # fmt: skip
    out = _rows(memory) if gradient else ()
    return where(storage, softcap, weights, storage), (*given, *out)


def states(storage: str, statistics: bool) -> tuple[Any, Any]:
    """States of pieces of rows."""
    from fastinfo.cuda import row_kernels

    t, (memory, real) = _types(), _kinds(storage)
    kernel = row_kernels.states(storage, False, "none", storage, statistics, statistics)
    return kernel, (
        *_rows(memory), t.int64, t.int64, *_rows(memory), _array(real), _array(t.int64),
        _array(real), t.UniTuple(real, row_kernels.OPTIONS), _array(real, 3), _array(t.int64, 3),
    )  # fmt: skip


def gradients(storage: str, weights: str) -> tuple[Any, Any]:
    """Gradients from coefficients."""
    from fastinfo.cuda import gradient_kernels, row_kernels

    t, (memory, real) = _types(), _kinds(storage)
    kernel = gradient_kernels.gradients(storage, False, weights, storage, storage)
    return kernel, (
        *_rows(memory), t.int64, t.int64, *_rows(memory), _array(real), _array(t.int64),
        _array(real), t.UniTuple(real, row_kernels.OPTIONS), _array(real, 2), *_rows(memory),
    )  # fmt: skip


def tiles(measure: str, which: int, storage: str) -> tuple[Any, Any]:
    """Sums of all pairs by one of a measure's tiled roads."""
    from fastinfo.catalogue import MEASURES
    from fastinfo.cuda import pair_kernels

    t, (_, real) = _types(), _kinds(storage)
    road = MEASURES[measure].tiles[which]
    values, i = _array(real), t.int64
    given = values, values, values, i, _array(t.int32), i, i, t.boolean, i, i, values, i, i, i
    return pair_kernels.tiles(road.term, storage, road.uniform), given


def product_finish(measure: str, storage: str) -> tuple[Any, Any]:
    """What finishes a measure's matrix product."""
    from fastinfo.catalogue import MEASURES
    from fastinfo.cuda import pair_kernels

    t, (_, real) = _types(), _kinds(storage)
    row, i = MEASURES[measure], t.int64
    roads = tuple((road.says, road.margin) for road in row.products)
    square = row.products[-1].square
    kernel = pair_kernels.product_finishes(roads, square, row.finish, row.infinite, storage)
    side = _array(real), _array(real), _array(t.int32), _array(i)
    errors = t.UniTuple(t.UniTuple(real, 3), 2)
    return kernel, (
        _array(real), i, i, i, *side, *side, _array(t.int32), real, errors, real, real, t.boolean,
        t.boolean, _array(real), i, i, i,
    )  # fmt: skip


def product_factors(measure: str, storage: str, of_y: bool) -> tuple[Any, Any]:
    """What writes the factors of a measure's matrix product."""
    from fastinfo.catalogue import MEASURES
    from fastinfo.cuda import pair_kernels

    t, (memory, real) = _types(), _kinds(storage)
    road, x, wide = MEASURES[measure].products[-1], _rows(memory), _array(t.float64)
    f, also, row = (road.g, road.f, road.column) if of_y else (road.f, road.g, road.row)
    kernel = pair_kernels.factors(f, also if road.turned else None, row, storage, str(real), of_y)
    return kernel, (
        *x, wide, t.int64, _array(t.int32), _array(t.float64, 2), t.float64, *[_array(real)] * 3,
    )  # fmt: skip


def settled(measure: str, storage: str) -> tuple[Any, Any]:
    """What computes the marked pairs of a measure again, in float64."""
    from fastinfo.catalogue import MEASURES
    from fastinfo.cuda import pair_kernels

    t, (memory, real) = _types(), _kinds(storage)
    row, wide, i = MEASURES[measure], _array(t.float64), t.int64
    kernel = pair_kernels.settled(
        row.total, row.finish, storage, storage, str(real), pair_kernels.RESULTS
    )
    side = *_rows(memory), wide, wide
    factors = t.UniTuple(t.float64, 2)
    return kernel, (
        *side, *side, i, *[wide] * 4, _array(t.int32), factors, t.float64, t.float64, t.boolean,
        i, i, i, _array(real), i, i, i,
    )  # fmt: skip


def neighbors(storage: str, which: str) -> tuple[Any, Any]:
    """What keeps the smallest values of rows, what sorts them, and what bounds them."""
    from fastinfo.cuda import neighbor_kernels as kernels

    t, (_, real) = _types(), _kinds(storage)
    i, values, longs, single = t.int64, _array(real, 2), _array(t.int64, 2), _array(t.float32)
    rows, known = _array(real), (*[single] * 4, t.UniTuple(t.float32, 3), single)
    return {
        "kept": (
            kernels.smallest(storage), (rows, i, i, i, t.boolean, values, longs, longs),
        ),
        "sorted": (kernels.in_order(storage), (_array(t.float64), longs, values, longs)),
        "bounds": (kernels.upper_bounds(), known),
        "survivors": (
            kernels.survivors(storage),
            (*known, i, _array(t.float32, 2), longs, _array(i), rows),
        ),
        "choice": (kernels.choice(), (_array(i), i, _array(t.int32), _array(t.int32))),
    }[which]  # fmt: skip


def logit_pairs(storage: str, which: str) -> tuple[Any, Any]:
    """Kernels of divergences of rows of logits."""
    from fastinfo.catalogue import LOGIT_DIVERGENCES
    from fastinfo.cuda import logit_pair_kernels as kernels

    t, (memory, real) = _types(), _kinds(storage)
    kinds = (storage, storage, str(real))
    rows = *_rows(memory), *_rows(memory), t.int64
    active, wide, own = _array(real), _array(t.float64, 2), _array(real, 2)
    option = t.UniTuple(real, kernels.OPTIONS)
    js = LOGIT_DIVERGENCES["js"]
    if which == "states":
        return kernels.states(*kinds), (*rows, t.int64, active, option, _array(real, 3))
    if which == "sums":
        kernel = kernels.sums(js.far_terms, *kinds)
        return kernel, (*rows, t.int64, own, option, _array(real, 3))
    if which == "gradients":
        kernel = kernels.gradients(js.slope, *kinds)
        return kernel, (*rows, t.int64, active, own, option, *_rows(memory))
    exact = t.UniTuple(t.float64, kernels.OPTIONS)
    return kernels.near(js.terms, *kinds), (*rows, active, exact, wide, own, _array(t.float64))


def binary(inputs: str, storage: str, targets: str) -> tuple[Any, Any]:
    """Losses of two classes with their derivatives."""
    from fastinfo.cuda import binary_kernels

    t, (memory, real) = _types(), _kinds(storage)
    of_targets = _kinds(targets)[0] if targets in FLOATS else getattr(t, targets)
    kernel = binary_kernels.losses(inputs, storage, targets, False, False, False, True)
    given = _rows(memory), _rows(of_targets), *[_rows(real)] * 3, _rows(memory)
    i = t.int64
    types = *(part for rows in given for part in rows), i, i, i, real, real, *[_array(real)] * 2
    return kernel, types


def _kernels() -> list[Kernel]:
    found, of = [], functools.partial
    for s in FLOATS:
        found += [
            Kernel("loss", s, of(losses, s, False, "none", False)),
            Kernel("loss + gradient", s, of(losses, s, False, "none", True)),
            Kernel("loss + gradient, smoothed", s, of(losses, s, False, "uniform", True)),
            Kernel("statistics", s, of(states, s, True)),
            Kernel("softmax", s, of(gradients, s, "none")),
            Kernel("entropy, gradient", s, of(gradients, s, "entropy")),
        ]
    for s in ("float32", "bfloat16"):
        found += [
            Kernel("binary loss + gradient", s, of(binary, "logits", s, s)),
            Kernel("KL of logits", s, of(logit_pairs, s, "states")),
            Kernel("JS of logits, second reading", s, of(logit_pairs, s, "sums")),
            Kernel("JS of logits, gradient", s, of(logit_pairs, s, "gradients")),
        ]
    return [
        *found,
        Kernel(
            "loss + gradient, every option",
            "float32",
            functools.partial(losses, "float32", True, "weighted_rows", True),
            alone=False,
        ),
    ]


KERNELS = _kernels()
# What reads tiles of rows into shared memory: its innermost loop is over those.
TILES = [
    Kernel(f"{name} of all pairs", "float32", functools.partial(tiles, measure, which, "float32"))
    for name, measure, which in (
        ("JS, rows alike,", "js_divergence", -1),
        ("JS, rows apart,", "js_divergence", 0),
        ("total variation", "total_variation", 0),
    )
]


def table() -> str:
    """Return the table of all kernels on the newest architecture."""
    lines = [
        "| kernel | of | registers | shared memory | loads in the main loop, bits | MUFU there |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for kernel in [*KERNELS, *TILES]:
        code = kernel.code(ARCHITECTURES[-1])
        lines.append(
            f"| {kernel.name} | {kernel.storage} | {code.registers} | {code.shared} bytes | "
            f"{_counted(code.main_loop_loads())} | {_counted(code.main_loop_mufu())} |"
        )
    return "\n".join(lines)


def _counted(counter: Counter) -> str:
    return ", ".join(f"{n} x {what}" for what, n in sorted(counter.items(), key=str)) or "none"


def main() -> None:
    """Print the table, or put it into the page on performance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-docs", action="store_true")
    found = table()
    print(found)
    if parser.parse_args().write_docs:
        page = Path(__file__).parent.parent / "docs" / "performance.md"
        page.write_text(fill_markers(page.read_text("utf-8"), {"cuda": found}), encoding="utf-8")


if __name__ == "__main__":
    main()
