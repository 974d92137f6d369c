"""Recurrent language models: against torch by hand, and what every language model promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fitune.errors import RunError, TrainingError
from fitune.language_models.neural import Training
from fitune.language_models.recurrent import (
    Gru,
    Lstm,
    Recurrent,
    RecurrentOptions,
    Rnn,
    ThroughTime,
    padded,
)

VOCABULARY = 7
OPTIONS = RecurrentOptions(hidden=16, layers=2, dropout=0.0, span=8)
CELLS = [Rnn, Lstm, Gru]


def sequences(count: int = 30, *, longest: int = 40, seed: int = 0) -> list[np.ndarray]:
    """Counting upwards from anywhere, modulo the vocabulary, an empty sequence among them."""
    random = np.random.default_rng(seed)
    lengths = [0, longest, *random.integers(1, longest, size=count - 2)]
    starts = random.integers(VOCABULARY, size=count)
    return [
        ((start + np.arange(n)) % VOCABULARY).astype(np.int32)
        for start, n in zip(starts, lengths, strict=True)
    ]


def by_hand(model: Recurrent, sequence: np.ndarray) -> np.ndarray:
    """One token at a time in float64, by torch's single cells."""
    network = model.network
    cell_of = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[model.cell]
    cells = []
    for layer in range(model.options.layers):
        cell = cell_of(model.options.hidden, model.options.hidden).double()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            value = getattr(network.layers, f"{name}_l{layer}").detach().double()
            getattr(cell, name).data.copy_(value)
        cells.append(cell)
    memories: list = [None] * len(cells)
    weight, bias = network.head.weight.detach().double(), network.head.bias.detach().double()
    found = []
    end = model.vocabulary
    for token, target in zip([end, *sequence], [*sequence, end], strict=True):
        value = network.embedding(torch.tensor([token])).detach().double()
        for at, cell in enumerate(cells):
            memories[at] = cell(value, memories[at])
            value = memories[at][0] if model.cell == "lstm" else memories[at]
        found.append(torch.log_softmax(value @ weight.T + bias, dim=-1)[0, int(target)].item())
    return np.asarray(found)


@pytest.mark.parametrize("kind", CELLS)
def test_log_probabilities_are_those_of_single_cells(kind, monkeypatch) -> None:
    monkeypatch.setattr("fitune.language_models.recurrent.READ", 16)  # handed on between pieces
    model = kind(VOCABULARY, OPTIONS)
    given = sequences(6)
    found = model.log_probabilities(given)
    for sequence, log_probs in zip(given, found, strict=True):
        assert log_probs.dtype == np.float64
        np.testing.assert_allclose(log_probs, by_hand(model, sequence), atol=1e-5)


@pytest.mark.parametrize("kind", CELLS)
def test_next_distribution_agrees_with_log_probabilities(kind) -> None:
    model = kind(VOCABULARY, OPTIONS)
    sequence = sequences(3, seed=4)[2][:9]
    (log_probs,) = model.log_probabilities([sequence])
    for at, token in enumerate([*sequence, VOCABULARY]):
        distribution = model.next_distribution(sequence[:at])
        assert distribution.shape == (VOCABULARY + 1,) and distribution.dtype == np.float64
        assert distribution.sum() == pytest.approx(1, abs=1e-12)
        assert np.log(distribution[token]) == pytest.approx(log_probs[at], abs=1e-5)


@pytest.mark.parametrize("kind", CELLS)
def test_counting_is_learned_and_the_best_weights_are_kept(kind) -> None:
    model = kind(VOCABULARY, OPTIONS, Training(epochs=25, batch_tokens=128, learning_rate=0.02))
    train, held_out = sequences(60), sequences(20, seed=1)
    before = -np.concatenate(model.log_probabilities(held_out)).mean()
    model.fit(train, held_out)
    after = -np.concatenate(model.log_probabilities(held_out)).mean()
    # What remains is where a sequence begins and ends, a choice of 7 and one of about 40.
    assert before > 1.5 and after < 0.35
    assert model.learned is not None and model.learned.validation_loss is not None
    assert after <= model.learned.validation_loss + 1e-6  # all held-out sequences were asked


