"""Noise on embeddings: its size, who draws it, and that a resumed run draws the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from fitune.config import Finetuned
from fitune.errors import Interrupted
from fitune.training.methods import METHODS, prepare, trainable_parameters
from training_kit import Kit

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
ALPHA = 5.0


def noisy(kind: str, method: str = "full") -> Any:
    torch.manual_seed(0)
    model: Any = (
        BertModel(BertConfig(**SIZES))
        if kind == "bert"
        else LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True))
    )
    return prepare(model, METHODS[method], Finetuned(method=method, neftune=ALPHA, rank=2))


def embedded(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    """What the embedding table hands on, ``[rows, tokens, hidden]``."""
    seen: list[torch.Tensor] = []
    table = model.get_input_embeddings()
    handle = table.register_forward_hook(lambda module, given, output: seen.append(output.detach()))
    model(**inputs)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_noise_is_uniform_and_as_large_as_the_paper_says(kind: str, method: str) -> None:
    """Each row by its own number of tokens, whatever its padding."""
    model = noisy(kind, method).train()
    ids = torch.randint(1, 64, (2, 40))
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    plain = model.get_input_embeddings().weight.detach()[ids]
    noise = embedded(model, input_ids=ids, attention_mask=mask) - plain
    for row, length in enumerate((40, 10)):
        most = ALPHA / (length * 32) ** 0.5
        values = noise[row, :length].flatten()
        assert 0.95 * most < values.abs().max() <= most * (1 + 1e-5)
        # Of a uniform distribution: standard deviation most / √3, mean 0.
        assert values.std() == pytest.approx(most / 3**0.5, rel=0.15)
        assert values.mean().abs() < 4 * most / 3**0.5 / len(values) ** 0.5


def test_rows_laid_end_to_end_keep_their_own_lengths() -> None:
    model = noisy("llama").train()
    ids = torch.randint(1, 64, (1, 50))
    positions = torch.cat([torch.arange(40), torch.arange(10)])[None]
    plain = model.get_input_embeddings().weight.detach()[ids]
    noise = embedded(model, input_ids=ids, position_ids=positions) - plain
    for part, length in ((noise[0, :40], 40), (noise[0, 40:], 10)):
        most = ALPHA / (length * 32) ** 0.5
        assert 0.95 * most < part.abs().max() <= most * (1 + 1e-5)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_only_training_is_noisy(kind: str) -> None:
    model = noisy(kind).eval()
    ids = torch.randint(1, 64, (2, 8))
    expected = model.get_input_embeddings().weight.detach()[ids]
    assert torch.equal(embedded(model, input_ids=ids), expected)


def test_a_copy_has_noise_of_its_own() -> None:
    """Memory is traced on copies: a shared state would hold the first model's rows."""
    model = noisy("llama").train()
    other = copy.deepcopy(model)
    model(input_ids=torch.ones((3, 9), dtype=torch.int64), attention_mask=torch.ones((3, 9)))
    ids = torch.randint(1, 64, (2, 6))
    assert embedded(other, input_ids=ids, attention_mask=torch.ones_like(ids)).shape == (2, 6, 32)


def test_stopping_changes_nothing(kit: Callable[..., Kit], tmp_path: Path) -> None:
    """Where the options have noise, and only there, another run of them draws other weights."""

    def make(**options: Any) -> Kit:
        made = kit(rows=24, epochs=2.0, **options)
        if made.options.neftune:
            from fitune.training.methods.neftune import add_noise

            add_noise(made.model, made.options.neftune)
        return made

    whole, plain = make(neftune=5.0), make()
    whole.train(tmp_path / "whole")
    plain.train(tmp_path / "plain")
    stops = 0
    while True:
        asked = iter([False, *[True] * 99])
        made = make(neftune=5.0)
        try:
            made.train(tmp_path / "parts", stop_requested=asked.__next__)
            break
        except Interrupted:
            stops += 1
    assert stops >= 2
    found, without = trainable_parameters(made.model), trainable_parameters(plain.model)
    for name, value in trainable_parameters(whole.model).items():
        assert torch.equal(found[name], value), name
    assert any(not torch.equal(without[name], value) for name, value in found.items())
