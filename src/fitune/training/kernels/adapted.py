"""Layers with low-rank adapters, those that read the same input joined into one.

Knows PEFT's adapted layers, in four bits or not; knows nothing of families of models: which layers
read the same input is seen in a forward pass over two tokens.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fitune.quantization.joined import JoinedLayers, can_be_joined
from fitune.training.kernels.four_bit import Joined4bit, four_bit_outputs
from fitune.training.kernels.lora import Joined, lora_outputs

DOWNS, UPS, BIAS = "joined_downs", "joined_ups", "joined_bias"
"""Buffers of the first of the layers that read the same input."""


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
    groups = [_Group(members) for members in _by_input(model, layers)] if layers else []
    for group in groups:
        for index, layer in enumerate(group.layers):
            replace(layer, group.forward_of(index))

    def separate() -> None:
        for group in groups:
            group.separate()

    return separate


class _Group:
    """Layers that read the same input; the first one that is called computes all."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        names = [layer.active_adapters[0] for layer in layers]
        self.downs = [layer.lora_A[n].weight for layer, n in zip(layers, names, strict=True)]
        self.ups = [layer.lora_B[n].weight for layer, n in zip(layers, names, strict=True)]
        ranks = tuple(map(len, self.downs))
        ranks += (1,) * (sum(ranks) % 2)
        plain = type(layers[0].base_layer) is nn.Linear
        self.joined = _joined(layers, ranks) if plain else _joined_4bit(layers, ranks)
        self._rooms = self.joined.rooms()
        # Buffers of the model are what its memory is counted by.
        layers[0].register_buffer(DOWNS, self.joined.downs, persistent=False)
        layers[0].register_buffer(UPS, self.joined.ups, persistent=False)
        layers[0].register_buffer(BIAS, self.joined.bias, persistent=False)
        self._input: torch.Tensor | None = None
        self._outputs: dict[int, torch.Tensor] = {}

    def separate(self) -> None:
        if isinstance(self.joined, Joined4bit):
            self.joined.weights.separate()
        else:
            for layer in self.layers:
                alone = layer.base_layer.weight.detach().clone()
                layer.base_layer.weight = nn.Parameter(alone, requires_grad=False)
        for name in (DOWNS, UPS, BIAS):
            delattr(self.layers[0], name)
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
        with torch.no_grad():
            torch._foreach_copy_(self._rooms, [*self.downs, *self.ups])
        read = x.to(self.joined.downs.dtype)
        outputs: Iterable[torch.Tensor]
        if isinstance(self.joined, Joined4bit):
            outputs = four_bit_outputs(read, self.joined, self.downs, self.ups)
            # As the layers themselves do, autocast or not: some of those that add to these outputs,
            # or read them, may not be joined.
            outputs = (output.to(x.dtype) for output in outputs)
        else:
            outputs = lora_outputs(read, self.joined, self.downs, self.ups)
        self._input, self._outputs = x, dict(enumerate(outputs))


def _joined(layers: list[Any], ranks: tuple[int, ...]) -> Joined:
    """Moves the layers' frozen weights into one matrix, of which they become parts."""
    first = layers[0].base_layer.weight
    sizes = tuple(len(layer.base_layer.weight) for layer in layers)
    weights = first.new_empty((sum(sizes) + sum(ranks), first.shape[1]))
    for layer, part in zip(layers, weights[: sum(sizes)].split(sizes), strict=True):
        part.copy_(layer.base_layer.weight.detach())
        layer.base_layer.weight = nn.Parameter(part, requires_grad=False)
    weights[sum(sizes) :].zero_()
    return Joined(
        sizes=sizes,
        ranks=ranks,
        scale=_scale(layers[0]),
        downs=weights[sum(sizes) :],
        ups=first.new_zeros((sum(sizes), sum(ranks))),
        bias=_biases(layers),
        weights=weights,
    )


