"""What fitune's contenders have in common: options from words, and rounds of real training steps.

Knows steps, as `fitune tune` puts them together; knows nothing of kinds of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from benchmarks.engine.worker import Meter

from fitune.config import Finetuned


def ready_options(words: list[str], **defaults: Any) -> Finetuned:
    """Options from ``OPTION=VALUE`` words, and a process that keeps freed memory as `tune` does
    where there is room. Called before torch is imported."""
    from fitune.malloc import prepare_for_training

    prepare_for_training(1, 1 << 40)
    given = {key: json.loads(value) for key, value in (word.split("=") for word in words)}
    return Finetuned(**{"dtype": "bf16", **defaults, **given})


def take_rounds(
    model: Any,
    options: Finetuned,
    groups: list[dict[str, Any]],
    objectives: Iterable[Any],
    *,
    decoder: bool,
    batch_size: int,
) -> None:
    """An epoch over each objective's rows whenever the meter's line arrives.

    Args:
        groups: the optimizer's.
    """
    from fitune.data.batches import Order, micro_batches
    from fitune.training.attention import training_attention
    from fitune.training.kernels.fused import fused_layers
    from fitune.training.optim import OPTIMIZERS
    from fitune.training.precision import precision
    from fitune.training.step import step

    assert options.method
    numbers = precision(options.dtype, options.method, decoder=decoder)
    optimizer = OPTIMIZERS[options.optimizer](groups, options)
    meter = Meter()
    model.train()
    with fused_layers(model, numbers.compute, wanted=options.fused):
        for objective in objectives:
            lengths = tuple(map(len, objective.items))
            with training_attention(model, longest=max(lengths), device="cpu"):
                meter.wait()
                for batch in Order(lengths, batch_size, 0).epoch(0):
                    parts = [
                        objective.batch(part)
                        for part in micro_batches(batch, lengths, 4096, packed=objective.packed)
                    ]
                    done = step(
                        model, objective, optimizer, parts, clip=1.0, autocast=numbers.autocast
                    )
                    meter.losses.append(float(done.loss))
                    meter.tokens += sum(part.tokens for part in parts)
                meter.tell()
