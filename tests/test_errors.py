"""Every error says which argument broke which rule, with what value and where."""

import re

import cases
import numpy as np
import pytest
from accuracy import assert_same_bits

import fastinfo

X = np.zeros((4, 7))
T = np.array([0, 1, 2, 6])
P = np.full((3, 4), 0.25)

LOGITS_FUNCTIONS = {
    "softmax_cross_entropy": lambda x, **o: fastinfo.softmax_cross_entropy(x, T, **o),
    "softmax_statistics": lambda x, **o: fastinfo.softmax_statistics(x, T, **o),
    "softmax_statistics without targets": lambda x, **o: fastinfo.softmax_statistics(x, **o),
    "logsumexp": fastinfo.logsumexp,
    "softmax": fastinfo.softmax,
    "log_softmax": fastinfo.log_softmax,
    "perplexity": lambda x, **o: fastinfo.perplexity(x, T, **o),
}
ROW_MEASURES = ("entropy", *cases.PAIR_MEASURES)
PAIR_FUNCTIONS = {name: getattr(fastinfo, name) for name in cases.PAIR_MEASURES}
PAIRWISE = {
    f"pairwise {name}": (lambda x, y=None, name=name, **o: fastinfo.pairwise(x, y, name, **o))
    for name in cases.PAIR_MEASURES
}


def loss(x=X, t=T, **options):
    """Call the loss on valid arguments but for what a case changes."""
    return fastinfo.softmax_cross_entropy(x, t, **options)


def at(targets, position, value):
    """Return a copy of `targets` with one entry changed."""
    targets = np.array(targets)
    targets[position] = value
    return targets


# Data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [complex, np.complex64, object, np.longdouble, "U3", "M8[s]"])
@pytest.mark.parametrize("name", LOGITS_FUNCTIONS)
def test_dtypes_without_logits(name, dtype):
    argument = "x" if name in ("logsumexp", "softmax", "log_softmax") else "logits"
    with pytest.raises(TypeError, match=rf"\b{argument}\b.*({np.dtype(dtype).name[:3]}|U3)"):
        LOGITS_FUNCTIONS[name](X.astype(dtype) if dtype != "M8[s]" else np.zeros((4, 7), dtype))


@pytest.mark.parametrize("dtype", [complex, object, np.longdouble])
@pytest.mark.parametrize("name", [*PAIR_FUNCTIONS, *PAIRWISE])
def test_dtypes_without_distributions(name, dtype):
    function = (PAIR_FUNCTIONS | PAIRWISE)[name]
    left, right = ("x", "y") if name in PAIRWISE else ("p", "q")
    with pytest.raises(TypeError, match=rf"\b{left}\b.*{np.dtype(dtype).name[:3]}"):
        function(P.astype(dtype), P)
    with pytest.raises(TypeError, match=rf"\b{right}\b.*{np.dtype(dtype).name[:3]}"):
        function(P, P.astype(dtype))


@pytest.mark.parametrize("argument", ["class_weight", "sample_weight"])
@pytest.mark.parametrize("dtype", [complex, object, np.longdouble])
def test_dtypes_without_weights(argument, dtype):
    with pytest.raises(TypeError, match=argument):
        loss(**{argument: np.ones(7 if argument == "class_weight" else 4, dtype)})


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, cases.BFLOAT16, complex])
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "softmax_statistics", "perplexity"])
def test_targets_of_floats(name, dtype):
    with pytest.raises(TypeError, match=r"\btargets\b.*integer"):
        getattr(fastinfo, name)(X, T.astype(dtype))


@pytest.mark.parametrize("values", [None, "text", {}, [[1.0, 2.0], [3.0]]])
@pytest.mark.parametrize("function", [fastinfo.logsumexp, fastinfo.entropy, fastinfo.pairwise])
def test_no_arrays(function, values):
    with pytest.raises((TypeError, ValueError), match=r"\b[xp]\b"):
        function(values)


