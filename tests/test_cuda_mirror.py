"""`fastinfo/cuda` mirrors `fastinfo/cpu`: the same host functions, their arguments in one order."""

import ast
from pathlib import Path

import pytest

import fastinfo

ROOT = Path(fastinfo.__file__).parent
# The only import of numba.cuda, what threads of a block do together, the door to products, and the
# arrays (of which `fastinfo/arrays.py` is the other side), and kernels, which loop as their device
# does.
ALONE = {"__init__", "seam", "reduce", "side_by_side", "products"}
HOSTS = sorted(
    path.stem
    for path in (ROOT / "cuda").glob("*.py")
    if path.stem not in ALONE and not path.stem.endswith("kernels")
)


def functions(path):
    """Public functions of a module with the names of their parameters."""
    return {
        node.name: [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def other_side(name):
    return ROOT / "arrays.py" if name == "arrays" else ROOT / "cpu" / f"{name}.py"


@pytest.mark.parametrize("name", HOSTS)
def test_shared_functions_take_the_same(name):
    assert other_side(name).exists()
    ours, theirs = functions(ROOT / "cuda" / f"{name}.py"), functions(other_side(name))
    shared = ours.keys() & theirs.keys()
    assert shared
    assert {f: ours[f] for f in shared} == {f: theirs[f] for f in shared}


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "cuda").glob("*_kernels.py")))
def test_kernels_have_a_twin(name):
    # sums of rows, and what stands between products, are NumPy's on the processor
    if name not in ("reduction_kernels", "linear_kernels"):
        assert (ROOT / "cpu" / f"{name}.py").exists()
