"""The definitions, written for clarity: what every result of fastinfo is measured against.

Arithmetic is in ``numpy.longdouble`` on exactly widened inputs. Rows are shifted by their maximum,
whose term leaves the sum for ``log1p``, and divergences are sums of terms of one sign in the
difference of their arguments, so the errors here stay far below the tolerances of the tests
(``test_oracles.py`` holds this file itself against mpmath). Classes and bins lie on the last axis.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Wide = NDArray[np.longdouble]
quiet = np.errstate(all="ignore")


def wide(x: ArrayLike) -> Wide:
    """Return the values of `x` as fastinfo reads them (integers as float64), in long double."""
    return np.asarray(x).astype(np.float64).astype(np.longdouble)


# Softmax: logits in ---------------------------------------------------------------------------


@quiet
def scale(logits: ArrayLike, temperature: float = 1.0, softcap: float | None = None):
    """Return z and dz/dlogits · temperature."""
    x = wide(logits) / np.longdouble(temperature)
    if softcap is None:
        return x, np.ones_like(x)
    u = x / np.longdouble(softcap)
    finite = np.isfinite(x)
    return np.where(finite, softcap * np.tanh(u), x), np.where(finite, 1 / np.cosh(u) ** 2, 1)


@quiet
def softmax_parts(z: Wide) -> tuple[Wide, Wide, Wide]:
    """Return max z, log Σ exp(z - max) and z - max; NaN where the maximum is not finite."""
    m = z.max(-1, keepdims=True)
    m = np.where(np.isfinite(m), m, np.nan)
    others = np.exp(z - m)
    np.put_along_axis(others, z.argmax(-1)[..., None], 0, -1)
    return m, np.log1p(others.sum(-1, keepdims=True)) + 0 * m, z - m


class Loss(NamedTuple):
    """Rows, the gradient of their sum and its terms' absolute values, mean's weights, rows kept."""

    rows: Wide
    grad: Wide
    terms: Wide
    weights: Wide
    kept: NDArray[np.bool_]


@quiet
def softmax_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    error: Wide | None = None,
) -> Loss:
    """row = r·(-Σ c_k log softmax(z)_k + z_loss·lse²), c = w·((1 - ε)·y + ε/V).

    With `error`, rows and their gradient are instead how far those move if each logit may by that:
    |∂²row/∂z_j∂z_k|·error_j, and (|∂row/∂z_k| + that)·error_k, at their largest on the way, where
    p, 1 - p and the slope grow at most by exp(2·error) and exp(2·error/softcap).
    """
    z, slope = scale(logits, temperature, softcap)
    m, log_sum, d = softmax_parts(z)
    p, others, lse = np.exp(d - log_sum), -np.expm1(d - log_sum), m + log_sum
    w = np.ones(z.shape[-1]) if class_weight is None else wide(class_weight)
    r = np.ones(z.shape[:-1]) if sample_weight is None else wide(sample_weight)
    y = np.asarray(targets)
    weights = np.broadcast_to(r, z.shape[:-1])
    if y.shape != z.shape:
        r = np.where(y == ignore_index, 0, r)
        y = y[..., None] == np.arange(z.shape[-1])
        weights = r * (y * w).sum(-1)
    smooth = np.longdouble(label_smoothing)
    c = w * ((1 - smooth) * wide(y) + smooth / z.shape[-1])
    total = c.sum(-1, keepdims=True)
    rows = np.where(c == 0, 0, c * (log_sum - d)).sum(-1) + (z_loss * lse**2)[..., 0]
    # W·p - c keeps its digits where p is nearly 1 and all the weight is on that class
    pull = np.where(p > 0.5, (total - c) - total * others, total * p - c)
    size = (total + 2 * z_loss * abs(lse)) * p
    scaled = (r[..., None] * slope) / np.longdouble(temperature)
    kept = np.broadcast_to(r, rows.shape) != 0
    rows, grad = r * rows, scaled * (pull + 2 * z_loss * lse * p)
    if error is not None:
        bend, most = 2 / np.longdouble(softcap or np.inf), error.max(-1, keepdims=True)
        growth = np.exp((4 + 2 * bend) * most / temperature)
        off = growth * slope * error / temperature
        mean = (p * off).sum(-1, keepdims=True)
        size_then = size + 2 * z_loss * p * most / temperature
        apart = size_then * ((1 - p) * off + (mean - p * off)) + 2 * z_loss * p * mean
        change = growth * (scaled * apart + abs(grad) * bend * error / temperature)
        rows, grad = ((abs(grad) + change) * error).sum(-1), change
    return Loss(
        np.where(kept, rows, 0),
        np.where(kept[..., None], grad, 0),
        np.where(kept[..., None], scaled * (size + c), 0),
        np.where(kept, weights, 0),
        kept,
    )


@quiet
def reduced(loss: Loss, reduction: str) -> tuple[Wide, Wide, Wide]:
    """Return the value of a reduction, its gradient and the absolute values of its terms."""
    share = 1 / loss.weights.sum() if reduction == "mean" else np.longdouble(1)
    value = loss.rows if reduction == "none" else loss.rows.sum() * share
    share = np.where(loss.kept, share, 0)[..., None]
    return value, loss.grad * share, loss.terms * share


@quiet
def softmax_statistics(
    logits: ArrayLike,
    targets: ArrayLike | None = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> dict[str, Any]:
    """Return every field by its definition; the rank and the argmax are of the raw logits."""
    x = wide(logits)
    z, _ = scale(logits, temperature, softcap)
    _, log_sum, d = softmax_parts(z)
    p = np.exp(d - log_sum)
    fields: dict[str, Any] = {
        "max": z.max(-1),
        "log_sum": log_sum[..., 0],
        "logsumexp": logsumexp(z),
        "entropy": np.where(np.isneginf(d), 0, p * (log_sum - d)).sum(-1),
        "argmax": x.argmax(-1),
    }
    if targets is not None:
        kept = np.asarray(targets) != ignore_index
        t = np.where(kept, targets, 0).astype(np.int64)[..., None]
        at = np.take_along_axis(x, t, -1)
        ahead = (x > at) | ((x == at) & (np.arange(x.shape[-1]) < t))
        log_prob = np.take_along_axis(d - log_sum, t, -1)[..., 0]
        fields["target_log_prob"] = np.where(kept, log_prob, np.nan)
        fields["target_rank"] = np.where(kept, ahead.sum(-1), -1)
    return fields


@quiet
def logsumexp(x: ArrayLike) -> Wide:
    """Return log Σ exp x, with SciPy's values where the maximum is not finite."""
    x = wide(x)
    m, log_sum, _ = softmax_parts(x)
    top = x.max(-1)
    return np.where(np.isfinite(top), (m + log_sum)[..., 0], top)


