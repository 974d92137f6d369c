"""What operations make of fake tensors, remembered.

Knows torch's fake tensors; knows nothing of models or bytes. A trace asks torch the same question
thousands of times: what shape comes of this operation on these shapes? torch remembers answers,
too, but compares seventeen properties of each tensor to find one; tensors that are dense, without a
known value and on the CPU differ in three: type, shape and strides. Where a tensor begins in its
storage changes where a view of it begins, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

MOST = 50_000
"""Recipes kept, of about a kilobyte; one model at one length has about a thousand."""

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor of an operation's result.

    Attributes:
        offset: of a view: how much later than the viewed tensor it begins, in values.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    offset: int = 0

    def bare(self, viewed: torch.Tensor | None) -> torch.Tensor:
        """The meta tensor that is to be fake, in the storage of `viewed` or in one of its own."""
        if viewed is None:
            return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
        bare = torch.empty(0, dtype=self.dtype, device="meta")
        begin = viewed.storage_offset() + self.offset
        return bare.set_(viewed.untyped_storage(), begin, self.shape, self.stride)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make an operation's result again.

    Attributes:
        kind: ``"new"``: tensors with a storage of their own each; ``"view"``: tensors of the first
            argument's storage; ``"itself"``: the first argument; ``"out"``: the argument of that
            name; ``"constant"``: `constant`.
        made: the tensors.
        several: what holds them where the result is no tensor alone: `tuple` or `list`.
    """

    kind: str
    made: tuple[Made, ...] = ()
    several: type | None = None
    constant: Any = None

    def cook(self, mode: FakeTensorMode, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The result for an operation's arguments."""
        if self.kind == "itself":
            return args[0]
        if self.kind == "out":
            return kwargs["out"]
        if self.kind == "constant":
            return self.constant
        viewed = args[0] if self.kind == "view" else None
        tensors = [_fake(mode, made.bare(viewed)) for made in self.made]
        return self.several(tensors) if self.several else tensors[0]


def _fake(mode: FakeTensorMode, bare: torch.Tensor) -> FakeTensor:
    """``FakeTensor(mode, bare, CPU)``, without asking anew what is always the same: torch's own
    constructor takes longer than all else that is done for an operation."""
    pattern = _PATTERNS.get(mode)
    if pattern is None:
        pattern = _PATTERNS[mode] = vars(FakeTensor(mode, torch.empty(0, device="meta"), CPU))
    made: FakeTensor = torch.Tensor._make_subclass(
        FakeTensor, bare, False, dispatch_device=True, device_for_backend_keys=CPU
    )
    torch._C._set_warn_deprecated_on_mutable_data_ptr(made)
    vars(made).update(pattern)
    return made


_PATTERNS: WeakKeyDictionary[FakeTensorMode, dict[str, Any]] = WeakKeyDictionary()
"""Mode → the attributes of a tensor that it makes."""

_BOOK: dict[Any, Recipe | None] = {}
"""Key → recipe, or None where there is none; for the whole process."""


def key_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    """Equal for calls with the same result; None where that cannot be told."""
    parts: list[Any] = [func, torch.get_default_dtype()]  # which some results have
    if func.overloadpacket is _AS_STRIDED:
        parts.append(args[0].storage_offset())  # it counts from the storage's beginning
    if not _describe(parts, args):
        return None
    for name in kwargs:
        parts.append(name)
        if not _describe(parts, (kwargs[name],)):
            return None
    return tuple(parts)


def sliced(
    mode: FakeTensorMode,
    tensor: FakeTensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> FakeTensor:
    """``aten.slice`` of a plain tensor: without a recipe, since chunks of a loss, which are many,
    each begin elsewhere."""
    shape, stride = list(tensor.shape), list(tensor.stride())
    first, last, _ = slice(start, end).indices(shape[dim])
    offset = first * stride[dim]
    shape[dim] = max(0, -((first - last) // step))  # rounded up
    stride[dim] *= step
    made = Made(tuple(shape), tuple(stride), tensor.dtype, offset)
    return _fake(mode, made.bare(tensor))


def look_up(key: Any) -> Recipe | None:
    return _BOOK.get(key)


def is_known(key: Any) -> bool:
    """Whether it was asked before, even where no recipe came of it."""
    return key in _BOOK


def write_down(key: Any, recipe: Recipe | None) -> None:
    if len(_BOOK) >= MOST:
        _BOOK.clear()
    _BOOK[key] = recipe


def remember(key: Any, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
    """What `func` made of its arguments: a recipe, or the note that there is none."""
    if kwargs.get("out") is result is not None:
        # A result of another size would have changed its argument, and with it the key.
        unchanged = key_of(func, args, kwargs) == key
        write_down(key, Recipe("out") if unchanged else None)
    else:
        write_down(key, _recipe(func, args, result))


def is_plain(tensor: Any) -> bool:
    """Whether type, shape and strides tell all that results depend on."""
    return (
        type(tensor) is FakeTensor
        and tensor.constant is None
        and tensor.fake_device == CPU
        and tensor.layout is torch.strided
        and not tensor.dtype.is_complex
    )


def _describe(parts: list[Any], values: Any) -> bool:
    for value in values:  # by exact types, since isinstance is asked a million times a trace
        kind = type(value)
        if kind is FakeTensor:
            if not is_plain(value):
                return False
            parts += (value.dtype, value.shape, value.stride())
        elif kind in _PLAIN:
            parts += (kind, value)
        elif kind in _SEVERAL or isinstance(value, list | tuple):
            parts.append(len(value))
            if not _describe(parts, value):
                return False
        else:
            return False
    return True


_PLAIN = {
    type(None),
    bool,
    int,
    float,
    str,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
}
_SEVERAL = {list, tuple}


def _recipe(func: Any, args: Sequence[Any], result: Any) -> Recipe | None:
    tags = func.tags
    if torch.Tag.inplace_view in tags or torch.Tag.data_dependent_output in tags:
        return None
    if func.overloadpacket in _RESIZING or _depends_on_values(func, args):
        return None
    if result is None or (isinstance(result, tuple) and not result) or type(result) is int:
        return Recipe("constant", constant=result)
    first = args[0] if args else None
    if result is first and isinstance(first, FakeTensor):
        return Recipe("itself")
    # Named tuples are made as plain ones: nobody above the dispatcher sees the difference.
    several = next((kind for kind in (tuple, list) if isinstance(result, kind)), None)
    tensors = result if several else (result,)
    if not all(type(t) is FakeTensor and t.fake_device == CPU for t in tensors):
        return None
    if any(t.constant is not None or t.requires_grad or t.is_complex() for t in tensors):
        return None
    if func.is_view or func.overloadpacket is _UNSAFE_VIEW:
        if not isinstance(first, FakeTensor):
            return None
        storage = first.untyped_storage()._cdata
        same = all(t.untyped_storage()._cdata == storage for t in tensors)
        return (
            Recipe("view", _all_made(tensors, int(first.storage_offset())), several)
            if same
            else None
        )
    if _writes(func) or not _all_own(tensors, args):
        return None
    return Recipe("new", _all_made(tensors), several)


def _all_made(tensors: Sequence[FakeTensor], begin: int = 0) -> tuple[Made, ...]:
    return tuple(
        Made(tuple(t.shape), t.stride(), t.dtype, int(t.storage_offset()) - begin) for t in tensors
    )


_AS_STRIDED = torch.ops.aten.as_strided
_RESIZING = {torch.ops.aten.resize_, torch.ops.aten.set_, torch.ops.aten.resize_as_}
_UNSAFE_VIEW = torch.ops.aten._unsafe_view  # which its schema does not call a view
_INDEX = torch.ops.aten.index.Tensor


def _depends_on_values(func: Any, args: Sequence[Any]) -> bool:
    """Whether values tell the result's shape, as those of a mask do that chooses."""
    if func is _INDEX:
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


def _writes(func: Any) -> bool:
    """Into an argument; one that a result may be, as with ``aten.to``, is only read."""
    return any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments)


def _all_own(tensors: Sequence[FakeTensor], args: Sequence[Any]) -> bool:
    """Whether each has a storage of its own, of the size that its shape says."""
    given = {
        a.untyped_storage()._cdata
        for a in torch.utils._pytree.tree_leaves(list(args))
        if isinstance(a, torch.Tensor)
    }
    storages = [t.untyped_storage() for t in tensors]
    own = {s._cdata for s in storages}
    return (
        len(own) == len(tensors)
        and not own & given
        and all(t.storage_offset() == 0 for t in tensors)
        and all(s.nbytes() == _bytes_of(t) for s, t in zip(storages, tensors, strict=True))
    )


def _bytes_of(tensor: torch.Tensor) -> int:
    """Of a storage that just holds it."""
    if not tensor.numel():
        return 0
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()
