"""What training or answering needs, from a model's config alone.

Knows configs, traces and how to extrapolate them; knows nothing of a running machine, of budgets or
of how results are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fitune.collector import uncollected
from fitune.memory.options import Training
from fitune.models.pooling import Pooling


@dataclass(frozen=True)
class PeakAt:
    """Where the peak is.

    Attributes:
        phase: ``"forward"``, ``"loss"``, ``"backward"``, ``"clip"``, ``"update"`` or
            ``"evaluation"``.
        operation: of torch, that allocates the last of it.
        module: at work, by its qualified name in the model.
    """

    phase: str
    operation: str
    module: str


@dataclass(frozen=True)
class Moment:
    """The most bytes at one place of the model in one phase.

    Attributes:
        step: 0 is the first step, in which optimizer states come to be.
        place: a module, or a layer as ``"model.layers 0–29"`` names several alike.
        terms: name → bytes.
    """

    step: int
    phase: str
    place: str
    bytes: int
    terms: dict[str, int]


@dataclass(frozen=True)
class Estimate:
    """Bytes of live tensors.

    Attributes:
        parameters, trainable: how many values.
        peak_bytes: the most at any moment.
        terms: name → bytes at the peak; they sum to `peak_bytes`.
        peak_at: when and where that is.
        phases: phase → the most bytes in it.
        timeline: in the order of time.
    """

    parameters: int
    trainable: int
    peak_bytes: int
    terms: dict[str, int]
    peak_at: PeakAt
    phases: dict[str, int]
    timeline: tuple[Moment, ...]


@uncollected()
def estimate_training(
    config: Any, training: Training, *, pooling: Pooling | None = None, exact: bool = False
) -> Estimate:
    """What one optimizer step and the evaluation after it need.

    Args:
        config: of transformers.
        pooling: for an encoder whose vectors were pooled in training; else transformers' own head
            is put on it.
        exact: trace every layer instead of a few of each kind.
    """
    import torch

    from fitune.memory.extrapolate import extrapolate
    from fitune.memory.scenario import apply_method, build_model, checkpoint
    from fitune.memory.stacks import everything, layers_of_kinds, selections, with_layers
    from fitune.memory.trace import trace_training
    from fitune.training.precision import FROZEN_BASE

    with torch.device("meta"):
        model = build_model(config, training, pooling)
        wraps = training.options.method in FROZEN_BASE
        # Which layers are frozen and checkpointed decides which are alike.
        model = checkpoint(model, training) if wraps else apply_method(model, training)
    layers = layers_of_kinds(model, config)
    full = everything(layers)
    chosen = [full] if exact else selections(layers)
    traces = [
        trace_training(with_layers(model, selection), training, selection, wrap=wraps)
        for selection in chosen
    ]
    return _estimate(extrapolate(traces, chosen, full))


def _estimate(trace: Any) -> Estimate:
    (_, phase, _), peak = trace.peak
    phases: dict[str, int] = {}
    for (_, name, _), candidate in trace.peaks.items():
        phases[name] = max(phases.get(name, 0), candidate.bytes)
    return Estimate(
        parameters=trace.parameters,
        trainable=trace.trainable,
        peak_bytes=peak.bytes,
        terms=dict(sorted(peak.terms.items(), key=lambda term: -term[1])),
        peak_at=PeakAt(phase, peak.operation, peak.module),
        phases=phases,
        timeline=tuple(
            Moment(step, name, " ".join(map(str, place)), moment.bytes, moment.terms)
            for (step, name, place), moment in trace.peaks.items()
        ),
    )
