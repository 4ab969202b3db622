"""Run the benchmarks: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import (
    columns,
    cuda,
    kernels,
    linear,
    memory,
    peers,
    processes,
    reference,
    report,
    shapes,
)
from fastinfo.bench import machine_facts, measure

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Effort:
    """How long a run takes: sections; rounds, and seconds a call; processes started; probes."""

    sections: tuple[str, ...]
    repeats: int
    budget: float
    starts: int
    memory_cases: int


MAIN = ("ceilings", "loss", "thousand", "one-row", "pairs", "products")
FULL = Effort(tuple(kernels.SECTIONS), 15, 8.0, 7, len(memory.NAMES))
QUICK = Effort(MAIN, 5, 1.0, 2, 3)

FIGURES: dict[str, Callable[[Effort], list[processes.Figure]]] = {
    "start": lambda effort: processes.start(effort.starts),
    "memory": lambda effort: processes.extra_memory(memory.NAMES[: effort.memory_cases]),
}

# What --only can name, by device.
NAMES = {"cpu": (*kernels.SECTIONS, *FIGURES), "cuda": cuda.NAMES}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="what to measure")
    parser.add_argument("--quick", action="store_true", help="the main shapes, fewer repeats")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="; ".join(f"a section of {device}: {', '.join(of)}" for device, of in NAMES.items())
        + "; may be repeated",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="write the tables into README.md and the pages of docs/, and plots to docs/images",
    )
    parser.add_argument(
        "--read", type=Path, metavar="JSON", help="measure nothing: read the results of a run"
    )
    options = parser.parse_args(arguments)
    for name in options.only or ():
        if name not in (known := NAMES[options.device]):
            parser.error(f"no section {name!r} of {options.device}: there are {', '.join(known)}")
    return options


def run(names: Sequence[str], plan: kernels.Plan, effort: Effort) -> report.Run:
    """Measure the named sections, printing each as it is done."""
    facts = machine_facts(list(peers.PEERS.values())) | {"load": _load()}
    done = report.Run(facts, {})
    for name in names:
        if name in FIGURES:
            done.figures[name] = FIGURES[name](effort)
            print(f"\n## {name}\n\n{report.figures_table(done.figures[name])}", flush=True)
            continue
        section = kernels.SECTIONS[name]
        done.titles[name] = section.heading(plan)
        cases = [*section.cases(plan), *_peers(name, plan)]
        done.rows[name] = measure(cases, effort.repeats, effort.budget)
        print(f"\n## {done.titles[name]}\n\n{report.rows_table(done.rows[name])}", flush=True)
        shapes.forget()
        linear.forget()
        columns.forget()
        reference.forget()
    return done


def _peers(name: str, plan: kernels.Plan) -> Sequence[Any]:
    return list(peers.SECTIONS[name](plan)) if name in peers.SECTIONS else []


def _load() -> str:
    """Return the load of the machine before the run: what the figures had to share it with."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def file_name(facts: dict[str, Any], quick: bool, only: Sequence[str] | None) -> str:
    """Name results by processor and threads."""
    parts = [facts["processor"], facts["architecture"], f"{facts['threads']} threads"]
    return report.file_name(*parts, *["quick"] * quick, *(only or ()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, and write what was asked for."""
    options = parse(arguments)
    if options.device == "cuda":
        cuda.main(options, ROOT)
        return
    effort = QUICK if options.quick else FULL
    plan = kernels.make_plan()
    if options.read:
        titles = {name: section.heading(plan) for name, section in kernels.SECTIONS.items()}
        done = report.read_json(options.read, titles)
    else:
        done = run(options.only or [*effort.sections, *FIGURES], plan, effort)
    for missing in done.missing:
        print(f"skipped: {missing} is not installed")
    print(f"\n## What it must reach\n\n{report.reach_table(done.outcomes())}")
    path = options.out / file_name(done.facts, options.quick, options.only)
    report.write_json(done, path)
    written = [path]
    if options.write_docs:
        written += report.write_docs(done, ROOT)
        written += report.plot(done, ROOT / "docs" / "images")
    print("\nwrote " + ", ".join(map(str, written)))


if __name__ == "__main__":
    main()
