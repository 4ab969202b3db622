"""The mathematics, each formula once, as plain functions of scalars.

Every device compiles these same sources; `log`, `exp`, `sqrt`, `log1p` and `log_ratio` are then
that device's own. They run uncompiled too, which is how the tests read them. Loops live in the
kernels, properties of the measures in `catalogue.py`.

Rows
    The state of a row of logits is (m, r, e, a, c), measured from its maximum m: with
    w_k = exp((z_k - m) / T), r is the sum of w without the maximal term, e = Σ w_k (z_k - m),
    a = Σ c_k (z_k - m) and c = Σ c_k for weights c_k of the classes. The empty row is
    (-inf, -1, 0, 0, 0). Leaving the maximal term out keeps every digit of a confident row.
Bins
    A term is what one bin adds to a sum over bins, a finish what is done with the sum. A term is
    given p, q and their difference d, which has more digits than p - q of rounded p and q. Those
    that choose by `where` instead of `if` are compiled for vectors as well as for numbers.
"""

import math
from math import atanh, exp, frexp, inf, ldexp, log1p, nan, sqrt

LN2 = math.log(2.0)


def log(x):
    """Natural logarithm, -inf of 0."""
    if x > 0.0:
        return math.log(x)
    return -inf if x == 0.0 else nan


def two_product(a, b):
    """a b rounded, and exactly what the rounding lost."""
    from fractions import Fraction  # 10 ms that only uncompiled formulas need

    product = a * b
    return product, float(Fraction(a) * Fraction(b) - Fraction(product))


def where(condition, a, b):
    """Return a where the condition holds, else b; both are computed."""
    return a if condition else b


# --- states of rows ------------------------------------------------------------------------------


def lower(total, e, a, c, gap, inverse_temperature):
    """Σ w, e and a of the same row measured from a reference that is higher by `gap`."""
    shrink = exp(-gap * inverse_temperature)
    return total * shrink, (e - total * gap) * shrink, a - c * gap


def rebase(total, e, c, gap, inverse_temperature):
    """e and c of a row relative to another, measured from a maximum of that which is `gap` higher.

    e = Σ w ((z_k - m) - (y_k - n)), c = Σ exp((y_k - n) / T) for the other's logits y, maximum n.
    """
    if gap == inf:
        return e, 0.0
    return e + total * gap, c * exp(-gap * inverse_temperature)


def merge(m, r, e, a, c, m2, r2, e2, a2, c2, gap, inverse_temperature):
    """State of two pieces of a row together; `gap` is z(m) - z(m2)."""
    if m2 == -inf:
        return m, r + (r2 + 1.0), e, a + a2, c + c2
    if m == -inf:
        return m2, r2 + (r + 1.0), e2, a + a2, c + c2
    if m2 > m:
        total, e, a = lower(1.0 + r, e, a, c, -gap, inverse_temperature)
        return m2, r2 + total, e2 + e, a2 + a, c + c2
    total, e2, a2 = lower(1.0 + r2, e2, a2, c2, gap, inverse_temperature)
    return m, r + total, e + e2, a + a2, c + c2


def log_sum(m, r):
    """Log Σ exp((z - m) / T); NaN for a row that is no distribution."""
    if m == -inf or m == inf:
        return nan
    return log1p(r)


def logsumexp(z, log_sum):
    """The maximum and log Σ exp(z_k - z) together; an infinite maximum is all there is."""
    return z + where(abs(z) < inf, log_sum, 0.0)


def softmax_entropy(r, e, inverse_temperature):
    """-Σ p log p = log Σ w - Σ w (z - m) / T / Σ w."""
    return log1p(r) - e * inverse_temperature / (1.0 + r)


def softmax_cross_entropy(log_sum, offset, gap, target_weight, a, c, z_loss, inverse_temperature):
    """Σ_k y_k w_k (log Σ w - (z_k - m) / T) + z_loss lse²; `offset` = m / T, `gap` = (m - z_y) / T.

    The integer target's own weight comes apart from the weights (a, c) of the other classes.
    """
    own = where(target_weight == 0.0, 0.0, target_weight * (log_sum + gap))
    loss = c * log_sum - a * inverse_temperature + own
    if z_loss != 0.0:
        lse = offset + log_sum
        loss += z_loss * lse * lse
    return loss


def target_gradient(r, w, is_maximum, target_weight, c_target, total):
    """W p_y - c_y of the target's class: p_y - 1 is -(sum of the others) / sum, uncancelled.

    `c_target` is the weight of the target's class among those of all classes, `total` is W less
    `target_weight`.
    """
    others = where(is_maximum, r, 1.0 + r - w)
    return (total * w - target_weight * others) / (1.0 + r) - c_target


