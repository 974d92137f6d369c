"""A model's parameters, as those who divide them and those who count arithmetic want them.

Knows modules (on the meta device, where they have sizes and no values) and configs; knows nothing
of steps or devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from fitune.errors import FituneError, ModelError
from fitune.memory.options import Inference, Training
from fitune.memory.roofline import Counts
from fitune.memory.sharding import ROOT, ParameterFacts
from fitune.memory.stacks import stacks_of
from fitune.models.pooling import Pooling


def meta_model(
    config: Any, asked: Training | Inference, pooling: Pooling | None = None
) -> nn.Module:
    """The model that is trained or asked, on the meta device, before any method is applied.

    Raises:
        ModelError: transformers cannot build such a model.
    """
    import torch

    from fitune.memory import answering, scenario

    try:
        with torch.device("meta"):
            if isinstance(asked, Training):
                return scenario.build_model(config, asked, pooling)
            return answering.build_model(config, asked)
    except FituneError:
        raise
    except Exception as error:  # each family has assertions of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"no model can be built from this '{config.model_type}' config ({reason:.200})",
            fix="correct the config, or use another model",
        ) from error


def parameter_facts(model: nn.Module) -> list[ParameterFacts]:
    """Every parameter, once, in the model's order; a layer of a stack is a unit.

    Args:
        model: after the method was applied.
    """
    units = [
        f"{name}.{index}."
        for name, stack in stacks_of(model).items()
        for index in range(len(stack))
    ]
    by_layer = {unit: unit.rstrip(".") for unit in units}
    shared = _shared_with_head(model)
    return [
        ParameterFacts(
            name=name,
            numel=parameter.numel(),
            bytes_per_value=parameter.element_size(),
            trained=parameter.requires_grad,
            unit=_unit(name, by_layer),
            shape=tuple(parameter.shape),
            tied=parameter is shared,
        )
        for name, parameter in model.named_parameters()
    ]


def _unit(name: str, by_layer: dict[str, str]) -> str:
    parts = name.split(".")
    prefixes = (".".join(parts[:end]) + "." for end in range(1, len(parts)))
    return next((by_layer[prefix] for prefix in prefixes if prefix in by_layer), ROOT)


def _embeddings(model: Any) -> tuple[Any, Any]:
    """The weights of the input embeddings and of the output head; None where there is none."""
    inner = getattr(model, "trunk", getattr(model, "model", model))
    inner = model if hasattr(model, "get_output_embeddings") else inner
    found = []
    for ask in ("get_input_embeddings", "get_output_embeddings"):
        module = getattr(inner, ask, lambda: None)()
        found.append(getattr(module, "weight", None))
    return found[0], found[1]


def _shared_with_head(model: nn.Module) -> Any:
    embedding, head = _embeddings(model)
    return embedding if embedding is head else None


def head_parameters(model: nn.Module) -> int:
    """Of the output head; 0 where it shares the embeddings' weight, or there is none."""
    embedding, head = _embeddings(model)
    return 0 if head is None or head is embedding else int(head.numel())


def counts(config: Any, model: nn.Module, *, trainable: int, weight_bytes: float) -> Counts:
    """What arithmetic depends on.

    Args:
        model: before adapters are put in, and then frozen; other methods have been applied.
        trainable: parameters that train, adapters included.
        weight_bytes: of a parameter as stored, on average.
    """
    text = config.get_text_config()
    embedding, head = _embeddings(model)
    layers = list(_layer_weights(model, text))
    active = sum(w.numel() * times for w, times in layers)
    trained = sum(w.numel() * times for w, times in layers if w.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    adapters = not any(p.requires_grad for p in model.parameters())
    if adapters:  # they follow the weights they stand beside
        weights = sum(w.numel() for w, _ in layers)
        trained = trainable * active / max(1, weights)
        active += trained
    query, kept = _attention_widths(text)
    counted = total - (embedding.numel() if embedding is not None and embedding is not head else 0)
    return Counts(
        parameters=counted + (trainable if adapters else 0),
        active=int(active),
        layers=round(sum(len(stack) * times for stack, times in _stacks(model, text))),
        hidden=int(text.hidden_size),
        attention_width=query,
        kv_width=kept,
        vocabulary=int(text.vocab_size) if head is not None else 0,
        weight_bytes=weight_bytes,
        trained=trainable,
        trained_active=int(trained),
        head_trained=head is not None and bool(head.requires_grad),
    )


def trained_depth(model: nn.Module) -> float:
    """Of the layers, the share that gradients reach: from the lowest that trains up."""
    reached, depth = 0, 0
    for stack in stacks_of(model).values():
        trains = [any(p.requires_grad for p in layer.parameters()) for layer in stack]
        depth += len(trains)
        reached += len(trains) - (trains.index(True) if True in trains else len(trains))
    embedding, _ = _embeddings(model)
    if embedding is not None and embedding.requires_grad:
        return 1.0
    return reached / max(1, depth)


def _stacks(model: nn.Module, text: Any) -> list[tuple[nn.ModuleList, float]]:
    """Stacks of layers, and how often each of their layers is gone through.

    Once, but where one layer stands for all (Lan et al., arXiv:1909.11942, section 3.1).
    """
    several = [(stack, 1.0) for stack in stacks_of(model).values()]
    shared = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == 1)
    alone = next(shared, None)
    if several or alone is None:
        return several
    return [(alone, float(text.num_hidden_layers))]


def _layer_weights(model: nn.Module, text: Any) -> Iterator[tuple[nn.Parameter, float]]:
    """Weights of matrix products in layers, and how often one token meets them."""
    share = _expert_share(text)
    for stack, times in _stacks(model, text):
        for name, parameter in stack.named_parameters():
            if parameter.ndim >= 2:
                yield parameter, times * (share if ".experts." in name else 1.0)


def _expert_share(text: Any) -> float:
    """Of the routed experts, the share that one token meets."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    experts = next((n for name in names if (n := getattr(text, name, None))), None)
    chosen = getattr(text, "num_experts_per_tok", None)
    return min(1.0, chosen / experts) if experts and chosen else 1.0


def _attention_widths(text: Any) -> tuple[int, int]:
    """Of all query heads together, and of all keys (as many as values)."""
    heads = int(text.num_attention_heads)
    latent = getattr(text, "kv_lora_rank", None)
    if latent:  # DeepSeek-AI, arXiv:2405.04434, section 2.1
        query = heads * (text.qk_nope_head_dim + text.qk_rope_head_dim + text.v_head_dim) // 2
        return query, math.ceil((latent + text.qk_rope_head_dim) / 2)
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    grouped = getattr(text, "num_key_value_heads", None) or heads
    if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
        grouped = 1
    return heads * int(width), int(grouped) * int(width)