@pytest.mark.parametrize("name", LOGITS_FUNCTIONS)
def test_no_classes(name):
    with pytest.raises(ValueError, match=r"(x|logits)\b.*\bclass"):
        LOGITS_FUNCTIONS[name](np.zeros((4, 0)))
    with pytest.raises(ValueError, match=r"\b(x|logits)\b"):
        LOGITS_FUNCTIONS[name](np.float64(3))


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_no_bins(name):
    arguments = (np.zeros((4, 0)),) * (1 if name == "entropy" else 2)
    with pytest.raises(ValueError, match=r"\bp\b.*\bbin"):
        getattr(fastinfo, name)(*arguments)
    if name != "entropy":
        with pytest.raises(ValueError, match=r"\bx\b.*\bbin"):
            fastinfo.pairwise(*arguments, name)


@pytest.mark.parametrize("axis", [2, -3, 100])
@pytest.mark.parametrize("name", [*LOGITS_FUNCTIONS, *ROW_MEASURES])
def test_axis_out_of_range(name, axis):
    with pytest.raises((ValueError, IndexError), match=rf"axis.*{axis}"):
        call_with(name, axis=axis)


@pytest.mark.parametrize("axis", [1.0, "1", None, (0, 1)])
@pytest.mark.parametrize("name", [*LOGITS_FUNCTIONS, *ROW_MEASURES])
def test_axis_of_another_type(name, axis):
    with pytest.raises(TypeError, match="axis"):
        call_with(name, axis=axis)


def call_with(name, **options):
    """Call the function of that name on valid arrays."""
    if name in LOGITS_FUNCTIONS:
        return LOGITS_FUNCTIONS[name](X, **options)
    return getattr(fastinfo, name)(*(P,) * (1 if name == "entropy" else 2), **options)


# Targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, cases.BFLOAT16, np.int32])
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "softmax_statistics", "perplexity"])
@pytest.mark.parametrize("value", [7, -1, -99, 60000, 2**31, 2**32, -(2**62)])
def test_targets_out_of_range(name, value, dtype):
    text = f"targets must be in [0, 7) or equal ignore_index=-100, got {value} at row 3"
    with pytest.raises(IndexError, match=re.escape(text)):
        getattr(fastinfo, name)(X.astype(dtype), at(T, 3, value))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "uint32", "uint64"])
def test_targets_out_of_range_in_other_dtypes(dtype):
    value = np.iinfo(dtype).max
    with pytest.raises(IndexError, match=rf"got {value} at row 1$"):
        loss(t=at(T.astype(dtype), 1, value))


def test_the_first_target_out_of_range_is_named():
    with pytest.raises(IndexError, match=r"got 9 at row 1$"):
        loss(t=[0, 9, 8, 7])
    with pytest.raises(IndexError, match=r"ignore_index=3, got -100 at row 2$"):
        loss(t=[0, 3, -100, 1], ignore_index=3)
    many = np.zeros(5000, int)
    many[[4999, 2500]] = 50, -7
    with pytest.raises(IndexError, match=r"got -7 at row 2500$"):
        loss(np.zeros((5000, 7)), many)


def test_targets_out_of_range_in_more_dimensions():
    targets = at(np.zeros((2, 3, 4), int), (1, 0, 2), 5)
    with pytest.raises(IndexError, match=r"\[0, 5\).*got 5 at row \(1, 0, 2\)$"):
        loss(np.zeros((2, 5, 3, 4)), targets, axis=1)
    with pytest.raises(IndexError, match=r"\[0, 5\).*got 5 at row \(1, 0, 2\)$"):
        fastinfo.softmax_statistics(np.zeros((2, 3, 4, 5)), targets)
    with pytest.raises(IndexError, match=r"\[0, 3\).*got 3"):
        loss(np.zeros(3), 3)


