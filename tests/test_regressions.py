"""What a first round of users broke."""

import numpy as np
import pytest

import fastinfo
from fastinfo.cpu.pairs import mirror


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_ignore_index_beyond_the_classes_in_unsigned_targets(rng, dtype):
    logits = rng.standard_normal((4, 5))
    top = np.iinfo(dtype).max
    targets = np.array([0, 1, 2, top], dtype)
    losses = fastinfo.softmax_cross_entropy(logits, targets, ignore_index=top, reduction="none")
    expected = fastinfo.softmax_cross_entropy(logits, [0, 1, 2, -100], reduction="none")
    np.testing.assert_array_equal(losses, expected)
    assert losses[3] == 0
    ranks = fastinfo.softmax_statistics(logits, targets, ignore_index=top).target_rank
    assert ranks[3] == -1


def test_a_probability_that_underflows_is_zero_in_functions_and_matrices():
    p, q = [[1.0, 1.0]], [[5e-324, 3.0]]
    assert fastinfo.kl_divergence(p, q)[0] == np.inf
    assert fastinfo.pairwise(p, q, "kl_divergence")[0, 0] == np.inf


def test_weights_are_scaled_without_overflow():
    value = fastinfo.js_divergence([1, 2], [2, 1], weights=(1e308, 1e308))
    assert value == fastinfo.js_divergence([1, 2], [2, 1])


def test_confident_rows_keep_their_digits_in_loss_and_gradient():
    loss, grad = fastinfo.softmax_cross_entropy([[0.0, 40.0]], [1], return_grad=True)
    exact = np.log1p(np.exp(-40.0))
    assert loss == pytest.approx(exact, rel=1e-12, abs=0)
    assert grad[0, 1] == pytest.approx(-exact, rel=1e-12)
    assert grad[0, 0] == pytest.approx(exact, rel=1e-12, abs=0)


def test_a_temperature_without_a_reciprocal_is_refused():
    with pytest.raises(ValueError, match=r"temperature must be positive, at least 2\*\*-100"):
        fastinfo.softmax([1.0, 2.0], temperature=1e-40)


def test_a_result_beyond_float32_is_infinite_without_a_warning():
    logits = np.array([[3.4e38, -3.4e38]], np.float32)
    assert fastinfo.softmax_cross_entropy(logits, [1]) == np.inf


def test_no_rows_give_no_matrix():
    assert fastinfo.pairwise(np.ones((0, 3))).shape == (0, 0)
    assert fastinfo.pairwise(np.ones((0, 3)), condensed=True).shape == (0,)


def test_names_of_other_libraries_are_pointed_to_ours():
    with pytest.raises(AttributeError, match="did you mean 'js_distance'"):
        fastinfo.jensenshannon  # noqa: B018
    with pytest.raises(ValueError, match="did you mean 'js_distance'"):
        fastinfo.pairwise([[1.0]], measure="jensenshannon")


