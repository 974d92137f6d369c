"""How networks train: groups of rows, when training ends, which weights are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fitune.data.batches import Batch
from fitune.language_models.neural import Training, alike, chosen_log_probs, learn, some


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    budget=st.integers(1, 200),
    span=st.integers(1, 30),
    seed=st.none() | st.integers(0, 5),
)
def test_every_row_is_in_one_group_within_the_budget(lengths, budget, span, seed) -> None:
    random = None if seed is None else np.random.default_rng(seed)
    groups = alike(np.asarray(lengths, dtype=np.int64), budget, span=span, random=random)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        longest = min(span, max(lengths[row] for row in group))
        assert len(group) == 1 or longest * len(group) <= budget


def test_rows_of_a_group_are_about_equally_long() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 100, size=2000)
    groups = alike(lengths, 512, span=1000, random=np.random.default_rng(1))
    padded = sum(len(group) * max(lengths[row] for row in group) for group in groups)
    assert lengths.sum() / padded > 0.9
    firsts = [lengths[group[0]] for group in groups]
    assert abs(np.corrcoef(firsts, np.arange(len(firsts)))[0, 1]) < 0.3  # no order by length


class Slope(nn.Module):
    """One weight, whose loss is its distance from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))


class Lesson:
    """Rows of one token each."""

    packed = False

    def steps(self, rows: Sequence[int]) -> Iterator[Batch]:
        yield self.batch(rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        ids = torch.zeros((len(rows), 1), dtype=torch.int64)
        return Batch(ids, ids, torch.zeros(len(rows), dtype=torch.int64), None, len(rows), ())

    def loss_sum(self, model: Slope, batch: Batch) -> torch.Tensor:
        return (model.weight - 1).abs().sum() * batch.learned


def run(module: nn.Module, training: Training, validate=None, rows: int = 64):
    return learn(
        module, Lesson(), np.ones(rows, dtype=np.int64), training, span=1, validate=validate
    )


def test_epochs_are_tokens_and_may_be_fractions() -> None:
    told: list[tuple[int, int]] = []
    learned = learn(
        Slope(),
        Lesson(),
        np.ones(64, dtype=np.int64),
        Training(epochs=1.5, batch_tokens=16),
        span=1,
        validate=None,
        progress=lambda done, total: told.append((done, total)),
    )
    assert (learned.tokens, learned.ended, learned.validation_loss) == (96, "epochs", None)
    assert told[0] == (0, 96) and told[-1] == (96, 96)


def test_the_best_weights_are_kept_and_training_stops_when_they_stay_the_best() -> None:
    module, seen = Slope(), []

    def validate() -> float:
        seen.append(module.weight.item())
        return [0.5, 0.2, 0.3, 0.4, 0.1][len(seen) - 1]

    learned = run(module, Training(epochs=10, batch_tokens=16, patience=2), validate)
    assert len(seen) == 4 and learned.ended == "validation"
    assert module.weight.item() == seen[1] and learned.validation_loss == 0.2
    assert learned.tokens == 4 * 64  # validated after each epoch


def test_time_ends_a_training_with_its_last_weights_judged() -> None:
    asked: list[float] = []

    def validate() -> float:
        asked.append(0.0)
        return 1.0 / len(asked)

    learned = run(Slope(), Training(epochs=1e6, batch_tokens=16, seconds=0.2), validate)
    assert learned.ended == "time" and learned.seconds < 2 and asked


def test_the_rate_falls_to_zero_by_the_end() -> None:
    """Adam's step is as long as the rate: the last steps hardly move."""
    moved: list[float] = []

    class Watched(Lesson):
        def loss_sum(self, model, batch):
            moved.append(model.weight.item())
            return -model.weight.sum() * batch.learned

    module = Slope()
    learn(
        module,
        Watched(),
        np.ones(64, dtype=np.int64),
        Training(epochs=10, batch_tokens=16, learning_rate=0.1, weight_decay=0.0),
        span=1,
        validate=None,
    )
    steps = np.diff([*moved, module.weight.item()])
    assert len(steps) == 40
    assert steps[:2] == pytest.approx([0.028, 0.078], rel=0.01)  # it rises over a twentieth
    assert steps.max() == pytest.approx(0.1, rel=0.05) and np.argmax(steps) == 2
    assert (np.diff(steps[2:]) < 0).all() and steps[-1] < 0.005


def test_some_are_drawn_until_there_are_enough() -> None:
    sequences = [np.zeros(n, dtype=np.int32) for n in (5, 9, 3, 7)]
    assert sum(len(one) + 1 for one in some(sequences, 12, 0)) >= 12
    assert len(some(sequences, 1000, 0)) == 4 and some([], 10, 0) == []


def test_log_probs_do_not_depend_on_how_many_are_computed_at_once(monkeypatch) -> None:
    torch.manual_seed(0)
    head, hidden = nn.Linear(4, 9), torch.randn(20, 4)
    targets = torch.arange(20) % 9
    with torch.no_grad():
        whole = chosen_log_probs(hidden, head, targets)
        monkeypatch.setattr("fitune.language_models.neural.LOGITS", 27)
        apart = chosen_log_probs(hidden, head, targets)
        expected = torch.log_softmax(head(hidden).double(), -1)[torch.arange(20), targets]
    np.testing.assert_allclose(whole, apart, atol=1e-6)
    np.testing.assert_allclose(whole, expected.numpy(), atol=1e-6)
