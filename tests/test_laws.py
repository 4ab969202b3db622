"""Laws of the measures, drawn from the catalogue, and of the softmax functions."""

import dataclasses
import functools

import cases
import numpy as np
import oracles
import pytest
from accuracy import assert_close_loss, assert_same_bits
from hypothesis import given as drawn
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastinfo

ROWS = {row.name: row for row in fastinfo.measures()}
ORDERS = {f"renyi_divergence, {alpha:g}": alpha for alpha in cases.ORDERS}
MEASURES = {name: row for name, row in ROWS.items() if name != "renyi_divergence"} | {
    label: ROWS["renyi_divergence"].at(alpha) for label, alpha in ORDERS.items()
}
DIVERGENCES = [name for name in MEASURES if name != "cross_entropy"]

finite = st.floats(-50, 50, width=32)
counts = hnp.arrays(np.float64, st.tuples(st.just(3), st.integers(1, 12)), elements=st.one_of(
    st.just(0.0), st.floats(1e-30, 100), st.integers(0, 5).map(float),
)).filter(lambda x: bool((x.sum(-1) > 0).all()))  # fmt: skip


@st.composite
def rows_of_logits(draw):
    v = draw(st.integers(1, 40))
    return draw(hnp.arrays(np.float64, (3, v), elements=finite))


def given(name):
    """Return the parameters of a measure."""
    return {"alpha": ORDERS[name]} if name in ORDERS else {}


def measure(name):
    """Return the function of rows of that name."""
    return functools.partial(getattr(fastinfo, MEASURES[name].name), **given(name))


def pairwise(x, y, name):
    """Return the matrix of that name."""
    return fastinfo.pairwise(x, y, MEASURES[name].name, **given(name))


def exact_of(name, p, q):
    """Return the measure by its definition."""
    return oracles.MEASURES[MEASURES[name].name](p, q, **given(name))


def test_catalogue():
    """One frozen row a measure, in the words of the contract."""
    rows = fastinfo.measures()
    assert isinstance(rows, tuple)
    assert set(ROWS) >= set(cases.PAIR_MEASURES)
    assert len(ROWS) == len(rows)
    for row in rows:
        assert dataclasses.is_dataclass(row)
        with pytest.raises(dataclasses.FrozenInstanceError):
            row.name = "other"
    assert {row.name for row in rows if row.symmetric} >= set(cases.SYMMETRIC)
    assert {row.name for row in rows if row.metric} == {
        "js_distance",
        "total_variation",
        "hellinger_distance",
    }
    assert {row.name for row in rows if row.has_base} >= set(cases.WITH_BASE)
    assert not ROWS["total_variation"].has_base
    assert not ROWS["hellinger_distance"].has_base
    assert "alpha" in ROWS["renyi_divergence"].parameters
    assert "weights" in ROWS["js_divergence"].parameters
    bounds = {row.name: row.upper_bound for row in rows}
    assert bounds["js_divergence"] == pytest.approx(np.log(2))
    assert bounds["js_distance"] == pytest.approx(np.sqrt(np.log(2)))
    assert bounds["total_variation"] == bounds["hellinger_distance"] == 1


@pytest.mark.parametrize("name", MEASURES)
@drawn(x=counts)
def test_not_negative(name, x):
    assert (measure(name)(x[:, None], x[None]) >= 0).all()
    assert (pairwise(x, None, name) >= 0).all()
    assert (pairwise(x.astype(np.float32), x[:2].astype(np.float32), name) >= 0).all()


@pytest.mark.parametrize("name", DIVERGENCES)
@drawn(x=counts)
def test_zero_on_itself(name, x):
    assert_same_bits(measure(name)(x, x), np.zeros(3))
    assert_same_bits(np.diagonal(pairwise(x, None, name)).copy(), np.zeros(3))
    assert_same_bits(np.diagonal(pairwise(x, x + 0, name)).copy(), np.zeros(3))


@pytest.mark.parametrize("name", [n for n in MEASURES if MEASURES[n].symmetric])
@drawn(x=counts)
def test_symmetric(name, x):
    forth, back = measure(name)(x[:, None], x[None]), measure(name)(x[None], x[:, None])
    np.testing.assert_allclose(forth, back, rtol=1e-11, atol=1e-18)
    matrix = pairwise(x, None, name)
    assert_same_bits(matrix, matrix.T.copy())


@pytest.mark.parametrize("name", [n for n in MEASURES if not MEASURES[n].symmetric])
def test_not_symmetric(name):
    """A bin of q is outside of p, which counts for orders next to 0 too; none the other way."""
    p, q = np.array([0.9, 0.1, 0.0]), np.array([0.3, 0.5, 0.2])
    assert abs(measure(name)(p, q) - measure(name)(q, p)) > 1e-3


