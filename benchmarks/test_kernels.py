"""The kernels through pytest-benchmark: ``pytest benchmarks``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import kernels, reference, shapes
from fastinfo.bench import Case

PLAN = kernels.make_plan()
CASES = [
    pytest.param(name, case, id=f"{name}: {case.name}")
    for name, section in kernels.SECTIONS.items()
    for case in section.cases(PLAN)
]


@pytest.fixture(scope="module")
def at_hand() -> Iterator[list[str]]:
    """The section whose data are held; they are let go of before the next one's are made."""
    yield []
    shapes.forget()
    reference.forget()


@pytest.mark.parametrize(("section", "case"), CASES)
def test_kernel(benchmark: Any, at_hand: list[str], section: str, case: Case) -> None:
    """Time one case; its group is its section."""
    if section not in at_hand:
        shapes.forget()
        reference.forget()
        at_hand[:] = [section]
    benchmark.group = section
    benchmark.extra_info["bytes or bins"] = case.work
    if case.error:
        benchmark.extra_info["error"] = case.error(case.call())
    benchmark.pedantic(case.call, setup=case.before, rounds=5, warmup_rounds=1)
