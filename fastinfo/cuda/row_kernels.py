"""Rows of logits on a device: a block of threads reads a row, or a piece of one, into its state.

A thread takes 16 bytes at a time, several of them before it looks at the first, and keeps a state
of its own, measured from its own maximum; the states of a block are merged in a fixed order. Where
rows are few a row is cut into pieces, whose states are merged in order too. Formulas are in
`formulas.py`, the second reading in `gradient_kernels.py`. All is in the arithmetic of the logits:
float64 in a kernel of float32 would cost more than the memory.

Weights of classes come in the same ways as in `cpu.row_kernels`.
"""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import computed_in
from fastinfo.cuda.reduce import of_block
from fastinfo.cuda.seam import SIMULATED, cuda, formula, helper, kernel, loader, mathematics

# Threads of a block, and 16-byte loads of a thread in flight.
THREADS = 4 if SIMULATED else 512
FLIGHT = 4

# Numbers of a row's state, and its integers: where the maximum is, how many logits are above the
# target's.
MAX, REST, ENTROPY, LINEAR, WEIGHT, TARGET_LOGIT, NUMBERS = range(7)
ARGMAX, RANK, INTEGERS = range(3)
# Entries of the options.
ALPHA, BETA, LOG2_SCALE, INVERSE_TEMPERATURE, CAP, INNER, SLOPE, Z_LOSS, OPTIONS = range(9)
# Figures of a row: numbers, and integers.
MAXIMUM, LOG_SUM, LOGSUMEXP, ENTROPY_OF_ROW, LOG_PROB, RAW_MAXIMUM, FIGURES = range(7)
ARGMAX_OF_ROW, RANK_OF_TARGET, INTEGER_FIGURES = range(3)
# Targets that are ignored, and that are no class: their rows are NaN.
IGNORED, NO_CLASS = -1, -2
# Where rows lie: how far the memory begins past 16 bytes, how far apart two classes are, and where
# the first row is and how far the next, if no array of their offsets is given.
SHIFT, STEP, FIRST, ROW_STEP, PLACE = range(5)
UNWEIGHTED = ("none", "entropy", "logarithm")


@helper
def start_of(starts, place, i):
    """Offset of row i."""
    return starts[i] if starts.size else place[FIRST] + i * place[ROW_STEP]


@cache
def shape(real, softcap):
    """z of a logit and dz/dx times the temperature: the identity, or softcap * tanh(inner * x)."""
    m = mathematics(real)
    one, infinity, tanh, cosh = m.real(1), m.real(np.inf), m.tanh, m.cosh

    @helper
    def identity(x, option):
        return x

    @helper
    def capped(x, option):
        return option[CAP] * tanh(x * option[INNER]) if abs(x) < infinity else x

    @helper
    def no_slope(x, option):
        return one

    @helper
    def slope(x, option):
        c = cosh(x * option[INNER])
        return one / (c * c) if abs(x) < infinity else one

    return (capped, slope) if softcap else (identity, no_slope)


@cache
def weight_of_class(weights, real, soft):
    """c_k of class k, from the soft targets y from `at` on and class weights w."""
    load, zero = loader(soft)[0], np.dtype(real).type(0)
    convert = np.dtype(real).type
    ways = {
        **dict.fromkeys(UNWEIGHTED, lambda y, at, step, w, k, option: zero),
        "uniform": lambda y, at, step, w, k, option: option[BETA],
        "shared": lambda y, at, step, w, k, option: w[k] * option[BETA],
        "rows": lambda y, at, step, w, k, option: (
            convert(load(y, at + k * step)) * option[ALPHA] + option[BETA]
        ),
        "weighted_rows": lambda y, at, step, w, k, option: (
            (convert(load(y, at + k * step)) * option[ALPHA] + option[BETA]) * w[k]
        ),
    }
    return helper(ways[weights])


