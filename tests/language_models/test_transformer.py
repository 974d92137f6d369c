"""The transformer: against transformers in float64, and what every language model promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fitune.errors import ConfigError, RunError
from fitune.language_models.neural import Training
from fitune.language_models.transformer import NextToken, Pieces, Transformer, TransformerOptions

VOCABULARY = 7
OPTIONS = TransformerOptions(hidden=16, layers=2, heads=2, context=8)


def sequences(lengths: list[int], *, seed: int = 0) -> list[np.ndarray]:
    """Counting upwards from anywhere, modulo the vocabulary."""
    random = np.random.default_rng(seed)
    return [
        ((random.integers(VOCABULARY) + np.arange(n)) % VOCABULARY).astype(np.int32)
        for n in lengths
    ]


def test_log_probabilities_are_transformers_own() -> None:
    model = Transformer(VOCABULARY, OPTIONS)
    given = sequences([0, 3, 7])
    found = model.log_probabilities(given)
    network = model.network.double()
    for sequence, log_probs in zip(given, found, strict=True):
        with torch.no_grad():
            logits = network(input_ids=torch.tensor([[VOCABULARY, *sequence]])).logits[0]
        expected = torch.log_softmax(logits, dim=-1)[
            torch.arange(len(logits)), torch.tensor([*sequence, VOCABULARY])
        ]
        np.testing.assert_allclose(log_probs, expected.numpy(), atol=1e-5)


def test_long_sequences_are_read_through_windows_as_next_distribution_does() -> None:
    model = Transformer(VOCABULARY, OPTIONS)
    sequence = sequences([29])[0]
    (log_probs,) = model.log_probabilities([sequence])
    for at, token in enumerate([*sequence, VOCABULARY]):
        distribution = model.next_distribution(sequence[:at])
        assert distribution.sum() == pytest.approx(1, abs=1e-12)
        assert np.log(distribution[token]) == pytest.approx(log_probs[at], abs=1e-5)


def test_pieces_learn_each_token_once_from_the_one_before() -> None:
    given = sequences([0, 7, 8, 20, 3])
    pieces = Pieces(given, VOCABULARY, 8)
    assert pieces.lengths.tolist() == [1, 8, 8, 1, 8, 8, 5, 4]
    pairs = [
        pair
        for at, length in enumerate(pieces.lengths)
        for pair in zip(pieces[at].tokens, pieces[at].tokens[1:], strict=False)
        if len(pieces[at]) == length + 1
    ]
    expected = [
        pair
        for sequence in given
        for pair in zip([VOCABULARY, *sequence], [*sequence, VOCABULARY], strict=True)
    ]
    assert pairs == [(int(a), int(b)) for a, b in expected]


def test_rows_end_to_end_learn_what_padded_rows_do() -> None:
    model = Transformer(VOCABULARY, OPTIONS)
    pieces = Pieces(sequences([5, 2, 7]), VOCABULARY, 8)
    losses = []
    for packed in (True, False):
        lesson = NextToken(pieces, pad=VOCABULARY, packed=packed, fused=packed)
        (batch,) = lesson.steps(range(3))
        from fitune.training.packing import rows_apart

        with rows_apart(model.network, batch):
            losses.append(lesson.loss_sum(model.network, batch).item())
    expected = -sum(map(np.sum, model.log_probabilities(sequences([5, 2, 7]))))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(expected, rel=1e-5)


def test_counting_is_learned() -> None:
    training = Training(epochs=15, batch_tokens=128, learning_rate=0.01)
    model = Transformer(VOCABULARY, OPTIONS, training)
    random = np.random.default_rng(1)
    model.fit(sequences([*random.integers(5, 30, size=60)]), sequences([20] * 5, seed=3))
    held_out = np.concatenate(model.log_probabilities(sequences([20] * 10, seed=2)))
    assert -held_out.mean() < 0.45  # before: log(8) = 2.08
    assert model.learned is not None and model.learned.ended in ("epochs", "validation")


def test_saved_and_loaded_it_answers_alike(tmp_path: Path) -> None:
    model = Transformer(VOCABULARY, OPTIONS, Training(epochs=1))
    model.fit(sequences([9] * 20))
    model.save(tmp_path)
    loaded = Transformer.load(tmp_path)
    (mine,), (theirs,) = (m.log_probabilities(sequences([12])) for m in (model, loaded))
    assert np.array_equal(mine, theirs)
    assert loaded.sample(12, seed=1, prefix=[1]) == model.sample(12, seed=1, prefix=[1])
    assert loaded.parameters == model.parameters
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RunError):
        Transformer.load(tmp_path)


def test_same_seed_same_weights() -> None:
    made = []
    for _ in range(2):
        model = Transformer(VOCABULARY, OPTIONS, Training(epochs=1, seed=5))
        model.fit(sequences([9] * 20))
        made.append(model.network.lm_head.weight.detach())
    assert torch.equal(*made)


def test_heads_divide_the_hidden_size() -> None:
    with pytest.raises(ConfigError, match="use a multiple of 8"):
        Transformer(VOCABULARY, TransformerOptions(hidden=20, heads=4))
