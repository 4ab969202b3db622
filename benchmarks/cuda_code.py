"""What CUDA kernels compile to: PTX, and machine code as ptxas and nvdisasm tell; needs no GPU."""

import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

LABEL = re.compile(r"(\.L_x_\d+|\.text\.\S+):")
# Before the opcode a predicate may stand.
INSTRUCTION = re.compile(r"/\*[0-9a-f]+\*/\s+(@!?\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
TARGET = re.compile(r"\.L_x_\d+")
WIDTH = re.compile(r"[US]?(8|16|32|64|128|256)")


class Tools(NamedTuple):
    """Paths of the assembler and the disassembler."""

    ptxas: str
    nvdisasm: str


@functools.cache
def tools() -> Tools | None:
    """Return where the tools are, None if one is missing."""
    ptxas, nvdisasm = _find("ptxas"), _find("nvdisasm")
    return Tools(ptxas, nvdisasm) if ptxas and nvdisasm else None


def _find(name: str) -> str | None:
    # A wheel before PATH: it is as new as the compiler of the wheels, whose PTX it must read.
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob(f"*/bin/{name}")):
            return str(path)
    return shutil.which(name)


def missing() -> str | None:
    """Return why kernels cannot be compiled in this process, None if they can."""
    if not importlib.util.find_spec("numba_cuda"):
        return "numba-cuda is not installed"
    if not tools():
        return "ptxas or nvdisasm is missing: pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm"
    from numba.core import config

    simulated = config.ENABLE_CUDASIM  # type: ignore[attr-defined]
    return "NUMBA_ENABLE_CUDASIM is set" if simulated else None


@dataclass(frozen=True)
class Code:
    """A compiled kernel; `stack`, `spills` (stored and loaded) and `shared` are in bytes."""

    ptx: str
    sass: str
    registers: int
    stack: int
    spills: int
    shared: int

    @property
    def doubles(self) -> list[str]:
        """Instructions of PTX on float64."""
        return [line for line in _statements(self.ptx) if ".f64" in line]

    @property
    def local(self) -> list[str]:
        """Instructions of PTX and of machine code on local memory."""
        ptx = [line for line in _statements(self.ptx) if re.search(r"\b(ld|st)\.local\b", line)]
        return ptx + [line for line in _texts(self.sass) if re.match(r"(LDL|STL)\b", line)]

    @property
    def loads(self) -> Counter[int]:
        """How many loads from global memory there are of each width in bits."""
        return widths("LDG", _texts(self.sass))

    @property
    def stores(self) -> Counter[int]:
        """How many stores to global memory there are of each width in bits."""
        return widths("STG", _texts(self.sass))

    @property
    def mufu(self) -> Counter[str]:
        """How many instructions of the special function unit there are of each function."""
        return functions(_texts(self.sass))

    def main_loop(self) -> list[str]:
        """Return the innermost loop that loads most, by fewest loads, without predicates."""
        texts = _texts(self.sass)
        bodies = [[texts[i] for i in sorted(loop)] for loop in _innermost(self.sass)]
        return max(bodies, key=lambda body: _burden(widths("LDG", body)), default=[])

    def main_loop_loads(self) -> Counter[int]:
        """Return how many loads from global memory of each width the main loop has."""
        return widths("LDG", self.main_loop())

    def main_loop_mufu(self) -> Counter[str]:
        """Return how many special functions of each kind the main loop has."""
        return functions(self.main_loop())


def widths(opcode: str, instructions: list[str]) -> Counter[int]:
    """Return how many of LDG or STG there are of each width in bits."""
    found: Counter[int] = Counter()
    for line in instructions:
        first, *modifiers = line.split()[0].split(".")
        if first == opcode:
            sizes = [int(size[1]) for m in modifiers if (size := WIDTH.fullmatch(m))]
            found[sizes[0] if sizes else 32] += 1
    return found


def functions(instructions: list[str]) -> Counter[str]:
    """Return how many MUFU there are of each function."""
    codes = (line.split()[0].split(".") for line in instructions)
    return Counter(code[1] for code in codes if code[0] == "MUFU")


def _burden(loads: Counter[int]) -> tuple[int, int]:
    # The scalar loop for what is left over is unrolled: it may load as much as the wide one.
    return sum(width * n for width, n in loads.items()), -loads.total()


