"""Several four-bit layers as one: the values of each, the bytes of all."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn

from fitune.models.quiet import import_bitsandbytes
from fitune.quantization.joined import JoinedLayers, can_be_joined
from fitune.quantization.stand_in import stand_in_linear_layers
from fitune.quantization.weights import quantize_linear_layers
from quantization_kit import Chain, memory_events

bitsandbytes = import_bitsandbytes()

SIZES = (192, 64, 320)
"""Outputs of layers that read the same 128 inputs: scales of none fill their last block of 256."""


def layers(put: Any, compute: torch.dtype, source: torch.dtype = torch.float32) -> list[Any]:
    torch.manual_seed(0)
    made = [Chain((128, outputs), source, bias=False) for outputs in SIZES]
    return [put(each, compute_dtype=compute).layers[0] for each in made]


def restored_by_bitsandbytes(layer: Any) -> torch.Tensor:
    return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_each_value_is_bitsandbytes_own(compute: torch.dtype) -> None:
    made = layers(quantize_linear_layers, compute, compute)
    expected = torch.cat([restored_by_bitsandbytes(layer) for layer in made])
    assert expected.dtype == compute and expected.shape == (sum(SIZES), 128)
    assert torch.equal(JoinedLayers(made).restored(), expected)


def test_weights_are_moved_and_given_back() -> None:
    made = layers(quantize_linear_layers, torch.float32)
    x, before = torch.randn(3, 128), [layer.weight.clone() for layer in made]
    outputs = [layer(x) for layer in made]
    joined = JoinedLayers(made)
    owners = {layer.weight.untyped_storage().data_ptr() for layer in made}
    assert len(owners) == 1
    assert made[0].weight.untyped_storage().nbytes() == sum(SIZES) * 128 // 2
    assert all(torch.equal(layer(x), y) for layer, y in zip(made, outputs, strict=True))
    joined.separate()
    assert len({layer.weight.untyped_storage().data_ptr() for layer in made}) == len(SIZES)
    assert all(torch.equal(layer.weight, w) for layer, w in zip(made, before, strict=True))
    assert all(torch.equal(layer(x), y) for layer, y in zip(made, outputs, strict=True))


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_stand_ins_take_the_same_bytes(compute: torch.dtype) -> None:
    seen = []
    for put in (quantize_linear_layers, stand_in_linear_layers):
        joined = JoinedLayers(layers(put, compute))
        joined.restored()
        gc.collect()
        seen.append(memory_events(joined.restored))
    assert max(seen[0]) == sum(SIZES) * 128 * compute.itemsize
    assert seen[1] == seen[0]


def test_what_cannot_be_joined() -> None:
    def quantized(inputs: int = 128, **options: Any) -> Any:
        layer = bitsandbytes.nn.Linear4bit(
            inputs, 64, bias=False, compute_dtype=torch.float32, **options
        ).to("cpu")
        layer.support_avx512bf16_for_cpu = False
        return layer

    fits = quantized(quant_type="nf4")
    assert can_be_joined(fits, torch.float32)
    assert not can_be_joined(fits, torch.bfloat16), "other products"
    assert not can_be_joined(quantized(quant_type="fp4"), torch.float32)
    assert not can_be_joined(quantized(96, quant_type="nf4"), torch.float32), "split blocks"
    plain_scales = quantized(quant_type="nf4", compress_statistics=False)
    assert not can_be_joined(plain_scales, torch.float32)
    wide = quantized(quant_type="nf4", quant_storage=torch.float32)
    assert not can_be_joined(wide, torch.float32), "bytes of four a number"
    reordered = quantized(quant_type="nf4")
    reordered.support_avx512bf16_for_cpu = True
    assert not can_be_joined(reordered, torch.float32)
    eight = bitsandbytes.nn.Linear8bitLt(128, 64, has_fp16_weights=False)
    assert not can_be_joined(eight, torch.float32)
    assert not can_be_joined(nn.Linear(128, 64), torch.float32)
