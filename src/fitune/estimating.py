"""What `estimate` does: a model's config and a question → bytes, and whether they fit.

Knows how the memory rooms are put together for a question; knows nothing of terminals. Loads no
weights.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fitune.errors import ConfigError, FituneError, ModelError, ResourceError
from fitune.estimates import Budget, EstimateResult, FittingModels, Plan
from fitune.fitting import import_libraries, models_that_fit
from fitune.ladder.climb import Watching
from fitune.ladder.figures import size
from fitune.memory import explain
from fitune.memory.estimate import Estimate, estimate_training
from fitune.memory.headroom import live_bytes
from fitune.memory.options import Inference, Training
from fitune.memory.plan import LENGTHS, WAYS, Way, plan_matrix, recommend
from fitune.memory.process import CudaProcess, cuda_process
from fitune.memory.roofline import Roofline
from fitune.memory.sharding import Sharding
from fitune.memory.timing import times
from fitune.models.bundled import find_bundled
from fitune.models.configured import ConfiguredModel, configured_model
from fitune.models.quiet import quiet
from fitune.questions import (
    Asked,
    Question,
    asked_inference,
    asked_sharding,
    asked_training,
    echo_of,
    spelt,
)
from fitune.runs import write_text
from fitune.targets import Target, find_target
from fitune.training.precision import FROZEN_BASE
from fitune.weighing import weigh_shapes


def answer(question: Question, on: Watching) -> EstimateResult | FittingModels:
    """See `api.estimate`."""
    if question.model is None:
        return models_that_fit(question, on)
    model = configured_model(question.model)
    target = find_target(question.device, question.budget)
    if model.config is None:
        return weigh_shapes(question, target, model)
    asked: Asked
    if question.inference:
        asked = asked_inference(question, target, model.config)
    else:
        asked = asked_training(question, target, model.config, model.pooling)
    import_libraries(
        adapters=question.wants_plan
        or question.dtypes
        or (isinstance(asked, Training) and asked.options.method in FROZEN_BASE)
    )
    start = time.perf_counter()
    with quiet():
        result = _answered(question, target, model, asked, on)
    return replace(result, seconds=round(time.perf_counter() - start, 3))


def _answered(
    question: Question, target: Target, model: ConfiguredModel, asked: Asked, on: Watching
) -> EstimateResult:
    """What fits, where that is asked; the estimate of it; and all that is asked for beside it."""
    plan = None
    if isinstance(asked, Training) and question.wants_plan:
        asked, plan = _plan(question, target, model, asked, on)
    built = _built(model, asked)  # refuses what cannot be built, with a reason
    result = _one(question, target, model, asked, built, plan)
    while plan is not None and not result.fits and isinstance(asked, Training) and asked.batch > 1:
        # What the allocator loses is known only now, and may be more than the plan set aside.
        asked = replace(asked, batch=_fewer_rows(asked.batch, result))
        result = _one(question, target, model, asked, built, None)
        best = replace(plan.recommended, rows=asked.batch, peak_bytes=result.peak_bytes)
        plan = replace(plan, recommended=best)
        result = replace(result, plan=plan)
    return _further(question, target, model, asked, result, built)


def _fewer_rows(rows: int, result: EstimateResult) -> int:
    """How many may fit, by how much more was reserved than there is room for."""
    reserved = result.cuda.reserved if result.cuda else result.needed_bytes
    room = result.budget.bytes - (result.needed_bytes - reserved)
    return max(1, min(rows - 1, rows * max(0, room) // reserved))


def _one(
    question: Question,
    target: Target,
    model: ConfiguredModel,
    asked: Asked,
    built: Any,
    plan: Plan | None,
) -> EstimateResult:
    """The bytes of one way of using one model, where they are, and how long it takes."""
    config, pooling = model.config, model.pooling
    alone = _estimated(model, asked, question.exact)
    own = sum(parameter.numel() for parameter in built.parameters())
    alone = replace(alone, parameters=own)  # adapters are not the model's
    sharding = asked_sharding(question)
    estimate: Estimate = alone
    host: dict[str, int] = {}
    if sharding is not None and isinstance(asked, Training):
        estimate, host = _divided(alone, config, asked, pooling, sharding)
    process = _process(question, target, model, asked, estimate.peak_bytes)
    needed = process.total if process else estimate.peak_bytes
    echo = echo_of(asked, question, sharding)
    return EstimateResult(
        model=model.name,
        origin=model.origin,
        estimate=estimate,
        training=echo if isinstance(asked, Training) else None,
        inference=echo if isinstance(asked, Inference) else None,
        budget=Budget(target.budget, target.of, target.given),
        needed_bytes=needed,
        host_bytes=host,
        cuda=process,
        times=_times(question, target, config, built, asked, alone),
        plan=plan,
        dtypes=(),
        true_dtypes=(),
        explanation=None,
        measured=None,
        notes=model.notes,
        plot=None,
        seconds=0.0,
    )


def _further(
    question: Question,
    target: Target,
    model: ConfiguredModel,
    asked: Asked,
    result: EstimateResult,
    built: Any,
) -> EstimateResult:
    """What is done where it is asked for."""
    if question.dtypes:
        from fitune.memory.familiar import familiar_table
        from fitune.memory.truth import true_table

        pair = _pair(question, target, model, asked)
        result = replace(
            result,
            dtypes=familiar_table(model.config),
            true_dtypes=true_table(model.config, *pair, pooling=model.pooling),
        )
    if question.explain:
        result = replace(result, explanation=_explained(model.config, built, asked, result))
    if question.measure:
        result = replace(result, measured=_measured(model, target, asked, result.peak_bytes, built))
    if question.plot is not None:
        from fitune.report.memory_plot import Picture

        path = Path(question.plot)
        picture = Picture(
            title=f"{model.name}: {result.in_words}",
            subtitle=f"{size(result.peak_bytes)} at the peak, in the "
            f"{result.estimate.peak_at.phase} phase. Estimated.",
            estimate=result.estimate,
            budget=target.budget if target.given else None,
        )
        write_text(path, picture.svg() if path.suffix.lower() == ".svg" else picture.page())
        result = replace(result, plot=path)
    return result


def _built(model: ConfiguredModel, asked: Asked) -> Any:
    """The model on the meta device, its parameters frozen as the method says; without adapters."""
    from fitune.memory.parameters import meta_model

    made = meta_model(model.config, asked, model.pooling)
    if isinstance(asked, Inference) or asked.options.method in FROZEN_BASE:
        return made.requires_grad_(False)
    import torch

    from fitune.memory.scenario import apply_method

    with torch.device("meta"):
        return apply_method(made, asked)


def _estimated(model: ConfiguredModel, asked: Asked, exact: bool) -> Estimate:
    try:
        if isinstance(asked, Inference):
            from fitune.memory.inference import estimate_inference

            return estimate_inference(model.config, asked, exact=exact)
        training = _traceable(asked)
        return estimate_training(model.config, training, pooling=model.pooling, exact=exact)
    except FituneError:
        raise
    except Exception as error:
        if find_bundled(model.name) is not None:
            raise  # then it is no fault of the config
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"'{model.name}' cannot be run as its config says ({reason:.200})",
            fix="correct its config.json; if transformers runs it, report it with "
            "FITUNE_DEBUG=1 in front of the command",
        ) from error


def _traceable(training: Training) -> Training:
    """From the second micro-batch on, each is as the one before it: gradients only add up."""
    return replace(training, micro_batches=min(2, training.micro_batches))


def _divided(
    alone: Estimate, config: Any, training: Training, pooling: Any, sharding: Sharding
) -> tuple[Estimate, dict[str, int]]:
    import torch

    from fitune.memory.parameters import meta_model, parameter_facts
    from fitune.memory.ranks import per_rank
    from fitune.memory.scenario import apply_method

    model = meta_model(config, training, pooling)
    with torch.device("meta"):
        model = apply_method(model, training)
    rank = per_rank(alone, parameter_facts(model), sharding)
    return rank.estimate, rank.host


def _process(
    question: Question, target: Target, model: ConfiguredModel, asked: Asked, peak: int
) -> CudaProcess | None:
    if target.kernels != "cuda" or target.capability is None:
        return None
    return cuda_process(
        model.config,
        _traceable(asked) if isinstance(asked, Training) else asked,
        peak,
        target.capability,
        pooling=model.pooling,
        devices=question.devices or 1,
        exact=question.exact,
    )


def _times(
    question: Question,
    target: Target,
    config: Any,
    built: Any,
    asked: Asked,
    estimate: Estimate,
) -> tuple[Roofline, ...]:
    """Seconds by roofline, where the device's figures are known."""
    if target.device is not None:
        return times(config, built, asked, estimate, target.device, price_per_hour=question.price)
    if question.price is not None:
        raise ConfigError(
            f"{spelt('price')} is {question.price}, and how long a step takes is not known of "
            f"{target.of}",
            fix=f"name the device, such as {spelt('device')} 'RTX 4090'",
        )
    return ()


