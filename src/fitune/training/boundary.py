"""Where the part of a classifier ends that never changes while it trains.

Knows classifiers, stacks of layers and how to enter one in the middle; knows nothing of rows or of
what is kept. No family is known by name: one forward pass is watched. Only the `forward` of single
modules (and a classifier's `embed`) is replaced, and it is given back at the end of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from fitune.errors import ConfigError
from fitune.models.classifier import Classifier, PooledClassifier
from fitune.training.methods import layers_of


class Boundary(Protocol):
    """Where frozen values are handed on to what trains.

    Attributes:
        per_token: whether a row has one vector for each of its tokens there; else it has one.
    """

    per_token: bool

    def reached(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask ``[rows, tokens]`` → what the frozen part makes of them, in the dtype
        it is computed in: ``[rows, tokens, hidden]``, or ``[rows, 1, hidden]`` of one vector."""

    def starting_at(self, values: torch.Tensor) -> AbstractContextManager[None]:
        """Inside the block, the model computes nothing below: it goes on from `values`, which are
        as `reached` gives them."""


class AtPooling:
    """The whole trunk is frozen: a row is one pooled vector."""

    per_token = False

    def __init__(self, model: PooledClassifier) -> None:
        self._model = model

    def reached(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self._model.embed(input_ids, attention_mask)[:, None]

    def starting_at(self, values: torch.Tensor) -> AbstractContextManager[None]:
        return replaced(self._model, "embed", lambda input_ids, attention_mask: values[:, 0])


class AtLayer:
    """The lowest layers of a stack are frozen.

    The model itself still makes masks, positions and all else that layers are given, so each family
    is entered as it is written.

    Args:
        frozen, others: the layers of the stack, those below and those above the boundary.
        before: a module outside the stack that makes what the first layer is given, if any: it need
            not be computed either.
        rest: layer → what it returns besides hidden states: ``None`` each, or nothing at all
            (None) where it returns the tensor itself.
    """

    per_token = True

    def __init__(
        self,
        model: Classifier,
        frozen: Sequence[nn.Module],
        others: Sequence[nn.Module],
        before: nn.Module | None,
        rest: dict[nn.Module, tuple[None, ...] | None],
    ) -> None:
        self._model, self._frozen, self._others = model, frozen, others
        self._before, self._rest = before, rest

    def reached(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        last: list[torch.Tensor] = []
        handle = self._frozen[-1].register_forward_hook(
            # A layer that several places share is called again: the last call counts.
            lambda module, given, output: last.__setitem__(slice(None), [_hidden(output)])
        )
        try:
            with self._passing(self._others, lambda: last[0]):
                self._model(input_ids, attention_mask)
        finally:
            handle.remove()
        return last[0]

    @contextmanager
    def starting_at(self, values: torch.Tensor) -> Iterator[None]:
        with ExitStack() as stack:
            if self._before is not None:
                stack.enter_context(replaced(self._before, "forward", lambda *a, **k: values))
            stack.enter_context(self._passing(self._frozen, lambda: values))
            yield

    @contextmanager
    def _passing(
        self, layers: Iterable[nn.Module], values: Callable[[], torch.Tensor]
    ) -> Iterator[None]:
        """Inside the block, each layer only returns `values`, in the shape it always does."""

        def forward(rest: tuple[None, ...] | None) -> Callable[..., Any]:
            return lambda *a, **k: values() if rest is None else (values(), *rest)

        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(replaced(layer, "forward", forward(self._rest[layer])))
            yield


def find_boundary(
    model: Classifier, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> Boundary | None:
    """The highest place that no parameter which trains has a say in; None where there is none, or
    none that this module could enter the model at.

    Args:
        model: in evaluation mode, with the method applied.
        input_ids, attention_mask: ``[rows, tokens]``, of any rows: what happens to them is watched.
    """
    if isinstance(model, PooledClassifier) and not _trains(model.trunk):
        return AtPooling(model)
    try:
        layers = list(layers_of(model))
    except ConfigError:
        return None
    first = next((i for i, layer in enumerate(layers) if _trains(layer)), len(layers))
    if first == 0:
        return None
    seen = _Seen(layers)
    handles = seen.watch(model)
    try:
        with torch.enable_grad():
            model(input_ids, attention_mask)
    finally:
        for handle in handles:
            handle.remove()
    if any(layer not in seen.outputs for layer in layers):
        return None
    hidden = _hidden(seen.outputs[layers[first - 1]])
    rest = {layer: _rest(output) for layer, output in seen.outputs.items()}
    # What trains below the boundary need not be a layer (DeBERTa's convolution is beside them):
    # autograd knows whether it had a say.
    if hidden is None or hidden.requires_grad or hidden.shape[:2] != input_ids.shape:
        return None
    if any(each is not None and any(value is not None for value in each) for each in rest.values()):
        return None
    before = next((m for m, made in reversed(seen.before) if made.shape == hidden.shape), None)
    return AtLayer(model, layers[:first], layers[first:], before, rest)


class _Seen:
    """What one forward pass showed.

    Attributes:
        outputs: layer → what it returned the last time.
        before: modules outside the stack whose output, beside them, is what the first layer was
            given, from the innermost to the outermost.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = layers
        self.outputs: dict[nn.Module, Any] = {}
        self.before: list[tuple[nn.Module, torch.Tensor]] = []
        self._made: list[tuple[nn.Module, torch.Tensor]] = []

    def watch(self, model: nn.Module) -> list[Any]:
        inside = {module for layer in self.layers for module in layer.modules()}
        handles = [layer.register_forward_hook(self._returned) for layer in self.layers]
        handles += [
            module.register_forward_hook(self._made_outside)
            for module in model.modules()
            if module not in inside
        ]
        first = self.layers[0]
        return [*handles, first.register_forward_pre_hook(self._entered, with_kwargs=True)]

    def _returned(self, layer: nn.Module, given: Any, output: Any) -> None:
        self.outputs[layer] = output

    def _made_outside(self, module: nn.Module, given: Any, output: Any) -> None:
        if not self.before and isinstance(output, torch.Tensor):
            self._made.append((module, output))

    def _entered(self, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        values = (*args, *kwargs.values())
        if not self.outputs:
            self.before = [(m, made) for m, made in self._made if any(made is v for v in values)]


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _hidden(output: Any) -> Any:
    """The hidden states of what a layer returned; None where there are none."""
    found = output[0] if isinstance(output, tuple) and output else output
    return found if isinstance(found, torch.Tensor) else None


def _rest(output: Any) -> tuple[Any, ...] | None:
    return output[1:] if isinstance(output, tuple) else None


@contextmanager
def replaced(owner: nn.Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, `owner` has another method `name`; one that stood in already comes back."""
    own = vars(owner)
    had, before = name in own, own.get(name)
    own[name] = function
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            del own[name]
