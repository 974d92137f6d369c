"""Every cell of the grid, predicted in this process and measured in one of its own.

Knows cells, estimates, measurements and peers; how results are shown is in `table.py`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory.cells import Cell, read_cells
from benchmarks.memory.peers import peers
from benchmarks.memory.table import write_table

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
LIMIT_SECONDS = 900


def main(arguments: Sequence[str], usage: str | None) -> int:
    """Exit code 1 where a cell could not be predicted or measured."""
    parser = ArgumentParser(
        prog="./run bench memory", description=usage, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORDS")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(arguments)

    known = (
        {c["cell"]: c for c in json.loads(RESULTS.read_text())["cells"]} if RESULTS.exists() else {}
    )
    cells = read_cells()
    for number, cell in enumerate(cells, start=1):
        if options.only not in cell.name:
            continue
        before = known.get(cell.name, {})
        keep = options.keep and "measured" in before
        result = {"cell": cell.name, **predict(cell)}
        result |= {"measured": before["measured"]} if keep else measure(cell)
        known[cell.name] = result
        write_results([known[c.name] for c in cells if c.name in known])
        print(f"{number:3}/{len(cells)} {cell.name:60} {_said(result)}", flush=True)
    results = json.loads(RESULTS.read_text())
    write_table(results, HERE / "RESULTS.md")
    return int(any("failed" in result for result in results["cells"]))


def predict(cell: Cell) -> dict[str, Any]:
    """fitune's estimate and what peers say, in bytes."""
    from fitune.memory.estimate import estimate_training

    started = time.perf_counter()
    try:
        estimate = estimate_training(cell.config, cell.training, pooling=cell.pooling)
    except Exception as error:
        return {"failed": f"estimate: {type(error).__name__}: {error}"[:300]}
    seconds = time.perf_counter() - started
    parameters = _parameters(cell)
    return {
        "predicted": {
            "peak_bytes": estimate.peak_bytes,
            "peak_at": vars(estimate.peak_at),
            "terms": estimate.terms,
            "seconds": round(seconds, 2),
        },
        "trained": estimate.trainable,
        "parameters": parameters,
        "peers": peers(cell, parameters, estimate.trainable),
    }


def measure(cell: Cell) -> dict[str, Any]:
    """What `measure.py` says, run in a process of its own with one thread."""
    command = [sys.executable, "-m", "benchmarks.memory.measure", cell.name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=HERE.parents[1],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"measuring: over {LIMIT_SECONDS} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": f"measuring: {said[-1]}"[:300]}
    return {"measured": json.loads(done.stdout.splitlines()[-1])}


def write_results(cells: list[dict[str, Any]]) -> None:
    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
    }
    text = json.dumps({"versions": versions, "cells": cells}, indent=1, ensure_ascii=False)
    RESULTS.with_suffix(".tmp").write_text(text + "\n")
    RESULTS.with_suffix(".tmp").replace(RESULTS)


def _parameters(cell: Cell) -> int:
    """Before a method adds any."""
    import torch

    from fitune.memory.scenario import build_model

    with torch.device("meta"):
        model = build_model(cell.config, cell.training, cell.pooling)
    return sum(p.numel() for p in model.parameters())


def _said(result: dict[str, Any]) -> str:
    if "failed" in result:
        return result["failed"]
    measured, predicted = result["measured"]["peak_bytes"], result["predicted"]["peak_bytes"]
    return (
        f"measured {measured:13,} predicted {predicted:13,} {predicted / measured - 1:+.3%}"
        f" ({result['measured']['seconds']:.0f} s)"
    )
