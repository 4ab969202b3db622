"""What a benchmark needs: the machine's ceilings, an interleaved run loop, machine facts, tables.

Works from the installed package; the kernels and peers it is used on live in ``benchmarks/``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# BLAS and OpenMP threads spin for up to 26 ms after their work; the next call must not pay for it.
PAUSE = 0.03
# A pause leaves the processor asleep, and to wake two threads takes 0.3 ms: calls are repeated
# until that is below a hundredth.
SHORT = 0.05


# --------------------------------------------------------------------------------- the run loop


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, a sample a round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile."""
        low, high = np.quantile(self.samples, [0.25, 0.75])
        return float(low), float(high)


# Seconds of a call, and of what runs ahead of it, untimed.
Clock = Callable[[Callable[[], object], Callable[[], object] | None], float]


def interleave(
    calls: Mapping[str, Callable[[], object]],
    repeats: int = 9,
    *,
    before: Mapping[str, Callable[[], object]] | None = None,
    budget: float = math.inf,
    pause: float = PAUSE,
    clock: Clock | None = None,
) -> dict[str, Timing]:
    """Time all `calls` in alternation, so that a drift of the machine meets all of them alike.

    Every other round runs backwards, so that no call always follows the same one. A sample is what
    `clock` says, by default the mean over `SHORT` seconds of calls; the callables in `before` run,
    untimed, ahead of each call of their name. A call that has taken `budget` seconds is left out of
    the rounds that remain. Warm the calls up first.
    """
    seconds = clock or _seconds
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(repeats):
        for name in order:
            if sum(samples[name]) <= budget:
                time.sleep(pause)
                samples[name].append(seconds(calls[name], (before or {}).get(name)))
        order.reverse()
    return {name: Timing(tuple(taken)) for name, taken in samples.items()}


def _seconds(call: Callable[[], object], before: Callable[[], object] | None) -> float:
    """Mean over at least `SHORT` seconds of calls."""
    total, calls = 0.0, 0
    while total < SHORT:
        if before:
            before()
        start = time.perf_counter()
        call()
        total += time.perf_counter() - start
        calls += 1
    return total / calls


def ratio(numerator: Timing, denominator: Timing) -> float:
    """Median of the quotient of two calls, over the rounds that both took part in."""
    rounds = zip(numerator.samples, denominator.samples, strict=False)
    return statistics.median(a / b for a, b in rounds)


# --------------------------------------------------------------------------------- cases and rows


@dataclass(frozen=True)
class Case:
    """One call to time, the work it does, and what it is measured against.

    `work` is in `unit`: bytes moved (B) or bins, both of the whole shape. A call on a part of the
    shape says by `scale` how many of it make up the whole. `ceiling` names the group of cases
    whose fastest is the ceiling; `group` the group a case itself belongs to. `error` takes the
    result of the call and returns its largest error against float64; `recomputed` the share of
    pairs that a product could not give. A `peer` may fail: it is then skipped, and said so.
    """

    name: str
    call: Callable[[], Any]
    work: float
    unit: str = "B"
    ceiling: str = ""
    group: str = ""
    before: Callable[[], object] | None = None
    error: Callable[[Any], float] | None = None
    recomputed: Callable[[Any], float] | None = None
    scale: float = 1.0
    peer: bool = False
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A measured `Case`: seconds for the whole shape, share of the ceiling, largest error."""

    name: str
    timing: Timing
    work: float
    unit: str
    group: str
    ceiling: str
    share: float | None
    error: float | None
    recomputed: float | None
    peer: bool
    note: str

    @property
    def rate(self) -> float:
        """Work a second."""
        return self.work / self.timing.median

    def speed_over(self, other: Row) -> float:
        """How many times the rate of `other`, which was timed in the same rounds."""
        return ratio(other.timing, self.timing) * self.work / other.work


def measure(
    cases: Sequence[Case],
    repeats: int = 9,
    budget: float = math.inf,
    pause: float = PAUSE,
    clock: Clock | None = None,
) -> list[Row]:
    """Warm up, check against float64, and time `cases` in alternation."""
    checked = {case: check for case in cases if (check := _warm_up(case)) is not None}
    timings = interleave(
        {case.name: case.call for case in checked},
        repeats,
        before={case.name: case.before for case in checked if case.before},
        budget=budget,
        pause=pause,
        clock=clock,
    )
    rows = [_row(case, timings[case.name], *check) for case, check in checked.items()]
    return [_with_share(row, rows) for row in rows]


def _warm_up(case: Case) -> tuple[float | None, float | None] | None:
    """Call a case once; return its error and share recomputed, None if a peer fails."""
    try:
        if case.before:
            case.before()
        result = case.call()
        return tuple(f(result) if f else None for f in (case.error, case.recomputed))  # type: ignore[return-value]
    except Exception as failure:
        if not case.peer:
            raise
        reason = (str(failure).splitlines() or [""])[0]
        print(f"skipped: {case.name}: {type(failure).__name__}: {reason}")
        return None


def _row(case: Case, timing: Timing, error: float | None, recomputed: float | None) -> Row:
    return Row(
        name=case.name,
        timing=Timing(tuple(taken * case.scale for taken in timing.samples)),
        work=case.work,
        unit=case.unit,
        group=case.group,
        ceiling=case.ceiling,
        share=None,
        error=error,
        recomputed=recomputed,
        peer=case.peer,
        note=case.note,
    )


def _with_share(row: Row, rows: Iterable[Row]) -> Row:
    ceiling = fastest(rows, row.ceiling) if row.ceiling else None
    return dataclasses.replace(row, share=row.speed_over(ceiling)) if ceiling else row


def fastest(rows: Iterable[Row], name: str) -> Row | None:
    """Return the row of that name, or the fastest row of the group of that name."""
    named = (row for row in rows if name in (row.name, row.group))
    return max(named, key=lambda row: row.rate, default=None)


# --------------------------------------------------------------------------------- ceilings


class Workers:
    """Threads that each take one piece of some arrays."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def run(self, kernel: Callable[..., Any], *arrays: np.ndarray) -> list[Any]:
        """Split the arrays into a piece a thread, run `kernel` on each, return the results."""
        pieces = (np.array_split(array.reshape(-1), self.threads) for array in arrays)
        return list(self._pool.map(kernel, *pieces))


