"""Rows of logits: kernels that read them into states, and what a state says.

Kernels take flat memory and the offset of each row in it, so that any strides between rows do. How
a row is read, and the ways in which its classes are weighed, are in `row_state_kernels.py`.
"""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.cpu.memory import part, row_of
from fastinfo.cpu.row_state_kernels import (
    ALPHA,
    ARGMAX,
    BETA,
    CAP,
    ENTROPY,
    ENTROPY_WAY,
    INNER,
    INVERSE_TEMPERATURE,
    LINEAR,
    LOG_SOFTMAX_WAY,
    LOGSUMEXP_WAY,
    MAX,
    OTHER_MAX,
    PIECE,
    RANK,
    REST,
    SOFTMAX_WAY,
    STATE,
    TARGET_LOGIT,
    WEIGHT,
    Z_LOSS,
    arithmetic_of,
    merger,
    piece_reader,
)
from fastinfo.cpu.simd import flush_subnormals, restore
from fastinfo.engine import formula, helper, kernel

# Figures of a row.
(
    MAXIMUM, LOG_SUM, LOGSUMEXP, ENTROPY_OF_ROW, ARGMAX_OF_ROW, LOG_PROB, RANK_OF_TARGET,
    RAW_MAXIMUM, FIGURES,
) = range(9)  # fmt: skip

# Figures of a row beside another.
P_MAX, P_LOG_SUM, Q_MAX, Q_LOG_SUM, DIVERGENCE, MAGNITUDE, RELATIVE_FIGURES = range(7)

_log_sum = formula(formulas.log_sum)
_loss, _softmax_entropy, _logsumexp = (
    formula(formulas.softmax_cross_entropy),
    formula(formulas.softmax_entropy),
    formula(formulas.logsumexp),
)


@cache
def _z(softcap):
    """z of a logit in float64, before the division by the temperature."""

    @helper
    def identity(x, option):
        return x

    @helper
    def capped(x, option):
        return option[CAP] * np.tanh(x * option[INNER]) if abs(x) < np.inf else x

    return capped if softcap else identity


@cache
def target_terms(softcap):
    """z of the maximum, its gap to the target, the target's and its smoothed weight."""
    z_of = _z(softcap)

    @helper
    def terms(state, target, w, option):
        z, gap, own_weight, smoothed = z_of(state[MAX], option), 0.0, 0.0, 0.0
        if target >= 0:
            class_weight = np.float64(w[target]) if w.size else 1.0
            own_weight, smoothed = option[ALPHA] * class_weight, option[BETA] * class_weight
            gap = (z - z_of(state[TARGET_LOGIT], option)) * option[INVERSE_TEMPERATURE]
        return z, gap, own_weight, smoothed

    return terms


@cache
def loss_of(softcap):
    """Loss of a row from its state."""
    terms = target_terms(softcap)

    @helper
    def finish(state, target, weight, w, option):
        z, gap, own_weight, _ = terms(state, target, w, option)
        log_sum, inverse_t = _log_sum(state[MAX], state[REST]), option[INVERSE_TEMPERATURE]
        return weight * _loss(
            log_sum, z * inverse_t, gap, own_weight, state[LINEAR], state[WEIGHT],
            option[Z_LOSS], inverse_t,
        )  # fmt: skip

    return finish


@helper
def entropy_of(state, target, weight, w, option):
    """Weighted entropy of a row from its state."""
    entropy = _softmax_entropy(state[REST], state[ENTROPY], option[INVERSE_TEMPERATURE])
    return weight * (entropy + 0.0 * _log_sum(state[MAX], state[REST]))


@helper
def logsumexp_of(state, target, weight, w, option):
    """Log Σ exp(z) of a row from its state."""
    z = state[MAX] * option[INVERSE_TEMPERATURE]
    return _logsumexp(z, _log_sum(state[MAX], state[REST]))


@helper
def nothing_of(state, target, weight, w, option):
    """What is asked for of a row of which only the softmax is."""
    return 0.0


def value_of(softcap, weights):
    """What a way asks for of a row: for its loss if that is none of the others."""
    others = {
        SOFTMAX_WAY: nothing_of, LOG_SOFTMAX_WAY: nothing_of, ENTROPY_WAY: entropy_of,
        LOGSUMEXP_WAY: logsumexp_of,
    }  # fmt: skip
    return others.get(weights) or loss_of(softcap)


# --- kernels -------------------------------------------------------------------------------------


@cache
def rows_reader(storage, softcap, weights, soft):
    """Read the rows [first, last) of one piece each that count into states, the first into row 0.

    Some are read before they are finished: a branch of a logarithm that is guessed wrong would hold
    up the next row, half of the time of ten classes.
    """
    read_piece = piece_reader(storage, softcap, weights, soft, False)

    @helper
    def read_rows(first, last, x, starts, width, y, y_starts, w, targets, active, option, state):
        for i in range(first, last):
            if active[i] != 0.0:
                at = y_starts[i] if y_starts.size else 0
                read_piece(
                    part(x, starts[i], starts[i] + width), part(y, at, at + width), w, 0,
                    targets[i], np.nan, -np.inf, 0, option, row_of(state, i - first),
                )  # fmt: skip

    return read_rows


