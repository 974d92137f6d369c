"""The header of GGUF files, against the `gguf` package and what transformers makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fitune.errors import ModelError
from fitune.models.gguf_header import LONG, read_gguf_header
from gguf_kit import VOCABULARY, write

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_it_says_what_the_package_says(path: Path) -> None:
    header, reader = read_gguf_header(path), gguf.GGUFReader(path)
    shapes = {tensor.name: tuple(tensor.shape.tolist()) for tensor in reader.tensors}
    assert dict(header.tensors) == shapes
    assert header.parameters == VOCABULARY * 64 + 96 * 64
    known = {name for name in reader.fields if not name.startswith("GGUF.")}
    left_out = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.chat_template"}
    assert set(header.fields) == known - left_out
    assert header.lengths["tokenizer.ggml.tokens"] == VOCABULARY > LONG
    assert header.lengths["general.languages"] == 2


def test_the_small_file_tells_transformers_the_same(path: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    (tmp_path / "small.gguf").write_bytes(read_gguf_header(path).small_file())
    assert (tmp_path / "small.gguf").stat().st_size < 8192

    def config(file: Path) -> dict[str, Any]:
        made = AutoConfig.from_pretrained(file.parent, gguf_file=file.name).to_dict()
        return {name: value for name, value in made.items() if name != "_name_or_path"}

    assert config(tmp_path / "small.gguf") == config(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), changed=st.integers(0, 255) | st.none())
def test_a_damaged_file_is_one_sentence(
    path: Path, tmp_path: Path, share: float, changed: int | None
) -> None:
    whole = path.read_bytes()
    end = len(whole) - 96 * 64 * 2 - VOCABULARY * 64 * 4  # of the header, more or less
    at = int(end * share)
    broken = whole[:at] if changed is None else whole[:at] + bytes([changed]) + whole[at + 1 :]
    (tmp_path / "broken.gguf").write_bytes(broken)
    try:
        read_gguf_header(tmp_path / "broken.gguf")
    except ModelError as error:
        assert "\n" not in str(error)
    else:  # a byte of a text or a number, which may be anything
        assert changed is not None
