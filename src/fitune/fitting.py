"""What `estimate` does without a model: which models of the catalogue fit.

Knows the catalogue and a way of training; knows nothing of terminals.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import replace

from fitune.collector import uncollected
from fitune.errors import ResourceError
from fitune.estimates import Budget, FittingModel, FittingModels
from fitune.ladder.climb import Watching
from fitune.ladder.figures import size
from fitune.memory import plan
from fitune.memory.headroom import live_bytes
from fitune.models.architecture import max_length_of
from fitune.models.bundled import bundled_config, bundled_models
from fitune.models.quiet import import_bitsandbytes, quiet
from fitune.questions import Question, asked_training, echo_of
from fitune.targets import find_target
from fitune.training.precision import FROZEN_BASE

SHORT = 512
"""Tokens of a row where nothing is said: what every model of the catalogue can read."""


def models_that_fit(question: Question, on: Watching) -> FittingModels:
    """Which models of the catalogue fit.

    Raises:
        ResourceError: none does.
    """
    target = find_target(question.device, question.budget)
    plain = replace(question, method=question.method or "lora")
    training = replace(
        asked_training(plain, target, None, None),
        seq=question.seq or SHORT,
        batch=question.batch or 1,
    )
    import_libraries(adapters=training.options.method in FROZEN_BASE)
    start = time.perf_counter()
    room = live_bytes(
        target.budget, target.kernels, target.capability, dtype=training.options.dtype
    )
    on.progress("models that fit", 0, len(bundled_models()))
    found = []
    # Encoders read short rows only.
    kinds = ("encoder", "decoder") if training.seq <= SHORT else ("decoder",)
    with quiet():
        for model, peak in plan.models_that_fit(training, room, kinds=kinds):
            if max_length_of(bundled_config(model)) < training.seq:
                continue
            found.append(FittingModel(model.id, model.parameters, peak, model.licence))
            on.progress("models that fit", len(found), len(bundled_models()))
    if not found:
        raise ResourceError(
            f"no model of the catalogue fits: {target.of} of {size(target.budget)} has room for "
            f"{size(room)} of tensors",
            fix="give more memory, or a method that needs less, such as --method qlora",
        )
    return FittingModels(
        models=tuple(found),
        training=echo_of(training, question, None),
        budget=Budget(target.budget, target.of, target.given),
        tensor_bytes=room,
        notes=(),
        seconds=round(time.perf_counter() - start, 3),
    )


def import_libraries(*, adapters: bool) -> None:
    """Before the clock starts: they take longer than an answer."""
    names = ["torch._subclasses.fake_tensor", "fitune.memory.scenario", "fitune.memory.trace"]
    names += [f"transformers.{name}" for name in ("masking_utils", "modeling_layers")]
    with uncollected():
        if adapters:
            import_bitsandbytes()
            names.append("peft")
        for name in names:
            importlib.import_module(name)
