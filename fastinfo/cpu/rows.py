"""Rows of logits on the processor: what is read when, by which thread.

A thread takes whole rows, so that a second reading finds a row in its cache; rows longer than a
piece are cut into pieces, whose states are merged in order. What kernels cannot read where it lies
(strided, byte-swapped, integers) is copied a tile at a time. Rows of few classes, and rows that lie
beside each other, are read side by side instead, a lane of a vector a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastinfo.arrays import Rows, lazy, read_only
from fastinfo.cpu import gradient_kernels, lane_kernels, lanes
from fastinfo.cpu import row_kernels as kernels
from fastinfo.cpu import row_state_kernels as row
from fastinfo.cpu.row_state_kernels import PIECE
from fastinfo.cpu.simd import AVX2
from fastinfo.cpu.tiles import put, streams, stretch, writable
from fastinfo.engine import run
from fastinfo.formulas import LN2

# Elements of logits that a thread takes at a time, at least (a tenth of a millisecond, twice what
# it costs to wake one) and at most. A row, and a state to merge, cost as much as this many elements
# by themselves.
LEAST = 1 << 20
CHUNK = 1 << 24
ROW_COST = 500
MERGE_COST = 200
# Rows that a thread takes at most: their states stay in cache.
MOST_ROWS = 8192
# Elements of a tile that rows not readable in place are copied to.
TILE = 1 << 20
# Of which logits the first reading keeps its exponentials for the second. With AVX-512 float32 ones
# are computed as fast as kept; keeping took 0.65 of the time for bfloat16, 0.85 to 0.9 for others.
KEEPS = ("float16", "bfloat16", "float64", *(["float32"] if AVX2 else []))
# Figures of `statistics`: in the order of `SoftmaxStatistics`.
REAL_FIGURES = (kernels.MAXIMUM, kernels.LOG_SUM, kernels.LOGSUMEXP, kernels.ENTROPY_OF_ROW)
LOGSUMEXP, ARGMAX = kernels.LOGSUMEXP, kernels.ARGMAX_OF_ROW
LOG_PROB, RANK = kernels.LOG_PROB, kernels.RANK_OF_TARGET
# Columns of a row's state, with one piece of the row or many: the others are 0 where no classes are
# weighed.
STATE_COLUMNS = (
    row.MAX, row.REST, row.ENTROPY, row.ARGMAX, row.RANK, row.TARGET_LOGIT,
)  # fmt: skip
TARGET_LOGIT = row.TARGET_LOGIT
# What a row that is read side by side with others costs beyond its classes.
LANE_COST = 60
# Rows, and classes of these, that are read before the first is finished.
GROUP, GROUPED = 64, 4096
# Logits of targets, and states of other classes, where every stretch is a whole row.
NOWHERE = np.empty(0)
NOTHING = np.empty((0, row.STATE))
# Variant of plain logits of any type: float64 holds them all.
PLAIN = ("float64", "", "none", "float32")


@dataclass(frozen=True)
class Options:
    """Scalars of a softmax: z = logits / temperature, or the softcap's; weights of the classes."""

    temperature: float = 1.0
    softcap: float | None = None
    alpha: float = 1.0
    beta: float = 0.0
    z_loss: float = 0.0

    @property
    def capped(self) -> str:
        """Which of the kernels' ways of a softcap it is; "" for none."""
        if self.softcap is None:
            return ""
        return row.CAPPED if self.softcap <= row.MOST_CAPPED else row.WIDE

    @lazy
    def array(self) -> np.ndarray:
        """The options as kernels take them."""
        slope = 1.0 / self.temperature
        inverse = slope if self.softcap is None else 1.0
        values = np.empty(row.OPTIONS)
        values[row.ALPHA], values[row.BETA] = self.alpha, self.beta
        values[row.Z_LOSS], values[row.SLOPE] = self.z_loss, slope
        values[row.INVERSE_TEMPERATURE] = inverse
        values[row.LOG2_SCALE] = inverse / LN2
        values[row.CAP] = self.softcap or 0.0
        values[row.INNER] = slope / self.softcap if self.softcap else 0.0
        return values


