"""What is true beside the familiar table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from fitune.memory.estimate import estimate_training
from fitune.memory.inference import estimate_inference
from fitune.memory.options import Inference
from fitune.memory.truth import true_table
from memory_kit import family, training


def test_each_line_is_an_estimate_of_its_own() -> None:
    config = family("llama")
    asked, answering = training(method="lora", dtype="bf16"), Inference(2, 48)
    rows = {row.dtype: row for row in true_table(config, asked, answering)}
    assert list(rows) == ["float32", "float16", "int8", "int4"]
    wide = estimate_inference(config, replace(answering, dtype="fp32"))
    assert rows["float32"].inference_bytes == wide.peak_bytes
    assert rows["float32"].training_bytes == estimate_training(config, training()).peak_bytes
    pure = estimate_training(config, training(dtype="pure-bf16"))
    assert rows["float16"].training_bytes == pure.peak_bytes
    assert rows["int8"].training_bytes is None
    four = estimate_training(config, training(method="qlora", dtype="bf16"))
    assert (rows["int4"].training_bytes, rows["int4"].weights_bytes) == (
        four.peak_bytes,
        four.terms["weights"],
    )


def test_int8_by_counting() -> None:
    """LLM.int8() on the linear layers in blocks of 64 inputs; all else in 16 bit."""
    config = family("llama")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    held = sum(b.numel() * b.element_size() for b in model.buffers())
    linear = {
        id(module.weight): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head" and module.in_features % 64 == 0
    }
    for parameter in model.parameters():
        module = linear.get(id(parameter))
        held += parameter.numel() * (1 if module else 2)
        held += 4 * module.out_features if module else 0
    rows = {row.dtype: row for row in true_table(config, training(), Inference(2, 48))}
    assert rows["int8"].weights_bytes == held
    assert rows["int4"].weights_bytes < held < rows["float16"].weights_bytes


def test_a_model_too_narrow_for_blocks_has_no_int4() -> None:
    config = family("llama")
    config.hidden_size, config.head_dim, config.intermediate_size = 32, 8, 48
    rows = true_table(config, training(), Inference(1, 16))
    assert [row.dtype for row in rows] == ["float32", "float16", "int8"]


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_other_kinds_have_the_table_too(name: str) -> None:
    rows = true_table(family(name), training(batch=1, seq=8), Inference(1, 8))
    assert [row.dtype for row in rows][:3] == ["float32", "float16", "int8"]
    assert all(row.inference_bytes >= row.weights_bytes for row in rows)
