"""The demo's language models: a bigram's counts, and a network trained by `linear_cross_entropy`.

What the network sees of the tokens before a place, as embeddings: the last few; those that
followed where the last one, two or three came before; and decaying means of the last few hundred.
One hidden layer turns them into a hidden state, and the embeddings are the classifier as well.
All around the loss is plain NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastinfo.linear import linear_cross_entropy

Parameters = dict[str, NDArray[np.floating]]

LAST = 5  # tokens seen one by one
# How often is looked up where the last token, the last two, the last three came before.
FOLLOWERS = (3, 2, 1)
WINDOW = 256  # tokens that the means reach back
DECAYS = (40.0, 150.0)  # tokens after which a weight in a mean has fallen to 1/e
SLOTS = LAST + sum(FOLLOWERS)
SEEN = SLOTS + len(DECAYS)  # embeddings

WIDTH = 96  # of embeddings and hidden states
INNER = 128  # units of the hidden layer; without it, perplexity after 100 steps was 41 and not 38
SEGMENT = 16  # consecutive places of a batch: they share most of their means
BATCH = 1024
STEPS = 160  # 3.2e12 operations in the products with the embeddings
RATE = 6e-3  # at the end of the warm-up, of WARM_UP steps; from there down to 0 in a straight line
WARM_UP = 30
MOMENTA = (0.9, 0.98)
LOGITS_MEMORY = 32 << 20  # for `linear_cross_entropy`


# --- counted --------------------------------------------------------------------------------------


class Bigram:
    """P(next | last) = weight * bigram + (1 - weight) * unigram, of one training stream.

    The unigram counts each type once more than it was seen, so that every type can come. After a
    type never followed by anything, the unigram alone speaks.
    """

    def __init__(self, stream: NDArray[np.int64], types: int) -> None:
        self.unigram = (np.bincount(stream, minlength=types) + 1) / (stream.size + types)
        pairs, seen = np.unique(stream[:-1] * types + stream[1:], return_counts=True)
        last, self.following = np.divmod(pairs, types)
        self.pairs = pairs
        self.start = np.searchsorted(last, np.arange(types + 1))
        self.bigram = seen / np.bincount(last, weights=seen)[last]
        self.weight = 0.5

    def tune(self, last: NDArray[np.int64], following: NDArray[np.int64]) -> None:
        """Set the weight that makes these tokens most likely."""
        wanted = last * self.unigram.size + following
        place = np.searchsorted(self.pairs, wanted).clip(max=self.pairs.size - 1)
        bigram = np.where(self.pairs[place] == wanted, self.bigram[place], 0)
        known = self.start[last] < self.start[last + 1]
        bigram, unigram = bigram[known], self.unigram[following[known]]
        weights = np.linspace(0.01, 0.99, 99)
        likelihood = [np.log(w * bigram + (1 - w) * unigram).sum() for w in weights]
        self.weight = float(weights[np.argmax(likelihood)])

    def logits(self, last: NDArray[np.int64], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fill a row of `out` for each token: the log-probability of every type to come next."""
        rest = (1 - self.weight) * self.unigram
        unseen, alone = np.log(rest).astype(np.float32), np.log(self.unigram).astype(np.float32)
        for row, token in zip(out, last, strict=True):
            seen = slice(self.start[token], self.start[token + 1])
            following = self.following[seen]
            row[:] = unseen if following.size else alone
            row[following] = np.log(self.weight * self.bigram[seen] + rest[following])
        return out


# --- tokens to batches ---------------------------------------------------------------------------


class Batch(NamedTuple):
    """Places to predict: what is seen before them, and the tokens there."""

    slots: NDArray[np.int64]  # (places, SLOTS); -1: nothing came before
    recent: NDArray[np.int64]  # (segments, WINDOW - 1 + places of a segment)
    targets: NDArray[np.int64]  # (places,)


