"""The edge-case matrix, as data: sizes, dtypes, layouts, logits, distributions, options, calls."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastinfo

Array = NDArray[Any]
Calls = dict[str, Callable[..., Any]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16), BFLOAT16]
WIDE_FLOATS = FLOATS[:2]
INTEGERS = [np.dtype(c) for c in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint64")]
TARGET_DTYPES = [np.dtype(c) for c in ("uint8", "int16", "uint32", "int32", "int64", "uint64")]

ROWS = {
    0: "nothing to do",
    1: "one row: threads split the classes, or nothing",
    2: "as many as the smallest machine has cores",
    7: "a remainder for every block of rows",
    max(1, (os.cpu_count() or 2) - 1): "fewer rows than cores",
    (os.cpu_count() or 2) + 1: "one row left over for one core",
    1000: "several blocks of rows a thread",
}

CLASSES = {
    1: "the loss is zero",
    2: "the smallest choice",
    7: "below one vector of float64",
    8: "one vector of float64",
    9: "a vector of float64 and a remainder",
    15: "below one vector of float32",
    16: "one vector of float32",
    17: "a vector of float32 and a remainder",
    31: "below one vector of 16-bit words",
    32: "one vector of 16-bit words",
    33: "that and a remainder",
    63: "below an unrolled step",
    64: "an unrolled step",
    65: "that and a remainder",
    97: "a prime",
    255: "below a small block",
    256: "a small block",
    257: "that and one class",
    1023: "below a block in L1",
    1024: "a block in L1",
    1025: "that and one class",
    4097: "blocks and one class",
    32000: "llama2",
    50257: "gpt2, odd",
    65537: "beyond 16 bits",
    128256: "llama3",
    151936: "qwen3",
}

BINS = {
    1: "a constant",
    2: "a coin",
    3: "below every vector",
    8: "one vector of float64",
    16: "one vector of float32",
    17: "that and a remainder",
    65: "an unrolled step and a remainder",
    257: "a block and one bin",
    1024: "the benchmark's",
    4096: "the widest of the benchmarks",
}


def spaced(a: Array) -> Array:
    """Return `a` on every other element of the last axis."""
    room = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    room[..., ::2] = a
    return room[..., ::2]


def shifted(a: Array, offset: int) -> Array:
    """Return `a` on memory that starts `offset` bytes after an aligned address."""
    room = np.zeros(a.nbytes + 64 + offset, np.uint8)
    start = -room.ctypes.data % 64 + offset
    view = room[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a: Array) -> Array:
    """Return a copy of `a` that cannot be written."""
    a = a.copy()
    a.flags.writeable = False
    return a


def mapped(a: Array) -> Array:
    """Return `a` as a read-only memory map of a file that is already unlinked."""
    with tempfile.TemporaryFile() as file:
        file.write(b"head" * 4 + a.tobytes())
        file.flush()
        return np.memmap(file, a.dtype, "r", 16, a.shape)


# Each returns an array equal to its argument, laid out otherwise.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "fortran": np.asfortranarray,
    "spaced": spaced,
    "spaced rows": lambda a: np.repeat(a, 2, axis=0)[::2],
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "reversed rows": lambda a: a[::-1].copy()[::-1],
    "columns of a wider array": lambda a: np.concatenate([a, a], -1)[..., a.shape[-1] :],
    "one element off alignment": lambda a: shifted(a, a.dtype.itemsize),
    "unaligned": lambda a: shifted(a, 1),
    "read-only": read_only,
    "memory map": mapped,
    "swapped bytes": lambda a: a if a.dtype == BFLOAT16 else a.astype(a.dtype.newbyteorder("S")),
}


def normal_logits(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike, spread: float = 3.0
) -> Array:
    """Return normal logits in `dtype`."""
    return (spread * rng.standard_normal(shape)).astype(dtype)


def finite_logits(v: int) -> dict[str, Array]:
    """Return rows of `v` finite or masked classes, each hard in its own way, as float64."""
    k = np.arange(v, dtype=np.float64)
    ramp = np.linspace(-3, 3, v)
    half = max(1, v // 2)
    return {
        "all equal": np.zeros(v),
        "all equal and large": np.full(v, 10000.0),
        "one huge": np.where(k == half, 10000.0, 0.0),
        "one hugely negative": np.where(k == half, -10000.0, 0.0),
        "alternating huge": np.where(k % 2 == 0, 10000.0, -10000.0),
        "confident": np.where(k == v // 3, 14.0, ramp / 3),
        "very confident": np.where(k == v - 1, 36.0, ramp / 3),
        "rising": k / 8,
        "falling": -k / 8,
        "common offset": ramp + 1e6,
        "common negative offset": ramp - 1e6,
        "offset beyond the mantissa": np.round(ramp) + 2.0**24,
        "probabilities below the normal numbers": -(k % 128) * 0.8,
        "probabilities that vanish": -(k % 5) * 200,
        "float16 maximum": np.where(k % 3 == 0, 65504.0, 65500.0),
        "tiny": ramp * 1e-30,
        "first masked": np.where(k < v - 1, np.where(k < half, -np.inf, ramp), 1.0),
        "last masked": np.where(k < half, ramp, -np.inf),
        "all masked but the last": np.where(k == v - 1, 2.0, -np.inf),
        "all masked but the first": np.where(k == 0, -7.0, -np.inf),
        "every other masked": np.where(k % 2 == 0, ramp, -np.inf),
    }


def invalid_logits(v: int) -> dict[str, Array]:
    """Return rows of `v` >= 2 classes for which no distribution is defined."""
    ramp, k = np.linspace(-3, 3, v), np.arange(v)
    return {
        "all masked": np.full(v, -np.inf),
        "infinite first": np.where(k == 0, np.inf, ramp),
        "infinite last": np.where(k == v - 1, np.inf, ramp),
        "all infinite": np.full(v, np.inf),
        "both infinities": np.where(k % 2 == 0, np.inf, -np.inf),
        "NaN first": np.where(k == 0, np.nan, ramp),
        "NaN last": np.where(k == v - 1, np.nan, ramp),
        "all NaN": np.full(v, np.nan),
        "NaN among masked": np.where(k == v // 2, np.nan, -np.inf),
        "NaN and infinity": np.where(k == v // 2, np.nan, np.inf),
    }


def fits(row: Array, dtype: DTypeLike) -> bool:
    """Tell whether `dtype` holds the finite values of `row` without overflow."""
    with np.errstate(over="ignore"):
        return bool((np.isinf(row) == np.isinf(row.astype(dtype))).all())


def loss_options(rng: np.random.Generator, n: int, v: int) -> dict[str, dict[str, Any]]:
    """Return named combinations of the options of softmax_cross_entropy, for n rows of v."""
    class_weight = rng.uniform(0.2, 2.0, v)
    class_weight[v // 2] = 0.0
    sample_weight = rng.uniform(0.2, 2.0, n)
    sample_weight[n // 2] = 0.0
    everything = {
        "class_weight": class_weight,
        "sample_weight": sample_weight,
        "label_smoothing": 0.1,
        "z_loss": 1e-2,
        "temperature": 1.3,
        "softcap": 5.0,
    }
    return {
        "plain": {},
        **{name: {name: value} for name, value in everything.items()},
        "uniform target": {"label_smoothing": 1.0},
        "cold": {"temperature": 0.1},
        "hot": {"temperature": 30.0},
        "wide softcap": {"softcap": 30.0},
        "narrow softcap": {"softcap": 0.5},
        "softcap next to none": {"softcap": 500.0},
        "smoothing with weights": {"label_smoothing": 0.2, "class_weight": class_weight},
        "capped and cold": {"temperature": 0.5, "softcap": 5.0},
        "everything": everything,
    }


def distribution_pairs(rng: np.random.Generator, k: int) -> dict[str, tuple[Array, Array]]:
    """Return pairs of rows of `k` bins, float64, each hard in its own way."""
    bins = np.arange(k)
    p, q = rng.dirichlet(np.ones(k), 2)
    counts = rng.integers(0, 50, k).astype(np.float64)
    counts[0] += 1
    left = np.where(bins < (k + 1) // 2, p, 0)
    right = np.where(bins < (k + 1) // 2, 0, q)
    first, last = (bins == 0).astype(np.float64), (bins == k - 1).astype(np.float64)
    return {
        "spread": (p, q),
        "sparse": tuple(rng.dirichlet(np.full(k, 0.1), 2) + 1e-30),
        "flat": tuple(rng.dirichlet(np.full(k, 20.0), 2)),
        "uniform": (np.ones(k), np.ones(k)),
        "equal": (p, p),
        "proportional counts": (counts, 4 * counts),
        "counts": (counts, rng.permutation(counts)),
        "one-hot and spread": (first, q),
        "spread and one-hot": (p, first),
        "one-hot, apart": (first, last),
        "disjoint supports": (left, right if k > 1 else q),
        "zeros on the left": (left, q),
        "zeros on the right": (p, left),
        "zeros on both": (left, left + first),
        "almost certain": (first + 1e-9 * p, first + 1e-9 * q),
        "unnormalised": (p * 1000, q * 1e-3),
        **{f"nearly equal, {noise:g}": near(rng, p, noise) for noise in (1e-1, 1e-3, 1e-6)},
    }


def near(rng: np.random.Generator, p: Array, noise: float) -> tuple[Array, Array]:
    """Return `p` and `p` with every entry changed by a relative `noise`."""
    return p, p * (1 + noise * rng.uniform(-1, 1, p.shape))


def invalid_pairs(k: int) -> dict[str, tuple[Array, Array]]:
    """Return pairs of rows of `k` >= 3 bins whose every measure is NaN."""
    fine, bins = np.arange(1.0, k + 1), np.arange(k)
    nan, inf = np.where(bins == k - 1, np.nan, fine), np.where(bins == 0, np.inf, fine)
    return {
        "sum of zero on the left": (np.zeros(k), fine),
        "sum of zero on the right": (fine, np.zeros(k)),
        "both sums zero": (np.zeros(k), np.zeros(k)),
        "NaN on the left": (nan, fine),
        "NaN on the right": (fine, nan),
        "NaN over zero": (np.where(bins == k - 1, 0, fine), nan),
        "zero over NaN": (nan, np.where(bins == k - 1, 0, fine)),
        "infinity on the left": (inf, fine),
        "infinity on the right": (fine, inf),
        "infinity on both": (inf, inf),
        "infinity over zero": (inf, np.where(bins == 0, 0, fine)),
    }


def turned(x: Any) -> Any:
    """Return `x` with its classes in reverse order, as the same kind of array."""
    return x.flip(-1) if hasattr(x, "flip") else x[..., ::-1]


# Every function of rows: the same bits whatever the layout, the threads and the other rows.
LOGITS_CALLS: Calls = {
    "loss": lambda x, t: fastinfo.softmax_cross_entropy(x, t, reduction="none"),
    "loss and gradient": lambda x, t: fastinfo.softmax_cross_entropy(
        x, t, label_smoothing=0.1, softcap=20.0, reduction="none", return_grad=True
    ),
    "statistics": lambda x, t: tuple(fastinfo.softmax_statistics(x, t)),
    "softmax_entropy": lambda x, t: fastinfo.softmax_entropy(x, temperature=0.7, return_grad=True),
    "softmax_kl_divergence": lambda x, t: fastinfo.softmax_kl_divergence(
        x, turned(x), reduction="none", return_grad=True
    ),
    "softmax_js_divergence": lambda x, t: fastinfo.softmax_js_divergence(
        turned(x), x, beta=0.3, reduction="none", return_grad=True
    ),
    "logsumexp": lambda x, t: fastinfo.logsumexp(x),
    "softmax": lambda x, t: fastinfo.softmax(x),
    "log_softmax": lambda x, t: fastinfo.log_softmax(x, temperature=2.0),
}

DISTRIBUTION_CALLS: Calls = {
    "entropy": lambda p, q: fastinfo.entropy(p),
    "cross_entropy": lambda p, q: fastinfo.cross_entropy(p, q),
    "kl_divergence": lambda p, q: fastinfo.kl_divergence(p, q),
    "js_divergence": lambda p, q: fastinfo.js_divergence(p, q, weights=(0.3, 0.7)),
    "js_distance": lambda p, q: fastinfo.js_distance(p, q),
    "jeffreys_divergence": lambda p, q: fastinfo.jeffreys_divergence(p, q),
    "renyi_divergence": lambda p, q: fastinfo.renyi_divergence(p, q, 1.7),
    "bhattacharyya_distance": lambda p, q: fastinfo.bhattacharyya_distance(p, q),
    "total_variation": lambda p, q: fastinfo.total_variation(p, q),
    "hellinger_distance": lambda p, q: fastinfo.hellinger_distance(p, q),
}

PAIR_MEASURES = (
    "cross_entropy",
    "kl_divergence",
    "js_divergence",
    "js_distance",
    "jeffreys_divergence",
    "bhattacharyya_distance",
    "total_variation",
    "hellinger_distance",
)
# Infinite where p has a bin that q has not; Jeffreys' the other way as well.
INFINITE = ("cross_entropy", "kl_divergence", "jeffreys_divergence")
WITH_BASE = PAIR_MEASURES[:6]
SYMMETRIC = PAIR_MEASURES[2:]
# Orders of a Rényi divergence: its limits, near 1, on either side, symmetric, large.
ORDERS = (0.0, 1e-3, 0.3, 0.5, 0.9, 0.99, 1.0, 1.01, 1.5, 2.0, 10.0, 300.0, float("inf"))


def rows_that_bounds_order_otherwise(rng, count):
    """A query and rows: the first is nearer by h², the second by JS; the others are far."""
    p = np.zeros(300)
    p[:200] = rng.dirichlet(np.full(200, 5.0))
    by_js = 0.9 * p
    by_js[200:] = 0.1 / 100  # disjoint in part: JS is as little as ln 2 · h²
    by_bound = p * np.exp(0.6 * rng.normal(size=300))  # alike everywhere: JS is nearly h²
    rows = np.vstack([by_bound / by_bound.sum(), by_js, rng.dirichlet(np.full(300, 0.1), count)])
    h, js = (
        fastinfo.pairwise(p[None], rows, m)[0] for m in ("hellinger_distance", "js_divergence")
    )
    assert h[0] < h[1] < h[2:].min() and js[1] < js[0]
    return p[None], rows
