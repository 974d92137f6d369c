"""Fake tensors: shapes and sizes without memory.

Knows torch's fake tensors and what transformers asks of them; knows nothing of methods or
estimates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fitune.collector import uncollected
from fitune.memory import recipes
from fitune.memory.direct import DIRECT, direct_recipe


class Observer(Protocol):
    """Who is told of every operation on fake tensors."""

    bool_answer: bool

    def before(self) -> None:
        """An operation is about to run."""

    def after(self, func: Any, result: Any, args: tuple[Any, ...] = ()) -> None:
        """`func` returned `result` for `args`."""


class FakeTensors(FakeTensorMode):
    """torch's mode of fake tensors, with an ear for an observer and an answer to every question.

    A question about a tensor's values has no true answer. A number is 1 (Adafactor asks for a norm:
    any value will do). A truth value is the observer's `bool_answer`: models ask whether a mask is
    all ones. Positions of what is not zero: everywhere, the most that there can be.

    The observer is told from inside this mode and not by a mode above it, since torch asks tensors
    for their device through every mode: half of a trace's time.
    """

    observer: Observer | None = None

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._inside = False  # an operation made of others; a real kernel makes none of theirs

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled, and torch's guard against that takes longer than an answer."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked as often as everything else together
        if self._inside or func.namespace == "prim":
            return super().__torch_dispatch__(func, types, args, kwargs)
        observer = self.observer
        self._inside = True
        try:
            if observer is not None:
                observer.before()
            if func in _UNANSWERABLE:
                # Kernels try a layer before anybody observes: then each mask is one of ones.
                answer = True if observer is None else observer.bool_answer
                with self:
                    result = _answer(func, args, kwargs or {}, answer)
            else:
                result = self._made(func, types, args, kwargs or {})
            if observer is not None:
                observer.after(func, result, args)
            return result
        finally:
            self._inside = False

    def _made(self, func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The result of an operation, by a recipe where one is known."""
        if func is _SLICE and not kwargs and recipes.is_plain(args[0]):
            return recipes.sliced(self, *args)
        key = recipes.key_of(func, args, kwargs)
        recipe = recipes.look_up(key) if key is not None else None
        if recipe is None and key is not None and func in DIRECT and not recipes.is_known(key):
            recipe = direct_recipe(func, args, kwargs)
            if recipe is not None:
                recipes.write_down(key, recipe)
        if recipe is not None:
            return recipe.cook(self, args, kwargs)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if key is not None and not recipes.is_known(key):
            recipes.remember(key, func, args, kwargs, result)
        return result


_DEVICE = torch.ops.prim.device.default
_SLICE = torch.ops.aten.slice.Tensor
_SCALAR = torch.ops.aten._local_scalar_dense.default
_NONZERO = torch.ops.aten.nonzero.default
_GROUPED = torch.ops.aten._grouped_mm.default
_UNANSWERABLE = {_SCALAR, _NONZERO, _GROUPED}


def _answer(func: Any, args: Any, kwargs: Any, bool_answer: bool) -> Any:
    tensor = args[0]
    if func is _GROUPED:  # products by experts, on fake tensors for bfloat16 only
        left, right, *rest = args
        return func(left.bfloat16(), right.bfloat16(), *rest, **kwargs).to(left.dtype)
    if func is _NONZERO:
        return torch.empty((tensor.numel(), tensor.ndim), dtype=torch.int64)
    if tensor.dtype is torch.bool:
        return bool_answer
    return 1.0 if tensor.dtype.is_floating_point else 1


def current_fake_mode() -> FakeTensors | None:
    """The mode that an enclosing `fake_tensors` block entered."""
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    return mode if isinstance(mode, FakeTensors) else None


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Inside the block, every new tensor is fake, on the CPU.

    On the meta device attention would take a path that holds all scores; fake CPU tensors take the
    one that a CPU takes. transformers builds masks differently where it believes to be traced into
    a graph, which fake tensors make it believe: inside the block it does as in a real run.
    """
    import transformers.masking_utils as masks

    asked = masks.is_tracing
    with (
        uncollected(),
        FakeTensors(),
        mock.patch.object(masks, "is_tracing", lambda tensor=None: asked(None)),
    ):
        yield


def make_fake(model: nn.Module) -> nn.Module:
    """Put fake tensors in the place of a model's meta tensors; for inside `fake_tensors`.

    Shared parameters stay shared.
    """
    made: dict[int, Any] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu"
            )
            made[id(tensor)] = (
                nn.Parameter(empty, requires_grad=tensor.requires_grad)
                if isinstance(tensor, nn.Parameter)
                else empty
            )
        return made[id(tensor)]

    for module in model.modules():
        held: Any
        for held in (module._parameters, module._buffers, vars(module)):
            for name, value in list(held.items()):
                if isinstance(value, torch.Tensor) and value.device.type == "meta":
                    held[name] = fake(value)
    return model
