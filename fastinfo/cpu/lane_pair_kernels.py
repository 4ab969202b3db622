"""Two rows of logits side by side with others: a vector holds one class of many pairs.

What `logit_pair_kernels.py` does of a pair after the other, by the same entries, terms and slopes.
Nothing here looks at the other lanes but to leave out what none of them needs: what a pair gives
does not depend on its neighbours.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import words
from fastinfo.cpu import vmath
from fastinfo.cpu.lane_kernels import are_beside, first_vector, gatherer, placer
from fastinfo.cpu.logit_pair_kernels import (
    GUESSES,
    INVERSE_TEMPERATURE,
    LIFT,
    LOG2_SCALE,
    NEAR,
    WEIGHT,
    entries,
    lifted,
)
from fastinfo.cpu.memory import fence, loader, part, store
from fastinfo.cpu.simd import (
    absolute,
    any_of,
    double,
    flush_subnormals,
    maximum,
    restore,
    where,
)
from fastinfo.engine import formula, helper, kernel

# Classes whose sums are of the type of the logits: equal numbers are rounded alike, 16 of them to
# 5e-7, which a KL of 0.02 has room for.
STEPS = 16
# Differences of logits that are no float32 themselves, and sums of 16, are so divided by this.
FAR = 64.0

_softmax_entropy, _kl_of_sums = (
    formula(function, vmath.lanewise)
    for function in (formulas.softmax_entropy, formulas.kl_of_sums)
)
_shares = formula(formulas.shares)
_log1p = vmath.lanewise.log1p


class Room(NamedTuple):
    """Room for the classes of a vector of pairs, and for gradients to be put in places singly."""

    x: np.ndarray
    y: np.ndarray
    tile: np.ndarray

    @classmethod
    def of(cls, arithmetic, width, into=""):
        """Return room for pairs of `width` classes, and for their gradients in a storage type."""
        size = width * arithmetic.lanes
        return cls(
            np.empty(size, arithmetic.real), np.empty(size, arithmetic.real),
            np.empty(size if into else 0, words(into or "float32")),
        )  # fmt: skip


@cache
def _sums(arithmetic):
    """Maxima of both rows, Σ w of both without the maximal term, Σ w ((z - m) - (y - n)) of p."""
    real, exp2, lanes, filled = (
        arithmetic.real, arithmetic.exp2, arithmetic.lanes, arithmetic.filled,
    )  # fmt: skip
    read = loader(lanes)
    zero, one, lowest, infinity = real(0), real(1), real(-np.inf), real(np.inf)
    lower = real(1.0 / FAR)

    @helper
    def add(x, y, lo, hi, m, n, scale):
        """What the classes [lo, hi) add to the sums, and to how many equal the maxima."""
        none = filled(zero)
        rest, ties, other_rest, other_ties, e_sum = none, none, none, none, none
        for k in range(lo, hi):
            v, u = read(x, k * lanes, lowest), read(y, k * lanes, lowest)
            d, f = v - m, u - n
            w, c = exp2(d * scale), exp2(f * scale)
            rest += where(v == m, zero, w)
            ties += where(v == m, one, zero)
            other_rest += where(u == n, zero, c)
            other_ties += where(u == n, one, zero)
            e = where(w > zero, w * (d * lower - f * lower), zero)
            # a class that only q masks makes it inf, however small p
            e_sum += where((u == lowest) & (v > lowest), infinity, e)
        return rest, ties, other_rest, other_ties, e_sum

    @helper(inline=False)
    def sums(x, y, width, option):
        scale = real(option[LOG2_SCALE])
        m, n = filled(lowest), filled(lowest)
        for k in range(width):
            m = maximum(read(x, k * lanes, lowest), m)
            n = maximum(read(y, k * lanes, lowest), n)
        none = double(filled(zero))
        rest, ties, other_rest, other_ties, e_sum = none, none - 1.0, none, none - 1.0, none
        for lo in range(0, width, STEPS):
            hi = min(lo + STEPS, width)
            r, t, other_r, other_t, e = add(x, y, lo, hi, m, n, scale)
            rest, ties = rest + double(r), ties + double(t)
            other_rest, other_ties = other_rest + double(other_r), other_ties + double(other_t)
            e_sum += double(e) * FAR
        return double(m), rest + ties, double(n), other_rest + other_ties, e_sum

    return sums


@cache
def _figures(arithmetic):
    """Maximum and logarithm of the sum of p, of q, KL(P | Q), |Σ p ((z - m) - (y - n))| / T.

    NaN where a row is no distribution.
    """
    sums, infinity, nan = _sums(arithmetic), np.inf, np.nan

    @helper
    def figures(x, y, width, option):
        m, rest, n, other_rest, e = sums(x, y, width, option)
        log_sum = where(absolute(m) < infinity, _log1p(rest), nan)
        other_log_sum = where(absolute(n) < infinity, _log1p(other_rest), nan)
        entropy = _softmax_entropy(rest, e, option[INVERSE_TEMPERATURE])
        value = other_log_sum - entropy + 0.0 * log_sum
        return m, log_sum, n, other_log_sum, value, absolute(entropy - log_sum)

    return figures


@cache
def _known(arithmetic):
    """What is known of pairs, as vectors of an arithmetic."""
    unit, convert = float(np.finfo(arithmetic.real).eps), arithmetic.convert
    known_as = lifted(convert)
    rounded = helper(lambda x: double(convert(x)))
    known_of_logits = formula(
        formulas.known_of_logits, SimpleNamespace(**vars(vmath.lanewise) | {"rounded": rounded})
    )

    @helper
    def known(m, log_sum, n, other_log_sum, more, option):
        p_share, q_share, distance, remainder, shift = known_of_logits(
            m, log_sum, n, other_log_sum, more, option[INVERSE_TEMPERATURE], unit
        )
        return known_as(m, n, p_share, q_share, distance, remainder, shift)

    return known


@cache
def _sums_of(terms, arithmetic):
    """Sums of two terms over the classes of pairs of which all is known, in float64."""
    real, lanes, filled = arithmetic.real, arithmetic.lanes, arithmetic.filled
    entries_of, terms_of, read = (
        entries(arithmetic, False), formula(terms, arithmetic), loader(lanes),
    )  # fmt: skip

    @helper(inline=False)
    def sums(x, y, width, known, option):
        none, weight = double(filled(0.0)), real(option[WEIGHT])
        first, second = none, none
        for k in range(width):
            v, u = read(x, k * lanes, 0.0), read(y, k * lanes, 0.0)
            p, q, d, e = entries_of(v, u, known, option)
            f, s = terms_of(p, q, d, e, weight)
            first, second = first + double(f), second + double(s)
        return first * (1.0 / LIFT), second * (1.0 / LIFT)

    return sums


@cache
def _refined(arithmetic):
    """KL of pairs near 0 with all its digits, and how much more the log sums of q are."""
    known, sums = _known(arithmetic), _sums_of(formulas.kl_of_logits, arithmetic)

    @helper
    def refined(x, y, width, figures, wanted, option):
        zero = figures[0] * 0.0
        value, more = zero, zero
        for _ in range(GUESSES):
            if not any_of(wanted):
                break
            now = known(*figures, more, option)
            excess, lacking = sums(x, y, width, now, option)
            value = where(wanted, maximum(zero, _kl_of_sums(excess, lacking)), value)
            more = where(wanted, more + _log1p(-lacking), more)
            wanted = wanted & (lacking * lacking > excess)
        return value, more

    return refined


@cache
def pair_reader(terms, arithmetic):
    """Read a vector of pairs: their divergences, what is known of them, Σ of q's terms, factors."""
    figures_of, known_of, refined = _figures(arithmetic), _known(arithmetic), _refined(arithmetic)
    sums = _sums_of(terms, arithmetic)

    @helper
    def factor_of(figures, weights, option):
        """Factor of the gradient: NaN where a row is no distribution."""
        return weights * option[INVERSE_TEMPERATURE] + 0.0 * (figures[1] + figures[3])

    @helper
    def once(x, y, width, weights, option):
        m, log_sum, n, other_log_sum, value, magnitude = figures_of(x, y, width, option)
        figures = m, log_sum, n, other_log_sum
        near = (weights != 0.0) & (value < option[NEAR] * (1.0 + magnitude))
        kl, more = refined(x, y, width, figures, near, option)
        known = known_of(*figures, more, option)
        return where(near, kl, value), known, weights, factor_of(figures, weights, option)

    @helper
    def twice(x, y, width, weights, option):
        m, log_sum, n, other_log_sum, value, _ = figures_of(x, y, width, option)
        figures, weight = (m, log_sum, n, other_log_sum), option[WEIGHT]
        # of nearly equal rows it is β (1 - β) KL
        own, other = _shares(weight)
        near = (weights != 0.0) & (value * (own * other) < option[NEAR])
        _, more = refined(x, y, width, figures, near, option)
        known = known_of(*figures, more, option)
        of_p, of_q = sums(x, y, width, known, option)
        value = own * of_p + other * of_q
        return value, known, of_q, factor_of(figures, weights, option)

    return once if terms is formulas.kl_of_logits else twice


