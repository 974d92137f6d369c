"""What each of several devices needs that train one model together.

Knows the estimate of one device alone and how parameters are divided (`sharding`); knows nothing of
models. Activations are those of a device's own rows. At each moment of the step, weights, gradients
and optimizer states are replaced by a device's part of them, and what exists only because the work
is divided is added: gathered layers while layers are computed, unreduced gradients and
communication buffers in the backward pass (DistributedDataParallel keeps its buckets for good).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fitune.memory.estimate import Estimate, Moment, PeakAt
from fitune.memory.sharding import (
    BUFFERS,
    GATHERED,
    UNREDUCED,
    ParameterFacts,
    Sharding,
    shard,
)

WEIGHTS, ADAPTERS, GRADIENTS = "weights", "adapters", "gradients"
STATES, TEMPORARY = "optimizer states", "temporaries"

COMPUTING = ("forward", "loss", "backward", "evaluation")
UPDATING = ("clip", "update")


@dataclass(frozen=True)
class Rank:
    """One device of several.

    Attributes:
        estimate: of the device.
        host: term → bytes on the host, for each device, where the work is offloaded.
    """

    estimate: Estimate
    host: dict[str, int]


def per_rank(estimate: Estimate, parameters: Sequence[ParameterFacts], sharding: Sharding) -> Rank:
    """`estimate` of one device alone → of the one of several that needs most.

    Args:
        parameters: of the model, after the method was applied.
    """
    states = max((moment.terms.get(STATES, 0) for moment in estimate.timeline), default=0)
    trained = sum(p.numel for p in parameters if p.trained)
    each = states / trained if trained else 0.0
    alone = shard(parameters, Sharding(1, "ddp"), optimizer_bytes=each).terms
    parts = shard(parameters, sharding, optimizer_bytes=each)

    def share(name: str) -> float:
        return parts.terms.get(name, 0) / alone[name] if alone.get(name) else 0.0

    shares = {GRADIENTS: share(GRADIENTS), STATES: share(STATES)}
    held = parts.terms.get(WEIGHTS, 0) - alone[WEIGHTS]  # buffers stay whole

    def divided(moment: Moment) -> Moment:
        terms = dict(moment.terms)
        weights = terms.pop(WEIGHTS, 0) + terms.pop(ADAPTERS, 0)
        terms[WEIGHTS] = max(0, weights + held)
        for name, part in shares.items():
            terms[name] = int(terms.get(name, 0) * part)
        if moment.phase in UPDATING:
            terms[TEMPORARY] = int(terms.get(TEMPORARY, 0) * (shares[GRADIENTS] or 1.0))
        terms.update(_temporary(moment.phase, parts.terms, sharding))
        terms = {name: size for name, size in terms.items() if size}
        return replace(moment, bytes=sum(terms.values()), terms=terms)

    timeline = tuple(map(divided, estimate.timeline))
    highest = max(range(len(timeline)), key=lambda i: timeline[i].bytes)
    before = max(range(len(timeline)), key=lambda i: estimate.timeline[i].bytes)
    peak = timeline[highest]
    phases: dict[str, int] = {}
    for moment in timeline:
        phases[moment.phase] = max(phases.get(moment.phase, 0), moment.bytes)
    made = replace(
        estimate,
        peak_bytes=peak.bytes,
        terms=dict(sorted(peak.terms.items(), key=lambda term: -term[1])),
        peak_at=estimate.peak_at if highest == before else PeakAt(peak.phase, "", peak.place),
        phases=phases,
        timeline=timeline,
    )
    return Rank(made, dict(parts.host))


def _temporary(phase: str, terms: dict[str, int], sharding: Sharding) -> dict[str, int]:
    """What exists only because the work is divided, in one phase."""
    kept_whole = sharding.library == "torch" and sharding.strategy in ("ddp", "zero1")
    always = kept_whole or sharding.library == "deepspeed"  # their buffers are made once
    return {
        GATHERED: terms.get(GATHERED, 0) if phase in COMPUTING else 0,
        UNREDUCED: terms.get(UNREDUCED, 0) if phase == "backward" else 0,
        BUFFERS: terms.get(BUFFERS, 0) if always or phase == "backward" else 0,
    }
