"""Arrays in files: read through the memory map, written under their name only when whole."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np

# What 16-bit words may be.
WORDS = ("bfloat16", "float16")


def load(path: str, dtype: str | None = None) -> np.ndarray:
    """Return the array of a .npy file as it lies there, or one of a .npz file, FILE.npz:NAME.

    With `dtype` 16-bit words are read as such floats.
    """
    file, _, member = path.partition(".npz:")
    array = _member(f"{file}.npz", member) if member else _whole(path)
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and dtype is None:
        raise ValueError(f"{path} holds 16-bit words: say what they are, --dtype bfloat16")
    return array if dtype is None else _words_as(array, dtype, path)


# What NumPy raises for files that are not what their names say, or are damaged.
BROKEN = (ValueError, EOFError, OverflowError, pickle.UnpicklingError, BadZipFile, zlib.error)


def _read(npz: Any, name: str, path: str) -> np.ndarray:
    """Return an array of an open .npz file."""
    try:
        found = npz[name]
    except BROKEN:
        found = None
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} must hold arrays of numbers, and {name!r} is none")
    return found


def _whole(path: str) -> np.ndarray:
    Path(path).stat()  # a missing file is told as such
    try:
        if path.endswith(".npz") and not is_zipfile(path):
            raise BadZipFile  # NumPy would leave the file open
        with np.errstate(all="ignore"):  # of the product of a damaged shape
            found = np.load(path, mmap_mode="r")
    except BROKEN:
        raise ValueError(f"{path} must be a .npy or .npz file of numbers, and whole") from None
    if isinstance(found, np.ndarray):
        return found
    with found:
        names = found.files
        if {"indices", "indptr", "format"} <= set(names):
            raise ValueError(f"{path} holds a sparse matrix: commands take dense rows")
        if len(names) != 1:
            raise ValueError(
                f"{path} must hold one array, got {', '.join(names)}: pass {path}:NAME"
                if names
                else f"{path} must hold an array, got none"
            )
        return _read(found, names[0], path)


def _member(path: str, name: str) -> np.ndarray:
    Path(path).stat()
    if not is_zipfile(path):
        raise ValueError(f"{path} must be a .npz file, as {name!r} of it is asked for")
    with np.load(path) as found:
        if name not in found.files:
            raise ValueError(f"{path} holds no array {name!r}, but {', '.join(found.files)}")
        return _read(found, name, path)


def _words_as(array: np.ndarray, dtype: str, path: str) -> np.ndarray:
    if array.dtype.name == dtype:
        return array
    if array.dtype.itemsize != 2 or array.dtype.kind not in "uiV":
        raise ValueError(f"{path} must hold 16-bit words to be {dtype}, got dtype {array.dtype}")
    if dtype == "float16":
        return array.view(np.float16)
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise ImportError(
            'bfloat16 in files needs ml_dtypes: pip install "fastinfo[cli]"'
        ) from None
    return array.view(bfloat16)


def check(path: str | Path, *others: str | None, suffix: str = "") -> Path:
    """Return where a file is to be written.

    ValueError for what is no file there can be, or is one of `others`; OSError if the folder cannot
    be written to.
    """
    try:
        final = Path(path).resolve()
        right = final.parent.is_dir() and (final.is_file() or not final.exists())
    except (OSError, RuntimeError):  # a loop of links
        right = False
    if not right or not str(path):
        raise ValueError(f"{path or repr('')} must be a file in a folder that exists")
    if not str(path).endswith(suffix):
        raise ValueError(f"{path} must end in {suffix}, which it is written as")
    for other in others:
        if other and Path(_file_of(other)).resolve() == final:
            raise ValueError(f"{path} must be a file of its own, got that of {other}")
    try:
        tempfile.TemporaryFile(dir=final.parent).close()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from None
    return final


def _file_of(path: str) -> str:
    """Return the file of FILE.npz:NAME."""
    file, _, member = path.partition(".npz:")
    return f"{file}.npz" if member else path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to, which becomes `path` at the end, or is removed."""
    final = check(path)
    # the suffix stays: libraries choose the format by it
    partial = final.with_name(f".{final.stem[:40]}.{os.getpid()}.partial{final.suffix}")
    try:
        yield partial
        if final.exists():
            shutil.copymode(final, partial)
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def _reserve(partial: Path) -> None:
    """Take the space of a file now: a mapped one on a full disk would end the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(partial, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise


@contextmanager
def new_array(path: str, shape: tuple[int, ...], dtype: str) -> Iterator[np.ndarray]:
    """Yield the memory of a new .npy file, which has its name once all is written."""
    with whole(path) as partial:
        try:
            made = np.lib.format.open_memmap(partial, "w+", np.dtype(dtype), shape)
            _reserve(partial)
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror}") from None
        yield made
        made.flush()