@cache
def slope_writer(slope, arithmetic, into):
    """Write the derivatives by the logits of q of a vector of pairs."""
    entries_of, slope_of = entries(arithmetic, False), formula(slope, arithmetic)
    real, lanes, convert = arithmetic.real, arithmetic.lanes, arithmetic.convert
    read, (place, put_singly) = loader(lanes), placer(into, lanes)
    zero, lower = real(0), real(1.0 / LIFT)

    @helper(inline=False)
    def emit(width, known, of_q, factor, weights, option, out, at, n, step, streamed, room):
        weight = real(option[WEIGHT])
        for k in range(width):
            v, u = read(room.x, k * lanes, 0.0), read(room.y, k * lanes, 0.0)
            p, q, d, e = entries_of(v, u, known, option)
            g = slope_of(p, q, d, e, weight, of_q) * lower
            place(out, at, n, where(weights != 0.0, g * factor, zero), streamed)
            at += step

    @helper
    def write_slopes(
        width, known, of_q, factor, weights, option, out, starts, step, streamed, room
    ):
        given = width, known, convert(of_q), convert(factor), weights, option
        if are_beside(starts):
            emit(*given, out, starts[0], starts.size, step, streamed, room)
            return
        emit(*given, room.tile, 0, lanes, lanes, False, room)
        put_singly(room.tile, width, out, starts, step)

    return write_slopes


