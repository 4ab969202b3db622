"""Arrays in files: read through the memory map, written under their name only when whole."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
    return array if dtype is None else _words_as(array, dtype, path)


def _whole(path: str) -> np.ndarray:
    Path(path).stat()  # a missing file is told as such
    try:
        if path.endswith(".npz") and not is_zipfile(path):
            raise BadZipFile  # NumPy would leave the file open
        found = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, pickle.UnpicklingError, BadZipFile):
        raise ValueError(f"{path} must be a .npy or .npz file of numbers") from None
    if isinstance(found, np.ndarray):
        return found
    with found:
        names = found.files
        if len(names) != 1:
            raise ValueError(
                f"{path} must hold one array, got {', '.join(names)}: pass {path}:NAME"
                if names
                else f"{path} must hold an array, got none"
            )
        return found[names[0]]


def _member(path: str, name: str) -> np.ndarray:
    with np.load(path) as found:
        if name not in found.files:
            raise ValueError(f"{path} holds no array {name!r}, but {', '.join(found.files)}")
        return found[name]


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


def check(path: str | Path, *others: str | None) -> Path:
    """Return where a file is to be written; ValueError for what is none, or is one of `others`."""
    final = Path(path).resolve()
    if not final.parent.is_dir() or (final.exists() and not final.is_file()):
        raise ValueError(f"{path} must be a file in a folder that exists")
    for other in others:
        if other and Path(other.partition(".npz:")[0]).resolve() == final:
            raise ValueError(f"{path} must be a file of its own, got that of {other}")
    return final


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to, which becomes `path` at the end, or is removed."""
    final = check(path)
    # the suffix stays: libraries choose the format by it
    partial = final.with_name(f".{final.stem}.{os.getpid()}.partial{final.suffix}")
    try:
        yield partial
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_array(path: str, shape: tuple[int, ...], dtype: str) -> Iterator[np.ndarray]:
    """Yield the memory of a new .npy file, which has its name once all is written."""
    with whole(path) as partial:
        made = np.lib.format.open_memmap(partial, "w+", np.dtype(dtype), shape)
        yield made
        made.flush()