def softmax_gradient(
    log_sum, r, offset, gap, is_maximum, target_weight, c_target, c, z_loss, share, slope
):
    """Factor of exp((z - m) / T) in share (W p_k - c_k), and the entry of the target's class.

    W = `target_weight` + c + 2 z_loss lse; only the target's entry is times `slope`, its dz/dx.
    """
    total = c
    if z_loss != 0.0:
        total = total + 2.0 * z_loss * (offset + log_sum)
    no_distribution = 0.0 * log_sum
    own = target_gradient(r, exp(-gap), is_maximum, target_weight, c_target, total) * slope
    entry = where(gap < inf, own, -(target_weight + c_target))
    factor = share * (target_weight + total) / (1.0 + r)
    return factor + no_distribution, share * entry + no_distribution


def entropy_gradient(log_sum, entropy, weight, inverse_temperature):
    """Factor and share of (factor + share (z_k - m) / T) exp((z_k - m) / T), an entropy's gradient.

    It is -weight / T p_k ((z_k - m) / T - log Σ w + entropy).
    """
    share = -weight * inverse_temperature * exp(-log_sum)
    return share * (entropy - log_sum), share


# --- two distributions given by logits -----------------------------------------------------------
# Terms of two sums, from p, q, d = p - q and e = p log(p / q) - d, each with its own digits; slopes
# are derivatives of the divergence by the logits of q.


def rounded(x):
    """A number as the type has it that both rows are computed with."""
    return x


def known_of_logits(p_max, p_log_sum, q_max, q_log_sum, more, inverse_temperature, unit):
    """Shares of the maximal terms of p and of q, and distance, remainder and shift of their logits.

    log(p / q) = (z_p - z_q - distance - remainder) / T - shift. The logarithm of the sum of q is
    `more` than found. The distance is a number of the type that logits are subtracted in, whose
    rounding is `unit`, as near as can be to where p = q: all but what rounding leaves is in it,
    since the difference from logits nearly as far apart is exact. So is what the maxima leave, far
    below which the difference of the logarithms of confident rows' sums may be.
    """
    distance = p_max - q_max
    of_q = distance - p_max
    lost = (p_max - (distance - of_q)) - (q_max + of_q)
    apart = (p_log_sum - q_log_sum) - more
    shared = apart * (1.0 / inverse_temperature)
    near = abs(shared) <= unit * abs(distance)
    base = rounded(where(near, distance, distance + shared))
    left = (distance - base) + lost
    shift = where(near, apart, apart + left * inverse_temperature)
    return exp(-p_log_sum), exp(-q_log_sum - more), base, where(near, left, 0.0), shift


def excess(p, q, d, t):
    """p log(p / q) - p + q with t = log(p / q), by q ((1 + u) log(1 + u) - u), u = d / q, near 0.

    A class that only q masks makes it inf, however small p.
    """
    near, far = q * entropy_gap(d / q), p * t - d
    term = where(abs(t) < 0.5, where(q == 0.0, 0.0, near), far)
    return where(t == inf, inf, where(p == 0.0, q, term))


def kl_of_logits(p, q, d, e, weight):
    """The term of KL(P | Q), and p - q, whose sum is 0 if both sum to the same."""
    return e, d


def kl_of_sums(excess, lacking):
    """KL(P | Q) from Σ p log(p / q) - p + q and Σ p - q of a q whose sum is a little below 1."""
    return excess - log_gap(-lacking)


def log_gap(y):
    """y - log(1 + y) = ((1 + t) log(1 + t) - t) / (1 + t) of 1 + t = 1 / (1 + y): no cancelling."""
    return (1.0 + y) * entropy_gap(-y / (1.0 + y))


def kl_slope(p, q, d, e, weight, of_q):
    """q - p, with all digits where they are nearly equal."""
    return -d


def js_of_logits(p, q, d, e, weight):
    """p log(p / m) - p + m and q log(q / m) - q + m, m = weight p + (1 - weight) q."""
    own, other = shares(weight)
    m = (p if weight < 0.0 else q) + weight * d
    empty = m == 0.0
    u = d / m
    of_p = m * entropy_gap(above(other * u))
    of_q = m * entropy_gap(above(-own * u))
    return where(empty, 0.0, of_p), where(empty, 0.0, of_q)


def js_of_far_logits(p, q, d, e, weight):
    """p log(p / m) and q log(q / m)."""
    own, other = shares(weight)
    m = own * p + other * q
    of_p = p * (log_in_units(p / m) * log_unit)
    of_q = q * (log_in_units(q / m) * log_unit)
    return where(p == 0.0, 0.0, of_p), where(q == 0.0, 0.0, of_q)


def js_slope(p, q, d, e, weight, of_q):
    """(1 - weight) q (log(q / m) - KL(Q | M))."""
    own, other = shares(weight)
    m = (p if weight < 0.0 else q) + weight * d
    u = above(-own * d / m)
    near, far = m * (entropy_gap(u) + u), q * (log_in_units(q / m) * log_unit)
    return where(q == 0.0, 0.0, other * (where(abs(u) < 0.5, near, far) - q * of_q))


def above(u):
    """Return u, at least -1: a quotient of rounded numbers may be less."""
    return where(u < -1.0, -1.0, u)