@pytest.mark.parametrize("name", [n for n in MEASURES if MEASURES[n].metric])
@drawn(x=counts)
def test_triangle(name, x):
    d = pairwise(x, None, name)
    assert (d[:, None] <= (d[:, :, None] + d[None]) * (1 + 1e-12) + 1e-18).all()


@pytest.mark.parametrize("name", [n for n in MEASURES if np.isfinite(MEASURES[n].upper_bound)])
@drawn(x=counts)
def test_upper_bound(name, x):
    bound = MEASURES[name].upper_bound
    assert (measure(name)(x[:, None], x[None]) <= bound * (1 + 1e-12)).all()
    assert (pairwise(x, None, name) <= bound * (1 + 1e-12)).all()
    single = pairwise(x.astype(np.float32), None, name)
    assert (single <= np.float32(bound * (1 + 2e-5))).all()


@pytest.mark.parametrize("name", MEASURES)
@drawn(x=counts, seed=st.integers(0, 1000))
def test_permutation_of_the_bins(name, x, seed):
    """The order of the bins changes rounding, nothing else."""
    y = x[:, np.random.default_rng(seed).permutation(x.shape[-1])]
    exact = exact_of(name, x[0], x[1])
    for value in (measure(name)(x[0], x[1]), measure(name)(y[0], y[1])):
        np.testing.assert_allclose(value, float(exact), rtol=2e-12, atol=1e-15)


@pytest.mark.parametrize("name", MEASURES)
@drawn(x=counts, shift=st.integers(-20, 20))
def test_scale_of_a_distribution(name, x, shift):
    """A power of two scales exactly: the same bits."""
    assert_same_bits(measure(name)(x[0] * 2.0**shift, x[1]), measure(name)(x[0], x[1]))


@pytest.mark.parametrize("name", MEASURES)
@drawn(x=counts, zeros=st.integers(1, 9))
def test_empty_bins_change_nothing(name, x, zeros):
    padded = np.pad(x, ((0, 0), (0, zeros)))
    np.testing.assert_allclose(
        measure(name)(padded[0], padded[1]), measure(name)(x[0], x[1]), rtol=1e-12, atol=1e-15
    )


@drawn(x=counts)
def test_cross_entropy_is_entropy_and_divergence(x):
    p, q = x[:, None], x[None]
    total = fastinfo.entropy(p) + fastinfo.kl_divergence(p, q)
    np.testing.assert_allclose(fastinfo.cross_entropy(p, q), total, rtol=1e-12, atol=1e-14)


@drawn(x=counts)
def test_js_is_the_mean_divergence_from_the_middle(x):
    p, q = (row / row.sum() for row in x[:2])
    m = (p + q) / 2
    mean = (fastinfo.kl_divergence(p, m) + fastinfo.kl_divergence(q, m)) / 2
    np.testing.assert_allclose(fastinfo.js_divergence(p, q), mean, rtol=1e-9, atol=1e-15)
    distance = fastinfo.js_distance(p, q)
    np.testing.assert_allclose(distance**2, fastinfo.js_divergence(p, q), rtol=1e-12, atol=0)


@drawn(x=counts)
def test_order_of_the_measures(x):
    """Pinsker: 2·TV² <= KL; h² <= TV <= h·√2; ln2·h² <= JS <= h²."""
    p, q = x[:, None], x[None]
    variation = fastinfo.total_variation(p, q)
    hellinger = fastinfo.hellinger_distance(p, q)
    js, slack = fastinfo.js_divergence(p, q), 1e-14
    assert (2 * variation**2 <= fastinfo.kl_divergence(p, q) + slack).all()
    assert (hellinger**2 <= variation + slack).all()
    assert (variation <= np.sqrt(2) * hellinger + slack).all()
    assert (np.log(2) * hellinger**2 <= js + slack).all()
    assert (js <= hellinger**2 + slack).all()


@drawn(x=counts, y=counts)
def test_divergence_is_additive_on_products(x, y):
    p, q = (np.outer(x[i], y[i]).ravel() for i in (0, 1))
    total = fastinfo.kl_divergence(x[0], x[1]) + fastinfo.kl_divergence(y[0], y[1])
    np.testing.assert_allclose(fastinfo.kl_divergence(p, q), total, rtol=1e-10, atol=1e-13)
    entropies = fastinfo.entropy(x[0]) + fastinfo.entropy(y[0])
    np.testing.assert_allclose(fastinfo.entropy(p), entropies, rtol=1e-11, atol=1e-14)