# --- kernels -------------------------------------------------------------------------------------


@kernel
def divergences(terms, slope, p_storage, q_storage, arithmetic, into):
    """Kernel: weighted divergences of pairs, and derivatives by the logits of q if `into` is named.

    Pairs are a vector if at least `least` rows of p lie beside each other, else turned around.
    """
    read_pairs, lanes = pair_reader(terms, arithmetic), arithmetic.lanes
    write_slopes: Any = slope_writer(slope, arithmetic, into) if into else None
    gather_p, gather_q = gatherer(p_storage, arithmetic), gatherer(q_storage, arithmetic)
    load = loader(lanes)

    @helper
    def read_vector(p, starts, beside, p_step, q, q_starts, q_step, width, weights, option, room):
        gather_p(p, starts, beside, p_step, width, room.x)
        gather_q(q, q_starts, are_beside(q_starts), q_step, width, room.y)
        return read_pairs(room.x, room.y, width, weights, option)

    def read_divergences(
        p, p_starts, p_step, q, q_starts, q_step, width, active, option, values, room, least, out,
        out_starts, out_step, streamed,
    ):  # fmt: skip
        floats = flush_subnormals()
        lo, count = 0, p_starts.size
        while lo < count:
            n, beside = first_vector(part(p_starts, lo, count), lanes, least)
            hi = lo + n
            weights = load(part(active, lo, hi), 0, 0.0)
            value, known, of_q, factor = read_vector(
                p, part(p_starts, lo, hi), beside, p_step, q, part(q_starts, lo, hi), q_step,
                width, weights, option, room,
            )  # fmt: skip
            store(part(values, lo, hi), 0, where(weights != 0.0, value, 0.0) * weights)
            if into:
                write_slopes(
                    width, known, of_q, factor, weights, option, out, part(out_starts, lo, hi),
                    out_step, streamed, room,
                )  # fmt: skip
            lo = hi
        fence()
        restore(floats)

    return read_divergences
