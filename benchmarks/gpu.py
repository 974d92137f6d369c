"""The published memory grid on this machine's CUDA GPU: estimated beside what its allocator says.

    ./run bench-gpu                     every cell of memory/cells.txt
    ./run bench-gpu --only gpt2         cells whose line holds these words
    ./run bench-gpu --json FILE         the figures, too

Each cell is estimated and run in a process of its own: two optimizer steps and an evaluation. Live
bytes are what was asked for, allocated those of the blocks handed out for it, reserved those of the
segments (`torch.cuda.memory_stats`). Without a GPU that torch sees, it says so and ends with 2.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.memory.cells import Cell, parse, read_cells

KINDS = ("live", "allocated", "reserved")
LIMIT_SECONDS = 900


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 where a cell failed, 2 without a GPU."""
    parser = ArgumentParser(
        prog="./run bench-gpu", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORDS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--cell", metavar="LINE", help="this one, in this process")
    options = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print("torch sees no CUDA GPU here; run this on a machine that has one", file=sys.stderr)
        return 2
    if options.cell:
        print(json.dumps(compare(parse(options.cell))))
        return 0
    results = []
    for cell in read_cells():
        if options.only in cell.name:
            results.append({"cell": cell.name, **in_own_process(cell)})
            print(said(results[-1]), flush=True)
    print("\n".join(summary(results)))
    if options.json:
        record = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cells": results}
        options.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return int(any("failed" in result for result in results))


def in_own_process(cell: Cell) -> dict[str, Any]:
    command = [sys.executable, __file__, "--cell", cell.name]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"over {LIMIT_SECONDS} s"}
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": words[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(cell: Cell) -> dict[str, dict[str, int]]:
    """Bytes by `KINDS`, estimated and measured."""
    import torch

    from fitune.memory.estimate import estimate_training
    from fitune.memory.process import cuda_process

    training = replace(cell.training, device="cuda")
    peak = estimate_training(cell.config, training, pooling=cell.pooling).peak_bytes
    capability = torch.cuda.get_device_capability()
    process = cuda_process(cell.config, training, peak, capability, pooling=cell.pooling)
    return {
        "estimated": {kind: getattr(process, kind) for kind in KINDS},
        "measured": measure(replace(cell, training=training)),
    }


def measure(cell: Cell) -> dict[str, int]:
    """What the device's allocator says of the steps, the model's own bytes included."""
    import torch

    from fitune.memory.scenario import apply_method, assemble, build_model, ready

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = build_model(cell.config, cell.training, cell.pooling)
        model = ready(apply_method(model, cell.training), cell.training)
        torch.cuda.empty_cache()  # of what building took
        torch.cuda.reset_peak_memory_stats()
        scenario = assemble(model, cell.training)
        scenario.step()
        scenario.step()
        scenario.evaluate()
    torch.cuda.synchronize()
    stats = torch.cuda.memory_stats()
    names = {"live": "requested", "allocated": "allocated", "reserved": "reserved"}
    return {kind: int(stats[f"{names[kind]}_bytes.all.peak"]) for kind in KINDS}


def off(result: dict[str, Any], kind: str) -> float:
    """By how much the estimate is above what was measured, as a share of it."""
    estimated, measured = result["estimated"][kind], result["measured"][kind]
    return float((estimated - measured) / measured)


def said(result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"{result['cell']:60} failed: {result['failed']}"
    parts = [
        f"{kind} {result['measured'][kind] / 2**20:9.1f} MiB {off(result, kind):+7.2%}"
        for kind in KINDS
    ]
    return f"{result['cell']:60} " + "  ".join(parts)


def summary(results: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each kind of bytes: how far off the estimates are."""
    done = [result for result in results if "failed" not in result]
    lines = [f"{len(done)} of {len(results)} cells measured"]
    for kind in KINDS if done else ():
        errors = [abs(off(result, kind)) for result in done]
        lines.append(f"{kind}: median {statistics.median(errors):.2%}, worst {max(errors):.2%} off")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
