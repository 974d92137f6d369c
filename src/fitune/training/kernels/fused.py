"""A model whose layers run on fitune's kernels while it trains.

Knows modules of transformers and PEFT by what they hold; knows nothing of losses. No family is
known by name: what looks like a norm or a gated layer is tried on random values, and is left alone
where the kernel says something else. Only the `forward` of single modules is replaced, and it is
given back at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fitune.training.fake import has_values
from fitune.training.kernels.adapted import join_adapters
from fitune.training.kernels.gated import gated
from fitune.training.kernels.norms import rms_norm

Forward = Callable[..., Any]


@contextmanager
def fused_layers(model: nn.Module, compute: torch.dtype, *, wanted: bool = True) -> Iterator[None]:
    """Inside the block, `fuse` is in effect.

    Args:
        wanted: False: nothing is done.
    """
    if not wanted:
        yield
        return
    undo = fuse(model, compute)
    try:
        yield
    finally:
        undo()


def fuse(model: nn.Module, compute: torch.dtype) -> Callable[[], None]:
    """Let the layers of `model` that a kernel can stand in for be computed by it.

    Args:
        model: a transformers (or PEFT) model, or a classifier around one.
        compute: the dtype of matrix products; adapters are joined where weights have it.

    Returns:
        What gives the layers back as they were.
    """
    replaced: list[nn.Module] = []

    def replace(module: nn.Module, forward: Forward) -> None:
        vars(module)["forward"] = forward
        replaced.append(module)

    for module in model.modules():
        if (norm := _norm_forward(module)) is not None:
            replace(module, norm)
    separate = join_adapters(model, compute, replace)
    for module in model.modules():
        if (layer := _gated_forward(module)) is not None:
            replace(module, layer)

    def undo() -> None:
        for module in replaced:
            vars(module).pop("forward", None)
        separate()

    return undo


def _norm_forward(module: nn.Module) -> Forward | None:
    """Of a root-mean-square norm, None where `module` is something else."""
    # The name first: a whole model's parameters would be listed for each module around a layer.
    if not type(module).__name__.endswith(("RMSNorm", "T5LayerNorm")):
        return None
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    named = dict(module.named_parameters())
    if not (isinstance(eps, float) and list(named) == ["weight"] and named["weight"].ndim == 1):
        return None
    weight = named["weight"]

    def like(offset: float) -> Forward:
        return lambda x: rms_norm(x, weight, eps, offset)

    candidates = [like(0.0), like(1.0)]
    if not has_values(weight):
        return candidates[0]  # only sizes matter
    sample = torch.randn(3, len(weight), dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        expected = module(sample)
        return next((each for each in candidates if _same(each(sample), expected)), None)


def _gated_forward(module: nn.Module) -> Forward | None:
    """Of a gated feed-forward layer, None where `module` is something else."""
    children = dict(module.named_children())
    if children.keys() != {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return None
    gate, up, down = children["gate_proj"], children["up_proj"], children["down_proj"]
    activation = _activation(children["act_fn"])
    width = getattr(gate, "in_features", None)
    if activation is None or width is None:
        return None

    def forward(x: torch.Tensor) -> torch.Tensor:
        return down(gated(gate(x), up(x), activation))

    parameter = next(module.parameters())
    if not has_values(parameter):
        return forward
    dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
    sample = torch.randn(1, 3, width, dtype=dtype, device=parameter.device)
    with torch.no_grad():
        return forward if _same(forward(sample), module(sample)) else None


def _activation(module: nn.Module) -> str | None:
    name = type(module).__name__.lower()
    if "silu" in name:
        return "silu"
    if "gelu" in name:
        tanh = "tanh" in name or "new" in name or getattr(module, "approximate", "") == "tanh"
        return "gelu_tanh" if tanh else "gelu"
    return None


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Alike but for rounding."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    tolerance = 1e-4 if found.dtype == torch.float32 else 3e-2
    scale = expected.float().abs().max().clamp(min=1e-12)
    return bool((found.float() - expected.float()).abs().max() <= tolerance * scale)
