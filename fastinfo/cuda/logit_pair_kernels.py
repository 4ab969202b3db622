"""Two rows of logits read side by side by a block of threads, on a device.

The first reading gives both normalisers and KL, a thread keeping a state measured from its own
maxima. Later ones know the normalisers: sums of terms, and derivatives by the logits of q. Values
near 0 are summed again in float64, in a kernel of its own.
"""

from functools import cache
from types import SimpleNamespace

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import computed_in
from fastinfo.cuda.gradient_kernels import filler
from fastinfo.cuda.reduce import of_block
from fastinfo.cuda.row_kernels import SHIFT, STEP, THREADS, highest_of, start_of
from fastinfo.cuda.seam import (
    SIMULATED,
    cuda,
    formula,
    helper,
    kernel,
    mathematics,
    storer,
)
from fastinfo.cuda.side_by_side import (
    lanes_of,
    mapped_both,
    over_both,
    walker,
    wide_loader,
    wide_walker,
)

# Threads of a block of the kernel in float64, whose terms need many registers.
NEAR_THREADS = 2 if SIMULATED else 128
# A row's state after the first reading: maximum of p, Σ exp((z - m) / T), Σ of that times
# (z - m) - (y - n), maximum n of q, Σ exp((y - n) / T).
MAX, SUM, RELATIVE, OTHER_MAX, OTHER_SUM, NUMBERS = range(6)
# Figures of a row.
P_MAX, P_LOG_SUM, Q_MAX, Q_LOG_SUM, FIGURES = range(5)
# What later readings know of a row, as in `cpu.logit_pair_kernels`; whether the next is to read it.
(
    P_TOP, Q_TOP, P_SHARE, Q_SHARE, DISTANCE, REMAINDER, GAP, OF_Q, FACTOR, WANTED, CONSTANTS,
) = range(11)  # fmt: skip
# Sums of a row, of the two terms.
FIRST, SECOND, SUMS = range(3)
# Readings at most of a row near 0, as in `cpu.logit_pairs`.
GUESSES = 3
# Options: 1 / T, log2(e) / T, the weight of p as `formulas.shares` takes it.
INVERSE_TEMPERATURE, LOG2_SCALE, WEIGHT, OPTIONS = range(4)


# --- the first reading ---------------------------------------------------------------------------


@cache
def _raiser(real):
    """The state measured from other maxima, no lower; an infinite Σ stays so."""
    m_ = mathematics(real)
    exp2, zero, infinity = m_.exp2, m_.real(0), m_.real(np.inf)

    @helper
    def raised(state, top, other_top, scale):
        m, s, e, n, c = state
        if c > zero and other_top > n:
            gap = other_top - n
            e += s * gap
            c *= exp2(-gap * scale)
        if s > zero and top > m:
            gap = top - m
            shrink = exp2(-gap * scale)
            e = (e - s * gap) * shrink if e < infinity else e
            s *= shrink
        return top, s, e, other_top, c

    return raised


@cache
def merger(real):
    """Merge(s, t, scale): the state of two pieces of a pair of rows."""
    raised = _raiser(real)

    @helper
    def merge(s, t, scale):
        top, other_top = t[0] if t[0] > s[0] else s[0], t[3] if t[3] > s[3] else s[3]
        s, t = raised(s, top, other_top, scale), raised(t, top, other_top, scale)
        return top, s[1] + t[1], s[2] + t[2], other_top, s[4] + t[4]

    return merge


