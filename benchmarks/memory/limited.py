"""One way of training under a hard limit of memory: real steps that end well, or do not.

    python -m benchmarks.memory.limited "gpt2 lora adamw fp32 4×64" BYTES

Prints JSON: `ended`, and where it did, `held`, the most resident memory that it took. The limit is
the kernel's own (RLIMIT_DATA) and is counted from what the process had after its imports. Knows how
training is put together; knows nothing of estimates.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from benchmarks.memory.cells import parse


def run(line: str, limit: int) -> dict[str, Any]:
    """Two updates and an evaluation of one cell, with `limit` bytes above the imports'."""
    from fitune.malloc import prepare_for_training
    from fitune.models.quiet import import_bitsandbytes

    cell = parse(line)
    if cell.training.options.method == "qlora" or "8bit" in cell.training.options.optimizer:
        import_bitsandbytes()
    import peft  # noqa: F401
    import torch

    from fitune.memory.scenario import apply_method, assemble, build_model, ready

    prepare_for_training(limit, limit)  # as before any training that has to fit
    before, resident = status_bytes("VmData"), status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    resource.setrlimit(resource.RLIMIT_DATA, (before + limit, before + limit))
    try:
        torch.manual_seed(0)
        model = apply_method(build_model(cell.config, cell.training, cell.pooling), cell.training)
        model = ready(model, cell.training)
        scenario = assemble(model, cell.training)
        scenario.step()
        scenario.step()
        scenario.evaluate()
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return {"ended": False, "why": " ".join(str(error).split())[:200]}
    return {"ended": True, "held": status_bytes("VmHWM") - resident}


def status_bytes(field: str) -> int:
    """Of a field of /proc/self/status. RLIMIT_DATA counts VmData: private writable memory, whether
    touched or not."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[field].split()[0]) * 1024


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
