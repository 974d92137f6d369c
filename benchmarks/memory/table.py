"""The grid's results as Markdown.

Knows `results.json`; knows nothing of how it was made.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.memory.cells import parse
from benchmarks.memory.peers import ACCELERATE, ACTIVATIONS, HF_MEM, STATES

FITUNE = "fitune"
WORST, MEDIAN = 0.03, 0.005
"""The promise: no cell is off by more than the one, half of them by no more than the other."""

NAMES = (FITUNE, ACCELERATE, STATES, ACTIVATIONS, HF_MEM)


def errors(result: dict[str, Any]) -> dict[str, float]:
    """Name → predicted / measured - 1; without those who say nothing."""
    measured = result["measured"]["peak_bytes"]
    said = {FITUNE: result["predicted"]["peak_bytes"], **result["peers"]}
    return {name: size / measured - 1 for name, size in said.items() if size is not None}


def write_table(results: dict[str, Any], path: Path) -> None:
    cells = [result for result in results["cells"] if "failed" not in result]
    failed = [result for result in results["cells"] if "failed" in result]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Memory: predicted and measured",
        "",
        f"Written by `./run bench memory`. {len(results['cells'])} cells (`cells.txt`, written "
        "down before the first was measured), each a process of its own: a real model with random "
        "weights, two optimizer steps and an evaluation, one thread. *Measured* is the highest "
        "number of bytes that torch's CPU allocator had given out, by its own report of each "
        "allocation and release. *Resident* is what the operating system counted in that time "
        "above the process's size after imports: it holds pages that its library keeps, scratch "
        f"space of kernels and the profiler's notes. {versions}.",
        "",
        "Peers answer other questions than this one, some of them only a part of it: accelerate "
        "knows a model and Adam but neither batches nor methods, and says nothing of four bits; "
        "hf-mem is about answering, not training (its arithmetic, run here without the Hub). What "
        "their rules leave open is read in their favour: see `peers.py`.",
        "",
        "## Relative error of the predicted peak",
        "",
        "| | cells | mean | median | worst |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in NAMES:
        found = [abs(errors(cell)[name]) for cell in cells if name in errors(cell)]
        lines.append(f"| {name} | {_statistics(found)} |")
    lines += [
        "",
        f"The promise is a worst of {WORST:.0%} and a median of {MEDIAN:.1%}.",
        "",
        "## fitune's, by what the cells are",
        "",
        "| | cells | mean | median | worst |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, found in _groups(cells).items():
        lines.append(f"| {name} | {_statistics(found)} |")
    lines += [
        "",
        "## Cell by cell",
        "",
        "MiB (2**20 bytes), and errors in percent.",
        "",
        "| cell | measured | resident | " + " | ".join(NAMES) + " |",
        "|---|--:|--:|" + "--:|" * len(NAMES),
    ]
    for cell in cells:
        off = errors(cell)
        shown = []
        for name in NAMES:
            digits = ".2%" if name == FITUNE else ".0%"
            shown.append(f"{off[name]:+{digits}}" if name in off else "–")
        measured = cell["measured"]
        sizes = [f"{measured[key] / 2**20:,.1f}" for key in ("peak_bytes", "resident_bytes")]
        lines.append(f"| {' | '.join([cell['cell'], *sizes, *shown])} |")
    if failed:
        lines += ["", "## Not measured", ""]
        lines += [f"- {result['cell']}: {result['failed']}" for result in failed]
    path.write_text("\n".join(lines) + "\n")


def _statistics(found: list[float]) -> str:
    mean, median = statistics.mean(found), statistics.median(found)
    return f"{len(found)} | {mean:.2%} | {median:.2%} | {max(found):.2%}"


def _groups(cells: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Label → fitune's errors; a cell is in several."""
    labels: list[Callable[[Any], str]] = [
        lambda training: training.options.method,
        lambda training: training.options.optimizer,
        lambda training: training.options.dtype,
        lambda training: "checkpointing" if training.options.checkpointing else "no checkpointing",
        lambda training: "padded" if training.padded else "not padded",
    ]
    groups: dict[str, list[float]] = defaultdict(list)
    for label in labels:
        there: dict[str, list[float]] = defaultdict(list)
        for cell in cells:
            training = parse(cell["cell"]).training
            there[label(training)].append(abs(errors(cell)[FITUNE]))
        groups |= there
    return groups
