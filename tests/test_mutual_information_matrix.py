"""Mutual information of all pairs of columns: exact counts, scikit-learn, and every rule."""

from collections import Counter
from itertools import product

import mpmath
import numpy as np
import pytest
from accuracy import RTOL, assert_same_bits, assert_within, peak
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

import fastinfo
from fastinfo import formulas
from fastinfo.cpu import contingency
from fastinfo.cpu import contingency_kernels as kernels
from fastinfo.cpu.memory import store, whole_loader
from fastinfo.engine import kernel

AVERAGES = ["arithmetic", "geometric", "min", "max"]
# Most codes of sets, and most cells of a whole table for each sample.
ROADS = {"sets": (1 << 40, 0), "tables": (0, 1 << 40), "groups": (0, 0)}


@pytest.fixture(params=ROADS)
def road(request, monkeypatch):
    """Force one way to count."""
    few, table = ROADS[request.param]
    monkeypatch.setattr(contingency, "FEW", few)
    monkeypatch.setattr(contingency, "TABLE", table)
    return request.param


def exact(a, b):
    """Return the mutual information of two columns from its definition, in 50 digits."""
    n, of_a, of_b = len(a), Counter(a.tolist()), Counter(b.tolist())
    with mpmath.workdps(50):
        return mpmath.fsum(
            mpmath.mpf(c) / n * mpmath.log(mpmath.mpf(c * n) / (of_a[i] * of_b[j]))
            for (i, j), c in Counter(zip(a.tolist(), b.tolist(), strict=True)).items()
        )


def exact_matrix(x, y):
    """Return `exact` of all pairs; what is 0 but for 50 digits is 0."""
    values = [[exact(a, b) for b in y.T] for a in x.T]
    return np.array([[0.0 if v < 1e-40 else float(v) for v in row] for row in values])


def check(x, y=None):
    """Compare a matrix with exact values, relatively down to 0."""
    actual = fastinfo.mutual_information_matrix(x, y)
    expected = exact_matrix(x, x if y is None else y)
    assert_within(actual, expected, RTOL[np.dtype(np.float64)] * expected, np.float64)
    return actual


def columns(rng, n, sizes):
    """Return a column of random codes for each number of codes."""
    return np.stack([rng.integers(0, size, n) for size in sizes], axis=1)


SIZES = [2, 3, 10, 1, 19, 20, 21, 2, 50, 7]


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 500, 513])
def test_against_exact_values(rng, road, n):
    x = columns(rng, n, SIZES)
    x[:, 7] = x[:, 2] > 4  # a function of another column
    actual = check(x)
    assert_same_bits(actual, actual.T.copy())
    check(x[:, :4], x[:, 2:])


@pytest.mark.parametrize("n", [300, 5000])
def test_every_road_together(rng, n):
    """Two codes beside thousands, in any order of columns."""
    sizes = [2, 4000, 20, 21, 1, 90, 3, 100_000, 10]
    x, y = columns(rng, n, sizes), columns(rng, n, sizes[::-1])
    check(x)
    check(x, y)


def test_a_column_of_two_codes_beside_one_of_50_000(rng):
    n = 60_000
    x = columns(rng, n, [2, 50_000, 50_000])
    x[:, 0] = x[:, 1] % 2
    check(x)
    assert peak(lambda: fastinfo.mutual_information_matrix(x)) < 64 * x.size


def test_many_stretches_of_samples_tiles_and_bands(rng):
    """More samples than a stretch of sets, more columns than a tile and a band."""
    x = columns(rng, 40_001, [2, 5, 18])
    x[:, 1] = (x[:, 0] + (rng.random(len(x)) < 0.3)) * 2
    check(x)
    x = columns(rng, 200, [1 + k % 23 for k in range(300)])
    actual = fastinfo.mutual_information_matrix(x)
    i, j = rng.integers(0, 300, (2, 200))
    expected = [mutual_info_score(x[:, a], x[:, b]) for a, b in zip(i, j, strict=True)]
    np.testing.assert_allclose(actual[i, j], expected, rtol=1e-12, atol=1e-14)
    rest = fastinfo.mutual_information_matrix(x[:, :140], x[:, 10:])
    np.testing.assert_allclose(rest, actual[:140, 10:], rtol=1e-13)


