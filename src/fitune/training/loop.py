"""The loop: steps over epochs, evaluation, early stopping, checkpoints, resumption.

Knows steps and callables; knows nothing of what is trained or how it is scored. What it does next
is a function of the step alone, so that a resumed run repeats the uninterrupted one bit for bit.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from fitune.config import Finetuned
from fitune.data.batches import Batch, Order, micro_batches
from fitune.errors import Interrupted, ResourceError, RunError, TrainingError
from fitune.training import checkpoint as checkpoints
from fitune.training.average import Average
from fitune.training.callbacks import Callback, Start
from fitune.training.divergence import MOST_IN_A_ROW, diverged, left_out
from fitune.training.methods import trainable_parameters
from fitune.training.objectives import Objective, Redrawn
from fitune.training.optim import schedule_factor
from fitune.training.step import OutOfMemory
from fitune.training.step import step as take_step
from fitune.training.track import MetricsFile

CHECKPOINT_SECONDS = 60.0
"""Between checkpoints when `checkpoint_steps` is not given: what a crash may cost."""


@dataclass(frozen=True)
class Validation:
    """What the validation rows say.

    Attributes:
        loss: mean over rows or tokens; None where there is none.
        score: the metric, higher is better; None where it was not asked for.
        error: the standard error of `score`; None where it is not known.
    """

    loss: float | None
    score: float | None
    error: float | None = None


@dataclass(frozen=True)
class Trained:
    """How training ended.

    Attributes:
        steps: optimizer steps taken.
        best_step: the step whose weights the model now holds.
        best: their validation.
        before: the validation loss before the first step, where it was asked for.
        stopped_early: whether validation stopped improving before the last epoch.
        tokens: non-padding tokens seen.
        skipped: steps that changed nothing, since their loss or gradient was no finite number.
    """

    steps: int
    best_step: int
    best: Validation
    before: float | None
    stopped_early: bool
    tokens: int
    skipped: int = 0


@dataclass(frozen=True)
class Settings:
    """What the loop needs besides the model; every option resolved.

    Attributes:
        options: the approach's options, without a None among those the loop reads.
        lengths: tokens of each training row.
        autocast: the dtype of matrix products, None for the weights' own.
        seed: fixes order and dropout.
        fingerprint: identifies model, data and options; a checkpoint of another is refused.
        validate_before: whether validation is also asked before the first step: what the untuned
            model does, where it can do the task at all.
        sources: where each training row was read, for messages.
    """

    options: Finetuned
    lengths: tuple[int, ...]
    autocast: torch.dtype | None
    device: str
    seed: int
    fingerprint: str
    validate_before: bool = False
    sources: tuple[str, ...] = ()


def train(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    *,
    folder: Path,
    metrics: MetricsFile,
    validate: Callable[[], Validation],
    progress: Callable[[str, int, int], None],
    notice: Callable[[str], None],
    stop_requested: Callable[[], bool],
    callback: Callback | None = None,
) -> Trained:
    """Train, keep the best weights by validation, and leave them in the model.

    Where memory runs out in the middle of a step, the step is done again in smaller micro-batches,
    which changes the update by rounding only.

    Args:
        folder: holds checkpoints and the best weights; training goes on from what is there.
        validate: called with the model in evaluation mode.
        callback: told what happens; of the end only if training reaches it (see `Callbacks`).

    Raises:
        Interrupted: `stop_requested` answered True; everything is saved.
        TrainingError: the loss was no finite number for several steps in a row; a single such step
            changes nothing and is counted. Or no evaluation gave one.
        RunError: the checkpoint there belongs to other options, data or model.
    """
    options = settings.options
    assert options.epochs and options.batch_size and options.micro_batch_tokens
    told = callback or Callback()
    order = Order(settings.lengths, options.batch_size, settings.seed)
    per_epoch = len(order)
    total = max(1, math.ceil(options.epochs * per_epoch))
    evaluation_steps = _evaluation_steps(total, per_epoch, options.evaluations_per_epoch)
    parameters = trainable_parameters(model)
    average = Average(parameters, options.ema) if options.ema else None
    state = _State(options.micro_batch_tokens, options.micro_batch_tokens)

    checkpoint = checkpoints.load_checkpoint(folder)
    if checkpoint is not None:
        if checkpoint.state["fingerprint"] != settings.fingerprint:
            raise RunError(
                f"the checkpoint in '{folder}' was made with other options, data or model",
                fix="start a new run, or restore the task file it was started with",
            )
        checkpoints.restore(checkpoint, parameters, optimizer)
        if average is not None:
            average.restore(checkpoint.average)
        state = _State(**checkpoint.state["progress"])
        if not state.finished:
            notice(f"going on from step {checkpoint.step:,} of {total:,}")
        if state.asked_tokens != options.micro_batch_tokens:
            state.asked_tokens = state.micro_batch_tokens = options.micro_batch_tokens
            notice(f"micro-batches hold at most {options.micro_batch_tokens:,} tokens from here on")
    # Without a checkpoint everything is written again, the validation before step 1 too.
    resumed = checkpoint is not None
    recorded = metrics.rewind(state.step if resumed else -1)
    told.on_start(
        Start(metrics.path.parent, options.model_dump(), state.step, total, resumed, recorded)
    )

    def save() -> None:
        record = {"fingerprint": settings.fingerprint, "progress": asdict(state)}
        averaged = None if average is None else average.values
        checkpoints.save_checkpoint(
            folder, state.step, parameters, optimizer, record, averaged, state.best_step
        )
        told.on_checkpoint(state.step, folder / f"step-{state.step:08d}")

    if settings.validate_before and state.step == 0:
        model.eval()
        found = validate()
        state.before = found.loss
        record = _record(found, 0, per_epoch)
        metrics.write(record)
        told.on_evaluate(record)

    saved_at = time.monotonic()
    epoch_batches: tuple[int, list[list[int]]] = (-1, [])
    while not state.finished:
        epoch, index = divmod(state.step, per_epoch)
        if epoch_batches[0] != epoch:
            epoch_batches = (epoch, order.epoch(epoch))
            if isinstance(objective, Redrawn):
                objective.begin_epoch(epoch)
        started = time.perf_counter()
        parts = [
            objective.batch(rows).to(settings.device)
            for rows in micro_batches(
                epoch_batches[1][index],
                settings.lengths,
                state.micro_batch_tokens,
                packed=objective.packed,
            )
        ]
        factor = schedule_factor(
            state.step, total, warmup=options.warmup, schedule=options.schedule
        )
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        model.train()
        try:
            result = take_step(
                model,
                objective,
                optimizer,
                parts,
                clip=options.clip,
                autocast=settings.autocast,
                seed=_step_seed(settings.seed, state.step),
            )
        except OutOfMemory as error:
            largest = max(part.counted for part in parts)
            state.micro_batch_tokens = _smaller(largest, parts, error)
            notice(
                f"memory ran out at step {state.step + 1:,} with micro-batches of {largest:,} "
                f"tokens; going on with at most {state.micro_batch_tokens:,}"
            )
            continue
        loss, norm = float(result.loss), float(result.grad_norm)
        state.step += 1
        state.skipped_in_a_row = 0 if result.updated else state.skipped_in_a_row + 1
        if not result.updated:
            state.skipped += 1
            notice(left_out(state.step, loss, norm))
        if state.skipped_in_a_row == MOST_IN_A_ROW:
            raise diverged(
                model,
                objective,
                epoch_batches[1][index],
                step=state.step,
                learning_rate=options.learning_rate or 0.0,
                sources=settings.sources,
                device=settings.device,
                autocast=settings.autocast,
            )
        if average is not None and result.updated:
            average.update(parameters, state.step)
        state.tokens += sum(part.tokens for part in parts)
        record = {
            "kind": "train",
            "step": state.step,
            "epoch": state.step / per_epoch,
            "loss": loss if math.isfinite(loss) else None,
            "learning_rate": (options.learning_rate or 0.0) * factor,
            "grad_norm": norm if math.isfinite(norm) else None,
            "tokens": state.tokens,
            "seconds": time.perf_counter() - started,
        }
        metrics.write(record)
        told.on_step(record)
        progress("training", state.step, total)
        if state.step in evaluation_steps:
            with average.applied(parameters) if average else contextlib.nullcontext():
                record = _evaluate(model, state, validate, per_epoch)
                metrics.write(record)
                if state.best_step == state.step:
                    checkpoints.save_best(folder, state.step, parameters)
            told.on_evaluate(record)
            state.stopped_early = state.without_gain >= options.patience and state.step < total
            state.finished = state.stopped_early or state.step >= total
        due = (
            state.step % options.checkpoint_steps == 0
            if options.checkpoint_steps
            else time.monotonic() - saved_at >= CHECKPOINT_SECONDS
        )
        stopping = stop_requested()
        if due or stopping or state.finished:
            save()
            saved_at = time.monotonic()
        if stopping and not state.finished:
            raise Interrupted("")
    if state.best_loss is not None and math.isnan(state.best_loss):
        raise TrainingError(
            f"after {state.step:,} steps the validation loss is no number: training diverged",
            fix=f"lower learning_rate (now {options.learning_rate:g}), or set dtype: fp32",
        )
    checkpoints.copy_into(checkpoints.load_best(folder, state.best_step), parameters)
    model.eval()
    trained = Trained(
        steps=state.step,
        best_step=state.best_step,
        best=Validation(state.best_loss, state.best_score),
        before=state.before,
        stopped_early=state.stopped_early,
        tokens=state.tokens,
        skipped=state.skipped,
    )
    told.on_end(trained)
    return trained


@dataclass
class _State:
    """Everything that decides what comes next, besides weights and optimizer state.

    `asked_tokens` is the option, `micro_batch_tokens` what memory has left of it.
    """

    asked_tokens: int
    micro_batch_tokens: int
    step: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    before: float | None = None
    best_step: int = 0
    best_loss: float | None = None
    best_score: float | None = None
    top_loss: float | None = None
    top_score: float | None = None
    without_gain: int = 0
    stopped_early: bool = False
    finished: bool = False


def _evaluate(
    model: nn.Module,
    state: _State,
    validate: Callable[[], Validation],
    per_epoch: int,
) -> dict[str, float | str | None]:
    """Ask the validation rows, and decide whether these weights are the ones to keep.

    The highest score wins, ties by loss. Where the score's standard error is known, a later
    evaluation within one of the highest wins too: such a gap is chance, and the later weights have
    seen the smaller learning rate (the one-standard-error rule of Breiman et al. 1984, section
    3.4.3, with the annealed weights in the place of the simpler tree).
    """
    model.eval()
    found = validate()
    top = Validation(state.top_loss, state.top_score)
    gained = state.best_step == 0 or _rank(found) > _rank(top)
    near = (
        found.score is not None
        and found.error is not None
        and top.score is not None
        and found.score + found.error >= top.score
    )
    if gained:
        state.top_loss, state.top_score, state.without_gain = found.loss, found.score, 0
    else:
        state.without_gain += 1
    if gained or near:
        state.best_step, state.best_loss, state.best_score = state.step, found.loss, found.score
    return _record(found, state.step, per_epoch)


def _smaller(largest: int, parts: Sequence[Batch], error: OutOfMemory) -> int:
    """Half the tokens of the largest micro-batch, unless it is a single row already."""
    rows = max(len(part.rows) for part in parts)
    if rows == 1:
        raise ResourceError(
            f"memory ran out with a micro-batch of one row of {largest:,} tokens",
            fix="lower max_length, set checkpointing: true, or choose lora, qlora or a smaller "
            "model",
        ) from error
    return largest // 2


def _record(found: Validation, step: int, per_epoch: int) -> dict[str, float | str | None]:
    return {
        "kind": "validation",
        "step": step,
        "epoch": step / per_epoch,
        "loss": found.loss,
        "score": found.score,
    }


def _rank(validation: Validation) -> tuple[float, float]:
    """Higher is better: by score, ties by loss (a NaN never wins)."""
    score = validation.score if validation.score is not None else 0.0
    loss = validation.loss if validation.loss is not None else 0.0
    return (-math.inf if math.isnan(score) else score, -math.inf if math.isnan(loss) else -loss)


def _evaluation_steps(total: int, per_epoch: int, per: int) -> set[int]:
    """The steps after which validation is asked: evenly inside each epoch, and at the end."""
    every = per_epoch / per
    inside = {round(every * i) for i in range(1, math.floor(total / every) + 1)}
    return {s for s in inside if 0 < s <= total} | {total}


def _step_seed(seed: int, step: int) -> int:
    """Random numbers are keyed by (seed, step), so that a resumed step draws the same."""
    return (seed * 1_000_003 + step * 1_009) % (2**63 - 2**20)