def _joined_4bit(layers: list[Any], ranks: tuple[int, ...]) -> Joined4bit:
    bases = [layer.base_layer for layer in layers]
    sizes = tuple(base.out_features for base in bases)
    like = bases[0].weight.new_empty(0, dtype=bases[0].compute_dtype)
    return Joined4bit(
        sizes=sizes,
        ranks=ranks,
        scale=_scale(layers[0]),
        downs=like.new_zeros((sum(ranks), bases[0].in_features)),
        ups=like.new_zeros((sum(sizes), sum(ranks))),
        bias=_biases(layers),
        weights=JoinedLayers(bases),
    )


def _biases(layers: list[Any]) -> torch.Tensor | None:
    biases = [layer.base_layer.bias for layer in layers]
    return torch.cat([b.detach() for b in biases]) if biases[0] is not None else None


def _can_be_joined(module: Any, compute: torch.dtype) -> bool:
    """A linear layer with one plain adapter, without dropout."""
    if not (_is_plain(module, compute) or _is_four_bit(module, compute)):
        return False
    bias = module.base_layer.bias
    if bias is not None and (bias.requires_grad or bias.dtype != compute):
        return False
    if len(module.active_adapters) != 1 or module.merged:
        return False
    (name,) = module.active_adapters
    if name not in module.lora_A or name in module.lora_variant or module.lora_bias[name]:
        return False
    dropout = module.lora_dropout[name]
    return isinstance(dropout, nn.Identity) or getattr(dropout, "p", 1.0) == 0.0


def _is_plain(module: Any, compute: torch.dtype) -> bool:
    from peft.tuners.lora import Linear

    if type(module) is not Linear or type(module.base_layer) is not nn.Linear:
        return False
    weight = module.base_layer.weight
    return weight.dtype == compute and not weight.requires_grad


def _is_four_bit(module: Any, compute: torch.dtype) -> bool:
    # PEFT's adapter is there with bitsandbytes only.
    if type(module).__name__ not in ("Linear4bit", "StandInLora4bit"):
        return False
    return can_be_joined(module.base_layer, compute)


def _by_input(model: Any, layers: list[nn.Module]) -> list[list[Any]]:
    """Neighbours that read the very same tensor in a forward pass, in the order of their calls.

    Without layers whose output is changed in place, as Llama 4's router's is: autograd does not
    have that of one output among several.
    """
    calls: list[tuple[torch.Tensor, Any]] = []
    made: list[tuple[Any, torch.Tensor, int]] = []

    def note(module: Any, given: tuple[Any, ...], output: torch.Tensor) -> None:
        calls.append((given[0], module))
        made.append((module, output, output._version))

    handles = [layer.register_forward_hook(note) for layer in layers]
    inner = getattr(model, "trunk", model)
    device = next(model.parameters()).device
    tokens = torch.ones((1, 2), dtype=torch.int64, device=device)
    given: dict[str, Any] = {}
    if inner.config.is_encoder_decoder:
        given["decoder_input_ids"] = tokens
    if _takes_cache(inner):  # which nobody would read
        given["use_cache"] = False
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            inner(input_ids=tokens, **given)
    finally:
        for handle in handles:
            handle.remove()
    groups: list[list[Any]] = []
    last: torch.Tensor | None = None
    for tensor, layer in calls:
        if tensor is last and _alike(groups[-1][0], layer):
            groups[-1].append(layer)
        else:
            groups.append([layer])
        last = tensor
    called = Counter(layer for _, layer in calls)
    changed = {layer for layer, output, version in made if output._version != version}
    kept = [[layer for layer in group if layer not in changed] for group in groups]
    return [group for group in kept if group and all(called[layer] == 1 for layer in group)]


def _takes_cache(model: Any) -> bool:
    from transformers import PreTrainedModel

    inside = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    return "use_cache" in inspect.signature(next(inside, model).forward).parameters


def _alike(layer: Any, other: Any) -> bool:
    return _kind(layer) == _kind(other)


def _kind(layer: Any) -> tuple[Any, ...]:
    base = layer.base_layer
    return type(base), base.bias is not None, _scale(layer)


def _scale(layer: Any) -> float:
    return layer.scaling[layer.active_adapters[0]]
