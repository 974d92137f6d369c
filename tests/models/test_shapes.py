"""Shapes from the headers of safetensors files and from parameter files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fitune.errors import ModelError
from fitune.models.shapes import parse_parameter_file, read_json, read_safetensors_shapes

TENSORS = {
    "a.weight": torch.zeros(3, 5),
    "a.bias": torch.zeros(5, dtype=torch.bfloat16),
    "scalar": torch.zeros((), dtype=torch.float64),
}


def test_shapes_of_a_safetensors_file(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = read_safetensors_shapes(tmp_path / "a.safetensors")
    assert dict(found) == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), cut=st.integers(0, 120))
def test_what_is_no_safetensors_file_is_one_sentence(tmp_path: Path, data: bytes, cut: int) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    start = (tmp_path / "a.safetensors").read_bytes()[:cut]
    for content in (data, start):
        (tmp_path / "b.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match="not that of a safetensors file"):
            read_safetensors_shapes(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("record", "shapes"),
    [
        ({"w": [4, 3], "b": [3], "s": []}, {"w": (4, 3), "b": (3,), "s": ()}),
        ({"parameters": 13_000_000_000}, {"parameters": (13_000_000_000,)}),
        ({"parameters": [2, 2]}, {"parameters": (2, 2)}),
        ({"parameters": 5, "other": [1]}, "'parameters' has no shape"),
        ({"parameters": -1}, "no shape"),
        ({"parameters": True}, "no shape"),
        ({"w": [4, 0]}, "'w' has no shape"),
        ({"w": ["4"]}, "'w' has no shape"),
        ({"w": 2.5}, "'w' has no shape"),
        ({"w": [2**60]}, "'w' has no shape"),
        ({}, "holds no parameters"),
        ([], "holds no parameters"),
        (7, "holds no parameters"),
    ],
)
def test_parameter_files(record: Any, shapes: Any) -> None:
    if isinstance(shapes, str):
        with pytest.raises(ModelError, match=shapes):
            parse_parameter_file(record, Path("p.json"))
    else:
        assert parse_parameter_file(record, Path("p.json")) == shapes


@pytest.mark.parametrize("text", ["{", "", "NaN x", "[" * 100_000, "\xff"])
def test_what_is_no_json_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match="is not JSON") as caught:
        read_json(tmp_path / "p.json")
    assert len(str(caught.value)) < 400
    (tmp_path / "p.json").write_text(json.dumps([1]))
    assert read_json(tmp_path / "p.json") == [1]