@quiet
def log_softmax(x: ArrayLike, temperature: float = 1.0) -> Wide:
    """Return z - max - log Σ exp(z - max)."""
    _, log_sum, d = softmax_parts(scale(x, temperature)[0])
    return d - log_sum


@quiet
def softmax(x: ArrayLike, temperature: float = 1.0) -> Wide:
    """Return exp(log_softmax)."""
    return np.exp(log_softmax(x, temperature))


class Rows(NamedTuple):
    """Values of rows, their gradients, and the absolute values of the terms of those."""

    values: Wide
    grad: Wide
    terms: Wide


@quiet
def softmax_entropy(logits: ArrayLike, temperature: float = 1.0) -> Rows:
    """-Σ p log p and -p (log p + entropy) / T."""
    _, log_sum, d = softmax_parts(scale(logits, temperature)[0])
    p, own = np.exp(d - log_sum), log_sum - d
    entropy = np.where(np.isneginf(d), 0, p * own).sum(-1, keepdims=True)
    grad = np.where(np.isneginf(d), 0, p * (own - entropy)) / np.longdouble(temperature)
    terms = np.where(np.isneginf(d), 0, p * (own + entropy)) / np.longdouble(temperature)
    return Rows(entropy[..., 0], grad, terms)


@quiet
def softmax_divergence(
    p_logits: ArrayLike, q_logits: ArrayLike, beta: float | None = None, temperature: float = 1.0
) -> Rows:
    """KL(P‖Q), or JS with a share of beta for P, and its derivative by the logits of q."""
    x, y = wide(p_logits), wide(q_logits)
    t = np.longdouble(temperature)
    (m, p_sum, _), (n, q_sum, _) = softmax_parts(x / t), softmax_parts(y / t)
    p, q = softmax(x, temperature), softmax(y, temperature)
    own = (np.float64(v.max(-1, keepdims=True)) for v in (x, y))
    apart = np.subtract(*(np.longdouble(v) for v in own))
    log_ratio = ((x - y) - apart) / t - (p_sum - q_sum)
    d = np.where(log_ratio > 0, -p * np.expm1(-log_ratio), q * np.expm1(log_ratio))
    d = np.where(p == 0, -q, np.where(q == 0, p, d)) + 0 * (m + n)
    if beta is None:
        far = p * log_ratio - d
        terms = np.where(p == 0, q, np.where(abs(log_ratio) < 0.5, q * bregman(d / q), far))
        terms = np.where(np.isneginf(y) & np.isfinite(x), np.inf, terms)  # p > 0, underflow or not
        return Rows(terms.sum(-1), -d / t, (p + q) / t)
    a, b = np.longdouble(beta), 1 - np.longdouble(beta)
    middle = a * p + b * q
    of_p, of_q = (
        np.where(middle == 0, 0, middle * bregman(s * d / middle)).sum(-1, keepdims=True)
        for s in (b, -a)
    )
    ratio = a * d / q  # m / q - 1, which has lost digits where m is much less
    own = np.where(q == 0, 0, -q * np.where(ratio < -0.5, np.log(middle / q), np.log1p(ratio)))
    # near P = Q, q log(q / m) is q - m: these are then the terms
    grad, size = b * (own - q * of_q) / t, b * (abs(own) + q * of_q + q + middle) / t
    return Rows((a * of_p + b * of_q)[..., 0], grad, size)