@functools.cache
def _plain_loops() -> dict[str, Callable[..., Any]]:
    """Return the plain loops; the compiler unrolls the sums to several vector accumulators."""
    import numba

    fast = numba.njit(nogil=True, fastmath=True)

    @fast
    def add(x):  # type: ignore[no-untyped-def]
        total = x.dtype.type(0)
        for i in range(x.size):
            total += x[i]
        return total

    @fast
    def add_in_four(x):  # type: ignore[no-untyped-def]
        quarter = x.size // 4
        a = b = c = d = x.dtype.type(0)
        for i in range(quarter):
            a += x[i]
            b += x[i + quarter]
            c += x[i + 2 * quarter]
            d += x[i + 3 * quarter]
        for i in range(4 * quarter, x.size):
            a += x[i]
        return a + b + c + d

    @fast
    def copy(source, target):  # type: ignore[no-untyped-def]
        for i in range(source.size):
            target[i] = source[i]

    return {
        "numpy.sum": np.sum,
        "compiled sum": add,
        "compiled sum, four streams": add_in_four,
        "numpy.copyto": lambda source, target: np.copyto(target, source),
        "compiled copy": copy,
    }


def _plain_case(
    loop: str, group: str, work: int, workers: Workers, *arrays: Callable[[], np.ndarray]
) -> Case:
    def call() -> list[Any]:
        return workers.run(_plain_loops()[loop], *(array() for array in arrays))

    return Case(f"{loop}, {group.split(maxsplit=1)[1]}", call, work, group=group)


def read_cases(
    name: str, array: Callable[[], np.ndarray], n_bytes: int, workers: Workers
) -> list[Case]:
    """Plain sums of `array()`, whose fastest is the ceiling of reading: the group ``read NAME``."""
    loops = ("numpy.sum", "compiled sum", "compiled sum, four streams")
    return [_plain_case(loop, f"read {name}", n_bytes, workers, array) for loop in loops]


def copy_cases(
    name: str,
    source: Callable[[], np.ndarray],
    target: Callable[[], np.ndarray],
    n_bytes: int,
    workers: Workers,
) -> list[Case]:
    """Return copies of `source()`, whose fastest is the ceiling of copying: group ``copy NAME``.

    Bytes read and bytes written are counted.
    """
    loops = ("numpy.copyto", "compiled copy")
    return [
        _plain_case(loop, f"copy {name}", 2 * n_bytes, workers, source, target) for loop in loops
    ]


def _product_case(size: int, dtype: str) -> Case:
    """Return `numpy.matmul` of square matrices; a bin is a multiplication and an addition."""
    x = functools.cache(lambda: np.ones((size, size), dtype))
    out = functools.cache(lambda: np.empty((size, size), dtype))
    return Case(
        f"numpy.matmul, {dtype}",
        lambda: np.matmul(x(), x(), out=out()),
        work=size**3,
        unit="bin",
        group=f"product {dtype}",
    )


