"""The command line: `fastinfo COMMAND`. One row of `COMMANDS` a command, the work is elsewhere.

A command's function takes the parsed arguments, prints lines through `say` and returns a report;
with `--json` the lines are dropped and the report is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, NoReturn

Say = Callable[[str], None]
Report = dict[str, Any]

# A user's mistake or surroundings: told in one line. Anything else is a bug and shows where.
EXPECTED = (
    ValueError, TypeError, IndexError, OverflowError, OSError, ImportError, MemoryError,
    NotImplementedError,
)  # fmt: skip


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


# --- files ---------------------------------------------------------------------------------------


def add_words(parser: argparse.ArgumentParser) -> None:
    """Add what 16-bit words in files are."""
    from fastinfo.files import WORDS

    parser.add_argument("--dtype", choices=WORDS, help="what the 16-bit words of the file are")


def loss_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fastinfo loss`."""
    parser.add_argument("logits", metavar="LOGITS", help=".npy or .npz, shape (..., V)")
    parser.add_argument("targets", metavar="TARGETS", help=".npy or .npz of integers, shape (...)")
    add_words(parser)
    parser.add_argument("--temperature", type=float, default=1.0, help="softmax(logits / this)")
    parser.add_argument("--softcap", type=float, help="logits become this * tanh(logits / this)")
    parser.add_argument(
        "--ignore-index", type=int, default=-100, help="target of rows left out (default: -100)"
    )


def rows_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `pairwise` and `nearest` share."""
    parser.add_argument("x", metavar="X", help=".npy or .npz, a distribution or counts a row")
    parser.add_argument(
        "y", metavar="Y", nargs="?",
        help="the same; if left out X itself, and figures are of rows beside others",
    )  # fmt: skip
    add_words(parser)
    parser.add_argument("--measure", metavar="NAME", default="js_divergence",
                        help="see fastinfo.measures() (default: %(default)s)")  # fmt: skip
    parser.add_argument("--base", type=float, help="base of the logarithm (default: e)")
    parser.add_argument("--alpha", type=float, help="order of renyi_divergence")
    parser.add_argument("--weights", type=float, nargs=2, metavar=("A", "B"),
                        help="of js_divergence")  # fmt: skip
    parser.add_argument("--no-normalize", action="store_true", help="take rows as they are")


def pairwise_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fastinfo pairwise`."""
    rows_arguments(parser)
    parser.add_argument("--out", metavar="D.npy", help="file for the matrix, of any size")
    parser.add_argument(
        "--plot", metavar="D.png",
        help="picture of the matrix, in clusters of rows; grey is infinite or NaN",
    )  # fmt: skip


def nearest_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fastinfo nearest`."""
    rows_arguments(parser)
    parser.add_argument("-k", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--out", metavar="N.npz", help="file for distances and indices")


def run_loss(arguments: argparse.Namespace, say: Say) -> Report:
    """Score logits in a file."""
    from fastinfo import commands

    return commands.loss(arguments, say)


def run_pairwise(arguments: argparse.Namespace, say: Say) -> Report:
    """Compute a matrix of rows in files."""
    from fastinfo import commands

    return commands.pairwise(arguments, say)


def run_nearest(arguments: argparse.Namespace, say: Say) -> Report:
    """Find the nearest of rows in files."""
    from fastinfo import commands

    return commands.nearest(arguments, say)


# --- bench ---------------------------------------------------------------------------------------


def bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fastinfo bench`."""
    parser.add_argument("--quick", action="store_true", help="smaller shapes, fewer rounds")
    parser.add_argument("--plot", metavar="DIR", help="folder for pictures of the rates")


def run_bench(arguments: argparse.Namespace, say: Say) -> Report:
    """Measure this machine."""
    from fastinfo import speed

    return speed.run(arguments.quick, arguments.plot, say)


# --- info ----------------------------------------------------------------------------------------


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


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


def cuda_devices() -> list[str] | None:
    """Return the names of the CUDA devices, None without numba-cuda."""
    from fastinfo.bench import version

    if version("numba-cuda") is None:
        return None
    from fastinfo.cuda import seam

    return seam.devices()


def run_info(arguments: argparse.Namespace, say: Say) -> Report:
    """Print what fastinfo runs on."""
    import platform

    import fastinfo
    from fastinfo import engine
    from fastinfo.bench import version

    folder = engine.cache_directory()
    report: Report = {
        "fastinfo": fastinfo.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "numba", "llvmlite")},
        **processor(),
        "threads": fastinfo.get_num_threads(),
        "numba-cuda": version("numba-cuda"),
        "cuda_devices": cuda_devices(),
        "cache": folder and str(folder),
        "cached_kernels": sum(1 for _ in folder.iterdir()) if folder else 0,
    }
    absent = {"numba-cuda": "not installed", "cuda_devices": "unknown", "cache": "off"}
    for name, value in report.items():
        text = absent.get(name, "-") if value is None else value
        if isinstance(value, list):
            text = ", ".join(value) or "none"
        say(f"{name.replace('_', ' '):<16}{text}")
    return report


COMMANDS = (
    Command("demo", "the main job on Python's own source files", demo_arguments, run_demo),
    Command("loss", "score logits in a file", loss_arguments, run_loss),
    Command("pairwise", "a measure between all pairs of rows", pairwise_arguments, run_pairwise),
    Command("nearest", "the nearest rows of each row", nearest_arguments, run_nearest),
    Command("bench", "this machine's ceilings and our share of them", bench_arguments, run_bench),
    Command("info", "versions, threads, vector width, devices, cache", no_arguments, run_info),
)


# --- the whole -----------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


class Version(argparse.Action):
    """Print the version and end."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        """Read it only now: it imports the package."""
        import fastinfo

        print("fastinfo", fastinfo.__version__, flush=True)
        parser.exit()


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="fastinfo", description="Information quantities over very large arrays.")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(subparser)
        subparser.add_argument(
            "--json", action="store_true",
            help="print one JSON object: null for NaN, \"inf\" and \"-inf\" for infinite figures",
        )  # fmt: skip
        subparser.set_defaults(run=command.run)
    return parser


def drop(line: str) -> None:
    """Print nothing."""


def finite(value: Any) -> Any:
    """Return a report with null for NaN and text for what is infinite: JSON has no such numbers."""
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


@contextmanager
def terminable() -> Iterator[None]:
    """Let signals that end a process unwind the stack, so that half-written files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {
        number: signal.signal(number, end)
        for number in ending
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 2 after an error, 130 after Ctrl-C."""
    try:
        arguments = make_parser().parse_args(argv)
        say = drop if arguments.json else partial(print, flush=True)
        with terminable():
            report = arguments.run(arguments, say)
        if arguments.json:
            print(json.dumps(finite(report), allow_nan=False), flush=True)
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
