"""A decoder, trained by fitune on the rounds' rows.

python -m benchmarks.engine.with_fitune ROUNDS.json [OPTION=VALUE …]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.engine.own import ready_options, take_rounds
from benchmarks.engine.rounds import BATCH


def main(path: Path, words: list[str]) -> None:
    options = ready_options(words, method="lora")
    import torch

    from fitune.data.template import Encoded, Reason
    from fitune.models.load import load_decoder, training_config
    from fitune.models.source import resolve_source
    from fitune.training.methods import METHODS, prepare, trainable_parameters
    from fitune.training.objectives import Sft
    from fitune.training.objectives.head import head_is_last
    from fitune.training.optim import parameter_groups
    from fitune.training.packing import choose_layout
    from fitune.training.precision import precision

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
    written = json.loads(path.read_text())
    packed, shared = choose_layout(model, options)
    fused = options.fused and head_is_last(model)

    def objectives() -> Iterator[Sft]:
        for rows in written["rounds"]:
            items = [
                Encoded(
                    tuple(row["input_ids"]),
                    tuple(Reason.TEXT if i == -100 else Reason.ANSWER for i in row["labels"]),
                )
                for row in rows
            ]
            yield Sft(items, pad=written["pad"], packed=packed, shared=shared, fused=fused)

    take_rounds(model, options, groups, objectives(), decoder=True, batch_size=BATCH)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
