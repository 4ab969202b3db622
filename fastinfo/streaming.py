"""Cross-entropy of logits whose classes come in pieces, or lie in several places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastinfo import checks
from fastinfo.arrays import (
    Rows,
    as_result,
    computed_in,
    empty,
    give,
    lazy,
    output,
    read,
    same_device,
)
from fastinfo.dispatch import home
from fastinfo.losses import SoftmaxStatistics, statistics_from
from fastinfo.reductions import reduced, row_weights, targets_of

# States hold the number of a class in float64.
MOST_CLASSES = 2**53
# Columns of `state()` behind those of the maximum, the sums and the argmax.
_RANK, _TARGET_LOGIT, _BITS, _COLUMNS = range(4, 8)


class _Read(NamedTuple):
    """What a stream has read: one value, replaced as a whole, so that no method leaves it halfway.

    `state` has the states of the rows, with the logits of targets that were given or have come,
    else NaN; `real` is the type of results.
    """

    ranges: list[tuple[int, int]]
    state: np.ndarray
    real: str
    ranked: bool


class StreamingCrossEntropy:
    r"""Cross-entropy :math:`-\log \mathrm{softmax}(z)_y`, the classes read piece by piece.

    Each row keeps a small state: its maximum, the sum of exponentials measured from it, and what
    entropy, argmax and the target need. States of pieces merge, whoever read them.

    Parameters
    ----------
    targets : integer array (...)
        Class of each row within the whole vocabulary, at least 0; copied.
    ignore_index : int
        Target of rows that are not read.
    target_logits : array (...), optional
        The logits of the targets, if they are known beforehand: ranks of targets need them, since
        every piece counts the logits above the target's.

    Attributes
    ----------
    ranges : list of (int, int)
        The classes that have come, half-open, in order, joined where they touch.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or targets are not integers.
    IndexError
        If a target is negative and not `ignore_index`.
    ValueError
        If shapes do not agree.

    Notes
    -----
    Values, edge rules and accuracy are those of `softmax_cross_entropy` and `softmax_statistics`
    over all classes that have come, whatever pieces they came in; among chunks of several dtypes,
    the accuracy of the least accurate. The order of pieces can move the last bits. Ignored rows
    cost nothing and may hold NaN: their loss and gradient are 0, their figures NaN, argmax and
    rank -1. `loss`, `logsumexp` and `statistics` give the kind of array of `targets`, in float64 if
    any chunk so far was float64 or integer, else in float32.

    A method that raises has changed nothing. One thread at a time may change a stream; several
    threads or processes each fill their own, which are then merged (it pickles).

    References
    ----------
    .. [1] M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax",
       arXiv:1805.02867 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> import fastinfo
    >>> logits = np.log([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]])
    >>> stream = fastinfo.StreamingCrossEntropy([0, 1])
    >>> stream.update(logits[:, 1:], 1)
    >>> stream.update(logits[:, :1], 0)
    >>> print(round(stream.loss(), 4))
    0.4338
    >>> stream.ranges
    [(0, 3)]
    """

    def __init__(
        self, targets: Any, *, ignore_index: int = -100, target_logits: Any = None
    ) -> None:
        y = read("targets", targets)
        checks.on_processor("StreamingCrossEntropy", y)
        self._like = replace(y, data=np.empty(0), native=None)
        self._shape = y.shape
        self._ignore_index = checks.integer("ignore_index", ignore_index)
        self._targets = targets_of(y, MOST_CLASSES, self._ignore_index).copy()
        state, ranked = self._module.no_states(self._targets.size), target_logits is not None
        if ranked:
            state[:, self._module.TARGET_LOGIT] = self._given_logits(target_logits)
        self._read = _Read([], state, "float32", ranked)

    def update(self, chunk: Any, start: int) -> None:
        """Read the logits of some classes.

        Parameters
        ----------
        chunk : array (..., C)
            Logits of the classes start .. start + C, floats of 16 to 64 bits or integers.
        start : int
            First class of the chunk.

        Raises
        ------
        TypeError
            If the chunk does not hold real numbers.
        ValueError
            If shapes do not agree, a class has come before, or a target's logit is not the one
            given as `target_logits`.

        Notes
        -----
        Pieces may come in any order. A slice of columns is read where it lies.

        Examples
        --------
        >>> import fastinfo
        >>> stream = fastinfo.StreamingCrossEntropy([3])
        >>> stream.update([[0.5, 1.5]], 2)
        >>> stream.ranges
        [(2, 4)]
        """
        x, start, stop = self._piece(chunk, start)
        have, module = self._read, self._module
        ranges = _joined("chunk", [*have.ranges, (start, stop)])
        problem = module.Problem(
            Rows.of(x),
            module.Options(),
            targets=self._targets,
            active=self._active,
            statistics=True,
            ranks=have.ranked,
            base=start,
            elsewhere=self._known_logits if have.ranked else None,
            onto=have.state,
        )
        state = module.states(problem)
        if have.ranked:
            self._same_logits("chunk", self._known_logits, state[:, module.TARGET_LOGIT])
        self._read = _Read(ranges, state, _wider(have.real, x.result), have.ranked)

    def merge(self, other: StreamingCrossEntropy) -> StreamingCrossEntropy:
        """Take over what another stream over the same targets has read of other classes.

        Parameters
        ----------
        other : StreamingCrossEntropy
            It stays as it is.

        Returns
        -------
        StreamingCrossEntropy
            This stream.

        Raises
        ------
        TypeError
            If `other` is no stream.
        ValueError
            If targets or `ignore_index` differ, a class has come to both, or a target's logit is
            not the one given as `target_logits`.

        Notes
        -----
        Ranks stay known if `target_logits` were given to both streams.

        Examples
        --------
        >>> import fastinfo
        >>> left, right = (fastinfo.StreamingCrossEntropy([1]) for _ in range(2))
        >>> left.update([[0.0, 0.0]], 0)
        >>> right.update([[0.0, 0.0]], 2)
        >>> print(left.merge(right).loss().round(4))
        1.3863
        """
        if not isinstance(other, StreamingCrossEntropy):
            raise TypeError(f"other must be a StreamingCrossEntropy, got {type(other).__name__}")
        self._same_targets(other)
        mine, theirs = self._read, other._read
        ranges = _joined("other", [*mine.ranges, *theirs.ranges])
        is_known = mine.ranked | self._came
        both = is_known & (theirs.ranked | other._came)
        logits = np.where(both, other._known_logits, self._known_logits)
        self._same_logits("other", self._known_logits, logits)
        state = self._module.merged([mine.state, theirs.state])
        state[~is_known, self._module.TARGET_LOGIT] = other._known_logits[~is_known]
        read_from = [read for read in (mine, theirs) if read.ranges]
        if read_from:
            ranked = all(read.ranked for read in read_from)
        else:
            ranked = mine.ranked or theirs.ranked
        self._read = _Read(ranges, state, _wider(mine.real, theirs.real), ranked)
        return self

    def loss(self, reduction: str = "mean") -> Any:
        """Cross-entropy over the classes that have come.

        Parameters
        ----------
        reduction : {"mean", "sum", "none"}
            "mean" divides the sum by the number of rows not ignored.

        Returns
        -------
        scalar, or array (...) for "none"
            In nats.

        Raises
        ------
        ValueError
            If a target's class has not come, or the reduction is unknown.

        Examples
        --------
        >>> import fastinfo
        >>> stream = fastinfo.StreamingCrossEntropy([3])
        >>> stream.update([[0.0, 0.0]], 0)
        >>> stream.loss()
        Traceback (most recent call last):
            ...
        ValueError: targets must be among the classes that have come, got 3 at row 0
        """
        weights, total = self._weights(reduction)
        values = self._module.losses_of(self._read.state, self._targets, weights)
        return self._give(reduced(values, self._shape, reduction, total, self._like))

    def logsumexp(self) -> Any:
        """Logarithm of the sum of exponentials over the classes that have come.

        Returns
        -------
        array (...)
            In nats; NaN where ignored, -inf before the first piece; else as `fastinfo.logsumexp`.

        Examples
        --------
        >>> import fastinfo
        >>> stream = fastinfo.StreamingCrossEntropy([3])
        >>> stream.update([[0.0, 0.0]], 0)
        >>> stream.logsumexp().round(4)
        array([0.6931])
        """
        return self._give(self._figures()[self._module.LOGSUMEXP].reshape(self._shape))

    def statistics(self) -> SoftmaxStatistics:
        """Figures of the softmax over the classes that have come.

        Returns
        -------
        SoftmaxStatistics
            As `softmax_statistics` with targets, but NaN for ignored rows, and -1 for their argmax;
            `target_rank` is None unless `target_logits` were given, `target_log_prob` NaN where the
            target's class has not come.

        Notes
        -----
        Before the first piece `max` and `logsumexp` are -inf, `argmax` -1, the others NaN.

        Examples
        --------
        >>> import fastinfo
        >>> stream = fastinfo.StreamingCrossEntropy([3], target_logits=[1.0])
        >>> stream.update([[0.0, 2.0, 3.0]], 0)
        >>> figures = stream.statistics()
        >>> int(figures.argmax[0]), int(figures.target_rank[0])
        (2, 2)
        """
        return statistics_from(
            self._figures(), self._shape, self._read.real, self._like, True, self._read.ranked
        )

    def grad(self, chunk: Any, start: int, reduction: str = "mean", out: Any = None) -> Any:
        """Derivative of the reduced loss by the logits of some classes.

        Parameters
        ----------
        chunk : array (..., C)
            Logits of the classes start .. start + C, with the values that `update` read; the pieces
            may be others.
        start : int
            First class of the chunk.
        reduction : {"mean", "sum", "none"}
            As for `loss`; for "none" the derivative of the sum.
        out : array (..., C), optional
            Buffer of the gradient, of the chunk's dtype; may be `chunk` itself.

        Returns
        -------
        array (..., C)
            The kind and dtype of the chunk, float64 for integers; exactly 0 in ignored rows.

        Raises
        ------
        TypeError
            If the chunk does not hold real numbers.
        ValueError
            If a class of the chunk or of a target has not come, shapes do not agree, or a parameter
            or `out` breaks its rule.

        Examples
        --------
        >>> import fastinfo
        >>> stream = fastinfo.StreamingCrossEntropy([1])
        >>> stream.update([[0.0, 0.0]], 0)
        >>> stream.grad([[0.0]], 1)
        array([[-0.5]])
        """
        weights, _ = self._weights(reduction)
        x, start, stop = self._piece(chunk, start)
        if not any(begin <= start and stop <= end for begin, end in self.ranges):
            raise ValueError(
                f"chunk must hold classes that have come, got [{start}, {stop}) of {self.ranges}"
            )
        module = self._module
        problem = module.Problem(
            Rows.of(x), module.Options(), targets=self._targets, active=weights, base=start
        )
        if out is None:
            target = empty(x.shape, x.storage)
        else:
            target = output("out", out, x.shape, x.storage, [x], alias=x)
        module.gradients(problem, self._read.state, target)
        return give(target, x, x.storage) if out is None else out

    def state(self) -> np.ndarray:
        """Return what has been read, to be sent elsewhere with `ranges`.

        Returns
        -------
        numpy.ndarray (N, k)
            float64, one row a target in C order: the maximum; Σ exp(z - max) - 1;
            Σ exp(z - max) (z - max); the argmax; the target's rank, NaN without `target_logits`;
            the target's logit, NaN if not known; the bits of results, 32 or 64.

        Examples
        --------
        >>> import fastinfo
        >>> stream = fastinfo.StreamingCrossEntropy([1])
        >>> stream.update([[0.0, 2.0]], 0)
        >>> stream.state().shape
        (1, 7)
        """
        state = np.empty((self._targets.size, _COLUMNS))
        state[:, :_BITS] = self._read.state[:, self._module.STATE_COLUMNS]
        state[:, _BITS] = 64.0 if self._read.real == "float64" else 32.0
        if not self._read.ranked:
            state[:, _RANK] = np.nan
        return state

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The classes that have come, half-open, in order, joined where they touch."""
        return list(self._read.ranges)

    @classmethod
    def from_state(
        cls,
        targets: Any,
        state: Any,
        ranges: Iterable[tuple[int, int]],
        *,
        ignore_index: int = -100,
        target_logits: Any = None,
    ) -> StreamingCrossEntropy:
        """Return the stream that gave `state()` and `ranges`.

        Parameters
        ----------
        targets : integer array (...)
            The targets of that stream.
        state : array (N, k)
            What `state()` returned.
        ranges : sequence of (int, int)
            What `ranges` was.
        ignore_index : int
            That of the stream.
        target_logits : array (...), optional
            Those of the stream; the state has them.

        Returns
        -------
        StreamingCrossEntropy
            A stream that goes on from there.

        Raises
        ------
        TypeError, IndexError
            As for a new stream, or if ranges are not pairs of integers.
        ValueError
            If the state does not fit, ranges overlap, or `target_logits` are not the state's.

        Notes
        -----
        A state of no rows does not tell the dtype of results, which is float32 then.

        Examples
        --------
        >>> import fastinfo
        >>> stream = fastinfo.StreamingCrossEntropy([1])
        >>> stream.update([[0.0, 0.0]], 0)
        >>> copy = fastinfo.StreamingCrossEntropy.from_state([1], stream.state(), stream.ranges)
        >>> print(copy.loss().round(4))
        0.6931
        """
        stream = cls(targets, ignore_index=ignore_index, target_logits=target_logits)
        joined = _joined("ranges", [_checked_range(pair) for pair in _listed(ranges)])
        values = _checked_state(state, stream._targets.size)
        ranked = not np.isnan(values[:, _RANK]).any()
        if target_logits is not None:
            if not ranked:
                raise ValueError(
                    "target_logits must be left out: the stream that gave state counted no ranks"
                )
            stream._same_logits("state", stream._known_logits, values[:, _TARGET_LOGIT])
        merged = stream._module.no_states(len(values))
        merged[:, stream._module.STATE_COLUMNS] = values[:, :_BITS]
        real = "float64" if (values[:, _BITS] == 64.0).any() else "float32"
        is_ranked = ranked and (target_logits is not None or len(values) > 0)
        stream._read = _Read(joined, merged, real, is_ranked)
        return stream

    # --- what it is made of ----------------------------------------------------------------------

    @property
    def _module(self) -> Any:
        return home("rows", self._like.device)

    @property
    def _kept(self) -> np.ndarray:
        """Whether a row is not ignored."""
        return self._targets >= 0

    @lazy
    def _active(self) -> np.ndarray:
        """Weight of each row, 0 if it is ignored."""
        return self._kept.astype(np.float64)

    @property
    def _came(self) -> np.ndarray:
        """Whether the class of a row's target has come."""
        bounds = np.array(self._read.ranges, np.int64).ravel()
        return np.searchsorted(bounds, self._targets, side="right") % 2 == 1

    @property
    def _known_logits(self) -> np.ndarray:
        """Logits of the targets that were given or have come, else NaN."""
        return self._read.state[:, self._module.TARGET_LOGIT]

    def _give(self, values: np.ndarray) -> Any:
        return give(as_result(values, self._read.real), self._like)

    def _piece(self, chunk: Any, start: int) -> tuple[Any, int, int]:
        """Check a chunk; return it and the classes [start, stop) that it holds."""
        x = read("chunk", chunk)
        same_device(self._like, x)
        axis = checks.axis_of(-1, len(x.shape), "chunk")
        if x.shape[:-1] != self._shape:
            expected = ", ".join(map(str, (*self._shape, "C")))
            raise ValueError(f"chunk must have shape ({expected}), got {x.shape}")
        checks.some("chunk", x.shape, axis, "class")
        first, last = checks.integer("start", start), MOST_CLASSES - x.shape[-1]
        if not 0 <= first <= last:
            raise ValueError(f"start must be in [0, {last}], got {first}")
        return x, first, first + x.shape[-1]

    def _weights(self, reduction: str) -> tuple[np.ndarray, float]:
        """Weight of each row in the reduced loss, and what a mean divides by."""
        checks.one_of("reduction", reduction, checks.REDUCTIONS)
        checks.refuse(
            "targets",
            "among the classes that have come",
            self._targets.reshape(self._shape),
            (self._kept & ~self._came).reshape(self._shape),
            ValueError,
        )
        return row_weights(None, self._shape, self._targets, None, reduction, self._like)

    def _figures(self) -> np.ndarray:
        """Figures of the rows; NaN where they are ignored."""
        module = self._module
        figures = module.figures_of(self._read.state, self._targets)
        figures[np.ix_(module.REAL_FIGURES, ~self._kept)] = np.nan
        figures[module.LOG_PROB, ~self._came] = np.nan
        return figures

    def _given_logits(self, target_logits: Any) -> np.ndarray:
        given = read("target_logits", target_logits)
        same_device(self._like, given)
        if given.shape != self._shape:
            raise ValueError(f"target_logits must have shape {self._shape}, got {given.shape}")
        values = np.array(given.values(), np.float64).ravel()
        return np.where(self._kept, values, np.nan)

    def _same_logits(self, name: str, given: np.ndarray, found: np.ndarray) -> None:
        """ValueError for the first row whose target's logit is not what was given."""
        bad = (given != found) & ~(np.isnan(given) & np.isnan(found))
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"target_logits must be the logits of the targets, got {given[i]} where {name} "
                f"has {found[i]}{self._where(i)}"
            )

    def _same_targets(self, other: StreamingCrossEntropy) -> None:
        if other._shape != self._shape:
            raise ValueError(f"other must have targets of shape {self._shape}, got {other._shape}")
        if other._ignore_index != self._ignore_index:
            raise ValueError(
                f"other must have ignore_index={self._ignore_index}, got {other._ignore_index}"
            )
        bad = other._targets != self._targets
        if bad.any():
            i = int(np.argmax(bad))
            mine, theirs = (
                int(s._targets[i]) if s._kept[i] else s._ignore_index for s in (self, other)
            )
            raise ValueError(f"other must have target {mine}, got {theirs}{self._where(i)}")

    def _where(self, i: int) -> str:
        return checks.where(np.unravel_index(i, self._shape)) if self._shape else ""


