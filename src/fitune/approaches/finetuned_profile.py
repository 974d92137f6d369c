"""A fine-tuned approach, looked at while it takes its first steps.

Knows how training is made ready, and what would fit; what is measured is `training.profile`'s
matter. Nothing is kept.
"""

from __future__ import annotations

import dataclasses
import time

import torch

from fitune.approaches.finetuned import Finetuned, Ready
from fitune.data.rows import Rows
from fitune.memory.estimate import estimate_training
from fitune.memory.headroom import live_bytes
from fitune.models.architecture import read_config
from fitune.models.pooling import read_pooling
from fitune.training.advice import Facts, advise
from fitune.training.flops import find_products
from fitune.training.matrix_limit import matrix_limit
from fitune.training.objectives import Dpo
from fitune.training.profile import Profile, measure_steps

ASKED = 64
"""Validation rows at most whose evaluation is timed."""


def profile(approach: Finetuned, train: Rows, validation: Rows, steps: int) -> Profile:
    """Where the time of the first steps goes, and what would make them faster.

    Args:
        approach: not trained yet; useless afterwards.
        steps: that are measured, after some that warm up.

    Raises: as `Finetuned.fit`.
    """
    ready = approach.make_ready(train, validation)
    model, settings, device = approach.tuner.model, ready.settings, approach.work.device
    if isinstance(ready.objective, Dpo):
        # Its values change no time, and computing them is a pass over all pairs.
        ready.objective.reference = torch.zeros(len(settings.lengths), 2)
    short = min(range(len(settings.lengths)), key=settings.lengths.__getitem__)
    products = find_products(
        model, ready.objective, ready.objective.batch([short]).to(device), settings.autocast
    )
    with approach.fast(ready):
        found = measure_steps(
            model,
            ready.objective,
            ready.optimizer,
            settings,
            steps=steps,
            products=products,
            compute=approach.computed.compute,
            progress=approach.work.progress,
        )
        found = dataclasses.replace(
            found, evaluation_seconds=_evaluation_seconds(approach, ready, validation)
        )
    facts = Facts(
        found,
        settings.options,
        packed=ready.objective.packed,
        bf16_speed=_bf16_speed(approach, found),
        fits_unchecked=_fits_unchecked(approach, ready),
    )
    return dataclasses.replace(found, advice=advise(facts))


def _evaluation_seconds(approach: Finetuned, ready: Ready, validation: Rows) -> float | None:
    """Of one evaluation, from that of some of its rows."""
    items = ready.validation_items
    if isinstance(ready.objective, Dpo):  # it validates what it computed before training
        return None
    some = items[:ASKED]
    started = time.perf_counter()
    approach.tuner.validate(some, validation[:ASKED])
    return (time.perf_counter() - started) * len(items) / len(some)


def _bf16_speed(approach: Finetuned, found: Profile) -> float | None:
    """Measured only where it may tell something: fp32 where bf16 is native, or bf16 where not."""
    native = approach.work.dtype == "bf16"
    if (found.limit.dtype == "bfloat16") == native:
        return None
    other = torch.bfloat16 if native else torch.float32
    device = "cuda" if approach.work.device == "cuda" else "cpu"
    limit = matrix_limit(other, device).flops_per_second
    ratio = limit / found.limit.flops_per_second
    return ratio if native else 1 / ratio


def _fits_unchecked(approach: Finetuned, ready: Ready) -> bool | None:
    """Whether a step would fit without checkpointing; None where there is none."""
    options, planned = ready.settings.options, ready.planned
    if not options.checkpointing:
        return None
    tokens = options.micro_batch_tokens or 1
    rows = max(1, min(planned.batch, tokens // (planned.seq * planned.sequences)))
    step = dataclasses.replace(
        planned, batch=rows, options=options.model_copy(update={"checkpointing": False})
    )
    source = approach.source
    estimate = estimate_training(read_config(source), step, pooling=read_pooling(source.folder))
    budget = approach.work.memory_bytes
    return estimate.peak_bytes <= live_bytes(budget, planned.device, dtype=options.dtype)
