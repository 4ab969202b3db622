"""What the package is to reach: ratios of two calls timed in the same rounds, and a few figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.memory import LINEAR as LINEAR_MEMORY
from benchmarks.memory import NEAREST as NEAREST_MEMORY
from benchmarks.neighbors import ALIKE, CLUSTERED
from benchmarks.processes import Figure
from fastinfo.bench import Row, fastest

# "No slower" leaves this much to the noise of the clock.
NO_SLOWER = 0.98


@dataclass(frozen=True)
class Goal:
    """A bound on how many times faster `ours` is than `other`, or on a figure (no `other`).

    Names are of cases; a group stands for its fastest case.
    """

    what: str
    section: str
    ours: str
    other: str = ""
    bound: float = 1.0

    @property
    def is_ratio(self) -> bool:
        """Whether larger is better."""
        return bool(self.other)

    def reached(self, value: float) -> bool:
        """Whether the value is within the bound."""
        return value >= self.bound if self.is_ratio else value <= self.bound


@dataclass(frozen=True)
class Outcome:
    """A goal with the two sides that were measured and their ratio, None where one is missing."""

    goal: Goal
    ours: Row | Figure | None
    other: Row | None
    value: float | None


LOSS, GRADIENT = "loss, float32", "loss + gradient, float32, buffer"
JS32 = "js_divergence, float32, Dirichlet(1)"
JS64 = "js_divergence, float64, Dirichlet(1)"
MATMUL = "product float32"
MUTUAL_INFORMATION = "mutual_information_matrix"
LINEAR = "linear_cross_entropy, float32"
LINEAR_GRADIENTS = "linear_cross_entropy + gradients, float32, buffer"
LINEAR_GRADIENTS_MADE = LINEAR_GRADIENTS.replace("buffer", "new memory")
LINEAR_TORCH = "torch eager linear + cross_entropy + gradients, float32"

GOALS = (
    Goal("float32 loss, against a plain sum", "loss", LOSS, "read float32", 0.92),
    Goal("float32 loss + gradient, against a copy", "loss", GRADIENT, "copy float32", 0.95),
    Goal(
        "the same in place, against out of place",
        "loss",
        "loss + gradient, float32, in place",
        GRADIENT,
        NO_SLOWER,
    ),
    Goal(
        "bfloat16 loss, against a plain sum of the same bytes",
        "loss",
        "loss, bfloat16",
        "read 16-bit bytes",
        0.65,
    ),
    Goal("float64 loss, against a plain sum", "loss", "loss, float64", "read float64", 0.75),
    Goal("loss, against torch eager", "loss", LOSS, "torch eager loss, float32", 11.0),
    Goal(
        "loss + gradient into a buffer, against torch eager",
        "loss",
        GRADIENT,
        "torch eager loss + gradient, float32",
        18.0,
    ),
    Goal(
        "loss + gradient into new memory, against torch eager",
        "loss",
        "loss + gradient, float32, new array",
        "torch eager loss + gradient, float32",
        18.0,
    ),
    Goal("loss, against torch.compile", "loss", LOSS, "torch.compile loss, float32", 1.8),
    Goal(
        "one row of 16M bfloat16 classes, all threads against one",
        "one-row",
        "one row of 16M, bfloat16, all threads",
        "one row of 16M, bfloat16, 1 thread",
        1.5,
    ),
    Goal(
        "one row of 1M float32 classes, all threads against one",
        "one-row",
        "one row of 1M, float32, all threads",
        "one row of 1M, float32, 1 thread",
        NO_SLOWER,
    ),
    Goal("65536 x 1000 float32 loss, against a plain sum", "thousand", LOSS, "read float32", 0.6),
    Goal(
        "softmax_statistics with targets, against a plain sum",
        "softmaxes",
        "softmax_statistics, float32",
        "read float32",
        0.6,
    ),
    Goal(
        "softmax_entropy, against a plain sum",
        "softmaxes",
        "softmax_entropy, float32",
        "read float32",
        0.7,
    ),
    Goal(
        "softmax_entropy + gradient, against a copy",
        "softmaxes",
        "softmax_entropy + gradient, float32, buffer",
        "copy float32",
        0.8,
    ),
    Goal(
        "softmax_kl_divergence, against a plain sum of both arrays",
        "softmaxes",
        "softmax_kl_divergence, float32",
        "read float32",
        0.7,
    ),
    Goal(
        "softmax_kl_divergence + gradient, against torch eager",
        "softmaxes",
        "softmax_kl_divergence + gradient, float32, buffer",
        "torch eager kl_div + gradient, float32",
        8.0,
    ),
    Goal(
        "a vocabulary in 16 pieces, against the whole",
        "softmaxes",
        "StreamingCrossEntropy, float32, 16 pieces",
        LOSS,
        1 / 1.2,
    ),
    Goal(
        "binary cross-entropy + gradient, against a copy",
        "binary",
        "binary_cross_entropy_with_logits + gradient, float32, buffer",
        "copy float32",
        0.7,
    ),
    Goal("linear cross-entropy, against the bare product", "linear", LINEAR, "product", 0.88),
    Goal(
        "linear cross-entropy + gradients, against the three bare products",
        "linear",
        LINEAR_GRADIENTS,
        "three products",
        0.80,
    ),
    Goal(
        "linear cross-entropy, against torch eager",
        "linear",
        LINEAR,
        "torch eager linear + cross_entropy, float32",
        1.7,
    ),
    Goal(
        "linear cross-entropy + gradients into buffers, against torch eager",
        "linear",
        LINEAR_GRADIENTS,
        LINEAR_TORCH,
        1.6,
    ),
    Goal(
        "linear cross-entropy + gradients in new memory, against torch eager",
        "linear",
        LINEAR_GRADIENTS_MADE,
        LINEAR_TORCH,
        1.6,
    ),
    Goal(
        "linear cross-entropy of 16 rows, a million classes, against the bare product",
        "linear-few",
        LINEAR,
        "product",
        0.6,
    ),
    Goal(
        "JS float32, one thread, against SimSIMD",
        "pairs",
        f"{JS32}, 1 thread",
        f"simsimd, 1 thread, {JS32}",
        1.8,
    ),
    Goal("JS float32, against SciPy cdist", "pairs", JS32, f"scipy, 1 thread, {JS32}", 150.0),
    Goal("JS float64, against SciPy cdist", "pairs", JS64, f"scipy, 1 thread, {JS64}", 45.0),
    Goal(
        "KL float32, Dirichlet(0.3) rows, against numpy.matmul",
        "products",
        "kl_divergence, float32, Dirichlet(0.3)",
        MATMUL,
        0.85,
    ),
    Goal(
        "KL float32, nearly equal rows, against numpy.matmul",
        "products",
        "kl_divergence, float32, nearly equal",
        MATMUL,
        0.7,
    ),
    *(
        Goal(f"{what}, against the bare products", "products", name, MATMUL, 0.85)
        for what, name in (
            ("Jeffreys float32", "jeffreys_divergence, float32, Dirichlet(0.3)"),
            ("Hellinger float32", "hellinger_distance, float32, Dirichlet(0.3)"),
            ("Rényi float32, alpha 1/2", "renyi_divergence, alpha 0.5, float32, Dirichlet(0.3)"),
            ("Rényi float32, alpha 2", "renyi_divergence, alpha 2, float32, Dirichlet(0.3)"),
        )
    ),
    *(
        Goal(
            f"JS float32, {kind} rows, against Dirichlet(0.3)",
            "pairs",
            f"js_divergence, float32, {kind}",
            "js_divergence, float32, Dirichlet(0.3)",
            1 / 1.5,
        )
        for kind in ("Dirichlet(20)", "nearly equal")
    ),
    Goal(
        "JS float32, 8 bins, against SciPy cdist in float64",
        "few-bins",
        JS32,
        f"scipy, 1 thread, {JS64}",
        40.0,
    ),
    Goal(
        "nearest under JS, clustered rows, against pairwise + argpartition",
        "nearest",
        f"nearest, {CLUSTERED}",
        f"pairwise + argpartition, {CLUSTERED}",
        5,
    ),
    Goal(
        "the same on rows of one distribution",
        "nearest",
        f"nearest, {ALIKE}",
        f"pairwise + argpartition, {ALIKE}",
        1 / 1.3,
    ),
    Goal(
        "JS of sparse rows, against our dense matrix of some, scaled",
        "sparse",
        "js_divergence, 100 entries a row",
        "js_divergence, dense",
        20,
    ),
    Goal(
        "JS of sparse rows with twice as many entries, against as many",
        "sparse",
        "js_divergence, 200 entries a row",
        "js_divergence, 100 entries a row",
        1 / 2.2,
    ),
    Goal(
        "mutual_information_matrix, against scikit-learn",
        "mutual-information",
        MUTUAL_INFORMATION,
        "scikit-learn mutual_info_score, 1 thread",
        100.0,
    ),
    Goal(
        "mutual_information_matrix, against the one-hot product",
        "mutual-information",
        MUTUAL_INFORMATION,
        "product",
        0.5,
    ),
    Goal(
        "import fastinfo, beyond import numpy (s)",
        "start",
        "import fastinfo, beyond import numpy",
        bound=0.030,
    ),
    Goal(
        "a new process to its first loss, compiled before (s)",
        "start",
        "first loss, kernels compiled before",
        bound=0.6,
    ),
    Goal(
        "a new process to its first loss, never compiled (s)",
        "start",
        "first loss, never compiled before",
        bound=2.5,
    ),
    Goal(
        "extra memory of a linear cross-entropy + gradients (share of 8 GiB of logits)",
        "memory",
        LINEAR_MEMORY,
        bound=256 / 8192,
    ),
    Goal(
        "extra memory of nearest (share of the matrix of 381 MiB)",
        "memory",
        NEAREST_MEMORY,
        bound=200 / 381,
    ),
    Goal(
        "extra memory of any loss (share of the logits)",
        "memory",
        "largest extra memory of a loss",
        bound=0.1,
    ),
)


def judge(
    goal: Goal, rows: Mapping[str, Sequence[Row]], figures: Mapping[str, Sequence[Figure]]
) -> Outcome:
    """Look a goal up in what was measured."""
    if not goal.is_ratio:
        figure = next((f for f in figures.get(goal.section, ()) if f.name == goal.ours), None)
        return Outcome(goal, figure, None, figure.value if figure else None)
    measured = rows.get(goal.section, ())
    ours, other = fastest(measured, goal.ours), fastest(measured, goal.other)
    value = ours.speed_over(other) if ours and other else None
    return Outcome(goal, ours, other, value)