def _wider(a: str, b: str) -> str:
    """Return the type of results that come from both."""
    return computed_in(a, b)


def _joined(name: str, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, joined where they touch; ValueError if two overlap."""
    ranges = sorted(ranges)
    for (_, end), (start, stop) in pairwise(ranges):
        if start < end:
            raise ValueError(
                f"{name} must hold no class that has come before, got [{start}, {min(end, stop)}) "
                f"again"
            )
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return joined


def _listed(ranges: Any) -> list[Any]:
    try:
        return list(ranges)
    except TypeError:
        raise TypeError(f"ranges must be pairs of integers, got {ranges!r}") from None


def _checked_range(pair: Any) -> tuple[int, int]:
    try:
        start, stop = pair
    except (TypeError, ValueError):
        raise TypeError(f"ranges must be pairs of integers, got {pair!r}") from None
    start, stop = checks.integer("ranges", start), checks.integer("ranges", stop)
    if not 0 <= start < stop <= MOST_CLASSES:
        raise ValueError(f"ranges must be 0 <= start < stop <= 2**53, got ({start}, {stop})")
    return start, stop


def _checked_state(state: Any, count: int) -> np.ndarray:
    source = read("state", state)
    if source.dtype != "float64":
        raise TypeError(f"state must have dtype float64, got {source.dtype}")
    if source.shape != (count, _COLUMNS):
        raise ValueError(f"state must have shape {(count, _COLUMNS)}, got {source.shape}")
    values = np.array(source.data, np.float64)
    bits = values[:, _BITS]
    checks.refuse("bits of state", "32 or 64", bits, (bits != 32.0) & (bits != 64.0), ValueError)
    return values
