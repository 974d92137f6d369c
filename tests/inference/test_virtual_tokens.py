"""Answers of models with virtual tokens: against PEFT's wrapper, called anew for each token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from fitune.config import Finetuned
from fitune.inference.generate import generate
from fitune.inference.score import score_answers
from fitune.models.adapter import save_adapter
from fitune.models.quiet import quiet
from fitune.models.virtual_tokens import hide_virtual_tokens, virtual_tokens
from fitune.training.methods import METHODS, trainable_parameters

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 11], [5, 6, 7, 12, 13, 14, 15, 16], [5, 6, 30]]
ANSWERS = [[20, 21], [20, 22, 23], [24]]


def base(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        made: Any = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, **heads))
    else:
        sizes = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
        made = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))
    with torch.no_grad():  # as drawn, a model repeats one token whatever it reads
        for parameter in made.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    return made.eval()


@pytest.fixture(params=["prompt-tuning", "prefix-tuning"])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["llama", "gpt2"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(kind: str, method: str) -> Any:
    made = METHODS[method](base(kind), Finetuned(virtual_tokens=4))
    with torch.no_grad():
        for parameter in trainable_parameters(made).values():
            parameter.add_(torch.randn(parameter.shape))
    return made.eval()


def next_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def greedy(model: Any, prompt: list[int], count: int) -> tuple[int, ...]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(next_logits(model, tokens)[-1].argmax()))
    return tuple(tokens[len(prompt) :])


def test_what_is_written(model: Any, kind: str) -> None:
    """Prompts of several lengths side by side, and not what the model writes without them."""
    found = generate(model, PROMPTS, stop_tokens=[63], max_new_tokens=6, pad=0)
    expected = [greedy(model, prompt, 6) for prompt in PROMPTS]
    assert [item.tokens for item in found] == expected
    assert expected != [greedy(base(kind), prompt, 6) for prompt in PROMPTS]


@pytest.mark.parametrize("tree", [True, False, None])
@pytest.mark.parametrize("prompts", [PROMPTS, [[5, 6], [9, 8, 7]]], ids=["shared", "apart"])
def test_how_likely_answers_are(model: Any, tree: bool | None, prompts: Any) -> None:
    found = score_answers(model, prompts, ANSWERS, pad=0, tree=tree)
    expected = np.zeros_like(found)
    for i, prompt in enumerate(prompts):
        for j, answer in enumerate(ANSWERS):
            logits = next_logits(model, [*prompt, *answer])
            log_probs = torch.log_softmax(logits.double(), dim=-1)
            at = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            expected[i, j] = sum(float(log_probs[a, t]) for a, t in zip(at, answer, strict=True))
    assert found == pytest.approx(expected, abs=1e-4)


def test_read_back_they_answer_the_same(model: Any, kind: str, tmp_path: Path) -> None:
    from peft import PeftModel

    save_adapter(model, tmp_path)
    with quiet():
        read = PeftModel.from_pretrained(base(kind), tmp_path).eval()
    assert virtual_tokens(read) == 4
    hide_virtual_tokens(read)
    found = score_answers(read, PROMPTS, ANSWERS, pad=0)
    assert np.array_equal(found, score_answers(model, PROMPTS, ANSWERS, pad=0))
    assert next_logits(read, PROMPTS[0]).shape == (5, 64)


def test_other_models_have_none(kind: str) -> None:
    assert virtual_tokens(base(kind)) == 0
    assert virtual_tokens(METHODS["lora"](base(kind), Finetuned(rank=2))) == 0
