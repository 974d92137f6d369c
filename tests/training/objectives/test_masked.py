"""What is hidden: as often as the papers say, the same again on request, and all of it learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fitune.data.rows import Row, Rows
from fitune.data.stream import MaskedStream
from fitune.models.load import load_masked, load_tokenizer
from fitune.models.source import resolve_source
from fitune.training.objectives.likelihood import log_probs
from fitune.training.objectives.masked import Masked
from fitune.training.objectives.objective import Redrawn
from fitune.training.step import step

LENGTH = 42


@pytest.fixture
def tokenizer(tiny_encoder: Path) -> Any:
    return load_tokenizer(resolve_source(str(tiny_encoder)))


@pytest.fixture
def objective(tokenizer: Any) -> Masked:
    rows = Rows(tuple(Row("my card bank transfer lost fee " * 4 + f"pin {i}") for i in range(300)))
    return made(tokenizer, MaskedStream(tokenizer).rows(rows, LENGTH))


def made(tokenizer: Any, items: Any, **options: Any) -> Masked:
    words = [t for t in range(len(tokenizer)) if t not in tokenizer.all_special_ids]
    return Masked(
        items,
        pad=tokenizer.pad_token_id,
        mask=tokenizer.mask_token_id,
        words=words,
        seed=3,
        **options,
    )


def test_the_shares_are_those_of_the_paper(objective: Masked) -> None:
    text = hidden = masked = same = 0
    for row, item in enumerate(objective.items):
        seen, at = objective.hide(row)
        text += sum(reason.value == "text" for reason in item.reasons)
        hidden += len(at)
        masked += sum(seen[i] == objective.mask for i in at)
        same += sum(seen[i] == item.tokens[i] for i in at)
        changed = [i for i, (a, b) in enumerate(zip(seen, item.tokens, strict=True)) if a != b]
        assert set(changed) <= set(at)
        assert all(item.reasons[i].value == "text" for i in at)
    assert hidden > 1000
    assert hidden / text == pytest.approx(0.15, abs=0.01)
    assert masked / hidden == pytest.approx(0.8, abs=0.04)
    assert same / hidden == pytest.approx(0.1, abs=0.04)  # a random word may be the same by chance


def test_a_random_word_is_no_special_token(objective: Masked, tokenizer: Any) -> None:
    others = {
        objective.hide(row)[0][i]
        for row in range(len(objective.items))
        for i in objective.hide(row)[1]
    } - {objective.mask}
    assert len(others) > 20 and not others & set(tokenizer.all_special_ids)


def test_the_draw_is_of_seed_epoch_and_row_alone(objective: Masked, tokenizer: Any) -> None:
    assert isinstance(objective, Redrawn)
    first = [objective.hide(row) for row in range(8)]
    assert first == [objective.hide(row) for row in range(8)]
    together, alone = objective.batch(range(8)), objective.batch([5])
    assert torch.equal(together.input_ids[5], alone.input_ids[0])
    objective.begin_epoch(1)
    assert first != [objective.hide(row) for row in range(8)]
    objective.begin_epoch(0)
    assert first == [objective.hide(row) for row in range(8)]
    fixed = made(tokenizer, objective.items, fixed=True)
    fixed.begin_epoch(1)
    assert first == [fixed.hide(row) for row in range(8)]


def test_the_loss_is_that_of_transformers(
    objective: Masked, tiny_encoder: Path, tokenizer: Any
) -> None:
    source = resolve_source(str(tiny_encoder))
    model, new = load_masked(source, dtype=torch.float32, device="cpu", seed=1)
    assert new  # this encoder was saved without its head
    batch = objective.batch([0, 7, 99])
    labels = torch.full_like(batch.input_ids, -100)
    for place, row in enumerate(batch.rows):
        for at in objective.hide(row)[1]:
            labels[place, at] = objective.items[row].tokens[at]
    with torch.no_grad():
        theirs = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels
        ).loss
        ours = objective.loss_sum(model, batch) / batch.learned
        counts = [len(objective.hide(row)[1]) for row in batch.rows]
        each = log_probs(model, batch, counts)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert -each.sum().item() / batch.learned == pytest.approx(theirs.item(), rel=1e-5)
    assert sum(counts) == batch.learned == len(batch.targets)


def test_cutting_the_batch_changes_rounding_only(objective: Masked, tiny_encoder: Path) -> None:
    def updated(parts: list[list[int]]) -> dict[str, torch.Tensor]:
        source = resolve_source(str(tiny_encoder))
        model, _ = load_masked(source, dtype=torch.float32, device="cpu", seed=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        batches = [objective.batch(rows) for rows in parts]
        step(model, objective, optimizer, batches, clip=1e9, autocast=None)
        return {n: p.detach() for n, p in model.named_parameters()}

    whole, cut = updated([[0, 1, 2, 3]]), updated([[2], [3, 0, 1]])
    for name, tensor in whole.items():
        assert np.allclose(cut[name], tensor, rtol=1e-4, atol=1e-6), name


def test_the_same_seed_draws_the_same_head(tiny_encoder: Path) -> None:
    source = resolve_source(str(tiny_encoder))

    def drawn(seed: int) -> torch.Tensor:
        model, _ = load_masked(source, dtype=torch.float32, device="cpu", seed=seed)
        return model.cls.predictions.transform.dense.weight.detach()

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