@cache
def _first_reader(p_storage, q_storage, real):
    """Read the classes [begin, end) of two rows by all threads of a block into their state."""
    m_, raised = mathematics(real), _raiser(real)
    kind, exp2, maximum = m_.real, m_.exp2, m_.maximum
    zero, infinity, lowest = kind(0), kind(np.inf), kind(np.finfo(real).min)
    nothing = kind(-0.0)  # x + it is x, which the compiler then knows
    lanes = lanes_of(p_storage, q_storage)

    @helper
    def add(state, v, u, k, scale):
        """Logits that are no higher than the maxima; a class that only q masks makes it inf."""
        v, u = kind(v), kind(u)
        m, s, e, n, c = state
        d, f = v - m, u - n
        w = exp2(d * scale)
        term = w * (d - f) if w > zero else zero
        term = infinity if u == -infinity and v > -infinity else term
        return m, s + w, e + term, n, c + exp2(f * scale)

    @helper
    def add_one(state, v, u, k, scale):
        top, other_top = maximum(state[0], kind(v)), maximum(state[3], kind(u))
        return add(raised(state, top, other_top, scale), v, u, k, scale)

    highest, each = highest_of(lanes, m_.maximum), over_both(lanes, add)

    @helper
    def add_wide(state, v, u, k, scale):
        top, other_top = kind(highest(v)), kind(highest(u))
        if top > state[0] or other_top > state[3]:
            top, other_top = maximum(state[0], top), maximum(state[3], other_top)
            state = raised(state, top, other_top, scale)
        # a sum of its own first: equal numbers are rounded alike, and a KL of 0.03 has few digits
        m, s, e, n, c = state
        _, more_s, more_e, _, more_c = each((m, nothing, nothing, n, nothing), v, u, k, scale)
        return m, s + more_s, e + more_e, n, c + more_c

    walk = wide_walker(p_storage, q_storage, add_one, add_wide)
    reduced = of_block(merger(real), NUMBERS, 0, THREADS, real)

    @helper
    def read(p, p_start, p_place, q, q_start, q_place, begin, end, scale):
        nothing = lowest, zero, zero, lowest, zero
        own = walk(p, p_start, p_place, q, q_start, q_place, begin, end, nothing, scale)
        return reduced(own, scale)

    return read


@cache
def states(p_storage, q_storage, real):
    """Kernel: states of pieces of pairs of rows, a block each; block (row, piece)."""
    read = _first_reader(p_storage, q_storage, real)
    zero = mathematics(real).real(0)

    @kernel
    def read_states(
        p, p_starts, p_place, q, q_starts, q_place, width, length, active, option, numbers
    ):
        i, piece = cuda.blockIdx.x, cuda.blockIdx.y
        begin = piece * length
        end = min(begin + length, width) if active[i] != zero else begin
        m, s, e, n, c = read(
            p, start_of(p_starts, p_place, i), p_place, q, start_of(q_starts, q_place, i),
            q_place, begin, end, option[LOG2_SCALE],
        )  # fmt: skip
        if cuda.threadIdx.x == 0:
            numbers[i, piece, MAX], numbers[i, piece, SUM] = m, s
            numbers[i, piece, RELATIVE], numbers[i, piece, OTHER_MAX] = e, n
            numbers[i, piece, OTHER_SUM] = c

    return read_states


# --- what is known of rows -----------------------------------------------------------------------


@cache
def _known(real):
    """The constants of a row in a float type but the last two, from its figures in float64.

    The logarithm of the sum of q is `more` than found.
    """
    kind, wide, unit = mathematics(real).real, mathematics("float64"), float(np.finfo(real).eps)
    rounded = helper(lambda x: np.float64(kind(x)))
    known_of_logits = formula(
        formulas.known_of_logits, SimpleNamespace(**vars(wide) | {"rounded": rounded})
    )

    @helper
    def known(p_max, p_log_sum, q_max, q_log_sum, more, inverse_t):
        p_share, q_share, distance, remainder, shift = known_of_logits(
            p_max, p_log_sum, q_max, q_log_sum, more, inverse_t, unit
        )
        return (
            kind(p_max), kind(q_max), kind(p_share), kind(q_share), kind(distance), kind(remainder),
            kind(shift),
        )  # fmt: skip

    return known


