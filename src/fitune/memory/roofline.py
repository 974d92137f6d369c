"""How long a step takes, by roofline, and what it costs.

Knows counts of a model and the peaks of a device; knows nothing of modules or kernels. A phase
takes as long as its arithmetic at the device's peak, or as its memory traffic at the device's
bandwidth, whichever is longer (Williams, Waterman and Patterson, Communications of the ACM 52(4),
2009). Real programs reach a part of both, and how much is an assumption here (`Efficiency`): unlike
the bytes of an estimate, these seconds are traced from nothing, and the result says so (`label`).

FLOPs count a multiplication and an addition as two, of matrix products only, as Kaplan et al.
(arXiv:2001.08361, section 2.1, table 1) and Narayanan et al. (arXiv:2104.04473, equation 3) do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from fitune.devices import Device
from fitune.errors import ConfigError


@dataclass(frozen=True)
class Counts:
    """What arithmetic and traffic depend on. "Weights" are those of matrix products.

    Attributes:
        parameters: what one pass reads: all but an input embedding that is not the head's too.
        active: weights of the layers that one token meets; of a mixture of experts, those of the
            chosen ones. Adapters count.
        layers: how many.
        hidden: width between layers.
        attention_width: query heads × size of each.
        kv_width: key-value heads × size of each; with multi-head latent attention, half of what
            is cached per token and layer.
        vocabulary: outputs of the head; 0 without one.
        weight_bytes: of each parameter as stored.
        trained: parameters that the optimizer updates.
        trained_active: those of `active` that train.
        head_trained: whether the head's weights do.
    """

    parameters: int
    active: int
    layers: int
    hidden: int
    attention_width: int
    kv_width: int
    vocabulary: int = 0
    weight_bytes: float = 2.0
    trained: int = 0
    trained_active: int = 0
    head_trained: bool = False


@dataclass(frozen=True)
class Efficiency:
    """The share of a device's peaks that a program reaches: assumptions, not measurements.

    Attributes:
        compute: of the peak FLOP per second. 0.4 by default: large training runs report 0.46
            (PaLM, arXiv:2204.02311, section 4.1) and 0.44 to 0.52 (Megatron-LM, arXiv:2104.04473,
            table 1); fine-tuning with small batches reaches less.
        bandwidth: of the memory's. 0.7 by default: copies reach 0.8 to 0.9, mixtures of small
            kernels less.
    """

    compute: float = 0.4
    bandwidth: float = 0.7

    def __post_init__(self) -> None:
        for name in ("compute", "bandwidth"):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                raise ConfigError(
                    f"{name} efficiency is {value}, which is no share of a peak",
                    fix="give a number above 0, up to 1",
                )


@dataclass(frozen=True)
class Roofline:
    """Time and money of some work on one device.

    Attributes:
        work: ``"training step"``, ``"prefill"`` or ``"decode step"``.
        seconds: the estimate.
        flops, bytes: arithmetic and memory traffic.
        bound: what most of the seconds go to.
        efficiency: what was assumed.
        device: its name.
        cost: in the currency of the price per hour; None without one.
    """

    work: str
    seconds: float
    flops: int
    bytes: int
    bound: Literal["compute", "memory"]
    efficiency: Efficiency
    device: str
    cost: float | None

    @property
    def label(self) -> str:
        """What kind of figure this is, to be shown beside it."""
        return (
            f"roofline, not measured: {self.device} at {self.efficiency.compute:.0%} of its peak "
            f"FLOP/s and {self.efficiency.bandwidth:.0%} of its bandwidth"
        )

    def times(self, count: int) -> Roofline:
        """The same work `count` times over, such as the steps of a run."""
        return replace(
            self,
            seconds=self.seconds * count,
            flops=self.flops * count,
            bytes=self.bytes * count,
            cost=None if self.cost is None else self.cost * count,
        )


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of one training step, by what they are for."""

    forward: int
    recompute: int
    backward_inputs: int
    backward_weights: int

    @property
    def total(self) -> int:
        return self.forward + self.recompute + self.backward_inputs + self.backward_weights


