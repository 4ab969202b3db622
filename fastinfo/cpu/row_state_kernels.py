"""Rows of logits: one streaming reading into a small state, and two states put together.

A row is cut into fixed pieces, a piece into blocks that stay in the first-level cache. Pieces are
merged in order, so it does not matter which thread read which. Formulas are in `formulas.py`, what
a state says in `row_kernels.py`, the second reading, for gradients, in `gradient_kernels.py`.

`weights` is "none" where the targets are integers and all other classes count nothing; else the
weight c_k of a class comes from alpha, beta, class weights w and soft targets y. It is "relative"
where y are the logits of another distribution: Σ w (z - m) is then taken of the difference to
those, and c is their own sum. It is "kept" where the exponentials are put into y, for a second
reading that then computes none.
"""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import words
from fastinfo.cpu import vmath
from fastinfo.cpu.memory import LINE, part, prefetch_on, prefetcher, store
from fastinfo.cpu.simd import (
    AVX2,
    absolute,
    apart,
    bits_of_mask,
    double,
    first_of,
    highest_of,
    lanes_before,
    maximum,
    ones_of,
    sum_of,
    where,
)
from fastinfo.engine import formula, helper

# Elements read between two looks at the running maximum: the end of a block costs 70 to 100 ns of a
# full processor. Float32 sums are of no more than 256 numbers: four vectors are added up first, and
# after so many steps the sums go to those of a block. Equal numbers are rounded alike, 256 of them
# to 4e-6, which a KL of 0.02 has no room for: of rows beside others it is 16, and then float64.
BLOCK = 16384
STEPS, STEPS_BESIDE = 256, 16
# A longer row is read in pieces of this many elements, by several threads if rows are few.
PIECE = 1 << 20
# A piece is measured from the maximum of its first elements. A block whose own maximum is more than
# 2**32 times as high (32 bits of rise cost 5 of the float32's 24) becomes the reference and is read
# again; for an entropy, Σ w (z - m), which is small beside Σ w (z - ref), from 2**8 on, and more
# elements are looked at first. Where the rest of the sum is less than 1/16 of its maximal term, the
# block of the maximum is read again without that term.
SAMPLE, SAMPLE_OF_ENTROPY = 128, 256
MAX_RISE, MAX_RISE_OF_ENTROPY = 32.0, 8.0
MIN_REST = 0.0625

# Columns of a row's state.
MAX, REST, ENTROPY, LINEAR, WEIGHT, ARGMAX, RANK, TARGET_LOGIT, OTHER_MAX, STATE = range(10)
KEPT_REFERENCE = OTHER_MAX  # NaN where not all that was kept is measured from one logit
# Entries of the array of options.
ALPHA, BETA, LOG2_SCALE, INVERSE_TEMPERATURE, CAP, INNER, SLOPE, Z_LOSS, OPTIONS = range(9)
_lower, _merge, _rebase = (
    formula(formulas.lower), formula(formulas.merge), formula(formulas.rebase),
)  # fmt: skip


# What a row is read for besides a loss, and the ways in which no class has a weight of its own.
ENTROPY_WAY, SOFTMAX_WAY, LOG_SOFTMAX_WAY, LOGSUMEXP_WAY = OTHER_WAYS = (
    "entropy", "softmax", "log_softmax", "logsumexp",
)  # fmt: skip
UNWEIGHTED = ("none", "kept", "relative", *OTHER_WAYS)
# Ways of a softcap. What softcap * tanh loses in float32 is in proportion to the softcap: half of
# what is allowed at 32. What is above is computed in float64.
CAPPED, WIDE = "capped", "wide"
MOST_CAPPED = 32.0


def arithmetic_of(storage, softcap, weights, soft):
    """Arithmetic of rows: float64 with a wide softcap, or relative to others of float64."""
    wide = softcap == WIDE or (weights == "relative" and soft == "float64")
    return vmath.double if wide else vmath.STORAGE[storage][0]


@cache
def weight_of_class(weights, arithmetic, soft):
    """c_k of the classes from k on, from the soft targets y and class weights w."""
    y_from = vmath.reader(soft, arithmetic, 0.0)
    return weight_from(weights, arithmetic, y_from, vmath.reader("float64", arithmetic, 0.0))


