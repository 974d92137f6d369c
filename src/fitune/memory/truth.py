"""Beside the familiar table of dtypes: what a model really takes in each.

Knows estimates; knows nothing of a running machine. What is put beside "training with Adam":

- float32: full training, everything in fp32;
- float16: full training with everything in 16 bit, which is what four times the weights stands for;
- int8: nobody trains weights in int8 with Adam;
- int4: adapters beside weights in four bits (QLoRA).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from fitune.errors import ModelError
from fitune.memory.estimate import Estimate, estimate_training
from fitune.memory.inference import estimate_inference
from fitune.memory.options import Inference, Training
from fitune.models.pooling import Pooling


@dataclass(frozen=True)
class TrueRow:
    """One line, in bytes, by the trace.

    Attributes:
        dtype: as in the familiar table.
        weights_bytes: all weights and buffers, the output head included; in int8 and int4 what is
            quantized is the linear layers.
        inference_bytes: the peak of answering.
        training_bytes: the peak of a step; None where there is none.
        training: of which method and dtype.
    """

    dtype: str
    weights_bytes: int
    inference_bytes: int
    training_bytes: int | None
    training: str | None


def true_table(
    config: Any, training: Training, inference: Inference, pooling: Pooling | None = None
) -> tuple[TrueRow, ...]:
    """The lines float32, float16, int8 and int4; int4 is missing where no layer can be quantized.

    Args:
        training: whose rows, tokens and optimizer are meant.
        inference: whose requests and tokens are meant.
    """

    def trained(method: str, dtype: str) -> Estimate:
        options = training.options.model_copy(
            update={"method": method, "dtype": dtype, "freeze_layers": None}
        )
        return estimate_training(config, replace(training, options=options), pooling=pooling)

    wide = estimate_inference(config, replace(inference, dtype="fp32"))
    narrow = estimate_inference(config, replace(inference, dtype="bf16"))
    beyond = narrow.peak_bytes - narrow.terms["weights"]
    int8 = _int8_bytes(config, inference) + narrow.terms["weights"] - 2 * narrow.parameters
    rows = [
        TrueRow(
            "float32",
            wide.terms["weights"],
            wide.peak_bytes,
            trained("full", "fp32").peak_bytes,
            "full, fp32",
        ),
        TrueRow(
            "float16",
            narrow.terms["weights"],
            narrow.peak_bytes,
            trained("full", "pure-bf16").peak_bytes,
            "full, pure-bf16",
        ),
        TrueRow("int8", int8, int8 + beyond, None, None),
    ]
    try:
        four = trained("qlora", "bf16")
    except ModelError:  # no linear layer has a multiple of 64 inputs
        return tuple(rows)
    weights = four.terms["weights"]
    rows.append(TrueRow("int4", weights, weights + beyond, four.peak_bytes, "qlora, bf16"))
    return tuple(rows)


def _int8_bytes(config: Any, inference: Inference) -> int:
    """Parameters with linear layers in 8 bits and a float32 scale for each of their outputs
    (Dettmers et al., LLM.int8(), arXiv:2208.07339, section 2.1), all else in 16."""
    import torch

    from fitune.memory.answering import build_model
    from fitune.quantization.weights import features_of, linear_layers

    with torch.device("meta"):
        model = build_model(config, replace(inference, dtype="bf16"))
    shapes = [features_of(layer) for layer in linear_layers(model).values()]
    total = sum(p.numel() for p in model.parameters())
    quantized = sum(math.prod(shape) for shape in shapes)
    return 2 * (total - quantized) + quantized + 4 * sum(outputs for _, outputs in shapes)
