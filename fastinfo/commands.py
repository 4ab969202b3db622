"""The commands `loss`, `pairwise` and `nearest`: arrays in files, figures out.

Logits are read a piece at a time; a matrix is computed where its file is mapped.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastinfo
from fastinfo import arrays, files, pictures
from fastinfo.bench import memory_bytes, quantity
from fastinfo.reductions import targets_of

Say = Callable[[str], None]
Report = dict[str, Any]

# Bytes of logits read at a time.
PIECE = 64 << 20
# Seconds that hardly matter beside those it takes to compile.
COMPILATION = 30.0
# Rows whose neighbours, and rows and columns of a matrix, that are printed.
SHOWN = 10


# --- loss ----------------------------------------------------------------------------------------


def loss(given: Namespace, say: Say) -> Report:
    """Score logits: mean loss, accuracies and entropy, by one reading."""
    logits, targets = files.load(given.logits, given.dtype), files.load(given.targets)
    if logits.dtype == np.uint16 and given.dtype is None:
        raise ValueError(
            f"{given.logits} holds 16-bit words, which are no logits: say what they are, "
            f"--dtype bfloat16"
        )
    if not logits.ndim or not logits.shape[-1]:
        raise ValueError(f"{given.logits} must hold rows of logits, got shape {logits.shape}")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"{given.targets} must have the shape of the rows of {given.logits}, "
            f"{logits.shape[:-1]}, got {targets.shape}"
        )
    # all of them, so that an error tells where in the file
    classes = targets_of(
        arrays.read("targets", targets), logits.shape[-1], given.ignore_index
    ).reshape(targets.shape)
    begin = time.perf_counter()
    sums = _scores(logits, classes, given)
    seconds = time.perf_counter() - begin
    report = _score_report(sums, logits, seconds)
    _say_scores(report, say)
    return report


def _scores(logits: np.ndarray, classes: np.ndarray, given: Namespace) -> np.ndarray:
    """Return the number of rows that count; Σ loss, ranks of 0 and below 5, Σ entropy."""
    sums = np.zeros(5)
    bar = {"temperature": given.temperature, "softcap": given.softcap, "ignore_index": -1}
    with _bar(not given.json, classes.size) as report:
        done = 0
        for x, y in _pieces(logits, classes):
            found = fastinfo.softmax_statistics(x, y, **bar)
            counts = y >= 0
            rank = found.target_rank[counts]
            sums += [
                counts.sum(),
                -found.target_log_prob[counts].sum(dtype=np.float64),
                (rank == 0).sum(),
                (rank < 5).sum(),
                found.entropy[counts].sum(dtype=np.float64),
            ]
            done += y.size
            report(done)
    return sums


def _pieces(logits: np.ndarray, classes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield logits and classes of some rows at a time."""
    if logits.ndim == 1:
        logits, classes = logits[None], classes[None]
    elif logits.flags.c_contiguous:
        logits, classes = logits.reshape(-1, logits.shape[-1]), classes.reshape(-1)
    row = max(1, logits[:1].nbytes)
    rows = max(1, PIECE // row)
    for lo in range(0, len(logits), rows):
        yield logits[lo : lo + rows], classes[lo : lo + rows]


def _score_report(sums: np.ndarray, logits: np.ndarray, seconds: float) -> Report:
    count, total, first, five, entropy = (float(v) for v in sums)
    rows = math.prod(logits.shape[:-1])
    with np.errstate(all="ignore"):
        mean, top, top5, spread = (np.float64(v) / count for v in (total, first, five, entropy))
        perplexity = np.exp(mean)
    return {
        "rows": rows,
        "ignored": rows - int(count),
        "classes": logits.shape[-1],
        "dtype": logits.dtype.name,
        "mean_loss": float(mean),
        "perplexity": float(perplexity),
        "bits_per_token": float(mean / math.log(2.0)),
        "accuracy": float(top),
        "top5_accuracy": float(top5),
        "entropy": float(spread),
        "seconds": seconds,
        "bytes_per_second": logits.nbytes / seconds,
        "rows_per_second": rows / seconds,
    }


def _say_scores(report: Report, say: Say) -> None:
    ignored = f", {report['ignored']} of them ignored" if report["ignored"] else ""
    say(f"{report['rows']} rows{ignored}, {report['classes']} classes, {report['dtype']}")
    for name, value in {
        "mean loss": f"{report['mean_loss']:.6g} nats",
        "perplexity": f"{report['perplexity']:.6g}",
        "bits per token": f"{report['bits_per_token']:.6g}",
        "accuracy": f"{report['accuracy']:.4%}",
        "top-5 accuracy": f"{report['top5_accuracy']:.4%}",
        "entropy": f"{report['entropy']:.6g} nats",
        "read in": f"{quantity(report['seconds'], 's')}, "
        f"{quantity(report['bytes_per_second'], 'B/s')}{_compiled(report)}",
    }.items():
        say(f"{name:<16}{value}")


# --- all pairs -----------------------------------------------------------------------------------


def pairwise(given: Namespace, say: Say) -> Report:
    """Compute the matrix of a measure, into a file if one is named."""
    if given.plot is not None:
        pictures.check(given.plot)
        files.check(given.plot, given.x, given.y, given.out)
    if given.out is not None:
        files.check(given.out, given.x, given.y, suffix=".npy")
    x, y = files.load(given.x, given.dtype), given.y and files.load(given.y, given.dtype)
    if given.plot and 0 in _shape(x, y):
        raise ValueError(
            f"a picture must have a pair to show, got a matrix of shape {_shape(x, y)}"
        )
    options = _options(given)
    begin = time.perf_counter()
    if given.out:
        with files.new_array(given.out, _shape(x, y), _result(x, y)) as out:
            matrix = fastinfo.pairwise(x, y, out=out, **options)
            seconds = time.perf_counter() - begin
            report = _matrix_report(matrix, given, seconds) | {"out": given.out}
    else:
        _must_fit(x, y)
        matrix = fastinfo.pairwise(x, y, **options)
        report = _matrix_report(matrix, given, time.perf_counter() - begin)
    _say_matrix(report, matrix, say)
    _picture(matrix, given, say)
    return report | ({"plot": given.plot} if given.plot else {})


def _options(given: Namespace) -> Report:
    """Return what `pairwise` and `nearest` are both given."""
    named = {"alpha": given.alpha, "weights": given.weights, "base": given.base}
    return {
        "measure": given.measure,
        "normalize": not given.no_normalize,
        "progress": _shows_bars(not given.json),
        **{name: value for name, value in named.items() if value is not None},
    }


def _shape(x: np.ndarray, y: np.ndarray | None) -> tuple[int, int]:
    for name, array in (("x", x), ("y", y)):
        if array is not None and array.ndim != 2:
            raise ValueError(f"{name} must have two dimensions, got shape {array.shape}")
    return len(x), len(x if y is None else y)


def _result(x: np.ndarray, y: np.ndarray | None) -> str:
    """Return the dtype of the result."""
    results = [arrays.read(name, v).result for name, v in (("x", x), ("y", y)) if v is not None]
    return arrays.computed_in(*results)


def _must_fit(x: np.ndarray, y: np.ndarray | None) -> None:
    """ValueError for a matrix that memory would not hold."""
    size, memory = math.prod(_shape(x, y)) * np.dtype(_result(x, y)).itemsize, memory_bytes()
    if memory and size > memory // 2:
        raise ValueError(
            f"the matrix of {quantity(size, 'B')} must fit into half of the memory of "
            f"{quantity(memory, 'B')}, or go to a file: --out D.npy"
        )


def _matrix_report(matrix: np.ndarray, given: Namespace, seconds: float) -> Report:
    """Return figures of a matrix, without its diagonal where that is of rows with themselves."""
    n, m = matrix.shape
    count, total, low, high = 0, 0.0, math.inf, -math.inf
    rows = max(1, PIECE // max(1, matrix[:1].nbytes))
    for lo in range(0, n, rows):
        band = matrix[lo : lo + rows].astype(np.float64)
        if given.y is None:
            at = np.arange(len(band))
            band[at, lo + at] = np.nan
        known = band[~np.isnan(band)]
        if known.size:
            count, total = count + known.size, total + float(known.sum())
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    pairs = n * m if given.y is not None else n * (m - 1)
    return {
        "measure": given.measure,
        "rows": n,
        "columns": m,
        "dtype": str(matrix.dtype),
        "lowest": low if count else math.nan,
        "mean": total / count if count else math.nan,
        "highest": high if count else math.nan,
        "nan": pairs - count,
        "seconds": seconds,
        "pairs_per_second": n * m / seconds,
    }


def _say_matrix(report: Report, matrix: np.ndarray, say: Say) -> None:
    n, m = matrix.shape
    say(f"{report['measure']}: {n} x {m}, {report['dtype']}")
    if n <= SHOWN and m <= SHOWN:
        for row in matrix:
            say("  ".join(f"{v:8.5f}" for v in row))
    say(f"{'lowest':<16}{report['lowest']:.6g}")
    say(f"{'mean':<16}{report['mean']:.6g}")
    say(f"{'highest':<16}{report['highest']:.6g}")
    if report["nan"]:
        say(f"{'NaN':<16}{report['nan']} pairs")
    say(
        f"{'computed in':<16}{quantity(report['seconds'], 's')}, "
        f"{quantity(report['pairs_per_second'], ' pairs/s')}{_compiled(report)}"
    )
    if "out" in report:
        say(f"{'written':<16}{report['out']}")


def _picture(matrix: np.ndarray, given: Namespace, say: Say) -> None:
    if given.plot:
        symmetric = given.y is None and pictures.is_symmetric(matrix)
        with files.whole(given.plot) as partial:
            pictures.heat_map(matrix, partial, given.measure, symmetric)
        say(f"{'drawn':<16}{given.plot}")


# --- neighbours ----------------------------------------------------------------------------------


def nearest(given: Namespace, say: Say) -> Report:
    """Find the nearest rows of each row."""
    if given.out is not None:
        files.check(given.out, given.x, given.y, suffix=".npz")
    x, y = files.load(given.x, given.dtype), given.y and files.load(given.y, given.dtype)
    begin = time.perf_counter()
    distances, indices = fastinfo.nearest(x, y, given.k, **_options(given))
    seconds = time.perf_counter() - begin
    report: Report = {
        "measure": given.measure,
        "rows": len(x),
        "k": given.k,
        "mean_nearest": float(np.nanmean(distances[:, 0])) if (indices >= 0).any() else math.nan,
        "seconds": seconds,
        "rows_per_second": len(x) / seconds,
    }
    say(f"{given.measure}: the {given.k} nearest of {len(x)} rows")
    for i, (near, at) in enumerate(zip(distances[:SHOWN], indices[:SHOWN], strict=True)):
        say(f"{i:>8}: " + ", ".join(f"{j} ({d:.5g})" for j, d in zip(at, near, strict=True)))
    if len(x) > SHOWN:
        say(f"{'...':>8}")
    say(
        f"{'found in':<16}{quantity(seconds, 's')}, "
        f"{quantity(report['rows_per_second'], ' rows/s')}{_compiled(report)}"
    )
    if given.out:
        with files.whole(given.out) as partial, open(partial, "wb") as file:
            np.savez(file, distances=distances, indices=indices)
        report["out"] = given.out
        say(f"{'written':<16}{given.out}")
    if given.json and not given.out:
        report |= {"distances": distances.tolist(), "indices": indices.tolist()}
    return report


def _compiled(report: Report) -> str:
    """Say what seconds are spent on where there are few: the kernels of a first call."""
    return "; a first call compiles" if report["seconds"] < COMPILATION else ""


# --- bars ----------------------------------------------------------------------------------------


def _shows_bars(wanted: bool) -> bool:
    """Whether there is a bar to show: on a terminal, if tqdm is installed."""
    import importlib.util
    import sys

    return wanted and sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None


def _bar(wanted: bool, total: int) -> Any:
    from fastinfo.matrices import reporter

    return reporter(_shows_bars(wanted), total)