@kernel
def losses(storage, softcap, weights, soft):
    """Kernel: losses of rows of one piece each, as many at a time as `state` has room for."""
    read_rows = rows_reader(storage, softcap, weights, soft)
    finish = value_of(softcap, weights)

    def read_losses(x, starts, width, y, y_starts, w, targets, active, option, out, state):
        floats = flush_subnormals()
        for first in range(0, starts.size, state.shape[0]):
            last = min(first + state.shape[0], starts.size)
            read_rows(first, last, x, starts, width, y, y_starts, w, targets, active, option, state)
            for i in range(first, last):
                out[i] = 0.0
                if active[i] != 0.0:
                    out[i] = finish(row_of(state, i - first), targets[i], active[i], w, option)
        restore(floats)

    return read_losses


@kernel
def states(storage, softcap, weights, soft, statistics, ranks, jumps, onto):
    """Kernel: states of pieces of rows, `state.shape[0]` of them from number `first` on.

    A row of `width` classes, the first of which is class `base` of what it is a stretch of, has
    `pieces` of them. Rows that do not count keep the state of no classes. With `onto` a row is one
    piece, and its state is put together with that `before`.
    """
    read_piece = piece_reader(storage, softcap, weights, soft, statistics, ranks, jumps)
    merge = merger(softcap, arithmetic_of(storage, softcap, weights, soft), weights == "relative")

    def read_states(
        first, pieces, x, starts, width, base, y, y_starts, w, targets, elsewhere, before, active,
        option, state,
    ):  # fmt: skip
        floats = flush_subnormals()
        for n in range(state.shape[0]):
            i = (first + n) // pieces
            lo = (first + n - i * pieces) * PIECE
            hi = lo + PIECE if lo + PIECE < width else width
            if active[i] == 0.0:
                hi = lo
            at = y_starts[i] if y_starts.size else 0
            jump = 0
            if jumps and hi == width and i + 1 < starts.size:
                jump = starts[i + 1] - starts[i] - width
            s, floor = row_of(state, n), -np.inf
            if onto:
                floor = before[i, MAX]
            read_piece(
                part(x, starts[i] + lo, starts[i] + hi), part(y, at + lo, at + hi), w, base + lo,
                targets[i], elsewhere[i] if elsewhere.size else np.nan, floor, jump, option, s,
            )  # fmt: skip
            if onto:
                merge(s, row_of(before, i), option)
                if not base <= targets[i] < base + width:
                    s[TARGET_LOGIT] = before[i, TARGET_LOGIT]
        restore(floats)

    return read_states


@kernel
def finishes(softcap, way):
    """Kernel: what a way asks for from states, losses for ""."""
    finish = value_of(softcap, way)

    def finish_rows(state, targets, active, w, option, losses):
        for i in range(losses.size):
            losses[i] = 0.0
            if active[i] != 0.0:
                losses[i] = finish(row_of(state, i), targets[i], active[i], w, option)

    return finish_rows


@kernel
def summaries(softcap):
    """Kernel: the figures of rows from their states, as SciPy has them for infinite rows."""
    z_of = _z(softcap)

    def summarise_rows(state, targets, option, figures):
        inverse_t = option[INVERSE_TEMPERATURE]
        for i in range(state.shape[0]):
            m, rest = state[i, MAX], state[i, REST]
            z, log_sum = z_of(m, option), _log_sum(m, rest)
            figures[RAW_MAXIMUM, i], figures[MAXIMUM, i] = m, z * inverse_t
            figures[LOG_SUM, i] = log_sum
            figures[LOGSUMEXP, i] = _logsumexp(z * inverse_t, log_sum)
            entropy = _softmax_entropy(rest, state[i, ENTROPY], inverse_t)
            figures[ENTROPY_OF_ROW, i] = entropy + 0.0 * log_sum
            figures[ARGMAX_OF_ROW, i] = state[i, ARGMAX]
            gap = (z - z_of(state[i, TARGET_LOGIT], option)) * inverse_t
            known = targets[i] >= 0
            figures[LOG_PROB, i] = -(log_sum + gap) if known else np.nan
            figures[RANK_OF_TARGET, i] = state[i, RANK] if known else -1.0

    return summarise_rows


@kernel
def relative_summaries():
    """Kernel: what the states of rows relative to others say of both."""

    def summarise_pairs(state, inverse_t, figures):
        for i in range(state.shape[0]):
            m, rest, other, total = (
                state[i, MAX], state[i, REST], state[i, OTHER_MAX], state[i, WEIGHT],
            )  # fmt: skip
            log_sum, other_log_sum = _log_sum(m, rest), _log_sum(other, total - 1.0)
            entropy = _softmax_entropy(rest, state[i, ENTROPY], inverse_t)
            figures[P_MAX, i], figures[P_LOG_SUM, i] = m, log_sum
            figures[Q_MAX, i], figures[Q_LOG_SUM, i] = other, other_log_sum
            figures[DIVERGENCE, i] = other_log_sum - entropy + 0.0 * log_sum
            figures[MAGNITUDE, i] = abs(entropy - log_sum)

    return summarise_pairs


@kernel
def merges(softcap, arithmetic, relative):
    """Kernel: put the states of the pieces of rows together, in any order; see `merger`.

    The target's logit is the first piece's.
    """
    merge = merger(softcap, arithmetic, relative)

    def merge_pieces(parts, option, state):
        for i in range(state.shape[0]):
            s = row_of(state, i)
            for column in range(STATE):
                s[column] = parts[i, 0, column]
            for p in range(1, parts.shape[1]):
                merge(s, parts[i, p], option)

    return merge_pieces