def test_targets_out_of_range_leave_everything_untouched(rng):
    """Also where the sample weight is zero: the value is a mistake all the same."""
    logits = rng.random((300, 70))
    before = logits.copy()
    targets = at(np.zeros(300, int), 299, 70)
    for options in ({}, {"sample_weight": at(np.ones(300), 299, 0)}):
        with pytest.raises(IndexError, match="got 70 at row 299"):
            loss(logits, targets, return_grad=True, out=logits, **options)
        assert_same_bits(logits, before)


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1), (7,), (4, 6), (7, 4), (1, 4, 7), ()])
@pytest.mark.parametrize("kind", [int, float])
def test_targets_of_another_shape(shape, kind):
    with pytest.raises((ValueError, TypeError), match=r"\btargets\b"):
        loss(t=np.zeros(shape, kind))
    with pytest.raises(ValueError, match=r"\btargets\b.*\(4,\)"):
        loss(t=np.zeros(shape, int))


def test_statistics_take_no_probabilities():
    with pytest.raises((ValueError, TypeError), match="targets"):
        fastinfo.softmax_statistics(X, np.full((4, 7), 1 / 7))


# Options of the loss --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"class_weight": np.ones(6)}, r"class_weight.*\(7,\)"),
        ({"class_weight": np.ones((4, 7))}, r"class_weight.*\(7,\)"),
        ({"class_weight": at(np.ones(7), 5, -0.5)}, r"class_weight.*-0\.5.*\b5\b"),
        ({"class_weight": at(np.ones(7), 2, np.nan)}, r"class_weight.*nan.*\b2\b"),
        ({"class_weight": at(np.ones(7), 0, np.inf)}, r"class_weight.*inf.*\b0\b"),
        ({"sample_weight": np.ones(3)}, r"sample_weight.*\(4,\)"),
        ({"sample_weight": np.ones((4, 7))}, r"sample_weight.*\(4,\)"),
        ({"sample_weight": at(np.ones(4), 3, -2)}, r"sample_weight.*-2.*\b3\b"),
        ({"sample_weight": at(np.ones(4), 1, np.nan)}, r"sample_weight.*nan.*\b1\b"),
        ({"sample_weight": at(np.ones(4), 1, np.inf)}, r"sample_weight.*inf.*\b1\b"),
        ({"label_smoothing": -0.1}, r"label_smoothing.*-0\.1"),
        ({"label_smoothing": 1.5}, r"label_smoothing.*1\.5"),
        ({"label_smoothing": float("nan")}, r"label_smoothing.*nan"),
        ({"z_loss": float("nan")}, r"z_loss.*nan"),
        ({"z_loss": float("inf")}, r"z_loss.*inf"),
        ({"temperature": 0.0}, r"temperature.*0"),
        ({"temperature": -1.0}, r"temperature.*-1"),
        ({"temperature": float("nan")}, r"temperature.*nan"),
        ({"temperature": float("inf")}, r"temperature.*inf"),
        ({"temperature": 10**400}, r"temperature.*1000"),
        ({"softcap": 0.0}, r"softcap.*0"),
        ({"softcap": -30.0}, r"softcap.*-30"),
        ({"softcap": float("nan")}, r"softcap.*nan"),
        ({"softcap": float("inf")}, r"softcap.*inf"),
        ({"reduction": "average"}, r"reduction.*'?none'?.*'?average'?"),
        ({"reduction": "means"}, r"reduction.*did you mean .?mean.?"),
        ({"reduction": None}, r"reduction"),
    ],
    ids=lambda value: (
        "-".join(f"{k}={v}" for k, v in value.items())[:40] if isinstance(value, dict) else ""
    ),
)
def test_values_of_options(options, text):
    with pytest.raises(ValueError, match=text):
        loss(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "1"},
        {"temperature": None},
        {"softcap": "30"},
        {"label_smoothing": None},
        {"z_loss": 1j},
        {"ignore_index": 1.5},
        {"ignore_index": None},
        {"no_such_option": 1},
    ],
    ids=str,
)
def test_types_of_options(options):
    with pytest.raises(TypeError, match=next(iter(options))):
        loss(**options)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmax_statistics"])
@pytest.mark.parametrize("value", [0.0, -2.0, float("nan")])
def test_temperature_elsewhere(name, value):
    with pytest.raises(ValueError, match=rf"temperature.*{value:g}"):
        getattr(fastinfo, name)(X, temperature=value)


