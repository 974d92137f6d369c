"""What both recurrent networks read with, against single cells by hand."""

from __future__ import annotations

import pytest
import torch

from fitune import config
from fitune.approaches.recurrent_reader import Reader
from recurrent_kit import batch_of, read_by_hand

ROWS = [[3], [1, 4, 1, 5, 9, 2, 6], [5, 3, 5]]


def make(**options: object) -> Reader:
    given = {"hidden": 6, "dropout": 0.0, "word_dropout": 0.0, **options}
    torch.manual_seed(0)
    return Reader(10, 0, config.Recurrent.model_validate(given))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_row_is_read_as_if_alone(cell: str, layers: int, bidirectional: bool) -> None:
    reader = make(cell=cell, layers=layers, bidirectional=bidirectional)
    states, last = reader(*batch_of(ROWS, pad=9))
    assert states.shape == (3, 7, reader.width) and last.shape == (layers, 3, reader.width)
    for row, ids in enumerate(ROWS):
        expected, end = read_by_hand(reader, ids)
        torch.testing.assert_close(states[row, : len(ids)].double(), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(last[:, row].double(), end, atol=1e-6, rtol=0)
        assert not states[row, len(ids) :].any()


def test_hidden_words_are_read_as_unknown_in_training_only() -> None:
    reader = make(word_dropout=0.5)
    ids, mask = batch_of([[1, 2, 3, 4] * 50])
    seen: list[torch.Tensor] = []
    reader.embedding.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    torch.manual_seed(0)
    reader(ids, mask)
    share = (seen[0] == reader.unknown).float().mean()
    assert 0.35 < share < 0.65
    assert torch.equal(seen[0][seen[0] > 0], ids[seen[0] > 0])
    reader.eval()(ids, mask)
    assert torch.equal(seen[1], ids)