@dataclass(frozen=True)
class Problem:
    """Logits, what weighs their classes, and which rows count.

    The first class of the logits is class `base` of the targets'; `elsewhere` has the logits of
    targets among other classes, `onto` the states of the rows over those that states are put onto.
    """

    logits: Rows
    options: Options
    targets: np.ndarray | None = None
    soft: Rows | None = None
    class_weight: np.ndarray | None = None
    active: np.ndarray | None = None
    statistics: bool = False
    way: str = ""
    ranks: bool = False
    base: int = 0
    elsewhere: np.ndarray | None = None
    onto: np.ndarray | None = None

    @lazy
    def weights(self) -> str:
        """How the classes are weighed, one of the kernels' ways; soft are logits if "relative"."""
        if self.way:
            return self.way
        if self.soft is not None:
            return "rows" if self.class_weight is None else "weighted_rows"
        if self.options.beta == 0.0:
            return "none"
        return "uniform" if self.class_weight is None else "shared"

    @property
    def capped(self) -> str:
        """Which way of a softcap the logits have."""
        return self.options.capped

    @property
    def variant(self) -> tuple[Any, ...]:
        """What the kernels are compiled for."""
        soft = self.soft.storage if self.soft is not None else "float32"
        return self.logits.storage, self.capped, self.weights, soft

    def targets_of(self, lo: int, hi: int) -> np.ndarray:
        """Classes of the rows [lo, hi), -1 for none."""
        return read_only(np.full(hi - lo, -1) if self.targets is None else self.targets[lo:hi])

    def weights_of(self, lo: int, hi: int) -> np.ndarray:
        """Weights of the rows [lo, hi); what rows of weight 0 hold does not matter."""
        return np.ones(hi - lo) if self.active is None else one_by_one(self.active[lo:hi])

    @lazy
    def row_targets(self) -> np.ndarray:
        """Class of each row, -1 for none."""
        return self.targets_of(0, self.logits.count)

    @lazy
    def row_weights(self) -> np.ndarray:
        """Weight of each row."""
        return self.weights_of(0, self.logits.count)

    @lazy
    def target_logits(self) -> np.ndarray:
        """Logit of each row's target, for stretches that do not hold it."""
        own = self.row_targets - self.base
        inside = (own >= 0) & (own < self.logits.width)
        picked = self.logits.pick(np.where(inside, own, -1))
        return picked if self.elsewhere is None else np.where(inside, picked, self.others_logits)

    @lazy
    def others_logits(self) -> np.ndarray:
        """Logits of targets among other classes, to be compared with these."""
        if self.elsewhere is None:
            return NOWHERE
        if self.logits.arithmetic == "float64":
            return np.ascontiguousarray(self.elsewhere)
        return _between_floats(self.elsewhere, self.row_targets >= self.base)

    @lazy
    def class_weights(self) -> np.ndarray:
        """Weights of the classes; empty for none."""
        if self.class_weight is None:
            return read_only(np.empty(0))
        return read_only(self.class_weight)

    @property
    def in_place(self) -> bool:
        """Whether kernels can read all rows where they lie."""
        return not self.logits.copied and (self.soft is None or not self.soft.copied)

    @property
    def by_rows(self) -> bool:
        """Whether threads take whole rows."""
        return self.logits.width <= PIECE

    def stretch(self, lo: int, hi: int, begin: int, end: int) -> tuple[Any, ...]:
        """Arguments of a kernel for the classes [begin, end) of the rows [lo, hi)."""
        memory, starts = stretch(self.logits, lo, hi, begin, end)
        if self.soft is None:
            y, y_starts = read_only(np.empty(0, np.float32)), np.empty(0, np.int64)
        else:
            y, y_starts = stretch(self.soft, lo, hi, begin, end)
        return memory, starts, end - begin, y, y_starts

    @property
    def jumps(self) -> bool:
        """Whether rows that are read in place lie apart."""
        return self.in_place and not self.logits.data.flags.c_contiguous

    def steps(self, target: Rows | None = None) -> tuple[int, int]:
        """Rows that a thread takes at a time, at least and at most; all, if they go by pieces."""
        if not self.by_rows:
            return max(1, self.logits.count), 0
        cost = self.logits.width + ROW_COST
        tiled = not self.in_place or (target is not None and target.copied)
        least, most = (LEAST, CHUNK) if not tiled else (TILE // 2, TILE)
        return max(1, least // cost), min(most // cost, MOST_ROWS)

    @property
    def in_cache(self) -> int:
        """Rows that stay in cache until they are read again; all, if they go by pieces."""
        count, width = self.logits.count, self.logits.width
        return max(1, TILE // 2 // width) if self.by_rows else max(1, count)


def one_by_one(weights: np.ndarray) -> np.ndarray:
    """Return weights in memory of their own if they are one number, repeated."""
    return weights if weights.strides != (0,) else weights.copy()


def _between_floats(x: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Return float32 numbers next to x, above it or below.

    Classes before the target's are counted if they are at least x, those after it if they are
    greater; a float32 logit is so exactly where it is of the neighbour above, or below.
    """
    with np.errstate(over="ignore"):
        near = x.astype(np.float32)
    up, down = np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))
    near = np.where(above & (near < x), up, np.where(~above & (near > x), down, near))
    return near.astype(np.float64)


# --- what is computed ----------------------------------------------------------------------------


def losses(problem: Problem, out: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted loss of each row; with `out`, write the gradients there, classes last."""
    return _read_and_write(problem, None if out is None else _gradient(problem, out))


def _read_and_write(problem: Problem, target: Rows | None) -> np.ndarray:
    """Return what is asked for of each row, and write what is made of its classes, if anything."""
    result = np.empty(problem.logits.count)
    if problem.by_rows:
        _fused(problem, target, result)
        return result
    state = states_by_stretches(problem)
    rest = (problem.row_targets, problem.row_weights, problem.class_weights, problem.options.array)
    kernels.finishes(problem.capped, problem.way)(state, *rest, result)
    if target is not None:
        _write_from(problem, state, target)
    return result


def statistics(problem: Problem) -> dict[int, np.ndarray]:
    """Return the figures of each row (see `row_kernels`), each in the type that it is given in."""
    count, real = problem.logits.count, problem.logits.arithmetic
    of_targets = {} if problem.targets is None else {LOG_PROB: real, RANK: "int64"}
    types = {**dict.fromkeys(REAL_FIGURES, real), ARGMAX: "int64", **of_targets}
    result = {number: np.empty(count, dtype) for number, dtype in types.items()}
    beside = lanes.side_by_side(problem.logits)
    read = _statistics_side_by_side(problem) if beside else _statistics_by_rows(problem)

    def work(lo: int, hi: int, *places: Any) -> None:
        figures = read(lo, hi, *places)
        with np.errstate(all="ignore"):  # beyond the range of float32 is inf
            for number, values in result.items():
                values[lo:hi] = figures[number]

    if beside:
        lanes.over_rows(work, problem.logits, None, None, LANE_COST)
    else:
        run(work, count, *problem.steps())
    return result


def _statistics_by_rows(problem: Problem) -> Callable[..., np.ndarray]:
    """Return read(lo, hi): the figures of some rows, one row of the result a figure."""
    summarise = kernels.summaries(problem.capped)

    def read(lo: int, hi: int) -> np.ndarray:
        state, figures = states_of_rows(problem, lo, hi), np.empty((kernels.FIGURES, hi - lo))
        summarise(state, problem.targets_of(lo, hi), problem.options.array, figures)
        return figures

    return read


def _statistics_side_by_side(problem: Problem) -> Callable[..., np.ndarray]:
    """Return the same of rows side by side."""
    width = problem.logits.width
    summarise = lane_kernels.statistics(problem.logits.storage, problem.capped, problem.ranks)

    def read(lo: int, hi: int, least: int, *nowhere: Any) -> np.ndarray:
        figures = np.empty((kernels.FIGURES, hi - lo))
        summarise(
            *lanes.spread_out(problem.logits, lo, hi), width, problem.targets_of(lo, hi),
            problem.options.array, lane_kernels.Room.of(problem.variant, width), least, figures,
        )  # fmt: skip
        return figures

    return read


def entropies(problem: Problem, out: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted entropy of each row; with `out`, write the gradients there.

    It is what `losses` gives where classes are weighed the way "entropy".
    """
    return losses(problem, out)


def logsumexp(problem: Problem) -> np.ndarray:
    """Return log Σ exp(z) of each row, as SciPy does for infinite rows."""
    return losses(replace(problem, way=row.LOGSUMEXP_WAY))


def softmax(problem: Problem, out: np.ndarray) -> None:
    """Write softmax(logits / T): a gradient with nothing to subtract."""
    _read_and_write(replace(problem, way=row.SOFTMAX_WAY), _result(out))


def log_softmax(problem: Problem, out: np.ndarray) -> None:
    """Write (z - max) / T - log_sum."""
    _read_and_write(replace(problem, way=row.LOG_SOFTMAX_WAY), _result(out))


# --- classes that come in pieces -----------------------------------------------------------------


def no_states(count: int) -> np.ndarray:
    """Return the states of rows of which no class has come."""
    state = np.zeros((count, row.STATE))
    state[:, row.MAX], state[:, row.REST] = -np.inf, -1.0
    state[:, row.ARGMAX], state[:, row.TARGET_LOGIT] = -1.0, np.nan
    return state


def states(problem: Problem) -> np.ndarray:
    """Return the states of all rows, put onto those of other classes if there are any."""
    rows, elsewhere = problem.logits, problem.others_logits
    if not problem.by_rows:
        state = states_by_stretches(replace(problem, onto=None))
        return state if problem.onto is None else _put_onto(problem, state)
    state = np.empty((rows.count, row.STATE))
    if problem.in_place:
        read = _reader(problem, 0, rows.count, 0, rows.width, elsewhere)
        run(lambda lo, hi: read(lo, 1, state[lo:hi]), rows.count, *problem.steps())
        return state

    def read_tile(lo: int, hi: int) -> None:
        _reader(problem, lo, hi, 0, rows.width, elsewhere[lo:hi])(0, 1, state[lo:hi])

    run(read_tile, rows.count, *problem.steps())
    return state


def _put_onto(problem: Problem, piece: np.ndarray) -> np.ndarray:
    """Return the states of rows over other classes and those of a piece."""
    assert problem.onto is not None
    state = merged([piece, problem.onto], problem.variant, problem.options)
    end = problem.base + problem.logits.width
    outside = (problem.row_targets < problem.base) | (problem.row_targets >= end)
    state[outside, TARGET_LOGIT] = problem.onto[outside, TARGET_LOGIT]
    return state


def merged(
    pieces: list[np.ndarray], variant: tuple[Any, ...] = PLAIN, options: Options | None = None
) -> np.ndarray:
    """Return the states of rows from those of their pieces, in any order."""
    state = np.empty_like(pieces[0])
    merge, given = _merges(variant), (options or Options()).array

    def task(lo: int, hi: int) -> None:
        merge(np.stack([piece[lo:hi] for piece in pieces], axis=1), given, state[lo:hi])

    run(task, len(state), max(1, LEAST // (len(pieces) * MERGE_COST)), CHUNK)
    return state


def _merges(variant: tuple[Any, ...]) -> Any:
    storage, capped, weights, soft = variant
    arithmetic = row.arithmetic_of(storage, capped, weights, soft)
    return kernels.merges(capped, arithmetic, weights == "relative")


def losses_of(
    state: np.ndarray, targets: np.ndarray, weights: np.ndarray, options: Options | None = None,
    class_weights: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return the weighted loss of each row from its state."""
    result, options = np.empty(len(state)), options or Options()
    w = read_only(NOWHERE) if class_weights is None else class_weights
    given = read_only(targets), one_by_one(weights), w, options.array
    kernels.finishes(options.capped, "")(state, *given, result)
    return result


def figures_of(
    state: np.ndarray, targets: np.ndarray, options: Options | None = None
) -> np.ndarray:
    """Return the figures of rows from their states, as `statistics` does."""
    figures, options = np.empty((kernels.FIGURES, len(state))), options or Options()
    kernels.summaries(options.capped)(state, read_only(targets), options.array, figures)
    return figures


def gradients(problem: Problem, state: np.ndarray, out: np.ndarray) -> None:
    """Write the gradients of the losses that the states give, classes last."""
    _write_from(problem, state, _gradient(problem, out))


def _write_from(problem: Problem, state: np.ndarray, target: Rows) -> None:
    """Write what the states of the rows make of their classes."""
    coefficients = np.empty((len(state), gradient_kernels.COEFFICIENTS))
    gradient_kernels.coefficients(problem.capped, problem.way)(
        state, problem.row_targets, problem.row_weights, problem.class_weights,
        problem.options.array, coefficients,
    )  # fmt: skip
    if problem.logits.arithmetic == "float32" and not problem.capped:
        _refer_to_floats(coefficients)
    _emit(problem, coefficients, target)


def _refer_to_floats(coefficients: np.ndarray) -> None:
    """Measure gradients from float32 numbers: a row's maximum may be among classes in float64."""
    most = float(np.finfo(np.float32).max)
    reference = coefficients[:, gradient_kernels.REFERENCE].copy()
    with np.errstate(all="ignore"):  # rows that do not count hold anything
        near = np.clip(reference, -most, most).astype(np.float32).astype(np.float64)
        coefficients[:, gradient_kernels.SCALE] *= np.exp(near - reference)
    coefficients[:, gradient_kernels.REFERENCE] = near


# --- by rows -------------------------------------------------------------------------------------


def _fused(problem: Problem, target: Rows | None, result: np.ndarray) -> None:
    """Read and finish, and write if there is where to, some rows at a time."""
    if lanes.side_by_side(problem.logits):
        _side_by_side(problem, target, result)
        return
    group = max(1, min(GROUP, GROUPED // max(1, problem.logits.width)))
    if target is None:
        read = kernels.losses(*problem.variant)
    else:
        keeps = problem.weights == "none" and not problem.capped
        keeps &= problem.logits.storage in KEEPS
        kept = (problem.logits.storage, "", "kept", problem.logits.arithmetic)
        variant = kept if keeps else problem.variant
        read_and_write = gradient_kernels.losses_and_gradients(*variant, target.storage)
        streamed = streams(target, problem.logits)

    def task(lo: int, hi: int) -> None:
        logits, starts, width, y, y_starts = problem.stretch(lo, hi, 0, problem.logits.width)
        if target is not None and keeps:
            y = np.empty(group * width, problem.logits.arithmetic)
            y_starts = np.arange(hi - lo) % group * width
        given = (
            logits, starts, width, y, y_starts, problem.class_weights, problem.targets_of(lo, hi),
            problem.weights_of(lo, hi), problem.options.array, result[lo:hi],
            np.empty((group, row.STATE)),
        )  # fmt: skip
        if target is None:
            read(*given)
            return
        memory, out_starts, tile = writable(target, lo, hi, 0, width)
        coefficients = np.empty((group, gradient_kernels.COEFFICIENTS))
        read_and_write(*given, coefficients, memory, out_starts, streamed)
        put(target, tile, lo, hi, 0)

    run(task, problem.logits.count, *problem.steps(target))


def _side_by_side(problem: Problem, target: Rows | None, result: np.ndarray) -> None:
    """The same for rows side by side, a lane of a vector a row."""
    width, into = problem.logits.width, "" if target is None else target.storage
    read_rows = lane_kernels.losses(*problem.variant, into)

    def read(lo: int, hi: int, *places: Any) -> None:
        read_rows(
            *lanes.spread_out(problem.logits, lo, hi), width,
            *lanes.spread_out(problem.soft, lo, hi), problem.class_weights,
            problem.targets_of(lo, hi), problem.weights_of(lo, hi), problem.options.array,
            result[lo:hi], lane_kernels.Room.of(problem.variant, width, into), *places,
        )  # fmt: skip

    lanes.over_rows(read, problem.logits, problem.soft, target, LANE_COST)


def states_of_rows(problem: Problem, lo: int, hi: int) -> np.ndarray:
    """Return the states of the rows [lo, hi); of all, where they are longer than a piece."""
    if not problem.by_rows:
        return states_by_stretches(problem)
    state = np.empty((hi - lo, row.STATE))
    _reader(problem, lo, hi, 0, problem.logits.width, NOWHERE)(0, 1, state)
    return state


def _reader(
    problem: Problem, lo: int, hi: int, begin: int, end: int, elsewhere: np.ndarray
) -> Callable[[int, int, np.ndarray], None]:
    """Return read(first, pieces, state): states of pieces of the classes [begin, end) of rows."""
    read_states = kernels.states(
        *problem.variant, problem.statistics, problem.ranks, problem.jumps, problem.onto is not None
    )
    memory, starts, width, y, y_starts = problem.stretch(lo, hi, begin, end)
    before = NOTHING if problem.onto is None else problem.onto[lo:hi]
    given = (
        memory, starts, width, problem.base + begin, y, y_starts, problem.class_weights,
        problem.targets_of(lo, hi), elsewhere, before, problem.weights_of(lo, hi),
        problem.options.array,
    )  # fmt: skip
    return lambda first, pieces, state: read_states(first, pieces, *given, state)


# --- by stretches --------------------------------------------------------------------------------


def stretches(width: int, lo: int, hi: int) -> list[tuple[int, int, int, int]]:
    """Cut rows [lo, hi) into tasks (lo, hi, begin, end); pieces end where the kernels' do."""
    group = max(1, TILE // min(width, PIECE))
    return [
        (first, min(first + group, hi), begin, min(begin + PIECE, width))
        for first in range(lo, hi, group)
        for begin in range(0, width, PIECE)
    ]


def states_by_stretches(problem: Problem) -> np.ndarray:
    """Return the states of all rows, read piece by piece and merged in order."""
    rows = problem.logits
    count, pieces = rows.count, -(-rows.width // PIECE)
    parts = np.empty((count, pieces, row.STATE))
    # before any thread writes to `out`, which may be the logits
    elsewhere = NOWHERE if problem.targets is None else problem.target_logits
    if problem.in_place:
        flat = parts.reshape(count * pieces, row.STATE)
        read = _reader(problem, 0, count, 0, rows.width, elsewhere)
        run(lambda first, last: read(first, pieces, flat[first:last]), len(flat), 1, len(flat))
    else:
        tasks = stretches(rows.width, 0, rows.count)

        def read_tile(first: int, last: int) -> None:
            for lo, hi, begin, end in tasks[first:last]:
                state = np.empty((hi - lo, row.STATE))
                _reader(problem, lo, hi, begin, end, elsewhere[lo:hi])(0, 1, state)
                parts[lo:hi, begin // PIECE] = state

        run(read_tile, len(tasks), 1)
    state = np.empty((count, row.STATE))
    _merges(problem.variant)(parts, problem.options.array, state)
    return state


def _emit(problem: Problem, coefficients: np.ndarray, target: Rows) -> None:
    """Write what the coefficients of the rows say, and put tiles in their places."""
    write_rows = gradient_kernels.gradients(*problem.variant, target.storage)
    streamed = streams(target, problem.logits)
    tasks = stretches(problem.logits.width, 0, problem.logits.count)

    def write(first: int, last: int) -> None:
        for lo, hi, begin, end in tasks[first:last]:
            memory, starts, tile = writable(target, lo, hi, begin, end)
            logits, offsets, width, y, y_starts = problem.stretch(lo, hi, begin, end)
            write_rows(
                logits, offsets, width, problem.base + begin, y, y_starts, problem.class_weights,
                problem.targets_of(lo, hi), problem.weights_of(lo, hi), problem.options.array,
                coefficients[lo:hi], memory, starts, streamed,
            )  # fmt: skip
            put(target, tile, lo, hi, begin)

    run(write, len(tasks), 1)


def _result(out: np.ndarray) -> Rows:
    return Rows.along(out, out.dtype.name, out.dtype.name)


def _gradient(problem: Problem, out: np.ndarray) -> Rows:
    return Rows.along(out, *[problem.logits.storage] * 2)
