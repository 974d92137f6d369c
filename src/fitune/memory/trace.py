"""The bytes of a training step, by what they are, at every place where they could be the most.

Knows scenarios, fake tensors and live storages; knows nothing of depth extrapolation, budgets or
devices.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from fitune.memory.cuda_kernels import CudaKernels
from fitune.memory.fake import fake_tensors, make_fake
from fitune.memory.options import Training
from fitune.memory.scenario import Scenario, apply_method, assemble, ready
from fitune.memory.stacks import Selection
from fitune.memory.storages import (
    BACKWARD,
    CLIP,
    FORWARD,
    UPDATE,
    Allocation,
    LiveStorages,
    moments,
)
from fitune.models.adapter import is_of_adapter
from fitune.quantization.weights import count_parameters
from fitune.training.kernels.adapted import DOWNS, UPS
from fitune.training.methods import trainable_parameters
from fitune.training.stand_in import assume_device

EVALUATION = "evaluation"

WEIGHTS, ADAPTERS, GRADIENTS, STATES = "weights", "adapters", "gradients", "optimizer states"
AVERAGE = "averaged weights"
LOGITS, BATCH, TEMPORARY, RECOMPUTED = (
    "logits and loss",
    "batch",
    "temporaries",
    "recomputed activations",
)
ACTIVATIONS = "activations"
"""Prefix of one term a module class, as in ``"activations: LlamaMLP"``."""

Place = tuple[str, int]
"""Where in the model: a module outside the stacks, or a stack and the place of a layer in a
selection, which has the same number at every depth."""


@dataclass(frozen=True)
class Peak:
    """The most bytes alive at one place in one phase.

    Attributes:
        terms: name → bytes; they sum to `bytes`.
        operation: of torch, that allocated the last of them.
        module: at work, by its qualified name in the model with all its layers.
    """

    bytes: int
    terms: dict[str, int]
    operation: str
    module: str


Label = tuple[int, str, Place]
"""Which step, which phase, which place."""


@dataclass(frozen=True)
class Trace:
    """What a step needs.

    Attributes:
        peaks: in the order of time.
        allocations: in order of birth.
        parameters, trainable: how many values.
    """

    peaks: dict[Label, Peak]
    allocations: tuple[Allocation, ...]
    parameters: int
    trainable: int

    @property
    def peak(self) -> tuple[Label, Peak]:
        return max(self.peaks.items(), key=lambda item: item[1].bytes)


def trace_training(
    model: nn.Module,
    training: Training,
    selection: Selection,
    *,
    wrap: bool,
) -> Trace:
    """Run a step and an evaluation on fake tensors; note every storage.

    Args:
        model: on the meta device; it is changed.
        selection: the layers that it has.
        wrap: apply the method first.
    """
    import torch

    if wrap:
        with torch.device("meta"):
            model = apply_method(model, training)
    places = Places(model, selection)
    with fake_tensors():
        scenario = assemble(ready(make_fake(model), training), training)
        if training.device == "cuda":
            autocast = scenario.precision.autocast is not None
            assume_device(scenario.model, scenario.optimizer, device="cuda", autocast=autocast)
        storages = watch(scenario, bool_answer=not training.padded)
        with CudaKernels() if training.device == "cuda" else contextlib.nullcontext():
            run(scenario, storages)
    # Before the modules go: their end would free everything, which no step does.
    allocations = storages.allocations
    trainable = trainable_parameters(scenario.model)
    return Trace(
        peaks=find_peaks(allocations, places),
        allocations=tuple(allocations),
        parameters=count_parameters(scenario.model),
        trainable=sum(p.numel() for p in trainable.values()),
    )


def watch(scenario: Scenario, *, bool_answer: bool = True) -> LiveStorages:
    """A tracker that knows what is there before the first step."""
    storages = LiveStorages(scenario.model, bool_answer=bool_answer)
    adapters: list[Any] = []
    weights: list[Any] = []
    for name, parameter in scenario.model.named_parameters():
        trained_beside = parameter.requires_grad and is_of_adapter(name)
        (adapters if trained_beside else weights).append(parameter)
    buffers: list[Any] = []
    for name, buffer in scenario.model.named_buffers():
        copied = name.rpartition(".")[2] in (DOWNS, UPS)
        (adapters if copied else buffers).append(buffer)
    storages.name(ADAPTERS, adapters)
    # After those: where adapters are copied beside weights, in one tensor, it is the weights'.
    storages.name(WEIGHTS, [*weights, *buffers])
    for part in scenario.parts:
        given = (part.input_ids, part.attention_mask, part.targets, part.positions, part.answers)
        storages.name(BATCH, [tensor for tensor in given if tensor is not None])
    if scenario.average is not None:
        storages.name(AVERAGE, list(scenario.average.values.values()))
    storages.watch(scenario.optimizer)
    return storages


def run(scenario: Scenario, storages: LiveStorages) -> None:
    """An update, a step and an evaluation under the tracker.

    The update comes first so that optimizer states exist in the step, as in all steps but the
    first, which needs no more than it: in its update, states and gradients are alive together, too.
    """
    with storages:
        with storages.phase(UPDATE):
            storages.name(GRADIENTS, scenario.give_gradients())
        scenario.update()
        storages.next_round()
        scenario.step()
        storages.next_round()
        with storages.phase(EVALUATION):
            scenario.evaluate()


class Places:
    """Module name → place and term, for one model.

    Args:
        model: after the method was applied: its names are those that a tracker sees.
        selection: its layers, with stacks named as before the method.
    """

    def __init__(self, model: nn.Module, selection: Selection) -> None:
        self._classes = {name: type(module).__name__ for name, module in model.named_modules()}
        before = _names_before(model)
        self._stacks = {
            stack: before[stack] for stack in {layer.stack for layer in selection.layers}
        }
        self._layers: dict[str, Place] = {}
        self._of_all: dict[str, str] = {}
        numbers: dict[str, int] = defaultdict(int)
        for layer, place in zip(selection.layers, selection.places, strict=True):
            stack = self._stacks[layer.stack]
            here = f"{stack}.{numbers[stack]}"
            self._layers[here] = (layer.stack, place)
            self._of_all[here] = f"{stack}.{layer.index}"
            numbers[stack] += 1
        head = _head_of(model)
        self._head = next((n for n, m in model.named_modules() if m is head), None)

    def place(self, module: str) -> Place:
        layer = self._layer(module)
        return self._layers[layer] if layer else (module, -1)

    def name_of_all(self, module: str) -> str:
        """As the module is called in the model with all its layers."""
        layer = self._layer(module)
        return self._of_all[layer] + module[len(layer) :] if layer else module

    def term(self, module: str) -> str | None:
        """Of what a forward pass leaves behind in a module; None for the output head."""
        if self._head is not None and (module + ".").startswith(self._head + "."):
            return None
        layer = self._layer(module)
        inner = module
        if layer:
            child = module[len(layer) + 1 :].partition(".")[0]
            inner = f"{layer}.{child}" if child else layer
        return f"{ACTIVATIONS}: {self._classes.get(inner, 'other')}"

    def _layer(self, module: str) -> str | None:
        for stack in self._stacks.values():
            if module.startswith(f"{stack}."):
                return f"{stack}.{module[len(stack) + 1 :].partition('.')[0]}"
        return None


def _names_before(model: nn.Module) -> dict[str, str]:
    """Module name before PEFT wrapped the model → name now."""
    names = {id(module): name for name, module in model.named_modules()}
    wrapper: Any = next((m for m in model.modules() if hasattr(m, "peft_config")), None)
    if wrapper is None:
        return {name: name for name in names.values()}
    place, inner = names[id(wrapper)], names[id(wrapper.get_base_model())]
    return {
        f"{place}.{name.removeprefix(f'{inner}.')}".lstrip("."): name
        for name in names.values()
        if name.startswith(f"{inner}.")
    }


def _head_of(model: Any) -> Any:
    inner = getattr(model, "model", model) if hasattr(model, "head_parameters") else model
    asked = getattr(inner, "get_output_embeddings", None)
    return asked() if asked is not None else None


def find_peaks(
    allocations: Sequence[Allocation], places: Places, naming: Naming | None = None
) -> dict[Label, Peak]:
    """The highest moment of each (step, phase, place), with its terms.

    Args:
        naming: what a storage is; None: `name_term`.
    """
    naming = naming or name_term
    alive = moments(list(allocations))
    best: dict[Label, Allocation] = {}
    for allocation in allocations:
        if allocation.operation == "given":
            continue
        label = (allocation.round, allocation.phase, places.place(allocation.module))
        known = best.get(label)
        if known is None or alive[allocation.start - 1] > alive[known.start - 1]:
            best[label] = allocation
    phases = [allocation.phase for allocation in allocations]
    terms = [naming(allocation, phases, places) for allocation in allocations]
    names = sorted(set(terms))
    numbers = np.array([names.index(term) for term in terms])
    starts = np.array([allocation.start for allocation in allocations])
    last = starts[-1]
    ends = np.array([last if a.end is None else a.end for a in allocations])
    sizes = np.array([allocation.bytes for allocation in allocations], dtype=np.float64)
    peaks = {}
    for label, allocation in sorted(best.items(), key=lambda item: item[1].start):
        there = (starts <= allocation.start) & (allocation.start <= ends)
        amounts = np.bincount(numbers[there], sizes[there], minlength=len(names))
        peaks[label] = Peak(
            bytes=alive[allocation.start - 1],
            terms={n: int(a) for n, a in zip(names, amounts, strict=True) if a},
            operation=allocation.operation,
            module=places.name_of_all(allocation.module),
        )
    return peaks


_PRODUCT = "aten.mm.default"

Naming = Callable[[Allocation, Sequence[str], Places], str]


def name_term(allocation: Allocation, phases: Sequence[str], places: Places) -> str:
    """What a storage is, from where it was born and how long it lives.

    Args:
        phases: of each birth, in order.
    """
    if allocation.term is not None:
        return allocation.term
    phase = allocation.phase
    # What was last born before it died: a storage that died in the update's course, say, may have
    # done so before anything was born there.
    last = phases[allocation.end - 1] if allocation.end is not None else None
    in_head = not allocation.module or places.term(allocation.module) is None
    if phase == UPDATE:
        return STATES if last is None else TEMPORARY
    if phase == BACKWARD:
        # What a head makes in its weight's shape is cast, or added to the gradient of embeddings
        # that share the weight.
        if last != BACKWARD or allocation.summed or (in_head and allocation.like_parameter):
            return GRADIENTS
        return LOGITS if in_head else RECOMPUTED if allocation.recomputed else TEMPORARY
    if phase == CLIP:
        return TEMPORARY
    if in_head:
        # A head whose loss is computed with it makes its weight's gradient in the same pass.
        made_with_loss = allocation.like_parameter and allocation.operation == _PRODUCT
        kept = last == UPDATE or (made_with_loss and last in (BACKWARD, CLIP))
        return GRADIENTS if phase == FORWARD and kept else LOGITS
    if phase == FORWARD and last != FORWARD:
        return places.term(allocation.module) or LOGITS
    return TEMPORARY