def test_sets_in_shorter_vectors(rng, monkeypatch):
    """As where the processor has no AVX-512."""
    x = columns(rng, 1000, [2, 3, 10, 1, 19, 2])
    expected = fastinfo.mutual_information_matrix(x)
    monkeypatch.setattr(kernels, "AVX2", not kernels.AVX2)
    monkeypatch.setattr(kernels, "by_sets", kernels.by_sets.__wrapped__)
    assert_same_bits(fastinfo.mutual_information_matrix(x), expected)


# Near zero ---------------------------------------------------------------------------------------


def outer(counts_a, counts_b):
    """Return two columns whose table is the product of their counts."""
    cells = [
        (i, j)
        for (i, a), (j, b) in product(enumerate(counts_a), enumerate(counts_b))
        for _ in range(a * b)
    ]
    return np.array(cells)


@pytest.mark.parametrize(
    ("a", "b"), [([1, 2], [3, 1]), ([7, 5, 1], [2, 3, 11, 1, 1]), ([13] * 23, [1, 3] * 12)]
)
def test_independent_columns_give_exactly_zero(rng, road, a, b):
    x = rng.permutation(outer(a, b))
    actual = fastinfo.mutual_information_matrix(x)
    assert actual[0, 1] == actual[1, 0] == 0
    assert not np.signbit(actual).any()
    assert fastinfo.mutual_information_matrix(x, normalized=True)[0, 1] == 0


@pytest.mark.parametrize("moved", [1, 2, 5, 40])
def test_nearly_independent_columns_keep_their_digits(rng, road, moved):
    """A few of 90000 samples make the difference: values from 1e-10 on."""
    x = outer([100, 50, 150], [90, 110, 50, 50])
    x[:moved, 0] = 2
    assert 0 < check(x)[0, 1] < 1e-5


def test_counts_beyond_the_exact_integers():
    """The term of a cell where its products have 104 bits."""
    n = float(2**52)
    count, n_x, n_y = 2.0**50 + 1, 2.0**51, 2.0**51
    with mpmath.workdps(60):
        u = mpmath.mpf(count) * n / (mpmath.mpf(n_x) * n_y) - 1
        expected = n_x * n_y * ((1 + u) * mpmath.log1p(u) - u)
    assert formulas.independence_term(count, n_x, n_y, n) == pytest.approx(
        float(expected), rel=1e-13
    )
    assert formulas.independence_term(count - 1, n_x, n_y, n) == 0


def test_a_term_of_counts_too_large_to_be_samples(rng):
    """Compiled as it is uncompiled, in vectors, where products have more than 53 bits."""
    term, load = kernels._term(), whole_loader(8)

    @kernel
    def terms():
        def write(count, n_x, n_y, n, out):
            for k in range(0, out.size, 8):
                store(out, k, term(load(count, k), load(n_x, k), load(n_y, k), n))

        return write

    n = 3.0 * 2.0**40 + 1.0
    n_x, n_y = rng.integers(2**38, 2**40, (2, 64)).astype(np.float64)
    near = np.rint(n_x * n_y / n) + rng.integers(-3, 4, 64)
    count, out = np.where(np.arange(64) < 8, 0.0, near), np.empty(64)
    terms()(count, n_x, n_y, n, out)
    expected = [formulas.independence_term(*v, n) for v in zip(count, n_x, n_y, strict=True)]
    np.testing.assert_allclose(out, expected, rtol=1e-12)


# Entropies and normalisation -------------------------------------------------------------------


def test_the_diagonal_is_the_entropy(rng, road):
    x = columns(rng, 400, SIZES)
    diagonal = fastinfo.mutual_information_matrix(x).diagonal()
    expected = [fastinfo.entropy(np.bincount(column)) for column in x.T]
    np.testing.assert_allclose(diagonal, expected, rtol=1e-14)
    rare = np.zeros((10**6, 1), bool)
    rare[5] = True
    value = fastinfo.mutual_information_matrix(rare)[0, 0]
    assert value == pytest.approx(float(exact(rare[:, 0], rare[:, 0])), rel=1e-13)


