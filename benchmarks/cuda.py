"""Times on a CUDA device: ``python -m benchmarks --device cuda``.

Calls of a section are timed in alternation by the device's own events, on PyTorch's stream.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import importlib.util
import math
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import report
from benchmarks.goals import Goal
from benchmarks.processes import Figure
from fastinfo.bench import Case, measure, rows_table, version

if TYPE_CHECKING:
    from benchmarks.cuda_cases import Plan

# Seconds of calls in a sample; rounds, in full and quick; seconds a call may take of all rounds.
SAMPLE, ROUNDS, QUICK_ROUNDS, BUDGET = 0.02, 21, 5, 8.0
# What is asked of nvidia-smi, by the names that facts have.
ASKED = {
    "driver": "driver_version",
    "highest clock": "clocks.max.sm",
    "highest clock of memory": "clocks.max.memory",
    "power limit": "power.limit",
}
# Calls that are issued without waiting: few enough for their launches to queue.
ISSUED = 50

TITLES = {
    "ceilings": "Ceilings: 2 GiB, products of 8192 x 1024 x 8192",
    "bfloat16": "Losses of 8192 x 131072 bfloat16",
    "float32": "Losses of 4096 x 131072 float32",
    "js": "Jensen-Shannon, 8192 x 8192 x 256",
    "kl": "Kullback-Leibler, 8192 x 8192 x 1024",
    "linear": "Linear cross-entropy, 8192 x 4096 x 131072",
    "memory": "Extra memory",
    "host": "Host time of a call, without waiting for its kernels",
}

# What can be measured alone; memory is of whatever is measured.
NAMES = tuple(name for name in TITLES if name != "memory")

LINEAR = "linear_cross_entropy + gradients, bfloat16"
GOALS = (
    *(
        Goal(f"loss, {dtype}, against the best reading", dtype, f"loss, {dtype}", "read", 0.90)
        for dtype in ("bfloat16", "float32")
    ),
    *(
        Goal(
            f"loss + gradient, {dtype}, against a copy",
            dtype, f"loss + gradient, {dtype}", "copy", bound,
        )
        for dtype, bound in (("bfloat16", 0.85), ("float32", 0.75))
    ),
    *(
        Goal(
            f"loss + gradient, {dtype}, against {peer}",
            dtype, f"loss + gradient, {dtype}", f"{peer} loss + gradient, {dtype}", 1.0,
        )
        for dtype in ("bfloat16", "float32")
        for peer in ("torch.compile", "Liger-Kernel")
    ),
    Goal("JS, bins against logarithms", "js", "js_divergence, float32", "log2", 0.7),
    Goal("KL, against the bare product", "kl", "kl_divergence, float32", "product", 0.8),
    Goal(f"{LINEAR}, against three products", "linear", LINEAR, "product", 0.8),
    Goal(f"extra memory of {LINEAR} (MiB)", "memory", LINEAR, bound=512),
    Goal("host time of a small loss (s)", "host", "loss of 8 x 1000", bound=60e-6),
)  # fmt: skip


# --- the device ----------------------------------------------------------------------------------


def why_not() -> str | None:
    """Return why nothing can be measured here, None if it can."""
    for module, package in (("torch", "torch"), ("numba_cuda", "numba-cuda")):
        if importlib.util.find_spec(module) is None:
            return f"benchmarks on a CUDA device need {package}, which is not installed"
    import torch

    if not torch.cuda.is_available():
        return "benchmarks on a CUDA device need one, and torch sees none"
    return None


def facts() -> dict[str, Any]:
    """Return the device, its driver, and versions: what a reader needs to judge a figure."""
    import torch

    from benchmarks.cuda_peers import PEERS

    device = torch.cuda.get_device_properties("cuda")
    versions = {name: version(name) for name in ("fastinfo", "numpy", "numba", "numba-cuda")}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "GPU": device.name,
        "multiprocessors": device.multi_processor_count,
        "compute capability": f"{device.major}.{device.minor}",
        "memory": device.total_memory,
        **_told(str(getattr(device, "uuid", ""))),
        "CUDA of torch": torch.version.cuda,
        "python": platform.python_version(),
        "versions": versions | {label: _installed(module) for module, label in PEERS.items()},
    }


def _told(uuid: str) -> dict[str, str]:
    """Return what nvidia-smi tells of a device, by the names that facts have."""
    if not shutil.which("nvidia-smi"):
        return dict.fromkeys(ASKED, "unknown")
    query = ["nvidia-smi", f"--query-gpu={','.join(ASKED.values())}", "--format=csv,noheader"]
    done = subprocess.run([*query, f"--id=GPU-{uuid}"], capture_output=True, text=True)
    found = done.stdout.strip().split(", ") if done.returncode == 0 else []
    return dict(zip(ASKED, found, strict=True)) if found else dict.fromkeys(ASKED, "unknown")


def _installed(module: str) -> str | None:
    """Version of a package by the module that is imported, whatever it is distributed as."""
    if importlib.util.find_spec(module) is None:
        return None
    found = importlib.metadata.packages_distributions().get(module)
    return version(found[0]) if found else "unknown"


def seconds(call: Callable[[], object], before: Callable[[], object] | None = None) -> float:
    """Mean over at least `SAMPLE` seconds of calls, between two events of the stream."""
    import torch

    count = 1
    while True:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        taken = start.elapsed_time(end) / 1e3
        if taken >= SAMPLE or count >= 4096:
            return taken / count
        count *= min(64, max(2, math.ceil(1.2 * SAMPLE / max(taken, 1e-6))))


def extra_memory(call: Callable[[], object]) -> int:
    """Return the most bytes that a call holds beside what there was before, its results among."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def host_time(call: Callable[[], object]) -> float:
    """Return the seconds in which the processor issues a call, the median of some rounds."""
    import torch

    call()
    samples = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(ISSUED):
            call()
        samples.append((time.perf_counter() - start) / ISSUED)
    torch.cuda.synchronize()
    return statistics.median(samples)


