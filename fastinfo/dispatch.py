"""Where a computation runs: one table from the kind of device to the folder of its kernels."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

HOMES = {"cpu": "fastinfo.cpu", "cuda": "fastinfo.cuda"}


@cache
def home(family: str, device: str) -> Any:
    """Return the module that computes `family` ("rows", "pairs", ...) on a device, as "cuda:0"."""
    return import_module(f"{HOMES[device.partition(':')[0]]}.{family}")
