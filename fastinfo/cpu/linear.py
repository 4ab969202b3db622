"""Linear cross-entropy: logits that are made, read and dropped a block at a time.

The products are BLAS's, the reading is that of any rows of logits (`rows.py`). A block of logits is
a product of some rows of `hidden` and a stretch of the classes, in memory that the next block takes
over; the states of stretches merge. For gradients a stretch is all classes: the block becomes the
derivative by the logits, and enters two more products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fastinfo.arrays import Rows, Source, as_result, empty, lazy, narrow, widen
from fastinfo.cpu import linear_kernels as kernels
from fastinfo.cpu import row_kernels, rows
from fastinfo.cpu.row_state_kernels import STATE
from fastinfo.engine import get_num_threads, run

# Classes that are widened for one product, and elements of it where rows are few. Rows beyond ROWS
# make a product no faster. BLAS's threads and ours are in each other's way when one follows the
# other: fewer and larger blocks than fit a cache are faster.
PART, PRODUCT = 16384, 1 << 18
# Classes of a product that is added to a gradient: more are no faster, and take memory from logits.
ADDED = 2048
ROWS = 1024
BLOCK = 1 << 24
# What BLAS multiplies at once: 344 rows are 6 % faster than 342. And elements between long rows of
# a block: a stride of a power of two has all of them in the same sets of the caches, 7 % slower.
MULTIPLE, PAD, LONG = 8, 16, 1024
# Rows added up in float32 for the gradient of the bias, before it goes to float64.
RUN = 256
# Elements that a thread adds or converts at a time, and that all of them do.
CHUNK, TOGETHER = 1 << 18, 1 << 22

# Logits beyond the range of their type are infinite, and what comes of them NaN.
_quiet = np.errstate(all="ignore")


@dataclass(frozen=True)
class Factor:
    """A matrix of rows for products, in the type `real` they are computed in."""

    data: np.ndarray
    dtype: str
    real: str

    @lazy
    def in_place(self) -> bool:
        """Whether BLAS can read the rows where they lie; else they are copied block by block."""
        x = self.data
        plain = self.dtype == self.real and x.dtype.isnative and x.flags.aligned and x.ndim == 2
        return plain and (_is_dense(x) or _is_dense(x.T))

    def take(self, index: slice | np.ndarray) -> np.ndarray:
        """Return rows as a matrix."""
        part = _taken(self.data, index)
        if self.in_place and isinstance(index, slice):
            return part
        rows = np.empty(part.shape, self.real)

        def task(lo: int, hi: int) -> None:
            rows[lo:hi] = widen(part[lo:hi], self.dtype)

        _by_threads(task, rows)
        return rows


def _taken(x: np.ndarray, index: slice | np.ndarray) -> np.ndarray:
    """Return rows of an array of any number of axes, a slice of a matrix where they lie."""
    if x.ndim == 2:
        return x[index]
    lead = x.shape[:-1]
    numbers = np.arange(*index.indices(math.prod(lead))) if isinstance(index, slice) else index
    return x[np.unravel_index(numbers, lead)] if lead else x[np.newaxis]


def _is_dense(x: np.ndarray) -> bool:
    """Whether rows of elements side by side follow one another, maybe apart."""
    item = x.itemsize
    return x.strides[1] == item and x.strides[0] >= item * x.shape[1] and x.strides[0] % item == 0


@dataclass(frozen=True)
class Job:
    """Rows of logits hidden @ weight.T + bias, what weighs their classes, and which rows count.

    `limit` is how many bytes may be taken beside arguments and gradients.
    """

    hidden: Factor
    weight: Factor
    bias: np.ndarray | None
    options: rows.Options
    limit: int
    targets: np.ndarray | None = None
    soft: Source | None = None
    class_weight: np.ndarray | None = None
    active: np.ndarray | None = None
    statistics: bool = False

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.weight.data.shape[0]

    @property
    def features(self) -> int:
        """Length of a hidden state."""
        return self.weight.data.shape[1]

    @property
    def real(self) -> str:
        """Type of the logits."""
        return self.hidden.real

    @property
    def item(self) -> int:
        """Bytes of a logit."""
        return np.dtype(self.real).itemsize

    def problem(
        self, index: slice | np.ndarray, logits: np.ndarray, begin: int, onto: np.ndarray
    ) -> rows.Problem:
        """Return the logits of some rows, from class `begin` on, to be read."""
        soft = None
        if self.soft is not None:
            y = _taken(self.soft.data[..., begin : begin + logits.shape[1]], index)
            soft = Rows.along(y, self.soft.dtype, self.soft.storage)
        return rows.Problem(
            Rows.along(logits, self.real, self.real),
            self.options,
            targets=None if self.targets is None else self.targets[index],
            soft=soft,
            class_weight=self.class_weight,
            active=None if self.active is None else self.active[index],
            statistics=self.statistics,
            ranks=self.statistics and self.targets is not None,
            base=begin,
            onto=onto,
        )


@dataclass(frozen=True)
class Gradients:
    """Where gradients go: by `hidden` in its own type, by weight and bias added up; None for none.

    The first block of rows writes `weight`, later ones add to it. `buffers` are memory and type of
    what the caller gets, which may be that itself.
    """

    hidden: np.ndarray | None
    dtype: str
    weight: np.ndarray | None
    bias: np.ndarray | None
    buffers: dict[str, tuple[np.ndarray, str]]


def vector(source: Source, real: str) -> np.ndarray:
    """Return the elements of a vector in a type."""
    return as_result(source.values(), real)


def accumulators(job: Job, buffers: dict[str, tuple[np.ndarray, str]]) -> Gradients:
    """Where gradients are computed: in their buffers if type and layout allow."""
    by_hidden = by_weight = by_bias = None
    storage = job.real
    if "hidden" in buffers:
        memory, storage = buffers["hidden"]
        flat = (math.prod(memory.shape[:-1]), job.features)
        by_hidden = memory.reshape(flat) if _is_plain(memory) else empty(flat, storage)
        by_hidden[:] = 0
    if "weight" in buffers:
        memory, _ = buffers["weight"]
        as_it_is = _is_plain(memory) and memory.dtype.name == job.real
        by_weight = memory if as_it_is else empty((job.classes, job.features), job.real)
    if "bias" in buffers:
        by_bias = np.zeros(job.classes)
    return Gradients(by_hidden, storage, by_weight, by_bias, buffers)


def _is_plain(x: np.ndarray) -> bool:
    return x.flags.c_contiguous and x.flags.aligned


def finish(job: Job, gradients: Gradients) -> None:
    """Write gradients into their buffers, where they are not there yet."""
    for name, (memory, storage) in gradients.buffers.items():
        values = getattr(gradients, name)
        if not np.may_share_memory(values, memory):
            _round(values, memory, storage, job.limit)


def _round(values: np.ndarray, memory: np.ndarray, storage: str, limit: int) -> None:
    """Write what was added up in the type of its buffer, some rows at a time, within the limit."""
    if values.dtype == memory.dtype:
        memory[...] = values.reshape(memory.shape)
        return

    def task(lo: int, hi: int) -> None:
        memory[lo:hi] = _narrow(values[lo:hi], storage)

    _by_threads(task, values, limit // 128)


def _narrow(values: np.ndarray, storage: str) -> np.ndarray:
    """Return numbers in a storage type, 16-bit ones as words."""
    if values.dtype != np.float32 or storage not in ("float16", "bfloat16"):
        return narrow(values, storage)
    words = np.empty(values.shape, np.uint16)
    kernels.roundings(storage)(np.ascontiguousarray(values).ravel(), words.ravel())
    return words


@dataclass(frozen=True)
class Plan:
    """How many rows and classes a block has at most, and how many classes a product.

    One that is added to the gradient by weight has `added` classes, 0 if there is none.
    """

    rows: int
    stretch: int
    part: int
    added: int


class TooLittle(Exception):
    """The limit of memory is below what a single row takes, which is the argument."""


def plan(job: Job, count: int, gradients: Gradients | None) -> Plan:
    """Cut `count` rows into blocks within the limit; with gradients a block has all classes."""
    whole = gradients is not None or (job.statistics and job.targets is not None)
    a_class, soft = job.features * job.item, 0 if job.soft is None else job.soft.data.itemsize
    a_logit = job.item + soft
    # a hidden state and its derivative; what converts 16-bit ones takes three times as much beside
    a_row = a_class * (2 if job.hidden.in_place else 8) + 8 * STATE * 2
    copies = 2 * (not job.weight.in_place)
    adds = int(_adds(gradients))
    least = a_row + a_logit * (job.classes + _pad(job.classes) if whole else 1)
    fixed = 0 if job.bias is None else job.bias.nbytes
    if gradients is not None and gradients.bias is not None:
        fixed += job.classes * (job.item + gradients.bias.itemsize)
    room = job.limit * 3 // 4 - fixed  # 41 of 256 MiB are BLAS's own copies, and what is small
    if room < least + (copies + adds) * a_class:
        raise TooLittle(-(-(least + (copies + adds) * a_class + fixed) * 4 // 3))
    spare = min(room // 8, room - least - copies * a_class)
    added = adds * min(job.classes, ADDED, max(1, spare // max(1, a_class)))
    room -= added * a_class
    few = min(max(count, 1), ROWS)
    part = min(job.classes, max(PART, PRODUCT // few))
    part = min(part, max(1, min(room // 8, room - least) // max(1, copies * a_class)))
    room -= part * copies * a_class
    stretch = job.classes
    if not whole:
        fits = (room - a_row) // a_logit
        stretch = min(stretch, max(part, BLOCK // few), fits - _pad(fits))
    a_row += (stretch + _pad(stretch)) * a_logit
    rows_at_most = min(max(ROWS, BLOCK // stretch), room // a_row)
    length = -(-_even(count, rows_at_most) // MULTIPLE) * MULTIPLE
    length = min(length, rows_at_most, max(count, 1))
    return Plan(length, _even(job.classes, stretch), part, added)


def _pad(classes: int) -> int:
    """Elements between rows of a block of logits."""
    return PAD if classes >= LONG else 0


def _adds(gradients: Gradients | None) -> bool:
    """Whether blocks of rows add to a gradient by weight."""
    return gradients is not None and gradients.weight is not None


def _even(n: int, most: int) -> int:
    """Length of the fewest pieces of n that are no longer than `most`, all about as long."""
    pieces = max(1, -(-n // most))
    return max(1, -(-n // pieces))


def _pieces(n: int, length: int) -> Iterator[tuple[int, int]]:
    return ((lo, min(lo + length, n)) for lo in range(0, n, length))


@dataclass(frozen=True)
class Block:
    """Some rows that have been read: which, their hidden states, and the last logits of them.

    `room` is for what is added to a part of the gradient by weight.
    """

    first: bool
    index: slice | np.ndarray
    hidden: np.ndarray
    logits: np.ndarray
    problem: rows.Problem
    state: np.ndarray
    room: np.ndarray
    part: int


@_quiet
def losses(job: Job, gradients: Gradients | None = None) -> np.ndarray:
    """Return the weighted loss of each row; write the gradients that are asked for."""
    assert job.active is not None
    kept = np.flatnonzero(job.active)
    result = np.zeros(len(job.active))
    for block in _read(job, kept, gradients):
        problem = block.problem
        result[block.index] = rows.losses_of(
            block.state, problem.row_targets, problem.row_weights, job.options,
            problem.class_weights,
        )  # fmt: skip
        if gradients is not None:
            rows.gradients(problem, block.state, block.logits)
            _add(job, block, gradients)
    if gradients is not None and gradients.weight is not None and not kept.size:
        gradients.weight[:] = 0.0
    return result


@_quiet
def statistics(job: Job) -> np.ndarray:
    """Return the figures of each row, one row of the result a figure."""
    count = math.prod(job.hidden.data.shape[:-1])
    figures = np.empty((row_kernels.FIGURES, count))
    # the rank of a target needs its logit before the first class is read
    for block in _read(job, np.arange(count), None):
        targets = block.problem.row_targets
        figures[:, block.index] = rows.figures_of(block.state, targets, job.options)
    return figures


def _read(job: Job, kept: np.ndarray, gradients: Gradients | None) -> Iterator[Block]:
    """Read rows block after block."""
    cut = plan(job, kept.size, gradients)
    memory = np.empty((cut.rows, cut.stretch + _pad(cut.stretch)), job.real)
    room = np.empty((cut.added if cut.rows < kept.size else 0, job.features), job.real)
    for lo, hi in _pieces(kept.size, cut.rows):
        index, state = _as_slice(kept[lo:hi]), rows.no_states(hi - lo)
        hidden = job.hidden.take(index)
        for begin, end in _pieces(job.classes, cut.stretch):
            logits = memory[: hi - lo, : end - begin]
            _write_logits(job, hidden, begin, logits, cut.part)
            problem = job.problem(index, logits, begin, state)
            state = rows.states(problem)
        yield Block(lo == 0, index, hidden, logits, problem, state, room, cut.part)


def _as_slice(numbers: np.ndarray) -> slice | np.ndarray:
    """Return increasing numbers as a slice if none is left out."""
    first, last = int(numbers[0]), int(numbers[-1])
    return slice(first, last + 1) if last - first + 1 == numbers.size else numbers


def _write_logits(job: Job, hidden: np.ndarray, begin: int, logits: np.ndarray, part: int) -> None:
    """Write hidden @ weight.T + bias of the classes from `begin` on."""
    classes = logits.shape[1]
    for lo, hi in _pieces(classes, classes if job.weight.in_place else part):
        z = logits[:, lo:hi]
        np.matmul(hidden, job.weight.take(slice(begin + lo, begin + hi)).T, out=z)
        if job.bias is not None:
            _add_up(z, job.bias[np.newaxis, begin + lo : begin + hi])


def _add(job: Job, block: Block, gradients: Gradients) -> None:
    """Carry the derivative by some rows of logits on to what these were made of."""
    g, hidden = block.logits, block.hidden
    if gradients.hidden is not None:
        by_hidden = _times_weight(job, g, block.part)
        gradients.hidden[block.index] = _narrow(by_hidden, gradients.dtype)
    if gradients.weight is not None:
        if block.first:
            np.matmul(g.T, hidden, out=gradients.weight)
        for lo, hi in () if block.first else _pieces(job.classes, len(block.room)):
            added = np.matmul(g[:, lo:hi].T, hidden, out=block.room[: hi - lo])
            _add_up(gradients.weight[lo:hi], added)
    if gradients.bias is not None:
        for lo, hi in _pieces(len(g), RUN):
            gradients.bias[:] += np.matmul(np.ones(hi - lo, g.dtype), g[lo:hi])


def _times_weight(job: Job, g: np.ndarray, part: int) -> np.ndarray:
    """Return g @ weight, a part of the classes at a time where they are copied."""
    if job.weight.in_place:
        return np.matmul(g, job.weight.data)
    total = np.zeros((len(g), job.features), g.dtype)
    for lo, hi in _pieces(job.classes, part):
        total += np.matmul(g[:, lo:hi], job.weight.take(slice(lo, hi)))
    return total


def _add_up(total: np.ndarray, x: np.ndarray) -> None:
    """Add a matrix, or one row, to a matrix, by several threads."""

    def task(lo: int, hi: int) -> None:
        total[lo:hi] += x[lo:hi] if len(x) > 1 else x

    _by_threads(task, total)


def _by_threads(task: Callable[[int, int], None], x: np.ndarray, together: int = TOGETHER) -> None:
    """Call ``task(lo, hi)`` over the rows of a matrix, without warnings, by several threads."""

    def quiet(lo: int, hi: int) -> None:
        with np.errstate(all="ignore"):  # a thread has its own
            task(lo, hi)

    most = min(CHUNK, together // get_num_threads())
    run(quiet, len(x), max(1, most // max(1, x[:1].size)))
