"""Named real shapes and the data for them, made once and shared by benchmarks and tests."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

GPT2, LLAMA3, QWEN3 = 50257, 128256, 151936

# (rows, classes). Those of the vocabularies hold about 500 MB of float32.
ROWS: dict[str, tuple[int, int]] = {
    "gpt2": (2048, GPT2),
    "llama3": (1024, LLAMA3),
    "qwen3": (1024, QWEN3),
    "million": (128, 1_000_000),
    "power of two": (1024, 131072),
    "thousand": (65536, 1000),
    "ten": (1_000_000, 10),
    "pixels": (1 << 20, 21),
    "elements": (1, 100_000_000),
    "one row of 1M": (1, 1 << 20),
    "one row of 16M": (1, 1 << 24),
}

# (rows of x, rows of y, bins)
PAIRS: dict[str, tuple[int, int, int]] = {
    "small": (1000, 1000, 256),
    "cube": (1024, 1024, 1024),
    "large": (4096, 4096, 1024),
    "neighbours": (2000, 50_000, 512),
    "sparse": (5000, 5000, 50_000),
    "few bins": (4096, 4096, 8),
}

# (rows, features, classes)
HEADS: dict[str, tuple[int, int, int]] = {
    "head": (1024, 768, 131072),
    "head of few rows": (16, 256, 1_000_000),
    "model": (1024, 64, 32_000),
}

# (samples, columns, codes)
TABLES: dict[str, tuple[int, int, int]] = {"columns": (10_000, 1000, 10)}

# The parameter of the Dirichlet distribution the rows are drawn from.
DIRICHLET: dict[str, float] = {
    "Dirichlet(0.1)": 0.1,
    "Dirichlet(0.3)": 0.3,
    "Dirichlet(1)": 1.0,
    "Dirichlet(20)": 20.0,
}
NEARLY_EQUAL = "nearly equal"
KINDS = (*DIRICHLET, NEARLY_EQUAL)


@dataclass(frozen=True)
class Shapes:
    """The named shapes; with `shrink` above 1 every length is divided by it (for tests)."""

    shrink: int = 1

    def rows(self, name: str) -> tuple[int, int]:
        """Rows and classes of a named shape of logits."""
        n, v = ROWS[name]
        return self._less(n), self._less(v)

    def pairs(self, name: str) -> tuple[int, int, int]:
        """Rows of x, rows of y, and bins of a named pair of matrices."""
        n, m, k = PAIRS[name]
        return self._less(n), self._less(m), self._less(k)

    def heads(self, name: str) -> tuple[int, int, int]:
        """Rows, features and classes of a named linear classifier."""
        m, d, v = HEADS[name]
        return self._less(m), self._less(d), self._less(v)

    def tables(self, name: str) -> tuple[int, int, int]:
        """Samples, columns and codes of a named table."""
        n, width, values = TABLES[name]
        return self._less(n), self._less(width), self._less(values)

    def find(self, name: str) -> tuple[int, ...]:
        """Return a shape of any kind."""
        if name in ROWS:
            return self.rows(name)
        if name in TABLES:
            return self.tables(name)
        return self.heads(name) if name in HEADS else self.pairs(name)

    def _less(self, length: int) -> int:
        return min(length, max(length // self.shrink, 4))


def dtype_of(name: str) -> np.dtype:
    """Return the dtype of that name, bfloat16 among them."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def n_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Return the bytes of an array."""
    return int(np.prod(shape, dtype=np.int64)) * dtype_of(dtype).itemsize


@functools.cache
def logits(shape: tuple[int, int], dtype: str = "float32") -> np.ndarray:
    """Return normal logits with a standard deviation of 3, as a language model's."""
    if dtype != "float32":
        return logits(shape).astype(dtype_of(dtype))
    values = np.random.default_rng(1).standard_normal(shape, np.float32)
    values *= 3
    return values


@functools.cache
def planes(shape: tuple[int, int], of_student: bool = False) -> np.ndarray:
    """Return logits with their classes along the first axis, as those of pixels lie."""
    return np.ascontiguousarray((student if of_student else logits)(shape).T)


@functools.cache
def student(shape: tuple[int, int]) -> np.ndarray:
    """Return the logits of another model that has learned from the first: KL is about 0.1."""
    return _beside_logits(shape, 3, 0.5)


@functools.cache
def copy_of_model(shape: tuple[int, int]) -> np.ndarray:
    """Return the logits of nearly the same model, as after quantisation: KL is about 0.005."""
    return _beside_logits(shape, 5, 0.1)


def _beside_logits(shape: tuple[int, int], seed: int, noise: float) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    values *= noise
    values += logits(shape)
    return values


@functools.cache
def labels(shape: tuple[int, int]) -> np.ndarray:
    """Return zeros and ones, one an element."""
    return (np.random.default_rng(4).random(shape, np.float32) < 0.3).astype(np.float32)


@functools.cache
def targets(shape: tuple[int, int]) -> np.ndarray:
    """One class a row."""
    return np.random.default_rng(2).integers(0, shape[1], shape[0])


@functools.cache
def buffer(shape: tuple[int, ...], dtype: str, use: str = "") -> np.ndarray:
    """Return memory to write results to; `use` tells two of a shape apart."""
    return np.zeros(shape, dtype_of(dtype))


@functools.cache
def distributions(
    shape: tuple[int, int], kind: str, seed: int, dtype: str = "float32"
) -> np.ndarray:
    """Rows from a Dirichlet distribution, or one row of Dirichlet(1) with 1 % noise on each bin."""
    rng = np.random.default_rng(seed)
    if kind == NEARLY_EQUAL:
        base = np.random.default_rng(0).standard_exponential(shape[1])
        values = base * (1 + 0.01 * rng.standard_normal(shape))
    else:
        values = rng.standard_gamma(DIRICHLET[kind], shape)
    values /= values.sum(axis=1, keepdims=True)
    return values.astype(dtype_of(dtype))


def forget() -> None:
    """Let go of all data made so far."""
    for made in (logits, planes, targets, buffer, distributions):
        made.cache_clear()
