"""What `estimate` returns: bytes, plans and models that fit, printable as JSON.

Knows figures; knows nothing of how they came about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fitune.memory.estimate import Estimate
from fitune.memory.explain import Explanation
from fitune.memory.familiar import FamiliarRow
from fitune.memory.plan import Cell
from fitune.memory.process import CudaProcess
from fitune.memory.roofline import Roofline
from fitune.memory.trial import Trial
from fitune.memory.truth import TrueRow
from fitune.training.precision import LOW_RANK


@dataclass(frozen=True)
class Budget:
    """How much memory there is.

    Attributes:
        bytes: on each device.
        of: whose memory that is, in words.
        given: whether the user said so; else it is what this machine has free.
    """

    bytes: int
    of: str
    given: bool


@dataclass(frozen=True)
class Plan:
    """Ways of training × tokens a row, and the one to use.

    Attributes:
        cells: each with the rows of the largest micro-batch that fits, 0 where none does.
        recommended: the cell that the estimate beside it is of.
        tensor_bytes: of the budget, what is left for tensors.
    """

    cells: tuple[Cell, ...]
    recommended: Cell
    tensor_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "tensor_bytes": self.tensor_bytes,
            "cells": [_cell(cell) for cell in self.cells],
            "recommended": _cell(self.recommended),
        }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "method": cell.way.method,
        "checkpointing": cell.way.checkpointing,
        "seq": cell.seq,
        "rows": cell.rows,
        "peak_bytes": cell.peak_bytes,
    }


@dataclass(frozen=True)
class EstimateResult:
    """What a model needs; docs/estimate.md says what each key of the JSON means.

    Attributes:
        model: as the user wrote it.
        origin: where its config is from, in words.
        estimate: bytes of tensors, on each device.
        training, inference: every option with its value; one of them is None.
        budget: the memory it is held against.
        needed_bytes: what is held against the budget: of a CUDA process everything, else tensors.
        host_bytes: term → bytes on the host, for each device, where work is offloaded there.
        cuda: live, allocated and reserved bytes; None for other devices.
        times: by roofline; empty where the device is not in the catalogue.
        plan: None where the options leave nothing to choose.
        dtypes, true_dtypes, explanation: where asked for.
        measured: of the real step on this machine, where asked for.
        plot: the picture that was written.
        seconds: that the answer took, imports not counted.
    """

    model: str
    origin: str
    estimate: Estimate
    training: dict[str, Any] | None
    inference: dict[str, Any] | None
    budget: Budget
    needed_bytes: int
    host_bytes: dict[str, int]
    cuda: CudaProcess | None
    times: tuple[Roofline, ...]
    plan: Plan | None
    dtypes: tuple[FamiliarRow, ...]
    true_dtypes: tuple[TrueRow, ...]
    explanation: Explanation | None
    measured: Trial | None
    notes: tuple[str, ...]
    plot: Path | None
    seconds: float

    @property
    def peak_bytes(self) -> int:
        """The most bytes of tensors at any moment."""
        return self.estimate.peak_bytes

    @property
    def terms(self) -> dict[str, int]:
        """Name → bytes at the peak; they sum to `peak_bytes`."""
        return self.estimate.terms

    @property
    def fits(self) -> bool:
        """Whether the budget is enough."""
        return self.needed_bytes <= self.budget.bytes

    @property
    def in_words(self) -> str:
        """How the model is used, on one line."""
        return _answering(self.inference) if self.inference else _training(self.training or {})

    def to_json(self) -> dict[str, Any]:
        estimate = self.estimate
        record = {
            "model": self.model,
            "origin": self.origin,
            "parameters": estimate.parameters,
            "trainable_parameters": estimate.trainable,
            "peak_bytes": estimate.peak_bytes,
            "terms": estimate.terms,
            "peak_at": asdict(estimate.peak_at),
            "phases": estimate.phases,
            "timeline": [asdict(moment) for moment in estimate.timeline],
            "training": self.training,
            "inference": self.inference,
            "budget": asdict(self.budget),
            "needed_bytes": self.needed_bytes,
            "fits": self.fits,
            "host_bytes": self.host_bytes,
            "cuda": None,
            "times": [{**asdict(time), "label": time.label} for time in self.times],
            "plan": self.plan.to_json() if self.plan else None,
            "dtypes": [asdict(row) for row in self.dtypes],
            "true_dtypes": [asdict(row) for row in self.true_dtypes],
            "explanation": None,
            "measured_peak_bytes": self.measured.peak_bytes if self.measured else None,
            "measured_terms": self.measured.terms if self.measured else None,
            "notes": list(self.notes),
            "plot": str(self.plot) if self.plot else None,
            "seconds": self.seconds,
        }
        if self.cuda is not None:
            record["cuda"] = {
                **asdict(self.cuda),
                "total": self.cuda.total,
                "uncertainty": self.cuda.uncertainty,
            }
        if self.explanation is not None:
            formulas = [
                {"formula": f.formula, "source": f.source, "terms": dict(f.terms), "total": f.total}
                for f in self.explanation.formulas
            ]
            record["explanation"] = {**asdict(self.explanation), "formulas": formulas}
        return record


def _answering(how: dict[str, Any]) -> str:
    cached = f", keys and values in {how['kv_dtype']}" if how["kv_dtype"] else ""
    if how["context"] is None:  # only shapes are known
        return f"answering, {how['dtype']}"
    requests = f"{how['requests']:,} request{'s' if how['requests'] > 1 else ''}"
    return f"answering {requests} of {how['context']:,} tokens, {how['dtype']}{cached}"


def _training(how: dict[str, Any]) -> str:
    parts = [f"{how['method']}", how["optimizer"], how["dtype"]]
    if how["method"] in LOW_RANK:
        parts[0] += f" of rank {how['rank']}"
    if how["objective"] in ("dpo", "masked"):
        parts[0] += f" by {how['objective']}"
    if how["freeze_layers"]:
        parts[0] += f" of {how['freeze_layers']} layers"
    if how["seq"] is None:  # only shapes are known
        return ", ".join(parts)
    row = "pair" if how["objective"] == "dpo" else "row"
    rows = f"{how['batch']:,} {row}{'s' if how['batch'] > 1 else ''}"
    shared = f", {how['shared_prefix']:,} of them shared" if how["shared_prefix"] else ""
    parts.append(f"{rows} of {how['seq']:,} tokens{shared}")
    if how["micro_batches"] > 1:
        parts.append(f"{how['micro_batches']:,} micro-batches a step")
    every = how["checkpointing"]
    if every:
        parts.append("checkpointing" if every is True else f"checkpointing of 1 layer in {every}")
    parts += ["padded"] if how["padded"] else []
    if how["method"] in ("prompt-tuning", "prefix-tuning"):
        parts.append(f"{how['virtual_tokens']} virtual tokens")
    if how["lora_init"] != "zero":
        parts.append(f"{how['lora_init']} start")
    parts += [f"{name} {how[name]:g}" for name in ("ema", "neftune") if how[name] is not None]
    if how["shard"]:
        parts.append(f"each of {how['devices']:,} devices, {how['shard']}")
    return ", ".join([*parts, *(["offloaded"] if how["offload"] else [])])


@dataclass(frozen=True)
class FittingModel:
    """A model of the catalogue whose step fits."""

    model: str
    parameters: int
    peak_bytes: int
    licence: str | None


@dataclass(frozen=True)
class FittingModels:
    """Which models of the catalogue fit, largest first.

    Attributes:
        training: every option with its value.
        tensor_bytes: of the budget, what is left for tensors.
    """

    models: tuple[FittingModel, ...]
    training: dict[str, Any]
    budget: Budget
    tensor_bytes: int
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