@cache
def _writer(real):
    """Write the constants of a row; NaN for its gradient where it is no distribution."""
    kind, known = mathematics(real).real, _known(real)

    @helper
    def write(constants, i, p_max, p_log_sum, q_max, q_log_sum, more, of_q, active, inverse_t):
        row = known(p_max, p_log_sum, q_max, q_log_sum, more, inverse_t)
        constants[i, P_TOP], constants[i, Q_TOP], constants[i, P_SHARE] = row[:3]
        constants[i, Q_SHARE], constants[i, DISTANCE], constants[i, REMAINDER] = row[3:6]
        constants[i, GAP], constants[i, OF_Q] = row[6], kind(of_q)
        constants[i, FACTOR] = kind(active * inverse_t + 0.0 * (p_log_sum + q_log_sum))

    return write


@cache
def summaries(real, far):
    """Kernel: figures and constants of rows, and their KL, from states of pieces; a thread a row.

    With `far` terms to come all rows are wanted, else those whose KL is near 0.
    """
    merge, write, log = merger("float64"), _writer(real), mathematics("float64").log
    zero, one = mathematics(real).real(0), mathematics(real).real(1)

    @helper
    def piece(numbers, i, k):
        return (
            np.float64(numbers[i, k, MAX]), np.float64(numbers[i, k, SUM]),
            np.float64(numbers[i, k, RELATIVE]), np.float64(numbers[i, k, OTHER_MAX]),
            np.float64(numbers[i, k, OTHER_SUM]),
        )  # fmt: skip

    @helper
    def log_sum_of(total):
        return np.nan if total == 0.0 else log(total)

    @kernel
    def summarise(numbers, active, option, near, figures, constants, values):
        i = cuda.grid(1)
        if i < values.size:
            inverse_t = option[INVERSE_TEMPERATURE]
            state = piece(numbers, i, 0)
            for k in range(1, numbers.shape[1]):
                state = merge(state, piece(numbers, i, k), option[LOG2_SCALE])
            m, s, e, n, c = state
            log_sum, other_log_sum, weight = log_sum_of(s), log_sum_of(c), np.float64(active[i])
            size = e / s * inverse_t
            value = size - (log_sum - other_log_sum)
            figures[i, P_MAX], figures[i, P_LOG_SUM] = m, log_sum
            figures[i, Q_MAX], figures[i, Q_LOG_SUM] = n, other_log_sum
            wanted = active[i] != zero and (far or value < near * (1.0 + abs(size)))
            constants[i, WANTED] = one if wanted else zero
            write(constants, i, m, log_sum, n, other_log_sum, 0.0, 0.0, weight, inverse_t)
            values[i] = value * weight if active[i] != zero else 0.0

    return summarise


@cache
def totals(real):
    """Kernel: weighted divergences from sums of pieces; those near 0 stay wanted."""
    kind, shares = mathematics(real).real, formula(formulas.shares, mathematics("float64"))
    zero, one = kind(0), kind(1)

    @kernel
    def add_up(sums, active, option, near, constants, values):
        i = cuda.grid(1)
        if i < values.size and constants[i, WANTED] != zero:
            first, second = 0.0, 0.0
            for k in range(sums.shape[1]):
                first += np.float64(sums[i, k, FIRST])
                second += np.float64(sums[i, k, SECOND])
            own, other = shares(option[WEIGHT])
            value = own * first + other * second
            constants[i, WANTED] = one if value < near else zero
            constants[i, OF_Q] = kind(second)
            values[i] = value * np.float64(active[i])

    return add_up


# --- later readings ------------------------------------------------------------------------------