def _explained(config: Any, built: Any, asked: Asked, result: EstimateResult) -> Any:
    from fitune.memory.parameters import head_parameters

    own = result.estimate.parameters
    sizes = explain.sizes_of(config, parameters=own, head=head_parameters(built))
    if isinstance(asked, Training):
        return explain.explain_training(result.estimate, asked, sizes)
    return explain.explain_inference(result.estimate, asked, sizes)


def _pair(
    question: Question, target: Target, model: ConfiguredModel, asked: Asked
) -> tuple[Training, Inference]:
    """A way of training and one of answering with as many rows and tokens."""
    if isinstance(asked, Training):
        tokens = max(2, asked.seq)
        return asked, Inference(asked.batch, tokens, device=asked.device)
    plain = Question(seq=min(asked.context, 2**24), batch=asked.requests)
    return asked_training(plain, target, model.config, model.pooling), asked


def _measured(model: ConfiguredModel, target: Target, asked: Asked, peak: int, built: Any) -> Any:
    """The real step, if there is room for it.

    Raises:
        ResourceError: there is not.
    """
    from fitune.memory.trial import try_inference, try_training

    free = find_target("cuda" if target.kernels == "cuda" else "cpu", None).budget
    # Four-bit layers are made of layers in 16 bit.
    needed = max(peak, sum(p.numel() * p.element_size() for p in built.parameters()))
    if needed > free:
        raise ResourceError(
            f"measuring takes {size(needed)}, and this machine has {size(free)} free",
            fix="measure with fewer rows or tokens, or a smaller model",
        )
    if isinstance(asked, Training):
        return try_training(model.config, _traceable(asked), model.pooling)
    return try_inference(model.config, asked)