def ceiling_cases(workers: Workers, n_bytes: int, size: int = 2048) -> list[Case]:
    """Return reading, copying and products of this machine."""
    source = functools.cache(lambda: np.ones(n_bytes // 4, np.float32))
    target = functools.cache(lambda: np.zeros(n_bytes // 4, np.float32))
    return [
        *read_cases("float32", source, n_bytes, workers),
        *copy_cases("float32", source, target, n_bytes, workers),
        _product_case(size, "float32"),
        _product_case(size, "float64"),
    ]


def ceiling_bytes() -> int:
    """Return eight times the last-level cache, at least 256 MiB, at most a sixteenth of memory."""
    wanted = max(8 * max(caches().values(), default=0), 256 << 20)
    memory = memory_bytes()
    return min(wanted, memory // 16) if memory else wanted


# --------------------------------------------------------------------------------- machine facts


def caches() -> dict[str, int]:
    """Bytes of the data caches of the first core (L1, L2, ...), where the system tells them."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        size = (index / "size").read_text().strip()
        if kind != "Instruction":
            sizes[f"L{(index / 'level').read_text().strip()}"] = int(size[:-1]) * units[size[-1]]
    return sizes


def memory_bytes() -> int:
    """Bytes of main memory, 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def peak_memory() -> int | None:
    """Most bytes of main memory this process has held, None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"model name\s*: (.*)", text)
    return found[1] if found else platform.processor() or platform.machine()


def _vector_features() -> list[str]:
    import llvmlite.binding as llvm

    wanted = re.compile(r"avx|fma$|f16c$|neon$|sve|asimd")
    return sorted(
        name for name, on in llvm.get_host_cpu_features().items() if on and wanted.match(name)
    )


def machine_facts(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Processor, caches, memory and versions: what a reader needs to judge a figure."""
    import llvmlite.binding as llvm

    import fastinfo

    versions = {name: version(name) for name in ("numpy", "numba", *packages)}
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": _processor(),
        "architecture": llvm.get_host_cpu_name(),
        "features": _vector_features(),
        "cores": os.cpu_count(),
        "threads": fastinfo.get_num_threads(),
        "caches": caches(),
        "memory": memory_bytes(),
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": f"{blas['name']} {blas['version']}",
        "versions": {"fastinfo": fastinfo.__version__} | versions,
    }


def version(package: str) -> str | None:
    """Return the installed version of a package, None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# --------------------------------------------------------------------------------- reports


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, the first column left and the others right aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def quantity(value: float, unit: str) -> str:
    """Three digits with a prefix: ``quantity(4.7e10, "B/s")`` is ``47.0 GB/s``.

    Words, which begin with a space, are counted: there is no thousandth of one.
    """
    if not np.isfinite(value) or value == 0:
        return f"{value:g} {unit.lstrip()}"
    power = int(np.floor(np.log10(abs(value)) / 3))
    power = min(max(power, 0 if unit.startswith(" ") else -3), 4)
    prefix = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}[power]
    return f"{value / 1000.0**power:.3g} {(prefix + unit).lstrip()}"


def rate_of(row: Row) -> str:
    """Return work a second as text."""
    return quantity(row.rate, f"{row.unit}/s" if row.unit == "B" else f" {row.unit}s/s")


def optional(value: float | None, spec: str) -> str:
    """Return a number as text, nothing for None."""
    return "" if value is None else format(value, spec)


def rows_table(rows: Sequence[Row]) -> str:
    """Tabulate a section: time with its quartiles, rate, share of the ceiling, error, remarks."""
    recomputed = any(row.recomputed is not None for row in rows)
    header = ["call", "median", "quartiles", "rounds", "rate", "of its ceiling", "largest error"]
    header += ["pairs recomputed"] * recomputed + ["remarks"]

    def cells(row: Row) -> Iterator[str]:
        low, high = row.timing.quartiles
        yield row.name
        yield quantity(row.timing.median, "s")
        yield f"{quantity(low, 's')} to {quantity(high, 's')}"
        yield str(len(row.timing.samples))
        yield rate_of(row)
        yield optional(row.share, ".2f")
        yield optional(row.error, ".1e")
        if recomputed:
            yield optional(row.recomputed, ".2%")
        yield row.note

    return markdown_table(header, [list(cells(row)) for row in rows])
