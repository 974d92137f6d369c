"""Layers by kind, and models with fewer of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fitune.memory.scenario import build_model
from fitune.memory.stacks import (
    Layer,
    everything,
    layers_of_kinds,
    selections,
    stacks_of,
    with_layers,
)
from memory_kit import family, training


def layers(kinds: str) -> list[Layer]:
    return [Layer("layers", index, ord(kind)) for index, kind in enumerate(kinds)]


def kinds(selection_layers: tuple[Layer, ...]) -> str:
    return "".join(chr(layer.kind) for layer in selection_layers)


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ("a" * 30, ["aaa", "aaaa"]),
        ("ddd" + "m" * 58, ["dddmmm", "dddmmmm"]),  # DeepSeek-V3: dense, then experts
        ("f" * 16 + "t" * 16, ["fffttt", "ffffttt", "ffftttt"]),  # frozen, then trained
        ("aaaa", ["aaaa"]),  # nothing to save
    ],
)
def test_a_few_layers_of_each_kind(stack: str, expected: list[str]) -> None:
    chosen = [kinds(selection.layers) for selection in selections(layers(stack))]
    assert chosen == expected


def test_alternating_kinds_keep_both_ends() -> None:
    base, *grown = selections(layers("sssssf" * 10 + "ss"))  # Gemma 3 27B
    assert kinds(base.layers) == "sss" + "fss"
    assert [layer.index for layer in base.layers] == [0, 1, 4, 59, 60, 61]
    assert sorted(kinds(g.layers).count("s") - kinds(base.layers).count("s") for g in grown) == [
        0,
        1,
    ]


@given(st.text(alphabet="abc", min_size=1, max_size=40))
def test_selections_hold_every_kind_and_the_growth_of_each(stack: str) -> None:
    full = everything(layers(stack))
    base, *grown = selections(layers(stack))
    assert {layer.kind for layer in base.layers} == {layer.kind for layer in full.layers}
    for selection in (base, *grown):
        indices = [layer.index for layer in selection.layers]
        assert indices == sorted(set(indices)), "layers keep their order, each once"
    growing = [set(g.layers) - set(base.layers) for g in grown]
    assert all(len(added) == 1 for added in growing)
    added_kinds = {layer.kind for added in growing for layer in added}
    for kind in {layer.kind for layer in full.layers} - added_kinds:
        assert base.count(kind) == full.count(kind), "what does not grow is all there"


@given(st.text(alphabet="ab", min_size=1, max_size=60))
def test_what_is_added_later_in_the_model_stands_beside_its_like(stack: str) -> None:
    """Else what is in between would be counted as often as layers are missing."""
    base, *grown = selections(layers(stack))
    for selection in grown:
        (added,) = set(selection.layers) - set(base.layers)
        at = selection.layers.index(added)
        first = selection.places.index(selection.places[at])
        between = selection.layers[first + 1 : at]
        assert added.kind not in {layer.kind for layer in between}


@pytest.mark.parametrize("name", ["llama", "gemma3", "t5", "bert"])
def test_the_model_keeps_the_selected_layers_and_is_left_as_it_was(name: str) -> None:
    config = family(name, layers=40)
    with torch.device("meta"):
        model = build_model(config, training())
    before = {stack: len(found) for stack, found in stacks_of(model).items()}
    base = selections(layers_of_kinds(model, config))[0]
    smaller = with_layers(model, base)
    kept = {stack: len(found) for stack, found in stacks_of(smaller).items()}
    assert sum(kept.values()) == len(base.layers) < sum(before.values())
    assert {stack: len(found) for stack, found in stacks_of(model).items()} == before


def test_frozen_layers_are_a_kind_of_their_own() -> None:
    from fitune.memory.scenario import apply_method

    config = family("llama", layers=8)
    asked = training(method="freeze", freeze_layers=5)
    with torch.device("meta"):
        model = apply_method(build_model(config, asked), asked)
    found = [layer.kind for layer in layers_of_kinds(model, config)]
    assert found[:5] == [found[0]] * 5 and found[5:] == [found[5]] * 3 and found[0] != found[5]