# --- a run ---------------------------------------------------------------------------------------


def run(plan: Plan, rounds: int, about: dict[str, Any], names: Sequence[str] = NAMES) -> report.Run:
    """Measure the named sections, printing each as it is done; what fails is said and left out."""
    from benchmarks import cuda_cases, cuda_peers

    done, memory = report.Run(about, TITLES, goals=GOALS), list[Figure]()
    for name in (name for name in cuda_cases.SECTIONS if name in names):
        peers = cuda_peers.SECTIONS.get(name, lambda plan: iter(()))
        ready = list(_ready([*cuda_cases.SECTIONS[name](plan), *peers(plan)], memory))
        times = functools.partial(measure, ready, rounds, BUDGET, pause=0, clock=seconds)
        if (rows := _tried(TITLES[name], times)) is not None:
            done.rows[name] = rows
            print(f"\n## {TITLES[name]}\n\n{rows_table(rows)}", flush=True)
        _forget()
    if memory:
        done.figures["memory"] = memory
    if "host" in names:
        done.figures["host"] = list(_host_times(cuda_cases.small_calls(plan)))
    for name, figures in done.figures.items():
        print(f"\n## {TITLES[name]}\n\n{report.figures_table(figures)}", flush=True)
    return done


def _ready(cases: Iterable[Case], memory: list[Figure]) -> Iterator[Case]:
    """Cases that run, compared with float64 once; what calls and peers take of memory."""
    for case in cases:
        if (found := _tried(case.name, functools.partial(_checked, case))) is None:
            continue
        error, extra = found
        if case.ceiling or case.peer:
            memory.append(Figure(case.name, extra / 2**20, "MiB"))
        yield dataclasses.replace(case, error=case.error and (lambda _, error=error: error))


def _checked(case: Case) -> tuple[float | None, int]:
    """Return the error of the first call, and the extra memory of the second."""
    result = case.call()
    error = case.error(result) if case.error else None
    del result
    return error, extra_memory(case.call)


def _host_times(calls: dict[str, Callable[[], Any]]) -> Iterator[Figure]:
    for name, call in calls.items():
        if (taken := _tried(name, functools.partial(host_time, call))) is not None:
            yield Figure(name, taken, "s")


def _tried(name: str, call: Callable[[], Any]) -> Any:
    """Return what a call gives; where it fails, say so, and return nothing."""
    try:
        return call()
    except Exception as failure:
        reason = (str(failure).splitlines() or [""])[0]
        print(f"failed: {name}: {type(failure).__name__}: {reason}", flush=True)
        return None


def _forget() -> None:
    """Free all data of a section, here and in the allocator."""
    import torch

    from benchmarks import cuda_cases

    cuda_cases.forget()
    torch.cuda.empty_cache()


# --- the report ----------------------------------------------------------------------------------


def text(done: report.Run) -> str:
    """Everything of a run, as it stands in the documentation."""
    parts = [report.machine_table(done), report.reach_table(done.outcomes())]
    for name, title in TITLES.items():
        if name in done.rows:
            parts += [f"### {title}", rows_table(done.rows[name])]
        elif name in done.figures:
            parts += [f"### {title}", report.figures_table(done.figures[name])]
    return "\n\n".join(parts)


def write_docs(done: report.Run, page: Path) -> None:
    """Put a run into the page on performance."""
    filled = report.fill_markers(page.read_text("utf-8"), {"cuda-device": text(done)})
    page.write_text(filled, encoding="utf-8")


def file_name(facts: dict[str, Any], options: argparse.Namespace) -> str:
    """Name results by the device; those that are read keep their name."""
    if options.read:
        return str(options.read.name)
    return report.file_name("cuda", facts["GPU"], *["quick"] * options.quick, *(options.only or ()))


def main(options: argparse.Namespace, root: Path) -> None:
    """Run, or read a run, print, and write what was asked for; exit with 2 without a device."""
    if options.read:
        done = report.read_json(options.read, TITLES, GOALS)
    else:
        if reason := why_not():
            print(reason, file=sys.stderr)
            raise SystemExit(2)
        from benchmarks.cuda_cases import Plan

        rounds = QUICK_ROUNDS if options.quick else ROUNDS
        done = run(Plan(), rounds, facts(), options.only or NAMES)
    for missing in done.missing:
        print(f"skipped: {missing} is not installed")
    print(f"\n## What it must reach\n\n{report.reach_table(done.outcomes())}")
    written = options.out / file_name(done.facts, options)
    report.write_json(done, written)
    if options.write_docs:
        write_docs(done, root / "docs" / "performance.md")
    print(f"\nwrote {written}")
