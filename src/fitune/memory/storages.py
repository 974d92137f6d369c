"""Every tensor storage alive, operation by operation.

Knows torch's dispatcher: what an operation returns, when a storage dies, which module or which
backward node is at work. Knows nothing of models, methods or estimates. Works on real tensors and
on fake ones (which have sizes and no memory) alike.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fitune.memory.fake import FakeTensors, current_fake_mode

FORWARD, LOSS, BACKWARD, CLIP, UPDATE = "forward", "loss", "backward", "clip", "update"


@dataclass
class Allocation:
    """One storage, from birth to death.

    Attributes:
        bytes: its size.
        start, end: moments (each birth is one) between which it lives, both included; `end` is
            None where it outlives the trace.
        phase: what the step was doing at its birth.
        round: how often the caller had said `next_round` before its birth.
        module: the qualified name of the innermost module at work, in the backward pass of the
            one whose backward it is; empty outside any.
        operation: of torch, e.g. ``"aten.mm.default"``.
        recomputed: born in a forward pass inside the backward pass (checkpointing).
        summed: a gradient that autograd would have added another to in place, and so kept.
        like_parameter: made with the shape of one of the model's parameters.
        term: what the caller named it; None: to be told from where it was born and died.
    """

    bytes: int
    start: int
    phase: str
    round: int
    module: str
    operation: str
    recomputed: bool = False
    summed: bool = False
    like_parameter: bool = False
    term: str | None = None
    end: int | None = None


class LiveStorages(TorchDispatchMode):
    """Notes the birth and death of every storage while active, as a context manager.

    Inside `fake.fake_tensors` it listens to the mode that makes tensors fake; elsewhere it is a
    mode of its own.

    Args:
        model: its modules give names to what happens inside them.
        bool_answer: what a fake tensor's truth value counts as (see `fake.FakeTensors`).

    Attributes:
        allocations: in order of birth.
    """

    def __init__(self, model: nn.Module, *, bool_answer: bool = True) -> None:
        super().__init__()
        self.allocations: list[Allocation] = []
        self._names = {id(module): name for name, module in model.named_modules()}
        self.bool_answer = bool_answer
        self._parameter_shapes = {parameter.shape for parameter in model.parameters()}
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._moment = 0
        self._round = 0
        self._phase: str | None = None
        self._went_back = False
        self._modules: list[str] = []
        self._backward_module = ""
        self._module_of_node: dict[int, str] = {}
        self._hooks: list[Any] = []
        self._fake: FakeTensors | None = None
        self._summed: tuple[int, int] | None = None

    def __enter__(self) -> LiveStorages:
        self._hooks += [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        self._fake = current_fake_mode()
        if self._fake is not None:
            self._fake.observer = self
        else:
            super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._fake is not None:
            self._fake.observer = None
        else:
            super().__exit__(*exception)
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def name(self, term: str, tensors: Iterable[torch.Tensor]) -> None:
        """Say what the storages of `tensors` are, known or not."""
        for tensor in tensors:
            self._see(tensor, "given")
            _, index = self._known[id(tensor.untyped_storage())]
            self.allocations[index].term = term

    def next_round(self) -> None:
        """What follows belongs to the next repetition."""
        self._round += 1
        self._went_back = False

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Inside the block, everything belongs to the phase `name`."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """What `optimizer` does belongs to the phase `update`."""

        def begin(*_: Any) -> None:
            self._phase = UPDATE

        def end(*_: Any) -> None:
            self._phase = None

        self._hooks += [
            optimizer.register_step_pre_hook(begin),
            optimizer.register_step_post_hook(end),
        ]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.before()
        result = func(*args, **(kwargs or {}))
        self.after(func, result, args)
        return result

    def before(self) -> None:
        """An operation is about to run."""
        node = torch._C._current_autograd_node()
        if node is None or self._modules:
            # The node of an operation is made before its kernel runs, so the latest is its own,
            # unless an earlier operation has claimed it.
            latest = torch.autograd._get_sequence_nr() - 1
            self._module_of_node.setdefault(latest, self._modules[-1] if self._modules else "")
        if node is not None:
            self._went_back = True
            self._backward_module = self._module_of_node.get(
                node._sequence_nr(), self._backward_module
            )

    def after(self, func: Any, result: Any, args: tuple[Any, ...] = ()) -> None:
        """`func` returned `result` for `args`."""
        if isinstance(result, torch.Tensor):
            self._see(result, func)
            self._summed = self._sum_of_gradients(func, args)
        elif isinstance(result, list | tuple):
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self._see(leaf, func)

    def _sum_of_gradients(self, func: Any, args: tuple[Any, ...]) -> tuple[int, int] | None:
        """The storage that autograd would have added a gradient to, and the moment.

        The gradients of a parameter that is used twice are summed in place where nobody else holds
        the first, but not where a tracker is listening. If it dies before anything else is born,
        nobody did; but a view (the transposed product that a linear layer's gradient is, unless it
        was cast after) is held by what it is a view of.
        """
        if func is not _ADD or torch._C._current_autograd_node() is None:
            return None
        if args[0].shape not in self._parameter_shapes or args[0]._is_view():
            return None
        known = self._known.get(id(args[0].untyped_storage()))
        return (known[1], self._moment) if known else None

    def _see(self, tensor: torch.Tensor, operation: Any) -> None:
        try:
            storage = tensor.untyped_storage()
        except NotImplementedError:  # a wrapper subclass: what it wraps is seen by itself
            return
        size = storage.nbytes()
        known = self._known.get(id(storage))
        if known is not None:
            grown = size - self.allocations[known[1]].bytes
            if grown <= 0:
                return
            self.allocations[known[1]].bytes = size  # resized in place: counts as from birth
            return
        index = len(self.allocations)
        key = id(storage)
        phase, module, recomputed = self._where()
        self._moment += 1
        self.allocations.append(
            Allocation(
                bytes=size,
                start=self._moment,
                phase=phase,
                round=self._round,
                module=module,
                operation=str(operation),
                recomputed=recomputed,
                like_parameter=tensor.shape in self._parameter_shapes,
            )
        )

        def died(_: Any) -> None:
            self._known.pop(key, None)
            in_place = self._summed == (index, self._moment)
            dead = self.allocations[index]
            dead.end = self._moment - 1 if in_place else self._moment
            dead.summed = in_place

        self._known[key] = (weakref.ref(storage, died), index)

    def _where(self) -> tuple[str, str, bool]:
        """Phase, module and whether this is a forward pass inside the backward pass."""
        going_back = torch._C._current_autograd_node() is not None
        module = self._modules[-1] if self._modules else ""
        if self._phase is not None:
            return self._phase, module, False
        if going_back:
            return BACKWARD, module or self._backward_module, bool(module)
        if self._modules:
            return FORWARD, module, False
        return (CLIP if self._went_back else LOSS), "", False

    def _enter_module(self, module: nn.Module, inputs: Any) -> None:
        if torch._C._current_autograd_node() is None and not self._modules:
            self._went_back = False
        outer = self._modules[-1] if self._modules else ""
        self._modules.append(self._names.get(id(module), outer))

    def _leave_module(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._modules:
            self._modules.pop()


_ADD = torch.ops.aten.add.Tensor


def moments(allocations: list[Allocation]) -> list[int]:
    """Bytes alive at each moment, from moment 1 on."""
    if not allocations:
        return []
    last = allocations[-1].start
    change = [0] * (last + 2)
    for allocation in allocations:
        change[allocation.start] += allocation.bytes
        if allocation.end is not None:
            change[min(allocation.end, last) + 1] -= allocation.bytes
    return list(itertools.accumulate(change[1 : last + 1]))
