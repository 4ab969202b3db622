"""Threads and the cache of compiled kernels."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

import fastinfo
from fastinfo import engine

LOSS = """
import numpy as np, fastinfo
from numba.core import event

class Count(event.Listener):
    n = 0
    def on_start(self, e): self.n += 1
    def on_end(self, e): pass

count = Count()
with event.install_listener("numba:compile", count):
    loss = fastinfo.softmax_cross_entropy(np.zeros((2, 4), np.float32), [0, 1])
print(count.n, float(loss))
"""


def run_python(program, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def threads():
    before = fastinfo.get_num_threads()
    yield fastinfo.set_num_threads
    fastinfo.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("most", [0, 100, 10_000])
def test_run_covers_every_row_once(threads, n, most):
    threads(n)
    seen = np.zeros(1000, int)

    def task(lo, hi):
        seen[lo:hi] += 1

    for _ in range(100):
        engine.run(task, 1000, 7, most)
    assert (seen == 100).all()


@pytest.mark.parametrize("n", [1, 3])
def test_an_error_in_a_thread_reaches_the_caller(threads, n):
    threads(n)

    def task(lo, hi):
        if lo <= 5 < hi:
            raise ZeroDivisionError("row 5")

    with pytest.raises(ZeroDivisionError, match="row 5"):
        engine.run(task, 100, 1)


def test_no_rows_no_call():
    engine.run(lambda lo, hi: pytest.fail("called"), 0, 1)


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (10**5, ValueError), (1.5, TypeError)]
)
def test_number_of_threads_is_checked(n, error):
    with pytest.raises(error, match="n must be"):
        fastinfo.set_num_threads(n)


def test_threads_from_the_environment():
    program = "import fastinfo; print(fastinfo.get_num_threads())"
    assert run_python(program, FASTINFO_NUM_THREADS="3").strip() == "3"
    failed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True,
        env={**os.environ, "FASTINFO_NUM_THREADS": "many"},
    )  # fmt: skip
    assert "FASTINFO_NUM_THREADS must be a positive integer, got 'many'" in failed.stderr


def test_a_second_process_compiles_nothing(tmp_path):
    first = run_python(LOSS, FASTINFO_CACHE_DIR=str(tmp_path)).split()
    second = run_python(LOSS, FASTINFO_CACHE_DIR=str(tmp_path)).split()
    assert int(first[0]) > 0
    assert int(second[0]) == 0
    assert first[1] == second[1] == repr(float(np.float32(np.log(4))))


def test_a_damaged_cache_is_compiled_again(tmp_path):
    run_python(LOSS, FASTINFO_CACHE_DIR=str(tmp_path))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(b"damaged")
    assert int(run_python(LOSS, FASTINFO_CACHE_DIR=str(tmp_path)).split()[0]) > 0


VARIANTS = """
import sys
import ml_dtypes, numpy as np, fastinfo

x = np.arange(8.0)[None]
y, w = np.full((1, 8), 0.125), np.arange(1.0, 9.0) / 8
losses = {
    "plain": lambda: fastinfo.softmax_cross_entropy(x, y),
    "weighted": lambda: fastinfo.softmax_cross_entropy(x, y, class_weight=w),
    "float16": lambda: fastinfo.softmax_cross_entropy(x.astype(np.float16), [3]),
    "bfloat16": lambda: fastinfo.softmax_cross_entropy(x.astype(ml_dtypes.bfloat16), [3]),
}
print([float(losses[name]()) for name in sys.argv[1:]])
"""


@pytest.mark.parametrize("pair", [("plain", "weighted"), ("float16", "bfloat16")])
def test_variants_compiled_by_different_processes_stay_apart(tmp_path, pair):
    def losses(*names):
        printed = run_python(VARIANTS, *names, FASTINFO_CACHE_DIR=str(tmp_path))
        return printed.strip("[]\n").split(", ")

    alone = [losses(name)[0] for name in pair]
    assert losses(*pair) == alone
    assert losses(*pair[::-1]) == alone[::-1]


LONG = """
import sys
import numpy as np, fastinfo
x = np.zeros((1, (1 << 20) + 1), np.float32)
functions = {
    "softmax": lambda: fastinfo.softmax(x)[0, 0],
    "entropy": lambda: fastinfo.softmax_entropy(x).sum(),
}
print(*(float(functions[name]()) for name in sys.argv[1:]))
"""


def test_what_is_asked_of_long_rows_is_not_read_from_what_was_compiled_before(tmp_path):
    def figures(*names):
        return [
            float(v) for v in run_python(LONG, *names, FASTINFO_CACHE_DIR=str(tmp_path)).split()
        ]

    size = (1 << 20) + 1
    expected = [pytest.approx(1 / size), pytest.approx(np.log(size), rel=1e-6)]
    assert figures("softmax", "entropy") == expected
    assert figures("entropy") == expected[1:]


def test_kernels_are_named_by_all_that_they_are_made_of():
    from fastinfo.catalogue import MEASURES
    from fastinfo.cpu import pair_kernels

    sums = [measure.total for measure in MEASURES.values()]
    names = {engine.name_of_kernel(pair_kernels.values, (total, "float32")) for total in sums}
    assert len(names) == len(set(sums))
    for one, other in (((1, 2), (1, 3)), (("", "a"), ("a", "")), ((None,), (0.5,))):
        assert engine.name_of_kernel(len, one) != engine.name_of_kernel(len, other)
    with pytest.raises(TypeError, match="no name of a kernel"):
        engine.name_of(lambda p: p)


def test_folders_of_other_versions_go_when_long_unused(tmp_path):
    for name, days in (("0123456789abcdef", 100), ("fedcba9876543210", 10), ("notes", 1000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel").write_text("")
        used = time.time() - days * 86400
        os.utime(tmp_path / name, (used, used))
    run_python(LOSS, FASTINFO_CACHE_DIR=str(tmp_path))
    left = {folder.name for folder in tmp_path.iterdir()}
    assert {"fedcba9876543210", "notes"} < left and "0123456789abcdef" not in left


def test_the_cache_can_be_off(tmp_path):
    run_python(LOSS, FASTINFO_CACHE_DIR=str(tmp_path), FASTINFO_CACHE="0")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_turns_the_cache_off(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run_python(LOSS, FASTINFO_CACHE_DIR=str(blocked)).split()[1]


def test_the_key_of_the_cache_knows_every_source(monkeypatch, tmp_path):
    before = engine._fingerprint()
    copy = tmp_path / "fastinfo"
    import shutil

    shutil.copytree(engine.Path(engine.__file__).parent, copy)
    monkeypatch.setattr(engine, "__file__", str(copy / "engine.py"))
    assert engine._fingerprint() == before
    with (copy / "formulas.py").open("a") as file:
        file.write("# changed\n")
    assert engine._fingerprint() != before


def test_one_specialisation_a_kernel(rng):
    from fastinfo.cpu import row_kernels

    x = rng.standard_normal((3, 50)).astype(np.float32)
    read_only = x.copy()
    read_only.flags.writeable = False
    for logits in (x, read_only, x[:, ::2], np.asfortranarray(x), x[::-1]):
        fastinfo.softmax_cross_entropy(logits, [0, 1, 2])
        fastinfo.softmax_statistics(logits, [0, 1, 2])
    variant = ("float32", "", "none", "float32")
    for kernel in (
        row_kernels.losses(*variant),
        row_kernels.states(*variant, True, True, False, False),
    ):
        assert len(kernel.signatures) == 1
