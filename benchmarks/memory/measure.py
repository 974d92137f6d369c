"""One cell, measured: real steps of a real model under the CPU allocator's own account.

    python -m benchmarks.memory.measure "gpt2 lora adamw fp32 4×64"

Prints JSON. A process of its own for each cell: nothing that an earlier cell left behind is in it.
Knows how a training step is put together; knows nothing of estimates.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory.cells import Cell, parse


@dataclass(frozen=True)
class Measured:
    """What a cell took.

    Attributes:
        model_bytes: held by the model after the method was applied, before the first step.
        peak_bytes: the most that was held at any moment from then on.
        resident_bytes: the most resident memory in that time, above what the process had after its
            imports: with whatever libraries take beside the allocator, and the profiler's notes.
        trained: how many values train.
        seconds: of both steps and the evaluation.
    """

    model_bytes: int
    peak_bytes: int
    resident_bytes: int
    trained: int
    seconds: float


def measure(cell: Cell) -> Measured:
    """Two optimizer steps, in the first of which optimizer states come to be, and an evaluation."""
    from fitune.models.quiet import import_bitsandbytes

    import_bitsandbytes()  # here, so that imports are over before the baseline is read
    import peft  # noqa: F401
    import torch

    from fitune.memory.scenario import apply_method, assemble, build_model, ready
    from fitune.training.methods import trainable_parameters

    torch.manual_seed(0)
    gc.collect()  # else what an earlier cell left in cycles is released, and counted, in this one
    baseline = _resident("VmRSS")
    made: list[Any] = []
    seconds = 0.0

    def build() -> None:
        model = build_model(cell.config, cell.training, cell.pooling)
        made.append(ready(apply_method(model, cell.training), cell.training))
        gc.collect()

    def work() -> None:
        nonlocal seconds
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        started = time.perf_counter()
        made.append(scenario := assemble(made[0], cell.training))
        scenario.step()
        scenario.step()
        scenario.evaluate()
        seconds = time.perf_counter() - started

    held, _ = account(build)
    _check(cell, made[0])
    _, peak = account(work)
    return Measured(
        model_bytes=held,
        peak_bytes=held + peak,
        resident_bytes=_resident("VmHWM") - baseline,
        trained=sum(p.numel() for p in trainable_parameters(made[0]).values()),
        seconds=round(seconds, 2),
    )


def account(work: Callable[[], object]) -> tuple[int, int]:
    """What `work` left allocated, and the most that it held, above what was held before, in bytes.

    The CPU allocator reports each allocation and each release to the profiler, to the byte.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return held, peak


def _resident(field: str) -> int:
    """Bytes, of a field of /proc/self/status."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def _check(cell: Cell, model: Any) -> None:
    """What the cell is about is really there; else something else would be measured."""
    options = cell.training.options
    checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    assert checkpointed == options.checkpointing, "checkpointing"
    names = {type(module).__name__ for module in model.modules()}
    assert ("Linear4bit" in names) == (options.method == "qlora"), "four-bit layers"
    adapted = any("lora_A" in name for name, _ in model.named_parameters())
    assert adapted == (options.method in ("lora", "dora", "qlora")), "adapters"


if __name__ == "__main__":
    print(json.dumps(asdict(measure(parse(sys.argv[1])))))