def test_same_seed_same_weights_and_another_seed_others() -> None:
    def weights(seed: int) -> torch.Tensor:
        training = Training(epochs=1, seed=seed, batch_tokens=64)
        model = Lstm(VOCABULARY, RecurrentOptions(hidden=8, dropout=0.3), training)
        state = torch.random.get_rng_state()
        model.fit(sequences())
        assert torch.equal(torch.random.get_rng_state(), state)  # the caller's own numbers
        return model.network.head.weight.detach()

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_the_loss_of_all_steps_is_the_cross_entropy_of_whole_sequences() -> None:
    """Truncation changes gradients, never what is predicted from what."""
    model = Gru(VOCABULARY, OPTIONS)
    given = sequences(5)
    lesson = ThroughTime(given, VOCABULARY, span=8)
    batches = list(lesson.steps(range(5)))
    total, learned = 0.0, 0
    steps = list(lesson.steps(range(5)))
    assert len(steps) == len(batches) == 6  # 41 tokens in steps of 8 at most
    for batch in lesson.steps(range(5)):
        total += lesson.loss_sum(model.network, batch).item()
        learned += batch.learned
    inputs, targets = padded(given, VOCABULARY)
    hidden, _ = model.network(inputs)
    logits = model.network.head(hidden)
    expected = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
    assert learned == sum(len(sequence) + 1 for sequence in given)
    assert total == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", CELLS)
def test_a_gradient_reaches_no_step_before_its_own(kind) -> None:
    model = kind(VOCABULARY, OPTIONS)
    sequence = sequences(2)[1]
    lesson = ThroughTime([sequence], VOCABULARY, span=8)
    steps = []
    for batch in lesson.steps([0]):
        # torch raises where a gradient reaches what a step before has freed.
        lesson.loss_sum(model.network, batch).backward()
        steps.append(batch.learned)
    assert steps == [7, 7, 6, 7, 7, 7] and sum(steps) == len(sequence) + 1


@pytest.mark.parametrize("kind", CELLS)
def test_saved_and_loaded_it_answers_alike(kind, tmp_path: Path) -> None:
    model = kind(VOCABULARY, OPTIONS, Training(epochs=1))
    model.fit(sequences())
    model.save(tmp_path / "model")
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".safetensors", ".json"}
    loaded = kind.load(tmp_path / "model")
    given = sequences(5, seed=2)
    for mine, theirs in zip(
        model.log_probabilities(given), loaded.log_probabilities(given), strict=True
    ):
        assert np.array_equal(mine, theirs)
    assert loaded.sample(20, seed=1) == model.sample(20, seed=1)
    assert loaded.parameters == model.parameters


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    Lstm(VOCABULARY, OPTIONS).save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(RunError, match=r"model\.safetensors' is damaged"):
        Lstm.load(tmp_path)
    (tmp_path / "model.json").write_text('{"vocabulary": 7}')
    with pytest.raises(RunError, match=r"model\.json' is damaged"):
        Lstm.load(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    Lstm(VOCABULARY, OPTIONS).save(tmp_path)
    with pytest.raises(RunError, match="damaged"):
        Gru.load(tmp_path)


def test_a_tied_weight_counts_once() -> None:
    model = Rnn(VOCABULARY, RecurrentOptions(hidden=4))
    # Embedding 8 x 4, head's bias 8, two matrices 4 x 4 and two biases of 4.
    assert model.parameters == 8 * 4 + 8 + 2 * 16 + 2 * 4


def test_samples_are_seeded_and_follow_the_distribution() -> None:
    model = Gru(VOCABULARY, OPTIONS)
    prefix = [1, 2]
    expected = model.next_distribution(prefix)
    first = np.zeros(VOCABULARY + 1)
    for seed in range(600):
        drawn = model.sample(1, seed=seed, prefix=prefix)
        first[drawn[0] if drawn else VOCABULARY] += 1
    assert np.abs(first / 600 - expected).max() < 0.08
    assert model.sample(30, seed=5) == model.sample(30, seed=5)
    assert len(model.sample(4, seed=5)) <= 4 and model.sample(0, seed=5) == []


def test_a_rate_that_blows_up_is_told() -> None:
    model = Rnn(VOCABULARY, OPTIONS, Training(learning_rate=float("inf"), epochs=2))
    with pytest.raises(TrainingError, match="lower the learning rate"):
        model.fit(sequences())
