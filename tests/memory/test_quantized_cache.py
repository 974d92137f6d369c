"""Quantized keys and values: rounding to the nearest, and transformers' rules of what is kept."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from transformers.cache_utils import DynamicSlidingWindowLayer

from fitune.memory.answering import build_model, new_cache
from fitune.memory.kv_cache import GROUP, RESIDUAL
from fitune.memory.options import Inference
from fitune.memory.quantized_cache import QuantizedLayer, dequantize, quantize, quantized_cache
from memory_kit import family


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    bits=st.sampled_from([4, 8]),
    spread=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31),
)
def test_each_number_moves_by_half_a_step_at_most(
    shape: list[int], bits: int, spread: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=generator) * spread
    back = dequantize(quantize(tensor, bits), bits)
    assert back.shape == tensor.shape
    for start in range(0, tensor.numel(), GROUP):
        # The last group is filled up with zeros, which its range has to reach.
        group = tensor.flatten()[start : start + GROUP]
        whole = torch.cat([group, torch.zeros(GROUP - len(group))])
        step = (whole.max() - whole.min()) / (2**bits - 1)
        error = (group - back.flatten()[start : start + GROUP]).abs().max()
        assert error <= step / 2 * 1.001 + 1e-7


@pytest.mark.parametrize("bits", [4, 8])
def test_constant_numbers_come_back(bits: int) -> None:
    tensor = torch.full((2, 3, 64), 0.25)
    assert torch.equal(dequantize(quantize(tensor, bits), bits), tensor)


def test_two_four_bit_numbers_share_a_byte() -> None:
    tensor = torch.arange(2 * GROUP, dtype=torch.float32)
    assert quantize(tensor, 8).packed.nbytes == 2 * GROUP
    assert quantize(tensor, 4).packed.nbytes == GROUP


def test_the_latest_tokens_are_exact() -> None:
    layer = QuantizedLayer(4)
    torch.manual_seed(0)
    prompt = torch.randn(1, 2, 50, 16)
    layer.update(prompt, prompt)
    token = torch.randn(1, 2, 1, 16)
    keys, values = layer.update(token, token)
    assert keys.shape == values.shape == (1, 2, 51, 16)
    assert torch.equal(keys[..., -1:, :], token)
    assert not torch.equal(keys[..., :50, :], prompt)
    assert layer.get_seq_length() == 51


def test_all_are_quantized_once_there_are_so_many() -> None:
    layer = QuantizedLayer(8)
    layer.update(torch.randn(1, 1, 10, 64), torch.randn(1, 1, 10, 64))
    exact = []
    for _ in range(2 * RESIDUAL):
        token = torch.randn(1, 1, 1, 64)
        layer.update(token, token)
        exact.append(layer.keys.shape[-2] if layer.keys.ndim == 4 else 0)
    assert max(exact) == RESIDUAL - 1
    assert exact.count(0) == 2


@pytest.mark.parametrize("lengths", [(20, 1, 1, 1), (5, 1, 1), (16, 1, 1), (3, 20, 1)])
def test_a_window_shows_what_transformers_shows(lengths: tuple[int, ...]) -> None:
    ours, theirs = QuantizedLayer(8, 16), DynamicSlidingWindowLayer(16)
    torch.manual_seed(0)
    for number in lengths:
        states = torch.randn(1, 2, number, 64)
        assert ours.get_mask_sizes(number) == tuple(theirs.get_mask_sizes(number))
        shown = ours.update(states, states)[0]
        expected = theirs.update(states, states)[0]
        assert shown.shape == expected.shape
        assert torch.allclose(shown, expected, atol=0.03)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_model_answers_alike(name: str) -> None:
    config = family(name, layers=2)
    inference = Inference(2, 180, dtype="fp32", kv_dtype="int8")
    torch.manual_seed(0)
    model = build_model(config, inference)
    ids = torch.randint(0, 3000, (2, 180))
    caches = [new_cache(model, Inference(2, 180, dtype="fp32")), new_cache(model, inference)]
    outputs = []
    with torch.no_grad():
        for cache in caches:
            model(input_ids=ids[:, :170], cache=cache)
            steps = [
                model(input_ids=ids[:, i : i + 1], cache=cache).logits for i in range(170, 180)
            ]
            outputs.append(torch.cat(steps, dim=1))
    spread = outputs[0].std()
    assert (outputs[0] - outputs[1]).abs().max() < 0.05 * spread


def test_layers_of_every_kind_are_quantized() -> None:
    cache = quantized_cache(family("gemma3"), 4)
    assert all(type(layer) is QuantizedLayer for layer in cache.layers)
    assert {layer.window for layer in cache.layers} == {None, 64}