def training_flops(
    counts: Counts,
    *,
    tokens: int,
    seq: int,
    answer_tokens: int | None = None,
    checkpointing: bool | int = False,
    skips_masked: bool = False,
    backward_share: float = 1.0,
) -> TrainingFlops:
    """FLOPs of forward and backward over `tokens`.

    Per token, a weight costs 2 forward, 2 for the gradient of its input and, if it trains, 2 for
    its own: 6 in full training, a little over 4 with LoRA. Attention costs 4 · width · seq a token
    and layer forward (scores and weighted sum) and twice that backward.

    Args:
        tokens: of the step, padding included.
        seq: how many tokens attention looks at: the padded row, or the segment of a packed one.
        answer_tokens: how many of `tokens` go through the head; None: all.
        checkpointing: layers run forward once more, with a number n one in n (Korthikanti et al.,
            arXiv:2205.05198, section 5). An upper bound: torch stops recomputing at the last tensor
            that backward needs.
        skips_masked: the attention kernel leaves out what a causal mask hides, which is half
            (FlashAttention does; eager attention does not).
        backward_share: of the layers, those that gradients reach: below the lowest trained one
            nothing is computed backward. 0 where only a head trains.
    """
    answers = tokens if answer_tokens is None else answer_tokens
    layers = 2 * counts.active * tokens
    head = 2 * counts.hidden * counts.vocabulary * answers
    attention = 4 * counts.layers * counts.attention_width * tokens * seq
    if skips_masked:
        attention //= 2
    return TrainingFlops(
        forward=layers + attention + head,
        recompute=int((layers + attention) * backward_share / int(checkpointing))
        if checkpointing
        else 0,
        backward_inputs=int((layers + 2 * attention) * backward_share)
        + (head if backward_share else 0),
        backward_weights=2 * counts.trained_active * tokens + head * counts.head_trained,
    )


# Bytes moved per trained parameter by one update in fp32: weight read and written, gradient read,
# each state read and written (a byte each in 8 bits). Adafactor reads the gradient twice, for the
# means of its squares and for the update.
UPDATE_BYTES = {
    "sgd": 12,
    "momentum": 20,
    "lion": 20,
    "adamw": 28,
    "adafactor": 16,
    "adamw8bit": 16,
}

_ACTIVATION_BYTES = 34
"""Per token, layer and unit of width, in 16 bit, without attention scores (Korthikanti et al.,
equation 1): what a forward pass writes and a backward pass reads."""


def training_step(
    counts: Counts,
    device: Device,
    *,
    tokens: int,
    seq: int,
    dtype: str,
    optimizer: str,
    answer_tokens: int | None = None,
    checkpointing: bool | int = False,
    skips_masked: bool = False,
    backward_share: float = 1.0,
    efficiency: Efficiency | None = None,
    price_per_hour: float | None = None,
) -> Roofline:
    """One optimizer step: forward and backward over `tokens`, then the update.

    The update multiplies nothing and moves much, so it is bound by memory and comes on top.

    Args:
        dtype: of matrix products, one of `devices.DTYPES`.
        optimizer: as in a task file; one of the user's own is taken to move what AdamW does.
        price_per_hour: of the device, in any currency.

    The others as in `training_flops`.

    Raises:
        ConfigError: an unknown dtype, or a price below zero.
    """
    flops = training_flops(
        counts,
        tokens=tokens,
        seq=seq,
        answer_tokens=answer_tokens,
        checkpointing=checkpointing,
        skips_masked=skips_masked,
        backward_share=backward_share,
    ).total
    answers = tokens if answer_tokens is None else answer_tokens
    read = 2 + (1 / int(checkpointing) if checkpointing else 0)
    weights = read * counts.parameters * counts.weight_bytes
    width = 2 if dtype in ("fp32", "tf32") else 1  # times 16 bit
    activations = 2 * _ACTIVATION_BYTES * width * counts.hidden * counts.layers * tokens
    logits = 2 * 4 * counts.vocabulary * answers  # in fp32, written and read
    name = optimizer.lower().replace("paged", "").replace("-", "").replace("_", "")
    update = counts.trained * UPDATE_BYTES.get(name, UPDATE_BYTES["adamw"])
    return _roofline(
        "training step",
        device,
        dtype,
        phases=[(flops, weights + activations + logits), (0, update)],
        efficiency=efficiency,
        price_per_hour=price_per_hour,
    )