@cache
def _entries(real):
    """p, q, d = p - q and e = p log(p / q) - d of two logits, each with its own digits."""
    m_ = mathematics(real)
    kind, exp2, expm1, excess = m_.real, m_.exp2, m_.expm1, formula(formulas.excess, m_)
    zero, infinity = kind(0), kind(np.inf)

    @helper
    def entries(v, u, row, option):
        v, u = kind(v), kind(u)
        scale = kind(option[LOG2_SCALE])
        p, q = exp2((v - row[0]) * scale) * row[2], exp2((u - row[1]) * scale) * row[3]
        high = v - u
        back = high - v
        low = (v - (high - back)) - (u + back)
        low = low if abs(high) < infinity else zero
        t = ((high - row[4]) + (low - row[5])) * kind(option[INVERSE_TEMPERATURE]) - row[6]
        below = expm1(-abs(t))
        d = -p * below if t > zero else q * below
        if p == zero or q == zero:
            d = -q if p == zero else p
        return p, q, d, excess(p, q, d, t)

    return entries


@cache
def _adder(terms, p_storage, q_storage, real, threads):
    """Sums of two terms over the classes [begin, end) of two rows, by a block.

    Unrolled only where it streams: a term in float64 is hundreds of instructions.
    """
    m_ = mathematics(real)
    entries, terms_of, zero = _entries(real), formula(terms, m_), m_.real(0)

    @helper
    def add_one(state, v, u, k, given):
        row, option, weight = given
        p, q, d, e = entries(v, u, row, option)
        first, second = terms_of(p, q, d, e, weight)
        return state[0] + first, state[1] + second

    walk = walker(p_storage, q_storage, add_one, threads)
    if threads == THREADS:
        wide = over_both(lanes_of(p_storage, q_storage), add_one)
        walk = wide_walker(p_storage, q_storage, add_one, wide)
    both = helper(lambda s, t, given: (s[0] + t[0], s[1] + t[1]))
    reduced = of_block(both, SUMS, 0, threads, real)

    @helper
    def add(p, p_start, p_place, q, q_start, q_place, begin, end, given):
        nothing = zero, zero
        own = walk(p, p_start, p_place, q, q_start, q_place, begin, end, nothing, given)
        return reduced(own, 0)

    return add


@helper
def row_of(constants, i):
    """What is known of row i, as a tuple."""
    return (
        constants[i, P_TOP], constants[i, Q_TOP], constants[i, P_SHARE],
        constants[i, Q_SHARE], constants[i, DISTANCE], constants[i, REMAINDER], constants[i, GAP],
    )  # fmt: skip


@cache
def sums(terms, p_storage, q_storage, real):
    """Kernel: sums of terms over pieces of wanted rows, a block each; block (row, piece)."""
    add = _adder(terms, p_storage, q_storage, real, THREADS)
    kind = mathematics(real).real
    zero = kind(0)

    @kernel
    def add_terms(
        p, p_starts, p_place, q, q_starts, q_place, width, length, constants, option, out
    ):
        i, piece = cuda.blockIdx.x, cuda.blockIdx.y
        if constants[i, WANTED] != zero:
            begin = piece * length
            given = row_of(constants, i), option, kind(option[WEIGHT])
            found = add(
                p, start_of(p_starts, p_place, i), p_place, q, start_of(q_starts, q_place, i),
                q_place, begin, min(begin + length, width), given,
            )  # fmt: skip
            if cuda.threadIdx.x == 0:
                out[i, piece, FIRST], out[i, piece, SECOND] = found[0], found[1]

    return add_terms


