"""Draw the pictures of the guide: ``python docs/figures.py``.

Labels are symbols, so that translations share them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import fastinfo

FOLDER = Path(__file__).parent / "images"
P, Q = np.array([0.5, 0.25, 0.125, 0.125]), np.array([0.25, 0.25, 0.25, 0.25])


def surprise(axes: Any) -> None:
    """Draw -log p."""
    p = np.linspace(0.005, 1, 400)
    axes.plot(p, fastinfo.surprisal(p, base=2))
    at = np.array([0.125, 0.25, 0.5, 1.0])
    axes.plot(at, fastinfo.surprisal(at, base=2), "o")
    axes.set(xlabel="$p$", ylabel=r"$-\log_2 p$", ylim=(0, 7.5))


def binary_entropy(axes: Any) -> None:
    """Draw the entropy of {p, 1 - p}."""
    p = np.linspace(0, 1, 401)
    axes.plot(p, fastinfo.entropy(np.stack([p, 1 - p], -1), base=2))
    axes.set(xlabel="$p$", ylabel="$h(p)$")
    axes.axvline(0.5, color="0.8", zorder=0)


def code_lengths(axes: Any) -> None:
    """Draw code lengths of p and of q, each bar as wide as its symbol is probable."""
    edges = np.concatenate([[0], np.cumsum(P)])
    for lengths, colour, label in (
        (fastinfo.surprisal(Q, base=2), "C1", r"$-\log_2 q$"),
        (fastinfo.surprisal(P, base=2), "C0", r"$-\log_2 p$"),
    ):
        axes.stairs(lengths, edges, color=colour, label=label, linewidth=2)
    axes.set(xlabel="$p$", xlim=(0, 1), ylim=(0, 3.4))
    axes.set_xticks(edges, [f"{edge:g}" for edge in edges], fontsize=7)
    axes.legend()


def kl_asymmetry(axes: Any) -> None:
    """Draw both divergences of {p, 1 - p} and {1/2, 1/2}."""
    p = np.linspace(0.001, 0.999, 400)
    one, half = np.stack([p, 1 - p], -1), np.array([0.5, 0.5])
    axes.plot(p, fastinfo.kl_divergence(one, half), label=r"$D(P \parallel Q)$")
    axes.plot(p, fastinfo.kl_divergence(half, one), label=r"$D(Q \parallel P)$")
    axes.axhline(np.log(2), color="0.8", zorder=0)
    axes.set(xlabel="$p$", ylim=(0, 2.5))
    axes.legend()


def js(axes: Any) -> None:
    """Draw what is bounded, as {p, 1 - p} parts from {1 - p, p}."""
    p = np.linspace(0.5, 1, 200)
    one, other = np.stack([p, 1 - p], -1), np.stack([1 - p, p], -1)
    axes.plot(p, fastinfo.js_divergence(one, other), label=r"$\mathrm{JS}$")
    axes.plot(p, fastinfo.hellinger_distance(one, other) ** 2, label="$h^2$")
    axes.plot(p, fastinfo.total_variation(one, other), label=r"$\mathrm{TV}$")
    axes.axhline(np.log(2), color="0.8", zorder=0)
    axes.set(xlabel="$p$")
    axes.text(0.5, np.log(2) + 0.02, r"$\ln 2$")
    axes.legend()


def mixture(axes: Any) -> None:
    """Draw P, Q and the mixture of both."""
    p, q = np.array([0.5, 0.3, 0.15, 0.05, 0]), np.array([0, 0.1, 0.2, 0.3, 0.4])
    k = np.arange(5)
    axes.bar(k - 0.27, p, 0.27, label="$P$")
    axes.bar(k, (p + q) / 2, 0.27, label="$M$", color="0.6")
    axes.bar(k + 0.27, q, 0.27, label="$Q$")
    axes.set_xticks(k, k + 1)
    axes.set(xlabel="$k$")
    axes.legend()


def mutual_information(axes: Any) -> None:
    """Draw a joint table with its margins."""
    joint = np.array([[0.25, 0.05, 0.02], [0.05, 0.2, 0.08], [0.02, 0.08, 0.25]])
    shown = np.full((4, 4), np.nan)
    shown[:3, :3], shown[:3, 3], shown[3, :3] = joint, joint.sum(1), joint.sum(0)
    inside = np.where(np.isnan(shown), 0, shown)
    inside[3], inside[:, 3] = np.nan, np.nan
    axes.imshow(inside, cmap="Blues", vmin=0, vmax=0.4)
    for i, j in np.ndindex(4, 4):
        if not np.isnan(shown[i, j]):
            axes.text(j, i, f"{shown[i, j]:.2f}", ha="center", va="center")
    axes.set_xticks(range(4), ["$y_1$", "$y_2$", "$y_3$", "$p(x)$"])
    axes.set_yticks(range(4), ["$x_1$", "$x_2$", "$x_3$", "$p(y)$"])
    axes.tick_params(length=0)


def softmax(axes: Any) -> None:
    """Draw one row of logits at several temperatures."""
    z, k = np.array([2.0, 1.0, 0.5, 0.0, -1.0]), np.arange(5)
    for i, temperature in enumerate((0.5, 1.0, 3.0)):
        p = fastinfo.softmax(z, temperature=temperature)
        axes.bar(k + 0.27 * (i - 1), p, 0.27, label=f"$T = {temperature:g}$")
    axes.set_xticks(k, [f"{v:g}" for v in z])
    axes.set(xlabel="$z_k$", ylabel="$p_k$")
    axes.legend()


def gradient(axes: Any) -> None:
    """Draw p, y and the gradient p - y."""
    z, k = np.array([2.0, 1.0, 0.5, 0.0, -1.0]), np.arange(5)
    p, y = fastinfo.softmax(z), np.eye(5)[1]
    for i, (values, label) in enumerate(((p, "$p$"), (y, "$y$"), (p - y, "$p - y$"))):
        axes.bar(k + 0.27 * (i - 1), values, 0.27, label=label)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xticks(k, k + 1)
    axes.set(xlabel="$k$")
    axes.legend()


def perplexity(axes: Any) -> None:
    """Draw the perplexity of a loss."""
    loss = np.linspace(0, 5, 200)
    axes.plot(loss, np.exp(loss))
    at = np.log([2, 10, 50])
    axes.plot(at, np.exp(at), "o")
    for x in at:
        axes.annotate(f"{np.exp(x):.0f}", (x, np.exp(x)), (-14, 6), textcoords="offset points")
    axes.set(xlabel=r"$\ell$", ylabel=r"$e^{\ell}$", yscale="log")


FIGURES: dict[str, Callable[[Any], None]] = {
    "surprise": surprise,
    "binary-entropy": binary_entropy,
    "code-lengths": code_lengths,
    "kl-asymmetry": kl_asymmetry,
    "js": js,
    "mixture": mixture,
    "mutual-information": mutual_information,
    "softmax": softmax,
    "gradient": gradient,
    "perplexity": perplexity,
}


def main() -> None:
    """Draw all of them, with the same bytes each time."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        with rc_context({"svg.hashsalt": "fastinfo", "svg.fonttype": "path"}):
            figure = Figure(figsize=(4.5, 3), layout="constrained")
            draw(figure.add_subplot())
            figure.savefig(FOLDER / f"guide-{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
