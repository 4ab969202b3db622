"""What needs a process of its own: import time, first loss, and the extra memory of a call."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import memory

ROOT = Path(__file__).resolve().parents[1]

IMPORT = """
import time
import numpy
start = time.perf_counter()
import fastinfo
print(time.perf_counter() - start)
"""

FIRST_LOSS = """
import time
start = time.perf_counter()
import fastinfo
import numpy
logits = numpy.zeros((4, 1000), numpy.float32)
fastinfo.softmax_cross_entropy(logits, numpy.array([0, 1, 2, 3]))
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Figure:
    """A single measured number."""

    name: str
    value: float
    unit: str
    note: str = ""


def _python(*arguments: str, cache: str | None = None) -> str:
    """Run a new interpreter in the checkout; `cache` is the folder of its compiled kernels."""
    environment = os.environ | ({"FASTINFO_CACHE_DIR": cache} if cache else {})
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:60]} failed:\n{done.stderr}")
    return done.stdout


def _seconds(code: str, repeats: int, cache: str | None = None) -> float:
    return statistics.median(float(_python("-c", code, cache=cache)) for _ in range(repeats))


def start(repeats: int) -> list[Figure]:
    """Import time and the first loss of a new process, with and without compiled kernels."""
    _python("-c", IMPORT)
    importing = _seconds(IMPORT, repeats)
    with tempfile.TemporaryDirectory() as folder:
        _python("-c", FIRST_LOSS, cache=f"{folder}/warm")
        warm = _seconds(FIRST_LOSS, repeats, cache=f"{folder}/warm")
        cold = statistics.median(
            _seconds(FIRST_LOSS, 1, cache=f"{folder}/{run}") for run in range(repeats)
        )
    note = "a new process, NumPy's import counted"
    return [
        Figure("import fastinfo, beyond import numpy", importing, "s"),
        Figure("first loss, kernels compiled before", warm, "s", note),
        Figure("first loss, never compiled before", cold, "s", note),
    ]


def extra_memory(names: Iterable[str], rows: int = 1024) -> list[Figure]:
    """Extra memory, as a share of the logits or the matrix; gradients asked for are not counted."""
    if not memory.RESET_PEAK.exists():
        print("skipped: extra memory: the system does not tell the peak of a process")
        return []
    figures = []
    for name in names:
        found = json.loads(_python("-m", "benchmarks.memory", name, str(rows)))
        note = f"{found['extra'] / 2**20:.1f} MiB beside {found['logits'] / 2**20:.0f} MiB"
        figures.append(Figure(name, found["extra"] / found["logits"], "of the logits", note))
    return with_largest(figures)


def with_largest(figures: Sequence[Figure]) -> list[Figure]:
    """Add the largest share of the losses that read logits in memory."""
    shares = [figure.value for figure in figures if figure.name in memory.CASES]
    return [*figures, Figure("largest extra memory of a loss", max(shares), "of the logits")]
