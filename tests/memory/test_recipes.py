"""Remembered results of operations: the same as torch's own, asked anew."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from fitune.memory import recipes
from fitune.memory.estimate import estimate_training
from memory_kit import family, training

CASES = [
    ("llama", training(method="lora", dtype="bf16", padded=True)),
    ("gemma3", training(checkpointing=True, micro_batches=2)),
    ("mixtral", training(optimizer="momentum")),
    ("gpt2", training(optimizer="adafactor", dtype="pure-bf16")),
    ("bert", training(method="freeze", freeze_layers=3)),
    ("distilbert", training(padded=True, dtype="bf16")),
    ("t5", training()),
]


@pytest.mark.parametrize(("name", "asked"), CASES, ids=[name for name, _ in CASES])
def test_an_estimate_is_the_same_by_recipes(
    name: str, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = family(name, layers=3)
    recipes._BOOK.clear()
    learning = estimate_training(config, asked)
    assert any(recipe is not None for recipe in recipes._BOOK.values())
    known = len(recipes._BOOK)
    by_recipe = estimate_training(config, asked)
    assert len(recipes._BOOK) == known
    monkeypatch.setattr(recipes, "key_of", lambda *_: None)
    without = estimate_training(config, asked)
    assert learning == by_recipe == without


ATEN = torch.ops.aten
OPERATIONS = [
    (ATEN.mm.default, ((4, 6), (6, 3)), "new"),
    (ATEN.native_layer_norm.default, ((4, 6), [6], (6,), (6,), 1e-5), "new"),
    (ATEN.t.default, ((4, 6),), "view"),
    (ATEN.slice.Tensor, ((4, 6), 0, 1, 3), "view"),
    (ATEN.expand.default, ((1, 6), [5, 6]), "view"),
    (ATEN.split.Tensor, ((4, 6), 3), "view"),
    (ATEN.split_with_sizes.default, ((4, 6), [1, 2, 3], 1), "view"),
    (ATEN.unbind.int, ((2, 6),), "view"),
    (ATEN._unsafe_view.default, ((4, 6), [2, 12]), "view"),
    (ATEN.add_.Tensor, ((4, 6), (4, 6)), "itself"),
    (ATEN.resize_.default, ((4, 6), [9]), None),
    (ATEN.t_.default, ((4, 6),), None),
    (ATEN.contiguous.default, ((4, 6),), "itself"),
    (ATEN.nonzero.default, ((4, 6),), None),
    (ATEN._foreach_mul_.Scalar, ([(4, 6), (3,)], 2.0), "constant"),
    (ATEN.empty.memory_format, ([4, 6],), "new"),
]


@pytest.mark.parametrize(
    ("func", "arguments", "kind"), OPERATIONS, ids=[str(o[0]) for o in OPERATIONS]
)
def test_a_recipe_makes_what_torch_made(func: Any, arguments: Any, kind: str | None) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:

        def tensors(value: Any) -> Any:
            if isinstance(value, tuple):
                return torch.empty(value)
            if isinstance(value, list) and value and isinstance(value[0], tuple):
                return [torch.empty(shape) for shape in value]
            return value

        args = tuple(tensors(value) for value in arguments)
        given = args[0].untyped_storage()._cdata if isinstance(args[0], torch.Tensor) else None
        recipe = None
        try:
            result = func(*args)
        except Exception:  # asks for values
            assert kind is None
            return
        recipe = recipes._recipe(func, args, result)
        assert (recipe.kind if recipe else None) == kind
        if recipe is None or kind == "constant":
            return
        again = recipe.cook(mode, args, {})
        assert isinstance(again, list) == isinstance(result, list)
        pairs = zip(
            result if isinstance(result, tuple | list) else [result],
            again if isinstance(again, tuple | list) else [again],
            strict=True,
        )
        for theirs, ours in pairs:
            assert ours.shape == theirs.shape and ours.stride() == theirs.stride()
            assert ours.dtype == theirs.dtype and ours.device == theirs.device
            assert ours.storage_offset() == theirs.storage_offset()
            assert ours.untyped_storage().nbytes() == theirs.untyped_storage().nbytes()
            assert vars(ours).keys() == vars(theirs).keys()
            assert ours.fake_mode is mode and not ours.requires_grad
            shared = ours.untyped_storage()._cdata == given
            assert shared == (kind in ("view", "itself"))


def test_what_indices_choose_is_known_and_what_a_mask_chooses_is_not() -> None:
    with FakeTensorMode() as mode:
        table, rows = torch.empty(4, 6), torch.zeros(3, dtype=torch.int64)
        args = (table, [rows])
        recipe = recipes._recipe(ATEN.index.Tensor, args, ATEN.index.Tensor(*args))
        assert recipe is not None and recipe.cook(mode, args, {}).shape == (3, 6)
        chosen = torch.empty(3, 6)  # torch has no answer of its own
        assert recipes._recipe(ATEN.index.Tensor, (table, [rows.bool()]), chosen) is None


@given(
    sizes=st.tuples(st.integers(0, 5), st.integers(1, 5)),
    dim=st.sampled_from([0, 1, -1]),
    start=st.none() | st.integers(-9, 9),
    end=st.none() | st.integers(-9, 9) | st.just(2**63 - 1),
    step=st.integers(1, 3),
    begin=st.integers(0, 3),
    turned=st.booleans(),
)
def test_a_slice_is_torch_s(
    sizes: tuple[int, int], dim: int, start: Any, end: Any, step: int, begin: int, turned: bool
) -> None:
    with FakeTensorMode() as mode:
        whole = torch.empty(begin + sizes[0] * sizes[1])[begin:].view(sizes)
        whole = whole.t() if turned else whole
        theirs = ATEN.slice.Tensor(whole, dim, start, end, step)
        ours = recipes.sliced(mode, whole, dim, start, end, step)
        assert ours.shape == theirs.shape and ours.stride() == theirs.stride()
        assert ours.storage_offset() == theirs.storage_offset()
        assert ours.untyped_storage()._cdata == whole.untyped_storage()._cdata


def test_a_view_begins_where_its_tensor_does() -> None:
    with FakeTensorMode() as mode:
        whole = torch.empty(60)
        early, late = whole[:12].view(3, 4), whole[20:32].view(3, 4)
        assert (key := recipes.key_of(ATEN.select.int, (early, 0, 2), {}))
        assert key == recipes.key_of(ATEN.select.int, (late, 0, 2), {})
        recipe = recipes._recipe(ATEN.select.int, (early, 0, 2), early[2])
        assert recipe is not None
        assert recipe.cook(mode, (late, 0, 2), {}).storage_offset() == 28
        # as_strided counts from the storage's beginning
        keys = {recipes.key_of(ATEN.as_strided.default, (t, [2], [1]), {}) for t in (early, late)}
        assert len(keys) == 2


def test_a_result_that_is_given_is_given_back() -> None:
    with FakeTensorMode() as mode:
        a, b = torch.empty(4, 6), torch.empty(6, 3)
        for shape, known in (((4, 3), True), ((2, 2), False)):
            out = torch.empty(shape)
            key = recipes.key_of(ATEN.mm.out, (a, b), {"out": out})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a result that is made larger
                result = ATEN.mm.out(a, b, out=out)
            recipes.remember(key, ATEN.mm.out, (a, b), {"out": out}, result)
            recipe = recipes.look_up(key)
            assert (recipe is not None) == known
            assert recipe is None or recipe.cook(mode, (a, b), {"out": out}) is out


def test_calls_that_differ_have_different_keys() -> None:
    with FakeTensorMode():
        a, b = torch.empty(4, 6), torch.empty(4, 6, dtype=torch.bfloat16)
        turned = torch.empty(6, 4).t()
        keys = [
            recipes.key_of(ATEN.add.Tensor, (a, a), {}),
            recipes.key_of(ATEN.add.Tensor, (a, b), {}),
            recipes.key_of(ATEN.add.Tensor, (a, turned), {}),
            recipes.key_of(ATEN.add.Tensor, (a, 1), {}),
            recipes.key_of(ATEN.add.Tensor, (a, 1.0), {}),
            recipes.key_of(ATEN.add.Tensor, (a, True), {}),
            recipes.key_of(ATEN.add.Tensor, (a, a), {"alpha": 2}),
            recipes.key_of(ATEN.sub.Tensor, (a, a), {}),
        ]
        assert len(set(keys)) == len(keys)


def test_the_default_dtype_is_part_of_the_question() -> None:
    before = torch.get_default_dtype()
    keys = []
    try:
        for dtype in (torch.float32, torch.bfloat16):
            torch.set_default_dtype(dtype)
            keys.append(recipes.key_of(ATEN.ones.default, ([2, 3],), {}))
    finally:
        torch.set_default_dtype(before)
    assert keys[0] != keys[1]


def test_tensors_that_are_not_plain_have_no_key() -> None:
    assert recipes.key_of(ATEN.neg.default, (torch.ones(2),), {}) is None  # real
    with FakeTensorMode():
        for tensor in (
            torch.tensor(3.0),  # its value is known
            torch.empty(2, device="meta"),
            torch.empty(2, dtype=torch.complex64),
        ):
            assert recipes.key_of(ATEN.neg.default, (tensor,), {}) is None