# Linear: hidden states in ----------------------------------------------------------------------


@quiet
def linear_logits(hidden, weight, bias=None, unit: float = 0.0) -> tuple[Wide, Wide]:
    """hidden @ weight.T + bias, and 4·√D·unit·Σ|h_d w_d|: how far off each logit may be.

    The bias is one more term of the sum; a logit that is not finite is off by nothing.
    """
    h, w = wide(hidden), wide(weight)
    b = np.zeros(len(w), np.longdouble) if bias is None else wide(bias)
    logits, size = h @ w.T + b, abs(h) @ abs(w).T + abs(b)
    error = 4 * np.sqrt(np.longdouble(w.shape[1])) * unit * size
    return logits, np.where(np.isfinite(logits), error, 0)


@quiet
def linear_cross_entropy(
    hidden, weight, targets, *, bias=None, reduction="mean", unit=0.0, **options
) -> dict[str, tuple[Wide, Wide, Wide]]:
    """Loss and gradients: exact, the absolute values of their terms, and what errors make."""
    logits, error = linear_logits(hidden, weight, bias, unit)
    loss = softmax_cross_entropy(logits, targets, **options)
    moved = softmax_cross_entropy(logits, targets, error=error, **options)
    value, grad, terms = reduced(loss, reduction)
    slack, change, _ = reduced(moved, reduction)
    h, w = np.where(loss.kept[..., None], wide(hidden), 0), wide(weight)

    by = {
        "hidden": lambda g, h, w: g @ w,
        "weight": lambda g, h, w: np.tensordot(g, h, (range(g.ndim - 1),) * 2),
        "bias": lambda g, h, w: g.sum(tuple(range(g.ndim - 1))),
    }
    sides = ((grad, h, w), (terms, abs(h), abs(w)), (change, abs(h), abs(w)))
    gradients = {name: tuple(product(*side) for side in sides) for name, product in by.items()}
    return {"loss": (value, abs(value), slack), **gradients}