# --- binary losses -------------------------------------------------------------------------------
# a = β y and b = 1 - y are what log p and log(1 - p) count. Written with `where`: compiled for
# vectors. A NaN stays one, in a term that counts nothing too.


def binary_cross_entropy_of_logit(x, y, rest, pos_weight):
    """-β y log σ(x) - (1 - y) log(1 - σ(x)), and its derivative (1 - y) σ(x) - β y σ(-x).

    With e = exp(-|x|), -log σ(±|x|) = log1p(e) (+ |x| for the minus): terms of one sign only.
    `rest` is 1 - y, which a y in fewer digits than it was given in would not have.
    """
    a, b = pos_weight * y, rest
    negative, size = x < 0.0, abs(x)
    e = exp(-size)
    against = where(negative, a, b)
    loss = (a + b) * log1p(e) + where(against == 0.0, 0.0, against * size)
    return loss, where(negative, b * e - a, b - a * e) / (1.0 + e)


def binary_cross_entropy_of_label(x, is_one, pos_weight):
    """The same of a label that is 1 or 0, to the last bit, in two thirds of the operations.

    With z = -x for 1 and x for 0, it is c (log1p(e) + max(z, 0)), its derivative by z c σ(z).
    """
    z = where(is_one, -x, x)
    e = exp(-abs(x))
    c = where(is_one, pos_weight, 1.0)
    loss = c * log1p(e) + where(z > 0.0, c * z, 0.0)
    slope = where(z < 0.0, c * e, c) / (1.0 + e)
    return loss, where(is_one, 0.0 - slope, slope)


def log_of_rest(p):
    """log(1 - p), by what u = 1 - p as rounded has kept of p: log(u) p / (1 - u) (Kahan)."""
    u = 1.0 - p
    kept = where(u == 1.0, 1.0, 1.0 - u)
    return where(u == 1.0, -p, log(u) * (p / kept))


def binary_cross_entropy_of_probability(p, y, rest, pos_weight):
    """-β y log p - (1 - y) log(1 - p), and its derivative -β y / p + (1 - y) / (1 - p)."""
    a, b = pos_weight * y, rest
    loss = where(a == 0.0, 0.0, -a * log(p)) + where(b == 0.0, 0.0, -b * log_of_rest(p))
    gradient = where(b == 0.0, 0.0, b / (1.0 - p)) - where(a == 0.0, 0.0, a / p)
    return loss + 0.0 * p, gradient + 0.0 * p


def binary_cross_entropy_of_probability_and_label(p, is_one, pos_weight):
    """The same of a label that is 1 or 0, to the last bit, by one logarithm: of p, or of 1 - p."""
    u = 1.0 - p
    v, c = where(is_one, p, u), where(is_one, pos_weight, 1.0)
    kept = where(u == 1.0, 1.0, 1.0 - u)
    log_of_v = log(v)
    of_rest = where(u == 1.0, -p, log_of_v * (p / kept))
    loss = 0.0 - c * where(is_one, log_of_v, of_rest)
    slope = c / v
    return loss + 0.0 * p, where(is_one, 0.0 - slope, slope) + 0.0 * p


# --- terms of bins -------------------------------------------------------------------------------


def atanh_tail(z):
    """(atanh(s) / s - 1) / z with z = s²."""
    s = sqrt(z)
    return (atanh(s) / s - 1.0) / z if s > 1e-4 else 1.0 / 3.0 + z / 5.0


def log_ratio(p, q):
    """Return n and s with log(p / q) = n log 2 + 2 atanh(s) and n = 0 where p is near q."""
    (mp, kp), (mq, kq) = frexp(p), frexp(q)
    up, down = mp > mq * sqrt(2.0), mp * sqrt(2.0) < mq
    mp, mq = (ldexp(mp, 1) if down else mp), (ldexp(mq, 1) if up else mq)
    return float(kp - kq + up - down), (mp - mq) / (mp + mq)


def entropy_term(p, q, d, weight):
    """-p log p, with 0 log 0 = 0."""
    return 0.0 if p == 0.0 else -p * log(p)


def cross_entropy_term(p, q, d, weight):
    """-p log q, with 0 log 0 = 0 and p log 0 = -inf."""
    if p == 0.0 and q == q:
        return 0.0
    return -p * log(q)


def kl_term(p, q, d):
    """p log(p / q) - p + q: never negative, and exact to the last digits where p is near q.

    With s = (p - q) / (p + q), log(p / q) = 2 atanh(s) and the term is
    (p + q) s² (1 + s (1 + s) (1/3 + s²/5 + ...)): no difference of like numbers.
    """
    if p == 0.0:
        return q
    if q == 0.0:
        return p * inf
    n, s = log_ratio(p, q)
    if n == 0.0:
        s = d / (p + q)
    tail = atanh_tail(s * s)
    if n == 0.0:
        return d * s * (1.0 + s * (1.0 + s) * tail)
    return p * (n * LN2 + 2.0 * s + 2.0 * s * s * s * tail) - p + q


