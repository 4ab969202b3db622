"""Information quantities over very large arrays, at the speed of the machine.

Public names are imported on first use, so that ``import fastinfo`` costs next to nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "fastinfo.losses": (
        "SoftmaxStatistics",
        "log_softmax",
        "logsumexp",
        "negative_log_likelihood",
        "perplexity",
        "softmax",
        "softmax_cross_entropy",
        "softmax_statistics",
    ),
    "fastinfo.softmaxes": (
        "softmax_entropy",
        "softmax_js_divergence",
        "softmax_kl_divergence",
    ),
    "fastinfo.binary": ("binary_cross_entropy", "binary_cross_entropy_with_logits"),
    "fastinfo.linear": ("LinearGradients", "linear_cross_entropy", "linear_softmax_statistics"),
    "fastinfo.streaming": ("StreamingCrossEntropy",),
    "fastinfo.information": (
        "bhattacharyya_distance",
        "cross_entropy",
        "entropy",
        "hellinger_distance",
        "jeffreys_divergence",
        "js_distance",
        "js_divergence",
        "kl_divergence",
        "renyi_divergence",
        "surprisal",
        "total_variation",
    ),
    "fastinfo.tables": (
        "conditional_entropy",
        "information_gain",
        "joint_entropy",
        "mutual_information",
        "normalized_mutual_information",
        "pointwise_mutual_information",
    ),
    "fastinfo.samples": ("Contingency", "contingency", "mutual_information_matrix"),
    "fastinfo.matrices": ("pairwise",),
    "fastinfo.neighbors": ("Neighbors", "nearest", "within"),
    "fastinfo.catalogue": ("Measure", "measures"),
    "fastinfo.configuration": ("config",),
    "fastinfo.engine": ("get_num_threads", "set_num_threads"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = ("gaussian", "numba", "sklearn", "torch")
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"fastinfo.{name}")
    if name not in _HOMES:
        from difflib import get_close_matches

        from fastinfo.elsewhere import ELSEWHERE

        names = [*__all__, *_SUBMODULES]
        near = [ELSEWHERE[name]] if name in ELSEWHERE else get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module 'fastinfo' has no attribute {name!r}{hint}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *_SUBMODULES, "__version__"]
