"""Rows of logits on a device: what is launched for them.

A block of threads reads a row; where rows are so few that blocks would be idle, a piece of one. All
launches go to the stream of the logits, none waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo.arrays import lazy
from fastinfo.cpu.rows import Options
from fastinfo.cuda import gradient_kernels, seam
from fastinfo.cuda import row_kernels as kernels
from fastinfo.cuda.arrays import Memory, Rows, blocks, new
from fastinfo.cuda.row_kernels import THREADS

__all__ = [
    "Options",
    "Problem",
    "entropies",
    "length_of_pieces",
    "log_softmax",
    "losses",
    "softmax",
    "statistics",
]

# Blocks that keep a device busy, and the least and the most classes of a piece: a thread adds up no
# more than 512 numbers in a float32, since equal ones are rounded alike.
ENOUGH, LEAST, MOST = 512, 16 * THREADS, 512 * THREADS
# Figures of `statistics`: numbers, then integers.
REAL_FIGURES = (kernels.MAXIMUM, kernels.LOG_SUM, kernels.LOGSUMEXP, kernels.ENTROPY_OF_ROW)
LOGSUMEXP, LOG_PROB = kernels.LOGSUMEXP, kernels.LOG_PROB
ARGMAX, RANK = (kernels.FIGURES + k for k in (kernels.ARGMAX_OF_ROW, kernels.RANK_OF_TARGET))


@dataclass(frozen=True)
class Problem:
    """Logits, what weighs their classes, and which rows count; see `cpu.rows.Problem`."""

    logits: Rows
    options: Options
    targets: Memory | None = None
    soft: Rows | None = None
    class_weight: Memory | None = None
    active: Memory | None = None
    statistics: bool = False
    way: str = ""
    ranks: bool = False

    @lazy
    def weights(self) -> str:
        """How the classes are weighed, one of the kernels' ways."""
        if self.way:
            return self.way
        if self.soft is not None:
            return "rows" if self.class_weight is None else "weighted_rows"
        if self.options.beta == 0.0:
            return "none"
        return "uniform" if self.class_weight is None else "shared"

    @property
    def variant(self) -> tuple[Any, ...]:
        """What the kernels are compiled for."""
        soft = self.soft.storage if self.soft is not None else self.logits.storage
        return self.logits.storage, self.capped, self.weights, soft

    @property
    def capped(self) -> bool:
        """Whether there is a softcap."""
        return self.options.softcap is not None

    @property
    def real(self) -> str:
        """Type of the arithmetic."""
        return self.logits.arithmetic

    @property
    def stream(self) -> seam.Stream:
        """Stream of the logits."""
        return self.logits.data.stream

    @lazy
    def option(self) -> tuple[Any, ...]:
        """The options as kernels take them."""
        real = np.dtype(self.real).type
        return tuple(real(v) for v in self.options.array)

    @lazy
    def others(self) -> tuple[Any, ...]:
        """What kernels are given after the logits: soft targets, weights of classes, targets."""
        y = self.logits if self.soft is None else self.soft
        w = seam.nothing(self.real) if self.class_weight is None else self.class_weight.flat
        return y.data.flat, y.starts, y.place, w, self.row_targets

    @property
    def row_targets(self) -> Any:
        """Class of each row as kernels take them, none if there are no targets."""
        return seam.nothing("int64") if self.targets is None else self.targets.flat

    @property
    def row_weights(self) -> Any:
        """Weight of each row as kernels take them, none if all count; of weight 0 none is read."""
        return seam.nothing(self.real) if self.active is None else self.active.flat

    @property
    def own(self) -> tuple[Any, ...]:
        """The logits as kernels take them."""
        return self.logits.data.flat, self.logits.starts, self.logits.place, self.logits.width

    @lazy
    def length(self) -> int:
        """Classes of a piece: all, unless there are too few rows or too many classes."""
        return length_of_pieces(self.logits.count, self.logits.width)

    @property
    def pieces(self) -> int:
        """Pieces of a row."""
        return -(-self.logits.width // self.length)


def length_of_pieces(count: int, width: int, most: int = MOST) -> int:
    """Return the classes that a block reads of each of some rows."""
    enough = min(blocks(ENOUGH, max(1, count)), width // LEAST)
    pieces = max(1, enough, blocks(width, most))
    return blocks(blocks(width, pieces), LEAST) * LEAST if pieces > 1 else width


def losses(problem: Problem, out: Memory | None = None) -> Memory:
    """Return the weighted loss of each row; with `out`, write the gradients there, classes last."""
    count, active = problem.logits.count, problem.row_weights
    result = new((count,), problem.real, problem.logits.data)
    if problem.pieces == 1:
        given = (
            *problem.own, *problem.others, active, problem.option, result.flat,
        )  # fmt: skip
        if out is None:
            kernel = kernels.losses(*problem.variant)
        else:
            kernel = gradient_kernels.losses_and_gradients(*problem.variant)
            given += _place_of(problem, out)
        seam.launch(kernel, count, THREADS, problem.stream, *given)
        return result
    numbers, integers = _states(problem)
    weighed = numbers.shaped, integers.shaped, problem.row_targets, active
    w = problem.others[3]
    seam.launch(
        kernels.finishes(problem.real, problem.capped), blocks(count, THREADS), THREADS,
        problem.stream, *weighed, w, problem.option, result.flat,
    )  # fmt: skip
    if out is not None:
        found = new((count, gradient_kernels.COEFFICIENTS), problem.real, problem.logits.data)
        seam.launch(
            gradient_kernels.coefficients(problem.real, problem.capped),
            blocks(count, THREADS), THREADS, problem.stream, *weighed, w, problem.option,
            found.shaped,
        )  # fmt: skip
        _emit(problem, found, out)
    return result


class Figures(Sequence[Memory]):
    """Figures of each row, in the order of `row_kernels`, integers last.

    To cut one out takes the host 5 us.
    """

    def __init__(self, numbers: Memory, integers: Memory) -> None:
        self.numbers, self.integers = numbers, integers

    def __len__(self) -> int:
        return kernels.FIGURES + kernels.INTEGER_FIGURES

    def __getitem__(self, k: Any) -> Any:
        if not 0 <= k < len(self):
            raise IndexError(k)
        if k < kernels.FIGURES:
            return self.numbers.part(k)
        return self.integers.part(k - kernels.FIGURES)


def statistics(problem: Problem) -> Sequence[Memory]:
    """Return the figures of each row."""
    return Figures(*_figures(problem))


def _figures(problem: Problem) -> tuple[Memory, Memory]:
    x, count = problem.logits.data, problem.logits.count
    numbers, integers = _states(problem)
    figures = new((kernels.FIGURES, count), problem.real, x)
    positions = new((kernels.INTEGER_FIGURES, count), "int64", x)
    seam.launch(
        kernels.summaries(problem.real, problem.capped), blocks(count, THREADS), THREADS,
        problem.stream, numbers.shaped, integers.shaped, problem.row_targets, problem.option,
        figures.shaped, positions.shaped,
    )  # fmt: skip
    return figures, positions


def entropies(problem: Problem, out: Memory | None = None) -> Memory:
    """Return the weighted entropy of each row; with `out`, write the gradients there."""
    x, count, active = problem.logits.data, problem.logits.count, problem.row_weights
    figures, _ = _figures(problem)
    values, found = new((count,), problem.real, x), _coefficients_for(problem)
    seam.launch(
        gradient_kernels.entropy_coefficients(problem.real), blocks(count, THREADS), THREADS,
        problem.stream, figures.shaped, active, problem.option, values.flat,
        found.shaped,
    )  # fmt: skip
    if out is not None:
        _emit(problem, found, out)
    return values


def logsumexp(problem: Problem) -> Memory:
    """Return log Σ exp(z) of each row, as SciPy does for infinite rows."""
    return statistics(problem)[LOGSUMEXP]


def softmax(problem: Problem, out: Memory) -> None:
    """Write softmax(logits / T): a gradient with nothing to subtract."""
    _softmax(problem, out, False)


def log_softmax(problem: Problem, out: Memory) -> None:
    """Write (z - max) - log_sum."""
    _softmax(problem, out, True)


def _softmax(problem: Problem, out: Memory, logarithm: bool) -> None:
    figures, found = _figures(problem)[0], _coefficients_for(problem)
    seam.launch(
        gradient_kernels.softmax_coefficients(problem.real, logarithm),
        blocks(problem.logits.count, THREADS), THREADS, problem.stream, figures.shaped,
        found.shaped,
    )  # fmt: skip
    _emit(problem, found, out, "logarithm" if logarithm else "none")


def _coefficients_for(problem: Problem) -> Memory:
    shape = problem.logits.count, gradient_kernels.COEFFICIENTS
    return new(shape, problem.real, problem.logits.data)


def _states(problem: Problem) -> tuple[Memory, Memory]:
    """Return numbers and integers of the states of all pieces."""
    x, count, pieces = problem.logits.data, problem.logits.count, problem.pieces
    numbers = new((count, pieces, kernels.NUMBERS), problem.real, x)
    integers = new((count, pieces, kernels.INTEGERS), "int64", x)
    kernel = kernels.states(*problem.variant, problem.statistics, problem.ranks)
    active = problem.row_weights
    seam.launch(
        kernel, (count, pieces) if count else 0, THREADS, problem.stream, *problem.own,
        problem.length, *problem.others, active, problem.option, numbers.shaped,
        integers.shaped,
    )  # fmt: skip
    return numbers, integers


def _place_of(problem: Problem, out: Memory) -> tuple[Any, ...]:
    target = Rows.along(out, problem.logits.source)
    return out.flat, target.starts, target.place


def _emit(problem: Problem, found: Memory, out: Memory, way: str = "") -> None:
    """Write what the coefficients of rows say."""
    storage, capped, weights, soft = problem.variant
    kernel = gradient_kernels.gradients(storage, capped, way or weights, soft, out.storage)
    active = problem.row_weights
    count = problem.logits.count
    length = problem.length if problem.pieces > 1 else problem.logits.width
    seam.launch(
        kernel, (count, -(-problem.logits.width // length)) if count else 0, THREADS,
        problem.stream, *problem.own, length, *problem.others, active, problem.option,
        found.shaped, *_place_of(problem, out),
    )  # fmt: skip
