"""What the rounds' steps need, whoever takes them: FLOPs as `fitune.training.flops` counts them.

Knows the rounds' file and the method that all contenders train by.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.engine.rounds import BATCH, CLASSIFY_BATCH

from fitune.config import Finetuned


def flops_per_token(path: Path, options: Finetuned) -> float:
    """Of the mean step: LoRA, padding left out, the head on learned tokens only.

    Args:
        path: of the rounds.
        options: of fitune's approach, with method and rank. With `packing` and `shared_prefix`,
            what the rows of a batch begin with is needed once; the tokens are still the rows'.
    """
    import torch

    from fitune.data.template import Encoded, Reason
    from fitune.models.load import load_decoder
    from fitune.models.source import resolve_source
    from fitune.training.methods import METHODS, prepare
    from fitune.training.objectives import Sft

    assert options.method
    model = load_decoder(resolve_source("smollm2-135m"), dtype=torch.bfloat16, device="cpu")
    model = prepare(model, METHODS[options.method], options)
    written = json.loads(path.read_text())
    items = [
        Encoded(
            tuple(row["input_ids"]),
            tuple(Reason.TEXT if i == -100 else Reason.ANSWER for i in row["labels"]),
        )
        for rows in written["rounds"]
        for row in rows
    ]
    shared = options.packing and options.shared_prefix
    objective = Sft(items, pad=written["pad"], packed=options.packing, shared=shared)
    return _of_the_mean_token(model, objective, BATCH, torch.bfloat16)


def classify_flops_per_token(path: Path, options: Finetuned) -> float:
    """As `flops_per_token`, of an encoder that trains as a whole."""
    import torch

    from fitune.data.template import Encoded, Reason
    from fitune.models.classifier import load_classifier
    from fitune.models.source import resolve_source
    from fitune.training.methods import METHODS, prepare
    from fitune.training.objectives import Classify

    assert options.method
    written = json.loads(path.read_text())
    labels = tuple(written["labels"])
    model: Any = load_classifier(
        resolve_source("minilm-l6"), labels, dtype=torch.float32, device="cpu", seed=0
    )
    model.trunk = prepare(model.trunk, METHODS[options.method], options)
    rows = [row for part in written["rounds"] for row in part]
    objective = Classify(
        [Encoded(tuple(row["input_ids"]), (Reason.TEXT,) * len(row["input_ids"])) for row in rows],
        [row["label"] for row in rows],
        pad=written["pad"],
        label_smoothing=0.1,
    )
    return _of_the_mean_token(model, objective, CLASSIFY_BATCH, torch.bfloat16)


def _of_the_mean_token(model: Any, objective: Any, batch: int, autocast: Any) -> float:
    from fitune.data.batches import Order
    from fitune.training.flops import Flops, find_products, step_flops

    lengths = tuple(map(len, objective.items))
    shortest = objective.batch([lengths.index(min(lengths))])
    products = find_products(model, objective, shortest, autocast)
    total, tokens = Flops(), 0
    for rows in Order(lengths, batch, 0).epoch(0):
        part = objective.batch(rows)
        total += step_flops(products, [part])
        tokens += part.tokens
    return total.total / tokens