@cache
def near(terms, p_storage, q_storage, real):
    """Kernel: wanted rows again in float64, a block each, from terms of one sign.

    KL depends on the ratio of the normalisers; P and Q then tell how far it is off.
    """
    wide = "float64", NEAR_THREADS
    measure = _adder(formulas.kl_of_logits, p_storage, q_storage, *wide)
    add = None if terms is formulas.kl_of_logits else _adder(terms, p_storage, q_storage, *wide)
    m_, known, write = mathematics("float64"), _known("float64"), _writer(real)
    log1p, kl_of_sums = m_.log1p, formula(formulas.kl_of_sums, m_)
    shares = formula(formulas.shares, m_)
    zero = mathematics(real).real(0)

    @kernel
    def add_terms(
        p, p_starts, p_place, q, q_starts, q_place, width, active, option, figures, constants,
        values,
    ):  # fmt: skip
        i = cuda.blockIdx.x
        if constants[i, WANTED] != zero:
            p_start, q_start = start_of(p_starts, p_place, i), start_of(q_starts, q_place, i)
            p_max, p_log_sum = figures[i, P_MAX], figures[i, P_LOG_SUM]
            q_max, q_log_sum = figures[i, Q_MAX], figures[i, Q_LOG_SUM]
            inverse_t, weight = option[INVERSE_TEMPERATURE], option[WEIGHT]
            more, value, of_q = 0.0, 0.0, 0.0
            for _ in range(GUESSES):
                row = known(p_max, p_log_sum, q_max, q_log_sum, more, inverse_t)
                excess, lacking = measure(
                    p, p_start, p_place, q, q_start, q_place, 0, width, (row, option, weight)
                )
                value = max(kl_of_sums(excess, lacking), 0.0)
                more += log1p(-lacking)
                if not lacking * lacking > excess:
                    break
            if add is not None:
                row = known(p_max, p_log_sum, q_max, q_log_sum, more, inverse_t)
                of_p, of_q = add(
                    p, p_start, p_place, q, q_start, q_place, 0, width, (row, option, weight)
                )
                share, rest = shares(weight)
                value = share * of_p + rest * of_q
            if cuda.threadIdx.x == 0:
                own = np.float64(active[i])
                values[i] = value * own
                write(constants, i, p_max, p_log_sum, q_max, q_log_sum, more, of_q, own, inverse_t)

    return add_terms


@cache
def gradients(slope, p_storage, q_storage, real):
    """Kernel: derivatives by the logits of q, a block a piece of a row, from the last row on."""
    m_ = mathematics(real)
    entries, slope_of, kind = _entries(real), formula(slope, m_), m_.real
    (store, store_wide), fill, zero = storer(q_storage), filler(q_storage), kind(0)
    into = mathematics(computed_in(q_storage)).real
    lanes, q_lanes = lanes_of(p_storage, q_storage), wide_loader(q_storage, 8)[1]

    @helper
    def entry(v, u, given):
        row, option, weight, of_q, factor = given[0]
        p, q, d, e = entries(v, u, row, option)
        return into(slope_of(p, q, d, e, weight, of_q) * factor)

    each = mapped_both(lanes, entry)

    @helper
    def write_one(state, v, u, k, given):
        _, out, start, step = given
        store(out, start + k * step, entry(v, u, given))
        return state

    @helper
    def write_wide(state, v, u, k, given):
        _, out, start, _ = given
        store_wide(out, start + k, each(v, u, given))
        return state

    walk = walker(p_storage, q_storage, write_one, THREADS)
    walk_wide = wide_walker(p_storage, q_storage, write_one, write_wide)

    @kernel
    def write_slopes(
        p, p_starts, p_place, q, q_starts, q_place, width, length, active, constants, option,
        out, out_starts, out_place,
    ):  # fmt: skip
        # the last rows read are still in the caches
        i, begin = cuda.gridDim.x - 1 - cuda.blockIdx.x, cuda.blockIdx.y * length
        end = min(begin + length, width)
        out_start, step = start_of(out_starts, out_place, i), out_place[STEP]
        if active[i] == zero:
            fill(into(0), begin, end, out, out_start, step)
        else:
            q_start = start_of(q_starts, q_place, i)
            apart = out_start + out_place[SHIFT] - q_start - q_place[SHIFT]
            given = (
                row_of(constants, i), option, kind(option[WEIGHT]), constants[i, OF_Q],
                constants[i, FACTOR],
            ), out, out_start, step  # fmt: skip
            p_start = start_of(p_starts, p_place, i)
            if step == 1 and apart % q_lanes == 0:
                walk_wide(p, p_start, p_place, q, q_start, q_place, begin, end, 0, given)
            else:
                walk(p, p_start, p_place, q, q_start, q_place, begin, end, 0, given)

    return write_slopes
