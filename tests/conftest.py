"""What every test shares: a seeded generator, the number of threads restored, hypothesis."""

import zlib
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest

import fastinfo

# The same examples on every run, and no time limit on one: a kernel may be compiled in it.
hypothesis.settings.register_profile(
    "fastinfo",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fastinfo")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Return a generator seeded by the name of the test."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of threads after a test that changes it."""
    before = fastinfo.get_num_threads()
    yield
    fastinfo.set_num_threads(before)
