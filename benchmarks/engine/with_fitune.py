"""fitune's training step on the rounds' rows, put together as `fitune tune` does.

python -m benchmarks.engine.with_fitune ROUNDS.json [OPTION=VALUE …]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine.rounds import BATCH
from benchmarks.engine.worker import Meter


def main(path: Path, words: list[str]) -> None:
    from fitune.malloc import prepare_for_training

    prepare_for_training(1, 1 << 40)  # there is room: as `tune` decides on this machine
    import torch

    from fitune.config import Finetuned
    from fitune.data.batches import Order, micro_batches
    from fitune.data.template import Encoded, Reason
    from fitune.models.load import load_decoder, training_config
    from fitune.models.source import resolve_source
    from fitune.training.attention import training_attention
    from fitune.training.kernels.fused import fused_layers
    from fitune.training.methods import METHODS, prepare, trainable_parameters
    from fitune.training.objectives import Sft
    from fitune.training.objectives.head import head_is_last
    from fitune.training.optim import OPTIMIZERS, parameter_groups
    from fitune.training.packing import can_pack
    from fitune.training.precision import precision
    from fitune.training.step import step

    given: dict[str, Any] = {"method": "lora", "dtype": "bf16"}
    options = Finetuned(**given | {k: json.loads(v) for k, v in (w.split("=") for w in words)})
    assert options.method
    source = resolve_source("smollm2-135m")
    numbers = precision(options.dtype, options.method, decoder=True)
    torch.manual_seed(0)
    model = load_decoder(
        source, dtype=numbers.weights, device="cpu", config=training_config(source, 0.0)
    )
    model = prepare(model, METHODS[options.method], options)
    groups = parameter_groups(
        trainable_parameters(model),
        head=[],
        learning_rate=2e-4,
        head_learning_rate=2e-4,
        weight_decay=0.0,
    )
    optimizer = OPTIMIZERS[options.optimizer](groups, options)
    written = json.loads(path.read_text())
    packed = options.packing and can_pack(model)
    fused = options.fused and head_is_last(model)
    meter = Meter()
    model.train()
    with fused_layers(model, numbers.compute, wanted=options.fused):
        for rows in written["rounds"]:
            items = [
                Encoded(
                    tuple(row["input_ids"]),
                    tuple(Reason.TEXT if i == -100 else Reason.ANSWER for i in row["labels"]),
                )
                for row in rows
            ]
            objective = Sft(items, pad=written["pad"], packed=packed, fused=fused)
            lengths = tuple(map(len, items))
            with training_attention(model, longest=max(lengths), device="cpu"):
                meter.wait()
                for batch in Order(lengths, BATCH, 0).epoch(0):
                    parts = [
                        objective.batch(part)
                        for part in micro_batches(batch, lengths, 4096, packed=packed)
                    ]
                    done = step(
                        model, objective, optimizer, parts, clip=1.0, autocast=numbers.autocast
                    )
                    meter.losses.append(float(done.loss))
                    meter.tokens += sum(part.tokens for part in parts)
                meter.tell()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
