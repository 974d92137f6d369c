"""How many floating-point operations a training step needs, as the method asks for them.

Knows modules, batches and who asks for gradients; knows nothing of kernels or of time. Counted are
matrix products, a multiplication and an addition as two (Kaplan et al., arXiv:2001.08361, section
2.1): of each weight with each vector that meets it 2 forward, 2 for the gradient of the vector
where something below it trains, and 2 for the weight's own where it trains; of attention's own two
products 4 · width · tokens² a row and layer forward and twice that backward (Chowdhery et al.,
arXiv:2204.02311, appendix B, which as here leaves a causal mask out of account). Not counted is
what a program does beside: padding, what is computed again, logits of tokens that nobody learns,
norms, and what DoRA computes of its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from fitune.data.batches import Batch
from fitune.training.objectives import Objective
from fitune.training.packing import rows_apart


@dataclass(frozen=True)
class Product:
    """A weight that vectors are multiplied with.

    Attributes:
        weights: how many each vector meets; of experts, those of the chosen ones.
        of: what there is a vector for.
        reached: whether the vectors' gradient is needed.
        trains: whether the weight's is.
    """

    weights: int
    of: Literal["token", "target", "row"]
    reached: bool
    trains: bool


@dataclass(frozen=True)
class Products:
    """What a model multiplies.

    Attributes:
        weights: in the order in which they are met.
        attention: width (heads · size) of each attention, and whether gradients go through it.
        virtual: tokens that stand before each row.
    """

    weights: tuple[Product, ...]
    attention: tuple[tuple[int, bool], ...]
    virtual: int = 0


@dataclass(frozen=True)
class Flops:
    """Of one or more steps.

    Attributes:
        forward: through weights and attention.
        backward_inputs: gradients of what weights and attention read.
        backward_weights: gradients of weights.
    """

    forward: int = 0
    backward_inputs: int = 0
    backward_weights: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.backward_inputs + self.backward_weights

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            self.forward + other.forward,
            self.backward_inputs + other.backward_inputs,
            self.backward_weights + other.backward_weights,
        )


def find_products(
    model: nn.Module | Any,
    objective: Objective,
    batch: Batch,
    autocast: torch.dtype | None = None,
) -> Products:
    """What `model` multiplies, found by one forward and backward pass over `batch`.

    Args:
        model: before kernels take the place of its layers (`kernels.fused`), which they hide.
        batch: of `objective`, on the model's device: one short row of at least two tokens is
            enough.

    Gradients that parameters hold are dropped.
    """
    inner: Any = getattr(model, "trunk", model)
    config = inner.config.get_text_config()
    head = getattr(inner, "get_output_embeddings", lambda: None)()
    width = _attention_width(config)
    virtual = _virtual_tokens(model)
    rows = len(batch.packed) or batch.input_ids.shape[0]
    tokens = batch.input_ids.numel() + virtual * rows
    weights: list[Product] = []
    attention: list[bool] = []

    def meets(module: Any, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        seen = _tensor((*given, *named.values()))
        vectors = seen.numel() // seen.shape[-1]
        of: Literal["token", "target", "row"]
        if module is head:
            of = "target"
        elif vectors in (tokens, rows):
            of = "token" if vectors == tokens else "row"
        else:
            return  # what a family computes once, such as rotations
        for parameter in _matrices(module):
            size = _size(module, parameter, config)
            found = Product(size, of, seen.requires_grad, parameter.requires_grad)
            weights.append(replace(found, reached=False, trains=False))
            _where_gradients_arrive(output, weights, found)

    def attends(module: Any, given: tuple[Any, ...], output: Any) -> None:
        attention.append(False)
        _where_gradients_arrive(output, attention, True)

    handles = [
        *(
            module.register_forward_hook(meets, with_kwargs=True)
            for module in model.modules()
            if any(True for _ in _matrices(module))
        ),
        *(module.register_forward_hook(attends) for module in _attentions(model)),
    ]
    faster: Any = (
        torch.autocast(batch.input_ids.device.type, dtype=autocast)
        if autocast
        else contextlib.nullcontext()
    )
    training = model.training
    model.eval()  # no dropout, no checkpointing
    try:
        with torch.enable_grad(), rows_apart(model, batch):
            with faster:
                loss = objective.loss_sum(model, batch)
            loss.backward()
        model.zero_grad(set_to_none=True)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return Products(tuple(weights), tuple((width, reached) for reached in attention), virtual)


def step_flops(products: Products, parts: Sequence[Batch]) -> Flops:
    """What a step over these micro-batches needs; padding is left out."""
    total = Flops()
    for part in parts:
        lengths = part.packed or tuple(part.attention_mask.sum(dim=1).tolist())
        before = part.shared or products.virtual  # what each row reads before its own tokens
        spared = part.shared * (len(lengths) - 1)
        vectors = {
            "token": part.tokens - spared + products.virtual * len(lengths),
            "target": len(lengths) if part.positions is None else len(part.positions),
            "row": len(lengths),
        }
        for each in products.weights:
            once = 2 * each.weights * vectors[each.of]
            total += Flops(once, once * each.reached, once * each.trains)
        pairs = part.shared**2 + sum(
            (length + products.virtual) * (length + before) for length in lengths
        )
        for width, reached in products.attention:
            total += Flops(4 * width * pairs, 8 * width * pairs * reached)
    return total


def _where_gradients_arrive(output: Any, facts: list[Any], fact: Any) -> None:
    """Write `fact` over the last of `facts` once a gradient of `output` arrives, which none does
    where nothing below trains, or where the loss does not see it (a pooler that is left out)."""
    tensor, place = _tensor(output if isinstance(output, tuple) else (output,)), len(facts) - 1
    if tensor.requires_grad:
        tensor.register_hook(lambda gradient: facts.__setitem__(place, fact))


def _tensor(values: Iterable[Any]) -> torch.Tensor:
    return next(value for value in values if isinstance(value, torch.Tensor))


def _matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    """Weights of a module's own that multiply vectors."""
    if isinstance(module, nn.Embedding):
        return
    for parameter in module.parameters(recurse=False):
        if parameter.ndim >= 2:
            yield parameter


def _size(module: Any, parameter: nn.Parameter, config: Any) -> int:
    """Weights that one vector meets."""
    if not parameter.is_floating_point():  # four bits, two of them in a byte
        return int(module.in_features * module.out_features)
    if parameter.ndim == 3 and (chosen := getattr(config, "num_experts_per_tok", None)):
        return parameter.numel() * int(chosen) // parameter.shape[0]
    return parameter.numel()


def _attentions(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that compute attention; of one within another the inner."""
    for module in model.modules():
        inside = (m for m in module.modules() if m is not module)
        if _attends(module) and not any(map(_attends, inside)):
            yield module


def _attends(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Attention")


def _attention_width(config: Any) -> int:
    """Heads · size, of queries; keys and values are as wide in the products. Where they differ from
    each other in size (DeepSeek-AI, arXiv:2405.04434, section 2.1), the mean of both products."""
    heads = int(config.num_attention_heads)
    if getattr(config, "kv_lora_rank", None):
        size = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
        return int(heads * size // 2)
    return heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def _virtual_tokens(model: Any) -> int:
    """That PEFT puts before each row as embeddings, or as keys and values."""
    asked = getattr(model, "active_peft_config", None)
    return int(getattr(asked, "num_virtual_tokens", None) or 0)