@pytest.mark.parametrize("k", [3, 33, 1000, 20_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_few_values_and_outliers(rng, k, dtype):
    """Rounding errors that agree in all bins add up; one outlier moves the mean of all rows."""
    two = rng.choice([1.0, 1.03], (12, k))
    outlier = rng.dirichlet(np.full(k, 20.0), 12)
    outlier[0] = np.arange(k) == 0
    zipf = (1.0 / np.arange(1, k + 1)) ** rng.uniform(0.9, 1.1, (12, 1))
    rtol = {np.float32: 2e-5, np.float64: 1e-12}[dtype]
    for rows in (two, outlier, zipf):
        x = rows.astype(dtype)
        for name in ("js_divergence", "hellinger_distance", "kl_divergence"):
            measure, wide = getattr(fastinfo, name), x.astype(np.float64)
            exact = np.array([measure(p, wide) for p in wide])
            matrix = fastinfo.pairwise(x, measure=name)
            np.testing.assert_allclose(matrix, exact, rtol=rtol, atol=1e-30)


def test_a_buffer_of_no_rows():
    empty = np.zeros((0, 5))
    loss, grad = fastinfo.softmax_cross_entropy(
        empty, np.zeros(0, int), return_grad=True, out=np.zeros((0, 5)), reduction="sum"
    )
    assert loss == 0 and grad.shape == (0, 5)
    assert fastinfo.softmax(empty, out=np.zeros((0, 5))).shape == (0, 5)
    assert fastinfo.pairwise(empty, np.ones((3, 5)), out=np.zeros((0, 3))).shape == (0, 3)


def test_gradient_of_a_target_without_weight_keeps_its_digits():
    x, w = np.zeros((1, 64)), np.ones(64)
    x[0, 0], w[5] = 60.0, 0.0
    _, grad = fastinfo.softmax_cross_entropy(
        x, [5], class_weight=w, label_smoothing=0.1, reduction="sum", return_grad=True
    )
    expected = 0.1 * 63 / 64 / (np.exp(60.0) + 63)
    assert grad[0, 5] == pytest.approx(expected, rel=1e-12)


def test_nothing_holds_a_lock_that_a_fork_can_find_taken():
    """In Python 3.11 `functools.cached_property` has one for all instances of a class."""
    import functools

    from fastinfo import arrays, information, losses, matrices
    from fastinfo.cpu import bins, pairs, rows

    for module in (arrays, bins, information, losses, matrices, pairs, rows):
        for kind in vars(module).values():
            if isinstance(kind, type):
                assert not any(
                    isinstance(v, functools.cached_property) for v in vars(kind).values()
                )


def test_weights_whose_shares_round_beyond_an_empty_bin(rng):
    """-0.8 / 0.8 as rounded is below -1, where (1 + u) log(1 + u) has no value: 6e-12 of JS."""
    x, y = (rng.integers(0, 20, (n, 2)).astype(np.float64) for n in (37, 23))
    x[rng.random(37) < 0.5] = 0
    y[rng.random(23) < 0.5] = 0
    x[0], y[0] = [11, 1], [14, 0]
    for weights in ((0.2, 0.8), (0.3, 0.7)):
        rows = fastinfo.js_divergence(x[:, None], y[None], weights)
        found = fastinfo.pairwise(x, y, weights=weights)
        np.testing.assert_allclose(found, rows, rtol=1e-12, atol=1e-15)


def test_subnormal_numbers_of_others_stay(rng):
    """Kernels of logits flush them, in their own time only."""
    x, y = 40 * rng.standard_normal((2, 3, 500)).astype(np.float32)
    fastinfo.set_num_threads(1)
    try:
        fastinfo.softmax_cross_entropy(x, [0, 1, 2], return_grad=True)
        fastinfo.softmax_statistics(x, [0, 1, 2])
        fastinfo.softmax_kl_divergence(x, y, return_grad=True)
        fastinfo.softmax_js_divergence(x, y, return_grad=True)
        fastinfo.binary_cross_entropy_with_logits(x, y > 0, return_grad=True)
        stream = fastinfo.StreamingCrossEntropy([0, 1, 2])
        stream.update(x, 0)
        stream.grad(x, 0)
        assert np.float32(1e-38) * np.float32(1e-3) > 0
        assert np.float64(1e-308) * 1e-3 > 0
    finally:
        fastinfo.set_num_threads(fastinfo.engine._cores())


@pytest.mark.parametrize(
    ("alpha", "times", "exact"),
    [
        (500.0, 10.0, -2.3049978641449997),
        (1000.0, 4.0, -1.387499539102199),
        (1e4, 2.0, -0.69326758988131),
    ],
)
def test_renyi_of_rows_whose_powers_all_underflow(alpha, times, exact):
    """Σ p^α (k p)^(1 - α) = k^(1 - α) Σ p of rows that are not normalised; it was -inf."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    p = np.array([0.1, 0.2])
    given = {"alpha": alpha, "normalize": False}
    assert fastinfo.renyi_divergence(p, times * p, **given) == pytest.approx(exact, rel=1e-14)
    for matrix in (np.array, scipy_sparse.csr_array):
        found = fastinfo.pairwise(matrix([p]), matrix([times * p]), "renyi_divergence", **given)
        assert found[0, 0] == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("bins", [2, 8, 40])
@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e36), (np.float64, 1e306)])
def test_js_of_totals_whose_parts_overflow(bins, dtype, size):
    x = np.ones((2, bins), dtype)
    x[0, 0] = x[1, -1] = size
    for name in ("js_divergence", "js_distance"):
        function = getattr(fastinfo, name)
        exact = function(x[:, None], x[None], normalize=False)
        found = fastinfo.pairwise(x, measure=name, normalize=False)
        np.testing.assert_allclose(found, exact, rtol=1e-5 if dtype == np.float32 else 1e-12)
    found = fastinfo.nearest(x, normalize=False)
    assert found.indices.tolist() == [[1], [0]]


def test_js_beside_the_smallest_number():
    """Half of it is 0, and a share of p over no mean infinite."""
    p, q = [1.0, 0.0], [1.0, 5e-324]
    assert 0 <= fastinfo.js_divergence(p, q) < 1e-300
    assert 0 <= fastinfo.pairwise([p], [q])[0, 0] < 1e-300


def test_infinities_in_a_unit_below_1():
    """Rows gave -inf, as SciPy does, matrices inf."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    for name in ("cross_entropy", "kl_divergence", "jeffreys_divergence"):
        exact = getattr(fastinfo, name)([1.0, 1.0], [1.0, 0.0], base=0.5)
        assert exact == -np.inf
        for matrix in (np.array, scipy_sparse.csr_array):
            found = fastinfo.pairwise(matrix([[1.0, 1.0]]), matrix([[1.0, 0.0]]), name, base=0.5)
            assert found[0, 0] == exact


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("normalize", [True, False])
def test_what_is_no_number_in_q_stays(bad, normalize):
    """A logarithm by mantissa and exponent takes NaN for a number: KL was -710.7."""
    for row in fastinfo.measures():
        function, given = getattr(fastinfo, row.name), {}
        for alpha in (0.0, 0.3, 0.5, 1.0, 2.0, np.inf) if "alpha" in row.parameters else (None,):
            given = {} if alpha is None else {"alpha": alpha}
            for p, q in (([0.2, 0.8], [bad, 0.5]), ([bad, 0.5], [0.2, 0.8])):
                assert np.isnan(function(p, q, normalize=normalize, **given))
                matrix = fastinfo.pairwise([p], [q], row.name, normalize=normalize, **given)
                assert np.isnan(matrix).all()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("kl_divergence", {}), ("renyi_divergence", {"alpha": 0.3}), ("bhattacharyya_distance", {})],
)
def test_long_stretches_of_one_value_in_a_product(rng, name, parameters):
    """The roundings of a float32 product all went one way: 1.8 times the error that is allowed."""
    for k in (512, 3000):
        x = np.ones((100, k), np.float32)
        for row in x:
            row[: rng.integers(1, k)] *= 1 + 0.02 * rng.random()
        wide = x.astype(np.float64)
        function = getattr(fastinfo, name)
        exact = function(wide[:, None], wide[None], **parameters)
        found = fastinfo.pairwise(x, measure=name, **parameters)
        np.testing.assert_allclose(found, exact, rtol=2e-5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("kl_divergence", {}), ("renyi_divergence", {"alpha": 2.0}), ("js_divergence", {})],
)
def test_long_stretches_of_one_value(name, parameters):
    """The roundings of a long sum of float64 all went one way: 86 times the error allowed."""
    for k in (200_000, 2_000_000):
        counts = [k // 3, k // 6, k // 2]
        p, q = np.array([1.1, 1, 1]), np.array([1.07, 1.07, 1])
        function = getattr(fastinfo, name)
        exact = function(counts * p, counts * q, **parameters)  # bins of one ratio are as one
        p, q = np.repeat(p, counts), np.repeat(q, counts)
        assert function(p, q, **parameters) == pytest.approx(exact, rel=1e-12, abs=0)
        matrix = fastinfo.pairwise([p], [q], name, **parameters)
        assert matrix[0, 0] == pytest.approx(exact, rel=1e-12, abs=0)


def test_sums_beyond_the_range_of_rows_along_an_inner_axis():
    """Rows were scaled in a copy of a copy, whatever order NumPy had given that."""
    x = np.full((2, 3, 4), 1e308)
    np.testing.assert_allclose(fastinfo.entropy(x, axis=1), np.log(3), rtol=1e-15)
    y = np.moveaxis(np.full((2, 4, 3), 1e308) * [1.0, 0.5, 0.25], -1, 0)
    expected = fastinfo.entropy([4.0, 2.0, 1.0])
    np.testing.assert_allclose(fastinfo.entropy(y, axis=0), expected, rtol=1e-15)


def test_an_option_that_is_entered_twice():
    from fastinfo.configuration import checked

    strict = fastinfo.config(check=True)
    for _ in range(2):
        with strict:
            assert checked()
            with strict:
                assert checked()
            assert checked()
        assert not checked()


def test_a_kernel_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    from fastinfo import engine

    monkeypatch.setattr(engine.serialize, "dumps", lambda value: (_ for _ in ()).throw(OSError))
    cached = engine.KernelCache(tmp_path, "name")
    cached.save_overload("", type("Result", (), {"_reduce": lambda self: ()})())
    assert not list(tmp_path.iterdir())


def test_counts_whose_sums_are_beyond_int64():
    children = np.array([[2**62, 1], [2**62, 0]])
    gain = fastinfo.information_gain(np.array([2**63, 1], np.uint64), children)
    assert 0 <= gain < 1e-18
    with pytest.raises(ValueError, match="children must be at least 0, got -1"):
        fastinfo.information_gain([3, 1], [[-1, 1], [4, 0]])


def test_numbers_beyond_all_floats_are_refused_by_name():
    for given in ({"base": 10**400}, {"axis": 10**400}):
        with pytest.raises(ValueError, match=next(iter(given))):
            fastinfo.entropy([1.0, 2.0], **given)
    p, q = [1.0, 2.0], [1.0, 1.0]
    found = fastinfo.renyi_divergence(p, q, 10**400)
    assert found == fastinfo.renyi_divergence(p, q, np.inf)


def test_a_matrix_is_mirrored_whatever_its_memory_held_before():
    """Arithmetic on what nobody wrote may be on signalling NaNs, of which NumPy warns."""
    out = np.full((700, 700), 0x7FF0000000000001, np.uint64).view(np.float64)
    above = np.triu_indices(700, 1)
    out[above] = np.arange(above[0].size)
    mirror(out)
    np.testing.assert_array_equal(out.T[above], np.arange(above[0].size))
    np.testing.assert_array_equal(out[above], np.arange(above[0].size))