class Stream:
    """A stream of tokens, and where the runs of tokens that end at each of them came before."""

    def __init__(self, tokens: NDArray[np.int64], unknown: int) -> None:
        self.tokens = np.concatenate([np.full(WINDOW, unknown), tokens])
        self.earlier = []
        names = self.tokens.astype(np.uint64)
        runs = names.copy()
        for _ in FOLLOWERS:
            self.earlier.append(earlier_occurrences(runs))
            # A hash; should two runs share one, a place sees a token that tells it nothing.
            runs = names + np.uint64(0x9E3779B97F4A7C15) * np.roll(runs, 1)

    def batch(self, starts: NDArray[np.int64], length: int) -> Batch:
        """Return segments of `length` places from each of `starts` on."""
        last = (starts[:, None] + np.arange(length)).ravel() + WINDOW - 1
        slots = [self.tokens[last - k] for k in range(LAST)]
        for earlier, occurrences in zip(self.earlier, FOLLOWERS, strict=True):
            place = last
            for _ in range(occurrences):
                place = np.where(place < 0, -1, earlier[place])
                slots.append(np.where(place < 0, -1, self.tokens[place + 1]))
        recent = self.tokens[starts[:, None] + np.arange(WINDOW - 1 + length)]
        return Batch(np.stack(slots, axis=1), recent, self.tokens[last + 1])