def independence_term(count, n_x, n_y, n):
    """N² (p log(p / q) - p + q) of a cell, for p = count / N and q = n_x n_y / N².

    From u = p / q - 1, its products to twice the digits: exactly 0 where count N = n_x n_y, and
    relatively accurate near it, for any N below 2⁵³.
    """
    (a, a_lost), (b, b_lost) = two_product(count, n), two_product(n_x, n_y)
    d = (a - b) + (a_lost - b_lost)
    return b * entropy_gap(d / b)


def kl_bin(p, q, d, weight):
    """The KL term of a bin."""
    return kl_term(p, q, d)


def relative_entropy_term(p, q, d, weight):
    """p log(p / q), as it stands, for rows that are not normalised."""
    if p == 0.0:
        return 0.0 * q
    if q == 0.0:
        return p * inf
    return p * log_quotient(p, q, d)


def shares(weight):
    """Shares of p and of q in their mean; if that of p is above 1/2, a weight is less that of q.

    So the smaller one keeps its digits.
    """
    if weight < 0.0:
        return 1.0 + weight, -weight
    return weight, 1.0 - weight


def js_term(p, q, d, weight):
    """Weighted KL terms of p and q from their mean; -p + m and -q + m add up to nothing."""
    own, other = shares(weight)
    m = (p if weight < 0.0 else q) + weight * d
    if m == 0.0:  # half the smallest number
        m = p + q
    return own * kl_term(p, m, other * d) + other * kl_term(q, m, -own * d)


def js_near_term(p, q, weight):
    """The same for vectors and equal weights, of shares rounded to the type of the result."""
    m = 0.5 * (p + q)
    return m * mean_gap(0.5 * (p - q) / where(m > 0.0, m, 1.0))


def js_near_term_of_weights(p, q, weight):
    """The same for any weights."""
    d = p - q
    own, other = shares(weight)
    m = (p if weight < 0.0 else q) + weight * d
    u = d / where(m > 0.0, m, 1.0)
    of_p, of_q = entropy_gap(above(other * u)), entropy_gap(above(-own * u))
    return m * (own * of_p + other * of_q)


def kl_quick_term(p, q, parameter):
    """p log(p / q) for vectors, by two logarithms."""
    return where(p == 0.0, 0.0, where(q == 0.0, inf, p * (log(p) - log(q))))


def jeffreys_quick_term(p, q, parameter):
    """(p - q) log(p / q) for vectors, by two logarithms."""
    beyond = where(p == q, 0.0, inf)
    return where((p == 0.0) | (q == 0.0), beyond, (p - q) * (log(p) - log(q)))


def renyi_quick_term(p, q, alpha):
    """p^α q^(1 - α) - p for vectors, by two logarithms; huge where it is infinite."""
    beyond = p * inf if alpha > 1.0 else -p
    log_p = log(p)
    power = exp(log_p + (alpha - 1.0) * (log_p - log(q)))  # with p inside it is huge if cut off
    return where(p == 0.0, 0.0, where(q == 0.0, beyond, power - p))


def ratio_quick_term(p, q, parameter):
    """p / q for vectors, 0 where p = 0."""
    return where(p == 0.0, 0.0, p / q)


def no_doubt(parameter):
    """Errors do not depend on a parameter."""
    return 1.0


def renyi_doubt(alpha):
    """Error of D = log(1 + v) / (α - 1), beside that of v: logarithms' times α - 1, and others."""
    return 1.0 + 0.05 / abs(alpha - 1.0)


def log_of(v, parameter):
    """log v."""
    return log(v)


def total_variation_term(p, q, d, weight):
    """|p - q|."""
    return abs(d)


def hellinger_term(p, q, d, weight):
    """(√p - √q)², as (p - q) / (√p + √q) so that like numbers keep their digits."""
    if d == 0.0:
        return 0.0
    root = d / (sqrt(p) + sqrt(q))
    return root * root


def half_renyi_term(p, q, d, parameter):
    """√(p q) - ½ p - ½ q, the term of `renyi_term` at α = ½, by roots instead of powers."""
    return -0.5 * hellinger_term(p, q, d, parameter)


def log_quotient(p, q, d):
    """log(p / q) of positive p and q: of d, their difference, where p is near q."""
    n, s = log_ratio(p, q)
    if n == 0.0:
        s = d / (p + q)
    # NaN has neither mantissa nor exponent: of p and q only d tells of it
    return n * LN2 + (2.0 * s + 2.0 * s * s * s * atanh_tail(s * s)) + 0.0 * d


def jeffreys_term(p, q, d, parameter):
    """(p - q) log(p / q), never negative."""
    if p == 0.0 or q == 0.0:
        return 0.0 if p == q else (p + q) * inf
    return d * log_quotient(p, q, d)