def prefill(
    counts: Counts,
    device: Device,
    *,
    requests: int,
    prompt: int,
    dtype: str,
    kv_bytes: float = 2.0,
    skips_masked: bool = True,
    efficiency: Efficiency | None = None,
    price_per_hour: float | None = None,
) -> Roofline:
    """Reading `requests` prompts of `prompt` tokens and writing the first token of each answer.

    Args:
        kv_bytes: of each cached number.

    The others as in `training_step`.
    """
    tokens = requests * prompt
    forward = training_flops(
        counts, tokens=tokens, seq=prompt, answer_tokens=requests, skips_masked=skips_masked
    ).forward
    cache = 2 * counts.kv_width * counts.layers * tokens * kv_bytes
    return _roofline(
        "prefill",
        device,
        dtype,
        phases=[(forward, _read(counts, tokens) + cache)],
        efficiency=efficiency,
        price_per_hour=price_per_hour,
    )


def decode_step(
    counts: Counts,
    device: Device,
    *,
    requests: int,
    context: int,
    dtype: str,
    kv_bytes: float = 2.0,
    efficiency: Efficiency | None = None,
    price_per_hour: float | None = None,
) -> Roofline:
    """One more token for each of `requests` answers, each with `context` tokens before it.

    Reads the weights once for all requests, and every request's keys and values: almost always
    bound by memory (Pope et al., arXiv:2211.05102, section 2).
    """
    attention = 4 * counts.layers * counts.attention_width * context
    token = 2 * counts.active + 2 * counts.hidden * counts.vocabulary + attention
    cache = 2 * counts.kv_width * counts.layers * context * kv_bytes
    return _roofline(
        "decode step",
        device,
        dtype,
        phases=[(requests * token, _read(counts, requests) + requests * cache)],
        efficiency=efficiency,
        price_per_hour=price_per_hour,
    )


def _read(counts: Counts, tokens: int) -> float:
    """Bytes of weights that a pass over `tokens` reads.

    All of them, but of a mixture of experts at most as many as its tokens choose.
    """
    head = counts.hidden * counts.vocabulary
    return min(counts.parameters, counts.active * tokens + head) * counts.weight_bytes


def _roofline(
    work: str,
    device: Device,
    dtype: str,
    *,
    phases: list[tuple[int, float]],
    efficiency: Efficiency | None,
    price_per_hour: float | None,
) -> Roofline:
    """Phases (FLOPs, bytes) follow each other; within one, arithmetic and traffic overlap."""
    if price_per_hour is not None and not (0 <= price_per_hour < math.inf):
        raise ConfigError(
            f"price per hour is {price_per_hour}", fix="give what the device costs, 0 or more"
        )
    reached = efficiency or Efficiency()
    compute = memory = 0.0
    for flops, moved in phases:
        multiplying = flops / (device.peak(dtype) * reached.compute)
        moving = moved / (device.bandwidth * reached.bandwidth)
        if multiplying >= moving:
            compute += multiplying
        else:
            memory += moving
    seconds = compute + memory
    return Roofline(
        work=work,
        seconds=seconds,
        flops=sum(flops for flops, _ in phases),
        bytes=int(sum(moved for _, moved in phases)),
        bound="compute" if compute >= memory else "memory",
        efficiency=reached,
        device=device.name,
        cost=None if price_per_hour is None else seconds / 3600 * price_per_hour,
    )
