"""What `import fastinfo` loads, the public names and their signatures."""

import inspect
import re
import subprocess
import sys

import pytest

import fastinfo

HEAVY = {"numba", "llvmlite", "scipy", "sklearn", "torch", "jax", "cupy", "pandas", "matplotlib",
         "tqdm", "ml_dtypes", "mpmath"}  # fmt: skip


def run(program):
    """Return what a program prints in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_light():
    for statement in ("import fastinfo", "import fastinfo; dir(fastinfo); fastinfo.__version__"):
        loaded = set(eval(run(f"{statement}\nimport sys\nprint(list(sys.modules))")))
        assert not loaded & HEAVY
        assert "fastinfo" in loaded


def test_import_starts_no_thread():
    assert run("import fastinfo, threading; print(threading.active_count())") == "1\n"


def test_compiling_needs_no_optional_package():
    """Numba itself imports SciPy where it finds it."""
    program = """if True:
        import sys
        import numpy as np
        import fastinfo
        fastinfo.softmax_cross_entropy(np.zeros((2, 3), np.float32), [0, 1])
        fastinfo.pairwise(np.eye(3), measure="kl_divergence")
        print([m for m in sys.modules if "." not in m])
    """
    assert not set(eval(run(program))) & (HEAVY - {"numba", "llvmlite", "scipy"})


# The contract, as it is printed there. --------------------------------------------------------


class Contract:
    """Signatures of API.md; `...` stands for what is left open there."""

    def softmax_cross_entropy(
        logits, targets, *, axis=-1, class_weight=None, sample_weight=None, ignore_index=-100,
        label_smoothing=0.0, z_loss=0.0, temperature=1.0, softcap=None, reduction="mean",
        return_grad=False, out=None,
    ): ...  # fmt: skip

    def softmax_statistics(
        logits, targets=None, *, axis=-1, ignore_index=-100, temperature=1.0, softcap=None
    ): ...

    def logsumexp(x, *, axis=-1, keepdims=False): ...

    def softmax(x, *, axis=-1, temperature=1.0, out=None): ...

    def log_softmax(x, *, axis=-1, temperature=1.0, out=None): ...

    def perplexity(logits, targets, *, axis=-1, ignore_index=-100): ...

    def softmax_entropy(
        logits, *, axis=-1, temperature=1.0, reduction="none", return_grad=False, out=None
    ): ...

    def softmax_kl_divergence(
        p_logits, q_logits, *, axis=-1, temperature=1.0, reduction="mean", sample_weight=None,
        return_grad=False, out=None,
    ): ...  # fmt: skip

    def softmax_js_divergence(
        p_logits, q_logits, *, beta=0.5, axis=-1, temperature=1.0, reduction="mean",
        sample_weight=None, return_grad=False, out=None,
    ): ...  # fmt: skip

    def binary_cross_entropy(
        p, y, *, pos_weight=1.0, sample_weight=None, reduction="mean", return_grad=False, out=None
    ): ...

    def binary_cross_entropy_with_logits(
        logits, y, *, pos_weight=1.0, sample_weight=None, reduction="mean", return_grad=False,
        out=None,
    ): ...  # fmt: skip

    def negative_log_likelihood(
        q, targets, *, axis=-1, base=None, ignore_index=-100, reduction="mean"
    ): ...

    def entropy(p, *, base=None, axis=-1, keepdims=False, normalize=True): ...

    def cross_entropy(p, q, *, base=None, axis=-1, keepdims=False, normalize=True): ...

    def kl_divergence(p, q, *, base=None, axis=-1, keepdims=False, normalize=True): ...

    def js_divergence(
        p, q, weights=(0.5, 0.5), *, base=None, axis=-1, keepdims=False, normalize=True
    ): ...

    def js_distance(p, q, *, base=None, axis=-1, keepdims=False, normalize=True): ...

    def hellinger_distance(p, q, *, axis=-1, keepdims=False, normalize=True): ...

    def total_variation(p, q, *, axis=-1, keepdims=False, normalize=True): ...

    def joint_entropy(pxy, *, base=None, normalize=True): ...

    def conditional_entropy(pxy, *, base=None, normalize=True): ...

    def mutual_information(pxy, *, base=None, normalize=True): ...

    def normalized_mutual_information(pxy, average="arithmetic", *, normalize=True): ...

    def pointwise_mutual_information(pxy, *, base=None, normalize=True): ...

    def information_gain(parent, children, *, base=None): ...

    def surprisal(p, *, base=None): ...

    def contingency(x, y): ...

    def pairwise(
        x, y=None, measure="js_divergence", *, base=None, normalize=True, out=None,
        condensed=False, progress=False, **parameters,
    ): ...  # fmt: skip

    def mutual_information_matrix(
        x, y=None, *, base=None, normalized=False, average="arithmetic", progress=False
    ): ...

    def measures(): ...

    def set_num_threads(n): ...

    def get_num_threads(): ...

    def config(): ...


FUNCTIONS = [name for name in vars(Contract) if not name.startswith("_")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(name):
    """Every parameter of the contract, by its name, kind and default; more are welcome."""
    function = getattr(fastinfo, name)
    actual = inspect.signature(function).parameters
    expected = inspect.signature(vars(Contract)[name]).parameters
    for parameter in expected.values():
        assert parameter.name in actual
        found = actual[parameter.name]
        assert found.default == parameter.default
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            assert found.kind == parameter.kind
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    first = [p.name for p in expected.values() if p.kind is positional]
    assert [p.name for p in actual.values() if p.kind is positional][: len(first)] == first


@pytest.mark.parametrize(
    "name", [*FUNCTIONS, "SoftmaxStatistics", "StreamingCrossEntropy", "Contingency"]
)
def test_public_names(name):
    assert name in dir(fastinfo)
    assert name in fastinfo.__all__
    public = getattr(fastinfo, name)
    assert public is getattr(fastinfo, name)
    assert inspect.getdoc(public)
    assert inspect.isclass(public) or public.__name__ == name


def test_star_import_and_dir_agree():
    names: dict[str, object] = {}
    exec("from fastinfo import *", names)
    names.pop("__builtins__")
    assert set(names) == set(fastinfo.__all__)
    assert set(fastinfo.__all__) <= set(dir(fastinfo))
    assert all(getattr(fastinfo, name) is value for name, value in names.items())


def test_modules_do_not_hide_functions():
    """No module of the package bears the name of a public function."""
    program = """if True:
        import importlib, pkgutil, fastinfo
        modules = [m.name for m in pkgutil.iter_modules(fastinfo.__path__)]
        print(sorted(set(modules) & set(fastinfo.__all__)))
    """
    assert run(program) == "[]\n"


def test_docstrings_are_complete():
    """One sentence, the parameters, what is returned in which unit, and an example."""
    for name in FUNCTIONS[: FUNCTIONS.index("measures")]:
        text = inspect.getdoc(getattr(fastinfo, name))
        assert text.splitlines()[0].endswith(".")
        for section in ("Parameters", "Returns", "Examples"):
            assert f"{section}\n{'-' * len(section)}" in text, (name, section)
        for parameter in inspect.signature(getattr(fastinfo, name)).parameters:
            assert parameter in text, (name, parameter)


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.\w+)?", fastinfo.__version__)