def expm1_excess(x):
    """(exp(x) - 1) / x - 1, by its series near 0."""
    if abs(x) > 0.3:
        return (exp(x) - 1.0) / x - 1.0
    total = 1.0
    for n in range(12, 2, -1):
        total = 1.0 + total * x / n
    return 0.5 * x * total


def renyi_term(p, q, d, alpha):
    """p^α q^(1 - α) - α p - (1 - α) q: of the sign of α - 1, and 0 only where p = q.

    With ε = α - 1 and L = log(p / q) it is ε times p L - p + q and p L ((exp(ε L) - 1) / (ε L) - 1)
    together, which cancel by no more than a factor 2 from α = ½ on; below, p and q change places.
    """
    if alpha == 0.0:
        return 0.0 * p - q if p == 0.0 else 0.0 * (p + q)
    excess = alpha - 1.0
    if alpha < 0.5:  # 1 - alpha has lost digits of a small alpha, which is what counts
        p, q, d, alpha, excess = q, p, -d, 1.0 - alpha, -alpha
    if p == 0.0:
        return excess * q
    if q == 0.0:
        return p * inf if excess > 0.0 else -alpha * p
    n, s = log_ratio(p, q)
    if n == 0.0:
        s = d / (p + q)
        tail = atanh_tail(s * s)
        log_of_ratio = 2.0 * s + 2.0 * s * s * s * tail
        growth = p * log_of_ratio * expm1_excess(excess * log_of_ratio)
        return excess * (d * s * (1.0 + s * (1.0 + s) * tail) + growth)
    x = excess * (n * LN2 + 2.0 * s + 2.0 * s * s * s * atanh_tail(s * s))
    return p * x * (1.0 + expm1_excess(x)) - excess * d


def power_term(p, q, d, alpha):
    """p^α q^(1 - α), as it stands, for rows that are not normalised; 0 where p = 0."""
    if p == 0.0:
        return 0.0 * q
    if q == 0.0:
        return p * inf if alpha > 1.0 else 0.0 * p
    if alpha < 0.5:  # below, the exponential of subnormal p would overflow
        return q * exp(alpha * log_quotient(p, q, d))
    return p * exp((alpha - 1.0) * log_quotient(p, q, d))


LIFT = 2.0**600


def lifted_power_term(p, q, d, alpha):
    """2⁶⁰⁰ p^α q^(1 - α) for α < 1: keeps the digits that subnormal numbers have not."""
    if p == 0.0 or q == 0.0:
        return 0.0 * (p + q)
    if alpha < 0.5:
        return q * LIFT * exp(alpha * log_quotient(p, q, d))
    return p * LIFT * exp((alpha - 1.0) * log_quotient(p, q, d))


def inside_term(p, q, d, parameter):
    """q where p > 0: what α = 0 leaves of a product of powers."""
    return q if p > 0.0 else 0.0 * (p + q)


def log_ratio_term(p, q, d, parameter):
    """log(p / q), -inf where p = 0: the largest is the divergence of α = ∞."""
    if p == 0.0:
        return -inf + 0.0 * q
    if q == 0.0:
        return p * inf
    return log_quotient(p, q, d) + 0.0 * d  # which tells NaN from a number


def lowered_power_term(p, q, d, given):
    """p exp((α - 1) (log(p / q) - top)), which overflows for no α; `given` is α and top."""
    alpha, top = given
    if p == 0.0:
        return 0.0 * q
    return p * exp((alpha - 1.0) * (log_ratio_term(p, q, d, alpha) - top))


# --- cells of joint tables -----------------------------------------------------------------------


def surprisal(p):
    """-log p, +0 of 1."""
    return 0.0 - log(p)


def part_entropy_term(p, whole, d):
    """p log(whole / p) of a part of a whole, d = whole - p: never negative, 0 of all of it."""
    return 0.0 if p == 0.0 else p * log_quotient(whole, p, 0.0 if d < 0.0 else d)


def information_term(p, row, column, total):
    """a log(a / b) - a + b of a = p total and b = row column, a product that is next to nothing."""
    near = log_quotient(p, row, p - row) + log_quotient(total, column, total - column)
    return p * total * (near - 1.0)


def pointwise_information(p, row, column, total, a, b, d):
    """log(p total / (row column)) from a = p total, b = row column and d = a - b, -inf for p = 0.

    Products that are not normal numbers are left alone.
    """
    if p == 0.0:
        return -inf + 0.0 * d
    if a < 2.0**-1022 or b < 2.0**-1022:
        far = log_quotient(p, row, p - row) + log_quotient(total, column, total - column)
        return far + 0.0 * d
    return log_quotient(a, b, d) + 0.0 * d


# --- Gaussians -----------------------------------------------------------------------------------
# From means m and variances v.

LOG_2PI = math.log(2.0 * math.pi)


def gaussian_entropy(v):
    """½ log(2 π e v)."""
    return 0.5 * (1.0 + LOG_2PI + log(v))