def test_functions_of_each_other(rng, road):
    """A column renamed has the entropy exactly, one that is merged that of the merged one."""
    x = rng.permutation(np.repeat(np.arange(30), np.arange(1, 31)))
    renamed, merged = rng.permutation(30)[x], x // 4
    z = np.stack([x, renamed, merged], axis=1)
    within = fastinfo.mutual_information_matrix(z)
    across = fastinfo.mutual_information_matrix(z, z.copy())
    assert_same_bits(across, within)
    assert within[0, 0] == within[0, 1] == within[1, 1]
    assert within[0, 2] == within[1, 2] == within[2, 2]
    for average in AVERAGES:
        for other in (None, z.copy()):
            share = fastinfo.mutual_information_matrix(z, other, normalized=True, average=average)
            assert (share[:2, :2] == 1).all() and share[2, 2] == 1
            assert (share[0, 2] == 1) == (average == "min")


@pytest.mark.parametrize("average", AVERAGES)
def test_normalized_against_scikit_learn(rng, road, average):
    x = columns(rng, 300, [2, 3, 30, 9, 2])
    x[:, 4] = 7
    x[:, 3] = x[:, 2] // 3
    actual = fastinfo.mutual_information_matrix(x, normalized=True, average=average)
    expected = [
        [normalized_mutual_info_score(a, b, average_method=average) for b in x.T] for a in x.T
    ]
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15)
    assert actual.max() <= 1 and actual[4, 4] == 1
    assert (actual[4, :4] == 0).all()


def test_base(rng):
    x = columns(rng, 200, [4, 4, 30])
    nats = fastinfo.mutual_information_matrix(x)
    np.testing.assert_allclose(
        fastinfo.mutual_information_matrix(x, base=2), nats / np.log(2), rtol=1e-15
    )


# Edges -------------------------------------------------------------------------------------------


def test_constant_columns_and_one_sample(rng):
    x = np.stack([np.full(9, 3), np.arange(9), np.zeros(9, int)], axis=1)
    actual = check(x)
    assert actual[1, 1] == pytest.approx(np.log(9), rel=1e-15)
    assert (fastinfo.mutual_information_matrix(x[:1]) == 0).all()
    assert (fastinfo.mutual_information_matrix(x[:1], normalized=True) == 1).all()


@pytest.mark.parametrize("options", [{}, {"base": 2}, {"normalized": True}])
def test_no_samples_give_nan(options):
    for dtype in (np.int64, np.uint8, np.float64):
        x, y = np.empty((0, 3), dtype), np.empty((0, 2), dtype)
        assert np.isnan(fastinfo.mutual_information_matrix(x, **options)).all()
        actual = fastinfo.mutual_information_matrix(x, y, **options)
        assert actual.shape == (3, 2) and np.isnan(actual).all()


def test_no_columns(rng):
    x, none = columns(rng, 5, [2, 3]), np.empty((5, 0), int)
    assert fastinfo.mutual_information_matrix(none).shape == (0, 0)
    assert fastinfo.mutual_information_matrix(x, none).shape == (2, 0)
    assert fastinfo.mutual_information_matrix(none, x).shape == (0, 2)
    assert fastinfo.mutual_information_matrix(none[:0]).shape == (0, 0)
    assert fastinfo.mutual_information_matrix(x[:, :1]).shape == (1, 1)


def test_codes_may_be_large_and_sparse(rng):
    x = columns(rng, 300, [4, 25, 9])
    expected = fastinfo.mutual_information_matrix(x)
    names = np.sort(rng.choice(2**62, 25, replace=False))
    assert_same_bits(fastinfo.mutual_information_matrix(names[x]), expected)
    beyond = np.uint64(2**64 - 1) - x.astype(np.uint64) * np.uint64(2**58)
    np.testing.assert_allclose(
        fastinfo.mutual_information_matrix(beyond), expected, rtol=1e-14, atol=0
    )
    huge = np.array([[10**9], [3], [10**9]])
    assert peak(lambda: fastinfo.mutual_information_matrix(huge)) < 1 << 20