# --- the state of a thread, of a block -----------------------------------------------------------
# A thread's is (m, peak, z, reference, rest, ties, e, a, c, at, rank): its maximum, the same or
# NaN, its z, the same or 0, the sum of what is below it, how many are equal to it, the sums of the
# weighed. A block's is (m, rest, e, a, c, z, at, rank), the rest without one maximal term.


@cache
def merger(real):
    """Merge(s, t, inverse_t): the state of two pieces of a row, the first of equal maxima."""
    merge_numbers = formula(formulas.merge, mathematics(real))

    @helper
    def merge(s, t, inverse_t):
        m, rest, e, a, c = merge_numbers(
            s[0], s[1], s[2], s[3], s[4], t[0], t[1], t[2], t[3], t[4], s[5] - t[5], inverse_t
        )
        z, at = s[5], s[6]
        if t[0] > s[0]:
            z, at = t[5], t[6]
        elif t[0] == s[0] and t[6] >= 0 and (at < 0 or t[6] < at):
            at = t[6]
        return m, rest, e, a, c, z, at, s[7] + t[7]

    return merge


def over(lanes, one):
    """Return each(state, values, k, given): one(state, v, k, given) over a tuple, in order."""
    last = lanes - 1
    if lanes == 1:

        @helper
        def first(state, values, k, given):
            return one(state, values[0], k, given)

        return first
    others = over(lanes - 1, one)

    @helper
    def each(state, values, k, given):
        return one(others(state, values, k, given), values[last], k + last, given)

    return each


def highest_of(lanes, maximum):
    """Return highest(values), which looks past NaN."""
    if lanes == 1:
        return helper(lambda values: values[0])
    others, last = highest_of(lanes - 1, maximum), lanes - 1

    @helper
    def highest(values):
        return maximum(others(values), values[last])

    return highest


def first_equal_of(lanes, count):
    """Return find(values, v): which is the first that equals v."""
    at = count - lanes
    if lanes == 1:
        return helper(lambda values, v: at)
    others = first_equal_of(lanes - 1, count)

    @helper
    def find(values, v):
        return at if values[at] == v else others(values, v)

    return find


@cache
def _adders(storage, softcap, weights, soft, statistics, ranks):
    """Functions that add one logit, or 16 bytes of them, to a thread's state."""
    real = computed_in(storage)
    m_ = mathematics(real)
    kind, exp2, maximum = m_.real, m_.exp2, m_.maximum
    z_of, _ = shape(real, softcap)
    weight = weight_of_class(weights, real, soft)
    zero, one_, least, lowest, nan = (
        kind(0), kind(1), kind(np.finfo(real).min), kind(-np.inf), kind(np.nan),
    )  # fmt: skip
    lanes = 8 if storage in ("float16", "bfloat16") else 4
    of_entropy, linear = statistics or weights == "entropy", weights not in UNWEIGHTED

    @helper
    def nothing():
        return lowest, nan, lowest, zero, zero, zero, zero, zero, zero, -1, 0

    @helper
    def risen(state, top, at, option):
        """The state measured from a higher maximum."""
        m, _, z, _, rest, ties, e, a, c, _, rank = state
        z_top = z_of(top, option)
        if m > lowest:
            gap, total = z_top - z, rest + ties
            shrink = exp2(-gap * option[LOG2_SCALE])
            if of_entropy:
                e = (e - total * gap) * shrink
            if linear:
                a -= c * gap
            rest = total * shrink
        return top, top, z_top, z_top, rest, zero, e, a, c, at, rank

    @helper
    def add(state, v, k, given):
        """One logit that is no higher than the maximum."""
        y, y_at, y_step, w, target, target_logit, option = given
        m, peak, z, reference, rest, ties, e, a, c, at, rank = state
        d = z_of(v, option) - reference
        p = exp2(d * option[LOG2_SCALE])
        top = v == peak
        rest += zero if top else p
        ties += one_ if top else zero
        if of_entropy:
            e += p * maximum(d, least)
        if linear:
            weighed = weight(y, y_at, y_step, w, k, option)
            c += weighed
            a += zero if weighed == zero else weighed * d
        if ranks:
            if target_logit == target_logit:
                above = not v <= target_logit or (v == target_logit and k < target)
            else:
                above = v != v and k < target
            rank += 1 if above else 0
        return m, peak, z, reference, rest, ties, e, a, c, at, rank

    @helper
    def add_one(state, v, k, given):
        if v > state[0]:
            state = risen(state, v, k, given[6])
        return add(state, v, k, given)

    highest, each = highest_of(lanes, maximum), over(lanes, add)
    find = first_equal_of(lanes, lanes)

    @helper
    def add_wide(state, values, k, given):
        top = highest(values)
        if top > state[0]:
            at = k + find(values, top) if statistics else k
            state = risen(state, top, at, given[6])
        return each(state, values, k, given)

    return nothing, add_one, add_wide, lanes


