"""Greedy generation against a loop of plain forward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as t

from fitune.inference.generate import Generated, generate

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def build(family: str) -> Any:
    torch.manual_seed(0)
    model = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128)
        ),
        "bloom": lambda: t.BloomForCausalLM(
            t.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)
        ),
        "mistral": lambda: t.MistralForCausalLM(
            t.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=4)
        ),
    }[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


@pytest.fixture(scope="module")
def llama() -> Any:
    return build("llama")


def by_hand(model: Any, prompt: list[int], stops: list[int], limit: int) -> Generated:
    tokens: list[int] = []
    while len(tokens) < limit:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits
        token = int(logits[0, -1].argmax())
        if token in stops:
            return Generated(tuple(tokens), True)
        tokens.append(token)
    return Generated(tuple(tokens), False)


def draw(count: int, seed: int) -> list[int]:
    return torch.randint(3, 64, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


PROMPTS = [draw(n, n) for n in (5, 1, 12, 7, 3, 20)]


def stops_for(model: Any, limit: int) -> list[int]:
    """Tokens that end some of the answers and not all."""
    free = [by_hand(model, prompt, [], limit).tokens for prompt in PROMPTS]
    return [free[0][2], free[2][0]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mistral"])
def test_answers_are_the_most_likely_tokens(family: str) -> None:
    model = build(family)
    stops = stops_for(model, 8)
    expected = [by_hand(model, prompt, stops, 8) for prompt in PROMPTS]
    assert {item.stopped for item in expected} == {True, False}
    found = generate(model, PROMPTS, stop_tokens=stops, max_new_tokens=8, pad=0)
    assert found == expected
    alone = [
        generate(model, [prompt], stop_tokens=stops, max_new_tokens=8, pad=0)[0]
        for prompt in PROMPTS
    ]
    assert alone == expected


def test_the_limit_is_kept(llama: Any) -> None:
    for limit in (1, 3):
        for item in generate(llama, PROMPTS, stop_tokens=[1], max_new_tokens=limit, pad=0):
            assert item.stopped or len(item.tokens) == limit


def test_a_stop_on_the_last_allowed_token_is_a_stop(llama: Any) -> None:
    free = by_hand(llama, PROMPTS[0], [], 5).tokens
    stop = free[4]
    at = free.index(stop)
    found = generate(llama, [PROMPTS[0]], stop_tokens=[stop], max_new_tokens=at + 1, pad=0)
    assert found == [Generated(free[:at], True)]
    short = generate(llama, [PROMPTS[0]], stop_tokens=[stop], max_new_tokens=at, pad=0)
    assert short == [Generated(free[:at], False)]


def test_groups_change_nothing(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = stops_for(llama, 6)
    expected = [by_hand(llama, prompt, stops, 6) for prompt in PROMPTS]
    monkeypatch.setattr("fitune.inference.generate.BATCH_TOKENS", 30)
    seen: list[tuple[int, int]] = []
    found = generate(
        llama,
        PROMPTS,
        stop_tokens=stops,
        max_new_tokens=6,
        pad=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found == expected
    assert len(seen) > 2 and seen[-1] == (6, 6)


def test_the_models_own_settings_do_not_bend_the_answer() -> None:
    """Published models bring repetition penalties and temperatures, which are not greedy."""
    model = build("llama")
    expected = [by_hand(model, prompt, [1], 8) for prompt in PROMPTS]
    settings = t.GenerationConfig(
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        suppress_tokens=[item.tokens[0] for item in expected],
        do_sample=True,
        temperature=0.3,
        min_new_tokens=8,
        max_length=11,
        num_beams=2,
    )
    model.generation_config = settings
    assert generate(model, PROMPTS, stop_tokens=[1], max_new_tokens=8, pad=0) == expected
    assert model.generation_config is settings


def test_the_same_with_an_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    from fitune.models.quiet import quiet

    base = build("llama")
    base.generation_config = t.GenerationConfig(repetition_penalty=3.0)
    with quiet():
        model = get_peft_model(
            base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    expected = [by_hand(model, prompt, [1], 8) for prompt in PROMPTS]
    assert expected != [by_hand(build("llama"), prompt, [1], 8) for prompt in PROMPTS]
    assert generate(model, PROMPTS, stop_tokens=[1], max_new_tokens=8, pad=0) == expected


def test_no_prompts(llama: Any) -> None:
    assert generate(llama, [], stop_tokens=[1], max_new_tokens=8, pad=0) == []


def test_nothing_is_said(llama: Any, capfd: pytest.CaptureFixture[str]) -> None:
    generate(llama, PROMPTS, stop_tokens=[1, 2], max_new_tokens=2, pad=0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_answer_ends_where_the_caller_says(family: str) -> None:
    """Three tokens whose sum is odd, say; each answer by itself, and stop tokens besides."""
    model = build(family)

    def ends(tokens: Any) -> bool:
        return len(tokens) >= 3 and sum(tokens[-3:]) % 2 == 1

    stops = stops_for(model, 8)
    expected = []
    for prompt in PROMPTS:
        free = by_hand(model, prompt, stops, 8)
        at = next((n for n in range(1, len(free.tokens) + 1) if ends(free.tokens[:n])), None)
        expected.append(free if at is None else Generated(free.tokens[:at], True))
    assert any(item.stopped and len(item.tokens) < 8 and ends(item.tokens) for item in expected)
    assert any(not ends(item.tokens) for item in expected)
    for pad in (0, stops[0]):  # models without a token for padding take the end of text
        found = generate(model, PROMPTS, stop_tokens=stops, max_new_tokens=8, pad=pad, ends=ends)
        assert found == expected


def test_logits_are_bent(llama: Any) -> None:
    """Every group has a processor of its own, told where its answers begin."""
    made: list[int] = []

    def constrain(start: int) -> Any:
        made.append(start)

        def process(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            place = ids.shape[1] - start
            assert place >= 0
            bent = torch.full_like(scores, -torch.inf)
            bent[:, 10 + place] = 0
            return bent

        return process

    found = generate(llama, PROMPTS, stop_tokens=[13], max_new_tokens=8, pad=0, constrain=constrain)
    assert found == [Generated((10, 11, 12), True)] * len(PROMPTS)
    assert made == [max(map(len, PROMPTS))]
