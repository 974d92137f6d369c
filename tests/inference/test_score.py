"""Likelihoods of answers: tree and pairs against one plain forward pass per pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t

from fitune.inference.score import score_answers, supports_tree, token_groups

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}

# family → (model, whether its attention lets answers share one pass)
FAMILIES: dict[str, tuple[Callable[[], Any], bool]] = {
    "llama": (lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, num_key_value_heads=2)), True),
    "llama eager": (
        lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, attn_implementation="eager")),
        True,
    ),
    "gpt2": (lambda: t.GPT2LMHeadModel(t.GPT2Config(**GPT)), True),
    "qwen3": (
        lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8)),
        True,
    ),
    "opt": (
        lambda: t.OPTForCausalLM(
            t.OPTConfig(
                vocab_size=64,
                hidden_size=32,
                ffn_dim=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                word_embed_proj_dim=32,
                max_position_embeddings=128,
            )
        ),
        True,
    ),
    "gpt-neox": (lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SMALL)), True),
    "gemma": (
        lambda: t.GemmaForCausalLM(t.GemmaConfig(**SMALL, num_key_value_heads=2, head_dim=8)),
        True,
    ),
    # Windows and positions that count by place must not take the tree.
    "mistral": (
        lambda: t.MistralForCausalLM(
            t.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=6)
        ),
        False,
    ),
    "gemma2": (
        lambda: t.Gemma2ForCausalLM(
            t.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=6)
        ),
        False,
    ),
    "gpt-neo": (
        lambda: t.GPTNeoForCausalLM(
            t.GPTNeoConfig(
                vocab_size=64,
                hidden_size=32,
                num_layers=2,
                num_heads=4,
                attention_types=[[["global", "local"], 1]],
                window_size=6,
                max_position_embeddings=128,
            )
        ),
        False,
    ),
    "bloom": (
        lambda: t.BloomForCausalLM(
            t.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)
        ),
        False,
    ),
    "falcon with ALiBi": (
        lambda: t.FalconForCausalLM(
            t.FalconConfig(
                vocab_size=64,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                alibi=True,
            )
        ),
        False,
    ),
    "mamba": (
        lambda: t.MambaForCausalLM(
            t.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
        ),
        False,
    ),
}


def build(family: str) -> Any:
    torch.manual_seed(0)
    model = FAMILIES[family][0]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform, so that a wrong position shows
    return model


@pytest.fixture(scope="module")
def llama() -> Any:
    return build("llama")


def draw(count: int, seed: int) -> list[int]:
    return torch.randint(3, 64, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def by_hand(model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> np.ndarray:
    result = np.empty((len(prompts), len(answers)))
    for i, prompt in enumerate(prompts):
        for j, answer in enumerate(answers):
            with torch.no_grad():
                output = model(input_ids=torch.tensor([prompt + answer]), use_cache=False)
            log_probs = torch.log_softmax(output.logits[0].double(), dim=-1)
            result[i, j] = sum(
                float(log_probs[len(prompt) - 1 + k, token]) for k, token in enumerate(answer)
            )
    return result


SHARED = draw(7, 1)
PROMPTS = [SHARED + draw(n, 10 + n) for n in (3, 9, 1, 5)]
ANSWERS = [[5, 6, 2], [5, 7, 2], [9], [5, 6, 8, 2], [5, 6]]  # one begins another


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_scores_as_one_pass_per_pair(family: str) -> None:
    model = build(family)
    expected = by_hand(model, PROMPTS, ANSWERS)
    assert supports_tree(model) is FAMILIES[family][1]
    assert np.ptp(expected) > 1
    for tree in (None, False):
        found = score_answers(model, PROMPTS, ANSWERS, pad=0, tree=tree)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert found.dtype == np.float64


CASES: dict[str, tuple[list[list[int]], list[list[int]]]] = {
    "equal prompts": ([SHARED] * 3, ANSWERS),
    "one prompt": ([SHARED], ANSWERS),
    "prompts of one token": ([[7], [8], [7]], ANSWERS),
    "nothing shared": ([[4, 5, 6], [5, 5, 6], [6, 5]], ANSWERS),
    "one prompt begins the other": ([SHARED, [*SHARED, 9, 9]], ANSWERS),
    "one answer": (PROMPTS, [[5, 6, 2]]),
    "one answer of one token": (PROMPTS, [[5]]),
    "answers of one token": (PROMPTS, [[5], [6], [63]]),
    "each answer begins the next": (PROMPTS, [[5], [5, 6], [5, 6, 7], [5, 6, 7, 8]]),
    "the same answer twice": (PROMPTS, [[5, 6], [5, 6]]),
    "padding inside": ([[0, 4, 0], [0, 4, 0, 0, 4]], [[0, 4], [0, 0]]),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_corners(name: str, llama: Any) -> None:
    prompts, answers = CASES[name]
    expected = by_hand(llama, prompts, answers)
    for tree in (True, False):
        found = score_answers(llama, prompts, answers, pad=0, tree=tree)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_many_rows_in_several_passes(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [SHARED + draw(1 + i % 6, i) for i in range(17)]
    expected = by_hand(llama, prompts, ANSWERS)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr("fitune.inference.score.PROMPT_TOKENS", 40)
    for tree in (True, False):
        seen.clear()
        found = score_answers(
            llama,
            prompts,
            ANSWERS,
            pad=0,
            tree=tree,
            progress=lambda done, total: seen.append((done, total)),
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert len(seen) > 2 and seen[-1] == (17, 17) and seen == sorted(seen)


def test_no_prompts(llama: Any) -> None:
    assert score_answers(llama, [], ANSWERS, pad=0).shape == (0, 5)


def test_a_model_with_an_adapter(llama: Any) -> None:
    from peft import LoraConfig, get_peft_model

    from fitune.models.quiet import quiet

    with quiet():
        model = get_peft_model(
            build("llama"), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    expected = by_hand(model, PROMPTS, ANSWERS)
    assert np.abs(expected - by_hand(llama, PROMPTS, ANSWERS)).max() > 1
    assert supports_tree(model)
    for tree in (None, False):
        found = score_answers(model, PROMPTS, ANSWERS, pad=0, tree=tree)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_bf16_ranks_as_fp32_does(llama: Any) -> None:
    """The mask is written in the model's dtype, whose range it must not leave."""
    model = build("llama").bfloat16()
    found = score_answers(model, PROMPTS, ANSWERS, pad=0)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, by_hand(llama, PROMPTS, ANSWERS), rtol=0.05, atol=0.6)