@cache
def piece_reader(storage, softcap, weights, soft, statistics, ranks):
    """Read the classes [begin, end) of a row by all threads of a block into its state."""
    nothing, add_one, add_wide, lanes = _adders(storage, softcap, weights, soft, statistics, ranks)
    real = computed_in(storage)
    load, load_wide = loader(storage)
    one_ = mathematics(real).real(1)
    reduced = of_block(merger(real), 6, 2, THREADS, real)

    @helper
    def read_piece(x, start, place, begin, end, given):
        t, state, shift, step = cuda.threadIdx.x, nothing(), place[SHIFT], place[STEP]
        if step == 1:
            first, last = start + begin, start + end
            head = min(first + (-(first + shift)) % lanes, last)
            tail = head + (last - head) // lanes * lanes
            for i in range(first + t, head, THREADS):
                state = add_one(state, load(x, i), i - start, given)
            i, stride = head + t * lanes, THREADS * lanes
            while i + 3 * stride < tail:
                v, v1 = load_wide(x, i), load_wide(x, i + stride)
                v2, v3 = load_wide(x, i + 2 * stride), load_wide(x, i + 3 * stride)
                state = add_wide(state, v, i - start, given)
                state = add_wide(state, v1, i + stride - start, given)
                state = add_wide(state, v2, i + 2 * stride - start, given)
                state = add_wide(state, v3, i + 3 * stride - start, given)
                i += FLIGHT * stride
            while i < tail:
                state = add_wide(state, load_wide(x, i), i - start, given)
                i += stride
            for i in range(tail + t, last, THREADS):
                state = add_one(state, load(x, i), i - start, given)
        else:
            for k in range(begin + t, end, THREADS):
                state = add_one(state, load(x, start + k * step), k, given)
        m, _, z, _, rest, ties, e, a, c, at, rank = state
        own = m, rest + (ties - one_), e, a, c, z, at, rank
        return reduced(own, given[6][INVERSE_TEMPERATURE])

    return read_piece


@cache
def finder_of_nan(storage):
    """Find the first NaN among the classes [begin, end) of a row, -1 if there is none."""
    load = loader(storage)[0]

    @helper
    def first(s, t, given):
        return (t[0] if s[0] < 0 or 0 <= t[0] < s[0] else s[0],)

    reduced = of_block(first, 0, 1, THREADS, "float32")

    @helper
    def find_nan(x, start, step, begin, end):
        at = -1
        for k in range(begin + cuda.threadIdx.x, end, THREADS):
            v = load(x, start + k * step)
            if v != v and at < 0:
                at = k
        return reduced((at,), 0)[0]

    return find_nan


@cache
def terms_of_target(real, softcap):
    """Log Σ w, the target's gap to the maximum, its own and its smoothed weight."""
    m = mathematics(real)
    log_sum_of, (z_of, _), zero, one_ = (
        formula(formulas.log_sum, m), shape(real, softcap), m.real(0), m.real(1),
    )  # fmt: skip

    @helper
    def terms(state, target, target_logit, w, option):
        gap, own, smoothed = zero, zero, zero
        if target >= 0:
            class_weight = w[target] if w.size else one_
            own, smoothed = option[ALPHA] * class_weight, option[BETA] * class_weight
            gap = (state[5] - z_of(target_logit, option)) * option[INVERSE_TEMPERATURE]
        return log_sum_of(state[0], state[1]), gap, own, smoothed

    return terms


