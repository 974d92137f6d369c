"""fitune's training step for an encoder on the rounds' rows, put together as `fitune tune` does.

python -m benchmarks.engine.encoder_with_fitune ROUNDS.json [OPTION=VALUE …]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine.rounds import CLASSIFY_BATCH
from benchmarks.engine.worker import Meter


def main(path: Path, words: list[str]) -> None:
    from fitune.malloc import prepare_for_training

    prepare_for_training(1, 1 << 40)  # there is room: as `tune` decides on this machine

    from fitune.config import Finetuned
    from fitune.data.batches import Order, micro_batches
    from fitune.data.template import Encoded, Reason
    from fitune.models.classifier import load_classifier
    from fitune.models.source import resolve_source
    from fitune.training.attention import training_attention
    from fitune.training.kernels.fused import fused_layers
    from fitune.training.methods import METHODS, prepare, trainable_parameters
    from fitune.training.objectives import Classify
    from fitune.training.optim import OPTIMIZERS, parameter_groups
    from fitune.training.precision import precision
    from fitune.training.step import step

    given: dict[str, Any] = {"method": "full", "dtype": "bf16"}
    options = Finetuned(**given | {k: json.loads(v) for k, v in (w.split("=") for w in words)})
    assert options.method
    written = json.loads(path.read_text())
    numbers = precision(options.dtype, options.method, decoder=False)
    model: Any = load_classifier(
        resolve_source("minilm-l6"),
        tuple(written["labels"]),
        dtype=numbers.weights,
        device="cpu",
        seed=0,
    )
    model.trunk = prepare(model.trunk, METHODS[options.method], options)
    groups = parameter_groups(
        trainable_parameters(model),
        head=model.head_parameters(),
        learning_rate=3e-4,
        head_learning_rate=3e-3,
        weight_decay=0.01,
    )
    optimizer = OPTIMIZERS[options.optimizer](groups, options)
    meter = Meter()
    model.train()
    with fused_layers(model, numbers.compute, wanted=options.fused):
        for rows in written["rounds"]:
            items = [
                Encoded(tuple(row["input_ids"]), (Reason.TEXT,) * len(row["input_ids"]))
                for row in rows
            ]
            labels = [row["label"] for row in rows]
            objective = Classify(items, labels, pad=written["pad"], label_smoothing=0.1)
            lengths = tuple(map(len, items))
            with training_attention(model, longest=max(lengths), device="cpu"):
                meter.wait()
                for batch in Order(lengths, CLASSIFY_BATCH, 0).epoch(0):
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
