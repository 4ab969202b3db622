"""The command line: `fastinfo COMMAND`. One row of `COMMANDS` a command, the work is elsewhere.

A command's function takes the parsed arguments, prints lines through `say` and returns a report;
with `--json` the lines are dropped and the report is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

Say = Callable[[str], None]
Report = dict[str, Any]

# A user's mistake or surroundings: told in one line. Anything else is a bug and shows where.
EXPECTED = (ValueError, TypeError, IndexError, OSError, ImportError, MemoryError)


class Command(NamedTuple):
    """One command: its name, a line of help, its own arguments, its function."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Say], Report]


# --- demo ----------------------------------------------------------------------------------------


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fastinfo demo`."""
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="fastinfo-demo",
        help="folder for the files it writes (default: %(default)s)",
    )
    parser.add_argument(
        "--source",
        metavar="DIR",
        help="folder of Python files to read (default: Python's standard library)",
    )
    parser.add_argument("--steps", metavar="N", type=int, help="steps of training (default: 160)")


def run_demo(arguments: argparse.Namespace, say: Say) -> Report:
    """Run the main job on Python's own source files."""
    from fastinfo import demo

    return demo.run(
        arguments.out,
        source=arguments.source,
        steps=arguments.steps,
        say=say,
        progress=not arguments.json,
    )


# --- info ----------------------------------------------------------------------------------------


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> Report:
    """Return the processor as LLVM calls it, and the vectors its instructions work on."""
    import platform

    from llvmlite import binding

    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        vectors = "AVX-512, 512 bits"
    elif features.get("avx2"):
        vectors = "AVX2, 256 bits"
    elif features.get("neon") or platform.machine().lower() in ("arm64", "aarch64"):
        vectors = "NEON, 128 bits"
    else:
        vectors = "128 bits or none"
    return {"processor": binding.get_host_cpu_name(), "vectors": vectors}


def run_info(arguments: argparse.Namespace, say: Say) -> Report:
    """Print what fastinfo runs on."""
    import platform

    import fastinfo
    from fastinfo import engine

    folder = engine.cache_directory()
    report: Report = {
        "fastinfo": fastinfo.__version__,
        "python": platform.python_version(),
        **{package: version_of(package) for package in ("numpy", "numba", "llvmlite")},
        **processor(),
        "threads": fastinfo.get_num_threads(),
        "numba-cuda": version_of("numba-cuda"),
        "cache": folder and str(folder),
        "cached_kernels": sum(1 for _ in folder.iterdir()) if folder else 0,
    }
    absent = {"numba-cuda": "not installed", "cache": "off"}
    for name, value in report.items():
        say(f"{name.replace('_', ' '):<16}{absent.get(name, '-') if value is None else value}")
    return report


COMMANDS = (
    Command("demo", "the main job on Python's own source files", demo_arguments, run_demo),
    Command("info", "versions, threads, vector width, cache", no_arguments, run_info),
)


# --- the whole -----------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="fastinfo", description="Information quantities over very large arrays.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print one JSON object")
        subparser.set_defaults(run=command.run)
    return parser


def drop(line: str) -> None:
    """Print nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 2 after an error, 130 after Ctrl-C."""
    arguments = make_parser().parse_args(argv)
    say = drop if arguments.json else partial(print, flush=True)
    try:
        report = arguments.run(arguments, say)
        if arguments.json:
            print(json.dumps(report), flush=True)
    except KeyboardInterrupt:
        print("fastinfo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has left (`| head`); Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except EXPECTED as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"fastinfo: error: {message}", file=sys.stderr)
        return 2
    return 0
