"""The only file that configures Numba: decorators, fast-math flags, compile cache, threads.

No kernel is compiled at import. A kernel is made by a factory on first use, has one specialisation,
runs serially without the GIL over a half-open range of rows, and is spread over threads by `run`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache, partial, wraps
from pathlib import Path
from queue import SimpleQueue
from types import FunctionType
from typing import Any

import llvmlite
import numba
from numba.core import config, dispatcher, serialize
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

# Sums may be reordered (that is what vectorises them); NaN and infinities keep their meaning.
SUM = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})
# Polynomials: `reassoc` would undo the rounding by a magic number (error 0.34 instead of 1e-7).
EXACT = frozenset({"contract"})

# Kernels own no memory. Counting references to what they are given takes 14 atomic operations a row
# of logits, each of which waits for all stores before it: a third of the time of a row of 1000.
UNCOUNTED: dict[str, Any] = {"_nrt": False}

# Characters of the name of a folder of compiled kernels, and days unused after which it goes.
FINGERPRINT = 16
UNUSED_DAYS = 60
# A slip of the hand could otherwise fill the process with threads.
MOST_THREADS = 1024


# --- decorators ----------------------------------------------------------------------------------


class HelperLibrary(JITCodeLibrary):
    """A helper as LLVM has it: machine code is made of the kernels it is put into, nowhere else.

    Numba optimises and translates each function for itself, and all it calls with it, once more for
    each caller: a fifth of the time that a kernel takes to compile (a first loss 2.9 s, now 2.4).
    """

    @property
    def codegen(self) -> HelperLibrary:
        """What holds a function's environment, of which a helper has none."""
        return self

    def set_env(self, name: str, environment: object) -> None:
        """Keep no environment: only what raises errors needs one."""

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0, "not there", as for any function without a wrapper for Python."""
        self._ensure_finalized()
        return 0

    def _optimize_final_module(self) -> None:
        """Leave it to the kernel."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class HelperCompiler(Compiler):
    """Numba's compiler, with a library that makes no machine code."""

    def __init__(self, typing: Any, target: Any, library: object, *rest: Any) -> None:
        super().__init__(typing, target, HelperLibrary(target.codegen(), "helper"), *rest)


def helper(
    function: Callable[..., Any] | None = None, *, flags: frozenset[str] = EXACT,
    inline: bool = True,
) -> Any:  # fmt: skip
    """Decorate a function of kernels that keeps its own fast-math flags, and is inlined there.

    It cannot be called from Python: without that wrapper it compiles in half the time.
    """
    if function is None:
        return partial(helper, flags=flags, inline=inline)
    without = UNCOUNTED | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiled = numba.njit(
        fastmath=set(flags), error_model="numpy", forceinline=inline,
        pipeline_class=HelperCompiler, **without,
    )  # fmt: skip
    return compiled(named_apart(function))


def named_apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function a name of its own in machine code.

    Numba numbers functions anew in each process, so that two variants that were compiled by two
    processes can have one name; loaded from the cache together, the second would be the first.
    """
    function.__qualname__ = f"{function.__qualname__}_{uuid.uuid4().hex}"
    return function


def kernel(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a factory of kernels: what it returns is compiled, once for the same arguments.

    Its file in the cache of compiled kernels is named after the factory and all its arguments, so
    that no two kernels share one.
    """

    @cache
    @wraps(factory)
    def make(*given: Any) -> Any:
        compile_ = numba.njit(fastmath=set(EXACT), error_model="numpy", nogil=True, **UNCOUNTED)
        compiled = compile_(named_apart(factory(*given)))
        directory = cache_directory()
        if directory is not None and isinstance(compiled, dispatcher.Dispatcher):
            compiled._cache = KernelCache(  # type: ignore[attr-defined]
                directory, name_of_kernel(factory, given)
            )
        return compiled

    return make


def name_of_kernel(factory: Callable[..., Any], given: tuple[Any, ...]) -> str:
    """Return a name that no other kernel has."""
    module = factory.__module__.removeprefix("fastinfo.")
    return "-".join([module, factory.__name__, *map(name_of, given)])


def name_of(value: Any) -> str:
    """Name an argument of a factory by all that it is made of."""
    if value is None or isinstance(value, str | bool | int | float):
        return str(value)
    if is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in fields(value))
    if isinstance(value, tuple):
        return f"({'-'.join(map(name_of, value))})"
    name: str = getattr(value, "name", None) or value.__qualname__
    if "<" in name:
        raise TypeError(f"two functions can be called {name}: no name of a kernel")
    return name


