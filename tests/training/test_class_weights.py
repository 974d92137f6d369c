"""Weights of labels against scikit-learn, and the weighted loss against torch's own mean."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from fitune.data.template import Encoded
from fitune.errors import ConfigError
from fitune.training.class_weights import label_weights
from fitune.training.objectives import Classify
from fitune.training.step import step

LABELS = ("a", "b", "c")
ANSWERS = ["a"] * 7 + ["b"] * 2 + ["c"]


def test_balanced_is_that_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.array(LABELS), y=ANSWERS)
    assert label_weights("balanced", LABELS, ANSWERS) == pytest.approx(expected.tolist())


def test_a_label_without_rows_or_name_weighs_one() -> None:
    assert label_weights("balanced", (*LABELS, "d"), ANSWERS)[3] == 1.0  # type: ignore[index]
    assert label_weights({"b": 3.0}, LABELS, ANSWERS) == [1.0, 3.0, 1.0]
    assert label_weights(None, LABELS, ANSWERS) is None


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(ConfigError, match=r"label 'lost_crad'.*did you mean 'lost_card'"):
        label_weights({"lost_crad": 2.0}, ("lost_card", "pin"), [])


class Table(torch.nn.Module):
    """Logits of a row: the entry of its first token."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.nn.Parameter(torch.randn(10, 3, generator=generator))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.logits[input_ids[:, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("cut", [[10], [3, 7], [1] * 10])
def test_the_mean_over_a_global_batch_is_torchs_however_it_is_cut(
    cut: list[int], smoothing: float
) -> None:
    weights = [0.5, 2.0, 5.0]
    targets = [LABELS.index(answer) for answer in ANSWERS]
    items = [Encoded((i, 9), (False, False)) for i in range(10)]
    objective = Classify(items, targets, pad=0, label_smoothing=smoothing, weights=weights)
    model, reference = Table(), Table().double()
    edges = np.cumsum([0, *cut])
    parts = [objective.batch(range(a, b)) for a, b in itertools.pairwise(edges)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    start = model.logits.detach().clone()
    result = step(model, objective, optimizer, parts, clip=1e9, autocast=None)
    expected = functional.cross_entropy(
        reference.logits,
        torch.tensor(targets),
        weight=torch.tensor(weights).double(),
        label_smoothing=smoothing,
    )
    expected.backward()
    assert float(result.loss) == pytest.approx(expected.item(), rel=1e-6)
    moved: Any = (start - model.logits.detach()).double()
    assert reference.logits.grad is not None
    assert (moved - reference.logits.grad).abs().max() < 1e-6
