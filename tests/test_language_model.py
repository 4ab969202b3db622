"""What the demo's language model sees, its hand-written gradient, and that it learns."""

import numpy as np
import pytest

from fastinfo import language_model
from fastinfo.language_model import FOLLOWERS, LAST, WINDOW, LanguageModel, Stream

TYPES = 23


@pytest.fixture
def tokens():
    """Return a stream in which each token mostly calls for one other, and phrases come again."""
    rng = np.random.default_rng(5)
    following = rng.permutation(TYPES)
    stream = [0]
    for _ in range(2999):
        stream.append(following[stream[-1]] if rng.random() < 0.6 else rng.integers(TYPES))
    return np.array(stream)


def unigram(tokens):
    return (np.bincount(tokens, minlength=TYPES) + 1) / (tokens.size + TYPES)


def test_a_batch_shows_what_came_before_and_nothing_later(tokens):
    starts = np.array([0, 1, 700, 2000])
    batch = Stream(tokens, TYPES - 1).batch(starts, 3)
    padded = [TYPES - 1] * WINDOW + tokens.tolist()
    places = [start + WINDOW + k for start in starts for k in range(3)]
    for place, slots in zip(places, batch.slots.tolist(), strict=True):
        before = padded[:place]
        expected = before[: -LAST - 1 : -1]
        for length, occurrences in enumerate(FOLLOWERS, 1):
            run = before[-length:]
            ends = [i for i in range(length, place) if before[i - length : i] == run]
            found = [before[i] for i in reversed(ends)][:occurrences]
            expected += found + [-1] * (occurrences - len(found))
        if place > 2 * WINDOW:  # further up the padding comes before itself
            assert slots == expected
        assert slots[:LAST] == expected[:LAST]
    assert batch.targets.tolist() == [padded[place] for place in places]
    for start, recent in zip(starts, batch.recent.tolist(), strict=True):
        assert recent == padded[start : start + WINDOW + 2]


def test_a_mean_is_over_the_window_before_each_place(tokens):
    batch = Stream(tokens, TYPES - 1).batch(np.array([5, 900]), 4)
    weights = language_model.decays(batch, np.dtype(float)).reshape(4, 2, -1)
    np.testing.assert_allclose(weights.sum(axis=2), 1)
    for place, rows in enumerate(weights):
        inside = rows[:, place : place + WINDOW]
        np.testing.assert_allclose(inside.sum(axis=1), 1)
        ratios = np.exp(1 / np.array(language_model.DECAYS))[:, None]
        np.testing.assert_allclose(inside[:, 1:] / inside[:, :-1], np.tile(ratios, WINDOW - 1))


def test_the_gradient_is_that_of_central_differences(tokens):
    rng = np.random.default_rng(7)
    model = LanguageModel(unigram(tokens), width=6, inner=5)
    # Not at the start, where what is 0 would hide the rest.
    model.parameters = {
        name: value + 0.3 * rng.standard_normal(value.shape)
        for name, value in model.parameters.items()
    }
    batch = Stream(tokens, TYPES - 1).batch(np.array([0, 3, 900, 901]), 3)
    loss, gradients = model.gradients(batch)
    assert loss == pytest.approx(model.loss(batch), rel=1e-12)
    assert gradients.keys() == model.parameters.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float64
        value = model.parameters[name]
        direction = rng.standard_normal(value.shape)
        ends = []
        for step in (1e-6, -1e-6):
            model.parameters[name] = value + step * direction
            ends.append(model.loss(batch))
        model.parameters[name] = value
        assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_adam_takes_the_steps_of_its_definition():
    rng = np.random.default_rng(1)
    value = rng.standard_normal(4)
    parameters = {"x": value.copy()}
    adam = language_model.Adam(parameters)
    first, second = language_model.MOMENTA
    mean = square = np.zeros(4)
    for step in range(1, 4):
        gradient = rng.standard_normal(4)
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        value -= 0.1 * mean / (1 - first**step) / np.sqrt(square / (1 - second**step))
        adam.step({"x": gradient.copy()}, 0.1)
        np.testing.assert_allclose(parameters["x"], value, rtol=1e-6)


def test_training_goes_below_the_unigram_on_tokens_not_trained_on(tokens):
    stream = Stream(tokens, TYPES - 1)
    model = LanguageModel(unigram(tokens[:2000]), width=16, inner=8)
    held_out = np.arange(2000, tokens.size)
    before = language_model.perplexity(model, stream, held_out)
    assert before == pytest.approx(
        np.exp(-np.log(unigram(tokens[:2000])[tokens[2000:]]).mean()), rel=1e-4
    )
    assert list(language_model.train(model, stream, 2000, 60, batch=256)) == list(range(1, 61))
    assert language_model.perplexity(model, stream, held_out) < before / 1.5
