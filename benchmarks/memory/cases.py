"""Random ways of training and budgets, and what becomes of the planned micro-batch under them.

Knows cells, plans and measurements; how results are shown is in `benchmarks/fit.py`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory.cells import Cell, parse

from fitune.memory.headroom import live_bytes
from fitune.memory.micro_batch import largest_batch

HERE = Path(__file__).parent
ENCODERS = ("minilm-l6", "minilm-l12", "distilbert", "bert-base", "electra-small")
WRITERS = (
    *("smollm2-135m", "gpt2", "olmo-small", "falcon-small", "mixtral-small", "gemma2-small"),
    "t5-small",
)
METHODS = ("full", "full checkpointing", "freeze=2", "lora", "lora checkpointing", "qlora")
OPTIMIZERS = ("adamw", "sgd", "momentum", "adafactor")
LENGTHS = (32, 64, 128, 256, 512)
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A way of training without its number of rows, and a budget.

    Attributes:
        line: of a cell, with ``{}`` for the rows.
        budget: bytes.
    """

    line: str
    budget: int

    def cell(self, rows: int) -> Cell:
        return parse(self.line.format(rows))


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        rows: planned; 0 where not even one row fits.
        predicted: bytes of tensors with so many rows, or with one where none fits.
        room: bytes of tensors that the plan allows.
        ended: whether the real steps ended under the limit; None where none was planned.
        held: the most that the process took of the budget.
        more_ended: whether one row more would have ended, too.
        refused_held: bytes of tensors measured with the first number of rows that the plan refuses;
            0 where it refuses none that may be asked for.
    """

    case: Case
    rows: int
    predicted: int
    room: int
    ended: bool | None
    held: int | None
    more_ended: bool
    refused_held: int

    @property
    def used(self) -> float | None:
        """The share of the budget that was taken."""
        return self.held / self.case.budget if self.held is not None else None


def cases(count: int, seed: int) -> Iterator[Case]:
    """The same for the same seed. Budgets from 300 MiB to 6 GiB, alike in ratio."""
    draw = random.Random(seed)
    for _ in range(count):
        model = draw.choice((*ENCODERS, *WRITERS))
        # Most who write have their output layer in common with their embedding: no head to train.
        methods = (*METHODS, "head") if model in ENCODERS else METHODS
        method, _, further = draw.choice(methods).partition(" ")
        dtype = "bf16" if method == "qlora" else draw.choice(("fp32", "bf16"))
        words = [model, method, draw.choice(OPTIMIZERS), dtype]
        words += [f"{{}}×{draw.choice(LENGTHS)}", further]
        words += [draw.choice(("", "padded"))]
        yield Case(" ".join(filter(None, words)), int(300 * MIB * 20 ** draw.random()))


def outcome(case: Case, most: int) -> Outcome:
    """Plan, then run what was planned and one row more, each in a process of its own.

    Args:
        most: rows beyond which nobody asks.
    """
    one = case.cell(1)
    room = live_bytes(case.budget, "cpu", dtype=one.training.options.dtype)
    found = largest_batch(one.config, one.training, room, pooling=one.pooling, most=most)
    planned = ran(case, found.rows) if found.rows else {"ended": None}
    more = ran(case, found.rows + 1) if found.rows < most else {"ended": False}
    refused = measured(case, found.rows + 1) if found.rows < most else 0
    return Outcome(
        case=case,
        rows=found.rows,
        predicted=found.peak_bytes,
        room=room,
        ended=planned["ended"],
        held=planned.get("held"),
        more_ended=more["ended"],
        refused_held=refused,
    )


def ran(case: Case, rows: int) -> dict[str, Any]:
    """What `limited.py` says; whatever else ends its process has not ended well, either."""
    done = _module("limited", case.line.format(rows), str(case.budget))
    if done.returncode:
        return {"ended": False, "why": " ".join(done.stderr.split())[-200:]}
    return json.loads(done.stdout.splitlines()[-1])


def measured(case: Case, rows: int) -> int:
    """Bytes of tensors at the peak, without a limit."""
    done = _module("measure", case.line.format(rows))
    done.check_returncode()
    return int(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])


def _module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.memory.{name}", *arguments],
        cwd=HERE.parents[1],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