def _statements(ptx: str) -> list[str]:
    """Instructions of PTX, without directives and comments."""
    lines = (line.partition("//")[0].strip() for line in ptx.splitlines())
    return [line for line in lines if line.endswith(";") and not line.startswith(".")]


# --- loops ---------------------------------------------------------------------------------------


def _instructions(sass: str) -> list[tuple[str, str, str]]:
    """Predicate, opcode and operands of each instruction."""
    return [(m[1] or "", m[2], m[3]) for m in INSTRUCTION.finditer(sass)]


def _texts(sass: str) -> list[str]:
    return [f"{opcode} {operands}".strip() for _, opcode, operands in _instructions(sass)]


def _labels(sass: str) -> dict[str, int]:
    """Number of the first instruction after each label."""
    labels, count = {}, 0
    for line in sass.splitlines():
        if m := LABEL.fullmatch(line.strip()):
            labels[m[1]] = count
        count += bool(INSTRUCTION.search(line))
    return labels


def _successors(sass: str) -> list[list[int]]:
    """Numbers of the instructions that may follow each; a call returns."""
    labels, code = _labels(sass), _instructions(sass)
    after = []
    for i, (predicate, opcode, operands) in enumerate(code):
        name, targets = opcode.split(".")[0], []
        if name in ("BRA", "BRX", "JMP", "JMX"):
            targets = [labels[label] for label in TARGET.findall(operands)]
        # A condition may also stand before the target: BRA.U UP0, `(.L_x_1).
        jumps = name in ("EXIT", "RET", "BRX", "JMX") or (
            name == "BRA" and operands.startswith("`")
        )
        if i + 1 < len(code) and not (jumps and not predicate):
            targets.append(i + 1)
        after.append(targets)
    return after


def _reached(begin: set[int], after: list[list[int]], without: int) -> set[int]:
    """What can be reached from `begin` on roads that do not lead through one instruction."""
    found: set[int] = set()
    left = list(begin - {without})
    while left:
        i = left.pop()
        if i not in found:
            found.add(i)
            left += [j for j in after[i] if j != without]
    return found


def _innermost(sass: str) -> list[set[int]]:
    """Loops that hold no other: instructions that lead back to a header all roads lead through.

    Text from a label to the jump back is no loop: slow roads lie at the end and jump back too.
    """
    after = _successors(sass)
    before: list[list[int]] = [[] for _ in after]
    for i, targets in enumerate(after):
        for j in targets:
            before[j].append(i)
    entries = {i for label, i in _labels(sass).items() if label.startswith(".text.")}
    reachable = _reached(entries, after, -1)
    loops: dict[int, set[int]] = {}
    for header in reachable.intersection(_labels(sass).values()):
        back = reachable.intersection(before[header]) - _reached(entries, after, header)
        if back:
            loops[header] = {header} | (_reached(back, before, header) & reachable)
    return [
        body
        for header, body in loops.items()
        if not any(other in body for other in loops if other != header)
    ]


# --- compilation ---------------------------------------------------------------------------------


@functools.cache
def compiled(function: Callable, signature: Any, arch: str = "sm_90") -> Code:
    """Return what a kernel is for argument types and an architecture; it may be decorated."""
    from numba import cuda

    python = getattr(function, "py_func", function)
    cc = divmod(int(arch.removeprefix("sm_")), 10)
    # Functions that kernels call are compiled for the device there is: here there is none.
    device = SimpleNamespace(compute_capability=cc)
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
        ptx, _ = cuda.compile(python, signature, device=False, abi="numba", output="ptx", cc=cc)
    return assembled(ptx, arch)


def assembled(ptx: str, arch: str) -> Code:
    """Return what the PTX of a kernel is on an architecture."""
    found = tools()
    assert found
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        said = _run(found.ptxas, f"-arch={arch}", "-v", str(source), "-o", str(binary))
        sass = _run(found.nvdisasm, "-c", str(binary))
    return Code(
        ptx,
        sass,
        registers=max(_numbers(r"Used (\d+) registers", said)),
        stack=sum(_numbers(r"(\d+) bytes stack frame", said)),
        spills=sum(_numbers(r"(\d+) bytes spill", said)),
        shared=sum(_numbers(r"(\d+) bytes smem", said)),
    )


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _numbers(pattern: str, text: str) -> list[int]:
    return [int(n) for n in re.findall(pattern, text)]