# out= -----------------------------------------------------------------------------------------


def test_out_needs_a_gradient():
    with pytest.raises(ValueError, match=r"out.*return_grad"):
        loss(out=np.empty((4, 7)))


OUTS = {
    "another shape": (np.empty((4, 6)), r"\bout\b.*\(4, 7\).*\(4, 6\)"),
    "another number of dimensions": (np.empty(28), r"\bout\b.*\(4, 7\)"),
    "another dtype": (np.empty((4, 7), np.float32), r"\bout\b.*float64.*float32"),
    "swapped bytes": (np.empty((4, 7), np.dtype(float).newbyteorder("S")), r"\bout\b.*float64"),
    "read-only": (cases.read_only(np.empty((4, 7))), r"\bout\b.*writ"),
    "overlapping itself": (np.lib.stride_tricks.as_strided(np.empty(7), (4, 7), (0, 8)),
                           r"\bout\b"),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTS)
@pytest.mark.parametrize("function", [
    lambda out: loss(return_grad=True, out=out),
    lambda out: fastinfo.softmax(X, out=out),
    lambda out: fastinfo.log_softmax(X, out=out),
    lambda out: fastinfo.pairwise(np.ones((4, 3)), np.ones((7, 3)), out=out),
], ids=["loss", "softmax", "log_softmax", "pairwise"])  # fmt: skip
def test_out_that_does_not_fit(function, case):
    out, text = OUTS[case]
    with pytest.raises(ValueError, match=text):
        function(out)


@pytest.mark.parametrize("out", [[[0.0] * 7] * 4, "out", 3])
def test_out_that_is_no_array(out):
    with pytest.raises((TypeError, ValueError), match=r"\bout\b"):
        loss(return_grad=True, out=out)


def test_out_overlapping_an_input(rng):
    """The gradient's buffer may be the logits themselves, and nothing else that is read."""
    memory = rng.random(200)
    logits, shifted = memory[:28].reshape(4, 7), memory[7:35].reshape(4, 7)
    turned = memory[:28].reshape(7, 4).T
    before = memory.copy()
    for out in (shifted, turned, logits[::-1]):
        with pytest.raises(ValueError, match=r"\bout\b.*logits.*overlap"):
            loss(logits, T, return_grad=True, out=out)
    with pytest.raises(ValueError, match=r"\bout\b.*overlap.*targets"):
        loss(X, logits, return_grad=True, out=logits)
    with pytest.raises(ValueError, match=r"\bout\b.*overlap.*class_weight"):
        loss(X, T, class_weight=memory[3:10], return_grad=True, out=logits)
    with pytest.raises(ValueError, match=r"\bout\b.*overlap.*sample_weight"):
        loss(X, T, sample_weight=memory[3:7], return_grad=True, out=logits)
    square = memory[:16].reshape(4, 4)
    with pytest.raises(ValueError, match=r"\bout\b.*overlap.*\bx\b"):
        fastinfo.pairwise(memory[8:36].reshape(4, 7), out=square)
    with pytest.raises(ValueError, match=r"\bout\b.*overlap.*\by\b"):
        fastinfo.pairwise(np.ones((4, 7)), memory[8:36].reshape(4, 7), out=square)
    for function in (fastinfo.softmax, fastinfo.log_softmax):
        with pytest.raises(ValueError, match=r"\bout\b.*overlap.*\bx\b"):
            function(logits, out=shifted)
    assert_same_bits(memory, before)


def test_neighbours_in_memory_do_not_overlap(rng):
    """Interleaved columns of one array share no element."""
    memory = rng.random((4, 14))
    logits, out = memory[:, ::2], memory[:, 1::2]
    expected = loss(logits.copy(), return_grad=True)
    before = logits.copy()
    assert_same_bits(loss(logits, return_grad=True, out=out)[1].copy(), expected[1])
    assert_same_bits(logits.copy(), before)


