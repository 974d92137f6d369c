"""A model's stacks of layers, and the same model with fewer of them.

Knows modules and which are alike; knows nothing of memory. What a step needs grows by the same
amount with each further layer of a kind, so a model of a few layers of each kind tells all about
one of many: dense and mixture-of-experts layers, full and sliding attention, frozen and trained
ones, encoder's and decoder's are kinds of their own.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

RUN = 3
"""Layers kept of a run of like ones: with fewer, its first and its last would be each other's
neighbours and share what only inner layers do."""

FIRST_RUNS, LAST_RUNS = 1, 2
"""Runs kept at the ends where kinds alternate: the peak of a step is at an end, where all
activations or all gradients are alive, or a layer or two from it. A run more costs a third more
time, and found nothing more in the families of the catalogue that alternate."""


@dataclass(frozen=True)
class Layer:
    """One layer of a stack.

    Attributes:
        stack: the module list's qualified name.
        index: in the whole stack.
        kind: equal for layers that need the same memory.
    """

    stack: str
    index: int
    kind: int


@dataclass(frozen=True)
class Selection:
    """Layers to keep.

    Attributes:
        layers: in order.
        places: of each: equal for a layer added to a selection and the like one that it doubles.
    """

    layers: tuple[Layer, ...]
    places: tuple[int, ...]

    def count(self, kind: int) -> int:
        return sum(layer.kind == kind for layer in self.layers)


def stacks_of(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Qualified name → module list, of the lists that hold a model's layers.

    Lists inside a layer (experts) are part of it; lists of modules without parameters are none.
    """
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if (
            isinstance(module, nn.ModuleList)
            and len(module) > 1
            and not inside
            and all(any(True for _ in layer.parameters()) for layer in module)
        ):
            found[name] = module
    return found


def layers_of_kinds(model: nn.Module, config: Any) -> tuple[Layer, ...]:
    """Every layer of every stack, in order."""
    kinds: dict[Hashable, int] = {}
    return tuple(
        Layer(name, index, kinds.setdefault((name, signature), len(kinds)))
        for name, stack in stacks_of(model).items()
        for index, signature in enumerate(_signatures(name, stack, config))
    )


def _signatures(name: str, stack: nn.ModuleList, config: Any) -> list[Hashable]:
    """One value a layer: equal where two layers need the same memory."""
    kinds = _layer_types(config, len(stack))
    return [
        (
            kinds[index],
            getattr(layer, "gradient_checkpointing", False),
            tuple(
                (path, type(module).__name__, getattr(module, "sliding_window", None))
                for path, module in layer.named_modules()
            ),
            tuple(
                (path, tuple(p.shape), p.dtype, p.requires_grad)
                for path, p in layer.named_parameters()
            ),
        )
        for index, layer in enumerate(stack)
    ]


def _layer_types(config: Any, layers: int) -> Sequence[Any]:
    types = getattr(config.get_text_config(), "layer_types", None)
    return types if types is not None and len(types) == layers else [None] * layers


def everything(layers: Sequence[Layer]) -> Selection:
    return Selection(tuple(layers), tuple(range(len(layers))))


def selections(layers: Sequence[Layer]) -> list[Selection]:
    """A few layers of each kind, then the same with one more of a kind, for each kind with more.

    Where that is no less work than all layers at once: all layers.
    """
    kept = [layer for _, stack in _by_stack(layers) for layer in _ends(stack)]
    base = Selection(tuple(kept), tuple(range(len(kept))))
    full = everything(layers)
    chosen = [base] + [
        _with_one_more(base, layers, kind)
        for kind in sorted({layer.kind for layer in layers})
        if base.count(kind) < full.count(kind)
    ]
    saved = sum(len(selection.layers) for selection in chosen) < len(full.layers)
    return chosen if saved else [full]


def _by_stack(layers: Sequence[Layer]) -> Any:
    return itertools.groupby(layers, key=lambda layer: layer.stack)


def _ends(stack: Any) -> list[Layer]:
    """The layers of a stack to look at: the ends of each run, of the runs at both ends and of one
    run of any kind that has none there."""
    runs = [list(run) for _, run in itertools.groupby(stack, key=lambda layer: layer.kind)]
    chosen = set(range(len(runs)))
    if len(runs) > FIRST_RUNS + LAST_RUNS:
        chosen = {*range(FIRST_RUNS), *range(len(runs) - LAST_RUNS, len(runs))}
        for number, run in enumerate(runs):
            if run[0].kind not in {runs[other][0].kind for other in chosen}:
                chosen.add(number)
    kept = []
    for number in sorted(chosen):
        run = runs[number]
        kept += run if len(run) <= RUN else [*run[: RUN - 1], run[-1]]
    return kept


def _with_one_more(base: Selection, layers: Sequence[Layer], kind: int) -> Selection:
    """`base` and a further layer of `kind`, beside the most central one of that kind.

    Right beside it, or beside the one that stands in between: what is added counts as often as
    layers are missing, and with it what lies between the two layers of one place.
    """
    like = [i for i, layer in enumerate(base.layers) if layer.kind == kind]
    beside = like[len(like) // 2]
    free = [layer for layer in layers if layer.kind == kind and layer not in base.layers]
    after = [layer for layer in free if layer.index > base.layers[beside].index]
    added = (after or free)[0]
    if after:
        beside = max(i for i in like if base.layers[i].index < added.index)
    grown = sorted(
        [*zip(base.layers, base.places, strict=True), (added, base.places[beside])],
        key=lambda pair: layers.index(pair[0]),
    )
    return Selection(tuple(layer for layer, _ in grown), tuple(place for _, place in grown))


def with_layers(model: nn.Module, selection: Selection) -> nn.Module:
    """A copy of the model with these layers only; `model` is left as it was.

    Copied are modules and parameters, so the model should be on the meta device.
    """
    stacks = stacks_of(model)
    kept = {name: [layer.index for layer in kept] for name, kept in _by_stack(selection.layers)}
    if all(len(indices) == len(stacks[name]) for name, indices in kept.items()):
        return copy.deepcopy(model)
    try:
        for name, indices in kept.items():
            _replace(model, name, nn.ModuleList(stacks[name][i] for i in indices))
        smaller = copy.deepcopy(model)
    finally:
        for name, stack in stacks.items():
            _replace(model, name, stack)
    _renumber(smaller, kept, {name: len(stack) for name, stack in stacks.items()})
    return smaller


def _replace(model: nn.Module, name: str, stack: nn.ModuleList) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, stack)


def _renumber(model: nn.Module, kept: dict[str, list[int]], before: dict[str, int]) -> None:
    """Let each layer know which it is now, and configs name the kept layers' types only."""
    for name, indices in kept.items():
        stack = model.get_submodule(name)
        for index, layer in enumerate(stack.children()):
            for module in layer.modules():
                if isinstance(getattr(module, "layer_idx", None), int):
                    module.layer_idx = index  # type: ignore[assignment]
        for config in _configs(model):
            for field, value in list(vars(config).items()):
                if isinstance(value, list | tuple) and len(value) == before[name]:
                    setattr(config, field, [value[i] for i in indices])


def _configs(model: nn.Module) -> list[Any]:
    tops: list[Any] = [module.config for module in model.modules() if hasattr(module, "config")]
    texts = [config.get_text_config() for config in tops if hasattr(config, "get_text_config")]
    return list({id(config): config for config in (*tops, *texts)}.values())
