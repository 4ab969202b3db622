"""Rules for arguments: each check names the argument, the rule, the value and its position."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastinfo.arrays import Source

REDUCTIONS = ("none", "mean", "sum")


def one_of(
    name: str, value: Any, allowed: Iterable[str], elsewhere: Mapping[str, str] | None = None
) -> str:
    """ValueError with the list and the nearest name unless `value` is one of `allowed`.

    `elsewhere` maps names that other libraries use to ours.
    """
    allowed = list(allowed)
    if isinstance(value, str) and value in allowed:
        return value
    known = (elsewhere or {}).get(str(value).lower())
    near = [known] if known else difflib.get_close_matches(str(value), allowed, 1, 0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}{hint}")


def axis_of(axis: Any, ndim: int, array: str) -> int:
    """Return `axis` counted from the front."""
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer, got {type(axis).__name__}") from None
    if ndim == 0:
        raise ValueError(f"{array} must have at least one axis, got a scalar")
    if not -ndim <= index < ndim:
        raise np.exceptions.AxisError(
            f"axis must be in [{-ndim}, {ndim}) for {array} of {ndim} dimensions, got {index}"
        )
    return index % ndim


def integer(name: str, value: Any) -> int:
    """Return an integer argument."""
    try:
        return operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} must be an integer, got {kind} {value!r}"[:200]) from None


def number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, rule: str = ""
) -> float:
    """Return a finite number in [low, high]; `rule` tells what it must be."""
    plain = type(value) in (int, float)
    if not plain and (
        isinstance(value, str | bytes) or np.ndim(value) or not hasattr(value, "__float__")
    ):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    x = _float(value)
    if not (low <= x <= high and math.isfinite(x)):
        raise ValueError(f"{name} must be {rule or 'finite'}, got {value!r}")
    return x


def _float(value: Any) -> float:
    """Return a number as a float, an integer beyond all of them as infinity."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def positive(name: str, value: Any) -> float:
    """Return a positive finite number."""
    return number(name, value, math.nextafter(0.0, 1.0), rule="positive and finite")


RANGE = "positive, at least 2**-100 and at most 2**100"


def temperature_of(value: Any) -> float:
    """Return a temperature in [2**-100, 2**100]: its reciprocal is a normal float32 too."""
    return number("temperature", value, 2.0**-100, 2.0**100, RANGE)


def softcap_of(value: Any, temperature: float) -> float | None:
    """Return a softcap such that 1 / (temperature · softcap) is a normal float32, or None."""
    if value is None:
        return None
    softcap = number("softcap", value, 2.0**-100, 2.0**100, RANGE)
    if not 2.0**-120 <= temperature * softcap <= 2.0**120:
        raise ValueError(
            f"temperature * softcap must be from 2**-120 to 2**120, got {temperature * softcap!r}"
        )
    return softcap


def logarithm_of(base: Any) -> float:
    """Return log(base), 1 for nats."""
    if base is None:
        return 1.0
    if positive("base", base) == 1.0:
        raise ValueError(f"base must be positive and not 1, got {base!r}")
    return math.log(float(base))


def finite_sum(total: float) -> None:
    """ValueError for weights whose sum, which a mean divides by, is beyond float64."""
    if total == math.inf:
        raise ValueError(
            "sample_weight, times the weights of the classes, must have a finite sum for the mean, "
            "got inf"
        )


def some(names: str, shape: tuple[int, ...], axis: int, what: str) -> None:
    """ValueError if there are no classes or bins along `axis`."""
    if shape[axis] == 0:
        raise ValueError(
            f"{names} must have at least one {what} along axis {axis}, got shape {shape}"
        )


def where(index: np.ndarray | tuple[Any, ...], what: str = "row") -> str:
    """Say where: "row 3", or "row (0, 2)"."""
    position = tuple(int(i) for i in index)
    if not position:
        return ""
    return f" at {what} {position[0] if len(position) == 1 else position}"


def refuse(
    name: str,
    rule: str,
    values: np.ndarray,
    bad: np.ndarray,
    error: type[Exception],
    what: str = "row",
) -> None:
    """Raise `error` for the first true entry of `bad`."""
    if bad.any():
        first = np.unravel_index(int(np.argmax(bad)), bad.shape)
        raise error(f"{name} must be {rule}, got {values[first]}{where(first, what)}")


def on_processor(function: str, *sources: Source) -> None:
    """TypeError for arrays on a device, of a function that is computed on the processor only."""
    for source in sources:
        if source.device != "cpu":
            raise TypeError(
                f"{function} is not computed on a CUDA device, got {source.name} on "
                f"{source.device}: copy it to the processor first"
            )


def no_negative(source: Source, lowest: np.ndarray) -> None:
    """ValueError with the position of the first negative entry, if a row's lowest tells of one."""
    if (lowest < 0).any():
        values = source.values()
        refuse(source.name, "at least 0", values, values < 0, ValueError, "position")


def order_of(alpha: Any) -> float:
    """Return the order of a Rényi divergence, which may be infinite."""
    return _at_least_0("alpha", alpha)


def radius_of(radius: Any) -> float:
    """Return a radius, which may be infinite."""
    return _at_least_0("radius", radius)


def _at_least_0(name: str, value: Any) -> float:
    infinite = hasattr(value, "__float__") and not np.ndim(value) and _float(value) == math.inf
    return math.inf if infinite else number(name, value, 0.0, rule="at least 0")


def share_of_first(weights: Any) -> float:
    """Return w1 / (w1 + w2) of a pair of positive weights, or -w2 / (w1 + w2) if w1 is larger."""
    try:
        values = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"weights must be two numbers, got {weights!r}") from None
    if values.shape != (2,):
        raise ValueError(f"weights must be two numbers, got {weights!r}")
    refuse(
        "weights",
        "positive and finite",
        values,
        ~((values > 0) & np.isfinite(values)),
        ValueError,
        "position",
    )
    values = values / values.max()
    first, second = values / values.sum()
    return float(first if first <= second else -second)
