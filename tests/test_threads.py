"""The same bits for any number of threads and whatever other rows hold; threads, fork, spawn."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading

import cases
import numpy as np
import pytest
from accuracy import assert_same_bits
from cases import DISTRIBUTION_CALLS, FLOATS, LOGITS_CALLS

import fastinfo
from fastinfo import engine

COUNTS = [1, 2, 3, 7]


def inputs(rng, name, dtype, n, v):
    """Return the function of that name and two arguments for it."""
    if name in LOGITS_CALLS:
        return LOGITS_CALLS[name], cases.normal_logits(rng, (n, v), dtype), rng.integers(0, v, n)
    p, q = rng.random((2, n, v), np.float32)
    return DISTRIBUTION_CALLS[name], p.astype(dtype), q.astype(dtype)


def with_threads(n, call):
    """Return the result of a call on `n` threads."""
    fastinfo.set_num_threads(n)
    return call()


# Any number of threads ------------------------------------------------------------------------


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS])
@pytest.mark.parametrize(("n", "v"), [(1, 1_000_003), (3, 400_000), (50, 20_001), (40_000, 25)])
def test_rows_by_any_number_of_threads(rng, name, n, v):
    for dtype in (np.float32, cases.BFLOAT16):
        function, x, other = inputs(rng, name, dtype, n, v)
        results = [with_threads(count, lambda: function(x, other)) for count in COUNTS]  # noqa: B023
        for result in results[1:]:
            assert_same_bits(result, results[0])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions_by_any_number_of_threads(rng, reduction):
    x, targets = rng.normal(0, 3, (30_000, 33)).astype(np.float32), rng.integers(0, 33, 30_000)
    weight = rng.random(30_000)

    def call():
        return fastinfo.softmax_cross_entropy(
            x, targets, sample_weight=weight, reduction=reduction, return_grad=True
        )

    results = [with_threads(count, call) for count in COUNTS]
    for result in results[1:]:
        assert_same_bits(result, results[0])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("measure", cases.PAIR_MEASURES)
@pytest.mark.parametrize(("n", "m", "k"), [(150, 0, 300), (130, 90, 257), (2, 3, 40_000)])
def test_matrices_by_any_number_of_threads(rng, measure, n, m, k):
    for dtype in cases.WIDE_FLOATS:
        x, y = (rng.dirichlet(np.ones(k), r).astype(dtype) for r in (n, max(m, 1)))
        x[1] = x[0] * dtype.type(1.0001)
        results = [
            with_threads(count, lambda: fastinfo.pairwise(x, y if m else None, measure))  # noqa: B023
            for count in COUNTS
        ]
        for result in results[1:]:
            assert_same_bits(result, results[0])


def test_the_same_call_gives_the_same_bits(rng):
    x, targets = cases.normal_logits(rng, (200, 3000), np.float32), rng.integers(0, 3000, 200)
    first = fastinfo.softmax_cross_entropy(x, targets, return_grad=True)
    for _ in range(5):
        assert_same_bits(fastinfo.softmax_cross_entropy(x, targets, return_grad=True), first)


# Whatever other rows hold ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LOGITS_CALLS, *DISTRIBUTION_CALLS])
@pytest.mark.parametrize("v", [10, 1000, 70_001])
def test_a_row_alone_and_in_a_batch(rng, name, v):
    for dtype in FLOATS:
        function, x, other = inputs(rng, name, dtype, 9, v)
        whole = function(x, other)
        whole = whole if isinstance(whole, tuple) else (whole,)
        for rows in (slice(0, 1), slice(4, 5), slice(8, 9), slice(2, 7)):
            part = function(x[rows], other[rows])
            part = part if isinstance(part, tuple) else (part,)
            assert_same_bits(part, tuple(field[rows] for field in whole))


# Threads of Python ----------------------------------------------------------------------------


def test_eight_python_threads_at_once(rng):
    """Each with its own arrays, all kinds of calls mixed: the bits of a serial run."""
    x = cases.normal_logits(rng, (64, 5000), np.float32)
    targets = rng.integers(0, 5000, 64)
    p = rng.dirichlet(np.ones(100), 120)

    def work(i):
        logits = np.roll(x, i, axis=0)
        return (
            fastinfo.softmax_cross_entropy(logits, targets, return_grad=True),
            tuple(fastinfo.softmax_statistics(logits, targets)),
            fastinfo.softmax(logits),
            fastinfo.kl_divergence(p, np.roll(p, i, axis=1)),
            fastinfo.pairwise(np.roll(p, i, axis=1), p),
            fastinfo.pairwise(p, np.roll(p, i, axis=1), "kl_divergence"),
        )

    expected = [work(i) for i in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for actual, one in zip(pool.map(work, range(8)), expected, strict=True):
                assert_same_bits(actual, one)


def test_the_number_of_threads_may_change_meanwhile(rng):
    x, targets = cases.normal_logits(rng, (64, 5000), np.float32), rng.integers(0, 5000, 64)
    before = fastinfo.get_num_threads()
    expected = fastinfo.softmax_cross_entropy(x, targets, return_grad=True)

    def work(i):
        fastinfo.set_num_threads(1 + i % 4)
        return fastinfo.softmax_cross_entropy(x, targets, return_grad=True)

    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for actual in pool.map(work, range(40)):
                assert_same_bits(actual, expected)
    finally:
        fastinfo.set_num_threads(before)


# Processes ------------------------------------------------------------------------------------


def run(program, **environment):
    """Run a program in a process of its own; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


