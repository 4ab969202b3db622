"""Steps of training a model of words, the same with each loss, beside PyTorch's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from fastinfo.bench import Case

STEPS = 4

Head = tuple[int, int, int]
# Given the model's hidden states, its last layer and the targets.
Loss = Callable[[Any, Any, Any], Any]


def train(shape: Head, loss: Loss) -> list[float]:
    """Return the losses of some steps of a model of the next word, from the same start."""
    import torch

    tokens, width, words = shape
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Embedding(words, width), torch.nn.Tanh())
    head = torch.nn.Linear(width, words, bias=False)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=2.0)
    seen = torch.randint(0, words, (tokens,))
    following = (3 * seen + 1) % words
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = loss(body(seen), head, following)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def _losses() -> Iterator[tuple[str, Loss, bool]]:
    import torch

    import fastinfo.torch

    functional, ours = torch.nn.functional, fastinfo.torch
    yield "fastinfo.torch.cross_entropy", lambda h, head, y: ours.cross_entropy(head(h), y), False
    yield (
        "fastinfo.torch.linear_cross_entropy",
        lambda h, head, y: ours.linear_cross_entropy(h, head.weight, y),
        False,
    )
    name = "torch.nn.functional"
    yield f"{name}.cross_entropy", lambda h, head, y: functional.cross_entropy(head(h), y), True
    if hasattr(functional, "linear_cross_entropy"):
        yield (
            f"{name}.linear_cross_entropy",
            lambda h, head, y: functional.linear_cross_entropy(h, head.weight, y),
            True,
        )


def cases(shape: Head, threads: int) -> list[Case]:
    """Return the training with each loss; none without PyTorch.

    The error is that of its losses from those of PyTorch's cross-entropy.
    """
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    torch.set_num_threads(threads)
    losses = list(_losses())
    theirs = next(loss for name, loss, _ in losses if name == "torch.nn.functional.cross_entropy")

    def error(found: list[float]) -> float:
        known = train(shape, theirs)
        return max(abs(a - b) / b for a, b in zip(found, known, strict=True))

    return [
        Case(
            name,
            lambda loss=loss: train(shape, loss),
            work=STEPS * shape[0],
            unit="token",
            error=error,
            peer=peer,
        )
        for name, loss, peer in losses
    ]