@quiet
def linear_softmax_statistics(
    hidden, weight, targets=None, *, bias=None, unit=0.0, ignore_index=-100, **options
) -> tuple[dict[str, Any], dict[str, Any], Wide, Wide]:
    """Every field, what errors of the logits make of it, the logits and those errors."""
    logits, error = linear_logits(hidden, weight, bias, unit)
    fields = softmax_statistics(logits, targets, ignore_index=ignore_index, **options)
    z, slope = scale(logits, **options)
    most = error.max(-1, keepdims=True) / options.get("temperature", 1.0)
    growth = np.exp(4 * most * (1 + 1 / np.longdouble(options.get("softcap") or np.inf)))
    off = growth * slope * error / options.get("temperature", 1.0)
    entropy, others = softmax_entropy(z), -np.expm1(-fields["log_sum"])
    slope_then = abs(entropy.grad) + (growth - 1) * (entropy.terms + softmax(z))
    slacks = {
        "max": off.max(-1),
        "log_sum": 2 * others * off.max(-1) * growth[..., 0],
        "logsumexp": (softmax(z) * off).sum(-1),
        "entropy": (slope_then * off).sum(-1),
    }
    if targets is not None:
        rows = softmax_cross_entropy(
            logits, targets, error=error, ignore_index=ignore_index, **options
        ).rows
        slacks["target_log_prob"] = rows
    return fields, slacks, logits, error


# Binary: elements ------------------------------------------------------------------------------


def weighted_elements(a, b, nll, other, slope, other_slope, sample_weight) -> Loss:
    """Loss r·(a·nll + b·other) from the slopes of nll and other; a term without weight is 0."""

    def term(weight, value):
        return np.where((weight == 0) & ~np.isnan(value), 0, weight * value)

    r = np.broadcast_to(wide(1.0 if sample_weight is None else sample_weight), a.shape)
    falling, rising = term(a, slope), term(b, other_slope)
    return Loss(
        np.where(r == 0, 0, r * (term(a, nll) + term(b, other))),
        np.where(r == 0, 0, r * (rising - falling)),
        np.where(r == 0, 0, r * (rising + falling)),
        r,
        r != 0,
    )


@quiet
def binary_cross_entropy_with_logits(logits, y, pos_weight=1.0, sample_weight=None) -> Loss:
    """-[β y log σ(x) + (1 - y) log σ(-x)], elements as rows."""
    x, y = wide(logits), wide(y)
    rest = np.log1p(np.exp(-abs(x)))
    tail = np.exp(-abs(x)) / (1 + np.exp(-abs(x)))
    head = 1 / (1 + np.exp(-abs(x)))
    return weighted_elements(
        wide(pos_weight) * y,
        1 - y,
        rest + np.where(x < 0, -x, 0),
        rest + np.where(x > 0, x, 0),
        np.where(x < 0, head, tail),
        np.where(x < 0, tail, head),
        sample_weight,
    )


@quiet
def binary_cross_entropy(p, y, pos_weight=1.0, sample_weight=None) -> Loss:
    """-[β y log p + (1 - y) log(1 - p)], elements as rows."""
    p, y = wide(p), wide(y)
    return weighted_elements(
        wide(pos_weight) * y, 1 - y, -np.log(p), -np.log1p(-p), 1 / p, 1 / (1 - p), sample_weight
    )


@quiet
def negative_log_likelihood(q, targets, ignore_index=-100, base=None) -> Wide:
    """-log q[target] of each row along the last axis, 0 where ignored."""
    kept = np.asarray(targets) != ignore_index
    at = np.where(kept, targets, 0).astype(np.int64)[..., None]
    picked = np.take_along_axis(wide(q), at, -1)[..., 0]
    return np.where(kept, -np.log(picked) / unit(base), 0)


# Measures: distributions in -------------------------------------------------------------------


def distribution(x: ArrayLike, normalize: bool) -> tuple[Wide, Wide]:
    """Return `x` over its sum and what its rounding lost; an infinite entry is no number."""
    x = wide(x)
    x = np.where(np.isinf(x), np.nan, x)
    if not normalize:
        return x, 0 * x
    total, rest = exact_total(x)
    share = x / total
    product, error = two_product(share, total)
    lost = ((x - product) - error - share * rest) / total
    return share, np.where(np.isfinite(lost), lost, 0)