@drawn(x=counts)
def test_entropy_is_at_most_the_logarithm_of_the_support(x):
    assert (fastinfo.entropy(x) <= np.log((x > 0).sum(-1)) + 1e-14).all()
    assert (fastinfo.entropy(x) >= 0).all()


@drawn(x=counts, groups=st.integers(1, 4))
def test_merging_bins_loses_information(x, groups):
    """Data processing: a sum of bins never moves distributions apart."""
    merged = np.zeros((3, groups))
    np.add.at(merged.T, np.arange(x.shape[-1]) % groups, x.T)
    for name in DIVERGENCES:
        fine, coarse = measure(name)(x[0], x[1]), measure(name)(merged[0], merged[1])
        assert coarse <= fine * (1 + 1e-9) + 1e-7


# Softmax --------------------------------------------------------------------------------------


@drawn(x=rows_of_logits(), shift=st.integers(-1000, 1000))
def test_shift_of_the_logits(x, shift):
    x = np.round(x * 1024) / 1024
    targets = np.zeros(3, int)
    for function in (fastinfo.softmax, lambda z: fastinfo.softmax_cross_entropy(z, targets)):
        np.testing.assert_allclose(function(x + shift), function(x), rtol=1e-12, atol=1e-15)
    moved = fastinfo.softmax_statistics(x + shift, targets)
    still = fastinfo.softmax_statistics(x, targets)
    assert_same_bits((moved.argmax, moved.target_rank), (still.argmax, still.target_rank))
    np.testing.assert_allclose(moved.max, still.max + shift, rtol=0)
    np.testing.assert_allclose(moved.logsumexp, still.logsumexp + shift, rtol=1e-12, atol=1e-12)


@drawn(x=rows_of_logits(), seed=st.integers(0, 1000))
def test_permutation_of_the_classes(x, seed):
    order = np.random.default_rng(seed).permutation(x.shape[-1])
    target = int(order[0])
    actual = fastinfo.softmax_cross_entropy(x[:, order], np.zeros(3, int), reduction="none")
    exact = oracles.softmax_cross_entropy(x, np.full(3, target)).rows
    assert_close_loss(actual, exact, np.float64)


@drawn(x=rows_of_logits(), exponent=st.integers(-3, 3))
def test_temperature_divides(x, exponent):
    """By a power of two the logits themselves may be divided: the same value."""
    temperature, targets = 2.0**exponent, np.zeros(3, int)
    cold = fastinfo.softmax_cross_entropy(x, targets, temperature=temperature)
    np.testing.assert_allclose(
        cold, fastinfo.softmax_cross_entropy(x / temperature, targets), rtol=2e-12, atol=1e-15
    )


@drawn(x=rows_of_logits())
def test_fields_belong_together(x):
    v = x.shape[-1]
    statistics = fastinfo.softmax_statistics(x, x.argmax(-1))
    p = fastinfo.softmax(x)
    assert_same_bits(statistics.max, x.max(-1))
    np.testing.assert_allclose(fastinfo.entropy(p), statistics.entropy, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(
        statistics.logsumexp, statistics.max + statistics.log_sum, rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(fastinfo.logsumexp(x), statistics.logsumexp, rtol=1e-12, atol=1e-12)
    assert (statistics.target_rank == 0).all()
    assert (statistics.entropy <= np.log(v) + 1e-14).all()
    np.testing.assert_allclose(
        fastinfo.log_softmax(x), x - statistics.logsumexp[:, None], rtol=1e-10, atol=1e-12
    )


@drawn(x=rows_of_logits(), seed=st.integers(0, 1000))
def test_one_hot_rows_are_integer_targets(x, seed):
    v = x.shape[-1]
    targets = np.random.default_rng(seed).integers(0, v, 3)
    for smoothing in (0.0, 0.3):
        hard = fastinfo.softmax_cross_entropy(
            x, targets, label_smoothing=smoothing, return_grad=True
        )
        soft = fastinfo.softmax_cross_entropy(
            x, np.eye(v)[targets], label_smoothing=smoothing, return_grad=True
        )
        np.testing.assert_allclose(hard[0], soft[0], rtol=2e-12, atol=1e-15)
        np.testing.assert_allclose(hard[1], soft[1], rtol=1e-11, atol=1e-13)


@drawn(x=rows_of_logits(), seed=st.integers(0, 1000))
def test_loss_of_the_softmax_is_its_entropy(x, seed):
    p = fastinfo.softmax(x)
    rows = fastinfo.softmax_cross_entropy(x, p, reduction="none")
    np.testing.assert_allclose(rows, fastinfo.softmax_statistics(x).entropy, rtol=1e-11, atol=1e-14)
