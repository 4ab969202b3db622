"""What kernels compile to here: ``python -m benchmarks.cpu_code "fastinfo.pairwise(p)"``.

Prints, of each kernel that the call compiles, the instructions of its longest loop of vectors. The
expression may use fastinfo, np, and in float32 logits x (4, 3000) of targets y, and distributions p
(8, 512).
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

LABEL = re.compile(r"\.?L\w+:")
JUMP = re.compile(r"(j\w+|b\.?\w*|cbn?z)\s+(?:\w+,\s*)?(\.?L\w+)")
VECTOR = re.compile(r"%?[yz]mm\d|v\d+\.\d")


def assembly(call: Callable[[], Any]) -> dict[str, str]:
    """Return the assembly of the kernels that a call compiles, by their names.

    Nothing comes from the cache, of which Numba keeps no assembly, and nothing goes there. Kernels
    that this process has made before are not made again.
    """
    os.environ["FASTINFO_CACHE"] = "0"
    from fastinfo import engine

    made: dict[str, Any] = {}
    decorate = engine.kernel

    def remember(factory: Any) -> Any:
        make = decorate(factory)

        def make_and_note(*given: Any) -> Any:
            compiled = made[engine.name_of_kernel(factory, given)] = make(*given)
            return compiled

        return make_and_note

    with mock.patch.object(engine, "kernel", remember):
        call()
    return {name: "\n".join(kernel.inspect_asm().values()) for name, kernel in made.items()}


def loop(text: str) -> str:
    """Return the innermost loop with the most instructions on vectors."""
    lines = [line.split("#")[0].rstrip() for line in text.splitlines()]
    labels = {line.strip(": \t"): at for at, line in enumerate(lines) if LABEL.match(line.strip())}
    loops = []
    for at, line in enumerate(lines):
        jump = JUMP.match(line.strip())
        if jump and labels.get(jump[2], at) < at:
            loops.append(lines[labels[jump[2]] : at + 1])
    inner = [part for part in loops if not any(_inside(other, part) for other in loops)]
    found = max(inner, key=lambda part: sum(map(_on_vectors, part)), default=[])
    return "\n".join(found) if any(map(_on_vectors, found)) else ""


def _inside(one: list[str], other: list[str]) -> bool:
    return len(one) < len(other) and one[0] in other and one[-1] in other


def _on_vectors(line: str) -> bool:
    return VECTOR.search(line) is not None


def main() -> None:
    """Print the loops of a call's kernels."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_code", description=__doc__)
    parser.add_argument("call", help="an expression")
    parser.add_argument("--kernel", default="", help="only kernels whose names hold this")
    parser.add_argument("--whole", action="store_true", help="print all, not only the loop")
    given = parser.parse_args()
    os.environ["FASTINFO_CACHE"] = "0"
    import numpy as np

    import fastinfo

    rng = np.random.default_rng(0)
    names = {
        "fastinfo": fastinfo,
        "np": np,
        "x": rng.standard_normal((4, 3000), np.float32),
        "y": np.arange(4),
        "p": rng.dirichlet(np.ones(512), 8).astype(np.float32),
    }
    for name, text in assembly(lambda: eval(given.call, names)).items():
        if given.kernel in name:
            print(f"\n# {name}\n{text if given.whole else loop(text)}")


if __name__ == "__main__":
    main()
