"""Layers with low-rank adapters, those that read the same input joined into one.

Knows PEFT's adapted layers; knows nothing of families of models: which layers read the same input
is seen in a forward pass over two tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fitune.training.kernels.lora import Shape, lora_outputs


def join_adapters(
    model: nn.Module, compute: torch.dtype, replace: Callable[[nn.Module, Any], None]
) -> Callable[[], None]:
    """Let adapted layers that read the same input be computed by one product.

    Their frozen weights lie in one matrix then: they are moved there, so that no memory is taken
    twice.

    Args:
        replace: puts a `forward` in the place of a module's.

    Returns:
        What moves the weights back.
    """
    # PEFT is imported for models that it has adapted only: it takes seconds.
    adapted = [module for module in model.modules() if hasattr(module, "lora_A")]
    layers = [module for module in adapted if _can_be_joined(module, compute)]
    groups = [_Joined(members) for members in _by_input(model, layers)] if layers else []
    for group in groups:
        for index, layer in enumerate(group.layers):
            replace(layer, group.forward_of(index))

    def separate() -> None:
        for group in groups:
            group.separate()

    return separate


class _Joined:
    """Layers that read the same input; the first one that is called computes all."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        names = [layer.active_adapters[0] for layer in layers]
        self._downs = [layer.lora_A[n].weight for layer, n in zip(layers, names, strict=True)]
        self._ups = [layer.lora_B[n].weight for layer, n in zip(layers, names, strict=True)]
        self._shape = Shape(
            sizes=tuple(layer.base_layer.weight.shape[0] for layer in layers),
            ranks=tuple(len(down) for down in self._downs),
            scales=tuple(layer.scaling[n] for layer, n in zip(layers, names, strict=True)),
        )
        self._input: torch.Tensor | None = None
        self._outputs: dict[int, torch.Tensor] = {}
        self._join()

    def _join(self) -> None:
        weights = [layer.base_layer.weight for layer in self.layers]
        rows, first = sum(self._shape.sizes) + sum(self._shape.ranks), weights[0]
        self._weights = torch.empty((rows, first.shape[1]), dtype=first.dtype, device=first.device)
        parts = self._weights[: sum(self._shape.sizes)].split(self._shape.sizes)
        for layer, part in zip(self.layers, parts, strict=True):
            part.copy_(layer.base_layer.weight.detach())
            layer.base_layer.weight = nn.Parameter(part, requires_grad=False)
        biases = [layer.base_layer.bias for layer in self.layers]
        self._bias = torch.cat([b.detach() for b in biases]) if biases[0] is not None else None

    def separate(self) -> None:
        for layer in self.layers:
            alone = layer.base_layer.weight.detach().clone()
            layer.base_layer.weight = nn.Parameter(alone, requires_grad=False)
        self._outputs, self._input = {}, None

    def forward_of(self, index: int) -> Callable[..., torch.Tensor]:
        layer = self.layers[index]
        plain = type(layer).forward

        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if layer.disable_adapters or layer.merged or args or kwargs:
                return plain(layer, x, *args, **kwargs)
            if index == 0:
                self._compute(x)
            elif x is not self._input or index not in self._outputs:
                return plain(layer, x)  # another input than seen before: it is on its own
            output = self._outputs.pop(index)
            if not self._outputs:
                self._input = None
            return output

        return forward

    def _compute(self, x: torch.Tensor) -> None:
        read = x.to(self._weights.dtype)
        outputs = lora_outputs(read, self._weights, self._bias, self._shape, self._downs, self._ups)
        self._input, self._outputs = x, dict(enumerate(outputs))


def _can_be_joined(module: Any, compute: torch.dtype) -> bool:
    """A linear layer with one plain adapter, without dropout."""
    from peft.tuners.lora import Linear

    if type(module) is not Linear or type(module.base_layer) is not nn.Linear:
        return False
    weight, bias = module.base_layer.weight, module.base_layer.bias
    if weight.dtype != compute or weight.requires_grad:
        return False
    if bias is not None and bias.requires_grad:
        return False
    if len(module.active_adapters) != 1 or module.merged:
        return False
    (name,) = module.active_adapters
    if name not in module.lora_A or name in module.lora_variant or module.lora_bias[name]:
        return False
    dropout = module.lora_dropout[name]
    return isinstance(dropout, nn.Identity) or getattr(dropout, "p", 1.0) == 0.0


def _by_input(model: Any, layers: list[nn.Module]) -> list[list[Any]]:
    """Neighbours that read the very same tensor in a forward pass, in the order of their calls."""
    calls: list[tuple[torch.Tensor, Any]] = []
    handles = [
        layer.register_forward_pre_hook(lambda module, given: calls.append((given[0], module)))
        for layer in layers
    ]
    inner = getattr(model, "trunk", model)
    device = next(model.parameters()).device
    tokens = torch.ones((1, 2), dtype=torch.int64, device=device)
    given = {"decoder_input_ids": tokens} if inner.config.is_encoder_decoder else {}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            inner(input_ids=tokens, **given)
    finally:
        for handle in handles:
            handle.remove()
    groups: list[list[Any]] = []
    last: torch.Tensor | None = None
    for tensor, layer in calls:
        if tensor is last and _has_bias(groups[-1][0]) == _has_bias(layer):
            groups[-1].append(layer)
        else:
            groups.append([layer])
        last = tensor
    called = Counter(layer for _, layer in calls)
    return [group for group in groups if all(called[layer] == 1 for layer in group)]


def _has_bias(layer: Any) -> bool:
    return layer.base_layer.bias is not None
