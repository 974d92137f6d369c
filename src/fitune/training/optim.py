"""Optimizers and learning rates.

Knows parameters; knows nothing of losses or data. The learning rate is a pure function of the step,
so there is no scheduler state to save. To add an optimizer, write a function and a line in
`OPTIMIZERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from fitune.config import Finetuned
from fitune.errors import ResourceError
from fitune.quantization.weights import require_bitsandbytes
from fitune.training.fake import has_values
from fitune.training.lion import Lion
from fitune.training.stand_in import StandInAdamW8bit

Groups = list[dict[str, Any]]
OptimizerFactory = Callable[[Groups, Finetuned], torch.optim.Optimizer]


def adamw(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2), one fused kernel a step."""
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8, fused=True)


def sgd(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """Plain stochastic gradient descent: no state."""
    return _sgd(groups, momentum=0.0)


def momentum(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum 0.9: one state value per parameter."""
    return _sgd(groups, momentum=0.9)


def _sgd(groups: Groups, *, momentum: float) -> torch.optim.Optimizer:
    """One fused kernel a step where it is sound, else parameter by parameter.

    Never torch's default on CUDA, which for weight decay holds a second copy of all gradients.
    torch's fused kernel for CPUs leaves most bf16 values as they are (pytorch issue 191763, in
    2.13).
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    if all(p.is_cuda or p.dtype in (torch.float32, torch.float64) for p in parameters):
        return torch.optim.SGD(groups, lr=1.0, momentum=momentum, fused=True)
    return torch.optim.SGD(groups, lr=1.0, momentum=momentum, foreach=False)


def adafactor(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern, arXiv:1804.04235, algorithm 4), without momentum and with the
    learning rate as it is given: of a matrix it keeps a sum a row and a column, in fp32.

    transformers' and not torch's, whose learning rate is always relative to the size of the
    parameter (algorithm 5): LoRA's B, which starts at zero, would hardly leave it.
    """
    from transformers.optimization import Adafactor

    return Adafactor(groups, lr=1.0, scale_parameter=False, relative_step=False)


def lion(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """Lion (Chen et al., arXiv:2302.06675, algorithm 2): half of AdamW's state. Its steps are as
    long as the learning rate whatever the gradient, so that it takes a lower one."""
    return Lion(groups, lr=1.0)


def adamw_8bit(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """AdamW with two 8-bit values per parameter and a scale for each 256 of them (Dettmers et al.,
    arXiv:2110.02861, section 2). Parameters of less than 4,096 values keep theirs in fp32.

    bitsandbytes' and not torchao's, which compiles itself on the user's machine.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    if _has_no_values(groups):
        return StandInAdamW8bit(groups)
    bitsandbytes = require_bitsandbytes("optimizer adamw-8bit")
    return bitsandbytes.optim.AdamW8bit(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8)


def paged_adamw_8bit(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """As `adamw_8bit`; where the GPU's memory runs short, states of parameters of at least 100,000
    values move to the host's (Dettmers et al., arXiv:2305.14314, section 3).

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ResourceError: the parameters are not on a CUDA device.
    """
    if _has_no_values(groups):
        return StandInAdamW8bit(groups, paged=True)
    require_device(PAGED, groups[0]["params"][0].device.type)
    bitsandbytes = require_bitsandbytes(f"optimizer {PAGED}")
    return bitsandbytes.optim.PagedAdamW8bit(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8)


PAGED = "paged-adamw-8bit"

OPTIMIZERS: dict[str, OptimizerFactory] = {
    "adamw": adamw,
    "sgd": sgd,
    "momentum": momentum,
    "adafactor": adafactor,
    "lion": lion,
    "adamw-8bit": adamw_8bit,
    PAGED: paged_adamw_8bit,
}

EIGHT_BIT = frozenset({"adamw-8bit", PAGED})
"""Those that need bitsandbytes."""


def require_device(optimizer: str, device: str) -> None:
    """Refuse an optimizer that cannot run there.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        ResourceError: it cannot.
    """
    if optimizer == PAGED and device != "cuda":
        raise ResourceError(
            f"optimizer '{PAGED}' moves its states between a GPU and the host, and the device is "
            f"{device}",
            fix="use adamw-8bit, whose states take as much",
        )


def _has_no_values(groups: Groups) -> bool:
    """Whether parameters are fake: bitsandbytes hands their raw addresses to compiled code."""
    return not has_values(groups[0]["params"][0])


def parameter_groups(
    parameters: dict[str, nn.Parameter],
    *,
    head: Iterable[nn.Parameter],
    learning_rate: float,
    head_learning_rate: float,
    weight_decay: float,
    factors: Mapping[str, float] | None = None,
) -> Groups:
    """Parameters by learning rate and decay: biases and norms (one dimension) do not decay.

    Each group carries ``peak``, its learning rate before the schedule's factor.

    Args:
        factors: name → what the parameter's learning rate is multiplied by, where that is not 1
            (see `rates.rate_factors`).
    """
    head_ids = {id(parameter) for parameter in head}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        rate = head_learning_rate if id(parameter) in head_ids else learning_rate
        rate *= (factors or {}).get(name, 1.0)
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def schedule_factor(step: int, total: int, *, warmup: float, schedule: str) -> float:
    """What the peak learning rate is multiplied by at `step` (0-based) of `total`.

    Rises linearly over the first ``warmup * total`` steps, then falls to zero along a line or a
    half cosine (Loshchilov and Hutter, arXiv:1608.03983, equation 5), or stays.
    """
    rise = math.ceil(warmup * total)
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    progress = (step - rise) / max(1, total - rise)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress
