"""Linear layers in four bits: converts, does not judge.

Knows modules and bitsandbytes; knows nothing of adapters or of what the model is for.

NF4 with double quantization (Dettmers et al., arXiv:2305.14314, section 3): each block of 64
weights is divided by its largest absolute value and rounded to the nearest of 16 quantiles of a
normal distribution; the blocks' largest values are themselves rounded to 8 bits, in blocks of 256
around their mean. That is 4 + 8/64 + 32/(64 * 256) = 4.127 bits a weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fitune.errors import MissingExtraError, ModelError
from fitune.models.quiet import import_bitsandbytes

BLOCK = 64
"""Weights that share one scale."""

NESTED_BLOCK = 256
"""Scales that share one scale."""


def require_bitsandbytes(purpose: str) -> Any:
    """The package.

    Args:
        purpose: what it is needed for, e.g. ``"method qlora"``.

    Raises:
        MissingExtraError: it is not installed.
    """
    found = import_bitsandbytes()
    if found is None:
        raise MissingExtraError("bitsandbytes", extra="quant", purpose=purpose)
    return found


def is_router(module: nn.Module) -> bool:
    """Whether it chooses experts: some families derive such a layer from torch's linear one, but it
    returns two tensors, which neither a four-bit layer nor an adapter in its place would."""
    return isinstance(module, nn.Linear) and "Router" in type(module).__name__


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """Name → linear layer that can be quantized, of those in the trunk of a transformers model.

    transformers' Conv1D (GPT-2) is a linear layer, too; a router is none (see `is_router`). Left
    out are the output head and whatever else lies on top of the trunk, layers that share their
    weight with the embeddings, those that the family keeps in fp32, and those whose number of
    inputs is no multiple of `BLOCK`: of these, where a block reaches into the next row,
    bitsandbytes restores wrong weights on a CPU (0.50).
    """
    from transformers.pytorch_utils import Conv1D

    trunk = {id(module) for module in model.base_model.modules()}
    kept = {id(model.get_input_embeddings().weight)}
    head = model.get_output_embeddings()
    if head is not None:
        kept.add(id(head.weight))
    fp32 = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and not is_router(module)
        and id(module) in trunk
        and id(module.weight) not in kept
        and not any(part in fp32 for part in name.split("."))
        and features_of(module)[0] % BLOCK == 0
    }


def is_quantized(model: Any) -> bool:
    """Whether the model's linear layers are in four bits."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def quantize_linear_layers(
    model: Any, *, compute_dtype: torch.dtype, device: str | torch.device | None = None
) -> Any:
    """Put NF4 layers of bitsandbytes in the place of a model's linear layers, one at a time.

    So no more than one layer is held twice, and with `device` that device never holds the model in
    its old dtype; what is not quantized stays where it is.

    Args:
        model: a transformers model with its weights, in fp32 or bf16; it is changed.
        compute_dtype: the dtype of matrix products, in which weights are restored when needed.
        device: where the layers go; None: each stays where it is.

    Returns:
        The model; `is_quantized` is then true of it, which PEFT looks at.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ModelError: no layer can be quantized.
    """
    require_bitsandbytes("quantizing weights to NF4")
    return replace_linear_layers(
        model, lambda layer: _in_four_bits(layer, compute_dtype, device or layer.weight.device)
    )


def replace_linear_layers(model: Any, make: Callable[[Any], nn.Module]) -> Any:
    """Put what `make` returns in the place of each layer in `linear_layers`.

    Raises:
        ModelError: there is none.
    """
    layers = linear_layers(model)
    if not layers:
        raise ModelError(
            f"no linear layer of a {model.config.model_type} of this size can be quantized to "
            f"NF4, which takes blocks of {BLOCK} inputs",
            fix="use method lora",
        )
    for name in layers:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, make(layers[name]))
    model.is_loaded_in_4bit = True
    return model


def _in_four_bits(layer: Any, compute_dtype: torch.dtype, device: Any) -> nn.Module:
    bitsandbytes = import_bitsandbytes()
    inputs, outputs = features_of(layer)
    made: Any = bitsandbytes.nn.Linear4bit(
        inputs, outputs, bias=False, compute_dtype=compute_dtype, quant_type="nf4", device="meta"
    )
    weight = layer.weight.data
    layer.weight = None  # the last other reference, so that the old weight goes as soon as it can
    made.weight = bitsandbytes.nn.Params4bit(
        weight if isinstance(layer, nn.Linear) else weight.T,
        requires_grad=False,
        blocksize=BLOCK,
        compress_statistics=True,
        quant_type="nf4",
        module=made,
    ).to(device)
    if layer.bias is not None:
        # The layer would do so itself, later and unseen.
        bias = layer.bias.data.to(device=device, dtype=compute_dtype)
        made.bias = nn.Parameter(bias, requires_grad=False)
    # In evaluation it would reorder the weight in place for AVX512-BF16 kernels, without gradients,
    # and not put it back for the next training step (0.50).
    made.support_avx512bf16_for_cpu = False
    made.train(layer.training)
    return made


def features_of(layer: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; transformers' Conv1D holds its weight the other way."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    inputs, outputs = layer.weight.shape
    return inputs, outputs


def count_parameters(model: nn.Module) -> int:
    """How many values the parameters hold; two four-bit ones lie in each byte."""
    counts = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            packed = parameter.dtype == torch.uint8
            counts[id(parameter)] = math.prod(features_of(module)) if packed else parameter.numel()
    return sum(counts.values())