FIRST_CALLS = """
    import concurrent.futures, threading
    import numpy as np
    import fastinfo

    x = np.linspace(-3, 3, 200_000, dtype=np.float32).reshape(4, 50_000)
    start = threading.Barrier(8)

    def work(i):
        start.wait()
        loss = fastinfo.softmax_cross_entropy(x, [0, 1, 2, 3], reduction="none")
        return loss.tobytes(), fastinfo.js_divergence(np.exp(x), np.exp(-x)).tobytes()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = set(pool.map(work, range(8)))
    print(len(results))
"""


@pytest.mark.parametrize("cache", ["0", "1"])
def test_first_calls_of_eight_threads_at_once(cache):
    """Kernels are made, or read from the cache, while other threads ask for them."""
    assert run(FIRST_CALLS, FASTINFO_CACHE=cache) == "1\n"


FORK = """
    import os, signal, sys, warnings
    import numpy as np
    import fastinfo

    warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
    fastinfo.set_num_threads(4)
    x = np.linspace(-3, 3, 4_000_000, dtype=np.float32).reshape(40, 100_000)
    p = np.exp(x[:, :900])

    def work():
        loss, grad = fastinfo.softmax_cross_entropy(x, np.arange(40), return_grad=True)
        matrices = [fastinfo.pairwise(p, None, name) for name in ("js_divergence", "kl_divergence")]
        return [a.tobytes() for a in (loss, grad, *matrices)]

    def child(used):
        signal.alarm(120)
        same = work() == used
        os._exit(0 if same else 3)

    if "before" in sys.argv:
        work()
    first = os.fork()
    if first == 0:
        child(work())
    expected = work()
    second = os.fork()
    if second == 0:
        child(expected)
    codes = [os.waitpid(pid, 0)[1] for pid in (first, second)]
    print(codes, work() == expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("when", ["before", "never"])
def test_after_fork(when):
    """A child computes the bits of its parent, whether or not the parent had threads running."""
    program = textwrap.dedent(FORK).replace('"before" in sys.argv', str(when == "before"))
    assert run(program) == "[0, 0] True\n"


def test_under_spawn(rng):
    x, targets = cases.normal_logits(rng, (16, 9000), np.float32), rng.integers(0, 9000, 16)
    p = rng.dirichlet(np.ones(50), 12)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        loss = pool.submit(fastinfo.softmax_cross_entropy, x, targets, return_grad=True)
        statistics = pool.submit(fastinfo.softmax_statistics, x, targets)
        matrix = pool.submit(fastinfo.pairwise, p, measure="kl_divergence")
        assert_same_bits(
            loss.result(300), fastinfo.softmax_cross_entropy(x, targets, return_grad=True)
        )
        assert_same_bits(
            tuple(statistics.result(300)), tuple(fastinfo.softmax_statistics(x, targets))
        )
        assert_same_bits(matrix.result(300), fastinfo.pairwise(p, measure="kl_divergence"))


# Settings -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("threads")
def test_number_of_threads():
    for n in (1, 5, np.int64(2)):
        fastinfo.set_num_threads(n)
        assert fastinfo.get_num_threads() == n
        assert type(fastinfo.get_num_threads()) is int


@pytest.mark.usefixtures("threads")
def test_number_of_threads_holds_in_every_thread():
    fastinfo.set_num_threads(3)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(fastinfo.get_num_threads).result() == 3


def test_number_of_threads_from_the_environment():
    program = "import fastinfo; print(fastinfo.get_num_threads())"
    assert run(program, FASTINFO_NUM_THREADS="3") == "3\n"
    default = run(program, FASTINFO_NUM_THREADS="")
    assert int(default) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("value", ["0", "-2", "many", "1.5"])
def test_bad_numbers_of_threads_in_the_environment(value):
    program = """
        import fastinfo
        try:
            fastinfo.get_num_threads()
        except ValueError as error:
            print(error)
    """
    text = run(program, FASTINFO_NUM_THREADS=value)
    assert "FASTINFO_NUM_THREADS" in text
    assert value in text


def test_default_is_the_number_of_cores_this_process_may_use():
    program = """
        import os
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        import fastinfo
        print(fastinfo.get_num_threads())
    """
    environment = {"FASTINFO_NUM_THREADS": ""}
    if hasattr(os, "sched_setaffinity"):
        assert run(program, **environment) == "1\n"


def test_config_is_restored_by_with():
    """On the CPU every check is made anyway; the setting is accepted and put back."""
    with fastinfo.config(check=True):
        with pytest.raises(IndexError):
            fastinfo.softmax_cross_entropy(np.zeros((1, 3)), [3])
    fastinfo.config(check=False)
    with pytest.raises(IndexError):
        fastinfo.softmax_cross_entropy(np.zeros((1, 3)), [3])


@pytest.mark.skipif(engine._processor is None, reason="only Linux tells where a thread runs")
@pytest.mark.parametrize("cores", [1, 2])
def test_other_threads_keep_off_the_callers_processor(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, moved = min(os.sched_getaffinity(0)), []
    monkeypatch.setattr(engine, "_processor", lambda: here)
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda _: {here, here + 1} if cores > 1 else {here}
    )
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cpus: moved.append((thread, cpus)))
    helpers, begun = engine.Helpers(), threading.Event()
    helpers.grow(1)
    call = engine.Call(begun.set)
    helpers.calls.put(call)
    assert begun.wait(10)
    assert not call.close()
    helpers.make_way()
    helpers.make_way()
    assert moved == [(helpers.threads[0], {1})] * (cores - 1)
