"""What a CUDA process takes for a step, estimated on a machine that need not have a GPU.

Knows traces, the caching allocator's rules and a process's constants; knows nothing of a running
device. *Live* are the tensors, *allocated* the blocks they are given, *reserved* the segments those
are cut from; what the process takes beyond (context, kernels, communicators) comes on top.

The allocator is replayed on the events of a model with a few layers of each kind, and what it loses
there is scaled to the whole; with `exact`, on the events of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fitune.memory.allocator import Event, Replay, events_of, replay
from fitune.memory.cuda import (
    UNCERTAINTY,
    Capability,
    outside_allocator,
    workspace_bytes,
    workspace_sizes,
)
from fitune.memory.options import Inference, Training
from fitune.models.pooling import Pooling


@dataclass(frozen=True)
class CudaProcess:
    """Bytes; estimated, not measured.

    Attributes:
        live, allocated, reserved: at their peaks; cuBLAS's workspaces are in each.
        workspace: of cuBLAS.
        outside: name → bytes beyond what the allocator reserves.
        exact: whether every layer was replayed.
    """

    live: int
    allocated: int
    reserved: int
    workspace: int
    outside: dict[str, int]
    exact: bool

    @property
    def total(self) -> int:
        """What ``nvidia-smi`` would show."""
        return self.reserved + sum(self.outside.values())

    @property
    def uncertainty(self) -> dict[str, float]:
        """Name → share by which the truth may differ either way."""
        named = {"live", "allocated", "reserved", "workspace", *self.outside}
        return {name: share for name, share in UNCERTAINTY.items() if name in named}


def cuda_process(
    config: Any,
    asked: Training | Inference,
    peak_bytes: int,
    capability: Capability,
    *,
    pooling: Pooling | None = None,
    devices: int = 1,
    exact: bool = False,
) -> CudaProcess:
    """What the process takes whose tensors peak at `peak_bytes`.

    Args:
        asked: with device ``"cuda"``.
        peak_bytes: of the estimate, on each device.
    """
    training = isinstance(asked, Training)
    workspaces = workspace_sizes(capability, training=training)
    found = replay_step(config, asked, workspaces, pooling=pooling, exact=exact)
    workspace = workspace_bytes(capability, training=training)
    live = peak_bytes + workspace
    return CudaProcess(
        live=live,
        allocated=int(live * found.allocated_peak / found.live_peak),
        reserved=int(live * found.reserved_peak / found.live_peak),
        workspace=workspace,
        outside=outside_allocator(capability, devices=devices),
        exact=exact,
    )


def replay_step(
    config: Any,
    asked: Training | Inference,
    workspaces: list[int],
    *,
    pooling: Pooling | None = None,
    exact: bool = False,
) -> Replay:
    """The allocator serves the storages of a step, after the workspaces that are never freed."""
    import torch

    from fitune.memory.stacks import everything, layers_of_kinds, selections, with_layers

    with torch.device("meta"):
        if isinstance(asked, Training):
            from fitune.memory.scenario import apply_method, build_model, checkpoint
            from fitune.memory.trace import trace_training
            from fitune.training.precision import FROZEN_BASE

            wraps = asked.options.method in FROZEN_BASE
            model = build_model(config, asked, pooling)
            model = checkpoint(model, asked) if wraps else apply_method(model, asked)
        else:
            from fitune.memory import answering
            from fitune.memory.inference import trace_inference

            model = answering.build_model(config, asked)
    layers = layers_of_kinds(model, config)
    selection = everything(layers) if exact else selections(layers)[-1]
    smaller = with_layers(model, selection)
    trace = (
        trace_training(smaller, asked, selection, wrap=wraps)
        if isinstance(asked, Training)
        else trace_inference(smaller, asked, selection)
    )
    kept = [Event(-1 - number, size, True) for number, size in enumerate(workspaces)]
    spans = [(each.bytes, each.start, each.end) for each in trace.allocations]
    return replay([*kept, *events_of(spans)])