@pytest.mark.parametrize("dtype", ["b", "u1", "i2", "u2", "i4", ">i4", "u4", "i8", "u8", "?"])
def test_every_kind_of_integers_in_any_layout(rng, dtype):
    x = columns(rng, 130, [2, 2, 2] if dtype == "?" else [2, 30, 100])
    expected = fastinfo.mutual_information_matrix(x)
    backwards, wide = x[::-1].astype(dtype), np.repeat(x, 2, axis=1).astype(dtype)
    given = [x.astype(dtype), np.asfortranarray(x.astype(dtype)), backwards[::-1], wide[:, ::2]]
    for table in given:
        table.flags.writeable = False
        assert_same_bits(fastinfo.mutual_information_matrix(table), expected)
    across = fastinfo.mutual_information_matrix(x, x.copy())
    assert_same_bits(fastinfo.mutual_information_matrix(given[-1], x), across)
    assert_same_bits(fastinfo.mutual_information_matrix(x.tolist()), expected)


def test_a_data_frame_and_a_tensor(rng):
    pandas = pytest.importorskip("pandas")
    x = columns(rng, 50, [2, 5])
    expected = fastinfo.mutual_information_matrix(x)
    assert_same_bits(fastinfo.mutual_information_matrix(pandas.DataFrame(x)), expected)


def test_torch_in_torch_out(rng):
    torch = pytest.importorskip("torch")
    x = columns(rng, 50, [2, 5])
    actual = fastinfo.mutual_information_matrix(torch.from_numpy(x), x)
    assert isinstance(actual, torch.Tensor) and actual.dtype == torch.float64
    assert_same_bits(actual.numpy(), fastinfo.mutual_information_matrix(x, x))


@pytest.mark.usefixtures("threads")
def test_any_number_of_threads(rng):
    x = columns(rng, 700, [1 + k % 40 for k in range(150)])
    results = []
    for n in (1, 2, 3, 7):
        fastinfo.set_num_threads(n)
        results.append(fastinfo.mutual_information_matrix(x))
        results.append(fastinfo.mutual_information_matrix(x))
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_progress(rng):
    x = columns(rng, 20, [3] * 300)
    seen = []
    fastinfo.mutual_information_matrix(x, x[:, :2], progress=lambda *at: seen.append(at))
    assert [total for _, total in seen] == [300] * len(seen)
    done = [d for d, _ in seen]
    assert len(done) > 1 and done == sorted(done) and done[-1] == 300
    with pytest.raises(TypeError, match="progress must be a bool or callable"):
        fastinfo.mutual_information_matrix(x, progress=3)


def test_memory(rng):
    """Codes of 2 bytes, bits of sets, the result; nothing of pairs times cells."""
    x = columns(rng, 5000, [10] * 300)
    allowed = x.size * (2 + 9 / 8) + 8 * 300**2 + 4 * 2**20
    assert peak(lambda: fastinfo.mutual_information_matrix(x)) < allowed
    x = columns(rng, 5000, [100] * 100)
    assert peak(lambda: fastinfo.mutual_information_matrix(x)) < x.size * 2 + 8 * 100**2 + 4 * 2**20


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "x", "y", "options"),
    [
        (TypeError, "x must hold integer codes, got float64", [[0.0], [1.0]], None, {}),
        (TypeError, "y must hold integer codes, got float32", [[0]], np.ones((1, 1), "f4"), {}),
        (TypeError, "x must hold real numbers", [["a"]], None, {}),
        (ValueError, r"x must be at least 0, got -2 at position \(2, 1\)",
         [[0, 1], [1, 1], [2, -2]], None, {}),
        (ValueError, r"y must be at least 0, got -1 at position \(0, 0\)", [[0]], [[-1]], {}),
        (ValueError, r"x must have two dimensions, got shape \(2,\)", [0, 1], None, {}),
        (ValueError, r"y must have two dimensions, got shape \(\)", [[0]], 3, {}),
        (ValueError, r"x and y must have the same number of samples, got shapes \(2, 1\) and \(1,",
         [[0], [1]], [[0]], {}),
        (ValueError, "average must be one of 'arithmetic', 'geometric', 'min', 'max', got 'mean'",
         [[0]], None, {"normalized": True, "average": "mean"}),
        (ValueError, "base must be left out with normalized=True", [[0]], None,
         {"normalized": True, "base": 2}),
        (ValueError, "base must be positive and not 1", [[0]], None, {"base": 1}),
    ],
)  # fmt: skip
def test_errors(error, message, x, y, options):
    with pytest.raises(error, match=message):
        fastinfo.mutual_information_matrix(x, y, **options)