def exact_total(x: Wide) -> tuple[Wide, Wide]:
    """Sums along the last axis, and what their rounding lost."""

    def of(row):
        total = row.sum()
        if not np.isfinite(total) or total > 1e300:
            return total, np.longdouble(0)
        high = np.longdouble(math.fsum(row))
        low = np.longdouble(math.fsum([*row, -high]))
        return high + low, low - ((high + low) - high)

    pairs = [of(row) for row in x.reshape(-1, x.shape[-1])]
    shape = (*x.shape[:-1], 1)
    return tuple(np.array([p[i] for p in pairs], np.longdouble).reshape(shape) for i in (0, 1))


def two_product(a: Wide, b: Wide) -> tuple[Wide, Wide]:
    """a b rounded, and exactly what the rounding lost (Dekker)."""

    def halves(v):
        big = v * (np.longdouble(2) ** 32 + 1)
        high = big - (big - v)
        return high, v - high

    product, (ah, al), (bh, bl) = a * b, halves(a), halves(b)
    return product, al * bl - (((product - ah * bh) - al * bh) - ah * bl)


def measure(definition):
    """Make `f(p, q, d)`, d = p - q, a function of arrays that broadcast; `normalize`, `base`."""

    @functools.wraps(definition)
    @quiet
    def function(*arrays, normalize=True, base=None, **parameters):
        sides = [distribution(a, normalize) for a in arrays]
        given = [share for share, _ in sides]
        if len(sides) == 2:
            (p, p_lost), (q, q_lost) = sides
            given.append((p - q) + (p_lost - q_lost))
        value = definition(*given, **parameters) / unit(base)
        return np.sqrt(value) if definition.__name__ == "js_distance" else value

    return function


def unit(base: float | None) -> np.longdouble:
    """Return the size in nats of the unit of `base`."""
    return np.longdouble(1) if base is None else np.log(np.longdouble(base))


def bregman(t: Wide) -> Wide:
    """(1 + t)·log(1 + t) - t: not negative, and t²/2 near zero, by its series there."""
    t = np.maximum(t, -1)  # p - q has more digits than q
    near = t * t * (1 - t / 3 * (1 - t / 2 * (1 - t * 3 / 5))) / 2
    return np.where(abs(t) < 1e-5, near, np.where(t == -1, 1, (1 + t) * np.log1p(t) - t))


@measure
def entropy(p):
    """-Σ p log p."""
    return -np.where(p == 0, 0, p * np.log(p)).sum(-1)


@measure
def cross_entropy(p, q, d):
    """-Σ p log q."""
    return -np.where((p == 0) & ~np.isnan(q), 0, p * np.log(q)).sum(-1)


@quiet
def kl_divergence(p, q, *, normalize=True, base=None):
    """Σ p log(p/q) = Σ q·g(p/q - 1) + Σp - Σq with g the function `bregman`."""
    (p, p_lost), (q, q_lost) = distribution(p, normalize), distribution(q, normalize)
    d = (p - q) + (p_lost - q_lost)
    terms = np.where(q == 0, np.where(p > 0, np.inf, 0 * p), q * bregman(d / q))
    excess = 0 if normalize else d.sum(-1)
    return (terms.sum(-1) + excess) / unit(base)


def js_terms(p, q, d, weights):
    """M = aP + bQ: a·KL(P‖M) + b·KL(Q‖M), bin by bin, in d = p - q."""
    a, b = np.longdouble(weights) / np.sum(np.longdouble(weights))
    m = a * p + b * q
    return np.where(m == 0, 0, m * (a * bregman(b * d / m) + b * bregman(-a * d / m)))


@measure
def js_divergence(p, q, d, weights=(0.5, 0.5)):
    """a·KL(P‖M) + b·KL(Q‖M)."""
    return js_terms(p, q, d, weights).sum(-1)


@measure
def js_distance(p, q, d):
    """√JS: the root is taken after the base (in `measure`)."""
    return js_terms(p, q, d, (0.5, 0.5)).sum(-1)


@measure
def total_variation(p, q, d):
    """½ Σ|p - q|."""
    return abs(d).sum(-1) / 2


@measure
def hellinger_distance(p, q, d):
    """√(½ Σ(√p - √q)²), with √p - √q = (p - q)/(√p + √q)."""
    difference = np.where(d == 0, 0 * p, d / (np.sqrt(p) + np.sqrt(q)))
    return np.sqrt((difference**2).sum(-1) / 2)