def gaussian_cross_entropy(m_p, v_p, m_q, v_q):
    """½ (log(2 π v_q) + v_p / v_q + (m_p - m_q)² / v_q)."""
    z = (m_p - m_q) / sqrt(v_q)
    return 0.5 * (LOG_2PI + log(v_q) + v_p / v_q + z * z)


def gaussian_kl(m_p, v_p, m_q, v_q):
    """½ (u - log(1 + u) + (m_p - m_q)² / v_q) of u = v_p / v_q - 1.

    With t = v_q / v_p - 1 the first is ((1 + t) log(1 + t) - t) / (1 + t), which does not cancel;
    the quotients may be beyond the numbers.
    """
    z, r = (m_p - m_q) / sqrt(v_q), v_p / v_q
    ordinary = (r > 2.0**-1000) & (r < 2.0**1000)
    near = r * entropy_gap((v_q - v_p) / v_p)
    far = (v_p - v_q) / v_q - (log(v_p) - log(v_q))
    return 0.5 * (where(ordinary, near, far) + z * z)


def standard_normal_kl(m, log_v):
    """½ (m² + v - 1 - log v), the divergence from a Gaussian of mean 0 and variance 1."""
    root = exp(0.5 * log_v)  # no larger than it is: the exponential of numbers is cut off
    gap = where(abs(log_v) < 600.0, exp_gap(-log_v), root * root - 1.0 - log_v)
    return 0.5 * (m * m + where(abs(log_v) < inf, gap, abs(log_v)))


# --- roads over all pairs ------------------------------------------------------------------------
# Near-equal rows differ by little, and what does not differ cancels. Measured from the mean over
# all rows (c, or r for distributions) rounding errors shrink with the spread of the rows. A row's
# own term is given its factor in the product, the mean, and both factors of the mean.


def root_of(p, w, parameter):
    """√p."""
    return sqrt(p)


def unweighted(r, parameter):
    """Weight w of a bin of measures that need none."""
    return 0.0


def root_weight(r, parameter):
    """w = √r."""
    return sqrt(r)


def share_of(p, w, parameter):
    """p / √r, of a length like that of what it is multiplied by."""
    return where(w == 0.0, 0.0, p / w)


def weighted_log_of(p, w, parameter):
    """√r log p."""
    return where(w == 0.0, 0.0, w * log(p))


def power_weight(r, alpha):
    """w = (α - ½) log r."""
    return 0.0 if r == 0.0 else (alpha - 0.5) * log(r)


def power_of(p, w, alpha):
    """√r (p / r)^α."""
    return where(p == 0.0, 0.0, exp(alpha * log(p) - w))


def other_power_of(p, w, alpha):
    """√r (p / r)^(1 - α)."""
    return where(p == 0.0, 0.0, exp((1.0 - alpha) * log(p) + w))


def half_power_of(p, w, alpha):
    """√r (p / r)^α of α = ½, whatever r."""
    return sqrt(p)


def three_halves_weight(r, alpha):
    """w = r^(3/2)."""
    return r * sqrt(r)


def square_of(p, w, alpha):
    """√r (p / r)²."""
    return where(p == 0.0, 0.0, p * (p / w))


def inverse_of(p, w, alpha):
    """√r (p / r)^-1."""
    return where(p == 0.0, 0.0, w / p)


def no_row(p, own, r, f_mean, g_mean, parameter):
    """Nothing."""
    return 0.0 * p


def kl_row(p, own, r, f_mean, g_mean, parameter):
    """p log(p / r) - p + r.

    Σ p log(p / q) - p + q is these of p, those of q, and less Σ (p - r) log(q / r).
    """
    return r * entropy_gap((p - r) / where(r > 0.0, r, 1.0))


def kl_column(q, own, r, f_mean, g_mean, parameter):
    """r log(r / q) - r + q, as f_mean = √r, own = √r log q and g_mean = √r log r; -r for q = 0."""
    filled = where(q > 0.0, q, 1.0)
    u = (r - q) / filled
    is_near = abs(u) < 0.5
    near, far = filled * entropy_gap(where(is_near, u, 0.0)), f_mean * (g_mean - own) - r + q
    return where(q == 0.0, -r, where(is_near, near, far))


def plain_kl_row(p, own, r, f_mean, g_mean, parameter):
    """p log p - p log of the mean of q, as f_mean² = r and g_mean / f_mean is that logarithm."""
    return where(p == 0.0, 0.0, p * (log(p) - g_mean / where(f_mean > 0.0, f_mean, 1.0)))


def cross_entropy_row(p, own, r, f_mean, g_mean, parameter):
    """-p log of the mean of q."""
    return -p * (g_mean / where(f_mean > 0.0, f_mean, 1.0))


def cross_entropy_column(q, own, r, f_mean, g_mean, parameter):
    """-r (log q - log of its mean), as own = √r log q; the support test sees to q = 0."""
    return where(q == 0.0, 0.0, -f_mean * (own - g_mean))


