"""How long what is asked takes on a device of the catalogue, by roofline.

Knows what is asked and counts of a model; knows nothing of a running machine.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from fitune.devices import Device
from fitune.memory import roofline
from fitune.memory.estimate import Estimate
from fitune.memory.options import Inference, Training
from fitune.memory.parameters import counts, trained_depth
from fitune.memory.roofline import Roofline
from fitune.models.architecture import kind_of
from fitune.training.precision import FROZEN_BASE

KV_BYTES = {"int8": 8.5 / 8, "int4": 4.5 / 8}
"""Of a cached number, scales included (see `memory.kv_cache`)."""


def times(
    config: Any,
    model: nn.Module,
    asked: Training | Inference,
    estimate: Estimate,
    device: Device,
    *,
    price_per_hour: float | None = None,
) -> tuple[Roofline, ...]:
    """Of a training step; of reading the prompts and of one more token.

    Args:
        model: on the meta device, without adapters; what is frozen asks for no gradients.
        estimate: of what is asked, on one device.
    """
    sizes = counts(
        config,
        model,
        trainable=estimate.trainable,
        weight_bytes=estimate.terms.get("weights", 0) / max(1, estimate.parameters),
    )
    kind = kind_of(config)
    masked = asked.attention != "eager" and kind == "decoder"
    if isinstance(asked, Training):
        rows = asked.batch * asked.sequences * asked.micro_batches
        learned = None if asked.answer_tokens is None else rows * asked.answer_tokens
        step = roofline.training_step(
            sizes,
            device,
            tokens=rows * asked.seq,
            seq=asked.seq,
            dtype="fp32" if asked.options.dtype == "fp32" else "bf16",
            optimizer=asked.options.optimizer,
            answer_tokens=learned,
            checkpointing=asked.options.checkpointing,
            skips_masked=masked,
            backward_share=1.0 if asked.options.method in FROZEN_BASE else trained_depth(model),
            price_per_hour=price_per_hour,
        )
        return (step,)
    common: dict[str, Any] = {
        "requests": asked.requests,
        "dtype": asked.dtype,
        "kv_bytes": KV_BYTES.get(asked.kv_dtype or "", 4.0 if asked.dtype == "fp32" else 2.0),
        "price_per_hour": price_per_hour,
    }
    prompt = asked.prompt or asked.context
    read = roofline.prefill(sizes, device, prompt=prompt, skips_masked=masked, **common)
    if kind == "encoder":
        return (read,)
    return (read, roofline.decode_step(sizes, device, context=asked.context, **common))
