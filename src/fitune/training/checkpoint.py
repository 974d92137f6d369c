"""The state of training on disk: safetensors and JSON, written atomically.

The one owner of state. Knows tensors by name; knows nothing of the loop's decisions. A checkpoint
appears under its name by one rename after everything in it reached the disk, so that kill -9 at any
moment leaves the one before or the new one, whole.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fitune.errors import RunError
from fitune.runs import read_json, replaced_folder, write_json

AVERAGE = "average.safetensors"
BEST = "best"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """Where training stands.

    Attributes:
        step: optimizer steps done.
        parameters: what trains, by name.
        optimizer: the optimizer's tensors, ``"<parameter index>.<state name>"``.
        numbers: its plain numbers (some count their steps so), by the same names.
        state: whatever else the loop needs, as JSON.
        average: the averaged weights by name; empty where none are kept.
    """

    step: int
    parameters: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    numbers: dict[str, int | float]
    state: dict[str, Any]
    average: dict[str, torch.Tensor] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    average: dict[str, torch.Tensor] | None = None,
    best: int | None = None,
) -> None:
    """Write ``folder/step-<step>`` and remove older ones.

    Args:
        best: the step of the best weights so far (`save_best`); those of others are removed.

    Raises:
        ResourceError: disk full, no permission; the older checkpoint is then still there.
    """
    target = folder / _name(step)
    with replaced_folder(target) as partial:
        save_file(_contiguous(parameters), partial / "parameters.safetensors")
        save_file(_contiguous(_optimizer_tensors(optimizer)), partial / "optimizer.safetensors")
        if average:
            save_file(_contiguous(average), partial / AVERAGE)
        write_json(partial / "numbers.json", _optimizer_numbers(optimizer))
        write_json(partial / "state.json", {**state, "step": step})
    _remove_others(target)
    if best is not None:
        _remove_others(folder / BEST / _name(best))


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _remove_others(kept: Path) -> None:
    """Remove the steps beside this one, and what a killed process left unfinished."""
    beside = kept.parent.iterdir() if kept.parent.is_dir() else ()
    for path in beside:
        if path != kept and (_NAME.fullmatch(path.name) or path.name.endswith(".partial")):
            shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in `folder`, None where there is none.

    Raises:
        RunError: it is damaged.
    """
    steps = sorted(p for p in folder.glob("step-*") if _NAME.fullmatch(p.name))
    if not steps:
        return None
    path = steps[-1]
    try:
        state = read_json(path / "state.json")
        return Checkpoint(
            step=int(state["step"]),
            parameters=load_file(path / "parameters.safetensors"),
            optimizer=load_file(path / "optimizer.safetensors"),
            numbers=read_json(path / "numbers.json"),
            state=state,
            average=load_file(path / AVERAGE) if (path / AVERAGE).is_file() else {},
        )
    except (SafetensorError, OSError, KeyError) as error:
        raise RunError(
            f"the checkpoint '{path}' is damaged ({error})",
            fix="delete it; training then starts this rung again",
        ) from error


def restore(
    checkpoint: Checkpoint,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put a checkpoint's tensors back, bit for bit."""
    copy_into(checkpoint.parameters, parameters)
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    _make_states(optimizer, {int(key.partition(".")[0]) for key in checkpoint.optimizer})
    for key, value in {**checkpoint.optimizer, **checkpoint.numbers}.items():
        index, _, name = key.partition(".")
        parameter = ordered[int(index)]
        state = optimizer.state[parameter]
        if name in state and isinstance(value, torch.Tensor):
            state[name].copy_(value)
        elif isinstance(value, torch.Tensor):
            # AdamW counts its steps in a tensor that stays where the fused kernel expects it.
            state[name] = value.to(parameter.device)
        else:
            state[name] = value


def _make_states(optimizer: torch.optim.Optimizer, indices: set[int]) -> None:
    """Let bitsandbytes' optimizers, which have a method for it, make the states of the parameters
    with these indices: only they can make paged memory, and share one code book among all."""
    make = getattr(optimizer, "init_state", None)
    if make is None:
        return
    index = 0
    for g, group in enumerate(optimizer.param_groups):
        for i, parameter in enumerate(group["params"]):
            if index in indices:
                make(group, parameter, g, i)
            index += 1


def save_best(folder: Path, step: int, parameters: Mapping[str, torch.Tensor]) -> None:
    """Keep the weights of this step as the best so far.

    Those that were the best before stay until the next checkpoint: a process that is killed before
    it goes on from the last one, and with another cut of its batches may find another step best.

    Raises:
        ResourceError: disk full, no permission.
    """
    save_parameters(folder / BEST / _name(step), parameters)


def load_best(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """What `save_best` kept of this step.

    Raises:
        RunError: missing or damaged.
    """
    return load_parameters(folder / BEST / _name(step))


def save_parameters(path: Path, parameters: Mapping[str, torch.Tensor]) -> None:
    """Write what trains into one safetensors file, by way of one rename.

    Raises:
        ResourceError: disk full, no permission.
    """
    with replaced_folder(path) as partial:
        save_file(_contiguous(parameters), partial / "parameters.safetensors")


def load_parameters(path: Path) -> dict[str, torch.Tensor]:
    """What `save_parameters` wrote.

    Raises:
        RunError: missing or damaged.
    """
    try:
        return load_file(path / "parameters.safetensors")
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"the weights '{path}' cannot be read ({error})", fix="train this rung again"
        ) from error


def copy_into(tensors: dict[str, torch.Tensor], parameters: dict[str, nn.Parameter]) -> None:
    """Overwrite parameters by tensors of the same names.

    Raises:
        RunError: the names differ, so they belong to another model or method.
    """
    if tensors.keys() != parameters.keys():
        odd = sorted(tensors.keys() ^ parameters.keys())
        raise RunError(
            f"the saved weights belong to another model or method ({len(odd)} parameters differ, "
            f"e.g. {odd[0]})",
            fix="start a new run",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Each tensor once: bitsandbytes' optimizers share a code book among all parameters."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for key, value in _optimizer_states(optimizer):
        if isinstance(value, torch.Tensor):
            found.setdefault(id(value), (key, value))
    return dict(found.values())


def _optimizer_numbers(optimizer: torch.optim.Optimizer) -> dict[str, int | float]:
    states = _optimizer_states(optimizer)
    return {key: value for key, value in states if isinstance(value, int | float)}


def _optimizer_states(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Any]]:
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(ordered):
        for name, value in optimizer.state.get(parameter, {}).items():
            yield f"{index}.{name}", value


def _contiguous(tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