def formula(function: Callable[..., Any], mathematics: object = None) -> Any:
    """Compile a plain function of `formulas.py`, its `log`, `exp`, ... taken from `mathematics`."""
    scope = dict(function.__globals__)
    for name in function.__code__.co_names:
        if hasattr(mathematics, name):
            scope[name] = getattr(mathematics, name)
        elif isinstance(scope.get(name), FunctionType):
            scope[name] = formula(scope[name], mathematics)
    return helper(FunctionType(function.__code__, scope, function.__name__))


# --- cache of compiled kernels -------------------------------------------------------------------


@cache
def cache_directory() -> Path | None:
    """Folder of the compiled kernels of this version, on this processor; None if it is off."""
    if os.environ.get("FASTINFO_CACHE", "1") == "0" or config.DISABLE_JIT:
        return None
    base = os.environ.get("FASTINFO_CACHE_DIR") or _user_cache()
    folder = Path(base) / _fingerprint()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.utime(folder)
    except OSError:
        return None
    _forget_old(folder)
    return folder


def _forget_old(folder: Path) -> None:
    """Remove the folders of other versions that no process has used for a while."""
    for other in folder.parent.glob("[0-9a-f]" * FINGERPRINT):
        try:
            if time.time() - other.stat().st_mtime > UNUSED_DAYS * 86400:
                shutil.rmtree(other)
        except OSError:
            continue


def _user_cache() -> Path:
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fastinfo"


def _fingerprint() -> str:
    """Hash of all that machine code depends on; Numba's own stamp sees one source file only."""
    codegen = cpu_target.target_context.codegen()
    versions = (sys.version, numba.__version__, llvmlite.__version__, codegen.magic_tuple())
    digest = hashlib.sha256(repr(versions).encode())
    here = Path(__file__).parent
    sources = [here / "engine.py", here / "formulas.py", here / "catalogue.py"]
    for source in [*sources, *sorted(here.glob("cpu/*.py"))]:
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:FINGERPRINT]


class KernelCache:
    """What Numba asks of a cache: one file a kernel and signature, written atomically."""

    def __init__(self, directory: Path, name: str) -> None:
        self.cache_path = str(directory)
        self.name = name

    def _file(self, signature: object) -> Path:
        digest = hashlib.sha256(f"{self.name}{signature}".encode()).hexdigest()[:16]
        return Path(self.cache_path) / f"{self.name[:80]}-{digest}"

    def load_overload(self, signature: object, target: Any) -> Any:
        """Return the compiled kernel, or None if it must be compiled."""
        try:
            payload = pickle.loads(self._file(signature).read_bytes())
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        target.refresh()
        return CompileResult._rebuild(target, *payload)

    def save_overload(self, signature: object, result: Any) -> None:
        """Write a compiled kernel; a failure to write is no failure of the call."""
        target, written = self._file(signature), None
        try:
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as written:
                written.write(serialize.dumps(result._reduce()))
            os.replace(written.name, target)
        except OSError:
            if written is not None:
                with suppress(OSError):
                    os.unlink(written.name)

    def flush(self) -> None:
        """Nothing is held back."""


# --- threads -------------------------------------------------------------------------------------


class Call:
    """What several threads do together, and how many have begun it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work
        self.lock = threading.Lock()
        self.begun, self.closed = 0, False
        self.outcomes: SimpleQueue[BaseException | None] = SimpleQueue()

    def join_in(self) -> None:
        """Work, unless the caller is done."""
        with self.lock:
            if self.closed:
                return
            self.begun += 1
        try:
            self.work()
        except BaseException as failure:
            self.outcomes.put(failure)
        else:
            self.outcomes.put(None)

    def close(self) -> list[BaseException]:
        """Let nobody begin any more, wait for those who have, and return their exceptions."""
        with self.lock:
            self.closed = True
        outcomes = [self.outcomes.get() for _ in range(self.begun)]
        return [failure for failure in outcomes if failure is not None]


class Helpers:
    """The threads beside the caller's, kept off the processor the caller runs on.

    Linux may wake a thread on the processor of the one that wakes it, where it waits until that is
    done, milliseconds long: half of all calls of a millisecond then took as long as with one thread
    (a row of 16M bfloat16 classes 1.6 ms instead of 0.95).
    """

    def __init__(self) -> None:
        self.calls: SimpleQueue[Call] = SimpleQueue()
        self.threads: list[int] = []
        self.placed: tuple[int, int] | None = None
        self.count = 0

    def grow(self, count: int) -> None:
        """Have at least so many threads."""
        while self.count < count:
            self.count += 1
            name = f"fastinfo_{self.count}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        _worker.inside = True
        self.threads.append(threading.get_native_id())
        while True:
            self.calls.get().join_in()

    def make_way(self) -> None:
        """Let the threads run anywhere but here."""
        if _processor is None:
            return
        here = (_processor(), len(self.threads))
        if here != self.placed:
            self.placed = here
            elsewhere = os.sched_getaffinity(0) - {here[0]}
            for thread in self.threads if elsewhere else ():
                with suppress(OSError):
                    os.sched_setaffinity(thread, elsewhere)


def _processor_number() -> Callable[[], int] | None:
    """Return what tells the number of the processor the calling thread is on, if there is any."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.CDLL(None), "sched_getcpu", None)