def _plan(
    question: Question,
    target: Target,
    model: ConfiguredModel,
    training: Training,
    on: Watching,
) -> tuple[Training, Plan]:
    """The matrix of ways and lengths; the way to train that it recommends.

    Raises:
        ResourceError: nothing fits.
    """
    from fitune.memory.parameters import meta_model
    from fitune.models.architecture import max_length_of

    most = max_length_of(model.config)
    lengths = tuple(n for n in LENGTHS if n <= most) or (training.seq,)
    if question.seq is not None:
        lengths = (training.seq,)
    room = live_bytes(
        target.budget, target.kernels, target.capability, dtype=training.options.dtype
    )
    built: Any = meta_model(model.config, training, model.pooling)
    cells = plan_matrix(
        model.config,
        replace(training, micro_batches=1),
        room,
        parameters=sum(parameter.numel() for parameter in built.parameters()),
        ways=_ways(question, built),
        lengths=lengths,
        pooling=model.pooling,
        progress=lambda done, total: on.progress("what fits", done, total),
    )
    best = recommend(cells)
    if best is None:
        least = min(cells, key=lambda cell: cell.peak_bytes)
        raise ResourceError(
            f"nothing fits: the smallest need of '{model.name}' is {size(least.peak_bytes)} of "
            f"tensors ({least.way}, one row of {least.seq:,} tokens), and {target.of} of "
            f"{size(target.budget)} has room for {size(room)}",
            fix="give more memory, shorter rows with --seq, or a smaller model "
            "(`fitune estimate --budget …` lists those that fit)",
        )
    options = training.options.model_copy(
        update={"method": best.way.method, "checkpointing": best.way.checkpointing}
    )
    chosen = replace(training, options=options, seq=best.seq, batch=best.rows)
    return chosen, Plan(tuple(cells), best, room)


def _ways(question: Question, built: Any) -> tuple[Way, ...]:
    """Those that the options leave open and the model can do."""
    from fitune.quantization.weights import linear_layers

    adapted = question.rank is not None or question.target_modules is not None
    inner = getattr(built, "trunk", getattr(built, "model", built))
    inner = built if hasattr(built, "get_output_embeddings") else inner
    quantizable = bool(linear_layers(inner))
    every = question.checkpointing
    return tuple(
        replace(way, checkpointing=every) if every and way.checkpointing else way
        for way in WAYS
        if (every is None or bool(every) == way.checkpointing)
        and (not adapted or way.method in FROZEN_BASE)
        and (quantizable or way.method != "qlora")
        and (inner.supports_gradient_checkpointing or not way.checkpointing)
    )