def earlier_occurrences(names: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return where each entry last came before, -1 if nowhere."""
    order = np.argsort(names, kind="stable")
    again = names[order[1:]] == names[order[:-1]]
    earlier = np.full(names.size, -1)
    earlier[order[1:][again]] = order[:-1][again]
    return earlier


# --- the model -----------------------------------------------------------------------------------


class LanguageModel:
    """Embeddings of what is seen, a hidden layer beside a direct way, and a linear classifier."""

    def __init__(
        self, unigram: NDArray[np.float64], width: int = WIDTH, inner: int = INNER, seed: int = 0
    ) -> None:
        normal = np.random.default_rng(seed).standard_normal
        features = SEEN * width + SLOTS
        # Hidden states of 0: what is learned starts from the unigram.
        start = {
            "embedding": normal((unigram.size, width)) * 2 / math.sqrt(width),
            "bias": np.log(unigram),
            "direct": np.zeros((features, width)),
            "inner": normal((features, inner)) * 0.5 / math.sqrt(width),
            "outer": np.zeros((inner, width)),
        }
        self.parameters: Parameters = {k: v.astype(np.float32) for k, v in start.items()}

    def hidden(self, batch: Batch) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the features of the places, the hidden layer, and the hidden states."""
        p = self.parameters
        places = batch.targets.size
        # Whether a slot is known is a feature too; the last tokens always are: they are the biases.
        known = (batch.slots >= 0).astype(p["embedding"].dtype)
        seen = p["embedding"][batch.slots] * known[:, :, None]
        means = decays(batch, known.dtype) @ p["embedding"][batch.recent]
        parts = seen.reshape(places, -1), means.reshape(places, -1), known
        features = np.concatenate(parts, axis=1)
        layer = np.maximum(features @ p["inner"], 0)
        return features, layer, features @ p["direct"] + layer @ p["outer"]

    def loss(self, batch: Batch) -> float:
        """Return the mean loss of a batch, in nats."""
        states = self.hidden(batch)[2]
        embedding, bias = self.parameters["embedding"], self.parameters["bias"]
        return float(
            linear_cross_entropy(
                states, embedding, batch.targets, bias=bias, memory_limit=LOGITS_MEMORY
            )
        )

    def gradients(self, batch: Batch) -> tuple[float, Parameters]:
        """Return the mean loss of a batch and its derivatives by the parameters."""
        p = self.parameters
        features, layer, states = self.hidden(batch)
        loss, by = linear_cross_entropy(
            states,
            p["embedding"],
            batch.targets,
            bias=p["bias"],
            return_grad=True,
            memory_limit=LOGITS_MEMORY,
        )
        by_layer = (by.hidden @ p["outer"].T) * (layer > 0)
        by_features = by.hidden @ p["direct"].T + by_layer @ p["inner"].T
        add_by_inputs(by.weight, by_features, batch)
        return float(loss), {
            "embedding": by.weight,
            "bias": by.bias,
            "direct": features.T @ by.hidden,
            "inner": features.T @ by_layer,
            "outer": layer.T @ by.hidden,
        }


def decays(batch: Batch, dtype: np.dtype) -> NDArray[Any]:
    """Return the weights of recent tokens in the means of each place of a segment, a row a mean."""
    recent = batch.recent.shape[1]
    length = recent - WINDOW + 1
    age = np.arange(length)[:, None, None] + WINDOW - 1 - np.arange(recent)
    weights = np.exp(-age / np.array(DECAYS)[:, None]) * ((age >= 0) & (age < WINDOW))
    weights /= weights.sum(axis=2, keepdims=True)
    return weights.reshape(-1, recent).astype(dtype)


def add_by_inputs(by_embedding: NDArray[Any], by_features: NDArray[Any], batch: Batch) -> None:
    """Add what the features say of the embeddings they are made of, to the derivative by those."""
    places, width = by_features.shape[0], by_embedding.shape[1]
    by_seen, by_means, _ = np.split(by_features, [SLOTS * width, SEEN * width], axis=1)
    weights = decays(batch, by_features.dtype)
    by_recent = weights.T @ by_means.reshape(len(batch.recent), len(weights), width)
    known = batch.slots >= 0
    rows = np.concatenate(
        [by_seen.reshape(places, SLOTS, width)[known], by_recent.reshape(-1, width)]
    )
    tokens = np.concatenate([batch.slots[known], batch.recent.ravel()])
    # Sorted, the rows of a token are one sum. `np.add.at` takes twice as long.
    order = np.argsort(tokens, kind="stable")
    types, starts = np.unique(tokens[order], return_index=True)
    by_embedding[types] += np.add.reduceat(rows[order], starts, axis=0)


# --- training ------------------------------------------------------------------------------------


class Adam:
    """Adam [1]_ of parameters that are changed in place.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization",
       arXiv:1412.6980 (2014).
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.steps = 0

    def step(self, gradients: Parameters, rate: float) -> None:
        """Take a step down; the gradients are overwritten."""
        first, second = MOMENTA
        self.steps += 1
        rate *= math.sqrt(1 - second**self.steps) / (1 - first**self.steps)
        for name, g in gradients.items():
            mean, square = self.mean[name], self.square[name]
            mean *= first
            mean += (1 - first) * g
            np.multiply(g, g, out=g)
            g *= 1 - second
            square *= second
            square += g
            np.sqrt(square, out=g)
            g += 1e-8
            np.divide(mean, g, out=g)
            g *= rate
            self.parameters[name] -= g


def train(
    model: LanguageModel, stream: Stream, end: int, steps: int, batch: int = BATCH, seed: int = 0
) -> Iterator[int]:
    """Take steps on random segments of the stream before `end`; yield the number of each."""
    rng = np.random.default_rng(seed)
    adam = Adam(model.parameters)
    for step in range(1, steps + 1):
        starts = rng.integers(0, end - SEGMENT + 1, batch // SEGMENT)
        gradients = model.gradients(stream.batch(starts, SEGMENT))[1]
        rising, falling = step / WARM_UP, (steps + 1 - step) / max(1, steps + 1 - WARM_UP)
        adam.step(gradients, RATE * min(rising, falling, 1))
        yield step


def perplexity(model: LanguageModel, stream: Stream, places: NDArray[np.int64]) -> float:
    """Return the model's perplexity on the tokens at `places`."""
    total = 0.0
    # Places apart share no means: each takes WINDOW embeddings, 25 MB for this many.
    for lo in range(0, places.size, 256):
        some = places[lo : lo + 256]
        total += model.loss(stream.batch(some, 1)) * some.size
    return math.exp(total / places.size)