def weight_from(weights, arithmetic, y_from, w_from):
    """c_k from what reads soft targets and class weights."""
    filled = arithmetic.filled
    ways = {
        **dict.fromkeys(UNWEIGHTED, lambda y, w, k, alpha, beta: filled(0.0)),
        "uniform": lambda y, w, k, alpha, beta: filled(beta),
        "shared": lambda y, w, k, alpha, beta: w_from(w, k) * beta,
        "rows": lambda y, w, k, alpha, beta: y_from(y, k) * alpha + beta,
        "weighted_rows": lambda y, w, k, alpha, beta: (y_from(y, k) * alpha + beta) * w_from(w, k),
    }
    return helper(ways[weights])


@cache
def shape(arithmetic, softcap):
    """z of a logit and dz/dx times the temperature: the identity, or softcap * tanh(inner * x)."""
    real, tanh = arithmetic.real, arithmetic.tanh
    one, infinity = real(1), real(np.inf)

    @helper
    def identity(x, cap, inner):
        return x, one

    @helper
    def capped(x, cap, inner):
        value, slope = tanh(x * inner)
        finite = absolute(x) < infinity
        return where(finite, value * cap, x), where(finite, slope, one)

    return capped if softcap else identity


@cache
def _sums(storage, softcap, weights, soft, statistics, ranks, jumps):
    """Maximum of a block of logits, and its sums measured from `ref`.

    With `jumps`, what is asked for ahead lies `jump` further on from the `left`-th logit on, where
    the piece ends and another row's begins: a fifth of the time of columns of a wider array.
    """
    relative, entropy, keeps = weights == "relative", weights == ENTROPY_WAY, weights == "kept"
    of_entropy = statistics or entropy or relative
    arithmetic = arithmetic_of(storage, softcap, weights, soft)
    # Vectors of two of AVX2's 16 registers leave too few for the constants: what is put aside costs
    # a fifth of the speed of a loss, where nothing but the exponential is computed.
    narrow = AVX2 and not softcap and weights in UNWEIGHTED and not relative
    if narrow:
        arithmetic = vmath.with_lanes(arithmetic, arithmetic.lanes // 2)
    real, exp2, lanes, filled = (
        arithmetic.real, arithmetic.exp2, arithmetic.lanes, arithmetic.filled,
    )  # fmt: skip
    z_of = shape(arithmetic, softcap)
    linear = weights not in UNWEIGHTED
    in_order = linear or relative or keeps
    read = vmath.pair_reader(storage, arithmetic, -np.inf, in_order=in_order)
    read_one = vmath.reader(storage, arithmetic, -np.inf)
    size, steps = lanes if narrow else 4 * lanes, STEPS_BESIDE if relative else STEPS
    read_other = vmath.reader(soft, arithmetic, -np.inf)
    weight = weight_of_class(weights, arithmetic, soft)
    zero, unit, lowest, infinity = real(0), real(1), real(-np.inf), real(np.inf)
    least = real(np.finfo(real).min)
    to_line, ask = LINE // np.dtype(words(storage)).itemsize, prefetcher(size)

    @helper
    def terms(v, inside, y, w, k, ref, other_ref, above, alpha, beta, scale, cap, inner):
        """What a vector of logits adds to each lane's maximum and sums; its y and w are at k."""
        e_term, higher, a_term, c = filled(zero), filled(zero), filled(zero), filled(zero)
        other = filled(lowest)
        d = z_of(v, cap, inner)[0] - ref
        e = exp2(d * scale)
        if keeps:
            store(y, k, e)
        if relative:
            other = read_other(y, k)
            from_other = other - other_ref
            c = exp2(from_other * scale)
            e_term = where(e > zero, e * (d - from_other), zero)
            only_other_masks = (other == lowest) & (v > lowest)
            e_term = where(only_other_masks, infinity, e_term)
        if statistics or entropy:
            e_term = e * maximum(d, filled(least))  # where d is -inf, e is 0
        if ranks:
            higher = where(v > above, unit, zero)
        if linear:
            c = where(inside, weight(y, w, k, alpha, beta), zero)
            a_term = where(c == zero, zero, c * d)
        return v, e, e_term, higher, a_term, c, other

    @helper
    def nothing():
        none, nowhere = filled(zero), filled(lowest)
        return nowhere, none, none, none, none, none, nowhere

    @helper
    def both(s, t):
        return (
            maximum(t[0], s[0]), s[1] + t[1], s[2] + t[2], s[3] + t[3], s[4] + t[4], s[5] + t[5],
            maximum(t[6], s[6]) if relative else t[6],
        )  # fmt: skip

    @helper
    def ask_ahead(x, y, k, left, jump):
        if jumps:
            for line in range(0, size, to_line):
                prefetch_on(x, k + line, left, jump)
        else:
            ask(x, k)
        if relative:
            ask(y, k)

    @helper
    def one(state, x, y, w, k, *given):
        v = read_one(x, k)
        return both(state, terms(v, lanes_before(x.size - k, v), y, w, k, *given))

    @helper
    def pair(x, y, w, k, *given):
        (low, high), (in_low, in_high) = read(x, k)
        return both(
            terms(low, in_low, y, w, k, *given), terms(high, in_high, y, w, k + lanes, *given)
        )

    @helper
    def four(state, x, y, w, k, *given):
        low, high = pair(x, y, w, k, *given), pair(x, y, w, k + 2 * lanes, *given)
        return both(state, both(low, high))

    several = one if narrow else four

    # Inlined into a larger function, or with a loop around its own, LLVM would fetch the
    # polynomial's coefficients again for every vector: a tenth of the speed of reading.
    @helper(inline=False)
    def run(x, y, w, ref, other_ref, above, option, left, jump):
        apart()
        given = (
            ref, other_ref, above, real(option[ALPHA]), real(option[BETA]),
            real(option[LOG2_SCALE]), real(option[CAP]), real(option[INNER]),
        )  # fmt: skip
        state = nothing()
        for k in range(0, x.size, size):
            ask_ahead(x, y, k, left, jump)
            state = several(state, x, y, w, k, *given)
        return state

    @helper
    def for_block(t):
        wide = (double(t[1]), double(t[2]), t[3], t[4], double(t[5])) if relative else t[1:6]
        return t[0], *wide, t[6]

    @helper
    def sums(x, y, w, ref, other_ref, above, option, left, jump):
        state = for_block(nothing())
        for lo in range(0, x.size, steps * size):
            hi = min(lo + steps * size, x.size)
            added = run(
                part(x, lo, hi), part(y, lo, hi), part(w, lo, hi), ref, other_ref, above, option,
                left - lo, jump,
            )  # fmt: skip
            state = both(state, for_block(added))
        top, total, e, higher, a, c, other = state
        return (
            highest_of(top), sum_of(total), sum_of(e) if of_entropy else 0.0,
            sum_of(a) if linear else 0.0, sum_of(c) if linear or relative else 0.0,
            sum_of(higher) if ranks else 0.0, highest_of(other) if relative else lowest,
        )  # fmt: skip

    return sums


@cache
def _rest(storage, softcap, arithmetic, of_entropy, ranks):
    """Σ w and Σ w (z - m) without one of the logits equal to the maximum; how many are above."""
    real, exp2, lanes, filled = (
        arithmetic.real, arithmetic.exp2, arithmetic.lanes, arithmetic.filled,
    )  # fmt: skip
    read, z_of = vmath.reader(storage, arithmetic, -np.inf), shape(arithmetic, softcap)

    @helper(inline=False)
    def rest(x, m, z, above, option):
        cap, inner, scale = real(option[CAP]), real(option[INNER]), real(option[LOG2_SCALE])
        zero = filled(0.0)
        total, e_sum, ties, higher = double(zero), double(zero), np.int64(0), np.int64(0)
        for k in range(0, x.size, lanes):
            v = read(x, k)
            d = z_of(v, cap, inner)[0] - z
            is_top = v == m
            e = where(is_top, zero, exp2(d * scale))
            total += double(e)
            if of_entropy:
                e_sum += double(where(e > zero, e * d, zero))
            ties += np.int64(ones_of(bits_of_mask(is_top)))
            if ranks:
                higher += np.int64(ones_of(bits_of_mask(v > above)))
        return sum_of(total) + (ties - 1), sum_of(e_sum) if of_entropy else 0.0, higher

    return rest


@cache
def _z_as_read(softcap, arithmetic):
    """z of one logit, by the arithmetic that reads whole rows, to the last bit."""
    real, filled, z_of_lanes = arithmetic.real, arithmetic.filled, shape(arithmetic, softcap)

    @helper
    def z_of(x, option):
        return first_of(z_of_lanes(filled(x), real(option[CAP]), real(option[INNER]))[0])

    return z_of


@cache
def _searches(storage, arithmetic, sample):
    """Highest of the first logits, position of a value and of a NaN, how many equal a value."""
    lanes, filled = arithmetic.lanes, arithmetic.filled
    read, load = vmath.reader(storage, arithmetic, -np.inf), vmath.STORAGE[storage][1]

    @helper
    def highest(x):
        top = filled(-np.inf)
        for k in range(0, min(sample, x.size), lanes):
            top = maximum(read(x, k), top)
        return highest_of(top)

    @helper
    def four(x, k, value):
        low = (read(x, k) == value) | (read(x, k + lanes) == value)
        k += 2 * lanes
        return low | (read(x, k) == value) | (read(x, k + lanes) == value)

    @helper
    def find(x, value):
        """Position of the first that equals a value, -1 if there is none; four vectors at once."""
        k = 0
        while k < x.size and not bits_of_mask(four(x, k, value)):
            k += 4 * lanes
        while k < x.size:
            found = bits_of_mask(read(x, k) == value)
            if found:
                while not found & 1:
                    found, k = found >> 1, k + 1
                return k
            k += lanes
        return -1

    @helper
    def find_nan(x):
        """Position of the first NaN, -1 if there is none."""
        k = 0
        if count_nan(x, 0.0) > 0.0:
            while load(x[k]) == load(x[k]):
                k += 1
            return k
        return -1

    def count_where(hit):
        """How many are hits."""
        hit = helper(hit)

        @helper
        def count(x, value):
            n, one, zero = filled(0.0), filled(1.0), filled(0.0)
            for k in range(0, x.size, lanes):
                v = read(x, k)
                n += where(hit(v, value) & lanes_before(x.size - k, v), one, zero)
            return sum_of(n)

        return count

    count_equal = count_where(lambda v, value: v == value)
    count_nan = count_where(lambda v, value: v != v)
    return highest, find, find_nan, count_equal, count_nan


@cache
def piece_reader(storage, softcap, weights, soft, statistics, ranks=False, jumps=False):
    """Read a piece of a row that begins at class `base` into its state.

    The piece read next begins `jump` elements after the end of this one. The position of a maximum
    below `floor` is not looked for: a fifth of the time of 8000 classes.
    """
    relative, keeps = weights == "relative", weights == "kept"
    arithmetic = arithmetic_of(storage, softcap, weights, soft)
    load, real = vmath.STORAGE[storage][1], arithmetic.real
    measure = _sums(storage, softcap, weights, soft, statistics, ranks, jumps)
    of_entropy = statistics or weights in ("relative", ENTROPY_WAY)
    rest_of, z_of = (
        _rest(storage, softcap, arithmetic, of_entropy, ranks), _z_as_read(softcap, arithmetic),
    )  # fmt: skip
    sample = SAMPLE_OF_ENTROPY if of_entropy else SAMPLE
    highest, find, find_nan, count_equal, count_nan = _searches(storage, arithmetic, sample)
    highest_other = _searches(soft, arithmetic, sample)[0]
    lowest, zero, nan = real(-np.inf), real(0), real(np.nan)
    # Weighted sums of z - ref would cancel if measured from anything but the maximum.
    wide = MAX_RISE_OF_ENTROPY if of_entropy else MAX_RISE
    max_rise = wide if weights in UNWEIGHTED else 0.0
    simple = weights in ("none", *OTHER_WAYS)

    @helper
    def above_of(x, target, target_logit):
        """What a logit must be above to count: the classes before the target's that equal it do."""
        return np.nextafter(target_logit, lowest) if x.size <= target else target_logit

    @helper
    def equal_before(x, target, target_logit):
        """How many more count of these classes, of which the target's is number `target`."""
        if target >= x.size:
            return count_equal(x, lowest) if target_logit == lowest else 0.0
        return count_equal(part(x, 0, target), target_logit) if target > 0 else 0.0

    @helper
    def read_short(x, base, target, target_logit, floor, option, state):
        """Read a piece no longer than its sample, from its own maximum; return whether it has one.

        Half of the time of ten classes.
        """
        m = highest(x)
        if not lowest < m < -lowest:
            return False
        above = above_of(x, target, target_logit) if ranks else m
        rest, e, rank = rest_of(x, m, z_of(m, option), above, option)
        if rest != rest:
            return False
        state[MAX], state[REST], state[ENTROPY] = np.float64(m), rest, e
        state[LINEAR], state[WEIGHT] = 0.0, 0.0
        state[RANK] = rank + equal_before(x, target, target_logit) if ranks else 0.0
        state[ARGMAX] = base + find(x, m) if statistics and m >= floor else -1.0
        state[TARGET_LOGIT] = np.float64(target_logit)
        return True

    @helper
    def without_maximum(block, m, ref, others, of_max, e, e_of_max, a, c, option):
        """Σ w less 1, Σ w (z - z_m) and Σ c (z - z_m), of sums that are measured from `ref`."""
        rest, inverse_t = others + of_max - 1.0, option[INVERSE_TEMPERATURE]
        if not m > lowest and rest == rest:
            return rest, e, a
        z = z_of(m, option)
        rise = np.float64(z) - np.float64(ref)
        total, all_e, a = _lower(others + of_max, e + e_of_max, a, c, rise, inverse_t)
        if total - 1.0 > MIN_REST:
            return total - 1.0, all_e, a
        others, e, _ = _lower(others, e, 0.0, 0.0, rise, inverse_t)
        rest, of_block, _ = rest_of(block, m, z, m, option)
        return others + rest, all_e if relative else e + of_block, a

    @helper
    def rank_beside_nans(x, target, target_logit, rank):
        """Rank in a row with NaNs: they are above all numbers, the first of them comes first."""
        same = target_logit != target_logit
        last = max(0, min(target, x.size)) if same else x.size
        return (0.0 if same else rank) + count_nan(part(x, 0, last), nan)

    @helper
    def read_piece(x, y, w, base, target, elsewhere, floor, jump, option, state):
        inverse_t, scale = option[INVERSE_TEMPERATURE], option[LOG2_SCALE]
        target -= base
        target_logit = real(load(x[target])) if 0 <= target < x.size else real(elsewhere)
        m, start, ref, lo, block_of_max = lowest, lowest, zero, 0, 0
        other_max, other_start, other_ref = lowest, lowest, zero
        # Σ w and Σ w (z - ref) of all blocks but the one of the maximum, and of that one
        others, e, of_max, e_of_max, a, c, rank = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        one_reference = True
        if simple and x.size <= SAMPLE:
            if read_short(x, base, target, target_logit, floor, option, state):
                return
        while lo < x.size:
            hi = lo + BLOCK if lo + BLOCK < x.size else x.size
            b, by = part(x, lo, hi), part(y, lo, hi)
            if not start > lowest:
                start = highest(b)
                ref = z_of(start if start > lowest else zero, option)
            if relative and not other_start > lowest:
                other_start = highest_other(by)
                other_ref = other_start if other_start > lowest else zero
            above = above_of(b, target - lo, target_logit) if ranks else target_logit
            top, total, eb, ab, cb, higher, other_top = measure(
                b, by, part(w, base + lo, base + hi), ref, other_ref, above, option, x.size - lo,
                jump,
            )  # fmt: skip
            if top > start:
                rise = np.float64(z_of(top, option)) - np.float64(ref)
                if rise * scale > max_rise or not start > lowest:
                    if start > lowest:
                        one_reference = one_reference and lo == 0
                        others, e, a = _lower(others, e, a, c, rise, inverse_t)
                        of_max, e_of_max, _ = _lower(of_max, e_of_max, 0.0, 0.0, rise, inverse_t)
                    start, ref = top, z_of(top, option)
                    continue
            if relative and other_top > other_start:
                rise = np.float64(other_top) - np.float64(other_ref)
                if rise * scale > max_rise or not other_start > lowest:
                    if other_start > lowest:
                        e, c = _rebase(others, e, c, rise, inverse_t)
                        e_of_max, _ = _rebase(of_max, e_of_max, 0.0, rise, inverse_t)
                    other_start, other_ref = other_top, other_top
                    continue
            if ranks:
                rank += equal_before(b, target - lo, target_logit)
            rank, a, c, lo = rank + higher, a + ab, c + cb, hi
            if other_top > other_max:
                other_max = other_top
            if top > m:
                others, e = others + of_max, e + e_of_max
                m, of_max, e_of_max, block_of_max = top, total, eb, hi - b.size
            else:
                others, e = others + total, e + eb
        if relative and other_max > lowest:
            rise = np.float64(other_max) - np.float64(other_ref)
            e, c = _rebase(others + of_max, e, c, rise, inverse_t)
        b = part(x, block_of_max, x.size)
        b = part(b, 0, BLOCK if BLOCK < b.size else b.size)
        rest, e, a = without_maximum(b, m, ref, others, of_max, e, e_of_max, a, c, option)
        position = find_nan(x) if rest != rest else -1
        if position >= 0:
            m = nan
            if ranks:
                rank = rank_beside_nans(x, target, target_logit, rank)
        elif statistics and m >= floor:
            position = block_of_max + find(b, m)
        state[MAX], state[REST], state[ENTROPY] = np.float64(m), rest, e
        state[LINEAR], state[WEIGHT], state[RANK] = a, c, rank
        state[ARGMAX] = base + position if position >= 0 else -1.0
        state[TARGET_LOGIT] = np.float64(target_logit)
        state[OTHER_MAX] = np.float64(other_max)
        if keeps:
            state[KEPT_REFERENCE] = np.float64(ref) if one_reference else np.nan

    return read_piece


@cache
def merger(softcap, arithmetic, relative):
    """Return merge(s, t, option): make s the state of both pieces, but for the target's logit.

    Of equal maxima the lowest class counts, if there is one. A NaN stays, and where it is first.
    """
    z_as_read, real, capped = _z_as_read(softcap, arithmetic), arithmetic.real, bool(softcap)

    @helper
    def to_one_base(s, t, inverse_t):
        """Measure both states from the higher maximum of the other row."""
        rise = t[OTHER_MAX] - s[OTHER_MAX]
        if rise > 0.0:
            s[ENTROPY], s[WEIGHT] = _rebase(1.0 + s[REST], s[ENTROPY], s[WEIGHT], rise, inverse_t)
            s[OTHER_MAX] = t[OTHER_MAX]
        elif rise < 0.0:
            t[ENTROPY], t[WEIGHT] = _rebase(1.0 + t[REST], t[ENTROPY], t[WEIGHT], -rise, inverse_t)

    @helper
    def z_of(m, option):
        # without a softcap maxima are as read, perhaps by pieces of several types
        return np.float64(z_as_read(real(m), option)) if capped else m

    @helper
    def merge(s, t, option):
        if relative:
            to_one_base(s, t, option[INVERSE_TEMPERATURE])
        gap = z_of(s[MAX], option) - z_of(t[MAX], option)
        s_is_nan, t_is_nan = s[MAX] != s[MAX], t[MAX] != t[MAX]
        if s[MAX] == t[MAX] or (s_is_nan and t_is_nan):
            first, last = min(s[ARGMAX], t[ARGMAX]), max(s[ARGMAX], t[ARGMAX])
            s[ARGMAX] = first if first >= 0.0 else last
        elif not s_is_nan and not t[MAX] <= s[MAX]:
            s[ARGMAX] = t[ARGMAX]
        s[MAX], s[REST], s[ENTROPY], s[LINEAR], s[WEIGHT] = _merge(
            s[MAX], s[REST], s[ENTROPY], s[LINEAR], s[WEIGHT],
            t[MAX], t[REST], t[ENTROPY], t[LINEAR], t[WEIGHT], gap, option[INVERSE_TEMPERATURE],
        )  # fmt: skip
        if s_is_nan or t_is_nan:
            s[MAX] = np.nan
        s[RANK] += t[RANK]

    return merge