def test_the_head_is_left_as_it_was(llama: Any) -> None:
    score_answers(llama, PROMPTS, ANSWERS, pad=0)
    assert not llama.get_output_embeddings()._forward_pre_hooks
    with torch.no_grad():
        assert llama(input_ids=torch.tensor([SHARED])).logits.shape == (1, 7, 64)


def test_groups_stay_within_the_budget() -> None:
    lengths = [3, 9, 4, 4, 20, 1]
    order = sorted(range(6), key=lengths.__getitem__)
    groups = token_groups(order, lengths, 12)
    assert [i for group in groups for i in group] == order
    for group in groups:
        assert len(group) * max(lengths[i] for i in group) <= 12 or len(group) == 1
    assert max(map(len, groups)) > 1


ONLY = [[0, 3], [2], [4, 1, 0], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_only_some_answers_of_each_prompt(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family)
    whole = by_hand(model, PROMPTS, ANSWERS)
    expected = np.full_like(whole, -np.inf)
    for i, which in enumerate(ONLY):
        expected[i, which] = whole[i, which]
    for budget in (2048, 24):
        monkeypatch.setattr("fitune.inference.score.PROMPT_TOKENS", budget)
        for tree in (None, False):
            found = score_answers(model, PROMPTS, ANSWERS, pad=0, only=ONLY, tree=tree)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_fewer_answers_are_less_work(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes `only` worth having: what is not looked at is not computed."""
    import fitune.inference.score as score

    widths: list[int] = []
    whole = score._logits_at

    def logits_at(model: Any, positions: torch.Tensor, **inputs: Any) -> torch.Tensor:
        widths.append(inputs["input_ids"].numel())
        return whole(model, positions, **inputs)

    monkeypatch.setattr(score, "_logits_at", logits_at)
    score_answers(llama, PROMPTS, ANSWERS, pad=0)
    everything = sum(widths)
    widths.clear()
    score_answers(llama, PROMPTS, ANSWERS, pad=0, only=[[4]] * 4)
    assert sum(widths) < everything - 4