def hellinger_row(p, own, r, f_mean, g_mean, parameter):
    """(√p - mean)²; Σ (√p - √q)² is these of p and q less twice Σ (√p - mean) (√q - mean)."""
    d = sqrt(p) - f_mean
    return d * d


def jeffreys_row(p, own, r, f_mean, g_mean, parameter):
    """(p - r) (log p - log r), as g_mean / f_mean = log r.

    Σ (p - q) (log p - log q) is these of p and q less Σ (p - r) log(q / r) and the same turned.
    """
    known = f_mean > 0.0
    log_r = g_mean / where(known, f_mean, 1.0)
    return where((p > 0.0) & known, (p - r) * (log(p) - log_r), 0.0)


def power_row(p, own, r, f_mean, g_mean, alpha):
    """(p^α - r^α) r^(1 - α) - α (p - r), as f_mean = √r and own = √r (p / r)^α.

    p^α q^(1 - α) - α p - (1 - α) q is this of p, that of q, and the product of both differences.
    With u = (p - r) / r and x = α log(1 + u) it is r (exp(x) - 1 - x) and α r (log(1 + u) - u).
    """
    u = (p - r) / where(r > 0.0, r, 1.0)
    is_near = abs(u) < 0.5
    u = where(is_near, u, 0.0)
    gap = entropy_gap(u)
    x, above = alpha * (gap + u) / (1.0 + u), alpha * (gap - u * u) / (1.0 + u)
    near = r * (exp_gap(-x) + above)
    return where(is_near, near, f_mean * (own - f_mean) - alpha * (p - r))


def power_column(q, own, r, f_mean, g_mean, alpha):
    """(q^(1 - α) - r^(1 - α)) r^α - (1 - α) (q - r)."""
    return power_row(q, own, r, f_mean, g_mean, 1.0 - alpha)


# --- sparse rows ---------------------------------------------------------------------------------
# What a bin adds that both rows fill, from two figures of p and two of q, beside what each adds
# alone. Bins that neither fills add nothing.


def nothing_of(p, parameter):
    """0."""
    return 0.0


def one_of(p, parameter):
    """1."""
    return 1.0


def itself_of(p, parameter):
    """p."""
    return p


def natural_log_of(p, parameter):
    """Log p."""
    return log(p)


def square_root_of(p, parameter):
    """√p."""
    return sqrt(p)


def power_alone(p, alpha):
    """p^α."""
    return exp(alpha * log(p))


def other_power_alone(q, alpha):
    """q^(1 - α)."""
    return exp((1.0 - alpha) * log(q))


def negative_entropy_of(p, parameter):
    """p log p."""
    return p * log(p)


def first_weighted(p, weight):
    """p times its share."""
    return shares(weight)[0] * p


def second_weighted(q, weight):
    """q times its share."""
    return shares(weight)[1] * q


def first_weighted_entropy(p, weight):
    """t log t of t = p times its share."""
    t = shares(weight)[0] * p
    return t * log(t)


def second_weighted_entropy(q, weight):
    """t log t of t = q times its share."""
    t = shares(weight)[1] * q
    return t * log(t)


def js_alone(p, weight):
    """-s log(s) p of its share s: of a bin that q leaves empty."""
    share = shares(weight)[0]
    return -share * log(share) * p


def js_other_alone(q, weight):
    """The same of q."""
    share = shares(weight)[1]
    return -share * log(share) * q


def js_shared(f, f2, g, g2):
    """a log a + b log b - (a + b) log(a + b)."""
    return f2 + g2 - (f + g) * log(f + g)


def product_shared(f, f2, g, g2):
    """A product."""
    return f * g


def negative_product_shared(f, f2, g, g2):
    """Less a product."""
    return -f * g


def twice_negative_product_shared(f, f2, g, g2):
    """Less two products: (√p - √q)² - p - q."""
    return -2.0 * f * g


def least_shared(f, f2, g, g2):
    """|p - q| - p - q."""
    return -2.0 * where(f < g, f, g)


def jeffreys_shared(f, f2, g, g2):
    """(p - q) (log p - log q)."""
    return (f - g) * (f2 - g2)


def nothing_shared(f, f2, g, g2):
    """Nothing is known before all bins are looked at."""
    return 0.0 * f * g


# A pair is computed again where less than its sum's error times a constant: the part of a sum that
# is no more, times its relative accuracy, than the error it may have.


def whole_margin(v):
    """|v|: errors of the result are those of the sum."""
    return abs(v)


def log1p_margin(v):
    """At most (1 + v) |log(1 + v)|: of log(1 + v) as a result; 0 of a sum that has overflowed."""
    return where(abs(v) < 2.0**1000, abs(v) * where(v < 0.0, 1.0 + v, 1.0), 0.0)


def log_margin(v):
    """At most |log v|, of which the relative error of v is the error.

    0 where products in float32 may have underflowed; none is left of rows that share no bin.
    """
    near = where((v > 0.0) & (v < 2.0**-100), 0.0, 1.0 - v)
    return where(v < 1.0, near, 0.69 * where(v < 2.0, v - 1.0, 1.0))