_processor = _processor_number()
_lock = threading.Lock()
_threads: int | None = None
_helpers = Helpers()
_worker = threading.local()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """Return the number of threads that fastinfo computes with.

    The default is ``FASTINFO_NUM_THREADS``, else the number of cores this process may use.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If ``FASTINFO_NUM_THREADS`` is no integer from 1 to 1024.

    Examples
    --------
    >>> import fastinfo
    >>> fastinfo.get_num_threads() >= 1
    True
    """
    if _threads is not None:
        return _threads
    given = os.environ.get("FASTINFO_NUM_THREADS", "")
    if not given:
        return _cores()
    if not given.isdigit() or not 1 <= int(given) <= MOST_THREADS:
        raise ValueError(
            f"FASTINFO_NUM_THREADS must be a positive integer, got {given!r}: "
            f"at most {MOST_THREADS} threads"
        )
    return int(given)


def set_num_threads(n: int) -> None:
    """Set the number of threads that fastinfo computes with, for the whole process.

    Results do not depend on it, to the last bit.

    Parameters
    ----------
    n : int
        From 1 to 1024.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or out of range.

    Examples
    --------
    >>> import fastinfo
    >>> before = fastinfo.get_num_threads()
    >>> fastinfo.set_num_threads(1)
    >>> fastinfo.get_num_threads()
    1
    >>> fastinfo.set_num_threads(before)
    """
    global _threads
    try:
        n = n.__index__()
    except AttributeError:
        raise TypeError(f"n must be an integer, got {type(n).__name__}") from None
    if not 1 <= n <= MOST_THREADS:
        raise ValueError(f"n must be in [1, {MOST_THREADS}], got {n}")
    _threads = n


def _helped(count: int) -> Helpers:
    """Return the helpers, at least so many."""
    with _lock:
        _helpers.grow(count)
    return _helpers


def _after_fork() -> None:
    """Threads do not survive a fork; the locks were held by the parent's fork itself."""
    global _lock, _helpers
    _lock, _helpers = threading.Lock(), Helpers()
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork,
    )


def run(task: Callable[[int, int], None], n: int, step: int, most: int = 0) -> None:
    """Call ``task(lo, hi)`` over [0, n) in pieces, on all threads, the caller's first.

    A piece is `step` long; with `most`, half of what is a thread's share of what is left, down to a
    quarter of a step: few pieces that end together. Threads take the next piece when they are done
    with one; what is computed must not depend on who computes it. To wake a thread takes 50 us, a
    kernel's launch 0.5 us: what is no more than a step runs in the calling thread. Ctrl-C reaches
    that between two pieces.
    """
    if n <= step:
        if n:
            task(0, n)
        return
    threads = 1 if getattr(_worker, "inside", False) else get_num_threads()
    workers = max(1, min(threads, -(-n // step)))
    least = max(1, step // 4) if most else step
    begin, lock, failed = 0, threading.Lock(), False

    def take() -> tuple[int, int]:
        nonlocal begin
        with lock:
            lo = begin
            share = (n - lo) // (2 * workers) if workers > 1 else n
            length = max(least, min(most, share))
            begin = min(lo + length, n)
            return lo, begin

    def work() -> None:
        nonlocal failed
        try:
            lo, hi = take()
            while lo < hi and not failed:
                task(lo, hi)
                lo, hi = take()
        except BaseException:
            failed = True
            raise

    if workers == 1:
        work()
        return
    helpers, call = _helped(workers - 1), Call(work)
    helpers.make_way()
    try:
        for _ in range(workers - 1):
            helpers.calls.put(call)
        work()
    finally:
        failures = call.close()
    for failure in failures:
        raise failure