def signed_log_ratio(p: Wide, q: Wide, d: Wide) -> Wide:
    """log(p/q) by log1p near 0, 0 where both are 0."""
    near = abs(d) < p / 4
    ratio = np.where(p == q, 1, p / q)
    return np.where(near, -np.log1p(np.where(near, -d / p, 0)), np.log(ratio))


@measure
def jeffreys_divergence(p, q, d):
    """Σ(p - q)·log(p/q)."""
    terms = np.where((p == q) & (d == 0), 0 * p, d * signed_log_ratio(p, q, d))
    return np.where((p == 0) & (q == 0), 0, terms).sum(-1)


def powers(p: Wide, q: Wide, d: Wide, alpha: float) -> Wide:
    """p^α·q^(1 - α) - α·p - (1 - α)·q, near p = q by its series in u = d/q."""
    a = np.longdouble(alpha)
    u = np.where(q == 0, 0, d / q)
    product, near = np.longdouble(1), 0 * p
    for n in range(2, 14):
        product = (a if n == 2 else product) * ((a - 1) / 2 if n == 2 else (a - n + 1) / n)
        near = near + product * u**n
    both = p * np.expm1((a - 1) * signed_log_ratio(p, q, d)) - (a - 1) * d
    alone = np.where(p == 0, (a - 1) * q, p * (np.inf if a > 1 else -a)) + 0 * p * q
    far = np.where((p > 0) & (q > 0), both, np.where((p == 0) & (q == 0), 0, alone))
    far = np.where(np.isnan(p + q), np.nan, far)
    small = abs(u) * max(1.0, float(a)) < 1e-2
    return np.where(small & (q > 0), q * near, far)


@quiet
def renyi_divergence(p, q, *, alpha, normalize=True, base=None):
    """log(Σ p^α·q^(1-α))/(α - 1), KL at 1, its limits at 0 and infinity."""
    if alpha == 1:
        return kl_divergence(p, q, normalize=normalize, base=base)
    (p, p_lost), (q, q_lost) = distribution(p, normalize), distribution(q, normalize)
    d = (p - q) + (p_lost - q_lost)
    if np.isinf(alpha):
        value = np.where(p == 0, -np.inf + 0 * q, signed_log_ratio(p, q, d)).max(-1)
    elif alpha == 0:
        value = np.where(p > 0, q, 0 * p).sum(-1)
        outside = np.where(p == 0, q, 0 * (p + q)).sum(-1)
        value = np.where(normalize & (outside < 0.5), -np.log1p(-outside), -np.log(value))
    else:
        a, excess = np.longdouble(alpha), powers(p, q, d, alpha).sum(-1)
        none = 0 * (p + q)
        terms = a * np.log(p) + (1 - a) * np.log(q)
        outside = none + (np.inf if a > 1 else -np.inf)
        terms = np.where(p == 0, none - np.inf, np.where(q == 0, outside, terms))
        top = np.where(np.isinf(terms.max(-1)), 0, terms.max(-1))
        whole = top + np.log(np.exp(terms - top[..., None]).sum(-1))
        near = normalize & (excess > -0.5) & (excess < 1)
        value = np.where(near, np.log1p(excess), whole) / (a - 1)
    return value / unit(base)


@quiet
def bhattacharyya_distance(p, q, *, normalize=True, base=None):
    """-log Σ√(p·q): half of Rényi's of order ½."""
    return renyi_divergence(p, q, alpha=0.5, normalize=normalize, base=base) / 2


MEASURES = {
    f.__name__: f
    for f in (
        cross_entropy,
        kl_divergence,
        js_divergence,
        js_distance,
        jeffreys_divergence,
        renyi_divergence,
        total_variation,
        hellinger_distance,
        bhattacharyya_distance,
    )
}


def pairwise(x: ArrayLike, y: ArrayLike, measure: str, **options) -> Wide:
    """D[i, j] = measure(x[i], y[j])."""
    function = MEASURES[measure]
    return np.array([[function(p, q, **options) for q in np.asarray(y)] for p in np.asarray(x)])
