"""The DPO loss against its formula over per-token log-probabilities, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fitune.data.rows import Row
from fitune.data.template import Encoded
from fitune.training.methods import trainable_parameters
from fitune.training.objectives.dpo import Dpo, EncodedPair, pair_log_probs
from fitune.training.packing import rows_apart
from fitune.training.step import step
from training_kit import Kit, conversations

PAIRS = 6


def pairs_of(kit: Kit) -> list[EncodedPair]:
    rows = conversations(PAIRS)
    other = [replace(row, answer=" ".join(["no", "fee"] * (i + 1))) for i, row in enumerate(rows)]
    return [
        EncodedPair(kit.template.encode(row), kit.template.encode(rejected))
        for row, rejected in zip(rows, other, strict=True)
    ]


def exact_log_prob(model: Any, item: Encoded) -> float:
    """The sum over learned tokens, from all logits of one row alone, in float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([item.tokens])).logits[0].numpy().astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    each = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return sum(
        each[at - 1, token]
        for at, (token, learned) in enumerate(zip(item.tokens, item.learned, strict=True))
        if learned
    )


@pytest.fixture
def tuned(kit: Callable[..., Kit]) -> Kit:
    """An adapter that has left its base: B is random."""
    return kit(rows=PAIRS, random_b=True)


def with_reference(kit: Kit, **options: Any) -> Dpo:
    objective = Dpo(pairs_of(kit), pad=0, beta=0.3, **options)
    batch = objective.batch(range(PAIRS))
    with torch.no_grad(), kit.model.disable_adapter(), rows_apart(kit.model, batch):
        objective.reference = pair_log_probs(kit.model, batch)
    return objective


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_formula(tuned: Kit, smoothing: float) -> None:
    objective = with_reference(tuned, label_smoothing=smoothing)
    expected = []
    for pair in objective.pairs:
        ours = [exact_log_prob(tuned.model, item) for item in (pair.chosen, pair.rejected)]
        with tuned.model.disable_adapter():
            before = [exact_log_prob(tuned.model, item) for item in (pair.chosen, pair.rejected)]
        margin = 0.3 * ((ours[0] - before[0]) - (ours[1] - before[1]))
        right, wrong = np.log1p(np.exp(-margin)), np.log1p(np.exp(margin))
        expected.append((1 - smoothing) * right + smoothing * wrong)
    assert np.std(expected) > 0.01  # a loss that ignored the model would be log 2 for each
    found = objective.loss_sum(tuned.model, objective.batch(range(PAIRS)))
    assert found.item() == pytest.approx(sum(expected), abs=1e-4)


def test_an_untouched_adapter_has_no_margin(kit: Callable[..., Kit]) -> None:
    fresh = kit(rows=PAIRS)
    objective = with_reference(fresh)
    with torch.no_grad():
        margins = objective.margins(fresh.model, objective.batch(range(PAIRS)))
    assert torch.equal(margins, torch.zeros(PAIRS))


def test_rows_end_to_end_say_the_same(tuned: Kit) -> None:
    padded, packed = with_reference(tuned), with_reference(tuned, packed=True)
    batch = packed.batch(range(PAIRS))
    assert batch.packed and batch.learned == PAIRS
    assert torch.allclose(padded.reference, packed.reference, rtol=1e-5)
    with torch.no_grad(), rows_apart(tuned.model, batch):
        found = packed.margins(tuned.model, batch)
    with torch.no_grad():
        expected = padded.margins(tuned.model, padded.batch(range(PAIRS)))
    assert torch.allclose(found, expected, atol=1e-5)


def test_cutting_the_batch_changes_rounding_only(kit: Callable[..., Kit]) -> None:
    def updated(parts: list[list[int]]) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        made = kit(rows=PAIRS, random_b=True, optimizer="sgd")
        objective = with_reference(made)
        batches = [objective.batch(rows) for rows in parts]
        step(made.model, objective, made.optimizer_at(0.5), batches, clip=1e9, autocast=None)
        return {n: p.detach() for n, p in trainable_parameters(made.model).items()}

    whole, cut = updated([[0, 1, 2, 3, 4, 5]]), updated([[4], [0, 3], [1, 2, 5]])
    for name, tensor in whole.items():
        assert torch.allclose(cut[name], tensor, rtol=1e-4, atol=1e-6), name


def test_a_prompt_is_cut_for_both_answers(tiny_decoder: Path, kit: Callable[..., Kit]) -> None:
    from fitune.data.limits import encode_rows
    from fitune.data.rows import Rows

    template = kit(rows=1).template

    def encode(row: Row) -> EncodedPair:
        rejected = Row(row.text, row.rejected)
        return EncodedPair(template.encode(row), template.encode(rejected))

    row = Row("my card " * 60, "help", rejected="no fee charge why " * 3)
    (item,), _, notes = encode_rows(
        encode,
        Rows((row,)),
        tokenizer=template.tokenizer,
        max_length=64,
        too_long="truncate",
        what="training",
    )
    assert len(item.rejected) <= 64 and len(item.chosen) < len(item.rejected) and item.cut > 0
    assert item.batch_tokens == 2 * len(item.rejected) and "1 of 1 training rows" in notes[0]
    start = next(i for i, learned in enumerate(item.chosen.learned) if learned)
    assert item.chosen.tokens[:start] == item.rejected.tokens[:start]
