"""The network that chooses, by hand."""

from __future__ import annotations

import pytest
import torch

from fitune import config
from fitune.approaches.recurrent_classifier import Classifier
from recurrent_kit import batch_of, read_by_hand


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_logits_are_of_the_mean_and_the_maximum(cell: str) -> None:
    options = config.Recurrent.model_validate({"cell": cell, "hidden": 5})
    torch.manual_seed(0)
    network = Classifier(10, 0, 3, options).eval()
    rows = [[2, 7, 1, 8, 2], [8], [4, 5]]
    logits = network(*batch_of(rows))
    weight, bias = network.head.weight.double(), network.head.bias.double()
    for row, ids in enumerate(rows):
        states, _ = read_by_hand(network.reader, ids)
        pooled = torch.cat([states.mean(dim=0), states.max(dim=0).values])
        torch.testing.assert_close(
            logits[row].double(), pooled @ weight.T + bias, atol=1e-6, rtol=0
        )