# Distributions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROW_MEASURES)
@pytest.mark.parametrize("dtype", [*cases.FLOATS, np.dtype(np.int32)], ids=str)
@pytest.mark.parametrize("normalize", [True, False])
def test_negative_probabilities(name, dtype, normalize):
    p = np.ones((3, 40), dtype)
    p[1, 17] = -2
    other = () if name == "entropy" else (np.ones((3, 40), dtype),)
    function = getattr(fastinfo, name)
    with pytest.raises(ValueError, match=r"\bp\b.*-2.*\(1, 17\)"):
        function(p, *other, normalize=normalize)
    with pytest.raises(ValueError, match=r"\bp\b.*-2.*\(17, 1\)"):
        function(p.T, *(o.T for o in other), axis=0, normalize=normalize)
    if other:
        with pytest.raises(ValueError, match=r"\bq\b.*-2.*\(1, 17\)"):
            function(*other, p, normalize=normalize)
        with pytest.raises(ValueError, match=r"\bq\b.*-2.*\(17,\)|\bq\b.*-2.*\b17$"):
            function(other[0], p[1], normalize=normalize)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("dtype", [*cases.FLOATS, np.dtype(np.int32)], ids=str)
@pytest.mark.parametrize("normalize", [True, False])
def test_negative_probabilities_in_matrices(name, dtype, normalize):
    x, good = np.ones((30, 40), dtype), np.ones((20, 40), dtype)
    x[29, 3] = -1
    kind = np.float32 if dtype.itemsize <= 4 and dtype.kind != "i" else np.float64
    out = np.full((30, 20), 7, kind)
    with pytest.raises(ValueError, match=r"\bx\b.*-1.*\(29, 3\)"):
        PAIRWISE[name](x, good, normalize=normalize, out=out)
    with pytest.raises(ValueError, match=r"\by\b.*-1.*\(29, 3\)"):
        PAIRWISE[name](good, x, normalize=normalize, out=out.T)
    with pytest.raises(ValueError, match=r"\bx\b.*-1.*\(29, 3\)"):
        PAIRWISE[name](x, normalize=normalize)
    assert (out == 7).all()


def test_negative_infinity_and_denormals_are_negative():
    for value in (-np.inf, -5e-324, -1e-300):
        with pytest.raises(ValueError, match=rf"\bp\b.*{re.escape(str(value))}"):
            fastinfo.entropy([1.0, value])


def test_negative_entries_beside_nan_are_found():
    with pytest.raises(ValueError, match=r"\bp\b.*-1"):
        fastinfo.entropy([[np.nan, -1.0], [1.0, 1.0]])


@pytest.mark.parametrize("name", cases.PAIR_MEASURES)
def test_shapes_that_do_not_fit(name):
    with pytest.raises(ValueError, match=r"\bp\b.*\bq\b.*\(3, 4\).*\(3, 5\)"):
        getattr(fastinfo, name)(P, np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"\bp\b.*\bq\b.*\(3, 4\).*\(2, 4\)"):
        getattr(fastinfo, name)(P, np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"\bx\b.*\by\b.*4.*5"):
        fastinfo.pairwise(P, np.ones((3, 5)), name)
    for shape in ((4,), (2, 3, 4), ()):
        with pytest.raises(ValueError, match=r"\bx\b"):
            fastinfo.pairwise(np.ones(shape), None, name)
        with pytest.raises(ValueError, match=r"\by\b"):
            fastinfo.pairwise(P, np.ones(shape), name)


@pytest.mark.parametrize("base", [0, -1, 1, 1.0, float("nan"), -2.5])
def test_bad_bases(base):
    for name in ("entropy", *cases.WITH_BASE):
        with pytest.raises(ValueError, match=rf"\bbase\b.*{base}"):
            call_with(name, base=base)
    for name in cases.WITH_BASE:
        with pytest.raises(ValueError, match=rf"\bbase\b.*{base}"):
            fastinfo.pairwise(P, None, name, base=base)


@pytest.mark.parametrize("base", ["2", [2], 1j])
def test_bases_of_another_type(base):
    with pytest.raises(TypeError, match=r"\bbase\b"):
        fastinfo.entropy(P, base=base)


