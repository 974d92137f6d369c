"""An encoder, trained by fitune on the rounds' rows.

python -m benchmarks.engine.encoder_with_fitune ROUNDS.json [OPTION=VALUE …]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.engine.own import ready_options, take_rounds
from benchmarks.engine.rounds import CLASSIFY_BATCH


def main(path: Path, words: list[str]) -> None:
    options = ready_options(words, method="full")

    from fitune.data.template import Encoded, Reason
    from fitune.models.classifier import load_classifier
    from fitune.models.source import resolve_source
    from fitune.training.methods import METHODS, prepare, trainable_parameters
    from fitune.training.objectives import Classify
    from fitune.training.optim import parameter_groups
    from fitune.training.precision import precision

    assert options.method
    written = json.loads(path.read_text())
    model: Any = load_classifier(
        resolve_source("minilm-l6"),
        tuple(written["labels"]),
        dtype=precision(options.dtype, options.method, decoder=False).weights,
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

    def objectives() -> Iterator[Classify]:
        for rows in written["rounds"]:
            ids = [tuple(row["input_ids"]) for row in rows]
            items = [Encoded(each, (Reason.TEXT,) * len(each)) for each in ids]
            labels = [row["label"] for row in rows]
            yield Classify(items, labels, pad=written["pad"], label_smoothing=0.1)

    take_rounds(model, options, groups, objectives(), decoder=False, batch_size=CLASSIFY_BATCH)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
