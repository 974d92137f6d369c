"""Where the time of training steps goes: measured on the first steps of a real training.

Knows the step, the order of rows and torch's profiler; knows nothing of what is trained, and keeps
nothing of it. Seconds are taken without the profiler, which slows small operations down; the shares
of kinds of operations come from further steps under it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fitune.data.batches import Batch, Order, micro_batches
from fitune.errors import ResourceError
from fitune.training.flops import Flops, Products, step_flops
from fitune.training.loop import Settings
from fitune.training.matrix_limit import MatrixLimit, matrix_limit
from fitune.training.objectives import Objective, Redrawn
from fitune.training.operations import shares
from fitune.training.step import OutOfMemory
from fitune.training.step import step as take_step

WARM_UP = 2
"""Steps before those that count: libraries choose kernels, and memory is got once."""

UNDER_PROFILER = 3
"""Steps at most."""

PHASES = ("batch", "forward", "backward", "clip", "optimizer", "other")


@dataclass(frozen=True)
class Profile:
    """What was measured; counts and seconds are means of a step.

    Attributes:
        steps: that were measured.
        rows, micro_batches: of a step.
        tokens: of the rows, without padding.
        shared: of these, those not computed, since they are what another row begins with, too.
        positions: tokens that are computed, padding included.
        seconds: of a step.
        phases: name → seconds; they sum to `seconds`. Where the head's loss is fused, its gradient
            is computed in ``"forward"``; ``"clip"`` has the check for finite numbers, too.
        kinds: kind of operation → share of the time.
        flops: that a step needs.
        limit: of this machine, in the dtype of the step's products.
        steps_per_epoch: of this training.
        evaluation_seconds: of one evaluation; None where it was not measured.
        advice: what would make the step faster, a sentence each.
    """

    steps: int
    rows: float
    micro_batches: float
    tokens: float
    shared: float
    positions: float
    seconds: float
    phases: dict[str, float]
    kinds: dict[str, float]
    flops: Flops
    limit: MatrixLimit
    steps_per_epoch: int
    evaluation_seconds: float | None = None
    advice: tuple[str, ...] = ()

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def padding(self) -> float:
        """Share of what is computed."""
        computed = self.tokens - self.shared
        return max(0.0, 1 - computed / self.positions)  # means of steps carry rounding

    @property
    def utilisation(self) -> float:
        """Model FLOP utilisation: FLOPs that the step needs, of those that the machine's matrix
        products do in its time (Chowdhery et al., arXiv:2204.02311, section 4.1, against a measured
        limit in the place of the theoretical one)."""
        return self.flops.total / self.seconds / self.limit.flops_per_second

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "flops": {**asdict(self.flops), "total": self.flops.total},
            "tokens_per_second": self.tokens_per_second,
            "padding": self.padding,
            "utilisation": self.utilisation,
        }


def measure_steps(
    model: Any,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    *,
    steps: int,
    products: Products,
    compute: torch.dtype,
    progress: Callable[[str, int, int], None],
) -> Profile:
    """Take the first steps of a training and measure them.

    Args:
        model: ready to train; its weights change.
        steps: that are measured.
        products: of the model.
        compute: the dtype of matrix products.

    Raises:
        ResourceError: memory ran out.
    """
    options = settings.options
    assert options.batch_size
    order = Order(settings.lengths, options.batch_size, settings.seed)
    if isinstance(objective, Redrawn):
        objective.begin_epoch(0)
    batches = itertools.cycle(order.epoch(0))
    clock = _Clock(cuda=settings.device == "cuda")
    timed = _Timed(objective, clock)
    further = min(steps, UNDER_PROFILER)
    done = 0

    def one() -> list[Batch]:
        nonlocal done
        parts = _step(model, timed, optimizer, settings, next(batches), clock)
        done += 1
        progress("profiling", done, WARM_UP + steps + further)
        return parts

    model.train()
    with clock.watching(optimizer):
        for _ in range(WARM_UP):
            one()
        clock.seconds.clear()
        taken = [one() for _ in range(steps)]
        spent = {name: clock.seconds[name] / steps for name in PHASES}
        kinds = _kinds(one, further, cuda=clock.cuda)
    seconds = spent["other"]  # so far, of all phases together
    parts = [part for each in taken for part in each]
    flops = step_flops(products, parts)
    return Profile(
        steps=steps,
        rows=sum(len(part.rows) for part in parts) / steps,
        micro_batches=len(parts) / steps,
        tokens=sum(part.tokens for part in parts) / steps,
        shared=sum(part.tokens - int(part.attention_mask.sum()) for part in parts) / steps,
        positions=sum(part.input_ids.numel() for part in parts) / steps,
        seconds=seconds,
        phases={**spent, "other": max(0.0, 2 * seconds - sum(spent.values()))},
        kinds=kinds,
        flops=Flops(*(round(part / steps) for part in asdict(flops).values())),
        limit=matrix_limit(compute, "cuda" if clock.cuda else "cpu"),
        steps_per_epoch=len(order),
    )


def _step(
    model: Any,
    timed: _Timed,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    rows: Sequence[int],
    clock: _Clock,
) -> list[Batch]:
    options = settings.options
    assert options.micro_batch_tokens
    started = clock.now()
    parts = [
        timed.batch(part).to(settings.device)
        for part in micro_batches(
            rows, settings.lengths, options.micro_batch_tokens, packed=timed.packed
        )
    ]
    clock.add("batch", started)
    try:
        result = take_step(
            model,
            timed,
            optimizer,
            parts,
            clip=options.clip,
            autocast=settings.autocast,
            seed=settings.seed,
        )
    except OutOfMemory as error:
        raise ResourceError(
            f"memory ran out with micro-batches of {options.micro_batch_tokens:,} tokens",
            fix="lower micro_batch_tokens",
        ) from error
    float(result.loss)  # as the loop reads it
    clock.add("other", started)
    return parts


class _Clock:
    """Seconds of phases, taken from outside the step: where the optimizer begins and ends, and
    where autograd does, by their hooks."""

    def __init__(self, *, cuda: bool) -> None:
        self.cuda = cuda
        self.seconds: Counter[str] = Counter()
        self._backward = self._optimizer = 0.0

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def add(self, phase: str, started: float) -> None:
        self.seconds[phase] += self.now() - started  # type: ignore[assignment]  # seconds

    @contextmanager
    def watching(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        def begins(*given: Any) -> None:
            self.add("clip", self._backward)
            self._optimizer = self.now()

        handles = [
            optimizer.register_step_pre_hook(begins),
            optimizer.register_step_post_hook(
                lambda *given: self.add("optimizer", self._optimizer)
            ),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def watch_backward(self, loss: torch.Tensor) -> None:
        """Take the time that the backward pass from `loss` takes."""

        def begins(gradient: torch.Tensor) -> None:
            started = self.now()

            def ends() -> None:
                self.add("backward", started)
                self._backward = self.now()

            # As DistributedDataParallel has itself called when all gradients are there.
            torch.autograd.Variable._execution_engine.queue_callback(ends)

        loss.register_hook(begins)


class _Timed:
    """An objective whose forward and backward passes are timed."""

    def __init__(self, objective: Objective, clock: _Clock) -> None:
        self._objective, self._clock = objective, clock
        self.packed = objective.packed

    def batch(self, rows: Sequence[int]) -> Batch:
        return self._objective.batch(rows)

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        started = self._clock.now()
        loss = self._objective.loss_sum(model, batch)
        self._clock.add("forward", started)
        self._clock.watch_backward(loss)
        return loss


def _kinds(one: Callable[[], Any], steps: int, *, cuda: bool) -> dict[str, float]:
    # Else libkineto tells the terminal when it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    watched = [torch.profiler.ProfilerActivity.CPU]
    watched += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    with torch.profiler.profile(activities=watched) as seen:
        started = time.perf_counter()
        for _ in range(steps):
            one()
        seconds = time.perf_counter() - started
    return shares(seen.events(), seconds, cuda=cuda)