@pytest.mark.parametrize(
    "weights", [(0.5,), (1, 1, 1), (0, 1), (1, 0), (-1, 2), (np.nan, 1), (np.inf, 1)]
)
def test_bad_js_weights(weights):
    with pytest.raises(ValueError, match=r"\bweights\b"):
        fastinfo.js_divergence(P, P, weights=weights)
    with pytest.raises(ValueError, match=r"\bweights\b"):
        fastinfo.pairwise(P, measure="js_divergence", weights=weights)


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("jensenshannon", "js_distance"),
        ("kl_divergance", "kl_divergence"),
        ("hellinger", "hellinger_distance"),
        ("total_variaton", "total_variation"),
        ("js", "js_divergence|js_distance"),
        ("KL_divergence", "kl_divergence"),
    ],
)
def test_unknown_measures_suggest_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=rf"measure.*{name}.*did you mean [`']?({nearest})\b"):
        fastinfo.pairwise(P, measure=name)


@pytest.mark.parametrize("name", ["entropy", "perplexity", "zzz", ""])
def test_unknown_measures_list_the_known(name):
    with pytest.raises(ValueError) as caught:
        fastinfo.pairwise(P, measure=name)
    for measure in cases.PAIR_MEASURES:
        assert measure in str(caught.value)


def test_measures_are_names():
    for measure in (None, 3, fastinfo.js_divergence):
        with pytest.raises((TypeError, ValueError), match="measure"):
            fastinfo.pairwise(P, measure=measure)


def test_a_measure_in_the_place_of_y():
    with pytest.raises(TypeError, match=r"\by\b.*'kl_divergence'.*measure='kl_divergence'"):
        fastinfo.pairwise(P, "kl_divergence")


@pytest.mark.parametrize("name", cases.PAIR_MEASURES)
def test_unknown_parameters(name):
    with pytest.raises((TypeError, ValueError), match="alpha"):
        fastinfo.pairwise(P, measure=name, alpha=2.0)
    if name != "js_divergence":
        with pytest.raises((TypeError, ValueError), match="weights"):
            fastinfo.pairwise(P, measure=name, weights=(0.5, 0.5))


@pytest.mark.parametrize("name", ["hellinger_distance", "total_variation"])
def test_measures_without_a_base(name):
    for base in (2, 10.0):
        with pytest.raises(TypeError, match="base"):
            fastinfo.pairwise(P, measure=name, base=base)


def test_progress_is_a_bool_or_a_callable():
    with pytest.raises(TypeError, match="progress"):
        fastinfo.pairwise(P, progress="yes")


# Settings -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", [0, -1])
def test_numbers_of_threads(n):
    with pytest.raises(ValueError, match=rf"\bn\b.*{n}|threads.*{n}"):
        fastinfo.set_num_threads(n)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", [1.5, "2", None])
def test_numbers_of_threads_are_integers(n):
    with pytest.raises(TypeError, match=r"\bn\b|threads"):
        fastinfo.set_num_threads(n)


def test_unknown_settings():
    with pytest.raises(TypeError, match="no_such_setting"):
        fastinfo.config(no_such_setting=True)


def test_unknown_names():
    with pytest.raises(AttributeError, match="no_such_name"):
        fastinfo.no_such_name  # noqa: B018


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_whose_sum_is_infinite(reduction):
    z, y, huge = np.zeros((2, 3)), np.array([0, 1]), np.full(2, 1e308)
    calls = (
        lambda: fastinfo.softmax_cross_entropy(z, y, sample_weight=huge, reduction=reduction),
        lambda: fastinfo.softmax_cross_entropy(
            z, y, class_weight=[1e200] * 3, sample_weight=[1e200] * 2, reduction=reduction
        ),
        lambda: fastinfo.binary_cross_entropy_with_logits(
            z[0, :2], y, sample_weight=huge, reduction=reduction
        ),
    )
    for call in calls:
        if reduction == "sum":
            assert call() > 1e308
            continue
        with pytest.raises(ValueError, match=r"sample_weight.*finite sum.*got inf"):
            call()