@cache
def loss_of(real, softcap):
    """Loss of a row from its state, times its weight."""
    terms, loss = (
        terms_of_target(real, softcap), formula(formulas.softmax_cross_entropy, mathematics(real)),
    )  # fmt: skip

    @helper
    def finish(state, target, target_logit, weight, w, option):
        log_sum, gap, own, _ = terms(state, target, target_logit, w, option)
        inverse_t = option[INVERSE_TEMPERATURE]
        return weight * loss(
            log_sum, state[5] * inverse_t, gap, own, state[3], state[4], option[Z_LOSS], inverse_t
        )

    return finish


# --- kernels -------------------------------------------------------------------------------------


@helper
def target_of(targets, i):
    """Class of a row, "ignored" where no targets are given."""
    return targets[i] if targets.size else np.int64(IGNORED)


@cache
def weight_of(real):
    """Weight of a row, 1 where no weights are given."""
    one = mathematics(real).real(1)

    @helper
    def weight(weights, i):
        return weights[i] if weights.size else one

    return weight


@cache
def losses(storage, softcap, weights, soft):
    """Kernel: losses of rows, a block each."""
    read_piece = piece_reader(storage, softcap, weights, soft, False, False)
    real = computed_in(storage)
    finish, load, weighed = loss_of(real, softcap), loader(storage)[0], weight_of(real)
    kind = mathematics(real).real
    zero, nan = kind(0), kind(np.nan)

    @kernel
    def read_losses(x, starts, place, width, y, y_starts, y_place, w, targets, active, option, out):
        i = cuda.blockIdx.x
        target, weight = target_of(targets, i), weighed(active, i)
        start, loss = start_of(starts, place, i), nan if target == NO_CLASS else zero
        if weight != zero and target != NO_CLASS:
            logit = load(x, start + target * place[STEP]) if target >= 0 else nan
            given = y, start_of(y_starts, y_place, i), y_place[STEP], w, target, logit, option
            state = read_piece(x, start, place, 0, width, given)
            loss = finish(state, target, logit, weight, w, option)
        if cuda.threadIdx.x == 0:
            out[i] = loss

    return read_losses


@cache
def states(storage, softcap, weights, soft, statistics, ranks):
    """Kernel: states of pieces of rows, a block each; block (row, piece)."""
    read_piece = piece_reader(storage, softcap, weights, soft, statistics, ranks)
    find_nan, load = finder_of_nan(storage), loader(storage)[0]
    real = computed_in(storage)
    weighed, kind = weight_of(real), mathematics(real).real
    nan, infinity = kind(np.nan), kind(np.inf)

    @kernel
    def read_states(
        x, starts, place, width, length, y, y_starts, y_place, w, targets, active, option,
        numbers, integers,
    ):  # fmt: skip
        i, piece = cuda.blockIdx.x, cuda.blockIdx.y
        begin = piece * length
        end = min(begin + length, width)
        if weighed(active, i) == kind(0):
            end = begin
        target, start = target_of(targets, i), start_of(starts, place, i)
        logit = load(x, start + target * place[STEP]) if target >= 0 else nan
        given = y, start_of(y_starts, y_place, i), y_place[STEP], w, target, logit, option
        m, rest, e, a, c, _, at, rank = read_piece(x, start, place, begin, end, given)
        if statistics:
            if rest != rest:
                first = find_nan(x, start, place[STEP], begin, end)
                if first >= 0:
                    m, at = nan, first
            elif m == -infinity and end > begin:
                at = begin
        if cuda.threadIdx.x == 0:
            numbers[i, piece, MAX], numbers[i, piece, REST] = m, rest
            numbers[i, piece, ENTROPY], numbers[i, piece, LINEAR] = e, a
            numbers[i, piece, WEIGHT], numbers[i, piece, TARGET_LOGIT] = c, logit
            integers[i, piece, ARGMAX], integers[i, piece, RANK] = at, rank

    return read_states


