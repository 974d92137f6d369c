"""What a step needs, against torch's own count of what plain models do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fitune.config import Finetuned
from fitune.data.template import Encoded, Reason
from fitune.models.load import load_decoder, load_trunk
from fitune.models.pooling import Pooling
from fitune.models.source import resolve_source
from fitune.training.flops import Flops, find_products, step_flops
from fitune.training.kernels.fused import fused_layers
from fitune.training.methods import METHODS, prepare
from fitune.training.objectives import Classify, Sft
from fitune.training.packing import can_pack
from training_kit import Kit

ROWS, TOKENS, LEARNED = 3, 10, 4


def items(count: int = ROWS, tokens: int = TOKENS) -> list[Encoded]:
    """Rows of one length, so that nothing is padded."""
    reasons = (Reason.TEXT,) * (tokens - LEARNED) + (Reason.ANSWER,) * LEARNED
    return [Encoded(tuple(range(10 + i, 10 + i + tokens)), reasons) for i in range(count)]


def decoder(folder: Path, method: str, **options: Any) -> tuple[Any, Sft]:
    model = load_decoder(resolve_source(str(folder)), dtype=torch.float32, device="cpu")
    given = Finetuned(method=method, rank=4, **options)
    made = prepare(model, METHODS[method], given)
    made.set_attn_implementation("eager")
    return made, Sft(items(), pad=0)


def counted(model: Any, objective: Any, batch: Any) -> int:
    """FLOPs of forward and backward, as torch counts what it is told to multiply."""
    model.train()
    with FlopCounterMode(display=False) as counter:
        objective.loss_sum(model, batch).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("method", ["full", "head"])
def test_a_decoder_is_counted_exactly(tiny_decoder: Path, method: str) -> None:
    model, objective = decoder(tiny_decoder, method)
    batch = objective.batch(range(ROWS))
    products = find_products(model, objective, objective.batch([0]))
    assert step_flops(products, [batch]).total == counted(model, objective, batch)


def test_freezing_ends_the_backward_pass_where_it_ends(tiny_decoder: Path) -> None:
    model, objective = decoder(tiny_decoder, "freeze", freeze_layers=1)
    batch = objective.batch(range(ROWS))
    products = find_products(model, objective, objective.batch([0]))
    assert step_flops(products, [batch]).total == counted(model, objective, batch)


def test_lora_asks_for_no_gradient_of_what_is_frozen(tiny_decoder: Path) -> None:
    model, objective = decoder(tiny_decoder, "lora")
    batch = objective.batch(range(ROWS))
    products = find_products(model, objective, objective.batch([0]))
    found = step_flops(products, [batch])
    assert found.total == counted(model, objective, batch)
    frozen = sum(p.weights for p in products.weights if not p.trains)
    assert found.backward_weights < 0.2 * found.forward and frozen > 0


@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_a_classifier_is_counted_exactly(tiny_encoder: Path, method: str) -> None:
    from fitune.models.classifier import PooledClassifier

    trunk = load_trunk(resolve_source(str(tiny_encoder)), dtype=torch.float32, device="cpu")
    model = PooledClassifier(trunk, Pooling("mean", normalize=True), 3)
    model.trunk = prepare(model.trunk, METHODS[method], Finetuned(method=method, rank=4))
    model.trunk.set_attn_implementation("eager")
    objective = Classify(items(), [0, 1, 2], pad=0, label_smoothing=0.0)
    batch = objective.batch(range(ROWS))
    products = find_products(model, objective, objective.batch([0]))
    assert step_flops(products, [batch]).total == counted(model, objective, batch)


def test_padding_and_how_a_batch_is_cut_do_not_count(tiny_decoder: Path) -> None:
    model, _ = decoder(tiny_decoder, "full")
    rows = [*items(2, 12), *items(1, 7)]
    padded, packed = Sft(rows, pad=0), Sft(rows, pad=0, packed=True)
    assert can_pack(model)
    products = find_products(model, padded, padded.batch([2]))
    assert find_products(model, packed, packed.batch([2])) == products
    whole = step_flops(products, [padded.batch([0, 1, 2])])
    assert whole == step_flops(products, [padded.batch([i]) for i in range(3)])
    assert whole == step_flops(products, [packed.batch([0, 1, 2])])


def test_kernels_hide_what_they_compute(kit: Callable[..., Kit]) -> None:
    """So they count the plain model; and counting leaves nothing behind."""
    made = kit(method="lora")
    batch = made.objective.batch([0])
    products = find_products(made.model, made.objective, batch)
    with fused_layers(made.model, torch.float32):
        hidden = find_products(made.model, made.objective, batch)
    assert len(hidden.weights) < len(products.weights)
    assert not any(module._forward_hooks for module in made.model.modules())
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_virtual_tokens_are_computed_too(tiny_decoder: Path) -> None:
    model, objective = decoder(tiny_decoder, "prompt-tuning", virtual_tokens=5)
    batch = objective.batch(range(ROWS))
    products = find_products(model, objective, objective.batch([0]))
    assert products.virtual == 5
    assert step_flops(products, [batch]).total == counted(model, objective, batch)


def test_flops_add_up() -> None:
    assert Flops(1, 2, 3) + Flops(10, 20, 30) == Flops(11, 22, 33)
    assert Flops(1, 2, 3).total == 6


def test_what_rows_begin_with_counts_once(tiny_decoder: Path) -> None:
    model, _ = decoder(tiny_decoder, "full")
    begin = (Reason.PROMPT,) * 6
    rows = [Encoded((7,) * 6 + row.tokens, begin + row.reasons) for row in items(3)]
    whole, once = (Sft(rows, pad=0, packed=True, shared=shared) for shared in (False, True))
    products = find_products(model, whole, whole.batch([0]))
    assert find_products(model, once, once.batch([0])) == products
    weights = sum(p.weights for p in products.weights if p.of == "token")
    width = sum(width for width, _ in products.attention)
    found, every = (step_flops(products, [each.batch(range(3))]) for each in (once, whole))
    # Two rows of three are spared six tokens, and these what they read: six tokens of each row.
    saved = 2 * weights * 2 * 6 + 4 * width * (6 * 3 * len(rows[0]) - 6**2)
    assert every.forward - found.forward == saved