def log_in_units(x):
    """log x in the unit in which an arithmetic has it soonest, finite at 0 (there times 0)."""
    return log(x) if x > 0.0 else 0.0


log_unit = 1.0


def entropy_gap(u):
    """(1 + u) log(1 + u) - u, by u² (1/2 - u/6 + ...) near 0."""
    return (
        1.0 if u <= -1.0 else kl_term(1.0 + u, 1.0, u) if abs(u) > 1e-3 else _entropy_gap_series(u)
    )


def exp_gap(t):
    """exp(-t) - 1 + t, by t² (1/2 - t/6 + ...) near 0."""
    if abs(t) > 0.5:
        return exp(-t) - 1.0 + t
    total = 1.0
    for n in range(16, 2, -1):
        total = 1.0 - total * t / n
    return 0.5 * t * t * total


def mean_gap(u):
    """((1 + u) log(1 + u) + (1 - u) log(1 - u)) / 2 = u² (1/2 + u²/12 + ...)."""
    return 0.5 * (entropy_gap(u) + entropy_gap(-u))


def _entropy_gap_series(u):
    return u * u * (0.5 - u * (1.0 / 6.0 - u * (1.0 / 12.0 - u * (0.05 - u / 30.0))))


def weighted_ratio(p, r, weight):
    """weight p / r; a bin that is empty in all rows is left out."""
    return 0.0 if r == 0.0 else weight * p / r


def js_tile_term(a, b, r):
    """t log t of the mean t = a + b over r, in units of the arithmetic."""
    t = a + b
    return t * log_in_units(t)


def js_tile_row(a, r, weight):
    """weight p log(p / r), of p / r as the tile reads it."""
    return 0.0 if a == 0.0 else r * a * log(a / weight)


def weighted_excess(p, r, weight):
    """weight (p - r) / r; a bin that is empty in all rows is left out."""
    return 0.0 if r == 0.0 else weight * (p - r) / r


def js_centred_tile_term(a, b, r):
    """r (t log t - t + 1) of t = 1 + a + b, the mean over r: m log m but for what cancels."""
    return r * entropy_gap(a + b)


def js_centred_tile_term_of_weights(a, b, r):
    """The same where the weights of an empty bin, other than ½, may round to more than 1."""
    return r * entropy_gap(above(a + b))


def js_centred_tile_row(a, r, weight):
    """weight r (t log t - t + 1) of t = p / r as the tile reads it."""
    return weight * r * entropy_gap(above(a / weight))


def difference(p, r, weight):
    """p - r."""
    return p - r


def absolute_difference(a, b, r):
    """|a - b|."""
    return abs(a - b)


def nothing(a, r, weight):
    """0."""
    return 0.0


# --- what a sum says, in nats ---------------------------------------------------------------------


def itself(x, parameter):
    """The sum itself."""
    return x


def at_least_0(x, parameter):
    """The sum itself, or 0: what is less is rounding."""
    return where(x < 0.0, 0.0, x)


def log1p_of(v):
    """log(1 + v): log(u) of u = 1 + v as rounded, and what that lost, which counts near 0."""
    u = 1.0 + v
    return log(u) + where(u < 2.0, v - (u - 1.0), 0.0)


def renyi_of_excess(v, alpha):
    """log(1 + v) / (α - 1) of v = Σ p^α q^(1 - α) - 1; a sum below -1 is rounding."""
    return log1p_of(where(v < -1.0, -1.0, v)) * (1.0 / (alpha - 1.0)) + 0.0


def renyi_of_powers(total, alpha):
    """log(Σ p^α q^(1 - α)) / (α - 1)."""
    return log(total) * (1.0 / (alpha - 1.0)) + 0.0


def renyi_of_lifted_powers(total, alpha):
    """The same of powers that were lifted."""
    return (log(total) - 600.0 * LN2) * (1.0 / (alpha - 1.0))


def renyi_of_lowered_powers(total, alpha, top):
    """The same of powers that were lowered by the largest ratio."""
    return top + log(total) / (alpha - 1.0)


def bhattacharyya_of_excess(v, parameter):
    """-log(1 + v) of v = Σ √(p q) - 1."""
    return 0.0 - log1p_of(where(v < -1.0, -1.0, v))


def bhattacharyya_of_powers(total, parameter):
    """-log Σ √(p q)."""
    return 0.0 - log(total)


def bhattacharyya_of_lifted_powers(total, parameter):
    """The same of powers that were lifted."""
    return 600.0 * LN2 - log(total)


# --- finishes ------------------------------------------------------------------------------------


def same(x):
    """The sum itself."""
    return x


def half(x):
    """½ Σ."""
    return 0.5 * x


def root(x):
    """√Σ."""
    return sqrt(x)


def root_of_half(x):
    """√(½ Σ)."""
    return sqrt(0.5 * x)