@cache
def row_of_pieces(real, softcap):
    """The state of row i from those of its pieces, in order; a NaN stays, and where it is first."""
    merge, (z_of, _) = merger(real), shape(real, softcap)

    @helper
    def piece(numbers, integers, i, k, option):
        m = numbers[i, k, MAX]
        return (
            m, numbers[i, k, REST], numbers[i, k, ENTROPY], numbers[i, k, LINEAR],
            numbers[i, k, WEIGHT], z_of(m, option), integers[i, k, ARGMAX], integers[i, k, RANK],
        )  # fmt: skip

    @helper
    def merged(numbers, integers, i, option):
        state = piece(numbers, integers, i, 0, option)
        for k in range(1, numbers.shape[1]):
            other = piece(numbers, integers, i, k, option)
            m, rest, e, a, c, z, at, rank = merge(state, other, option[INVERSE_TEMPERATURE])
            if state[0] != state[0]:
                m, rest, z, at = state[0], state[1], state[0], state[6]
            elif other[0] != other[0]:
                m, rest, z, at = other[0], other[1], other[0], other[6]
            state = m, rest, e, a, c, z, at, rank
        return state

    return merged


@cache
def finishes(real, softcap):
    """Kernel: losses from the states of pieces, a thread a row."""
    merged, finish = row_of_pieces(real, softcap), loss_of(real, softcap)
    weighed = weight_of(real)
    zero, nan = mathematics(real).real(0), mathematics(real).real(np.nan)

    @kernel
    def finish_rows(numbers, integers, targets, active, w, option, out):
        i = cuda.grid(1)
        if i < out.size:
            target, weight = target_of(targets, i), weighed(active, i)
            out[i] = nan if target == NO_CLASS else zero
            if weight != zero and target != NO_CLASS:
                state = merged(numbers, integers, i, option)
                logit = numbers[i, 0, TARGET_LOGIT]
                out[i] = finish(state, target, logit, weight, w, option)

    return finish_rows


@cache
def summaries(real, softcap):
    """Kernel: figures of rows from the states of pieces, as SciPy has them for infinite rows."""
    m_ = mathematics(real)
    merged, (z_of, _) = row_of_pieces(real, softcap), shape(real, softcap)
    log_sum_of, entropy_of, logsumexp = (
        formula(formulas.log_sum, m_), formula(formulas.softmax_entropy, m_),
        formula(formulas.logsumexp, m_),
    )  # fmt: skip
    zero, nan = m_.real(0), m_.real(np.nan)

    @kernel
    def summarise_rows(numbers, integers, targets, option, figures, positions):
        i = cuda.grid(1)
        if i < figures.shape[1]:
            m, rest, e, _, _, z, at, rank = merged(numbers, integers, i, option)
            inverse_t, log_sum = option[INVERSE_TEMPERATURE], log_sum_of(m, rest)
            figures[RAW_MAXIMUM, i], figures[MAXIMUM, i] = m, z * inverse_t
            figures[LOG_SUM, i] = log_sum
            figures[LOGSUMEXP, i] = logsumexp(z * inverse_t, log_sum)
            figures[ENTROPY_OF_ROW, i] = entropy_of(rest, e, inverse_t) + zero * log_sum
            positions[ARGMAX_OF_ROW, i] = at
            known = target_of(targets, i) >= 0
            gap = (z - z_of(numbers[i, 0, TARGET_LOGIT], option)) * inverse_t
            figures[LOG_PROB, i] = -(log_sum + gap) if known else nan
            positions[RANK_OF_TARGET, i] = rank if known else -1

    return summarise_rows
