"""Bytes on each device where several train one model together, each on rows of its own.

Knows parameters by size and the ways of dividing them; knows nothing of activations (each device
has those of its own micro-batch, as if it were alone) nor of a running process group. Figures are
those of the device that has most.

What is modelled, by library:

- torch: ``ddp``, DistributedDataParallel (Li et al., arXiv:2006.15704); ``zero1``, the same with
  ZeroRedundancyOptimizer, which deals out whole parameters; ``fsdp`` and ``zero3``, FSDP2
  (``torch.distributed.fsdp.fully_shard`` on each layer, then on the model; Zhao et al.,
  arXiv:2304.11277); ``zero2``, FSDP2 with ``reshard_after_forward=False``.
- deepspeed: ``zero1`` to ``zero3`` (Rajbhandari et al., arXiv:1910.02054, section 5), which divides
  flat buffers into equal parts, with the buffer sizes that DeepSpeed has by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fitune.errors import ConfigError

WEIGHTS, GRADIENTS, STATES = "weights", "gradients", "optimizer states"
GATHERED, UNREDUCED, BUFFERS = "gathered layers", "unreduced gradients", "communication buffers"
TEMPORARY = (GATHERED, UNREDUCED, BUFFERS)
"""The terms that exist only because the work is divided, and only for part of a step."""

ROOT = ""
"""The unit of parameters that belong to no layer (embeddings, last norm, head)."""

QUANTIZED_BELOW = 2.0
"""Bytes per value below which a parameter counts as quantized: it is gathered as it is stored,
whereas others are cast to the dtype computed in first."""

REDUCE_BUCKET_VALUES = ALL_GATHER_BUCKET_VALUES = 500_000_000
PREFETCH_VALUES, LIVE_VALUES = 50_000_000, 1_000_000_000
PERSISTENT_BELOW_VALUES = 100_000
"""DeepSpeed's defaults (``deepspeed/runtime/zero/config.py``): values reduced and gathered at a
time; in stage 3, fetched ahead, kept gathered at the most, and in a parameter too small to be
divided."""


@dataclass(frozen=True)
class ParameterFacts:
    """What dividing a parameter needs to know of it.

    Attributes:
        name: qualified.
        numel: values.
        bytes_per_value: as stored: 4 for float32, 0.5 for 4 bit.
        trained: has a gradient and optimizer states.
        unit: the layer it is gathered with; `ROOT` for those of no layer.
        shape: FSDP2 pads the first dimension to a multiple of the devices; empty: not known, then
            all values count as one dimension.
        tied: also used by the head, so that its gradient exists from the backward pass's start.
    """

    name: str
    numel: int
    bytes_per_value: float
    trained: bool
    unit: str = ROOT
    shape: tuple[int, ...] = ()
    tied: bool = False

    def part(self, devices: int) -> int:
        """Values of the largest of `devices` parts along the first dimension."""
        rows = self.shape[0] if self.shape else self.numel
        return -(-rows // devices) * (self.numel // rows) if rows else 0


@dataclass(frozen=True)
class Sharding:
    """How a model is divided.

    Attributes:
        devices: that train together; each is one rank.
        strategy: see the module.
        library: that carries it out; only ``zero1`` to ``zero3`` exist in both.
        offload: weights (FSDP, stage 3), gradients and optimizer states live on the host.
        gather_bytes: bytes of a value computed with and gathered (FSDP2's ``param_dtype``);
            None: as stored.
        reduce_bytes: bytes of a gradient's value in reduce-scatter (``reduce_dtype``); None: as
            computed.
        prefetch: layers gathered ahead in the backward pass (FSDP2's default is 1).
        gradient_as_bucket_view: DDP's option; without it each gradient exists twice, once in a
            bucket (of 25 MiB, the first of 1 MiB).
        overlap: DeepSpeed's ``overlap_comm``, which doubles the bucket; None: only in stage 3, as
            by default.

    Raises:
        ConfigError: no device, an unknown strategy, or one that cannot offload.
    """

    devices: int
    strategy: Literal["ddp", "fsdp", "zero1", "zero2", "zero3"] = "fsdp"
    library: Literal["torch", "deepspeed"] = "torch"
    offload: bool = False
    gather_bytes: float | None = None
    reduce_bytes: float | None = None
    prefetch: int = 1
    gradient_as_bucket_view: bool = False
    overlap: bool | None = None

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ConfigError(f"{self.devices} devices cannot train", fix="give 1 device or more")
        if (self.library, self.strategy) not in STRATEGIES:
            known = ", ".join(sorted(s for lib, s in STRATEGIES if lib == self.library))
            raise ConfigError(
                f"there is no strategy '{self.strategy}' with {self.library}",
                fix=f"choose one of {known}" if known else "choose the library torch or deepspeed",
            )
        if self.offload and self.library == "torch" and self.strategy in ("ddp", "zero1"):
            raise ConfigError(
                f"torch's {self.strategy} keeps everything on the device and cannot offload",
                fix="choose fsdp, or the library deepspeed",
            )


@dataclass(frozen=True)
class Sharded:
    """Bytes of one rank, by term.

    Attributes:
        terms: on the device. Gradients count in full, as at the end of the backward pass.
        host: on the host, where the strategy offloads.
    """

    terms: dict[str, int]
    host: dict[str, int] = field(default_factory=dict)

    @property
    def peak_extra(self) -> int:
        """Bytes of the `TEMPORARY` terms at their common peak."""
        return sum(self.terms.get(name, 0) for name in TEMPORARY)

    @property
    def resident(self) -> int:
        """Bytes on the device of all other terms."""
        return sum(self.terms.values()) - self.peak_extra


def shard(
    parameters: Iterable[ParameterFacts],
    sharding: Sharding,
    *,
    optimizer_bytes: float,
    gradient_bytes: float | None = None,
) -> Sharded:
    """Bytes on each device, and on the host, for training `parameters` together.

    Args:
        parameters: in the model's order.
        optimizer_bytes: of the states of one trained value (AdamW in float32: 8; with a float32
            copy of 16-bit weights beside it: 12).
        gradient_bytes: of one trained value's gradient; None: as its parameter is stored.
    """
    parameters = list(parameters)
    divide = STRATEGIES[sharding.library, sharding.strategy]
    if sharding.devices == 1 and not sharding.offload:
        divide = _alone
    return divide(parameters, sharding, _Costs(optimizer_bytes, gradient_bytes))


@dataclass(frozen=True)
class _Costs:
    optimizer_bytes: float
    gradient_bytes: float | None

    def gradient(self, parameter: ParameterFacts) -> float:
        return parameter.bytes_per_value if self.gradient_bytes is None else self.gradient_bytes


Parameters = Sequence[ParameterFacts]


def _trained(parameters: Parameters) -> list[ParameterFacts]:
    return [parameter for parameter in parameters if parameter.trained]


def _sum(values: Iterable[float]) -> int:
    return math.ceil(sum(values))


def _alone(parameters: Parameters, sharding: Sharding, costs: _Costs) -> Sharded:
    trained = _trained(parameters)
    return Sharded(
        {
            WEIGHTS: _sum(p.numel * p.bytes_per_value for p in parameters),
            GRADIENTS: _sum(p.numel * costs.gradient(p) for p in trained),
            STATES: _sum(p.numel * costs.optimizer_bytes for p in trained),
        }
    )


def _replicated(parameters: Parameters, sharding: Sharding, costs: _Costs) -> Sharded:
    """DDP: everything on each device, and the gradients once more, in buckets."""
    terms = _alone(parameters, sharding, costs).terms
    if not sharding.gradient_as_bucket_view:
        terms[BUFFERS] = terms[GRADIENTS]
    return Sharded(terms)


def _dealt_states(parameters: Parameters, sharding: Sharding, costs: _Costs) -> Sharded:
    """DDP with ZeroRedundancyOptimizer: parameters, the largest first, go to the rank that has
    least so far, and with each its states."""
    terms = _replicated(parameters, sharding, costs).terms
    values = [0] * sharding.devices
    for numel in sorted((p.numel for p in _trained(parameters)), reverse=True):
        values[values.index(min(values))] += numel
    terms[STATES] = _sum([max(values) * costs.optimizer_bytes])
    return Sharded(terms)


def _fully_sharded(parameters: Parameters, sharding: Sharding, costs: _Costs) -> Sharded:
    """FSDP2: each device has a part of each parameter, and whole layers while it computes them."""
    devices, trained = sharding.devices, _trained(parameters)
    parts = {
        WEIGHTS: _sum(p.part(devices) * p.bytes_per_value for p in parameters),
        GRADIENTS: _sum(p.part(devices) * costs.gradient(p) for p in trained),
        STATES: _sum(p.part(devices) * costs.optimizer_bytes for p in trained),
    }
    temporary = dict(zip(TEMPORARY, max(_moments(parameters, sharding), key=sum), strict=True))
    if sharding.offload:
        return Sharded(temporary, host=parts)
    return Sharded(parts | temporary)


@dataclass(frozen=True)
class _Unit:
    """Bytes of a layer as a whole.

    Attributes:
        whole: its gathered parameters; the buffer they are gathered in has as many.
        unreduced: its gradients as the backward pass makes them.
        scattered: the buffer its gradients are reduced and scattered from.
    """

    whole: int
    unreduced: int
    scattered: int


def _unit(parameters: Parameters, sharding: Sharding) -> _Unit:
    devices, trained = sharding.devices, _trained(parameters)

    def computed(parameter: ParameterFacts) -> float:
        if sharding.gather_bytes is None or parameter.bytes_per_value < QUANTIZED_BELOW:
            return parameter.bytes_per_value
        return sharding.gather_bytes

    def reduced(parameter: ParameterFacts) -> float:
        return computed(parameter) if sharding.reduce_bytes is None else sharding.reduce_bytes

    return _Unit(
        whole=_sum(p.part(devices) * devices * computed(p) for p in parameters),
        unreduced=_sum(p.numel * computed(p) for p in trained),
        scattered=_sum(p.part(devices) * devices * reduced(p) for p in trained),
    )


def _moments(parameters: Parameters, sharding: Sharding) -> list[tuple[int, int, int]]:
    """(gathered, unreduced, buffers) at each moment of a step where something may be largest.

    As ``torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py`` of torch 2.13 orders them.
    Forward, a layer's gathering buffer lives until the next layer is whole. Backward, the next
    layer's parameters are gathered while this one's gradients are computed; then these are copied
    to the buffer of reduce-scatter, which lives until the next layer's are. The root's parameters
    stay gathered throughout; its gradients wait for the end: those after the layers (the head's)
    all the way, those before them (the embeddings') only there. (The copy of its part from which a
    device fills a gathering buffer is gone before the layer is whole, and so never matters.)
    """
    members: dict[str, list[ParameterFacts]] = {}
    for parameter in parameters:
        members.setdefault(parameter.unit, []).append(parameter)
    of_root = members.pop(ROOT, [])
    units = [_unit(layer, sharding) for layer in members.values()]
    places = [index for index, p in enumerate(parameters) if p.unit != ROOT]
    root = _unit(of_root, sharding)
    early = [
        p
        for index, p in enumerate(parameters)
        if p.unit == ROOT and (p.tied or (bool(places) and index > places[0]))
    ]
    waiting = _unit(early, sharding).unreduced

    def result(unit: _Unit) -> int:  # on its way to the host; otherwise it counts as gradients
        return unit.scattered // sharding.devices if sharding.offload else 0

    kept = sharding.strategy == "zero2"
    moments = [(2 * root.whole, 0, 0)]
    before, earlier = root, 0
    for unit in units:
        moments.append((root.whole + earlier + before.whole + 2 * unit.whole, 0, 0))
        before = unit
        earlier += unit.whole if kept else 0
    scattered = 0
    for index in reversed(range(len(units))):
        unit = units[index]
        if kept:
            gathered = root.whole + sum(other.whole for other in units[:index])
        else:
            ahead = units[max(0, index - sharding.prefetch) : index]
            gathered = root.whole + sum(other.whole for other in ahead)
        moments.append((gathered + unit.whole, waiting + unit.unreduced, scattered))
        moments.append((gathered, waiting + unit.unreduced, unit.scattered + result(unit)))
        scattered = unit.scattered
    # The two gradients of tied embeddings meet at the end, and their sum is a third tensor.
    meeting = 2 * _unit([p for p in of_root if p.tied], sharding).unreduced
    moments.append((root.whole, root.unreduced + meeting, scattered))
    moments.append((0, root.unreduced, root.scattered + result(root)))
    return moments


def _partitioned(parameters: Parameters, sharding: Sharding, costs: _Costs) -> Sharded:
    """DeepSpeed's ZeRO: stage 1 divides the states, 2 also the gradients, 3 also the weights.

    The reduce bucket is allocated whole, however small the model. That DeepSpeed casts a rank's
    gradients to float32 for its update is not counted.
    """
    stage = int(sharding.strategy[-1])
    whole = _alone(parameters, sharding, costs).terms
    divided = {STATES, *([GRADIENTS] if stage > 1 else []), *([WEIGHTS] if stage > 2 else [])}
    terms = {
        name: -(-size // sharding.devices) if name in divided else size
        for name, size in whole.items()
    }
    trained = _trained(parameters)
    widest = max((costs.gradient(p) for p in trained), default=0.0)
    overlap = stage == 3 if sharding.overlap is None else sharding.overlap
    buffers = REDUCE_BUCKET_VALUES * (2 if overlap else 1) * widest if trained else 0.0
    if stage < 3:
        values = sum(p.numel for p in trained)
        buffers += min(ALL_GATHER_BUCKET_VALUES, values) * widest
    else:
        terms[GATHERED] = _live_parameters(parameters, sharding)
    terms[BUFFERS] = _sum([buffers])
    if not sharding.offload:
        return Sharded(terms)
    host = {name: terms.pop(name) for name in (WEIGHTS, GRADIENTS, STATES) if name in divided}
    if GRADIENTS not in host:  # stage 1 with an offloaded optimizer divides gradients as well
        host[GRADIENTS] = -(-terms.pop(GRADIENTS) // sharding.devices)
    return Sharded(terms, host=host)


def _live_parameters(parameters: Parameters, sharding: Sharding) -> int:
    """Bytes of the parameters that stage 3 keeps gathered: as many as it may, at least a layer and
    what is fetched ahead, besides those too small to be divided."""
    small = [p for p in parameters if p.numel < PERSISTENT_BELOW_VALUES]
    others = [p for p in parameters if p.numel >= PERSISTENT_BELOW_VALUES]
    values = sum(p.numel for p in others)
    units: dict[str, int] = {}
    for parameter in others:
        key = parameter.unit or parameter.name  # the root's are gathered one by one
        units[key] = units.get(key, 0) + parameter.numel
    least = max(units.values(), default=0) + PREFETCH_VALUES
    live = min(1.0, max(LIVE_VALUES, least) / values) if values else 0.0
    undivided = 1 - 1 / sharding.devices  # a device's own part is counted as weights
    return _sum(
        [
            live * _unit(others, sharding).whole,
            *(p.numel * p.bytes_per_value * undivided for p in small),
        ]
    )


STRATEGIES: dict[tuple[str, str], Callable[[Parameters, Sharding, _Costs], Sharded]] = {
    ("torch", "ddp"): _replicated,
    ("torch", "zero1"): _dealt_states,
    ("torch", "zero2"): _fully_sharded,
    ("torch", "zero3"): _fully_sharded,
    ("torch", "fsdp"): _fully_sharded,
    ("deepspeed", "zero1"): _partitioned,
    ("deepspeed", "zero2"): _partitioned,
    ("deepspeed", "zero3"): _partitioned,
}
