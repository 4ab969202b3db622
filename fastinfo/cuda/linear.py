"""Linear cross-entropy on a device: logits that are made, read and dropped a block at a time.

A block is whole rows of logits, as many as the limit of memory holds: a product makes it, the
kernels of rows (`rows.py`) turn it into losses and in its place into the derivative by the logits,
which enters two more products. Rows that are ignored take part, since only the device knows them:
as zeros, whatever they hold.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfo.arrays import Source, lazy
from fastinfo.cuda import linear_kernels as kernels
from fastinfo.cuda import products, rows, seam
from fastinfo.cuda.arrays import Memory, Rows, blocks, new

# Rows of a block at most: a product of more is no faster.
ROWS = 8192
# Share of the memory that classes of a converted weight, or of what is added to a gradient, take.
SHARE = 4
# Bytes of a row's state, figures and weights.
SMALL = 256
HALVES = ("float16", "bfloat16")
# Share of the classes whose derivatives are split into bfloat16 at a time, by 8 for wide loads.
SPLIT = 8


@dataclass(frozen=True)
class Factor:
    """A matrix of rows for products, in the type `real` they are computed in."""

    data: Memory
    dtype: str
    real: str

    def __post_init__(self) -> None:
        if self.dtype not in (*HALVES, "float32", "float64"):
            raise TypeError(
                f"hidden and weight must hold floats on a CUDA device (bfloat16, float16, float32, "
                f"float64), got dtype {self.dtype}"
            )

    @lazy
    def rows(self) -> Rows:
        """The rows of the matrix."""
        return Rows.along(self.data, _source(self.data))

    @lazy
    def regular(self) -> bool:
        """Whether a library for products can read the rows where they lie."""
        step, row_step = self.rows.step, self.rows.row_step
        if row_step is None:
            return False
        n, width = self.rows.count, self.rows.width
        return (step == 1 and (n <= 1 or row_step >= width)) or (row_step == 1 and step >= n > 0)

    @lazy
    def in_place(self) -> bool:
        """Whether rows are multiplied in the type of products without a copy."""
        return self.dtype == self.real and self.regular

    def matrix(self, lo: int, hi: int) -> Memory:
        """Return rows where they lie."""
        width, step = self.rows.width, self.rows.row_step or 0
        strides = (step if self.rows.count > 1 else width), self.rows.step
        at = self.data.address + lo * step * self.data.dtype.itemsize
        return dataclasses.replace(self.data, address=at, shape=(hi - lo, width), strides=strides)

    def copied(self, lo: int, hi: int, room: Memory, active: Memory | None = None) -> Memory:
        """Return rows in the type of `room`, which they fill; zeros where the weight is 0."""
        out = between(room, 0, hi - lo)
        _copy(rows_between(self.rows, lo, hi), hi - lo, out, self.real, active)
        return out


def _source(data: Memory) -> Source:
    return Source("logits", data, data.storage, data.kind, None, data.place)


def between(x: Memory, lo: int, hi: int) -> Memory:
    """Return parts along the first axis, for kernels and products: `native` is still the whole."""
    at = x.address + lo * x.strides[0] * x.dtype.itemsize
    return dataclasses.replace(x, address=at, shape=(hi - lo, *x.shape[1:]))


def rows_between(x: Rows, lo: int, hi: int) -> Rows:
    """Return some rows, for kernels."""
    if x.row_step is None:
        part = dataclasses.replace(x)
        part.__dict__["starts"] = x.starts[lo:hi]
        return part
    data = x.data
    at = data.address + lo * x.row_step * data.dtype.itemsize
    shape, strides = (hi - lo, x.width), (x.row_step, x.step)
    return Rows(
        dataclasses.replace(data, address=at, shape=shape, strides=strides), x.storage, x.source
    )


def _copy(x: Rows, count: int, out: Memory, real: str, active: Memory | None = None) -> None:
    """Write rows into memory of another type."""
    target = Rows.along(out, _source(out))
    weights = seam.nothing(real) if active is None else active.flat
    seam.launch(
        kernels.copies(x.storage, out.storage, real), count if x.width else 0, kernels.THREADS,
        out.stream, x.data.flat, x.starts, x.place, x.width, weights, out.flat, target.starts,
        target.place,
    )  # fmt: skip


def vector(source: Source, real: str) -> Memory:
    """Return the elements of a vector side by side in a type."""
    x = source.data
    if source.dtype == real and x.contiguous:
        return x
    out = new(x.shape, real, x)
    _copy(Rows.of(source), 1, out, real)
    return out


@dataclass(frozen=True)
class Job:
    """Rows of logits hidden @ weight.T + bias; see `cpu.linear.Job`."""

    hidden: Factor
    weight: Factor
    bias: Memory | None
    options: rows.Options
    limit: int
    targets: Memory | None = None
    soft: Source | None = None
    class_weight: Memory | None = None
    active: Memory | None = None
    statistics: bool = False

    def __post_init__(self) -> None:
        kinds = self.hidden.data.kind, self.weight.data.kind
        if len(set(kinds)) > 1:
            raise TypeError(
                f"hidden and weight must be arrays of one library on a CUDA device, got {kinds}"
            )

    @property
    def count(self) -> int:
        """Number of rows."""
        return math.prod(self.hidden.data.shape[:-1])

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

    @lazy
    def halves(self) -> bool:
        """Whether the logits are products of 16-bit matrices as they lie."""
        h, w = self.hidden, self.weight
        same = h.dtype == w.dtype and h.dtype in HALVES and h.regular and w.regular
        return same and products.takes_halves(h.data.kind)

    @lazy
    def splits(self) -> bool:
        """Whether derivatives by logits, as sums of two bfloat16, are multiplied with bfloat16.

        On tensor cores twice the work takes a fraction of the time; float16 has not the range.
        """
        adds = products.adds(self.hidden.data.kind)
        return self.halves and self.hidden.dtype == "bfloat16" and adds

    @lazy
    def soft_rows(self) -> Rows | None:
        """Rows of probabilities."""
        return None if self.soft is None else Rows.of(self.soft)

    def new(self, *shape: int) -> Memory:
        """Return memory of the type of the logits."""
        return new(shape, self.real, self.hidden.data)

    def problem(self, lo: int, hi: int, logits: Memory) -> rows.Problem:
        """Return the logits of some rows, to be read."""
        return rows.Problem(
            Rows.along(logits, _source(logits)),
            self.options,
            targets=None if self.targets is None else between(self.targets, lo, hi),
            soft=None if self.soft_rows is None else rows_between(self.soft_rows, lo, hi),
            class_weight=self.class_weight,
            active=None if self.active is None else between(self.active, lo, hi),
            statistics=self.statistics,
            ranks=self.statistics and self.targets is not None,
        )


@dataclass(frozen=True)
class Gradients:
    """Where gradients go, and where those by weight and bias are added up; None for none."""

    hidden: Memory | None
    weight: Memory | None
    bias: Memory | None
    weight_sum: Memory | None
    bias_sum: Memory | None


def accumulators(job: Job, buffers: dict[str, tuple[Memory, str]]) -> Gradients:
    """Return where gradients are computed, given the memory and type of each."""
    found = {name: memory for name, (memory, _) in buffers.items()}
    weight, weight_sum, bias_sum = found.get("weight"), None, None
    if weight is not None:
        as_it_is = weight.contiguous and weight.storage == job.real
        weight_sum = weight if as_it_is else job.new(job.classes, job.features)
    if "bias" in found:
        bias_sum = new((job.classes,), "float64", job.hidden.data).filled(0)
    return Gradients(found.get("hidden"), weight, found.get("bias"), weight_sum, bias_sum)


def finish(job: Job, gradients: Gradients) -> None:
    """Round what was added up into the buffers."""
    if gradients.weight is not None and gradients.weight is not gradients.weight_sum:
        assert gradients.weight_sum is not None
        _round(gradients.weight_sum, gradients.weight)
    if gradients.bias is not None:
        assert gradients.bias_sum is not None
        _round(gradients.bias_sum, gradients.bias)


def _round(values: Memory, out: Memory) -> None:
    source = Rows.along(values, _source(values))
    _copy(source, source.count, out, values.storage)


# --- blocks --------------------------------------------------------------------------------------


class TooLittle(Exception):
    """The limit of memory is below what a single row takes, which is the argument."""


@dataclass(frozen=True)
class Plan:
    """How many rows a block has at most, and how many classes a product of copies, or to be added.

    These are 0 where nothing is copied, or nothing added up in memory of its own; `split` is how
    many classes are split at a time.
    """

    rows: int
    part: int
    added: int
    split: int


def plan(job: Job, count: int, gradients: Gradients | None) -> Plan:
    """Cut `count` rows into blocks within the limit."""
    by_hidden = gradients is not None and gradients.hidden is not None
    by_weight = gradients is not None and gradients.weight is not None
    adds = not products.adds(job.hidden.data.kind)
    a_class = job.features * job.item
    copies = int(not job.weight.in_place and not job.splits and (by_hidden or not job.halves))
    split = 0
    if job.splits and (by_hidden or by_weight):
        split = min(job.classes, 8 * blocks(job.classes, 8 * SPLIT))
    added = int(by_weight and adds)
    a_row = (
        (job.classes + split) * job.item
        + SMALL
        + a_class * (_copies_hidden(job, by_weight) + by_hidden * (1 + (copies and adds)))
    )
    fixed = job.classes * ((job.bias is not None) * job.item + 8)
    least = a_row + (copies + added) * a_class
    room = job.limit - fixed
    if room < least:
        raise TooLittle(least + fixed)
    spare = min(room // SHARE, (room - a_row) // max(1, copies + added))
    part = min(job.classes, max(1, spare // max(1, a_class)))
    room -= part * (copies + added) * a_class
    most = max(1, min(ROWS, room // a_row))
    pieces = max(1, blocks(count, most))
    return Plan(max(1, blocks(count, pieces)), part * copies, part * added, split)


def _copies_hidden(job: Job, by_weight: bool) -> bool:
    """Whether rows of hidden are copied: what is multiplied by 0 must not be NaN."""
    return by_weight or not (job.hidden.in_place or job.halves)


@dataclass(frozen=True)
class Rooms:
    """Memory that every block of rows takes over: see `plan`."""

    cut: Plan
    logits: Memory
    hidden: Memory | None
    by_hidden: Memory | None
    hidden_added: Memory | None
    weight: Memory | None
    weight_added: Memory | None
    high: Memory | None
    low: Memory | None

    @classmethod
    def of(cls, job: Job, gradients: Gradients | None) -> Rooms:
        """Return new memory as planned."""
        cut = plan(job, job.count, gradients)
        by_hidden = gradients is not None and gradients.hidden is not None
        by_weight = gradients is not None and gradients.weight is not None
        several = bool(cut.part) and cut.part < job.classes
        adds = not products.adds(job.hidden.data.kind)
        like, wide = job.hidden.data, job.features
        copied = "bfloat16" if job.splits else job.real

        def room(wanted: bool, count: int, dtype: str = job.real) -> Memory | None:
            return new((count, wide), dtype, like) if wanted else None

        def words(count: int) -> Memory | None:
            return new((count,), "bfloat16", like) if count else None

        return cls(
            cut,
            job.new(cut.rows, job.classes),
            room(_copies_hidden(job, by_weight), cut.rows, copied),
            room(by_hidden, cut.rows),
            room(by_hidden and several and adds, cut.rows),
            room(bool(cut.part), cut.part),
            room(bool(cut.added) and cut.rows < job.count, cut.added),
            words(cut.rows * cut.split),
            words(cut.rows * cut.split),
        )


@dataclass(frozen=True)
class Block:
    """The logits of the rows [lo, hi), and their hidden states if these were copied."""

    lo: int
    hi: int
    logits: Memory
    hidden: Memory | None
    problem: rows.Problem
    rooms: Rooms


def losses(job: Job, gradients: Gradients | None = None) -> Memory:
    """Return the weighted loss of each row; write the gradients that are asked for."""
    result = job.new(job.count)
    for block in _blocks(job, gradients):
        values = rows.losses(block.problem, None if gradients is None else block.logits)
        _put(values, result, block)
        if gradients is not None:
            _add(job, block, gradients)
    if gradients is not None and gradients.weight_sum is not None and not job.count:
        gradients.weight_sum.filled(0)
    return result


def statistics(job: Job) -> Sequence[Memory]:
    """Return the figures of each row."""
    found: list[Memory] = []
    for block in _blocks(job, None):
        figures = rows.statistics(block.problem)
        if not found:
            found = [new((job.count,), figure.storage, figure) for figure in figures]
        for figure, whole in zip(figures, found, strict=True):
            _put(figure, whole, block)
    return found or rows.statistics(job.problem(0, 0, job.new(0, job.classes)))


def _put(values: Memory, whole: Memory, block: Block) -> None:
    """Write what was found of the rows of a block."""
    from fastinfo.cuda import reduction_kernels

    threads = reduction_kernels.THREADS
    seam.launch(
        reduction_kernels.converted(whole.storage), blocks(values.size, threads), threads,
        whole.stream, values.flat, between(whole, block.lo, block.hi).flat,
    )  # fmt: skip


def _pieces(n: int, length: int) -> Iterator[tuple[int, int]]:
    return ((lo, min(lo + length, n)) for lo in range(0, n, max(1, length)))


def _blocks(job: Job, gradients: Gradients | None) -> Iterator[Block]:
    """Make logits block after block."""
    rooms = Rooms.of(job, gradients)
    for lo, hi in _pieces(job.count, rooms.cut.rows):
        logits = between(rooms.logits, 0, hi - lo)
        hidden = None
        if rooms.hidden is not None:
            active = None if job.active is None else between(job.active, lo, hi)
            hidden = job.hidden.copied(lo, hi, rooms.hidden, active)
        _write_logits(job, lo, hi, hidden, logits, rooms)
        yield Block(lo, hi, logits, hidden, job.problem(lo, hi, logits), rooms)


def _write_logits(
    job: Job, lo: int, hi: int, hidden: Memory | None, logits: Memory, rooms: Rooms
) -> None:
    """Write hidden @ weight.T + bias of some rows."""
    if job.halves or hidden is None:
        hidden = job.hidden.matrix(lo, hi)
    if job.halves or job.weight.in_place:
        products.multiply(hidden, job.weight.matrix(0, job.classes).moved(0), logits)
    else:
        for begin, end, part in _parts(job, rooms):
            products.multiply(hidden, part.moved(0), _columns(logits, begin, end))
    if job.bias is not None:
        threads, height = kernels.THREADS, blocks(hi - lo, kernels.ROWS)
        seam.launch(
            kernels.biases(), (blocks(job.classes, threads), height), threads, logits.stream,
            logits.flat, job.bias.flat, hi - lo,
        )  # fmt: skip


def _parts(job: Job, rooms: Rooms) -> Iterator[tuple[int, int, Memory]]:
    """Copy the weight in the type of products, some classes at a time."""
    assert rooms.weight is not None
    for begin, end in _pieces(job.classes, rooms.cut.part):
        yield begin, end, job.weight.copied(begin, end, rooms.weight)


def _columns(x: Memory, begin: int, end: int) -> Memory:
    at = x.address + begin * x.dtype.itemsize
    return dataclasses.replace(x, address=at, shape=(x.shape[0], end - begin))


def _add(job: Job, block: Block, gradients: Gradients) -> None:
    """Carry the derivative by some rows of logits on to what these were made of."""
    g, lo, hi = block.logits, block.lo, block.hi
    if block.rooms.high is not None:
        _multiply_split(job, block, gradients)
    if gradients.hidden is not None:
        by_hidden = _times_weight(job, g, block.rooms)
        target = Rows.along(gradients.hidden, _source(gradients.hidden))
        _give_rows(by_hidden, rows_between(target, lo, hi), block.problem.row_weights)
    if gradients.weight_sum is not None and block.rooms.high is None:
        assert block.hidden is not None
        _add_by_weight(g.moved(0), block.hidden, gradients.weight_sum, block)
    if gradients.bias_sum is not None:
        threads = kernels.THREADS
        seam.launch(
            kernels.column_sums(job.real), blocks(job.classes, threads), threads, g.stream,
            g.flat, hi - lo, gradients.bias_sum.flat,
        )  # fmt: skip


def _times_weight(job: Job, g: Memory, rooms: Rooms) -> Memory:
    """Return g @ weight, a part of the classes at a time where they are copied."""
    assert rooms.by_hidden is not None
    out = between(rooms.by_hidden, 0, g.shape[0])
    if rooms.high is not None:
        return out
    if job.weight.in_place:
        products.multiply(g, job.weight.matrix(0, job.classes), out)
        return out
    added = rooms.hidden_added
    for begin, end, part in _parts(job, rooms):
        columns = _columns(g, begin, end)
        if begin == 0:
            products.multiply(columns, part, out)
        else:
            room = None if added is None else between(added, 0, g.shape[0])
            products.multiply_add(columns, part, out, room)
    return out


def _multiply_split(job: Job, block: Block, gradients: Gradients) -> None:
    """Do the products of the derivatives with weight and hidden, both bfloat16 as they are."""
    rooms, g, count = block.rooms, block.logits, block.hi - block.lo
    assert rooms.high is not None and rooms.low is not None
    for begin, end in _pieces(job.classes, rooms.cut.split):
        shape, strides = (count, end - begin), (end - begin, 1)
        halves = [
            dataclasses.replace(room, shape=shape, strides=strides)
            for room in (rooms.high, rooms.low)
        ]
        seam.launch(
            kernels.splits(), count, kernels.THREADS, g.stream, g.flat, block.problem.logits.place,
            begin, end - begin, *(half.flat for half in halves),
        )  # fmt: skip
        for k, half in enumerate(halves):
            if rooms.by_hidden is not None:
                out = between(rooms.by_hidden, 0, count)
                _accumulate(half, job.weight.matrix(begin, end), out, k == begin == 0)
            if gradients.weight_sum is not None and block.hidden is not None:
                out = between(gradients.weight_sum, begin, end)
                _accumulate(half.moved(0), block.hidden, out, k == block.lo == 0)


def _accumulate(a: Memory, b: Memory, out: Memory, first: bool) -> None:
    if first:
        products.multiply(a, b, out)
    else:
        products.multiply_add(a, b, out, None)


def _give_rows(values: Memory, target: Rows, active: Any) -> None:
    """Round the derivatives by some rows of hidden; those of ignored rows are 0."""
    source = Rows.along(values, _source(values))
    seam.launch(
        kernels.copies(values.storage, target.storage, values.storage),
        source.count if source.width else 0, kernels.THREADS, values.stream, values.flat,
        source.starts, source.place, source.width, active, target.data.flat, target.starts,
        target.place,
    )  # fmt: skip


def _add_by_weight(g: Memory, hidden: Memory, total: Memory, block: Block) -> None:
    """Add the derivative by weight of some rows, or write that of the first."""
    room = block.rooms.weight_added
    if block.lo == 0:
        products.multiply(g, hidden, total)
    elif room is None:
        products.multiply_add(g, hidden, total, None)
    else:
        for begin, end in _pieces(total.shape[0], room.shape[0]):
            products.multiply_add(
                between(g, begin, end), hidden, between(total, begin, end),
                between(room, 0, end - begin),
            )  # fmt: skip
