"""What `estimate` does where a model has no config: what the shapes of its tensors tell.

Knows shapes and a question; knows nothing of modules.
"""

from __future__ import annotations

import time

from fitune.errors import ModelError
from fitune.estimates import Budget, EstimateResult
from fitune.memory.weights_only import estimate_update, weigh
from fitune.models.configured import ConfiguredModel
from fitune.questions import Asked, Question, asked_inference, asked_training, echo_of, spelt
from fitune.targets import Target

FULL = ("method", "full")

KNOWN = frozenset(
    {"model", "inference", "optimizer", "dtype", "budget", "device", "exact", "attention"}
)
"""Options that say something of shapes."""

UNKNOWN = ("batch", "seq", "micro_batches", "requests", "context")
"""Of what was asked, what plays no part."""


def weigh_shapes(question: Question, target: Target, model: ConfiguredModel) -> EstimateResult:
    """What is known of a model without a config: weights, and what training keeps for each.

    Raises:
        ModelError: something was asked that takes more than shapes.
    """
    assert model.shapes is not None
    wrong = next(
        (
            name
            for name, value in vars(question).items()
            if name not in KNOWN and value not in (None, False) and (name, value) != FULL
        ),
        None,
    )
    if wrong:
        raise ModelError(
            f"{spelt(wrong)} takes more than the shapes of tensors, and '{model.name}' has no "
            "config",
            fix="put its config.json beside it, or give the folder that holds one",
        )
    start = time.perf_counter()
    asked: Asked
    if question.inference:
        asked = asked_inference(question, target, None)
        estimate = weigh(model.shapes, asked.dtype)
    else:
        asked = asked_training(question, target, None, None)
        estimate = estimate_update(model.shapes, asked.options)
    echo = {
        name: None if name in UNKNOWN else value
        for name, value in echo_of(asked, question, None).items()
    }
    return EstimateResult(
        model=model.name,
        origin=model.origin,
        estimate=estimate,
        training=None if question.inference else echo,
        inference=echo if question.inference else None,
        budget=Budget(target.budget, target.of, target.given),
        needed_bytes=estimate.peak_bytes,
        host_bytes={},
        cuda=None,
        times=(),
        plan=None,
        dtypes=(),
        true_dtypes=(),
        explanation=None,
        measured=None,
        notes=model.notes,
        plot=None,
        seconds=round(time.perf_counter() - start, 3),
    )
