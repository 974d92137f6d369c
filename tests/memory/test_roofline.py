"""FLOPs equal torch's own count and published ones; time and money follow the roofline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from fitune.devices import find_device
from fitune.errors import ConfigError
from fitune.memory.roofline import (
    UPDATE_BYTES,
    Counts,
    Efficiency,
    decode_step,
    prefill,
    training_flops,
    training_step,
)
from fitune.models.quiet import quiet

A100 = find_device("A100 SXM 80GB")
IDEAL = Efficiency(compute=1.0, bandwidth=1.0)

LLAMA_7B = Counts(
    parameters=6_607_343_616,  # without the input embedding, 32000 × 4096
    active=32 * (4 * 4096**2 + 3 * 4096 * 11008),
    layers=32,
    hidden=4096,
    attention_width=4096,
    kv_width=4096,
    vocabulary=32000,
)

BATCH, SEQ = 2, 48
TOKENS = BATCH * SEQ


def tiny_llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=160,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    config._attn_implementation = "eager"
    return LlamaForCausalLM(config)


def counts_of(model: Any) -> Counts:
    """Counted from the modules themselves: every weight of a matrix product in the layers."""
    weights = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers." in name]
    head = model.get_output_embeddings().weight
    return Counts(
        parameters=sum(p.numel() for p in model.parameters()),
        active=sum(p.numel() for p in weights),
        layers=6,
        hidden=64,
        attention_width=64,
        kv_width=32,
        vocabulary=160,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        trained_active=sum(p.numel() for p in weights if p.requires_grad),
        head_trained=head.requires_grad,
    )


def counted(model: Any) -> tuple[int, int]:
    """FLOPs of forward, and of forward and backward, as torch counts them op by op."""
    ids = torch.randint(0, 160, (BATCH, SEQ))
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


def test_full_training_agrees_with_torchs_count() -> None:
    model = tiny_llama()
    flops = training_flops(counts_of(model), tokens=TOKENS, seq=SEQ)
    forward, total = counted(model)
    assert flops.forward == pytest.approx(forward, rel=1e-3)
    assert flops.total == pytest.approx(total, rel=1e-3)


def test_lora_agrees_with_torchs_count() -> None:
    with quiet():
        model = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules="all-linear"))
    flops = training_flops(counts_of(model), tokens=TOKENS, seq=SEQ)
    forward, total = counted(model)
    assert flops.forward == pytest.approx(forward, rel=1e-3)
    # The lowest layer's query, key and value projections need no gradient of their input.
    assert flops.total == pytest.approx(total, rel=0.02)
    assert flops.total > total
    assert flops.backward_weights < 0.2 * flops.backward_inputs


def test_frozen_layers_agree_with_torchs_count() -> None:
    model = tiny_llama()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(f"layers.{n}." in name for n in (4, 5)) or "lm_head" in name
    flops = training_flops(counts_of(model), tokens=TOKENS, seq=SEQ, backward_share=2 / 6)
    assert flops.total == pytest.approx(counted(model)[1], rel=1e-3)


def test_only_a_head_trained_agrees_with_torchs_count() -> None:
    model = tiny_llama()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lm_head" in name
    flops = training_flops(counts_of(model), tokens=TOKENS, seq=SEQ, backward_share=0.0)
    assert flops.total == pytest.approx(counted(model)[1], rel=1e-3)


def test_checkpointing_is_at_most_one_more_forward_of_the_layers() -> None:
    model = tiny_llama()
    counts = counts_of(model)
    without = counted(model)[1]
    with quiet():
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    flops = training_flops(counts, tokens=TOKENS, seq=SEQ, checkpointing=True)
    assert 0.6 * flops.recompute < counted(model)[1] - without <= flops.recompute


def test_full_training_with_recompute_is_megatrons_equation() -> None:
    """Narayanan et al., arXiv:2104.04473, equation 3: 96·B·s·l·h²·(1 + s/(6h) + V/(16·l·h))."""
    b, s, layers, h, v = 8, 2048, 96, 12288, 51200
    dense = Counts(
        parameters=0,
        active=12 * layers * h * h,
        layers=layers,
        hidden=h,
        attention_width=h,
        kv_width=h,
        vocabulary=v,
        trained_active=12 * layers * h * h,
        head_trained=True,
    )
    flops = training_flops(dense, tokens=b * s, seq=s, checkpointing=True)
    equation = 96 * b * s * layers * h**2 * (1 + s / (6 * h) + v / (16 * layers * h))
    assert flops.total == pytest.approx(equation, rel=1e-9)


def test_gpt3s_published_training_flops_and_days() -> None:
    weights = 174_600_000_000  # Brown et al., arXiv:2005.14165, table D.1: 3.14E+23 FLOPs
    gpt3 = Counts(weights, weights, 96, 12288, 12288, 12288, trained_active=weights)
    without_attention = training_flops(gpt3, tokens=300_000_000_000, seq=0)
    assert without_attention.total == pytest.approx(3.14e23, rel=2e-3)
    # Narayanan et al., section 5.1: 1024 A100s at 140 of 312 TFLOP/s take 34 days, with recompute.
    reached = Efficiency(compute=140 / 312, bandwidth=1.0)
    step = training_step(
        gpt3,
        A100,
        tokens=300_000_000_000 // 1024,
        seq=0,
        dtype="bf16",
        optimizer="adamw",
        checkpointing=True,
        efficiency=reached,
    )
    assert step.seconds / 86400 == pytest.approx(34, rel=0.01)
    assert step.bound == "compute"


def test_decoding_one_request_takes_reading_the_weights_and_the_cache() -> None:
    step = decode_step(
        LLAMA_7B, A100, requests=1, context=1000, dtype="bf16", efficiency=IDEAL, price_per_hour=1.8
    )
    cache = 2 * 4096 * 32 * 1000 * 2  # 524 MB
    assert step.bytes == pytest.approx(2 * LLAMA_7B.parameters + cache, rel=1e-4)  # norms apart
    assert step.seconds == pytest.approx(step.bytes / 2.039e12)
    assert step.bound == "memory" and step.work == "decode step"
    assert step.cost == pytest.approx(step.seconds * 1.8 / 3600)


def test_many_requests_share_the_reading_of_weights() -> None:
    def seconds(requests: int) -> float:
        return decode_step(
            LLAMA_7B, A100, requests=requests, context=100, dtype="bf16", efficiency=IDEAL
        ).seconds

    assert seconds(8) < 1.2 * seconds(1)


def test_a_mixture_of_experts_reads_only_chosen_experts_for_a_few_tokens() -> None:
    mixture = replace(LLAMA_7B, parameters=8 * LLAMA_7B.parameters)

    def moved(requests: int) -> int:
        return decode_step(mixture, A100, requests=requests, context=0, dtype="bf16").bytes

    head = LLAMA_7B.hidden * LLAMA_7B.vocabulary
    assert moved(1) == 2 * (LLAMA_7B.active + head)
    assert moved(100) == 2 * mixture.parameters


def test_prefill_of_a_long_prompt_is_bound_by_arithmetic() -> None:
    done = prefill(LLAMA_7B, A100, requests=1, prompt=2048, dtype="bf16", efficiency=IDEAL)
    attention = 4 * 32 * 4096 * 2048 * 2048 // 2
    assert done.flops == 2 * LLAMA_7B.active * 2048 + attention + 2 * 4096 * 32000
    assert done.seconds == pytest.approx(done.flops / 312e12)
    assert done.bound == "compute"


def step(**changes: Any) -> Any:
    counts = replace(
        LLAMA_7B,
        trained=LLAMA_7B.parameters,
        trained_active=LLAMA_7B.active,
        head_trained=True,
        **changes.pop("counts", {}),
    )
    options: dict[str, Any] = {
        "tokens": 4096,
        "seq": 1024,
        "dtype": "bf16",
        "optimizer": "adamw",
        "efficiency": IDEAL,
    }
    return training_step(counts, changes.pop("device", A100), **{**options, **changes})


def test_the_update_comes_on_top_at_the_memorys_speed() -> None:
    assert step().seconds - step(optimizer="sgd").seconds == pytest.approx(
        LLAMA_7B.parameters * (28 - 12) / 2.039e12
    )
    assert step(tokens=1, seq=1).bound == "memory"
    assert step(optimizer="paged-adamw-8bit").bytes == step(optimizer="adamw_8bit").bytes
    assert step(optimizer="mine:optimizer").bytes == step().bytes
    assert set(UPDATE_BYTES.values()) == {12, 16, 20, 28}


@given(
    tokens=st.integers(1, 10**6),
    seq=st.integers(1, 10**5),
    more=st.integers(0, 10**5),
    compute=st.floats(0.01, 1.0),
    checkpointing=st.booleans(),
)
def test_more_work_never_takes_less_time(
    tokens: int, seq: int, more: int, compute: float, checkpointing: bool
) -> None:
    base = step(tokens=tokens, seq=seq, checkpointing=checkpointing)
    slower = Efficiency(compute=compute, bandwidth=1.0)
    for harder in (
        step(tokens=tokens + more, seq=seq, checkpointing=checkpointing),
        step(tokens=tokens, seq=seq + more, checkpointing=checkpointing),
        step(tokens=tokens, seq=seq, checkpointing=True),
        step(tokens=tokens, seq=seq, checkpointing=checkpointing, dtype="fp32"),
        step(tokens=tokens, seq=seq, checkpointing=checkpointing, efficiency=slower),
        step(tokens=tokens, seq=seq, checkpointing=checkpointing, counts={"weight_bytes": 4.0}),
    ):
        assert harder.seconds >= base.seconds > 0
    masked = step(tokens=tokens, seq=seq, checkpointing=checkpointing, skips_masked=True)
    answers = step(tokens=tokens, seq=seq, checkpointing=checkpointing, answer_tokens=0)
    assert masked.seconds <= base.seconds >= answers.seconds


def test_a_run_is_its_steps_and_says_what_kind_of_figure_it_is() -> None:
    one = step(price_per_hour=2.0, efficiency=None)
    run = one.times(1000)
    assert run.seconds == pytest.approx(1000 * one.seconds)
    assert run.cost == pytest.approx(1000 * one.seconds / 3600 * 2.0)
    assert (run.flops, run.bytes, run.bound) == (1000 * one.flops, 1000 * one.bytes, one.bound)
    assert one.times(3).cost is not None and step().times(3).cost is None
    assert run.label == (
        "roofline, not measured: A100 SXM 80GB at 40% of its peak FLOP/s and 70% of its bandwidth"
    )


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.01, float("nan")])
def test_an_efficiency_is_a_share(wrong: float) -> None:
    with pytest.raises(ConfigError, match="which is no share of a peak"):
        Efficiency(compute=wrong)


@pytest.mark.parametrize("wrong", [-1.0, float("inf"), float("nan")])
def test_a_price_is_not_below_zero(wrong: float) -> None:
    with pytest.raises(ConfigError, match="price per hour is"):
        step(price_per_hour=wrong)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigError, match="no peak for dtype 'fp12'"):
        step(dtype="fp12")
